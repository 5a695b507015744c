"""Weights in {−1, 0, 1} times a scale of their layer, by exact maximisation over the finite set.

The scale of a layer is s = κ·√(mean of u²) of its initial kernel. The run starts from s·sgn(u) at the 1/κ² of the
entries that are largest in modulus and 0 elsewhere, which has the mean square of the initial kernel. Biases are free.
Where 1/κ² is small the layer still passes signals of the usual size when it is sparse, which κ = 1 does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pmp_ref.admissible import WHOLE_LINE, FiniteSet
from pmp_ref.app.build import Setup, build_problem
from pmp_ref.arrays import Controls
from pmp_ref.controls import map_controls
from pmp_ref.initialise import initial_controls
from pmp_ref.layers import Dense, Flatten, activation
from pmp_ref.metric import GradientScaled
from pmp_ref.network import Network
from verification.experiments.drawing import decades
from verification.experiments.experiment import Context, Experiment, Row, new_figure, save
from verification.experiments.training import train

SEEDS = (0, 1, 2)
HIDDEN = {"lenet5-caffe": None, "dense-256": (256, 256, 256)}
DATA = {"data": "mnist", "network": "lenet5-caffe", "held_out": "0", "batch_size": "128"}
METHOD = {"epochs": "14", "ramp": "0.05:0.6", "theta": "0.6", "memory": "0.9", "growth": "20", "averaging": "0.9"}
KAPPA = 2.0
STRENGTHS = ("1e-4", "3e-4")
QUICK_DATA = {"data": "mnist-subset", "network": "lenet5", "held_out": "0.2", "batch_size": "64"}

ANCHOR = ("discrete-MSA, ternary, dense 3×2048 (Li, Hao 2018)", 1.79, 98.83)
STYLES = {"dense-256": ("s", "-.", "#157a5c"), "lenet5-caffe": ("o", "-", "#1f5fa8"), "dense-64": ("D", ":", "#404040")}


class Ternary(Experiment):
    """See the module."""

    name = "ternary"
    title = "Weights in {−1, 0, 1}"
    summary = (
        "What does exact maximisation over a finite set reach: kernel entries in {−1, 0, 1} times a fixed scale of "
        "their layer, L0 in the Hamiltonian, no rounding and no shadow weights?"
    )
    columns = (
        "net", "strength", "kappa", "seed", "epochs", "test_accuracy", "test_low", "test_high", "kept_fraction",
        "kept_weights", "total_weights", "values_are_ternary", "disconnected", "descent_violations", "descent_checked",
        "rejections", "skipped_batches", "status",
    )  # fmt: skip

    def rows(self, quick: bool) -> list[Row]:
        return list(quick_rows() if quick else full_rows())

    def run(self, row: Row, context: Context) -> dict[str, Any]:
        s = row.settings
        hidden, kappa = s["hidden"], s["kappa"]
        scales: list[float] = []

        def change(setup: Setup) -> Setup:
            changed, found = ternary(setup if hidden is None else dense(setup, hidden, context.threads), kappa)
            scales.extend(found)
            return changed

        trained = train(s["options"], context, change)
        values = kernels_of(trained.directory / "model.npz")
        return trained.result | {
            "command": f"python -m verification.experiments ternary {'--quick ' * s['quick']}--rows {row.key}",
            "values_are_ternary": all(is_ternary(k) for k in values),
            "curves": trained.history(("step", "epoch", "loss", "nonzeros", "eps", "rho"))
            | {"kept_by_layer": [float(np.mean(k != 0)) for k in values]},
        }

    def figures(self, results: list[dict[str, Any]], directory: Path) -> list[Path]:
        return save(draw(results), directory, "ternary")

    def alt(self, figure: str) -> str:
        return (
            "Left, test accuracy against the share of nonzero weights for each network and ρ, with the published "
            "anchor; right, the share of nonzero weights over the epochs."
        )

    def table(self, results: list[dict[str, Any]]) -> tuple[Sequence[str], list[Sequence[Any]]]:
        headings = ("network", "ρ", "κ", "seeds", "kept, mean (min–max), %", "test accuracy, mean (min–max), %",
                    "disconnected", "descent violations")  # fmt: skip
        lines: list[Sequence[Any]] = []
        for (net, strength), group in grouped(results).items():
            found = [stored["result"] for stored in group]
            lines.append((
                net, strength, f"{group[0]['settings']['kappa']:g}", len(group),
                spread([100 * r["kept_fraction"] for r in found]), spread([100 * r["test_accuracy"] for r in found]),
                f"{sum(r['disconnected'] for r in found)} of {len(found)}",
                sum(r["descent_violations"] for r in found),
            ))  # fmt: skip
        return headings, lines


def full_rows() -> Iterable[Row]:
    """Both networks, all strengths, all seeds."""
    for net, hidden in HIDDEN.items():
        for rho in STRENGTHS:
            for seed in SEEDS:
                yield _row(net, hidden, DATA | METHOD | {"rho": rho, "seed": str(seed)}, KAPPA, False)


def quick_rows() -> Iterable[Row]:
    """A small dense net and classic LeNet-5 on bundled images."""
    for net, hidden in {"dense-64": (64, 64, 64), "lenet5": None}.items():
        yield _row(net, hidden, QUICK_DATA | METHOD | {"epochs": "4", "rho": "1e-4", "seed": "0"}, KAPPA, True)


def _row(net: str, hidden: Sequence[int] | None, options: dict[str, str], kappa: float, quick: bool) -> Row:
    return Row(f"{'quick-' * quick}{net}-{options['rho']}-seed{options['seed']}", {
        "net": net, "hidden": hidden, "strength": options["rho"], "kappa": kappa, "seed": int(options["seed"]),
        "epochs": int(options["epochs"]), "options": options, "quick": quick,
    })  # fmt: skip


def dense(setup: Setup, hidden: Sequence[int], threads: int | None) -> Setup:
    """The setup with a dense network in place of its own, same data and options."""
    act = activation("relu")
    stages = [Flatten(), *(stage for n in hidden for stage in (Dense(n), act)), Dense(setup.dataset.classes)]
    network = Network(tuple(stages), setup.network.input_shape)
    problem = build_problem(setup.options, network, setup.x, threads)
    return replace(setup, network=network, problem=problem,
                   controls=initial_controls(network, setup.options.seed, setup.x))  # fmt: skip


def ternary(setup: Setup, kappa: float) -> tuple[Setup, list[float]]:
    """The setup on {−s, 0, s} in each kernel, and the scales s."""
    controls: list[Any] = []
    sets: list[Any] = []
    scales: list[float] = []
    nested: list[Any] = []
    for names, arrays in zip(setup.network.names(), setup.controls, strict=True):
        stage: list[Any] = []
        admissible: list[Any] = []
        for name, u in zip(names, arrays, strict=True):
            if name == "kernel":
                values = FiniteSet((-(s := scale(u, kappa)), 0.0, s))
                scales.append(s)
                stage.append(start(u, s, kappa))
                admissible.append(values)
            else:
                stage.append(u)
                admissible.append(WHOLE_LINE)
        controls.append(tuple(stage))
        sets.append(tuple(admissible))
        nested.append((scales[-1],) * len(arrays) if arrays else ())
    problem = replace(setup.problem, admissible=tuple(sets))
    began: Controls = tuple(controls)
    method = replace(setup.method, metric=PerScale(scales=tuple(nested)))
    return replace(setup, problem=problem, method=method, controls=problem.project(began)), scales


@dataclass(frozen=True)
class PerScale(GradientScaled):
    """d_i = √(running mean of g_i²)/s_l, scaled to mean 1: K_ε is that of the codes v = w/s ∈ {−1, 0, 1}.

    An entry moves by s if |g_i|/√(mean of g_i²) is large enough, with one threshold for all layers whatever their s.
    """

    scales: Any = None  # nested like the controls

    def update(self, memory: Any, count: int, g: Controls) -> tuple[Any, Any]:
        memory, d = super().update(memory, count, g)
        d = map_controls(lambda a, s: a / a.dtype.type(s), d, self.scales)
        mean = float(self._mean(d, g))
        return memory, map_controls(lambda a: a / a.dtype.type(mean), d)


def scale(u: np.ndarray, kappa: float) -> float:
    """s = κ √(mean u²)."""
    return float(kappa * np.sqrt(np.mean(np.square(u, dtype=np.float64))))


def start(u: np.ndarray, s: float, kappa: float) -> np.ndarray:
    """s·sgn(u) at the 1/κ² of the entries that are largest in modulus, 0 elsewhere."""
    cut = np.quantile(np.abs(u), 1 - kappa**-2) if kappa > 1 else -1.0
    return np.where(np.abs(u) > cut, np.copysign(u.dtype.type(s), u), np.zeros_like(u))


def kernels_of(model: Path) -> list[np.ndarray]:
    """The kernels of a stored model."""
    from pmp_ref.app.files import unpack

    return [a for name, a in sorted(unpack(model).items()) if name.endswith(".kernel")]


def is_ternary(kernel: np.ndarray) -> bool:
    """True if all nonzero entries have one modulus."""
    return len(np.unique(np.abs(kernel[kernel != 0]))) <= 1


def grouped(results: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Stored rows by network and ρ."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for stored in results:
        groups.setdefault((stored["settings"]["net"], stored["settings"]["strength"]), []).append(stored)
    return groups


def spread(values: list[float]) -> str:
    """Mean (min–max)."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{np.mean(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def draw(results: list[dict[str, Any]]) -> Any:
    """Accuracy against kept share; kept share against epochs."""
    figure, (left, right) = new_figure(9.0, 4.2, 2)
    lines: dict[str, list[tuple[list[float], list[float]]]] = {}
    for (net, _), group in grouped(results).items():
        found = [stored["result"] for stored in group]
        lines.setdefault(net, []).append(([100 * r["kept_fraction"] for r in found],
                                          [100 * r["test_accuracy"] for r in found]))  # fmt: skip
    for net, pairs in lines.items():
        marker, line, colour = STYLES.get(net, ("^", "--", "#c2571a"))
        pairs.sort(key=lambda p: np.mean(p[0]))
        x, y = ([float(np.mean(p[i])) for p in pairs] for i in (0, 1))
        error = [[[v - min(p[i]) for v, p in zip(m, pairs, strict=True)], [max(p[i]) - v for v, p in zip(m, pairs,
                  strict=True)]] for i, m in ((0, x), (1, y))]  # fmt: skip
        left.errorbar(x, y, xerr=error[0], yerr=error[1], marker=marker, linestyle=line, color=colour, capsize=2,
                      label=f"{net} (seeds: {max(len(p[0]) for p in pairs)}; mean, smallest to largest)")  # fmt: skip
    if not any(stored["settings"]["quick"] for stored in results):
        left.plot(*[[v] for v in ANCHOR[1:]], marker="*", color="#202020", markersize=10, linestyle="none",
                  label=f"published: {ANCHOR[0]}")  # fmt: skip
    left.set_xscale("log")
    decades(left.xaxis)
    left.set_xlabel("nonzero weights, % (logarithmic)")
    left.set_ylabel("test accuracy, %")
    left.legend(fontsize=7)
    for stored in results:
        s, c = stored["settings"], stored["result"]["curves"]
        if s["seed"] != 0:
            continue
        _, line, colour = STYLES.get(s["net"], ("^", "--", "#c2571a"))
        right.plot(np.asarray(c["step"]) / max(c["step"]) * s["epochs"],
                   100 * np.asarray(c["nonzeros"]) / stored["result"]["total_weights"], line, color=colour)  # fmt: skip
        right.annotate(f"ρ = {s['strength']}", (s["epochs"], 100 * stored["result"]["kept_fraction"]), (3, 0),
                       textcoords="offset points", fontsize=7, va="center")  # fmt: skip
    right.set_yscale("log")
    decades(right.yaxis)
    right.set_xlabel("epochs (seed 0)")
    right.set_ylabel("nonzero weights, % (logarithmic)")
    return figure
