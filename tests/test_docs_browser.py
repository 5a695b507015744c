"""The built site in headless Chromium: nothing from elsewhere, no error, every formula rendered, no text cut off.

Run with ``pytest -m browser``. The tests speak the DevTools protocol over a pipe, so they need Chromium and nothing
else. They skip where Chromium or Sphinx is missing. ``PMP_REF_SCREENSHOTS=DIR`` keeps pictures of the pages.
"""

from __future__ import annotations

import base64
import functools
import http.server
import importlib.util
import json
import os
import select
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmp_ref import L0, WHOLE_LINE, ClassicRule, Dense, Method, Network, Problem, Tanh, solve
from pmp_ref.controls import from_vector, to_vector

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SPHINX = all(importlib.util.find_spec(name) for name in ("sphinx", "myst_nb", "latex2mathml"))

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt install chromium)"),
    pytest.mark.skipif(not SPHINX, reason="Sphinx is not installed (make docs installs it)"),
]

PAGES = (
    "index.html",
    "theory/index.html",
    "theory/setting.html",
    "theory/maximiser.html",
    "theory/method.html",
    "theory/convergence.html",
    "theory/proofs.html",
    "theory/example.html",
    "notation.html",
    "relation-to-the-paper.html",
    "library.html",
    "annotated/index.html",
    "annotated/pmp_ref.bsqh.html",
    "annotated/pmp_ref.regulariser.html",
    "annotated/pmp_ref.layers.layer.html",
    "annotated/pmp_ref.certificate.html",
    "annotated/verification.claims.maximiser.html",
    "backends.html",
    "conformance.html",
    "kernels.html",
    "performance.html",
    "verification.html",
    "users/certificate.html",
    "users/choosing.html",
    "users/first-run.html",
    "users/install.html",
    "users/runge-kutta.html",
    "users/statuses.html",
    "users/tutorial.html",
    "users/pytorch.html",
    "notebooks/first-run.html",
    "notebooks/own-pictures.html",
    "notebooks/reading-a-certificate.html",
    "users/extending.html",
    "developers/architecture.html",
    "developers/conventions.html",
    "developers/releasing.html",
    "search.html?q=augmentation",
)
PHONE, DESK = (390, 844), (1280, 900)

# Text that leaves the page or its box, where the box does not scroll. Boxes 1 px wide are for screen readers.
OVERFLOW = """
(() => {
  const found = [];
  const width = document.documentElement.clientWidth;
  const needed = document.documentElement.scrollWidth;
  if (needed > width) found.push(`page: ${needed} > ${width}`);
  const scrolls = (e) => { for (let a = e; a && a !== document.body; a = a.parentElement)
    if (/auto|scroll/.test(getComputedStyle(a).overflowX)) return true; return false; };
  const columns = [...document.querySelectorAll("article, .prose, .code, td, th, nav.local, header.top")];
  for (const column of columns) {
    const box = column.getBoundingClientRect();
    if (!box.width || scrolls(column)) continue;
    const walker = document.createTreeWalker(column, NodeFilter.SHOW_TEXT);
    for (let text = walker.nextNode(); text; text = walker.nextNode()) {
      const words = text.data.trim().slice(0, 60);
      if (!words || scrolls(text.parentElement)) continue;
      if (text.parentElement.closest(".skip, .headerlink, .lines, script")) continue;
      const range = document.createRange();
      range.selectNodeContents(text);
      for (const r of range.getClientRects())
        if (r.width > 1 && (r.right > box.right + 1.5 || r.left < box.left - 20)) {
          found.push(`${column.className || column.tagName}: “${words}” ${r.right} > ${box.right}`);
          break;
        }
    }
  }
  return [...new Set(found)].slice(0, 10);
})()
"""

# LaTeX that is left in the text outside code, and <math> without size.
UNRENDERED = r"""
(() => {
  const found = [];
  const walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    if (text.parentElement.closest("code, pre, script, style")) continue;
    if (/\$\$?[^$]*\\|\\[a-zA-Z]{2,}|\\\(|\\\[/.test(text.data)) found.push(text.data.trim().slice(0, 80));
  }
  for (const m of document.querySelectorAll("math, merror")) {
    const box = m.getBoundingClientRect();
    const hidden = m.closest("details:not([open])");
    const flat = !hidden && (box.width < 2 || box.height < 2);
    if (m.tagName === "merror" || flat) found.push(`no size: ${m.textContent}`);
  }
  return found.slice(0, 10);
})()
"""


# Chromium reads DevTools messages from descriptor 3 and writes them to 4.
LAUNCH = """
import fcntl, os, sys
read, write = (fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3])
os.dup2(read, 3)
os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """Chromium, spoken to over a pipe. Events are kept in ``events``."""

    def __init__(self, profile: Path) -> None:
        to_child, self.writer = os.pipe()
        self.reader, from_child = os.pipe()
        # Debian's start script needs a home; root needs --no-sandbox.
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--remote-debugging-pipe",
            "--disable-gpu",
            "--hide-scrollbars",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-default-apps",
            "--disable-dev-shm-usage",
            "--mute-audio",
            f"--user-data-dir={profile}",
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(to_child), str(from_child), str(CHROMIUM), *flags, "about:blank"],
            pass_fds=(to_child, from_child),
            env={**os.environ, "HOME": str(profile)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
        os.close(to_child)
        os.close(from_child)
        self.buffer, self.number, self.events = b"", 0, list[dict[str, Any]]()
        self.session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)
        os.close(self.reader)
        os.close(self.writer)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        number = self.number
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.writer, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read(30)
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])
            self.events.append(answer)

    def read(self, seconds: float) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.reader], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"Chromium did not answer within {seconds} s"
            chunk = os.read(self.reader, 1 << 20)
            assert chunk, "Chromium closed the pipe"
            self.buffer += chunk
        message, _, self.buffer = self.buffer.partition(b"\0")
        return dict(json.loads(message))

    def open(self, url: str, size: tuple[int, int], scheme: str) -> None:
        """Load a page and wait until it, its fonts and its scripts are there."""
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=size[0],
            height=size[1],
            deviceScaleFactor=1,
            mobile=size[0] < 500,
        )
        self.call(
            "Emulation.setEmulatedMedia",
            features=[
                {"name": "prefers-color-scheme", "value": scheme},
                {"name": "prefers-reduced-motion", "value": "reduce"},
            ],
        )
        self.call("Page.navigate", url=url)
        for _ in range(300):
            if self.evaluate("document.readyState") == "complete" and self.evaluate("location.href") != "about:blank":
                break
            time.sleep(0.05)
        self.evaluate("document.fonts.ready.then(() => true)")
        if "search" in url:
            self.evaluate("new Promise((done) => setTimeout(() => done(true), 1500))")

    def evaluate(self, expression: str) -> Any:
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def key(self, key: str) -> None:
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=key if len(key) == 1 else "")
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def requests(self) -> list[str]:
        return [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]

    def errors(self) -> list[str]:
        """Whatever the console shows as error or warning, exceptions and requests that failed."""
        found = []
        for e in self.events:
            p = e.get("params", {})
            if e.get("method") == "Runtime.exceptionThrown":
                found.append(str(p["exceptionDetails"].get("text")))
            elif e.get("method") == "Runtime.consoleAPICalled" and p["type"] in ("error", "warning", "assert"):
                found.append(str([a.get("value") for a in p["args"]]))
            elif e.get("method") == "Log.entryAdded" and p["entry"]["level"] in ("error", "warning"):
                found.append(f"{p['entry']['text']} {p['entry'].get('url', '')}")
            elif e.get("method") == "Network.loadingFailed" and not p.get("canceled"):
                found.append(f"failed request: {p['errorText']}")
        return found

    def screenshot(self, path: Path, whole: bool = False) -> None:
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The site, built from the sources and served on this machine."""
    out = tmp_path_factory.mktemp("site")
    subprocess.run([sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", "docs", str(out)], cwd=ROOT, check=True)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(out)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    one = Browser(tmp_path_factory.mktemp("profile"))
    yield one
    one.close()


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["1280", "390"])
@pytest.mark.parametrize("page", PAGES)
def test_page(browser: Browser, site: str, page: str, size: tuple[int, int]) -> None:
    """No request leaves the machine, no console error, no formula unrendered, no text outside its column."""
    browser.open(site + page, size, "light")
    sent = [u for u in browser.requests() if not u.startswith(("data:", "blob:"))]
    assert sent and all(u.startswith(site) for u in sent), [u for u in sent if not u.startswith(site)]
    assert browser.errors() == []
    assert browser.evaluate(UNRENDERED) == []
    assert browser.evaluate(OVERFLOW) == []
    if pictures := os.environ.get("PMP_REF_SCREENSHOTS"):
        name = page.partition(".html")[0].replace("/", "-")
        for scheme in ("light", "dark"):
            browser.open(site + page, size, scheme)
            browser.screenshot(Path(pictures) / f"{name}-{size[0]}-{scheme}.png")


def test_checks_see_faults(browser: Browser, site: str) -> None:
    """The checks above can fail: LaTeX left in the text, a wide line, a foreign request, an error are all seen."""
    browser.open(site + "index.html", PHONE, "light")
    browser.evaluate("document.querySelector('article p').append(' $\\\\frac12$ and \\\\varepsilon')")
    assert browser.evaluate(UNRENDERED) != []
    browser.open(site + "index.html", PHONE, "light")
    browser.evaluate(
        "{const p = document.createElement('p'); p.style.whiteSpace = 'nowrap';"
        " p.textContent = 'wide '.repeat(200); document.querySelector('article').append(p)}"
    )
    assert browser.evaluate(OVERFLOW) != []
    browser.events.clear()
    browser.evaluate("{const i = new Image(); i.src = 'http://192.0.2.1/x.png'; console.error('planted')}")
    browser.evaluate("new Promise((done) => setTimeout(() => done(true), 200))")
    assert any("192.0.2.1" in u for u in browser.requests()) and any("planted" in e for e in browser.errors())


def test_fonts_are_those_of_the_site(browser: Browser, site: str) -> None:
    """Text and formulas use the fonts that come with the site."""
    browser.open(site + "theory/method.html", DESK, "light")
    loaded = browser.evaluate("[...document.fonts].filter((f) => f.status === 'loaded').map((f) => f.family)")
    assert {"STIX Two", "STIX Two Math"} <= {name.strip('"') for name in loaded}


def test_light_and_dark(browser: Browser, site: str) -> None:
    """The page follows the system, and the key d turns it over."""
    brightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    browser.open(site + "index.html", DESK, "light")
    assert min(browser.evaluate(brightness)) > 200
    browser.open(site + "index.html", DESK, "dark")
    assert max(browser.evaluate(brightness)) < 60
    browser.key("d")
    assert min(browser.evaluate(brightness)) > 200
    browser.evaluate("localStorage.clear()")
    shown = """["on-light", "on-dark"].map((name) => [...document.querySelectorAll(`img.${name}`)]
        .filter((image) => getComputedStyle(image).display !== "none").length)"""
    for colour, counts in (("light", (12, 0)), ("dark", (0, 12))):
        browser.open(site + "results.html", DESK, colour)
        assert tuple(browser.evaluate(shown)) == counts
        browser.key("d")
        assert tuple(browser.evaluate(shown)) == counts[::-1]
        browser.evaluate("localStorage.clear()")
    browser.evaluate("localStorage.clear()")


def test_keyboard(browser: Browser, site: str) -> None:
    """ "/" goes to the search field, "m" opens the menu, Escape closes it."""
    browser.open(site + "annotated/pmp_ref.bsqh.html", DESK, "light")
    browser.key("/")
    assert browser.evaluate("document.activeElement.name") == "q"
    browser.key("Escape")
    browser.key("m")
    assert browser.evaluate("getComputedStyle(document.querySelector('nav.menu')).visibility") == "visible"
    browser.key("Escape")
    assert not browser.evaluate("document.documentElement.classList.contains('menu-open')")


def test_search_finds_prose_and_names(browser: Browser, site: str) -> None:
    """Words of a docstring and names of functions are found."""
    for words, page in (("remainder quotient", "theory/"), ("solve", "pmp_ref.library")):
        browser.open(f"{site}search.html?q={words.replace(' ', '+')}", DESK, "light")
        hits = browser.evaluate("[...document.querySelectorAll('ul.search a')].map((a) => a.href)")
        assert any(page in hit for hit in hits), (words, hits)


# What the script of the first page draws, as a file: the weight as it begins, the network after 240 steps.
DRAWN = """
(() => {
  const svg = document.getElementById("touch-NAME");
  const step = [...svg.closest(".figure").nextElementSibling.querySelectorAll("button")]
    .find((b) => b.textContent === "One step");
  for (let i = 0; step && i < 240; i++) step.click();
  const copy = svg.cloneNode(true);
  for (const name of ["role", "aria-label", "data-title", "data-style"]) copy.removeAttribute(name);
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.querySelector("title").textContent = "";
  return copy.outerHTML + "\\n";
})()
"""


@pytest.mark.parametrize("name", ["weight", "pruning"])
def test_without_scripts_the_first_page_shows_what_they_draw(browser: Browser, site: str, name: str) -> None:
    browser.open(site + "index.html", DESK, "light")
    stored = (ROOT / "docs" / "figures" / f"{name}.svg").read_text(encoding="utf-8")
    assert browser.evaluate(DRAWN.replace("NAME", name)) == stored


def test_the_weight_of_the_first_page_is_the_maximiser(browser: Browser, site: str) -> None:
    """Of drawn g, u, ε, ρ, some of them at a draw: the script and the regulariser agree, the jumps included."""
    generator = np.random.default_rng(0)
    g, u = generator.uniform(-1, 1, (2, 400))
    eps, rho = generator.uniform(0.05, 5, 400), generator.uniform(0, 0.6, 400)
    g[:50], u[:50], eps[:50], rho[:50] = 0, 0.5, 1, 0.25  # zero and the top are worth the same: zero
    browser.open(site + "index.html", DESK, "light")
    cases = json.dumps(np.stack([g, u, eps, rho], axis=1).tolist())
    found = browser.evaluate(f"{cases}.map((c) => pmpTouch.argmax(...c))")
    due = [
        float(L0().argmax(np.array(c[1]), np.array(c[0]), c[2], c[3], WHOLE_LINE))
        for c in zip(g.tolist(), u.tolist(), eps.tolist(), rho.tolist(), strict=True)
    ]
    np.testing.assert_allclose(found, due, rtol=1e-14, atol=0)
    assert 50 < sum(w == 0 for w in found) < 350


def test_the_network_of_the_first_page_takes_the_steps_of_the_method(browser: Browser, site: str) -> None:
    """Sixty steps of the script beside those of bSQH from the same controls on the same points, trials rejected too."""
    browser.open(site + "index.html", DESK, "light")
    points = browser.evaluate("pmpTouch.points.map((p) => [p.a, p.b, p.y])")
    states = browser.evaluate(
        "(() => { const s = [pmpTouch.start(0.02)];"
        " for (let i = 0; i < 60; i++) s.push(pmpTouch.step(s[i])); return s; })()"
    )
    x, y = np.array(points)[:, :2], np.array(points)[:, 2].astype(int)
    network = Network((Dense(6), Tanh(), Dense(2)), (2,))
    begin = from_vector(np.array(states[0]["u"]), tuple(tuple(map(np.empty, s)) for s in network.control_shapes))
    problem = Problem(network, rho=0.02)
    method = Method.full_batch(rule=ClassicRule(eps0=1.0, sigma=1.5, zeta=0.8))
    steps: list[Any] = []
    solution = solve(
        problem,
        x,
        y,
        controls=begin,
        method=method,
        steps=60,
        callback=lambda it, r: steps.append((to_vector(it.controls), r)),
    )
    assert solution.success
    taken = [(u, r) for u, r in steps if r.verdict == "accepted"]
    rejections = sum(r.verdict == "rejected" for _, r in steps)
    assert states[-1]["rejections"] == rejections > 10
    for state, (u, r) in zip(states[1:], taken, strict=True):
        np.testing.assert_allclose(state["u"], u, rtol=1e-8, atol=1e-10)
        np.testing.assert_array_equal(np.array(state["u"]) == 0, u == 0)
        assert state["J"] == pytest.approx(r.J, rel=1e-10)


def test_sliders_and_buttons_of_the_first_page(browser: Browser, site: str) -> None:
    """The weight jumps as ρ passes its top; a price of zero keeps all weights of the network."""
    browser.open(site + "index.html", PHONE, "dark")
    said = "document.querySelector('#touch-NAME').closest('.figure').nextElementSibling.nextElementSibling.textContent"
    move = (
        "(() => { const i = document.querySelector('#touch-NAME').closest('.figure').nextElementSibling"
        ".querySelector('label:last-child input'); i.value = VALUE; i.dispatchEvent(new Event('input')); })()"
    )
    assert "goes to 0.90" in browser.evaluate(said.replace("NAME", "weight"))
    browser.evaluate(move.replace("NAME", "weight").replace("VALUE", "0.45"))
    assert "zero is better" in browser.evaluate(said.replace("NAME", "weight"))
    browser.evaluate(move.replace("NAME", "pruning").replace("VALUE", "0"))
    browser.evaluate(DRAWN.replace("NAME", "pruning"))
    assert "Step 240" in browser.evaluate(said.replace("NAME", "pruning"))
    assert "24 of 24 weights" in browser.evaluate(said.replace("NAME", "pruning"))
    assert browser.errors() == []
