"""Group L0 on filters and neurons: units kept and accuracy over ρ, beside entrywise L0; what compaction would save."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from pmp_ref.app.build import build
from pmp_ref.app.options import resolve
from pmp_ref.compact import compact, constant_output, sizes
from pmp_ref.kernels.blas import one_thread
from verification.experiments.drawing import QUICK, STYLES, decades, grouped, legend, paper, points, seeds
from verification.experiments.experiment import Context, Experiment, Row, new_figure
from verification.experiments.training import train

PENALTIES = {
    "ridge-group": "L2, then group L0",
    "group": "group L0 from the start",
    "l0": "L0 on single weights",
}
RHOS = {"ridge-group": (0.1, 0.15, 0.2, 0.3, 0.5), "group": (0.4, 0.6, 0.8), "l0": (1e-3, 2e-3, 4e-3, 8e-3)}
QUICK_RHOS = {"ridge-group": (0.15, 0.3), "group": (0.6,), "l0": (4e-3,)}
RIDGE = 1e-2  # ρ of r(w) = w²/2 in the phase before
OUTPUT_STAGE = 12  # of LeNet-5 behind Pixels: its ten neurons are the classes, their number is not to be chosen
NAMES = ("filters_1", "filters_2", "neurons_1", "neurons_2")


class Groups(Experiment):
    """Rows: penalty × ρ × seed. A group is a filter or a neuron; the ten output neurons are not penalised as groups."""

    name = "groups"
    title = "Group L0: filters and neurons"
    summary = (
        "Classic LeNet-5 on the bundled MNIST images by mini-batches with group L0, one group for each filter and "
        "neuron (ρ is the price of a unit, whatever its size), with and without a phase of L2 before it, beside L0 on "
        "single weights (ρ is the price of a weight). Units, weights and multiply-adds are those of the network that "
        "`pmp-ref compact` would write."
    )
    columns: ClassVar[Mapping[str, str]] = {
        "penalty": "penalty",
        "rho": "ρ",
        "seed": "seeds",
        "test_percent": "test accuracy (%)",
        "filters_1": "filters 1 (of 6)",
        "filters_2": "filters 2 (of 16)",
        "neurons_1": "neurons 1 (of 120)",
        "neurons_2": "neurons 2 (of 84)",
        "kept_percent": "nonzero weights (%)",
        "compact_weights": "weights after compaction",
        "compact_percent": "of all (%)",
        "multiply_adds_percent": "multiply-adds (%)",
        "rejections": "rejections",
        "descent_violations": "descent violations",
        "descent_checked": "steps checked in float64",
        "disconnected": "disconnected",
    }

    def rows(self, quick: bool) -> list[Row]:
        """Three penalties, three to five ρ each, three seeds; quick: four rows, fewer epochs. Rows with two phases have
        as many epochs as the others."""
        epochs, found = 2 if quick else 6, []
        for seed in range(1 if quick else 3):
            for penalty, rhos in (QUICK_RHOS if quick else RHOS).items():
                common = {"check_descent": "20", "seed": str(seed), "theta": "3", "band": "1"}
                ridge = {
                    "regulariser": "l2",
                    "rho": repr(RIDGE),
                    "ramp": "none",
                    "growth": "1",
                    "epochs": str(epochs // 2),
                    **common,
                }
                two = penalty == "ridge-group"
                for rho in rhos:
                    options = {"rho": repr(rho), "epochs": str(epochs // 2 if two else epochs), **common}
                    if penalty != "l0":
                        options |= {"regulariser": "group-l0", "layer_weights": f"{OUTPUT_STAGE}=0"}
                    if two:
                        options["ramp"] = "0:0.5"
                    found.append(
                        Row(
                            f"{QUICK[quick]}{penalty}-rho{rho:g}-seed{seed}",
                            {
                                "penalty": penalty,
                                "rho": rho,
                                "seed": seed,
                                "options": options,
                                "before": ridge if two else None,
                            },
                        )
                    )
        return found

    def run(self, row: Row, context: Context) -> dict[str, Any]:
        """One or two training runs and the network that is left after compaction."""
        s = row.settings
        with one_thread():
            setup = build(resolve(s["options"]), context.threads)
        if s["before"] is None:
            runs = [train(s["options"], context)]
        else:
            first = train(s["before"], context, name="before")
            begin = first.controls(setup)
            options = s["options"] | {"eps0": repr(first.summary["epsilon"])}
            runs = [first, train(options, context, lambda plain: replace(plain, controls=begin))]
        controls = runs[-1].controls(setup)
        whole = sizes(setup.network, controls)
        smaller = compact(setup.network, controls)
        left = sizes(*smaller)
        result = runs[-1].result
        del result["command"]  # the options are not all where a phase comes before
        weights, sums = sum(z.weights for z in left), sum(z.multiply_adds for z in left)
        units = [z.shape[0] for z in left]
        for name in ("descent_violations", "descent_checked", "rejections", "seconds"):
            result[name] = sum(run.summary[name] for run in runs)
        return (
            result
            | dict(zip(NAMES, units, strict=False))
            | {
                "disconnected": constant_output(setup.network, controls) is not None,
                "test_percent": 100 * result["test_accuracy"],
                "kept_percent": 100 * result["kept_fraction"],
                "compact_weights": weights,
                "compact_percent": 100 * weights / sum(z.weights for z in whole),
                "multiply_adds": sums,
                "multiply_adds_percent": 100 * sums / sum(z.multiply_adds for z in whole),
                "all_units": [z.shape[0] for z in whole],
                "curves": runs[-1].history(("step", "nonzeros", "eps"), 100),
            }
        )

    def alt(self, figure: str) -> str:
        if figure == "groups-units":
            return (
                "Share of filters and neurons left in each layer over ρ: L2 then group L0, group L0 from the "
                "start, L0 on single weights."
            )
        return (
            "Test accuracy over the weights, and over the multiply-adds, of the network after compaction, one mark "
            "for each run: circles for L2 then group L0, squares for group L0, triangles for L0."
        )

    def figures(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """Units kept over ρ; accuracy over what remains."""
        return self.units(results) | self.savings(results)

    def units(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """One panel for each penalty, one line for each layer."""
        by_penalty = grouped(results, "penalty")
        figure, axes = new_figure(3.1 * len(by_penalty) + 0.5, 3.6, len(by_penalty), sharey=True, squeeze=False)
        for axis, ((penalty,), rows) in zip(axes[0], by_penalty.items(), strict=True):
            by_rho = sorted(grouped(rows, "rho").items())
            rhos = [rho for (rho,), _ in by_rho]
            for i, (name, style) in enumerate(zip(NAMES, STYLES, strict=True)):
                size = rows[0]["result"]["all_units"][i]
                shifted = [rho * 1.02 ** (i - 1.5) for rho in rhos]  # bars side by side
                points(
                    axis,
                    shifted,
                    [g for _, g in by_rho],
                    name,
                    style,
                    f"{name.replace('_', ' ')} (of {size})",
                    100 / size,
                )
            axis.set(
                title=PENALTIES[penalty],
                xscale="log",
                xlabel="ρ (per weight)" if penalty == "l0" else "ρ (per unit)",
                ylim=(0, 104),
            )
            axis.title.set_fontsize(10)
            decades(axis.xaxis)
        axes[0, 0].set_ylabel("units kept (%)")
        legend(figure, axes[0])
        figure.supxlabel(seeds(results), fontsize=9)
        return {"groups-units": figure}

    def savings(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """Accuracy over weights and multiply-adds of what remains; every run a mark."""
        figure, axes = new_figure(8.4, 3.5, 2, sharey=True)
        for ((penalty,), rows), style in zip(grouped(results, "penalty").items(), STYLES, strict=False):
            for axis, name in zip(axes, ("compact_percent", "multiply_adds_percent"), strict=True):
                place, right = ([r["result"][what] for r in rows] for what in (name, "test_percent"))
                axis.plot(
                    place,
                    right,
                    ls="",
                    ms=5.5,
                    marker=style["marker"],
                    color=style["color"],
                    mfc=paper(),
                    label=PENALTIES[penalty],
                )
        for axis, what in zip(axes, ("weights", "multiply-adds"), strict=True):
            axis.set(xscale="log", xlabel=f"{what} after compaction (%)")
            decades(axis.xaxis)
        axes[0].set_ylabel("test accuracy (%)")
        axes[0].legend(loc="lower right", labelcolor="markeredgecolor")
        return {"groups-savings": figure}
