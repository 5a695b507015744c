"""Full batch: J, loss, ε, rejections and support over sweeps, classic rule against curvature rule, several ρ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from pmp_ref.app.history import read
from verification.experiments.drawing import QUICK, STYLES, band, decades, fewer_images, grouped, legend, power, seeds
from verification.experiments.experiment import Context, Experiment, Row, lookup, new_figure
from verification.experiments.training import sparse, train

VARIANTS = {  # name of the row: (label, options)
    "classic": ("classic, σ = 1.1, ζ = 0.9", {"rule": "classic"}),
    "curvature": ("curvature, θ = 1.2", {"rule": "curvature", "theta": "1.2"}),
    "curvature-0.6": ("curvature, θ = 0.6", {"rule": "curvature", "theta": "0.6"}),
    "curvature-float64": ("curvature, θ = 1.2, float64", {"rule": "curvature", "theta": "1.2", "dtype": "float64"}),
}
AT_ONE_RHO = ("curvature-0.6", "curvature-float64")  # larger steps; Ĉ not lost in rounding


class FullBatch(Experiment):
    """Rows: rule for ε × ρ × seed of the initial controls; ρ is constant, the metric the identity."""

    name = "full-batch"
    title = "Full batch: LeNet-5 on MNIST images"
    summary = (
        "Classic LeNet-5 (6-16-120-84, tanh, average pooling, 61,470 weights) with L0 in full batch: how J, loss, ε, "
        "rejections and support go with the sweeps under the classic rule (reject: ε ← 1.1ε, accept: ε ← 0.9ε) and the "
        "curvature rule, for several constant ρ, in float32 unless said otherwise."
    )
    columns: ClassVar[Mapping[str, str]] = {
        "variant": "rule",
        "rho": "ρ",
        "seed": "seeds",
        "accepted_steps": "steps",
        "rejections": "rejections",
        "trials_per_step": "trials per step",
        "sweeps": "sweeps (both ways)",
        "objective_at_budget": "J at the common budget of sweeps",
        "train_objective": "J",
        "train_loss": "mean loss",
        "kept_percent": "kept weights (%)",
        "test_percent": "test accuracy (%)",
        "epsilon": "last ε",
        "epsilon_star": "ε*",
        "descent_violations": "descent violations",
        "descent_checked": "steps checked in float64",
        "steps_with_rise": "accepted steps with ΔJ > 0",
        "status": "status",
    }

    def rows(self, quick: bool) -> list[Row]:
        """24 rows; quick: four small ones."""
        rhos = (1e-5, 1e-4) if quick else (1e-5, 1e-4, 1e-3)
        images, steps, budget = (20, 40, 80) if quick else (80, 150, 300)
        return [
            Row(
                f"{QUICK[quick]}{variant}-rho{rho:g}-seed{seed}",
                {
                    "variant": variant,
                    "rho": rho,
                    "seed": seed,
                    "images_per_class": images,
                    "budget": budget,
                    "options": {
                        "batch_size": "full",
                        "steps": str(steps),
                        "ramp": "none",
                        "rho": repr(rho),
                        "check_descent": "20",
                        "seed": str(seed),
                        **VARIANTS[variant][1],
                    },
                },
            )
            for seed in range(1 if quick else 3)
            for rho in rhos
            for variant in VARIANTS
            if variant not in AT_ONE_RHO or (rho == 1e-4 and not quick)
        ]

    def run(self, row: Row, context: Context) -> dict[str, Any]:
        """A training run on the first images of each class."""
        s = row.settings
        run = train(s["options"], context, fewer_images(s["images_per_class"]))
        steps, trials = (read(run.directory / name) for name in ("history.csv", "trials.csv"))
        sweeps = np.add(steps["forward_sweeps"], steps["backward_sweeps"])
        rejected = np.cumsum(steps["rejections"])
        index = sparse(len(sweeps), 400)
        within = np.flatnonzero(sweeps <= s["budget"])
        result = run.result
        del result["command"]  # the options are not all: the images are fewer
        total = int(sweeps[-1])
        return result | {
            "trials_per_step": 1 + result["rejections"] / result["accepted_steps"],
            "sweeps": total,
            "objective_at_budget": steps["J"][within[-1]] if total >= s["budget"] else None,
            "kept_percent": 100 * result["kept_fraction"],
            "test_percent": 100 * result["test_accuracy"],
            "steps_with_rise": int(np.sum(np.array(steps["delta_J"][1:]) > 0)),
            "curves": {
                "sweeps": sweeps[index],
                "rejections": rejected[index],
                **{name: [steps[name][i] for i in index] for name in ("J", "loss", "eps", "nonzeros", "c_hat")},
                "rejected_at": np.add(trials.get("forward_sweeps", []), trials.get("backward_sweeps", [])),
                "rejected_eps": trials.get("eps", []),
            },
        }

    def alt(self, figure: str) -> str:
        return (
            "Columns: values of ρ. From top to bottom over the sweeps: objective J, mean loss, ε, rejections so "
            "far, kept weights in per cent; one colour for each rule, with a band over the seeds."
        )

    def figures(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """One column for each ρ: J, loss, ε, rejections, support."""
        by_rho = grouped(results, "rho")
        panels = (
            ("J", "objective J", 1.0),
            ("loss", "mean loss", 1.0),
            ("eps", "ε", 1.0),
            ("rejections", "rejections so far", 1.0),
            ("nonzeros", "kept weights (%)", None),
        )
        figure, axes = new_figure(2.6 * len(by_rho) + 0.9, 9.0, len(by_rho), len(panels), sharex=True, squeeze=False)
        for column, ((rho,), of_rho) in zip(axes.T, by_rho.items(), strict=True):
            for variant, rows in grouped(of_rho, "variant").items():
                style = STYLES[list(VARIANTS).index(variant[0])]
                for axis, (name, _, factor) in zip(column, panels, strict=True):
                    curves = [(r["result"]["curves"]["sweeps"], r["result"]["curves"][name]) for r in rows]
                    if factor is None:
                        share = 100 / rows[0]["result"]["total_weights"]
                        curves = [(x, share * np.array(y)) for x, y in curves]
                    band(axis, curves, style, VARIANTS[variant[0]][0], lw=0.9 if name == "eps" else 1.4)
            column[0].set_title(f"ρ = {power(float(rho))}")
            column[-1].set_xlabel("sweeps (forward and backward)")
        for row, (_, label, _) in zip(axes, panels, strict=True):
            row[0].set_ylabel(label)
        for axis in axes[:3].ravel():
            axis.set_yscale("log")
            decades(axis.yaxis)
        legend(figure, axes[0])
        figure.supxlabel(f"{lookup(results[0], 'training_images')} MNIST images; {seeds(results)}", fontsize=9)
        return {"full-batch-convergence": figure}
