// The first page to touch: one weight with its parabola, and a small network that prunes itself. Both are drawings in
// the page; with scripts they move. What is computed here is compared with Python in tests/test_docs_browser.py.
const pmpTouch = (() => {
  // The maximiser of g w − ρ[w ≠ 0] − ε(w − u)²: the top of the parabola if it lies above the point at w = 0.
  const top = (g, u, eps) => u + g / (2 * eps);
  const gain = (g, u, eps, rho, w) => w * (2 * eps * u + g - eps * w) - rho;
  const argmax = (g, u, eps, rho) => (gain(g, u, eps, rho, top(g, u, eps)) > 0 ? top(g, u, eps) : 0);

  // Two inputs, six tanh neurons, two classes; a point is of class 1 in a band across the square. Controls lie in one
  // vector: kernel (6, 2), bias, kernel (2, 6), bias. Biases cost nothing.
  const N = 6, LAST = 240;
  const AT = { b1: 2 * N, k2: 3 * N, b2: 5 * N, end: 5 * N + 2 };
  const penalised = (i) => i < AT.b1 || (i >= AT.k2 && i < AT.b2);
  const grid = Array.from({ length: 64 }, (_, k) => [-1 + (2 * Math.floor(k / 8)) / 7, -1 + (2 * (k % 8)) / 7]);
  const points = grid.map(([a, b]) => ({ a, b, y: Math.abs(a + 0.5 * b) < 0.5 ? 1 : 0 }));
  const start = (rho) => ({
    u: Array.from({ length: AT.end }, (_, i) =>
      i < AT.b1 ? 1.5 * Math.sin(7 * i + 2) : i < AT.k2 ? Math.cos(3 * (i - AT.b1))
        : i < AT.b2 ? 0.7 * Math.sin(5 * (i - AT.k2) + 1) : 0),
    eps: 1, rho, steps: 0, rejections: 0, ended: false,
  });

  const hidden = (u, { a, b }) =>
    Array.from({ length: N }, (_, n) => Math.tanh(u[2 * n] * a + u[2 * n + 1] * b + u[AT.b1 + n]));
  const scores = (u, h) =>
    [0, 1].map((c) => u[AT.b2 + c] + h.reduce((sum, value, n) => sum + u[AT.k2 + c * N + n] * value, 0));
  const softmax = ([s, t]) => { const m = Math.max(s, t), e = [Math.exp(s - m), Math.exp(t - m)]; return e.map((v) => v / (e[0] + e[1])); };
  const kept = (u) => u.filter((v, i) => v !== 0 && penalised(i)).length;
  const loss = (u) => points.reduce((sum, p) => sum - Math.log(softmax(scores(u, hidden(u, p)))[p.y]), 0) / points.length;
  const objective = (u, rho) => loss(u) + rho * kept(u);

  // g = −∇L: costates from the output back.
  const switching = (u) => {
    const g = new Array(AT.end).fill(0);
    for (const p of points) {
      const h = hidden(u, p);
      const prob = softmax(scores(u, h));
      const out = prob.map((q, c) => ((c === p.y) - q) / points.length);
      for (let n = 0; n < N; n++) {
        let inner = 0;
        for (const c of [0, 1]) {
          g[AT.k2 + c * N + n] += out[c] * h[n];
          inner += out[c] * u[AT.k2 + c * N + n];
        }
        inner *= 1 - h[n] * h[n];
        g[2 * n] += inner * p.a;
        g[2 * n + 1] += inner * p.b;
        g[AT.b1 + n] += inner;
      }
      for (const c of [0, 1]) g[AT.b2 + c] += out[c];
    }
    return g;
  };

  // One accepted step of bSQH in full batch with the classic rule: ε ← 1.5 ε after a rejection, 0.8 ε after a step.
  const step = (s) => {
    const g = switching(s.u), J = objective(s.u, s.rho);
    let { eps, rejections } = s;
    for (let trial = 0; trial < 100; trial++) {
      const w = s.u.map((v, i) => argmax(g[i], v, eps, penalised(i) ? s.rho : 0));
      const tau = w.reduce((sum, v, i) => sum + (v - s.u[i]) ** 2, 0);
      if (tau === 0) break;
      const now = objective(w, s.rho);
      if (now - J <= -1e-6 * tau)
        return { ...s, u: w, eps: Math.max(0.8 * eps, 1e-8), J: now, steps: s.steps + 1, rejections };
      eps *= 1.5;
      rejections++;
    }
    return { ...s, eps, rejections, ended: true };
  };

  // --- drawing -------------------------------------------------------------------------------------------------------
  const f = (v, digits = 2) => v.toFixed(digits).replace("-", "−").replace(/^−(0\.?0*)$/, "$1");
  const element = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const slider = (name, least, most, value, change, show = f) => {
    const input = element("input", { type: "range", min: least, max: most, step: (most - least) / 200, value, "aria-label": name });
    const output = element("output", {}, show(value));
    input.addEventListener("input", () => { output.textContent = show(Number(input.value)); change(Number(input.value)); });
    return element("label", {}, element("span", {}, name), input, output);
  };

  const weight = (svg) => {
    const state = { g: 0.4, u: 0.5, eps: 0.5, rho: 0.2 };
    const X = (w) => 240 + 140 * w, Y = (v) => 150 - 220 * v;
    const said = element("p", { class: "said", role: "status" });
    const draw = () => {
      const { g, u, eps, rho } = state, t = top(g, u, eps), w = argmax(g, u, eps, rho);
      const value = (v) => gain(g, u, eps, rho, v);
      const line = Array.from({ length: 121 }, (_, i) => -1.6 + (3.2 * i) / 120).map((v) => `${f2(X(v))},${f2(Y(value(v)))}`).join(" ");
      const edge = Math.sqrt(rho / eps);
      const band = [-edge, edge].map((v) => Math.max(-1.6, Math.min(1.6, v)));
      svg.innerHTML = `<title>${svg.dataset.title}</title><style>${svg.dataset.style}</style>
        <clipPath id="weight-clip"><rect x="16" y="8" width="448" height="262"/></clipPath>
        <rect class="band" x="${f2(X(band[0]))}" y="262" width="${f2(X(band[1]) - X(band[0]))}" height="8"/>
        <path class="axis" d="M16 150H464M240 8V270"/>
        <polyline class="curve" clip-path="url(#weight-clip)" points="${line}"/>
        <circle class="gap" cx="240" cy="${f2(clip(Y(-rho)))}" r="5"/><circle class="hole" cx="240" cy="150" r="5"/>
        <path class="move" d="M${f2(X(u))} 266V${f2(clip(Y(value(u))))}"/>
        <text x="${f2(X(u))}" y="288">u</text>
        <circle class="best" cx="${f2(X(Math.max(-1.6, Math.min(1.6, w))))}" cy="${f2(w ? clip(Y(value(w))) : 150)}" r="7"/>
        <text class="note" x="22" y="24">${w ? "the weight moves to the top" : "the weight jumps to zero"}</text>`;
      said.textContent = `The top lies at ${f(t)} and is worth ε·${f(t)}² = ${f(eps * t * t, 3)}, the price is ρ = ${f(rho, 3)}: `
        + (w ? `the weight goes to ${f(w)}.` : "zero is better.")
        + ` A weight stays where its top is farther from zero than √(ρ/ε) = ${f(edge)}.`;
    };
    const set = (key, map = (v) => v) => (v) => { state[key] = map(v); draw(); };
    const controls = element("div", { class: "controls" },
      slider("g, slope", -1, 1, state.g, set("g")),
      slider("u, where it is", -1, 1, state.u, set("u")),
      slider("ε, price of moving", -1.3, 0.7, Math.log10(state.eps), set("eps", (v) => 10 ** v), (v) => f(10 ** v)),
      slider("ρ, price of being there", 0, 0.6, state.rho, set("rho")));
    svg.parentElement.after(controls, said);
    draw();
  };
  const f2 = (v) => v.toFixed(1);
  const clip = (y) => Math.max(8, Math.min(270, y));

  const pruning = (svg) => {
    let rho = 0.02, s = start(rho), line = [], timer = null;
    const said = element("p", { class: "said", role: "status" });
    const neuron = (n) => [150, 30 + 42 * n], input = (i) => [40, 93 + 84 * i], output = (c) => [260, 93 + 84 * c];
    const edge = ([a, b], [c, d], v) => v === 0 ? `<path class="none" d="M${a} ${b}L${c} ${d}"/>`
      : `<path class="${v > 0 ? "plus" : "minus"}" stroke-width="${f2(Math.min(7, 0.8 + 1.2 * Math.abs(v)))}" d="M${a} ${b}L${c} ${d}"/>`;
    const draw = () => {
      const edges = s.u.map((v, i) => i < AT.b1 ? edge(input(i % 2), neuron(i >> 1), v)
        : i >= AT.k2 && i < AT.b2 ? edge(neuron((i - AT.k2) % N), output(Math.floor((i - AT.k2) / N)), v) : "").join("");
      const nodes = [0, 1].map((i) => `<circle class="node" cx="40" cy="${93 + 84 * i}" r="8"/><circle class="node" cx="260" cy="${93 + 84 * i}" r="8"/>`).join("")
        + Array.from({ length: N }, (_, n) => {
          const idle = (s.u[2 * n] === 0 && s.u[2 * n + 1] === 0) || (s.u[AT.k2 + n] === 0 && s.u[AT.k2 + N + n] === 0);
          return `<circle class="node${idle ? " idle" : ""}" cx="150" cy="${30 + 42 * n}" r="8"/>`;
        }).join("");
      const cells = points.map((p) => {
        const [, q] = softmax(scores(s.u, hidden(s.u, p)));
        return `<rect class="${q > 0.5 ? "one" : "zero"}${(q > 0.5) === (p.y === 1) ? "" : " wrong"}" x="${f2(320 + 17 * Math.round(3.5 * (p.a + 1)))}" y="${f2(12 + 17 * Math.round(3.5 * (1 - p.b)))}" width="15" height="15"/>`;
      }).join("");
      const first = line[0] ?? objective(s.u, rho);
      const curve = line.map((J, i) => `${f2(320 + (135 * i) / LAST)},${f2(262 - (90 * J) / first)}`).join(" ");
      svg.innerHTML = `<title>${svg.dataset.title}</title><style>${svg.dataset.style}</style>${edges}${nodes}${cells}
        <path class="axis" d="M320 168V262H460"/><polyline class="curve" points="${curve}"/>
        <text class="note" x="326" y="180">J</text><text x="438" y="282">steps</text>
        <text class="note" x="28" y="284">${kept(s.u)} of ${4 * N} weights</text>`;
      const right = points.filter((p) => { const [a, b] = scores(s.u, hidden(s.u, p)); return (b > a) === (p.y === 1); }).length;
      const rises = line.filter((J, i) => i > 0 && J >= line[i - 1]).length;
      said.textContent = `Step ${s.steps}: J = ${f(objective(s.u, rho), 3)}, ${kept(s.u)} of ${4 * N} weights, ${right} of 64 points right, `
        + `ε = ${f(s.eps)}; ${s.rejections} trials were rejected, and J rose in ${rises} of ${s.steps} steps.`;
    };
    const again = (value = rho) => { stop(); rho = value; s = start(rho); line = [objective(s.u, rho)]; draw(); };
    const forward = () => { const next = step(s); s = next; if (!next.ended) line.push(next.J); draw(); if (next.ended || s.steps >= LAST) stop(); };
    const stop = () => { clearInterval(timer); timer = null; play.textContent = "Run"; };
    const button = (text, act) => { const b = element("button", { type: "button" }, text); b.addEventListener("click", act); return b; };
    const play = button("Run", () => {
      if (timer) { stop(); return; }
      if (s.steps >= LAST || s.ended) again();
      play.textContent = "Stop";
      timer = setInterval(forward, 40);
    });
    const buttons = element("div", { class: "buttons" }, play, button("One step", () => { stop(); forward(); }), button("Again", () => again()));
    const controls = element("div", { class: "controls" }, buttons, slider("ρ, price of a weight", 0, 0.06, rho, again, (v) => f(v, 3)));
    svg.parentElement.after(controls, said);
    again();
  };

  const wake = () => {
    for (const svg of document.querySelectorAll("svg[data-touch]")) {
      svg.dataset.title = svg.getAttribute("aria-label") || "";
      svg.dataset.style = svg.querySelector("style").textContent;
      ({ weight, pruning })[svg.dataset.touch](svg);
    }
  };
  return { argmax, start, step, switching, objective, kept, points, wake };
})();
pmpTouch.wake();
