"""Mini-batches: loss over epochs and over time; batch sizes; rules for ε; acceptance test on and off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from pmp_ref.app.history import read
from pmp_ref.result import Status
from verification.experiments.drawing import (
    QUICK,
    STYLES,
    band,
    decades,
    grouped,
    legend,
    name_ends,
    numbers,
    paper,
    power,
    seeds,
)
from verification.experiments.experiment import Context, Experiment, Row, new_figure
from verification.experiments.training import sparse, train

RULES = {  # name of the row: (label, options)
    "curvature": ("curvature, θ = 3", {"rule": "curvature", "theta": "3", "growth": "1", "band": "1"}),
    "classic": ("classic, σ = 1.1, ζ = 0.9", {"rule": "classic"}),
    "fixed-0.02": ("fixed, ε = 0.02", {"rule": "fixed", "eps0": "0.02"}),
}
TESTS = {"absolute": "test on", "none": "test off"}
NAMES = {"absolute": "test", "none": "notest"}
RHO = 1e-3  # beside ρ = 0, which shows what the penalty changes and what it does not
STANDARD = 64
ENDED = str(Status.AUGMENTATION_LIMIT)


class MiniBatch(Experiment):
    """Rows: rule for ε × test on or off × ρ × seed at one batch size; batch sizes with the curvature rule."""

    name = "mini-batch"
    title = "Mini-batches: rules, batch sizes and the acceptance test"
    summary = (
        "Classic LeNet-5 with L0 on the bundled MNIST images by mini-batches, ρ constant, gradient-scaled metric and "
        "averaged switching functions: loss over epochs and over time, batch sizes, rules for ε, and what the "
        "acceptance test buys. The loss of an epoch is the mean over its batches, each before its step; ΔJ of a step "
        "is taken on the step's own batch."
    )
    columns: ClassVar[Mapping[str, str]] = {
        "rule": "rule",
        "acceptance": "test",
        "batch_size": "batch",
        "rho": "ρ",
        "seed": "seeds",
        "accepted_steps": "steps",
        "rejections": "rejections",
        "trials_per_step": "trials per step",
        "percent_rise": "steps with ΔJ > 0 (%)",
        "percent_loss_rise": "steps with ΔL > 0 (%)",
        "epoch_loss": "mean loss, last epoch",
        "kept_percent": "kept weights (%)",
        "test_percent": "test accuracy (%)",
        "epsilon": "last ε",
        "descent_violations": "descent violations",
        "descent_checked": "steps checked in float64",
        "status": "status",
    }

    def rows(self, quick: bool) -> list[Row]:
        """Rules × tests × ρ at batch 64, batch sizes 16 and 256; quick: a part of it, fewer epochs, one seed."""
        plan = [
            (rule, test, STANDARD, rho) for rho in ((RHO,) if quick else (0.0, RHO)) for rule in RULES for test in TESTS
        ]
        plan += [("curvature", "absolute", size, RHO) for size in ((256,) if quick else (16, 256))]
        epochs = 2 if quick else 4
        return [
            Row(
                f"{QUICK[quick]}{rule}-{NAMES[test]}-batch{size}-rho{rho:g}-seed{seed}",
                {
                    "rule": rule,
                    "acceptance": test,
                    "batch_size": size,
                    "rho": rho,
                    "seed": seed,
                    "options": {
                        "batch_size": str(size),
                        "epochs": str(epochs),
                        "rho": repr(rho),
                        "ramp": "none",
                        "acceptance": test,
                        "check_descent": "20",
                        "seed": str(seed),
                        **RULES[rule][1],
                    },
                },
            )
            for seed in range(1 if quick else 3)
            for rule, test, size, rho in plan
        ]

    def run(self, row: Row, context: Context) -> dict[str, Any]:
        """A training run; its history averaged over epochs."""
        run = train(row.settings["options"], context)
        steps = {name: np.array(values) for name, values in read(run.directory / "history.csv").items()}
        held = run.accuracy()
        epoch, rise, loss_rise = (steps["epoch"][1:], steps["delta_J"][1:], (steps["loss"] - steps["loss_before"])[1:])
        epochs = [int(e) for e in np.unique(epoch)]
        mean = lambda name: [float(np.mean(steps[name][1:][epoch == e])) for e in epochs]  # noqa: E731
        middle = lambda name: [float(np.median(steps[name][1:][epoch == e])) for e in epochs]  # noqa: E731
        result = run.result
        taken, accuracy = max(len(rise), 1), result["test_accuracy"]
        index = sparse(len(steps["step"]), 200)
        batches = -(-result["training_images"] // run.options.batch_size)  # in an epoch
        place = np.append(0.0, steps["epoch"][1:] + (steps["position"][1:] + 1) / batches)
        return result | {
            "rule": row.settings["rule"],
            "trials_per_step": 1 + result["rejections"] / taken,
            "percent_rise": 100 * float(np.sum(rise > 0)) / taken,
            "percent_loss_rise": 100 * float(np.sum(loss_rise > 0)) / taken,
            "epoch_loss": mean("loss_before")[-1] if epochs else None,
            "kept_percent": 100 * result["kept_fraction"],
            "test_percent": None if accuracy is None else 100 * accuracy,
            "curves": {
                "epoch": [0.0] + [e + 0.5 for e in epochs],
                "epoch_loss": [steps["loss"][0], *mean("loss_before")],
                "seconds": [0.0, *middle("seconds")],
                "held_out_epoch": held.get("epoch", []),
                "held_out": held.get("accuracy", []),
                "at": place[index],
                "eps": steps["eps"][index],
                "nonzeros": steps["nonzeros"][index],
            },
        }

    def alt(self, figure: str) -> str:
        if figure == "mini-batch-sizes":
            return "Mean loss over epochs, mean loss over seconds and kept weights over epochs for several batch sizes."
        return (
            "Columns: rules for ε. From top to bottom over the epochs: mean loss, ε, kept weights, held-out "
            "accuracy. Two colours for two ρ, full lines with the acceptance test, broken ones without."
        )

    def figures(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """Batch sizes; rules with and without the test."""
        return self.sizes(results) | self.rules(results)

    def sizes(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """Loss over epochs, loss over seconds, kept weights over epochs."""
        chosen = [
            r
            for r in results
            if (r["settings"]["rule"], r["settings"]["acceptance"], r["settings"]["rho"])
            == ("curvature", "absolute", RHO)
        ]
        by_size = sorted(grouped(chosen, "batch_size").items())
        if not by_size:
            return {}
        figure, axes = new_figure(9.2, 3.1, 3)
        for ((size,), rows), style in zip(by_size, STYLES, strict=False):
            curves = [r["result"]["curves"] for r in rows]
            share = 100 / rows[0]["result"]["total_weights"]
            label, marker = f"batch {size}", {"marker": style["marker"], "ms": 5, "mfc": paper()}
            band(axes[0], [(c["epoch"], c["epoch_loss"]) for c in curves], style, label, **marker)
            middle = np.median([c["seconds"] for c in curves], axis=0)
            band(axes[1], [(middle, c["epoch_loss"]) for c in curves], style, label, **marker)
            band(axes[2], [(c["at"], share * np.array(c["nonzeros"])) for c in curves], style, label)
        for axis in axes[:2]:
            axis.set_yscale("log")
            decades(axis.yaxis)
        axes[0].set_ylabel("mean loss over an epoch")
        axes[1].set_xlabel("seconds (median of the seeds)")
        axes[2].set(ylabel="kept weights (%)", yscale="log")
        decades(axes[2].yaxis)
        for axis in (axes[0], axes[2]):
            axis.set_xlabel("epochs")
        for axis in axes[[0, 2]]:
            name_ends(axis)
        figure.suptitle(f"curvature rule, test on, ρ = {power(RHO)}; {seeds(chosen)}", fontsize=9)
        return {"mini-batch-sizes": figure}

    def rules(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """One column for each rule at the standard batch size."""
        chosen = [r for r in results if r["settings"]["batch_size"] == STANDARD]
        by_rule = grouped(chosen, "rule")
        if not by_rule:
            return {}
        figure, axes = new_figure(
            2.6 * len(by_rule) + 0.8, 8.2, len(by_rule), 4, sharex=True, sharey="row", squeeze=False
        )
        rhos = sorted({r["settings"]["rho"] for r in chosen})
        for column, ((rule,), of_rule) in zip(axes.T, by_rule.items(), strict=True):
            for (rho, test), rows in grouped(of_rule, "rho", "acceptance").items():
                style = {"color": f"C{rhos.index(rho)}", "ls": "-" if test == "absolute" else "--"}
                curves = [r["result"]["curves"] for r in rows]
                share = 100 / rows[0]["result"]["total_weights"]
                label = f"ρ = {power(rho)}, {TESTS[test]}"
                drawn = (
                    ("epoch", "epoch_loss", 1.0),
                    ("at", "eps", 1.0),
                    ("at", "nonzeros", share),
                    ("held_out_epoch", "held_out", 100.0),
                )
                for axis, (over, name, factor) in zip(column, drawn, strict=True):
                    band(
                        axis,
                        [(c[over], factor * numbers(c[name])) for c in curves],
                        style,
                        label if axis is column[0] else None,
                    )
                    ended = [c for c, r in zip(curves, rows, strict=True) if r["result"]["status"] == ENDED]
                    if ended and over == "at":
                        axis.plot(
                            [c[over][-1] for c in ended],
                            [factor * c[name][-1] for c in ended],
                            ls="",
                            marker="x",
                            ms=8,
                            mew=1.6,
                            color=style["color"],
                        )
            column[0].set_title(RULES[rule][0], fontsize=10)
            column[-1].set_xlabel("epochs")
        for row, label in zip(
            axes, ("mean loss over an epoch", "ε", "kept weights (%)", "held-out accuracy (%)"), strict=True
        ):
            row[0].set_ylabel(label)
        for row in axes[:3]:
            row[0].set_yscale("log")
        for column in axes.T:  # a diverging run would press the others together
            column[0].set_ylim(0.05, 1e3)
            decades(column[0].yaxis)
            decades(column[2].yaxis)
        legend(figure, axes[0])
        figure.supxlabel(f"batch {STANDARD}; {seeds(chosen)}; ×: the run ended, its fixed ε had failed", fontsize=9)
        return {"mini-batch-rules": figure}
