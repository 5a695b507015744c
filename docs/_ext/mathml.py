"""Formulas as MathML, made when the site is built: no script, no request, and a screen reader can read them.

``latex2mathml`` does the translation. What browsers leave to the author is added here: the spacing of signs and
function names, letters of other alphabets as characters of their own, limits below ``max`` and ``sup`` in displayed
formulas, and places where a long formula in the text may be broken, which are those of TeX (relations, then signs).
"""

from __future__ import annotations

import html
import re
from typing import Any
from xml.etree import ElementTree

from docutils import nodes
from latex2mathml.converter import convert

SPACE = "{http://www.w3.org/1998/Math/MathML}"
NAMED_DELIMITERS = {r"\lceil": "⌈", r"\rceil": "⌉", r"\langle": "⟨", r"\rangle": "⟩", r"\Vert": "‖", r"\vert": "|"}
SIZED = re.compile(
    r"(\\(?:big|Big|bigg|Bigg)[lr]?)\s*(" + "|".join(map(re.escape, NAMED_DELIMITERS)) + r")(?![A-Za-z])"
)
LIMITS = {"max", "min", "sup", "inf", "limsup", "liminf", "argmax"}
SIGNS = {"+", "−", "-", "±", "∓"}
RELATIONS = {"=", "≤", "≥", "<", ">", "≠", "∈", "∉", "⊂", "∋", "→", "↦", "≈", "←", ":=", "⇔"}
CLOSING = {")", "]", "}", "⟩", "⌉", "|", "‖", "′", "!"}
LONG = 14  # characters of a formula in the text from which on it may be broken outside brackets,
TOO_LONG = 26  # and of a part of it from which on inside brackets, too


def alphabet(first: int) -> dict[str, str]:
    """A–Z and a–z in an alphabet of the mathematical characters."""
    letters = [chr(c) for c in (*range(65, 91), *range(97, 123))]
    return {letter: chr(first + i) for i, letter in enumerate(letters)}


ALPHABETS = {
    "double-struck": alphabet(0x1D538) | {"R": "ℝ", "N": "ℕ", "C": "ℂ", "Z": "ℤ", "P": "ℙ", "Q": "ℚ", "H": "ℍ"},
    "sans-serif": alphabet(0x1D5A0),
}


def mathml(latex: str, display: bool) -> str:
    """The formula as one ``<math>`` element, or as several between which a line may be broken.

    Raises ValueError if something of it would stay LaTeX.
    """
    source = SIZED.sub(lambda m: m[1] + NAMED_DELIMITERS[m[2]], latex.strip())
    tag = re.search(r"\\tag\{([^}]*)\}", source)
    if tag:
        source = source.replace(tag[0], "")
    result = convert(source, display="block" if display else "inline")
    if "\\" in result or "<merror" in result:
        raise ValueError(f"no MathML for {latex!r}")
    root = ElementTree.fromstring(result)
    for row in list(root.iter()):
        tidy(row, display)
    elements = [root] if display else broken(root)
    ElementTree.register_namespace("", SPACE.strip("{}"))
    text = "<wbr>".join(ElementTree.tostring(e, encoding="unicode") for e in elements if "".join(e.itertext()))
    if tag:
        text += f'<span class="equation-number">({html.escape(tag[1])})</span>'
    return text


def kind(element: ElementTree.Element) -> str:
    """The name of an element without its name space."""
    return element.tag.removeprefix(SPACE)


def core(element: ElementTree.Element) -> ElementTree.Element:
    """The nucleus of an element with indices."""
    while kind(element) in ("msub", "msup", "msubsup", "munder", "mover", "munderover") and len(element):
        element = element[0]
    return element


def tidy(row: ElementTree.Element, display: bool) -> None:
    """Spacing, alphabets and limits of the children of an element."""
    if kind(row) == "mrow" and len(row) > 1 and all(kind(c) == "mi" and c.get("mathvariant") for c in row):
        word = "".join(c.text or "" for c in row)  # \mathit{hi}: one identifier, not letters side by side
        for child in list(row):
            row.remove(child)
        mi = ElementTree.SubElement(row, SPACE + "mi", {"class": "word"})
        mi.text = word
    before: ElementTree.Element | None = None
    for i, child in enumerate(list(row)):
        variant = child.attrib.pop("mathvariant", None) if kind(child) == "mi" else None
        if variant in ALPHABETS:
            child.text = "".join(ALPHABETS[variant].get(c, c) for c in child.text or "")
        if kind(child) == "mi" and child.text == ";":
            child.tag = SPACE + "mo"
            child.set("separator", "true")
        if display and kind(child) == "msub" and kind(child[0]) == "mo" and child[0].text in LIMITS:
            child.tag = SPACE + "munder"
        operator = core(child)
        if kind(operator) == "mo" and kind(row) in ("mrow", "math", "mtd", "msqrt", "mstyle"):
            space(operator, None if before is None else core(before), row[i + 1] if i + 1 < len(row) else None)
        before = child


def space(operator: ElementTree.Element, before: ElementTree.Element | None, after: ElementTree.Element | None) -> None:
    """The space around an operator, as TeX would set it."""
    text = operator.text or ""
    opens = before is None or (kind(before) == "mo" and (before.text or "") not in CLOSING)
    if text in SIGNS:
        operator.set("form", "prefix" if opens else "infix")
    elif text in ("/", "…"):
        operator.set("lspace", "0")
        operator.set("rspace", "0")
    elif text in LIMITS or (len(text) > 1 and text.isalpha()):
        operator.set("form", "prefix")
        operator.set("lspace", "0" if opens else "0.17em")
        fence = after is not None and kind(core(after)) == "mo" and (core(after).text or "") in "([{"
        operator.set("rspace", "0" if after is None or fence else "0.17em")


def broken(root: ElementTree.Element) -> list[ElementTree.Element]:
    """A long formula in the text in parts, cut behind relations, separators and signs outside brackets."""
    while len(root) == 1 and kind(root[0]) == "mrow" and len(root[0]) > 1:
        inner = root[0]
        root.remove(inner)
        root.extend(list(inner))
    if len("".join(root.itertext())) < LONG:
        return [root]
    parts = []
    for part in cut(list(root), outside=True):
        parts += cut(part, outside=False) if len("".join(t for e in part for t in e.itertext())) > TOO_LONG else [part]
    result = []
    for part in parts:
        element = ElementTree.Element(root.tag, dict(root.attrib))
        element.extend(part)
        result.append(element)
    return result


def cut(children: list[ElementTree.Element], outside: bool) -> list[list[ElementTree.Element]]:
    """The children in parts, cut behind operators; ``outside``: only where no bracket is open."""
    parts: list[list[ElementTree.Element]] = [[]]
    depth = 0
    for child in children[:-1]:
        parts[-1].append(child)
        text = (core(child).text or "") if kind(core(child)) == "mo" else ""
        depth += {"(": 1, "[": 1, "{": 1, "⟨": 1, ")": -1, "]": -1, "}": -1, "⟩": -1}.get(text, 0)
        if outside and depth > 0:
            continue
        binary = text in SIGNS and child.get("form") == "infix"
        if text in RELATIONS or text in (",", ";") or binary:
            child.set("form", "infix")
            parts.append([])
        elif kind(child) == "mspace":
            parts.append([])
    parts[-1] += children[-1:]
    return [part for part in parts if part]


def visit_math(translator: Any, node: nodes.math) -> None:
    """Inline formula, with the brackets and stops that must stay on its line."""
    parts = mathml(node.astext(), display=False).split("<wbr>")
    if head := node.get("head"):
        parts[0] = f'<span class="together">{html.escape(head)}{parts[0]}</span>'
    if tail := node.get("tail"):
        parts[-1] = f'<span class="together">{parts[-1]}{html.escape(tail)}</span>'
    translator.body.append("<wbr>".join(parts))
    raise nodes.SkipNode


def visit_math_block(translator: Any, node: nodes.math_block) -> None:
    """Displayed formula; it scrolls by itself where it is wider than the column."""
    translator.body.append(f'<div class="formula" tabindex="0">{mathml(node.astext(), display=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, Any]:
    """Register the renderer ``mathml``."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
