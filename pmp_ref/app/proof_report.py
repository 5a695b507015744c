"""The report's section on the proof of a run: numbers, a picture, and the steps that are not proven."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from pmp_ref.app.figures import Drawn, Ink, blank, in_both
from pmp_ref.app.proof_file import number

SHOWN = 50  # steps that are not proven, by name


def ends(step: dict[str, Any], name: str) -> tuple[float, float]:
    """An interval of a step."""
    low, high = step[name]
    return number(low), number(high)


def proof_picture(directory: Path, content: dict[str, Any]) -> Drawn:
    """The picture in both colours; the light one is written as ``proof.png``."""
    alt = (
        "Proven descent J(u) − J(w) of every step as a band from the lower to the upper end of its enclosure, with the "
        "descent that the test asks for; undecided and refuted steps are marked"
    )
    return in_both(
        directory / "proof.png", "Proven descent, step by step", alt, lambda ink: band(ink, content["steps"])
    )


def band(ink: Ink, steps: list[dict[str, Any]]) -> Any:
    """J(u) − J(w) and what the test asks for, on a logarithmic axis; the width of the enclosure below."""
    figure = blank(7.2, 5.0)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    at = np.array([s["step"] for s in steps])
    rise = np.array([ends(s, "delta_J") for s in steps])
    asked = -np.array([ends(s, "bound")[0] for s in steps])
    low, high = -rise[:, 1], -rise[:, 0]
    floor = min((float(v) for v in (*low[low > 0], *asked[asked > 0])), default=1e-12) / 3
    top.fill_between(
        at, np.maximum(low, floor), np.maximum(high, floor), color=ink.first, lw=0.8, label="J(u) − J(w), enclosed"
    )
    top.plot(at, np.maximum(asked, floor), color=ink.second, lw=0.9, label="what the test asks for")
    for verdict, marker, colour in (("undecided", "o", ink.second), ("refuted", "X", ink.negative)):
        chosen = np.array([s["verdict"] == verdict for s in steps])
        if chosen.any():
            label = f"{verdict} ({int(chosen.sum())})"
            top.plot(at[chosen], np.maximum(high[chosen], floor), ls="", marker=marker, ms=6, color=colour, label=label)
    top.set_yscale("log")
    top.set_ylabel("descent")
    top.legend()
    width = rise[:, 1] - rise[:, 0]
    shown = np.isfinite(width) & (width > 0)
    bottom.plot(at[shown], width[shown], color=ink.third, lw=0.9, label="width of the enclosure")
    if shown.any():
        bottom.set_yscale("log")
    bottom.set_ylabel("width")
    bottom.set_xlabel("accepted step")
    bottom.legend()
    return figure


def proof_part(content: dict[str, Any], picture: Drawn | None) -> str:
    """The section as HTML."""
    from pmp_ref.app.report import figure, table

    steps, c, final = content["steps"], content["counts"], content["final"]
    widths = [b - a for a, b in (ends(s, "delta_J") for s in steps)]
    whole = len(steps) == content["accepted_steps"]
    parts = [
        "<h2>Proof</h2>",
        f"<p>{c['proven']} of {len(steps)} {'accepted' if whole else 'examined'} steps are proven, {c['undecided']} "
        f"undecided, {c['refuted']} refuted: for the exact values of J at the controls of each step, enclosed in "
        f"interval arithmetic, the inequality of the {content['test']['kind']} test holds with η = "
        f"{content['test']['eta']}, and the new control maximises the augmented Hamiltonian at the resolution of the "
        "run's floating point numbers.</p>",
    ]
    if not whole:
        parts.append(f"<p>{content['accepted_steps']} steps were accepted; the others were not examined.</p>")
    if content["replay"]:
        parts.append("<p>The steps are those of this run: a replay repeated it bit for bit.</p>")
    if steps:
        distance, width = (max(number(s["switching"][name]) for s in steps) for name in ("distance", "width"))
        deficit = max(number(s["maximiser"]["deficit"]) for s in steps)
        ties = sum(s["maximiser"]["ties"] for s in steps)
        parts.append(
            f'<p class="soft">Widest enclosure of J(w) − J(u): {max(widths):.2g}. Largest distance of a switching '
            f"function as computed from its enclosure, relative: {distance:.2g}; width of these enclosures: at most "
            f"{width:.2g}. Largest deficit of a maximiser: {deficit:.2g} units of rounding; ties: {ties}.</p>"
        )
    made = [s["identity"]["verdict"] for s in steps if s["identity"]]
    if made:
        parts.append(
            f"<p>The identity J(w) − J(u) = −ΣΔH + remainder was enclosed from both sides for {len(made)} steps: "
            f"{made.count('proven')} agree, {made.count('undecided')} are undecided (too long a step for the jets of "
            f"the remainder), {made.count('refuted')} disagree.</p>"
        )
    if "reason" in final:
        parts.append(f"<p>No interval of ε* of the last control: {escape(final['reason'])}.</p>")
    else:
        low, high = ends(final, "eps_star")
        parts.append(
            f"<p>ε* of the last control lies in [{low!r}, {high!r}], on all {final['samples']:,} training images, "
            f"up to residuals of norm at most {ends(final, 'residual')[1]:.6g}.</p>"
        )
    if picture is not None:
        parts.append(figure("proof", picture))
    open_ = [s for s in steps if s["verdict"] != "proven"]
    if open_:
        head = ["verdict", "descent", "maximiser", "step", "J(w) − J(u) from", "to", "bound", "missing width"]
        rows = [
            [
                s["verdict"],
                s["descent"],
                s["maximiser"]["verdict"],
                str(s["step"]),
                *(f"{v:.9g}" for v in (*ends(s, "delta_J"), ends(s, "bound")[0], number(s["missing"]))),
            ]
            for s in open_[:SHOWN]
        ]
        parts.append("<h3>Steps that are not proven</h3>" + table(head, rows, 3))
        if len(open_) > SHOWN:
            parts.append(f"<p>and {len(open_) - SHOWN} more, see proof.json</p>")
    return "\n".join(parts)
