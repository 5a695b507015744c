"""``report.html``: one file without links to others, readable on a phone, in light and dark."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmp_ref.app.diagnosis import BAD, GOOD, NOTE, Finding, from_json
from pmp_ref.app.inspect import GAP_HEAD, HEAD, control_rows, entry, gap_rows, number, percent
from pmp_ref.app.options import Options, flag, to_json
from pmp_ref.certificate import DECADES

if TYPE_CHECKING:
    from pmp_ref.app.figures import Drawn

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --card: #f4f6f9; --text: #1c2430; --faint: #d5dae2; --soft: #56606f;
  --good: #157a5c; --bad: #b3261e; --note: #b26a00; }
@media (prefers-color-scheme: dark) { :root { --paper: #151a21; --card: #1e252f; --text: #e4e8ee; --faint: #3a424f;
  --soft: #a3adba; --good: #5fd1a8; --bad: #ff8a80; --note: #f2b35c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 1.2rem; background: var(--paper); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p { margin: .4rem 0; } .soft { color: var(--soft); }
.status { border-left: 5px solid var(--good); background: var(--card); padding: .6rem .9rem; border-radius: 4px; }
.status.note { border-color: var(--note); } .status.bad { border-color: var(--bad); }
.found { list-style: none; padding: 0; }
.found li { border-left: 5px solid var(--good); padding: .15rem .7rem; margin: .45rem 0; }
.found .note { border-color: var(--note); } .found .bad { border-color: var(--bad); }
.notice { color: var(--bad); font-weight: 600; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .7rem; margin: 1rem 0; }
.tile { background: var(--card); border-radius: 8px; padding: .7rem .9rem; }
.tile b { display: block; font-size: 1.45rem; line-height: 1.25; } .tile span { color: var(--soft); font-size: .85rem; }
@media (min-width: 46rem) { .tiles { grid-template-columns: repeat(3, 1fr); } }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .28rem .55rem; border-bottom: 1px solid var(--faint); text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; } .left { text-align: left; }
.pairs td, .pairs th { white-space: normal; text-align: left; }
figure { margin: 1.2rem 0; }
figure img { width: 100%; height: auto; border: 1px solid var(--faint); border-radius: 8px; }
figcaption { font-weight: 600; margin-bottom: .3rem; }
""".strip()


def report(
    directory: Path,
    options: Options,
    summary: dict[str, Any],
    certificate: dict[str, Any] | None,
    figures: dict[str, Drawn],
    proof: str = "",
) -> str:
    """The page as text; ``proof`` is the section on the proof of the run, if there is one."""
    network = options.network or Path(str(options.start)).name
    title = f"{network} on {Path(options.data).name}, {options.regulariser.upper()}, ρ = {options.rho:g}"
    found = from_json(summary.get("diagnosis"))
    return document(
        title,
        [
            f'<p class="soft">Run {escape(directory.name)} of pmp_ref {escape(summary["versions"]["pmp_ref"])}, '
            "trained by the batch sequential quadratic Hamiltonian method</p>",
            f'<p class="notice">{escape(options.notice)}</p>' if options.notice else "",
            f'<p class="status {worst(found)}"><b>{escape(summary["status"])}</b>: {escape(summary["message"])}</p>',
            tiles(summary),
            diagnosis_part(found),
            *(figure(name, drawn) for name, drawn in figures.items()),
            certificate_part(certificate) if certificate else "",
            proof,
            "<h2>Summary</h2>",
            pairs(summary, summary["reasons"]),
            "<h2>Settings</h2>",
            pairs({flag(name): value for name, value in to_json(options).items()}, {}),
        ],
    )


def document(title: str, parts: list[str]) -> str:
    """A page of its own with these parts under its title, without the empty ones."""
    lines = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        "</head>",
        "<body>",
        f"<h1>{escape(title)}</h1>",
        *parts,
        "</body>",
        "</html>",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def tiles(summary: dict[str, Any]) -> str:
    """The numbers one looks for first."""
    interval = summary["test_accuracy_interval"]
    violations = summary["descent_violations"]
    shown = [
        (
            percent(summary["test_accuracy"]),
            "test accuracy" + (f", 95 %: {100 * interval[0]:.1f} to {100 * interval[1]:.1f}" if interval else ""),
        ),
        (
            percent(summary["kept_fraction"]),
            f"weights kept: {summary['kept_weights']:,} of {summary['total_weights']:,}",
        ),
        (number(summary["train_loss"]), "training loss"),
        (number(summary["epsilon_star"]), "ε*, smallest augmentation at which the maximum principle holds"),
        (
            "–" if violations is None else f"{violations} of {summary['descent_checked']}",
            "accepted steps found violating descent in float64",
        ),
        (f"{summary['seconds']:.0f} s", f"{summary['accepted_steps']} steps, {summary['rejections']} rejections"),
    ]
    return (
        '<div class="tiles">'
        + "".join(f'<div class="tile"><b>{escape(big)}</b><span>{escape(small)}</span></div>' for big, small in shown)
        + "</div>"
    )


def worst(found: list[Finding]) -> str:
    """The level that the page shows: green only if all is well."""
    levels = {f.level for f in found}
    return next((level for level in (BAD, NOTE, GOOD) if level in levels), NOTE)


def diagnosis_part(found: list[Finding]) -> str:
    """What went well or not, and what to do."""
    if not found:
        return ""
    lines = "".join(
        f'<li class="{f.level}">' + " ".join(escape(sentence_case(t)) + "." for t in (f.seen, f.do) if t) + "</li>"
        for f in found
    )
    return f'<h2>What went well, what did not</h2><ul class="found">{lines}</ul>'


def sentence_case(text: str) -> str:
    """With a capital where the first letter is one that has it; ε and ρ stay."""
    return text[:1].upper() + text[1:] if text[:1].isascii() else text


def figure(name: str, drawn: Drawn) -> str:
    """A figure with its title and alternative text, embedded in light and dark."""
    light, dark = (f"data:image/png;base64,{base64.b64encode(png).decode()}" for png in (drawn.light, drawn.dark))
    return (
        f'<figure id="{escape(name)}"><figcaption>{escape(drawn.title)}</figcaption><picture>'
        f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" alt="{escape(drawn.alt)}" loading="lazy"></picture></figure>'
    )


def certificate_part(c: dict[str, Any]) -> str:
    """The certificate by control, and the table of gaps."""
    powers = [f"10⁻{str(k).translate(str.maketrans('0123456789', '⁰¹²³⁴⁵⁶⁷⁸⁹'))}" for k in DECADES]
    return "\n".join(
        [
            "<h2>Certificate</h2>",
            f"<p>In float64 on the {c['images']} training images at ρ = {entry(c, 'rho')}. The controls satisfy the "
            f"maximum principle with augmentation ε* = {entry(c, 'eps_star')} and every larger one, "
            f"up to the residuals {entry(c, 'residual_support')} on the support and "
            f"{entry(c, 'residual_unpenalised')} on unpenalised controls. Gap of the augmented principle at "
            f"ε = {entry(c, 'eps')}: {entry(c, 'augmented_gap')}.</p>",
            '<p class="soft">Gap of the principle without augmentation: '
            f"{entry(c, 'plain_gap')}. "
            "Under L0 it does not vanish at minimisers either: an entry with nonzero switching function has an "
            "unbounded Hamiltonian unless its values are bounded.</p>",
            table(HEAD, control_rows(c), 4),
            '<p class="soft">free: not penalised; dead: filters or neurons without a weight</p>',
            "<h2>Entries (%) whose augmented gap is at most</h2>",
            table([*GAP_HEAD, *powers], gap_rows(c), 3),
        ]
    )


def table(head: list[str], rows: list[list[str]], left: int) -> str:
    """A table that scrolls sideways on its own; the first ``left`` columns are text."""
    mark = lambda i: ' class="left"' if i < left else ""  # noqa: E731
    lines = "".join(
        "<tr>" + "".join(f"<td{mark(i)}>{escape(c)}</td>" for i, c in enumerate(row)) + "</tr>" for row in rows
    )
    titles = "".join(f"<th{mark(i)}>{escape(h)}</th>" for i, h in enumerate(head))
    return f'<div class="wide"><table><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table></div>'


def pairs(values: dict[str, Any], reasons: dict[str, str]) -> str:
    """Names and values in two columns; the reason where a value is undefined."""
    lines = []
    for name, value in values.items():
        if name in ("reasons", "message"):
            continue
        if isinstance(value, list):
            text = ", ".join(number(v) if isinstance(v, float) else str(v) for v in value) or "none"
        elif isinstance(value, dict):
            text = ", ".join(f"{k} {v}" for k, v in value.items())
        else:
            text = number(value) if isinstance(value, float) else "none" if value is None else str(value)
        if name in reasons:
            text = f"undefined: {reasons[name]}"
        lines.append(f'<tr><th class="left">{escape(name)}</th><td>{escape(text)}</td></tr>')
    return f'<table class="pairs"><tbody>{"".join(lines)}</tbody></table>'
