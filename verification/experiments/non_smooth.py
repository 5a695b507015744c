"""tanh and average pooling against ReLU and max pooling: acceptance, rejections, Ĉ, ε, descent, and what T5, T6 miss.

On a smooth network the remainder of a step is the integral of the second derivative along it (T5):

    J(w) − J(u) + ΣΔH = ∫₀¹ (1 − t) d(t) dt,   d(t) = D²L_B(u + tΔ)[Δ, Δ],

so Ĉ ≤ max_t d(t)/(2τ) (T6 along the step). With ReLU or max pooling d exists almost everywhere, but the slope also
jumps at kinks, and what the jumps contribute is in the left side only. Both sides are computed here in float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from pmp_ref.accuracy import accuracy
from pmp_ref.architectures import lenet5
from pmp_ref.arrays import Controls
from pmp_ref.augmentation import RULES
from pmp_ref.controls import cast, inner, kernel_entries, map_controls, subtract
from pmp_ref.data import load
from pmp_ref.iterate import Iterate
from pmp_ref.method import Method
from pmp_ref.problem import Problem
from pmp_ref.result import Record
from pmp_ref.second_order import hessian_vector
from pmp_ref.stop import Stop
from verification.experiments.drawing import QUICK, STYLES, band, decades, grouped, legend, numbers, paper, power, seeds
from verification.experiments.experiment import Context, Experiment, Row, new_figure
from verification.experiments.solving import follow, images, problem
from verification.experiments.training import sparse

NETWORKS = {  # key: activation, pooling
    "tanh-average": ("tanh", "average"),
    "tanh-max": ("tanh", "max"),
    "relu-average": ("relu", "average"),
    "relu-max": ("relu", "max"),
}
RULE_LABELS = {"curvature": "curvature, θ = 1.2", "classic": "classic, σ = 1.1, ζ = 0.9"}
RAY = np.geomspace(1e-4, 4.0, 56)  # lengths in units of the step


class Along:
    """The loss on a batch along u + tΔ, in float64 on the clear path."""

    def __init__(self, p: Problem, u: Controls, w: Controls, x: np.ndarray, y: np.ndarray) -> None:
        self.p, self.x, self.y = replace(p, sweep=None), x.astype(np.float64), y
        self.u, self.delta = cast(u, "float64"), subtract(cast(w, "float64"), cast(u, "float64"))
        e = self.p.sweeper.forward_backward(self.u, self.x, self.y)
        assert e.switching is not None
        self.losses, self.slope = e.losses, -float(inner(e.switching, self.delta))
        self.tau = float(inner(self.delta, self.delta))

    def point(self, t: float) -> Controls:
        """u + tΔ."""
        return map_controls(lambda a, d: a + t * d, self.u, self.delta)

    def remainder(self, t: float = 1.0) -> float:
        """L_B(u + tΔ) − L_B(u) − t DL_B(u)[Δ]: at t = 1 the left side of T5."""
        after = self.p.sweeper.forward(self.point(t), self.x, self.y).losses
        return float(np.mean(after - self.losses)) - t * self.slope

    def second(self, t: float) -> float:
        """d(t)."""
        return float(inner(hessian_vector(self.p, self.point(t), self.x, self.y, self.delta), self.delta))

    def smooth_part(self, nodes: int) -> tuple[float, float]:
        """(∫₀¹(1 − t)d(t)dt by Gauss–Legendre, the largest d(t) at its nodes)."""
        t, weights = np.polynomial.legendre.leggauss(nodes)
        t, weights = (t + 1) / 2, weights / 2
        values = np.array([self.second(float(s)) for s in t])
        return float(np.sum(weights * (1 - t) * values)), float(values.max())


class NonSmooth(Experiment):
    """Rows: network × rule × seed, full batch; steps chosen beforehand are taken apart by T5."""

    name = "non-smooth"
    title = "ReLU and max pooling: what holds without smoothness"
    summary = (
        "Classic LeNet-5 with tanh or ReLU, average or max pooling, in full batch with L0: acceptance, rejections, ε, "
        "measured curvature Ĉ and descent, and how much of Ĉ sits in kinks, where the hypotheses of T5–T9 fail. "
        "Descent of every accepted step is a matter of the test and needs no smoothness."
    )
    columns: ClassVar[Mapping[str, str]] = {
        "network": "network",
        "analytic": "smooth",
        "rule": "rule",
        "seed": "seeds",
        "accepted_steps": "steps",
        "rejections": "rejections",
        "trials_per_step": "trials per step",
        "median_eps": "median ε",
        "median_c_hat": "median Ĉ",
        "c_hat_jump": "median factor between successive Ĉ",
        "kink_percent": "missed by T5 (%, median)",
        "inequality_held": "steps with Ĉ ≤ max d/(2τ)",
        "inequality_checked": "of",
        "train_objective": "J",
        "train_loss": "mean loss",
        "kept_percent": "kept weights (%)",
        "test_percent": "test accuracy (%)",
        "steps_with_rise": "accepted steps with ΔJ > 0",
        "descent_violations": "descent violations",
        "descent_checked": "steps checked in float64",
        "status": "status",
    }

    def rows(self, quick: bool) -> list[Row]:
        """Four networks, two rules, three seeds; quick: the two extremes, one rule, one seed."""
        common = {
            "data": "mnist-subset",
            "images_per_class": 15,
            "test_per_class": 100,
            "steps": 80,
            "rho": 1e-4,
            "check_every": 10,
            "apart": [2, 5, 10, 20, 40, 80],
            "nodes": 8,
            "ray": 20,
        }
        if quick:
            common |= {"images_per_class": 4, "steps": 20, "apart": [2, 6, 12], "nodes": 6, "ray": 12}
        return [
            Row(
                f"{QUICK[quick]}{network}-{rule}-seed{seed}", {"network": network, "rule": rule, "seed": seed, **common}
            )
            for seed in range(1 if quick else 3)
            for network in (("tanh-average", "relu-max") if quick else NETWORKS)
            for rule in (("curvature",) if quick else RULE_LABELS)
        ]

    def run(self, row: Row, context: Context) -> dict[str, Any]:
        """One run of ``solve``; steps taken apart as it goes."""
        s = row.settings
        data = images(load(s["data"]), s["images_per_class"], s["test_per_class"])
        network = lenet5(data.x.shape[1:], data.classes, *NETWORKS[s["network"]])
        p = problem(network, s["rho"], data.x, context.threads)
        apart: list[dict[str, float]] = []
        rays: dict[str, Any] = {}

        def look(u: Controls, it: Iterate, record: Record) -> None:
            if not record.accepted:
                return
            if record.step in s["apart"]:
                line = Along(p, u, it.controls, data.x, data.y)
                whole = line.remainder()
                smooth, largest = line.smooth_part(s["nodes"])
                apart.append(
                    {
                        "step": record.step,
                        "c_hat": whole / line.tau,
                        "smooth": smooth / line.tau,
                        "bound": largest / (2 * line.tau),
                    }
                )
            if record.step == s["ray"]:
                parts = {"batch": slice(None)} | {f"image {k}": slice(k, k + 1) for k in self.singles(data.y)}
                for name, cut in parts.items():
                    line = Along(p, u, it.controls, data.x[cut], data.y[cut])
                    rays[name] = [line.remainder(float(t)) / (t * t * line.tau) for t in RAY]

        method = Method(rule=RULES[s["rule"]]())
        run = follow(p, data, method, Stop(steps=s["steps"]), None, s["seed"], s["check_every"], context, look)
        steps, it = run.solution.steps, run.solution.iterate
        last, c_hat = steps[-1], np.array([r.c_hat for r in steps])
        positive = c_hat[c_hat > 0]
        kept, entries = kernel_entries(network.names(), it.controls)
        kinks = [abs(a["c_hat"] - a["smooth"]) / max(abs(a["c_hat"]), abs(a["smooth"])) for a in apart]
        # 1e-6: rounding and quadrature; on the smooth network the nodes' largest value bounds their own mean
        held = sum(a["c_hat"] <= a["bound"] * (1 + 1e-6) for a in apart)
        index = sparse(len(steps), 150)
        rejected = np.cumsum([r.rejections for r in steps])
        sweeps = [r.forward_sweeps + r.backward_sweeps for r in steps]
        return {
            "analytic": network.analytic,
            "accepted_steps": it.step,
            "rejections": it.counts.rejections,
            "trials_per_step": len(run.solution.records) / it.step,
            "median_eps": float(np.median([r.eps for r in steps])),
            "median_c_hat": float(np.median(c_hat)),
            "c_hat_jump": float(np.exp(np.median(np.abs(np.diff(np.log(positive)))))) if positive.size > 2 else None,
            "negative_c_hat": int(np.sum(c_hat < 0)),
            "kink_percent": 100 * float(np.median(kinks)),
            "largest_kink_percent": 100 * max(kinks),
            "inequality_held": held,
            "inequality_checked": len(apart),
            "train_objective": last.J,
            "train_loss": last.loss,
            "kept_percent": 100 * kept / entries,
            "test_percent": 100 * accuracy(network, it.controls, data.test_x, data.test_y).part,
            "training_images": int(data.x.shape[0]),
            "steps_with_rise": sum(r.delta_J > 0 for r in steps),
            "descent_violations": run.tally.violations,
            "descent_checked": run.tally.checked,
            "status": str(run.solution.status),
            "run_seconds": run.seconds,
            "curves": {
                "sweeps": [sweeps[i] for i in index],
                "rejections": rejected[index],
                "c_hat": c_hat[index],
                "eps": [steps[i].eps for i in index],
                "J": [steps[i].J for i in index],
                "loss": [steps[i].loss for i in index],
                "apart": apart,
                "rays": rays,
                "lengths": RAY,
            },
        }

    def singles(self, labels: np.ndarray) -> list[int]:
        """The first image of each of the first four classes."""
        return [int(np.flatnonzero(labels == k)[0]) for k in range(4)]

    def alt(self, figure: str) -> str:
        return {
            "non-smooth-runs": "Columns: networks. Objective J, ε, measured curvature Ĉ and rejections so far over the "
            "sweeps, blue lines and circles for the curvature rule, orange lines and squares for the classic one.",
            "non-smooth-rays": "Remainder over squared length along one step, for the batch and for single images, "
            "over the length of the step: constant towards 0 with tanh and average pooling.",
            "non-smooth-kinks": "Part of the remainder that the integral of the second derivative misses, step by "
            "step, for the four networks.",
        }.get(figure, self.title)

    def figures(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """Runs; Ĉ along rays; the part of Ĉ in kinks."""
        return self.runs(results) | self.rays(results) | self.kinks(results)

    def runs(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """One column for each network."""
        by_network = grouped(results, "network")
        panels = (
            ("J", "objective J"),
            ("eps", "ε"),
            ("c_hat", "measured curvature Ĉ"),
            ("rejections", "rejections so far"),
        )
        figure, axes = new_figure(
            2.3 * len(by_network) + 0.9, 8.2, len(by_network), 4, sharex=True, sharey="row", squeeze=False
        )
        for column, ((network,), of_network) in zip(axes.T, by_network.items(), strict=True):
            for ((rule,), rows), style in zip(grouped(of_network, "rule").items(), STYLES, strict=False):
                for axis, (name, _) in zip(column, panels, strict=True):
                    curves = [(r["result"]["curves"]["sweeps"], r["result"]["curves"][name]) for r in rows]
                    if name == "c_hat":
                        x, y = numbers(curves[0][0]), numbers(curves[0][1])
                        axis.plot(
                            x,
                            np.where(y > 0, y, math.nan),
                            ls="",
                            marker=style["marker"],
                            color=style["color"],
                            ms=2.5,
                            mew=0.6,
                            mfc="none",
                        )
                    else:
                        band(axis, curves, style, RULE_LABELS[rule], lw=0.9 if name == "eps" else 1.4)
            column[0].set_title(" + ".join(NETWORKS[network]), fontsize=10)
            column[-1].set_xlabel("sweeps")
        for row, (_, label) in zip(axes, panels, strict=True):
            row[0].set_ylabel(label)
        for axis in axes[:3].ravel():
            axis.set_yscale("log")
            decades(axis.yaxis)
        legend(figure, axes[0, 0])
        s = results[0]["settings"]
        figure.supxlabel(
            f"{results[0]['result']['training_images']} MNIST images, full batch, ρ = {power(s['rho'])}; "
            f"{seeds(results)} (Ĉ: steps of the first seed)",
            fontsize=9,
        )
        return {"non-smooth-runs": figure}

    def rays(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """Ĉ(t) along one step of the curvature rule, first seed."""
        chosen = [
            r
            for r in results
            if r["settings"]["rule"] == "curvature" and r["settings"]["seed"] == 0 and r["result"]["curves"]["rays"]
        ]
        if not chosen:
            return {}
        figure, axes = new_figure(2.5 * len(chosen) + 0.8, 3.2, len(chosen), sharex=True, sharey=True, squeeze=False)
        for axis, stored in zip(axes[0], chosen, strict=True):
            curves = stored["result"]["curves"]
            labels = iter(("the batch", "one image"))
            for name, values in curves["rays"].items():
                style = {"color": "C0", "lw": 2.2} if name == "batch" else {"color": "C1", "lw": 0.9}
                axis.plot(curves["lengths"], numbers(values) / values[0], label=next(labels, None), **style)
            axis.set_xscale("log")
            decades(axis.xaxis)
            axis.set_yscale("symlog", linthresh=1.0)
            axis.yaxis.set_major_formatter(lambda v, _: f"{v:g}")
            axis.set_title(" + ".join(NETWORKS[stored["settings"]["network"]]), fontsize=10)
            axis.set_xlabel("length t of the step")
        axes[0, 0].set_ylabel("Ĉ(t) / Ĉ(10⁻⁴)")
        legend(figure, axes[0, 0])
        figure.supxlabel(
            f"Ĉ(t) = remainder/(t²τ) along step {chosen[0]['settings']['ray']}, t = 1: the step taken; "
            "curvature rule, seed 0, float64",
            fontsize=9,
        )
        return {"non-smooth-rays": figure}

    def kinks(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """|Ĉ − smooth part| / max of both, step by step."""
        by_network = grouped(results, "network")
        figure, axis = new_figure(6.4, 3.6)
        for ((network,), rows), style in zip(by_network.items(), STYLES, strict=False):
            steps, parts = [], []
            for r in rows:
                for a in r["result"]["curves"]["apart"]:
                    scale = max(abs(a["c_hat"]), abs(a["smooth"]))
                    steps.append(a["step"] * 1.03 ** (list(by_network).index((network,)) - 1.5))
                    parts.append(max(100 * abs(a["c_hat"] - a["smooth"]) / scale, 1e-8))
            axis.plot(
                steps,
                parts,
                ls="",
                marker=style["marker"],
                color=style["color"],
                mfc=paper(),
                ms=5,
                label=" + ".join(NETWORKS[network]),
            )
        axis.set(xlabel="accepted step", ylabel="missed by T5 (% of the larger side)", xscale="log", yscale="log")
        decades(axis.xaxis)
        decades(axis.yaxis)
        axis.legend(labelcolor="markeredgecolor", loc="center right", bbox_to_anchor=(1.0, 0.27))
        which = seeds(results).split(":")[0]
        figure.supxlabel(f"10⁻⁸: or less; tanh + average: error of the quadrature; both rules, {which}", fontsize=9)
        return {"non-smooth-kinks": figure}
