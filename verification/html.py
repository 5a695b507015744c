"""The report as one HTML page: formulas in Unicode, margins as bars, tables, figures and the kill matrix drawn.

The page loads nothing: no script, no font, no image from elsewhere.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from verification.claim import CLAIMS, Figure, Outcome, Table
from verification.coverage import parts
from verification.planting.fault import FAULTS
from verification.runner import Results

STYLE = """
:root{--ink:#1b1b1b;--soft:#666;--line:#ddd;--good:#2b7a4b;--bad:#b3261e;--warn:#b98900;--paper:#fff;--tint:#f6f6f4}
@media(prefers-color-scheme:dark){:root{--ink:#e8e8e6;--soft:#a0a09c;--line:#3a3a3a;--good:#6fc08f;--bad:#ef8b84;--warn:#d9b44a;
--paper:#191919;--tint:#222}figure{background:#fff}}
body{font:16px/1.5 Georgia,'Times New Roman',serif;color:var(--ink);background:var(--paper);
max-width:64rem;margin:2rem auto;padding:0 1rem}
h1,h2,h3{line-height:1.2}h2{margin-top:2.5rem;border-bottom:1px solid var(--line)}
.formula{font-style:italic;background:var(--tint);padding:.5rem .8rem;margin:.5rem 0;overflow-x:auto}
table{border-collapse:collapse;font-size:.85rem;margin:.8rem 0;display:block;overflow-x:auto}
th,td{padding:.15rem .5rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.good{color:var(--good)}.bad{color:var(--bad)}.soft{color:var(--soft)}
.bar{display:inline-block;width:8rem;height:.7rem;background:var(--tint);border:1px solid var(--line)}
.bar i{display:block;height:100%;background:var(--good)}.bar i.over{background:var(--bad)}
code{font-size:.85em;background:var(--tint);padding:0 .2em}details{margin:.4rem 0}summary{cursor:pointer}
del{color:var(--bad);text-decoration:none}ins{color:var(--good);text-decoration:none}
sub,sup{font-size:.75em;line-height:0}figure{margin:1rem 0;overflow-x:auto}svg{max-width:100%;height:auto}
.matrix td{padding:0;border:1px solid var(--paper);width:1rem;min-width:1rem;height:1rem}
.matrix th{font-weight:normal;border:0;white-space:nowrap}
.matrix th.up{writing-mode:vertical-rl;transform:rotate(180deg);padding:.2rem 0;text-align:left}
.matrix .caught{background:var(--good)}.matrix .survived{background:var(--line)}
.matrix .none{background:var(--tint)}.matrix .error{background:var(--bad)}
"""

CELLS = {"caught": "caught", "survived": "survived", "not executed": "none", "error": "error"}


def write(results: Results, path: Path) -> None:
    """Write the page."""
    path.write_text(page(results), encoding="utf-8")


def page(results: Results) -> str:
    """The page as text."""
    return "\n".join(_parts(results))


def _parts(results: Results) -> Iterator[str]:
    s, problems = results.settings, results.problems()
    yield "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
    yield "<meta name='viewport' content='width=device-width, initial-scale=1'>"
    yield f"<title>Verification of the theory of bSQH</title><style>{STYLE}</style></head><body>"
    yield "<h1>Verification of the theory of bSQH</h1>"
    state = "<b class='bad'>red</b>" if problems else "<b class='good'>green</b>"
    yield (
        f"<p>{len(results.claims)} claims, {len(FAULTS)} planted faults: {state}. Profile {s.profile}, "
        f"{escape(s.backend)}, "
        f"{s.dtype}, seed {s.seed}, {results.seconds:.0f} s on {s.jobs} processes.</p>"
    )
    if problems:
        yield "<ul>" + "".join(f"<li class='bad'>{escape(line)}</li>" for line in problems) + "</ul>"
    if not results.complete:
        yield "<p class='soft'>Only some claims ran: surviving faults and coverage are not judged.</p>"
    yield from _summary(results)
    yield "<h2>Claims</h2>"
    yield from _overview(results)
    for tag in results.claims:
        yield from _claim(results, tag)
    yield "<h2>Kill matrix</h2>"
    yield (
        "<p>Each row is a planted fault, each column a claim in its micro profile. <span class='good'>■</span> caught, "
        "grey: executed and not caught by this claim, blank: the claim never runs the planted code. "
        "Every row and every "
        "column must have a caught cell.</p>"
    )
    yield from _matrix(results)
    yield "<h2>Planted faults</h2>"
    yield from _faults(results)
    yield "<h2>Coverage</h2>"
    yield from _coverage(results)
    yield "</body></html>"


def _summary(results: Results) -> Iterator[str]:
    """What a minute is enough for: what was asked, what was found, where it was close, and what failed."""
    outcomes = {tag: result.outcome for tag, result in results.claims.items() if result.outcome.applicable}
    failed = [tag for tag, o in outcomes.items() if not o.holds]
    instances = sum(o.instances for o in outcomes.values())
    caught = sum(bool(results.caught_by(name)) for name in FAULTS)
    covered = results.covered()
    exercised = sum(bool(tags) for tags in covered.values())
    links = lambda tags: ", ".join(f"<a href='#{tag}'>{tag}</a>" for tag in tags)  # noqa: E731
    close = sorted((tag for tag, o in outcomes.items() if o.bound and o.holds), key=lambda tag: outcomes[tag].margin)
    exact = [tag for tag, o in outcomes.items() if not o.bound and o.holds]
    yield "<h2>In a minute</h2>"
    yield (
        "<p>The theory makes statements about the method; here each is a <i>claim</i>, measured on the code that runs, "
        "against a bound that the theory gives. A claim that could not fail would be worth nothing: so mistakes are "
        "planted in the code, one at a time, and the claims must find them.</p><ul>"
    )
    yield f"<li><b>{len(outcomes) - len(failed)} of {len(outcomes)} claims hold</b>, on {instances:,} drawn instances."
    if failed:
        yield f"<li class='bad'>These fail: {links(failed)}."
    by_these = "" if results.complete else " by the claims that ran"
    yield f"<li><b>{caught} of {len(FAULTS)} planted faults are found</b>{by_these}."
    yield f"<li>{exercised} of {len(covered)} public parts of the core are exercised{by_these}."
    if close:
        nearest = "; ".join(
            f"<a href='#{tag}'>{tag}</a>, {escape(CLAIMS[tag].title)}, uses {100 * (1 - outcomes[tag].margin):.0f} %"
            for tag in close[:3]
        )
        yield f"<li>Nearest to their bounds: {nearest}."
    if exact:
        yield f"<li>Exact, with nothing left to rounding: {links(exact)}."
    yield "</ul><p class='soft'>Below: all claims in a table, then one by one; which claim finds which fault.</p>"


def _overview(results: Results) -> Iterator[str]:
    yield "<table><tr><th>tag<th>claim<th>measured<th><th>bound<th>bound used<th>instances<th>faults<th>seconds</tr>"
    for tag, result in results.claims.items():
        o = result.outcome
        state = "soft" if not o.applicable else "good" if o.holds else "bad"
        yield (
            f"<tr><td><a href='#{tag}' class='{state}'>{tag}</a><td>{escape(CLAIMS[tag].title)}"
            f"<td class='n'>{number(o.measured)}<td>{escape(_sense(o))}<td class='n'>{number(o.bound)}<td>{bar(o)}"
            f"<td class='n'>{o.instances}<td class='n'>{len(results.catches(tag))}"
            f"<td class='n'>{result.seconds:.1f}</tr>"
        )
    yield "</table>"


def _sense(o: Outcome) -> str:
    return "≤" if o.sense == "<=" else "≥"


def bar(o: Outcome) -> str:
    """The used part of the bound as a bar."""
    used = 1 - o.margin
    width = 100 * max(0.0, min(1.0, used)) if math.isfinite(used) else 100
    over = " class='over'" if not o.holds else ""
    return f"<span class='bar' title='margin {number(o.margin)}'><i{over} style='width:{width:.1f}%'></i></span>"


def _claim(results: Results, tag: str) -> Iterator[str]:
    claim, result = CLAIMS[tag], results.claims[tag]
    o = result.outcome
    state = (
        "<span class='soft'>not applicable</span>"
        if not o.applicable
        else ("<span class='good'>holds</span>" if o.holds else "<span class='bad'>fails</span>")
    )
    yield f"<h3 id='{tag}'>{tag}. {escape(claim.title)} — {state}</h3>"
    yield f"<div class='formula'>{typeset(claim.statement)}</div>"
    for paragraph in _docstring(claim.function.__doc__ or ""):
        yield f"<p>{paragraph}</p>"
    if o.applicable:
        yield (
            f"<p>Measured {number(o.measured)} {_sense(o)} {number(o.bound)}, margin {number(o.margin)}, "
            f"in {o.instances} "
            f"instances with {o.checks} checks, {o.failed} failed. Worst: <code>python -m verification --replay "
            f"{escape(o.worst)}</code> ({escape(o.problem)}).</p>"
        )
    for note in o.notes:
        yield f"<p>{escape(note)}</p>"
    if o.error:
        yield f"<pre class='bad'>{escape(o.error)}</pre>"
    for table in o.tables:
        yield from _table(table)
    for k, figure in enumerate(o.figures):
        yield f"<figure>{draw(figure, f'{tag}{k}')}<figcaption>{escape(figure.title)}</figcaption></figure>"
    caught = results.catches(tag)
    if caught:
        yield (
            f"<details><summary>catches {len(caught)} planted faults</summary><ul>"
            + "".join(f"<li>{escape(name)}</li>" for name in caught)
            + "</ul></details>"
        )


def _docstring(text: str) -> Iterator[str]:
    for block in re.split(r"\n\s*\n|\n\s*(?=(?:Hypotheses|Measured):)", text.strip()):
        words = typeset(" ".join(block.split()))
        words = re.sub(r"``([^`]+)``", r"<code>\1</code>", words)
        yield re.sub(r"^(Statement|Hypotheses|Measured):", r"<b>\1.</b>", words)


# A subscript follows one letter or an operator's name, not a word of code: λ_max, u_l, Σ_{k<K}, argmax_w, not eps_min.
SUBSCRIPT = re.compile(
    r"((?:(?:(?<![a-z])|(?<=_[a-z]))[^\W_]|[∂‖])[\u0300-\u036f*]?²?|argmax|limsup|log|inf|min|max|mean|kernel|bias)"
    r"_(\{[^{}]+\}|(?:min|max|inf|end|off|on|ii)(?!\w)|(?:[^\W_]|∞)(?![A-Za-z0-9]))"
)
SUPERSCRIPT = re.compile(r"\^(\{[^{}]+\}|\w+)")


def typeset(text: str) -> str:
    """A formula in Unicode as HTML: what follows _ and ^ below and above the line."""
    found = SUBSCRIPT.sub(lambda m: f"{m[1]}<sub>{m[2].strip('{}')}</sub>", escape(text))
    return SUPERSCRIPT.sub(lambda m: f"<sup>{m[1].strip('{}')}</sup>", found)


def _table(table: Table) -> Iterator[str]:
    yield (
        f"<p class='soft'>{escape(table.title)}</p><table><tr>"
        + "".join(f"<th>{escape(c)}" for c in table.columns)
        + "</tr>"
    )
    for row in table.rows:
        yield "<tr>" + "".join(_cell(v) for v in row) + "</tr>"
    yield "</table>"


def _cell(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"<td class='n'>{number(value)}"
    return f"<td>{escape(str(value))}"


def number(value: float) -> str:
    """A number for the page."""
    value = float(value)
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.4g}".replace("-", "−")
    mantissa, _, exponent = text.partition("e")
    return text if not exponent else f"{mantissa}·10<sup>{exponent.lstrip('+').replace('−0', '−').lstrip('0')}</sup>"


def draw(figure: Figure, prefix: str) -> str:
    """The figure as SVG, drawn by Matplotlib without a window."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context({"svg.hashsalt": prefix, "font.size": 9, "axes.unicode_minus": False}):
        canvas = Canvas(figsize=(7, 3.6), layout="constrained")
        axes = canvas.subplots()
        for curve in figure.curves:
            if curve.style == "points":
                axes.plot(curve.x, curve.y, ".", markersize=3, label=curve.name)
            else:
                step: Any = "steps-post" if curve.style == "steps" else "default"
                axes.plot(curve.x, curve.y, linewidth=1.2, label=curve.name, drawstyle=step)
        axes.set_xscale("log" if figure.log_x else "linear")
        axes.set_yscale("log" if figure.log_y else "linear")
        axes.set_xlabel(figure.x_label)
        axes.set_ylabel(figure.y_label)
        axes.grid(True, alpha=0.3)
        if len(figure.curves) > 1:
            axes.legend(fontsize=8)
        stream = io.StringIO()
        canvas.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    svg = text[text.index("<svg") :]
    return re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)  # several figures share one page


def _matrix(results: Results) -> Iterator[str]:
    tags = list(results.claims)
    yield "<table class='matrix'><tr><th>" + "".join(f"<th class='up'>{tag}" for tag in tags) + "</tr>"
    for name in FAULTS:
        row = [results.cells[tag, name] for tag in tags]
        mark = "" if any(c.state == "caught" for c in row) else " class='bad'"
        yield (
            f"<tr><th{mark}>{escape(name)}"
            + "".join(f"<td class='{CELLS[c.state]}' title='{escape(c.tag)}: {c.state}'>" for c in row)
            + "</tr>"
        )
    yield "</table>"


def _faults(results: Results) -> Iterator[str]:
    for name, fault in FAULTS.items():
        who = results.caught_by(name)
        state = f"caught by {', '.join(who)}" if who else "<span class='bad'>not caught</span>"
        yield f"<details><summary>{escape(name)}: {state}</summary>"
        if fault.why:
            yield f"<p class='soft'>{escape(fault.why)}</p>"
        for edit in fault.edits:
            yield (
                f"<p><code>{escape(edit.target)}</code><br><del><code>{escape(edit.old)}</code></del><br>"
                f"<ins><code>{escape(edit.new)}</code></ins></p>"
            )
        yield "</details>"


def _coverage(results: Results) -> Iterator[str]:
    kinds = {part.name: part.kind for part in parts()}
    covered = results.covered()
    missing = [name for name, tags in covered.items() if not tags]
    yield f"<p>{len(covered) - len(missing)} of {len(covered)} public parts of the core are exercised by a claim.</p>"
    if missing:
        yield "<p class='bad'>Exercised by none: " + ", ".join(escape(n) for n in missing) + "</p>"
    yield "<details><summary>all parts</summary><table><tr><th>part<th>kind<th>exercised by</tr>"
    for name, tags in covered.items():
        yield f"<tr><td><code>{escape(name)}</code><td>{kinds[name]}<td>{', '.join(tags)}</tr>"
    yield "</table></details>"
