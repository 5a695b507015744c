// Menu, light and dark, keys. Nothing here is needed to read a page.
(() => {
  const root = document.documentElement;
  const menu = document.querySelector("nav.menu");
  const button = document.querySelector("button.menu");
  const search = document.querySelector("form.search input");

  const toggleMenu = (open) => {
    const now = open ?? !root.classList.contains("menu-open");
    root.classList.toggle("menu-open", now);
    button.setAttribute("aria-expanded", String(now));
    if (now) (menu.querySelector("a.current") || menu.querySelector("a"))?.focus({ preventScroll: false });
  };
  button.addEventListener("click", () => toggleMenu());
  document.querySelector("main").addEventListener("click", () => {
    if (root.classList.contains("menu-open")) toggleMenu(false);
  });

  const toggleTheme = () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("pmp-theme", root.dataset.theme); } catch {}
  };
  document.querySelector("button.theme").addEventListener("click", toggleTheme);

  const go = (rel) => document.querySelector(`nav.around a[rel=${rel}]`)?.click();
  document.addEventListener("keydown", (e) => {
    if (e.key === "Escape") { toggleMenu(false); document.activeElement?.blur?.(); return; }
    if (e.ctrlKey || e.metaKey || e.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName)) return;
    // Arrow keys belong to a box that scrolls, if one has the focus.
    const scrolls = document.activeElement?.scrollWidth > document.activeElement?.clientWidth;
    const action = { "/": () => search.focus(), m: () => toggleMenu(), d: toggleTheme }[e.key]
      || (!scrolls && { ArrowLeft: () => go("prev"), ArrowRight: () => go("next") }[e.key]);
    if (action) { e.preventDefault(); action(); }
  });

  // Mark the section in view in the list of the page.
  const entries = [...document.querySelectorAll("nav.local a[href^='#']")]
    .map((a) => [a, document.getElementById(decodeURIComponent(a.hash.slice(1)))]).filter(([, s]) => s);
  if (entries.length) {
    const mark = () => {
      let current = entries[0][0];
      for (const [a, s] of entries) if (s.getBoundingClientRect().top < 140) current = a;
      for (const [a] of entries) a.classList.toggle("here", a === current);
    };
    addEventListener("scroll", mark, { passive: true });
    mark();
  }
})();
