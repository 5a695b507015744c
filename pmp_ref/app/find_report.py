"""The report of a search: the curve of accuracy over size, with its knee, and a table of the family."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pmp_ref import __version__
from pmp_ref.app.figures import Drawn, Ink, blank, in_both, share_axis
from pmp_ref.app.inspect import number, percent
from pmp_ref.app.options import Options, flag, to_json
from pmp_ref.app.report import document, figure, pairs, table
from pmp_ref.files import write_atomically

if TYPE_CHECKING:
    from pmp_ref.app.find import Goal, Member

HEAD = ["network", "weights", "%", "held out", "95 %", "points lost", "training loss", "ρ at the end", ""]

HOW = (
    "Each network begins with the weights of a larger one and is a run of its own, in the directory of its name. "
    "Judged on held-out training images; the test images were looked at once, for the one chosen. Of a family the best "
    "on held-out images is a little worse on others."
)


def write_report(
    directory: Path, options: Options, result: dict[str, Any], goal: Goal, family: list[Member], figures: bool
) -> None:
    """``report.html`` and, with ``figures``, ``curve.png``."""
    drawn = draw(directory, result, goal, family) if figures else None
    write_atomically(directory / "report.html", page(directory, options, result, goal, family, drawn).encode())


def page(
    directory: Path, options: Options, result: dict[str, Any], goal: Goal, family: list[Member], drawn: Drawn | None
) -> str:
    """The page as text."""
    from pmp_ref.accuracy import Accuracy
    from pmp_ref.app.find import answer

    best = next(m for m in family if m.name == result["chosen"])
    images = result["test_images"]
    test = Accuracy(round(result["test_accuracy"] * images), images) if images else "the data set has no test images"
    title = f"Sizes of {options.network or 'a network'} on {Path(options.data).name}"
    text = answer(goal, best, family[0], test)
    return document(
        title,
        [
            f'<p class="soft">Search {escape(directory.name)} of pmp_ref {escape(__version__)}</p>',
            f'<p class="status note">{escape(text[:1].upper() + text[1:])}.</p>',
            "" if drawn is None else figure("curve", drawn),
            "<h2>The family</h2>",
            table(HEAD, [cells(m, family[0], result) for m in family], 1),
            f'<p class="soft">{HOW}</p>',
            "<h2>Settings of the one chosen</h2>",
            pairs({flag(name): value for name, value in to_json(options).items()}, {}),
        ],
    )


def cells(m: Member, dense: Member, result: dict[str, Any]) -> list[str]:
    """A row of the table."""
    low, high = m.held.interval()
    marks = [word for word in ("chosen", "knee") if result[word] == m.name]
    return [
        m.name,
        f"{m.kept:,}",
        f"{100 * m.kept / m.total:.3g}",
        percent(m.held.part),
        f"{100 * low:.1f} to {100 * high:.1f}",
        f"{100 * (dense.correct - m.correct) / m.images:.1f}",
        number(m.loss),
        number(m.rho),
        ", ".join(marks),
    ]


def draw(directory: Path, result: dict[str, Any], goal: Goal, family: list[Member]) -> Drawn:
    """The curve in both colours; the light one is written as ``curve.png``."""
    alt = "Held-out accuracy of each network over its share of the weights, with intervals; knee and choice are marked"
    return in_both(directory / "curve.png", "Accuracy against size", alt, lambda ink: curve(ink, result, goal, family))


def curve(ink: Ink, result: dict[str, Any], goal: Goal, family: list[Member]) -> Any:
    """Held-out accuracy with 95 % intervals over the share of weights, on a logarithmic axis."""
    from pmp_ref.app.find import points as in_points

    made = blank(7.2, 4.2)
    axis = made.subplots()
    points = sorted((m for m in family if m.kept > 0), key=lambda m: -m.kept)
    x = np.array([100 * m.kept / m.total for m in points])
    y = np.array([100 * m.held.part for m in points])
    low, high = (100 * np.array(ends) for ends in zip(*(m.held.interval() for m in points), strict=True))
    axis.errorbar(
        x,
        y,
        yerr=(y - low, high - y),
        color=ink.first,
        marker="o",
        ms=4,
        lw=1.6,
        elinewidth=0.8,
        capsize=2,
        label="held-out images, 95 %",
    )
    if goal.within is not None:
        bound = 100 * family[0].held.part - goal.within
        axis.axhline(bound, color=ink.third, lw=1.0, ls="--", label=f"{in_points(goal.within)} below the dense one")
    for word, marker, colour in (("knee", "D", ink.third), ("chosen", "*", ink.second)):
        for m in points:
            if result[word] == m.name:
                at = 100 * m.kept / m.total, 100 * m.held.part
                axis.plot(
                    *at,
                    ls="",
                    marker=marker,
                    ms=14 if word == "chosen" else 9,
                    mfc="none",
                    mew=1.8,
                    color=colour,
                    label=f"{word}: {m.kept:,} weights",
                )
    if result["test_accuracy"] is not None:
        best = next(m for m in family if m.name == result["chosen"])
        test, (bottom, top) = 100 * result["test_accuracy"], (100 * e for e in result["test_accuracy_interval"])
        axis.errorbar(
            [94 * best.kept / best.total],  # beside the held-out images
            [test],
            yerr=([test - bottom], [top - test]),
            color=ink.second,
            marker="s",
            ms=4,
            ls="",
            elinewidth=0.8,
            capsize=3,
            label="test images, looked at once",
        )
    share_axis(axis)
    axis.invert_xaxis()
    axis.set_xlabel("kept weights (%)")
    axis.set_ylabel("accuracy (%)")
    axis.legend(loc="best")
    return made
