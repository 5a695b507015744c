"""Kept weights against test accuracy: LeNet-5-Caffe on MNIST by bSQH, baselines on the same budget, published points.

Hyperparameters, ours and the baselines', were chosen on held-out training images. The rows train on all 60,000
training images and look at the test images once, at their end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pmp_ref.app.build import Setup, build
from pmp_ref.app.files import read_json, write_json
from pmp_ref.app.options import resolve
from verification.experiments import baselines
from verification.experiments.baselines import Plan
from verification.experiments.drawing import ink, paper
from verification.experiments.experiment import Context, Experiment, Row, new_figure
from verification.experiments.training import train

SEEDS = (0, 1, 2)
DATA = {"data": "mnist", "network": "lenet5-caffe", "held_out": "0", "batch_size": "128"}
EPOCHS = 14  # the budget of every run but the LONG ones

LONG = 60  # epochs of a few further rows

RECIPES: dict[str, dict[str, str]] = {  # options of ``pmp-ref train`` besides DATA, the epochs and the seed
    "keep1": {"keep": "1%"},
    "keep0.5": {"keep": "0.5%"},
    "rho1e-3": {"rho": "1e-3"},
    "rho3e-4": {"rho": "3e-4"},
}
DECIDE = "rho keep ramp rule eps0 theta memory growth band fall averaging metric".split()  # defaults

ADAM_STEP = 1e-3
SHARES = (1.0, 0.2, 0.1, 0.05, 0.03, 0.02, 0.015, 0.01, 0.0075, 0.005)  # pruned from one dense run, no retraining
RETRAINED = (0.02, 0.01)
RETRAINING = 4  # of the EPOCHS; the dense part before it takes the rest
PROXIMAL: dict[str, dict[str, Any]] = {
    "l1": {"step": 0.1, "schedule": "growth", "ramp": (0.05, 0.6), "strengths": (1e-3, 3e-3), "quick": (3e-3,)},
    "l0": {"step": 0.1, "schedule": "constant", "ramp": (0.05, 0.6), "strengths": (3e-2, 1e-1), "quick": (3e-2,)},
}
ONCE = ("l1", "l0")  # kinds that run with the first seed alone

PRUNED = (0.01, 0.005)  # shares of Adam that is pruned while it trains
PLANS: dict[str, dict[str, Any]] = {  # the plans of the other kinds besides their epochs, by strength
    **{
        kind: {
            f"{100 * share:g} %": {"method": "adam", "step": 3e-3, "share": share, "schedule": "linear", **more}
            for share in PRUNED
        }
        for kind, more in (("gradual", {}), ("projected", {"projected": True}))
    },
    "sr2": {f"ρ = {rho:g}": {"method": "sr2", "step": 0.025, "rho": rho, "ramp": (0.05, 0.6)} for rho in (3e-4, 1e-3)},
    "linbreg": {f"ρ = {rho:g}": {"method": "linbreg", "step": 0.3, "rho": rho} for rho in (1.0, 2.0)},
    "adabreg": {f"ρ = {rho:g}": {"method": "adabreg", "step": 1e-2, "rho": rho} for rho in (2.0, 4.0, 8.0)},
}
BREGMAN, SPARSE = ("linbreg", "adabreg"), 0.01  # p of their sparse start, as published
LONGER = {"bsqh": ("keep1", "keep0.5"), "gradual": ("1 %", "0.5 %")}  # run for LONG epochs too, with the first seed

QUICK_DATA = {"data": "mnist-subset", "network": "lenet5", "held_out": "0.2", "batch_size": "64"}  # 4,000 images
QUICK_RECIPES = {"keep1": {"keep": "5%"}}
QUICK_EPOCHS, QUICK_RETRAINING = 3, 1

PUBLISHED: tuple[tuple[str, tuple[tuple[float, float], ...]], ...] = (  # kept %, test accuracy %
    ("L0 hard-concrete (Louizos et al. 2018)", ((8.9, 99.1), (1.43, 99.0))),
    ("ADMM pruning (Zhang et al. 2018)", ((1.4, 99.2),)),
    ("DNS (Guo et al. 2016)", ((0.9, 99.1),)),
    ("SWS (Ullrich et al. 2017)", ((0.5, 99.0),)),
    ("sparse variational dropout (Molchanov et al. 2017)", ((0.36, 99.25),)),
    (
        "Sparse Momentum (Dettmers, Zettlemoyer 2019)",
        ((0.4, 98.60), (0.5, 98.86), (0.9, 99.11), (2, 99.24), (9.3, 99.36)),
    ),
    ("discrete-MSA, ternary, dense 3×2048 (Li, Hao 2018)", ((1.79, 98.83),)),
    ("SNIP (Lee et al. 2019)", ((1, 98.9), (2, 99.2))),
)

NAMES = (  # of the published points in the figure: marker, which of the points, text, offset in points, alignment
    ("s", 0, "L0 hard-concrete\nLouizos et al. 2018", (6, -7), "right", "top"),
    ("^", 0, "ADMM pruning\nZhang et al. 2018", (56, -2), "left", "center"),
    ("o", 0, "DNS\nGuo et al. 2016", (-54, 2), "right", "center"),
    ("D", 0, "SWS\nUllrich et al. 2017", (-8, -3), "right", "center"),
    ("x", 0, "sparse variational\ndropout\nMolchanov et al. 2017", (-14, 6), "left", "bottom"),
    ("+", 4, "Sparse Momentum\nDettmers, Zettlemoyer 2019", (0, 6), "center", "bottom"),
    ("*", 0, "discrete-MSA, ternary,\ndense 3×2048\nLi, Hao 2018", (7, 0), "left", "center"),
    ("1", 0, "SNIP\nLee et al. 2019", (2, -7), "center", "top"),
)

KINDS = {  # label in table and figure
    "bsqh": "bSQH, L0, single run",
    "gradual": "Adam, pruned gradually",
    "projected": "Adam, projected onto the largest",
    "sr2": "SR2, L0",
    "linbreg": "LinBreg, L1",
    "adabreg": "AdaBreg, L1",
    "prune": "Adam, magnitude pruning, no retraining",
    "retrain": "Adam, magnitude pruning, retraining",
    "l1": "proximal SGD, L1",
    "l0": "proximal SGD, L0, fixed step",
}
STYLES = {  # marker, line, colour: markers differ, so the figure reads in grey
    "bsqh": ("o", "-", "C0"),
    "gradual": ("D", "-", "C1"),
    "projected": ("<", "--", "C1"),
    "sr2": ("X", "-", "C5"),
    "linbreg": ("p", "-", "C2"),
    "adabreg": ("h", "--", "C2"),
    "prune": ("v", "-", "C4"),
    "retrain": ("^", "-", "C4"),
    "l1": ("s", "-", "C3"),
    "l0": ("P", "--", "C3"),
}


@dataclass(frozen=True)
class Point:
    """One network: its kind, its strength (recipe, ρ or share), seed, kept share and test accuracy in per cent."""

    kind: str
    strength: str
    seed: int
    kept: float
    accuracy: float
    disconnected: bool
    epochs: int
    violations: int | None = None


class Tradeoff(Experiment):
    """See the module."""

    name = "tradeoff"
    title = "Kept weights against test accuracy"
    summary = (
        "How many of the 430,500 kernel entries of LeNet-5-Caffe does MNIST need, and what does bSQH reach in a single "
        "run without retraining, against baselines with the same data, initial controls, batches and epochs?"
    )
    columns = tuple(
        (
            "kind strength seed epochs test_accuracy test_low test_high kept_fraction kept_weights total_weights "
            "disconnected descent_violations descent_checked rejections forward_sweeps backward_sweeps "
            "status command"
        ).split()
    )

    def rows(self, quick: bool) -> list[Row]:
        return list(_rows(quick))

    def run(self, row: Row, context: Context) -> dict[str, Any]:
        return {"command": self.command(row)} | RUNS[row.settings["kind"]](row, context)

    def figures(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        quick = any(stored["settings"]["quick"] for stored in results)
        found = points(results)
        return {"tradeoff": draw([p for p in found if p.epochs == found[0].epochs], published=not quick)}

    def alt(self, figure: str) -> str:
        return (
            "Test accuracy in per cent against the share of kernel entries kept, in per cent on a logarithmic axis: "
            "the methods of the table above after equal epochs, and published points."
        )

    def table(self, results: list[dict[str, Any]]) -> tuple[Sequence[str], list[Sequence[Any]]]:
        headings = (
            "method",
            "strength",
            "epochs",
            "seeds",
            "kept, mean (min–max), %",
            "test accuracy, mean (min–max), %",
            "disconnected",
            "descent violations",
        )
        lines: list[Sequence[Any]] = []
        for (kind, strength, epochs), group in grouped(points(results)).items():
            checked = [p.violations for p in group if p.violations is not None]
            lines.append(
                (
                    KINDS[kind],
                    strength,
                    epochs,
                    len(group),
                    spread([p.kept for p in group]),
                    spread([p.accuracy for p in group]),
                    f"{sum(p.disconnected for p in group)} of {len(group)}",
                    sum(checked) if checked else "–",
                )
            )
        return headings, lines


def _rows(quick: bool) -> Iterable[Row]:
    data, recipes, epochs = (QUICK_DATA, QUICK_RECIPES, QUICK_EPOCHS) if quick else (DATA, RECIPES, EPOCHS)
    seeds, shares, retrained = ((0,), (1.0, 0.1, 0.05), (0.05,)) if quick else (SEEDS, SHARES, RETRAINED)
    retraining = QUICK_RETRAINING if quick else RETRAINING
    mark = "quick-" * quick  # a quick row never takes the place of another

    def row(key: str, kind: str, strength: Any, seed: int, of: int, **more: Any) -> Row:
        long = f"-epochs{of}" if of != epochs else ""
        return Row(
            f"{mark}{key}{long}-seed{seed}",
            {"kind": kind, "strength": str(strength), "seed": seed, "epochs": of, "data": data, "quick": quick, **more},
        )

    def bsqh(name: str, seed: int, of: int) -> Row:
        ((option, value),) = recipes[name].items()
        options = data | {"epochs": str(of)} | recipes[name] | {"seed": str(seed)}
        resolved = resolve(options)
        strength = f"ρ = {value}" if option == "rho" else f"keep {value}"
        decide = {name: getattr(resolved, name) for name in DECIDE}
        return row(f"bsqh-{name}", "bsqh", strength, seed, of, options=options, decide=decide)

    def planned(kind: str, strength: str, seed: int, of: int) -> Row:
        plan = PLANS[kind][strength]
        more = {"sparse": SPARSE} if kind in BREGMAN else {}
        size = plan.get("share", plan.get("rho"))
        return row(f"{kind}-{size:g}", kind, strength, seed, of, plan=plan, **more)

    for seed in seeds:
        for name in recipes:
            yield bsqh(name, seed, epochs)
        for kind, plans in PLANS.items():
            for strength in list(plans)[: 1 if quick else None]:
                yield planned(kind, strength, seed, epochs)
        yield row("adam", "prune", "all shares", seed, epochs, step=ADAM_STEP, shares=list(shares))
        for share in retrained:
            yield row(
                f"retrain-{share:g}",
                "retrain",
                f"{100 * share:g} %",
                seed,
                epochs,
                step=ADAM_STEP,
                share=share,
                retraining=retraining,
                source=f"{mark}adam-short-seed{seed}",
            )
        for kind, p in PROXIMAL.items():
            if seed != SEEDS[0] and kind in ONCE:
                continue
            for rho in p["quick" if quick else "strengths"]:
                yield row(
                    f"{kind}-{rho:g}",
                    kind,
                    f"ρ = {rho:g}",
                    seed,
                    epochs,
                    step=p["step"],
                    rho=rho,
                    schedule=p["schedule"],
                    ramp=p["ramp"],
                )
    if not quick:
        yield from (bsqh(name, SEEDS[0], LONG) for name in LONGER["bsqh"])
        yield from (planned("gradual", strength, SEEDS[0], LONG) for strength in LONGER["gradual"])


def prepared(row: Row, context: Context) -> Setup:
    """Data, network, sweep and initial controls of a baseline: those of a bSQH run with that seed."""
    return build(resolve(row.settings["data"] | {"seed": str(row.settings["seed"])}), context.threads)


def run_bsqh(row: Row, context: Context) -> dict[str, Any]:
    """A ``pmp-ref train`` run."""
    trained = train(row.settings["options"], context)
    return trained.result | {"curves": trained.history(("step", "epoch", "loss", "nonzeros", "eps", "rho"))}


def run_plan(row: Row, context: Context) -> dict[str, Any]:
    """A baseline that its plan describes whole."""
    s, setup = row.settings, prepared(row, context)
    start = baselines.sparse_start(setup, s["sparse"]) if "sparse" in s else None
    plan = Plan(epochs=s["epochs"], **s["plan"])
    state = baselines.train(setup, plan, context.directory / "state.npz", context.progress, start)
    work = _work(state, forward=2 if plan.method == "sr2" else 1)
    return baselines.judge(setup, state.controls) | work | {"rejections": state.rejections}


def run_prune(row: Row, context: Context) -> dict[str, Any]:
    """A dense Adam run, judged at every share; the row's own numbers are those of the dense network."""
    s, setup = row.settings, prepared(row, context)
    state = baselines.train(
        setup, Plan("adam", s["epochs"], s["step"]), context.directory / "adam.npz", context.progress
    )
    judged = [baselines.judge(setup, baselines.prune(setup, state.controls, share)) for share in s["shares"]]
    names = ("kept_fraction", "test_accuracy", "test_low", "test_high", "disconnected")
    curves = {"share": s["shares"]} | {name: [j[name] for j in judged] for name in names}
    return judged[0] | _work(state) | {"curves": curves}


def run_retrain(row: Row, context: Context) -> dict[str, Any]:
    """A shorter dense Adam run, pruned, then Adam from new moments on the support for the rest of the budget."""
    s, setup = row.settings, prepared(row, context)
    plan = Plan("adam", s["epochs"] - s["retraining"], s["step"])
    dense = baselines.train(setup, plan, shared(row, context) / "adam.npz", context.progress)
    pruned = baselines.prune(setup, dense.controls, s["share"])
    state = baselines.train(
        setup,
        replace(plan, epochs=s["retraining"]),
        context.directory / "retrain.npz",
        context.progress,
        pruned,
        hold_zeros=True,
    )
    return baselines.judge(setup, state.controls) | _work(dense, state)


def run_proximal(row: Row, context: Context) -> dict[str, Any]:
    """Proximal stochastic gradient."""
    s, setup = row.settings, prepared(row, context)
    plan = Plan(s["kind"], s["epochs"], s["step"], s["schedule"], s["rho"], tuple(s["ramp"]) if s["ramp"] else None)
    state = baselines.train(setup, plan, context.directory / "prox.npz", context.progress)
    return baselines.judge(setup, state.controls) | _work(state)


RUNS = {
    "bsqh": run_bsqh,
    **dict.fromkeys(PLANS, run_plan),
    "prune": run_prune,
    "retrain": run_retrain,
    "l1": run_proximal,
    "l0": run_proximal,
}


def points(results: list[dict[str, Any]]) -> list[Point]:
    """All networks of the finished rows; a dense run gives one for every share."""
    found = []
    for stored in results:
        s, r = stored["settings"], stored["result"]
        if s["kind"] == "prune":
            c = r["curves"]
            found += [
                Point("prune", f"{100 * share:g} %", s["seed"], 100 * kept, 100 * part, cut, s["epochs"])
                for share, kept, part, cut in zip(
                    c["share"], c["kept_fraction"], c["test_accuracy"], c["disconnected"], strict=True
                )
            ]
        else:
            found.append(
                Point(
                    s["kind"],
                    s["strength"],
                    s["seed"],
                    100 * r["kept_fraction"],
                    100 * r["test_accuracy"],
                    r["disconnected"],
                    s["epochs"],
                    r.get("descent_violations"),
                )
            )
    return found


def grouped(found: list[Point]) -> dict[tuple[str, str, int], list[Point]]:
    """The points by kind, strength and epochs, in the order of KINDS."""
    result: dict[tuple[str, str, int], list[Point]] = {}
    for p in sorted(found, key=lambda p: list(KINDS).index(p.kind)):
        result.setdefault((p.kind, p.strength, p.epochs), []).append(p)
    return result


def draw(found: list[Point], published: bool, floor: float = 98.0) -> Any:
    """Kept share against test accuracy; what lies below ``floor`` is marked at the lower edge with its value.

    Markers stand at the means over seeds, bars go from the smallest to the largest value.
    """
    figure, axes = new_figure(7.2, 5.6)
    best = max(p.accuracy for p in found)
    low = floor if best > floor else 0.0
    several = False
    below: list[float] = []  # kept shares of what lies below the axis
    for kind, label in KINDS.items():
        marker, line, colour = STYLES[kind]
        groups = [g for (k, *_), g in grouped(found).items() if k == kind]
        if not groups:
            continue
        groups.sort(key=lambda g: np.mean([p.kept for p in g]))
        x, y = ([float(np.mean([getattr(p, name) for p in g])) for g in groups] for name in ("kept", "accuracy"))
        inside = [i for i, v in enumerate(y) if v >= low]
        several |= any(len(g) > 1 for g in groups)
        for i in set(range(len(y))) - set(inside):
            above = 6 + 9 * sum(0.8 * other < x[i] < 1.25 * other for other in below)  # points: one above the other
            below.append(x[i])
            axes.plot(x[i], low, marker=marker, color=colour, markerfacecolor=paper(), clip_on=False, zorder=5)
            axes.annotate(
                f"{y[i]:.1f}",
                (x[i], low),
                (0, above),
                textcoords="offset points",
                ha="center",
                color=colour,
                fontsize=7.5,
            )
        spread = [
            [abs(f(getattr(p, name) for p in groups[i]) - v[i]) for i in inside]
            for name, v in (("kept", x), ("accuracy", y))
            for f in (min, max)
        ]
        axes.errorbar(
            [x[i] for i in inside],
            [y[i] for i in inside],
            xerr=spread[:2],
            yerr=spread[2:],
            marker=marker,
            linestyle=line,
            color=colour,
            markersize=6,
            linewidth=1.4,
            capsize=2,
            zorder=4,
            label=f"{label} ({counted_seeds(groups)})",
        )
    axes.set_xscale("log")
    axes.set_ylim(low, max(99.5, min(100.0, best + 0.1)))
    axes.set_xlabel("kernel entries kept, % of all (logarithmic)")
    axes.set_ylabel("test accuracy, %")
    axes.xaxis.set_major_formatter(lambda v, _: f"{v:g}")
    handles: list[Any] = list(axes.containers)
    if published:
        handles.append(_name_published(axes))
        axes.set_xlim(left=0.18)  # room for the names on the left
    notes = ["markers: mean over seeds", "bars: smallest to largest"] * several + [
        "open, at the lower edge: below the axis, with the value"
    ] * bool(below)
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=2,
        fontsize=8,
        frameon=False,
        title_fontsize=8,
        title="; ".join(notes) or None,
    )
    return figure


def _name_published(axes: Any) -> Any:
    """The published points with their names beside them, those of one source joined; a handle for the legend."""
    from matplotlib.lines import Line2D

    colour = ink()
    look: dict[str, Any] = {"color": colour, "markerfacecolor": "none", "markersize": 7}
    box = {"boxstyle": "square,pad=0.1", "fc": paper(), "ec": "none", "alpha": 0.7}
    for (label, pairs), (marker, at, text, offset, ha, va) in zip(PUBLISHED, NAMES, strict=True):
        axes.plot(*zip(*pairs, strict=True), marker=marker, ls=":", lw=0.7, label=f"published: {label}", **look)
        lead = {"arrowstyle": "-", "lw": 0.5, "color": colour, "shrinkB": 4} if abs(offset[0]) > 20 else None
        axes.annotate(
            text,
            pairs[at],
            offset,
            textcoords="offset points",
            ha=ha,
            va=va,
            fontsize=7.5,
            color=colour,
            zorder=3,
            bbox=box,
            arrowprops=lead,
        )
    return Line2D([], [], marker="o", ls="none", label="published, as reported; named in the figure", **look)


def shared(row: Row, context: Context) -> Path:
    """Where the dense part of a retrained row is trained: one directory for all shares of this seed, beside the rows.

    Two processes that train it at once write the same bits, each file atomically.
    """
    directory = context.directory.parent.parent / row.settings["source"]
    note = {k: row.settings[k] for k in ("data", "seed", "step", "epochs", "retraining")}
    return _noted(directory, note)


def _noted(directory: Path, note: dict[str, Any]) -> Path:
    """The directory, emptied if it was made for something else than the note says."""
    directory.mkdir(exist_ok=True)
    if not ((directory / "note.json").is_file() and read_json(directory / "note.json") == note):
        for old in directory.iterdir():
            old.unlink()
        write_json(directory / "note.json", note)
    return directory


def _work(*states: baselines.State, forward: int = 1) -> dict[str, Any]:
    steps, seconds = sum(s.steps for s in states), round(sum(s.seconds for s in states), 3)
    return {"seconds": seconds, "forward_sweeps": forward * steps, "backward_sweeps": steps}


def counted_seeds(groups: Sequence[Sequence[Any]]) -> str:
    """How many seeds the groups have: "3 seeds", or "1–3 seeds" where they differ."""
    n = sorted({len(g) for g in groups})
    return f"{n[0]} seed{'s' * (n[0] > 1)}" if len(n) == 1 else f"{n[0]}–{n[-1]} seeds"


def spread(values: list[float]) -> str:
    """Mean (min–max), or the one value."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{np.mean(values):.2f} ({min(values):.2f}–{max(values):.2f})"
