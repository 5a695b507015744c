"""The annotated pages show the whole source and nothing else; the built site holds the links it promises."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS / "_ext"))

import formulas  # noqa: E402
import project  # noqa: E402
from split import blocks, split  # noqa: E402

PATHS = project.reading_order()
SPHINX = all(importlib.util.find_spec(name) for name in ("sphinx", "myst_nb", "latex2mathml"))
needs_sphinx = pytest.mark.skipif(not SPHINX, reason="Sphinx is not installed (docs/requirements.txt; make docs)")


def test_every_module_of_the_core_has_its_page() -> None:
    """The reading order names each module of the core, the bounds and the kernels, and each module with claims."""
    wanted = {
        str(p.relative_to(ROOT))
        for folder in ("pmp_ref", "pmp_ref/layers", "pmp_ref/bounds", "pmp_ref/kernels")
        for p in (ROOT / folder).glob("*.py")
        if not p.name.startswith("__")
    }
    assert wanted <= set(PATHS), f"docs/annotated/index.md does not name {sorted(wanted - set(PATHS))}"
    assert {c.path for c in project.claims()} <= set(PATHS)
    assert all((ROOT / path).is_file() for path in PATHS)


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_lost_and_nothing_added(path: str) -> None:
    """Every line that is not blank is in one row, once; code is shown in order and as it stands."""
    source = (ROOT / path).read_text(encoding="utf-8")
    lines = source.splitlines()
    rows = split(source)
    shown = [n for row in rows for n in (*row.prose_lines, *row.code_lines) if lines[n - 1].strip()]
    assert sorted(shown) == [n for n, line in enumerate(lines, start=1) if line.strip()]
    code = [n for row in rows for n in row.code_lines]
    assert code == sorted(code)
    for row in rows:
        kept = [lines[n - 1] for n in row.code_lines if lines[n - 1].strip()]
        assert [line for line in row.code(lines).splitlines() if line.strip()] == kept
    for row in rows:  # prose is the text of its lines, word by word
        words = " ".join(lines[n - 1] for n in row.prose_lines)
        words = re.sub(r'"""|(?<!\S)#(?!\S)', " ", words).split()
        assert (row.comment + " " + row.prose).split() == words or '\\"' in row.prose, row.name


def test_split_of_a_small_source() -> None:
    """Docstrings and whole-line comments go left, pragmas and comments behind code stay right."""
    source = (
        '"""Head."""\n\nx = 1  # stays\n\n# Before.\n@deco\ndef f(a):\n    """Of f.\n\n    More."""\n'
        '    # Inside.\n    return "# no"\n    # noqa\n'
    )
    rows = [(r.name, r.comment.strip(), r.prose, r.code(source.splitlines())) for r in split(source)]
    assert rows == [
        ("", "", "Head.", "x = 1  # stays"),
        ("f", "Before.", "Of f.\n\nMore.", "@deco\ndef f(a):"),
        ("", "Inside.", "", '    return "# no"\n    # noqa'),
    ]


def test_blocks_of_a_docstring() -> None:
    """An indented line is a formula, behind two colons it is code."""
    text = "Text\nmore.\n\n    φ(w) = g w\n\nSo::\n\n    f(x)\n\n* one\n* two\n\n===  ===\na    b\n===  ==="
    found = blocks(text)
    assert [b.kind for b in found] == ["paragraph", "formula", "paragraph", "code", "list", "table"]
    assert found[2].text == "So:"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p_{l+1} of the stage, ‖x_L^s‖_∞ and |w|₀.", ["p_{l+1}", "‖x_L^s‖_∞", "|w|₀"]),
        ("It holds iff J(w) − J(u) ≤ −ητ, by T6 (see L0).", ["J(w) − J(u) ≤ −ητ"]),
        ("a control u; a gain φ(w) − φ(0), and 64 images", ["u", "φ(w) − φ(0)"]),
        ("K_ε(x_l, p_{l+1}, w; u_l) for all l at once", ["K_ε(x_l, p_{l+1}, w; u_l)", "l"]),
        ("(Hessian: ε) in [0, 1], e.g. x (N, …) of images", ["ε", "x (N, …)"]),
        ("for each of 10 s, or a name_with_bars, or x-ray", []),
        ("with λ = ρ/ε; the root √(ρ/ε) by ½λ_max", ["λ = ρ/ε", "√(ρ/ε)", "½λ_max"]),
    ],
)
def test_formulas_are_found_in_prose(text: str, expected: list[str]) -> None:
    """Signs of mathematics make a formula, with the letters and brackets beside them; tags and words stay words."""
    assert [text[start:end] for start, end in formulas.spans(text)] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p_{l+1}", r"p_{l+1}"),
        ("K_ε(·; u)", r"K_\varepsilon(\cdot; u)"),
        ("u ∈ U_ad, ε_min > 0", r"u \in U_{ad}, \varepsilon_{\min} > 0"),
        ("‖w − u‖²_D", r"\Vert w - u\Vert^2_D"),
        ("√(ρa₀/ε)", r"\sqrt{\rho a_0/\varepsilon}"),
        ("C̃ ← max(Ĉ, 0)", r"\tilde{C} \leftarrow\max(\hat{C}, 0)"),
        ("ΣΔH ≠ Σ_i r(w_i)", r"\Sigma\Delta H \ne\sum_i r(w_i)"),
        ("∂_x⟨p, Λ⟩", r"\partial_x\langle p, \Lambda\rangle"),
        ("A*p ≤ 1e-12", r"A^{\ast}p \le10^{-12}"),
        ("‖A^{2^k}‖_F^{2^{−k}}", r"\Vert A^{2^k}\Vert_F^{2^{-k}}"),
        ("|c| > ⅔(3λ³)^¼", r"\vert c\vert> \frac23 (3\lambda^3)^{\frac14}"),
        ("o·stride + t·dilation", r"o\cdot\mathit{stride} + t\cdot\mathit{dilation}"),
    ],
)
def test_formulas_become_latex(text: str, expected: str) -> None:
    assert formulas.latex(text) == expected


def test_few_formulas_are_left_as_text() -> None:
    """Of the words that hold a sign of mathematics fewer than one in twenty is found in no formula."""
    all_words = left = 0
    for path in PATHS:
        for row in split((ROOT / path).read_text(encoding="utf-8")):
            for block in blocks(row.comment) + blocks(row.prose):
                text = re.sub(r"``.+?``|:\w+:`[^`]+`", " ", block.text or " ".join(block.items))
                inside = {n for start, end in formulas.spans(text) for n in range(start, end)}
                for m in re.finditer(r"\S+", text if block.kind in ("paragraph", "list") else ""):
                    if re.search(r"[α-ωΛΣΔΦ²₀-₉≤≥‖⟨]", m[0]):
                        all_words += 1
                        left += not inside & set(range(*m.span()))
    assert all_words > 1000 and left < all_words / 20, (left, all_words)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with warnings as errors."""
    out = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-b",
        "html",
        "-d",
        str(out / "trees"),
        "docs",
        str(out / "html"),
    ]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-4000:]
    return out / "html"


@needs_sphinx
def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    """No script, style, font, picture or frame of any page comes from another place."""
    loads = re.compile(
        r"""<(?:script|img|iframe|source|audio|video|embed|object)\b[^>]*?\b(?:src|data)\s*=\s*["'](?:https?:)?//"""
        r"""|<link\b[^>]*\bhref\s*=\s*["'](?:https?:)?//|url\(\s*["']?(?:https?:)?//|@import"""
    )
    for file in [*site.rglob("*.html"), *site.rglob("*.css"), *site.rglob("*.svg")]:
        found = loads.findall(file.read_text(encoding="utf-8"))
        assert not found, f"{file.relative_to(site)}: {found}"
    assert loads.search('<link rel="stylesheet" href="https://example.org/x.css">')  # the pattern can match


@needs_sphinx
def test_links_inside_the_site(site: Path) -> None:
    """Every link to a page and to an anchor of the site arrives."""
    pages = {p: p.read_text(encoding="utf-8") for p in site.rglob("*.html")}
    anchors = {p: set(re.findall(r'\bid="([^"]+)"', text)) for p, text in pages.items()}
    broken = []
    for page, text in pages.items():
        for target in set(re.findall(r'<a\b[^>]*\bhref="([^"]+)"', text)):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, mark = target.partition("#")
            file = page if not path else (page.parent / path).resolve()
            if file.suffix == ".html" and (file not in pages or (mark and mark not in anchors[file])):
                broken.append(f"{page.relative_to(site)} → {target}")
    assert not broken, broken[:20]


@needs_sphinx
def test_theory_and_code_are_linked(site: Path) -> None:
    """From each statement to its code and its claims, from a docstring to the statement, from a symbol to the table."""
    chapters = {page: (site / f"{page}.html").read_text(encoding="utf-8") for page in project.chapters()}
    sections = project.sections()
    for tag, place in sections.items():
        chapter = chapters[place.page]
        start = chapter.index(f'id="{place.anchor}"')
        section = chapter[start:].split("<h2>")[1]
        assert 'href="../annotated/pmp_ref' in section, f"{tag} has no link to code"
        for claim in project.claims():
            if project.section_of(claim.tag, sections) == tag:
                assert f'href="../{project.docname(claim.path)}.html#{claim.function}"' in section, (tag, claim)
    bsqh, method = ((site / "annotated" / f"pmp_ref.{n}.html").read_text(encoding="utf-8") for n in ("bsqh", "method"))
    assert 'href="../theory/augmentation.html#t8--' in method and 'href="../notation.html#symbol-varepsilon"' in bsqh
    assert re.search(r'href="pmp_ref\.maximise\.html#maximise"', bsqh), "imported names lead to their definition"
    notation = (site / "notation.html").read_text(encoding="utf-8")
    missing = [a for a in set(project.symbols().values()) if f'id="{a}"' not in notation]
    assert not missing
    assert sum(len(re.findall(r'class="[^"]*\bsymbol\b[^"]*"', text)) for text in chapters.values()) > 20


@needs_sphinx
def test_formulas_are_rendered(site: Path) -> None:
    """Every formula of the sources is MathML in the pages, and no LaTeX is left in the text."""
    for page in sorted([*DOCS.glob("*.md"), *DOCS.glob("theory/*.md")]):
        source = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
        source = re.sub(r"`[^`]*`", "", source)
        wanted = len(re.findall(r"\$\$.+?\$\$|\$[^$\n]+\$", source, re.S))
        text = (site / page.relative_to(DOCS).with_suffix(".html")).read_text(encoding="utf-8")
        assert len(re.findall(r"<math\b", text)) >= wanted, page.name
        words = re.sub(r"<(script|style|pre|code|head)\b.*?</\1>|<[^>]*>", " ", text, flags=re.S)
        assert not re.findall(r"\\[a-zA-Z]{2,}|\$\$", words), page.name


@needs_sphinx
def test_no_formula_is_lost_in_translation() -> None:
    """What latex2mathml cannot translate raises, and is not left as LaTeX in the page."""
    from mathml import mathml

    with pytest.raises(ValueError, match="no MathML"):
        mathml(r"\nosuchmacro x", display=False)
    assert "<munder>" in mathml(r"\max_i x_i", display=True)
    assert mathml(r"J(w)-J(u) \le -\eta\tau + \Sigma\Delta H", display=False).count("<math") > 1  # may be broken
    assert "ℝ" in mathml(r"\mathbb R", display=False)


@needs_sphinx
def test_pictures_have_an_alternative_text(site: Path) -> None:
    """For every picture and drawing."""
    count = 0
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for image in re.findall(r"<img\b[^>]*>", text):
            count += 1
            assert re.search(r'alt="[^"]{20,}"', image), f"{page.relative_to(site)}: {image}"
        for drawing in re.findall(r'<svg\b[^>]*class="drawing"[^>]*>', text):
            count += 1
            assert re.search(r'aria-label="[^"]{20,}"', drawing), page.name
    assert count >= 4
