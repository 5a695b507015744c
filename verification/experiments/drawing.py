"""What several experiments share: fewer images, curves over sweeps, curves of several seeds in one line and a band."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pmp_ref.app.build import Setup
from verification.experiments.experiment import lookup
from verification.experiments.training import sparse

# Told apart by colour and, where single points are shown, by marker.
STYLES: tuple[dict[str, Any], ...] = (
    {"color": "C0", "ls": "-", "marker": "o"},
    {"color": "C1", "ls": "-", "marker": "s"},
    {"color": "C2", "ls": "-", "marker": "^"},
    {"color": "C3", "ls": "-", "marker": "D"},
)
QUICK = {False: "", True: "quick-"}  # rows of the quick version have names of their own
PLACES = 60  # at which a line is drawn: more are not seen, and the file grows
Curve = tuple[Sequence[float], Sequence[float]]


def first_of_each_class(labels: np.ndarray, count: int, classes: int) -> np.ndarray:
    """Indices of the first ``count`` images of each class, in the order of the file."""
    return np.sort(np.concatenate([np.flatnonzero(labels == k)[:count] for k in range(classes)]))


def fewer_images(per_class: int) -> Callable[[Setup], Setup]:
    """A change of a run's setup: the first ``per_class`` images of each class are trained on."""

    def change(setup: Setup) -> Setup:
        index = first_of_each_class(setup.y, per_class, setup.dataset.classes)
        return replace(setup, x=setup.x[index], y=setup.y[index])

    return change


def grouped(results: Iterable[dict[str, Any]], *names: str) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Stored rows by the values of these columns, in the order in which the values first come."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for stored in results:
        found.setdefault(tuple(lookup(stored, name) for name in names), []).append(stored)
    return found


def numbers(values: Iterable[Any]) -> np.ndarray:
    """Floats, NaN for None."""
    return np.array([math.nan if v is None else float(v) for v in values])


def spread(results: Iterable[dict[str, Any]], name: str) -> tuple[float, float, float]:
    """(smallest, median, largest) of a column over stored rows; NaN where no row has it."""
    values = numbers(lookup(stored, name) for stored in results)
    values = values[np.isfinite(values)]
    if not values.size:
        return math.nan, math.nan, math.nan
    return float(values.min()), float(np.median(values)), float(values.max())


def at(curve: Curve, where: np.ndarray) -> np.ndarray:
    """The curve at ``where``: its last value not to the right; NaN before its start and after its end."""
    x, y = numbers(curve[0]), numbers(curve[1])
    if not x.size:
        return np.full(where.shape, math.nan)
    index = np.searchsorted(x, where, side="right") - 1
    values = y[np.maximum(index, 0)]
    return np.where((index >= 0) & (where <= x[-1]), values, math.nan)


def band(
    axis: Any, curves: Sequence[Curve], style: dict[str, Any], label: str | None, fill: bool = True, **more: Any
) -> None:
    """Median of the curves as a line, smallest to largest value as a band, where all of them are defined."""
    places = np.unique(np.concatenate([numbers(x) for x, _ in curves]))
    places = places[sparse(places.size, PLACES)]
    values = np.stack([at(curve, places) for curve in curves])
    whole = np.isfinite(values).all(axis=0)
    places, values = places[whole], values[:, whole]
    if not places.size:
        return
    if len(curves) > 1 and fill:
        few = sparse(places.size, PLACES // 2)
        low, high = values.min(axis=0)[few], values.max(axis=0)[few]
        axis.fill_between(places[few], low, high, color=style["color"], alpha=0.14, lw=0)
    line = {"color": style["color"], "ls": style["ls"], "lw": 1.4, **more}
    axis.plot(places, np.median(values, axis=0), label=label, **line)


def points(
    axis: Any,
    x: Sequence[float],
    groups: Sequence[Iterable[dict[str, Any]]],
    name: str,
    style: dict[str, Any],
    label: str | None,
    factor: float = 1.0,
) -> None:
    """Median of a column over each group of rows at ``x``, with bars from the smallest to the largest value."""
    low, middle, high = (factor * np.array(v) for v in zip(*(spread(g, name) for g in groups), strict=True))
    axis.errorbar(
        x,
        middle,
        [middle - low, high - middle],
        label=label,
        lw=1.3,
        ms=5,
        capsize=3,
        elinewidth=0.9,
        mfc=paper(),
        **style,
    )


def paper() -> str:
    """The colour of the paper, for hollow marks."""
    from matplotlib import rcParams

    return str(rcParams["axes.facecolor"])


def ink() -> str:
    """The colour of letters."""
    from matplotlib import rcParams

    return str(rcParams["text.color"])


def legend(figure: Any, axes: Any, **options: Any) -> None:
    """One legend above the panels for all their lines, each name in the colour of its line."""
    handles: dict[str, Any] = {}
    for axis in np.atleast_1d(axes):
        for line, name in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, line)
    more = {"loc": "outside upper center", "ncols": len(handles), "labelcolor": "linecolor", **options}
    figure.legend(handles.values(), handles.keys(), **more)


def name_ends(axis: Any, gap: float = 0.075) -> None:
    """The name of each line behind its last point, in its colour; names closer than ``gap`` of the height are moved."""
    ends = []
    for line, name in zip(*axis.get_legend_handles_labels(), strict=True):
        line = line[0] if isinstance(line, tuple) else line  # an errorbar: its line
        point = axis.transData.transform((line.get_xdata()[-1], line.get_ydata()[-1]))
        ends.append([axis.transAxes.inverted().transform(point)[1], name, line.get_color()])
    ends.sort()
    for _ in range(50):  # push neighbours apart until all are
        for below, above in itertools.pairwise(ends):
            if (short := gap - (above[0] - below[0])) > 1e-6:
                below[0], above[0] = below[0] - short / 2, above[0] + short / 2
    for height, name, colour in ends:
        axis.annotate(name, (1.01, height), xycoords="axes fraction", color=colour, va="center", fontsize=8)


def seeds(results: Iterable[dict[str, Any]]) -> str:
    """How the spread is meant, for a caption: ``seeds 0–2: median, band from smallest to largest``."""
    found = sorted({lookup(stored, "seed") for stored in results})
    if len(found) == 1:
        return f"seed {found[0]}"
    return f"seeds {found[0]}–{found[-1]}: median, smallest to largest"


def power(value: float) -> str:
    """0.0001 as 10⁻⁴, 0.003 as 3·10⁻³."""
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)) + 1e-9)
    mantissa = value / 10.0**exponent
    raised = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    head = "" if abs(mantissa - 1) < 1e-9 else f"{mantissa:.3g}·"
    return f"{head}10{raised}"


def decades(axis: Any) -> None:
    """Plain numbers on a logarithmic axis: whole powers, and 2 and 5 between them where the axis is short."""
    low, high = axis.get_view_interval()
    reach = math.log10(high / low) if 0 < low < high else 0.0
    axis.set_major_formatter(lambda v, _: f"{v:g}" if v in (1, 10) or (reach < 4 and 1e-3 < v < 1e4) else power(v))
    shown = "25" if reach > 0.6 else "2345678"
    axis.set_minor_formatter(lambda v, _: f"{v:g}" if reach < 2.5 and f"{v:e}"[0] in shown else "")
