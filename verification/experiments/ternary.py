"""Weights in {−1, 0, 1} times a scale of their layer, by exact maximisation over the finite set. Biases are free.

Two starts. *Trained on the line*: bSQH with L0 on the line for the first epochs, then the nearest ternary kernel, its
scale s the one with the least distance. *Random*: s = κ·√(mean of u²) of the initial kernel u; s·sgn(u) at the 1/κ² of
the entries that are largest in modulus and 0 elsewhere, which has the mean square of the initial kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pmp_ref.admissible import WHOLE_LINE, FiniteSet
from pmp_ref.app.build import Setup, build_problem
from pmp_ref.arrays import Controls
from pmp_ref.controls import arrays_of, entry_sums, map_controls
from pmp_ref.errors import InputError
from pmp_ref.initialise import initial_controls
from pmp_ref.layers import Dense, Flatten, activation
from pmp_ref.metric import GradientMetric, each_entry
from pmp_ref.network import Network, headed
from verification.experiments.drawing import decades, ink
from verification.experiments.experiment import Context, Experiment, Row, new_figure
from verification.experiments.tradeoff import DATA, EPOCHS, SEEDS, counted_seeds, spread
from verification.experiments.training import Trained, train

FINITE = {
    "batch_size": "256",
    "epochs": "3",
    "rho": "1e-4",
    "ramp": "none",
    "theta": "3",
    "band": "1",
    "averaging": "0.97",
    "growth": "10",
    "eps0": "0.03",
}
LINE = {"ramp": "0.05:0.6", "theta": "3", "memory": "0.9", "growth": "20", "band": "1"}
ROWS = (  # network, ρ of the part on the line, seeds
    ("lenet5-caffe", "8e-4", (0,)),
    ("lenet5-caffe", "1.2e-3", (0,)),
    ("lenet5-caffe", "1.6e-3", SEEDS),
    ("lenet5-caffe", "2e-3", SEEDS),
    ("dense-256", "1.2e-3", (0,)),
)
HIDDEN = {"lenet5-caffe": None, "dense-256": (256, 256, 256), "dense-64": (64, 64, 64), "lenet5": None}

RANDOM = {
    "batch_size": "128",
    "epochs": "14",
    "rho": "1e-4",
    "ramp": "0.05:0.6",
    "theta": "0.6",
    "band": "1",
    "memory": "0.9",
    "growth": "20",
    "averaging": "0.9",
}
KAPPA = 2.0
QUICK_DATA = {"data": "mnist-subset", "network": "lenet5", "held_out": "0.2", "batch_size": "64"}
QUICK_LINE = {"rho": "4e-3", "ramp": "0.1:0.5", "epochs": "3"}

TRAINED = "trained on the line"
ANCHOR = ("discrete-MSA, ternary, dense 3×2048 (Li, Hao 2018)", 1.79, 98.83)
STYLES = {  # marker, line, colour by network and whether it was trained on the line first
    ("lenet5-caffe", True): ("o", "-", "C0"),
    ("lenet5-caffe", False): ("v", "-", "C1"),
    ("dense-256", True): ("s", "-", "C2"),
    ("dense-64", True): ("s", "-", "C2"),
    ("lenet5", True): ("o", "-", "C0"),
    ("lenet5", False): ("v", "-", "C1"),
}


class Ternary(Experiment):
    """See the module."""

    name = "ternary"
    title = "Weights in {−1, 0, 1}"
    summary = (
        "What does exact maximisation over a finite set reach: kernel entries in {−1, 0, 1} times a fixed scale of "
        "their layer, L0 in the Hamiltonian, no shadow weights; from random ternary kernels, and from kernels "
        "trained on the line and rounded once?"
    )
    columns = tuple(
        (
            "net kappa strength seed epochs line_kept_fraction line_test_accuracy test_accuracy test_low "
            "test_high kept_fraction kept_weights total_weights values_are_ternary disconnected "
            "descent_violations descent_checked rejections skipped_batches status"
        ).split()
    )

    def rows(self, quick: bool) -> list[Row]:
        return list(quick_rows() if quick else full_rows())

    def run(self, row: Row, context: Context) -> dict[str, Any]:
        s = row.settings

        def own(setup: Setup) -> Setup:
            return setup if s["hidden"] is None else dense(setup, s["hidden"], context.threads)

        if "line" not in s:
            before = None
        else:
            before = train(s["line"], context, own, "line")

        def change(setup: Setup) -> Setup:
            setup = own(setup)
            if before is None:
                return random_start(setup, s["kappa"])[0]
            return nearest(setup, before.controls(setup))[0]

        trained = train(s["options"], context, change)
        values = kernels_of(trained.directory / "model.npz")
        result, phases = trained.result, [trained] if before is None else [before, trained]
        for name in (
            "epochs",
            "accepted_steps",
            "rejections",
            "skipped_batches",
            "descent_violations",
            "descent_checked",
        ):
            result[name] = sum(one.result[name] for one in phases)
        return result | {
            "command": self.command(row),
            "line_kept_fraction": before and before.summary["kept_fraction"],
            "line_test_accuracy": before and before.summary["test_accuracy"],
            "seconds": sum(one.summary["seconds"] for one in phases),
            "values_are_ternary": all(is_ternary(k) for k in values),
            "curves": joined(phases) | {"kept_by_layer": [float(np.mean(k != 0)) for k in values]},
        }

    def figures(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        return {"ternary": draw(results)}

    def alt(self, figure: str) -> str:
        return (
            "Left, test accuracy against the share of nonzero weights by network, start and ρ, with the published "
            "anchor; right, the share of nonzero weights over the epochs."
        )

    def table(self, results: list[dict[str, Any]]) -> tuple[Sequence[str], list[Sequence[Any]]]:
        headings = (
            "network",
            "start",
            "ρ on the line",
            "seeds",
            "kept on the line, %",
            "test accuracy there, %",
            "kept, mean (min–max), %",
            "test accuracy, mean (min–max), %",
            "disconnected",
            "descent violations",
        )
        lines: list[Sequence[Any]] = []
        for (net, start, strength), group in grouped(results).items():
            found, line = [stored["result"] for stored in group], start == TRAINED
            lines.append(
                (
                    net,
                    start,
                    strength if line else "–",
                    len(group),
                    *(
                        spread([100 * r[name] for r in found]) if line else "–"
                        for name in ("line_kept_fraction", "line_test_accuracy")
                    ),
                    *(spread([100 * r[name] for r in found]) for name in ("kept_fraction", "test_accuracy")),
                    f"{sum(r['disconnected'] for r in found)} of {len(found)}",
                    sum(r["descent_violations"] for r in found),
                )
            )
        return headings, lines


def full_rows() -> Iterable[Row]:
    """Both networks from the line; LeNet-5-Caffe from random ternary kernels."""
    for net, rho, seeds in ROWS:
        for seed in seeds:
            line = DATA | {"epochs": str(EPOCHS), "rho": rho} | LINE | {"seed": str(seed)}
            yield line_row(net, line, DATA | FINITE, False)
    yield random_row("lenet5-caffe", DATA | RANDOM, False)


def quick_rows() -> Iterable[Row]:
    """A small dense net and classic LeNet-5 on bundled images."""
    for net in ("dense-64", "lenet5"):
        yield line_row(net, QUICK_DATA | QUICK_LINE | {"seed": "0"}, FINITE | QUICK_DATA | {"epochs": "2"}, True)
    yield random_row("lenet5", RANDOM | QUICK_DATA | {"epochs": "3"}, True)


def line_row(net: str, line: dict[str, str], finite: dict[str, str], quick: bool) -> Row:
    """A row that starts from kernels trained on the line."""
    seed = line["seed"]
    return Row(
        f"{'quick-' * quick}{net}-line-{line['rho']}-seed{seed}",
        {
            "net": net,
            "hidden": HIDDEN[net],
            "strength": line["rho"],
            "kappa": None,
            "seed": int(seed),
            "epochs": int(line["epochs"]) + int(finite["epochs"]),
            "line": line,
            "options": finite | {"seed": seed},
            "quick": quick,
        },
    )


def random_row(net: str, options: dict[str, str], quick: bool) -> Row:
    """A row that starts from random ternary kernels."""
    rho = options["rho"]
    return Row(
        f"{'quick-' * quick}{net}-{rho}-seed0",
        {
            "net": net,
            "hidden": HIDDEN[net],
            "strength": rho,
            "kappa": KAPPA,
            "seed": 0,
            "epochs": int(options["epochs"]),
            "options": options | {"seed": "0"},
            "quick": quick,
        },
    )


def start_of(settings: dict[str, Any]) -> str:
    """What the finite phase of a row starts from."""
    return TRAINED if "line" in settings else f"random, κ = {settings['kappa']:g}"


def joined(phases: Sequence[Trained]) -> dict[str, list[float]]:
    """The histories of the phases one after the other, over epochs passed."""
    names = ("loss", "nonzeros", "eps", "rho")
    curves: dict[str, list[float]] = {name: [] for name in ("passed", *names)}
    before = 0
    for one in phases:
        c, epochs = one.history(("step", *names)), one.summary["epochs"]
        curves["passed"] += [before + epochs * k / c["step"][-1] for k in c["step"]]
        for name in names:
            curves[name] += c[name]
        before += epochs
    return curves


def dense(setup: Setup, hidden: Sequence[int], threads: int | None) -> Setup:
    """The setup with a dense network in place of its own, same data and options."""
    act = activation("relu")
    stages = [Flatten(), *(stage for n in hidden for stage in (Dense(n), act)), Dense(setup.dataset.classes)]
    network = headed(setup.network.stages[0], Network(stages, setup.network.input_shape))
    problem = build_problem(setup.options, network, setup.x, threads)
    controls = initial_controls(network, setup.options.seed, setup.x, setup.options.dtype)
    return replace(setup, network=network, problem=problem, controls=controls)


Choice = Callable[[np.ndarray], tuple[float, np.ndarray]]  # a kernel → its scale s and where it starts


def random_start(setup: Setup, kappa: float) -> tuple[Setup, list[float]]:
    """The setup on {−s, 0, s} in each kernel from its own initial controls, and the scales s."""

    def choose(u: np.ndarray) -> tuple[float, np.ndarray]:
        return (s := scale(u, kappa)), start(u, s, kappa)

    return finite(setup, setup.controls, choose)


def nearest(setup: Setup, trained: Controls) -> tuple[Setup, list[float]]:
    """The setup on {−s, 0, s} in each kernel from the point nearest to ``trained``, and the scales s."""
    return finite(setup, trained, lambda u: (nearest_scale(u), u))


def finite(setup: Setup, from_: Controls, choose: Choice) -> tuple[Setup, list[float]]:
    """The setup on the finite sets with the scales that ``choose`` gives, started at the projection of its choice."""
    controls: list[Any] = []
    sets: list[Any] = []
    scales: list[float] = []
    nested: list[Any] = []
    for names, arrays in zip(setup.network.names(), from_, strict=True):
        stage: list[Any] = []
        admissible: list[Any] = []
        for name, u in zip(names, arrays, strict=True):
            if name == "kernel":
                s, u = choose(u)
                scales.append(s)
                admissible.append(FiniteSet((-s, 0.0, s)))
            else:
                admissible.append(WHOLE_LINE)
            stage.append(u)
        controls.append(tuple(stage))
        sets.append(tuple(admissible))
        nested.append((scales[-1],) * len(arrays) if arrays else ())
    problem = replace(setup.problem, admissible=tuple(sets))
    began: Controls = tuple(controls)
    method = replace(setup.method, metric=PerScale(scales=tuple(nested)))
    return replace(setup, problem=problem, method=method, controls=problem.project(began)), scales


@dataclass(frozen=True)
class PerScale(GradientMetric):
    """d_i = √(running mean of g_i²)/s_l, scaled to mean 1: K_ε is that of the codes v = w/s ∈ {−1, 0, 1}.

    An entry moves by s if |g_i|/√(mean of g_i²) is large enough, with one threshold for all layers whatever their s.
    """

    scales: Any = None  # nested like the controls

    def update(self, memory: Any, count: int, g: Controls) -> tuple[Any, Any]:
        memory, d = super().update(memory, count, g)
        d = map_controls(lambda a, s: a / a.dtype.type(s), d, self.scales)
        mean = float(entry_sums([each_entry(d, g)], g)[0]) / sum(a.size for a in arrays_of(g))
        return memory, map_controls(lambda a: a / a.dtype.type(mean), d)


def scale(u: np.ndarray, kappa: float) -> float:
    """s = κ √(mean u²)."""
    return float(kappa * np.sqrt(np.mean(np.square(u, dtype=np.float64))))


def nearest_scale(u: np.ndarray) -> float:
    """The s that minimises ‖u − s·c‖ over s > 0 and c ∈ {−1, 0, 1}ⁿ: mean of the k largest |u_i|, k such that
    (their sum)²/k is largest. Raises InputError for u = 0."""
    largest = np.sort(np.abs(u), axis=None)[::-1].astype(np.float64)
    if not largest[0] > 0:
        raise InputError("a kernel trained on the line is 0; expected an entry that is not, take a smaller ρ")
    sums, k = np.cumsum(largest), np.arange(1, largest.size + 1)
    best = int(np.argmax(sums**2 / k))
    return float(sums[best] / k[best])


def start(u: np.ndarray, s: float, kappa: float) -> np.ndarray:
    """s·sgn(u) at the 1/κ² of the entries that are largest in modulus, 0 elsewhere."""
    cut = np.quantile(np.abs(u), 1 - kappa**-2) if kappa > 1 else -1.0
    return np.where(np.abs(u) > cut, np.copysign(u.dtype.type(s), u), np.zeros_like(u))


def kernels_of(model: Path) -> list[np.ndarray]:
    """The kernels of a stored model."""
    from pmp_ref.files import unpack

    return [a for name, a in sorted(unpack(model).items()) if name.endswith(".kernel")]


def is_ternary(kernel: np.ndarray) -> bool:
    """True if all nonzero entries have one modulus."""
    return len(np.unique(np.abs(kernel[kernel != 0]))) <= 1


def grouped(results: list[dict[str, Any]]) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    """Stored rows by network, start and ρ."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for stored in results:
        s = stored["settings"]
        groups.setdefault((s["net"], start_of(s), s["strength"]), []).append(stored)
    return groups


def draw(results: list[dict[str, Any]]) -> Any:
    """Accuracy against kept share, on the line (hollow) and on the finite set; kept share against epochs."""
    figure, (left, right) = new_figure(9.0, 5.0, 2)
    for (net, start), pairs in by_line(results).items():
        marker, line, colour = STYLES[net, start == TRAINED]
        seeds = counted_seeds([shares for shares, _ in pairs])
        left.errorbar(
            *centres(pairs),
            marker=marker,
            linestyle=line,
            color=colour,
            capsize=2,
            label=f"{net}, {start.partition(',')[0]} ({seeds})",
        )
    rounded = [stored["result"] for stored in results if "line" in stored["settings"]]
    left.plot(
        [100 * r["line_kept_fraction"] for r in rounded],
        [100 * r["line_test_accuracy"] for r in rounded],
        "o",
        linestyle="none",
        markerfacecolor="none",
        color="C4",
        markersize=4,
        label="on the line, before rounding",
    )
    if not any(stored["settings"]["quick"] for stored in results):
        left.plot(
            *[[v] for v in ANCHOR[1:]],
            marker="*",
            color=ink(),
            markersize=10,
            linestyle="none",
            label=f"published: {ANCHOR[0]}",
        )
    left.set_xscale("log")
    decades(left.xaxis)
    left.set_xlabel("nonzero weights, % (logarithmic)")
    left.set_ylabel("test accuracy, %")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    for stored in results:
        s, c = stored["settings"], stored["result"]["curves"]
        if s["seed"] != 0:
            continue
        _, line, colour = STYLES[s["net"], "line" in s]
        passed = c["passed"] if "passed" in c else s["epochs"] * np.asarray(c["step"]) / c["step"][-1]
        right.plot(passed, 100 * np.asarray(c["nonzeros"]) / stored["result"]["total_weights"], line, color=colour)
        end = s["epochs"] - int(s["options"]["epochs"]) if "line" in s else s["epochs"]  # of what ρ stands for
        kept = stored["result"]["line_kept_fraction" if "line" in s else "kept_fraction"]
        right.annotate(
            f"ρ = {s['strength']}",
            (end, 100 * kept),
            (-4, 1),
            textcoords="offset points",
            fontsize=7,
            ha="right",
            va="bottom",
        )
    settings = [stored["settings"] for stored in results]
    for end in {s["epochs"] - int(s["options"]["epochs"]) for s in settings if "line" in s}:
        right.axvline(end, color="C4", linewidth=0.8)
        right.annotate(
            "finite set",
            (end, 0.97),
            (3, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            fontsize=7,
            va="top",
        )
    right.set_yscale("log")
    decades(right.yaxis)
    right.set_xlabel("epochs (seed 0)")
    right.set_ylabel("nonzero weights, % (logarithmic)")
    return figure


Pairs = list[tuple[list[float], list[float]]]  # for each ρ: kept shares and test accuracies of the seeds, in per cent


def by_line(results: list[dict[str, Any]]) -> dict[tuple[str, str], Pairs]:
    """What a line of the figure joins: network and start, over ρ."""
    lines: dict[tuple[str, str], Pairs] = {}
    for (net, start, _), group in grouped(results).items():
        found = [stored["result"] for stored in group]
        lines.setdefault((net, start), []).append(
            ([100 * r["kept_fraction"] for r in found], [100 * r["test_accuracy"] for r in found])
        )
    return {key: sorted(pairs, key=lambda p: float(np.mean(p[0]))) for key, pairs in lines.items()}


def centres(pairs: Pairs) -> tuple[Any, Any, Any, Any]:
    """x, y, and how far the seeds go in y and in x, as ``errorbar`` takes them."""
    middle = np.array([[np.mean(values) for values in pair] for pair in pairs])
    reach = np.array(
        [
            [[m - min(v), max(v) - m] for m, v in zip(centre, pair, strict=True)]
            for centre, pair in zip(middle, pairs, strict=True)
        ]
    )
    return middle[:, 0], middle[:, 1], reach[:, 1].T, reach[:, 0].T
