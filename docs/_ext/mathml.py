"""Formulas as MathML, made when the site is built: no script, no request, and a screen reader can read them."""

from __future__ import annotations

import html
import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

NAMED_DELIMITERS = {r"\lceil": "⌈", r"\rceil": "⌉", r"\langle": "⟨", r"\rangle": "⟩", r"\Vert": "‖", r"\vert": "|"}
SIZED = re.compile(r"(\\(?:big|Big|bigg|Bigg)[lr]?)\s*(" + "|".join(map(re.escape, NAMED_DELIMITERS)) + r")(?![A-Za-z])")
WORD = re.compile(r"<mrow>((?:<mi mathvariant=\"italic\">[^<]</mi>){2,})</mrow>")
LIMITS = re.compile(
    r"<msub>(<mo>(?:argmax|max|min|sup|inf|limsup|liminf)</mo>)(<m[in]>[^<]*</m[in]>|<mrow>(?:(?!</?mrow).)*</mrow>)</msub>"
)


def mathml(latex: str, display: bool) -> str:
    """The formula as a ``<math>`` element. Raises ValueError if something of it would stay LaTeX."""
    source = SIZED.sub(lambda m: m[1] + NAMED_DELIMITERS[m[2]], latex.strip())
    tag = re.search(r"\\tag\{([^}]*)\}", source)
    if tag:
        source = source.replace(tag[0], "")
    if re.search(r"(?<!\\)\\\\", source) and r"\begin" not in source or "\n" in source and r"\\" in source:
        source = source if r"\begin" in source else r"\begin{aligned}" + source + r"\end{aligned}"
    result = convert(source, display="block" if display else "inline")
    if "\\" in result or "<merror" in result:
        raise ValueError(f"no MathML for {latex!r}")
    # A word in \mathit is one identifier, not letters side by side; single letters are italic of their own.
    result = WORD.sub(lambda m: "<mi class=\"word\">" + re.sub(r"<[^>]*>", "", m[1]) + "</mi>", result)
    result = result.replace(' mathvariant="italic"', "").replace("<mi>;</mi>", '<mo separator="true">;</mo>')
    if display:
        result = LIMITS.sub(_below, result)
    if tag:
        result += f'<span class="equation-number">({html.escape(tag[1])})</span>'
    return result


def _below(m: re.Match[str]) -> str:
    """The subscript of max, sup, … below it."""
    return f"<munder>{m[1]}{m[2]}</munder>"


def visit_math(translator: Any, node: nodes.math) -> None:
    """Inline formula."""
    translator.body.append(mathml(node.astext(), display=False))
    raise nodes.SkipNode


def visit_math_block(translator: Any, node: nodes.math_block) -> None:
    """Displayed formula; it scrolls by itself where it is wider than the column."""
    translator.body.append(f'<div class="formula" tabindex="0" role="group">{mathml(node.astext(), display=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, Any]:
    """Register the renderer ``mathml``."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
