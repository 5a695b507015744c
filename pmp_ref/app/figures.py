"""Figures of a run, as PNG files and, in dark colours, for the report. matplotlib is imported by ``draw`` alone."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pmp_ref.app.build import Setup
from pmp_ref.app.history import read
from pmp_ref.arrays import Controls, to_numpy
from pmp_ref.files import write_atomically

Table = dict[str, list[float]]


class Ink(NamedTuple):
    """Colours of a figure; the first three hues stay apart for colour-blind readers, the signs in grey as well."""

    paper: str
    text: str
    faint: str
    first: str
    second: str
    third: str
    positive: str
    negative: str


LIGHT = Ink("#ffffff", "#1c2430", "#d5dae2", "#1f5fa8", "#c2571a", "#157a5c", "#164a86", "#ec9a55")
DARK = Ink("#151a21", "#e4e8ee", "#3a424f", "#6cb0f5", "#f2955c", "#5fd1a8", "#9ccbff", "#b8622e")


class Drawn(NamedTuple):
    """A figure for the report."""

    title: str
    alt: str
    light: bytes
    dark: bytes


def draw(directory: Path, setup: Setup, controls: Controls, summary: dict[str, Any]) -> dict[str, Drawn]:
    """Draw all figures, write the light ones as PNG, return both kinds."""
    steps, trials, held = (read(directory / name) for name in ("history.csv", "trials.csv", "accuracy.csv"))
    layers = list(kernels(setup, controls))
    convolutions = [a for _, a in layers if a.ndim == 4]
    dense = [(name, a) for name, a in layers if a.ndim == 2]
    kind = (setup.batch_size is not None, setup.method.ramp is not None)
    plans: dict[str, tuple[str, str, Callable[[Ink], Any]]] = {
        "convergence": (
            "Objective, loss and augmentation",
            "Curves of J, loss and ε over the sweeps made, trials not taken marked",
            lambda ink: convergence(ink, steps, trials, *kind),
        ),
        "weights": (
            "Weights left in each layer",
            "Histograms of the nonzero kernel entries of each layer",
            lambda ink: histograms(ink, layers),
        ),
    }
    if held.get("accuracy"):
        plans["accuracy"] = (
            "Kept weights against accuracy",
            "Path of the run in the plane of kept weights and accuracy on held-out images",
            lambda ink: path(ink, held, summary),
        )
    if convolutions:
        plans["filters"] = (
            "First-layer filters",
            "Kernels of the first convolution: blue positive, orange with a "
            "minus sign negative, zeros in the colour of the paper",
            lambda ink: filters(ink, convolutions[0]),
        )
    if dense:
        plans["sparsity"] = (
            "Sparsity pattern of the dense layers",
            "Cells where a dense layer has a nonzero entry: dark blue positive, light orange negative",
            lambda ink: patterns(ink, dense),
        )
    drawn = {}
    for name in sorted(plans, key=["convergence", "accuracy", "filters", "sparsity", "weights"].index):
        drawn[name] = in_both(directory / f"{name}.png", *plans[name])
    return drawn


def in_both(path: Path, title: str, alt: str, plan: Callable[[Ink], Any]) -> Drawn:
    """The figure that ``plan`` draws, in both colours; the light one is written to ``path``."""
    import matplotlib

    pictures = []
    for ink in (LIGHT, DARK):
        with matplotlib.rc_context(style(ink)):  # type: ignore[arg-type,unused-ignore]
            figure, content = plan(ink), io.BytesIO()
            figure.savefig(content, format="png", dpi=130, metadata={"Software": None})
        pictures.append(content.getvalue())
    write_atomically(path, pictures[0])
    return Drawn(title, alt, *pictures)


def share_axis(axis: Any) -> None:
    """A logarithmic axis of shares of weights, in per cent."""
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(lambda v, _: f"{v:g}")
    axis.xaxis.set_minor_formatter(lambda v, _: f"{v:g}" if f"{v:e}"[0] in "25" else "")


def style(ink: Ink) -> dict[str, Any]:
    """matplotlib settings in the colours of ``ink``."""
    return {
        "figure.facecolor": ink.paper,
        "axes.facecolor": ink.paper,
        "savefig.facecolor": ink.paper,
        "text.color": ink.text,
        "axes.labelcolor": ink.text,
        "axes.edgecolor": ink.faint,
        "xtick.color": ink.text,
        "ytick.color": ink.text,
        "grid.color": ink.faint,
        "grid.linewidth": 0.6,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "legend.frameon": False,
        "figure.constrained_layout.use": True,
    }


def blank(*size: float) -> Any:
    """A figure of its own, without the global state of pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size[0], size[1]))
    FigureCanvasAgg(figure)
    return figure


def kernels(setup: Setup, controls: Controls) -> Iterator[tuple[str, np.ndarray]]:
    """Name and host array of every kernel."""
    for l, (names, arrays) in enumerate(zip(setup.network.names(), controls, strict=True)):
        stage = setup.network.stages[l]
        for name, a in zip(names, arrays, strict=True):
            if name == "kernel":
                yield f"{l} {type(getattr(stage, 'stage', stage)).__name__}", to_numpy(a)


def log_axis(axis: Any, *curves: list[float]) -> None:
    """A logarithmic axis where every value allows it."""
    values = [v for curve in curves for v in curve if math.isfinite(v)]
    if values and min(values) > 0:
        axis.set_yscale("log")


def convergence(ink: Ink, steps: Table, trials: Table, batches: bool, ramp: bool) -> Any:
    """J and loss (above), ε with the trials not taken (below), over forward and backward sweeps."""
    figure = blank(7.2, 5.4)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    x = np.add(steps["forward_sweeps"], steps["backward_sweeps"])
    faint = {"lw": 0.6, "alpha": 0.35} if batches else {"lw": 1.6}
    for name, label, colour, line in (
        ("J", "J = L + ρR, ρ rising" if ramp else "J = L + ρR", ink.first, "-"),
        ("loss", "loss L", ink.second, "--"),
    ):
        values = np.asarray(steps[name])
        top.plot(x, values, color=colour, ls="-" if batches else line, label=None if batches else label, **faint)
        if batches:
            top.plot(x, running_mean(values), color=colour, lw=1.8, label=f"{label} (running mean over batches)")
    log_axis(top, steps["J"], steps["loss"])
    top.set_ylabel("objective and loss")
    top.legend()
    bottom.step(x, steps["eps"], where="mid", color=ink.first, lw=1.0, label="ε of accepted steps")
    if trials.get("eps"):
        at = np.add(trials["forward_sweeps"], trials["backward_sweeps"])
        bottom.plot(
            at, trials["eps"], ls="", marker="x", ms=4, mew=1.0, color=ink.second, label=f"trials not taken ({len(at)})"
        )
    log_axis(bottom, steps["eps"], trials.get("eps", []))
    bottom.set_ylabel("ε")
    bottom.set_xlabel("forward and backward sweeps" + (" over a batch" if batches else " over all training images"))
    bottom.legend()
    return figure


def running_mean(values: np.ndarray) -> np.ndarray:
    """Mean over about the last 3 % of the values."""
    width = max(1, len(values) // 33)
    sums = np.concatenate([[0.0], np.cumsum(np.nan_to_num(values))])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - width)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))


def path(ink: Ink, held: Table, summary: dict[str, Any]) -> Any:
    """Held-out accuracy over kept weights, epoch by epoch; the test accuracy with its interval at the end."""
    figure = blank(7.2, 4.2)
    axis = figure.subplots()
    total = summary["total_weights"]
    x, y = 100 * np.asarray(held["nonzeros"]) / total, 100 * np.asarray(held["accuracy"])
    axis.plot(x, y, color=ink.first, lw=1.2, marker="o", ms=4, label="held-out images, along the run")
    for i in {0, len(x) - 1}:
        axis.annotate(f"epoch {held['epoch'][i]:.0f}", (x[i], y[i]), xytext=(5, -11), textcoords="offset points")
    if summary["test_accuracy"] is not None:
        p, (low, high) = summary["test_accuracy"], summary["test_accuracy_interval"]
        reach = [[100 * (p - low)], [100 * (high - p)]]
        axis.errorbar(
            [100 * summary["kept_fraction"]],
            [100 * p],
            reach,
            color=ink.second,
            marker="D",
            ms=6,
            capsize=4,
            ls="",
            label=f"test images: {100 * p:.2f} %, 95 % interval",
        )
    if x.min() > 0:
        share_axis(axis)
    axis.invert_xaxis()
    axis.set_xlabel("kept weights (%), the run goes to the right")
    axis.set_ylabel("accuracy (%)")
    axis.legend(loc="best")
    return figure


def filters(ink: Ink, kernel: np.ndarray, most: int = 64) -> Any:
    """Kernels (out, in, h, w) as tiles; one colour scale, zeros in the colour of the paper, − in negative cells."""
    from matplotlib.colors import LinearSegmentedColormap

    shown = kernel[:most]
    picture = shown.transpose(0, 2, 3, 1) if kernel.shape[1] == 3 else shown[:, 0]
    columns = min(len(shown), 8 if len(shown) > 6 else len(shown))
    rows = -(-len(shown) // columns)
    figure = blank(7.2, 0.5 + rows * 6.2 / columns)
    title = (
        f"{kernel.shape[0]} filters of {kernel.shape[2]}×{kernel.shape[3]}, {np.count_nonzero(kernel)} of {kernel.size}"
    )
    signs = "" if picture.ndim == 4 else "; −: negative"
    figure.suptitle(f"{title} entries kept{signs}", x=0.01, ha="left", fontsize=10)
    scale = float(np.abs(picture).max()) or 1.0
    colours = LinearSegmentedColormap.from_list("weights", [ink.negative, ink.paper, ink.positive])
    for i, axis in enumerate(figure.subplots(rows, columns, squeeze=False).ravel()):
        axis.set_axis_off()
        if i < len(shown):
            if picture.ndim == 4:
                axis.imshow(0.5 + picture[i] / (2 * scale))
            else:
                image = np.ma.masked_equal(picture[i], 0.0)
                mesh = axis.imshow(image, cmap=colours, vmin=-scale, vmax=scale)
                h, w = picture[i].shape
                below = np.argwhere(picture[i] < 0)
                size = (72 * 7.2 * 0.85 / columns / w * 0.4) ** 2  # points²: two fifths of a cell across
                axis.scatter(below[:, 1], below[:, 0], s=size, marker="_", linewidths=1.0, color=ink.text)
                axis.add_patch(_frame(w, h, ink))
    if picture.ndim == 3:
        figure.colorbar(mesh, ax=figure.axes, shrink=0.8, label="weight", aspect=30)
    return figure


def _frame(w: int, h: int, ink: Ink) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((-0.5, -0.5), w, h, fill=False, ec=ink.faint, lw=1.0)


def histograms(ink: Ink, layers: list[tuple[str, np.ndarray]]) -> Any:
    """Nonzero entries of every kernel."""
    columns = min(3, len(layers))
    rows = -(-len(layers) // columns)
    figure = blank(7.2, 2.2 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for i, (axis, (name, a)) in enumerate(zip(axes, layers, strict=False)):
        values = a[a != 0]
        if values.size:
            reach = float(np.abs(values).max()) * 1.02
            axis.hist(values, bins=41, range=(-reach, reach), color=ink.first)
        share = f"{values.size:,} of {a.size:,} kept ({100 * values.size / a.size:.1f} %)"
        axis.set_title(f"stage {name}\n{share}", fontsize=8)
        axis.tick_params(labelsize=7)
        if i % columns == 0:
            axis.set_ylabel("number of weights", fontsize=8)
        if i + columns >= len(layers):  # the lowest panel of its column
            axis.set_xlabel("weight", fontsize=8)
    for axis in figure.axes[len(layers) :]:
        axis.set_axis_off()
    return figure


def patterns(ink: Ink, dense: list[tuple[str, np.ndarray]]) -> Any:
    """Nonzero entries of dense kernels (out, in), one below the other."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    colours = ListedColormap([ink.negative, ink.paper, ink.positive])
    heights = [max(0.9, min(2.4, 6.6 * a.shape[0] / a.shape[1])) for _, a in dense]
    figure = blank(7.2, sum(heights) + 0.85 * len(dense) + 0.3)
    axes = np.atleast_1d(figure.subplots(len(dense), 1, height_ratios=heights))
    for axis, (name, a) in zip(axes, dense, strict=True):
        axis.grid(False)
        if a.shape[1] <= 450:  # an entry is at least two pixels wide
            axis.imshow(np.sign(a), cmap=colours, vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
        else:
            out, into = np.nonzero(a)
            axis.scatter(
                into, out, s=2.0, marker="s", linewidths=0, c=np.where(a[out, into] > 0, ink.positive, ink.negative)
            )
            axis.set(xlim=(-1, a.shape[1]), ylim=(a.shape[0] - 0.5, -0.5))
        axis.set(xlabel="input", ylabel="output")
        axis.yaxis.get_major_locator().set_params(integer=True)
        axis.set_title(
            f"stage {name}: {a.shape[1]} inputs, {a.shape[0]} outputs, {100 * np.count_nonzero(a) / a.size:.2f} % kept",
            fontsize=9,
        )
    key = [
        Patch(fc=c, ec=ink.faint, label=label)
        for c, label in ((ink.positive, "positive"), (ink.negative, "negative"), (ink.paper, "zero"))
    ]
    figure.legend(handles=key, loc="outside upper right", ncols=3)
    return figure
