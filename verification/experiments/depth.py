"""Residual nets of growing depth on CIFAR-10: ε, Ĉ, rejections and loss against depth, for three metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from pmp_ref.accuracy import accuracy
from pmp_ref.architectures import residual_net
from pmp_ref.augmentation import CurvatureRule
from pmp_ref.controls import kernel_entries
from pmp_ref.data import load
from pmp_ref.errors import InputError
from pmp_ref.method import Method
from pmp_ref.metric import METRICS
from pmp_ref.result import Status
from pmp_ref.stop import Stop
from verification.experiments.drawing import (
    QUICK,
    STYLES,
    band,
    decades,
    grouped,
    legend,
    name_ends,
    points,
    power,
    seeds,
)
from verification.experiments.experiment import Context, Experiment, Row, new_figure
from verification.experiments.solving import follow, images, problem
from verification.experiments.training import sparse

LABELS = {"identity": "identity", "layer": "per layer", "gradient": "gradient-scaled"}


class Depth(Experiment):
    """Rows: metric × blocks on each level × seed, the rest alike. A net with n blocks on each of three levels has
    6n + 2 stages with kernels, projections aside."""

    name = "depth"
    title = "Depth: residual nets on CIFAR-10"
    summary = (
        "Residual nets (tanh, standardisation over groups of channels, three levels of 8, 16, 32 channels) with 1 to 8 "
        "blocks on each level, on CIFAR-10 images reduced to 16×16 pixels, by mini-batches with L0, constant ρ, the "
        "curvature rule and without averaging: what depth asks of ε, and what the metric does about it. The budget of "
        "steps is the same for all; it is far too small for a good accuracy."
    )
    columns: ClassVar[Mapping[str, str]] = {
        "metric": "metric",
        "layers": "layers with kernels",
        "seed": "seeds",
        "weights": "weights",
        "rho": "ρ",
        "first_c_hat": "first Ĉ",
        "first_eps": "first accepted ε",
        "median_eps": "median ε",
        "median_c_hat": "median Ĉ",
        "c_hat_spread": "Ĉ, 90 % over 10 % quantile",
        "accepted_steps": "steps",
        "rejections": "rejections",
        "skipped_batches": "batches skipped",
        "last_loss": "mean loss, last epoch",
        "sweeps_to_target": "batch sweeps to the target loss",
        "kept_percent": "kept weights (%)",
        "test_percent": "test accuracy (%)",
        "descent_violations": "descent violations",
        "descent_checked": "steps checked in float64",
        "status": "status",
    }

    def rows(self, quick: bool) -> list[Row]:
        """Three metrics, four depths, three seeds; quick: grey images, two depths, one seed."""
        common = {
            "data": "cifar10",
            "images_per_class": 100,
            "test_per_class": 50,
            "width": 8,
            "batch_size": 50,
            "epochs": 6,
            "rho": 1e-5,
            "theta": 3.0,
            "memory": 0.9,
            "target": 1.9,
            "check_every": 20,
        }
        if quick:
            common |= {"data": "mnist-subset", "images_per_class": 30, "width": 4, "epochs": 3, "check_every": 5}
        return [
            Row(
                f"{QUICK[quick]}{metric}-blocks{blocks}-seed{seed}",
                {"metric": metric, "blocks": blocks, "seed": seed, **common},
            )
            for seed in range(1 if quick else 3)
            for blocks in ((1, 2) if quick else (1, 2, 4, 8))
            for metric in LABELS
        ]

    def run(self, row: Row, context: Context) -> dict[str, Any]:
        """One run of ``solve``."""
        s = row.settings
        data = images(load(s["data"]), s["images_per_class"], s["test_per_class"], halved=True)
        if data.x.shape[0] != data.classes * s["images_per_class"]:
            raise InputError(f"{s['data']} has fewer than {s['images_per_class']} images of a class; expected as many")
        network = residual_net(data.x.shape[1:], data.classes, "tanh", s["width"], (s["blocks"],) * 3)
        method = Method(rule=CurvatureRule(theta=s["theta"], memory=s["memory"]), metric=METRICS[s["metric"]]())
        run = follow(
            problem(network, s["rho"], data.x, context.threads),
            data,
            method,
            Stop(epochs=s["epochs"]),
            s["batch_size"],
            s["seed"],
            s["check_every"],
            context,
        )
        steps, it = run.solution.steps, run.solution.iterate
        if not steps:
            raise InputError(f"row {row.key} took no step: {run.solution.status}")
        eps, c_hat, losses = (np.array([getattr(r, name) for r in steps]) for name in ("eps", "c_hat", "loss_before"))
        sweeps = np.array([r.forward_sweeps + r.backward_sweeps for r in steps])
        epochs = np.array([r.epoch for r in steps])
        per_epoch = [float(losses[epochs == e].mean()) for e in np.unique(epochs)]
        width = -(-data.x.shape[0] // s["batch_size"])
        smooth = np.convolve(losses, np.ones(width) / width, "valid")  # over the batches of an epoch
        reached = np.flatnonzero(smooth <= s["target"])
        kept, entries = kernel_entries(network.names(), it.controls)
        right = accuracy(network, it.controls, data.test_x, data.test_y)
        low, high = np.quantile(c_hat, (0.1, 0.9))
        index = sparse(len(steps), 150)
        return {
            "layers": 6 * s["blocks"] + 2,
            "weights": entries,
            "first_c_hat": run.solution.records[0].c_hat,
            "first_eps": float(eps[0]),
            "median_eps": float(np.median(eps)),
            "median_c_hat": float(np.median(c_hat)),
            "c_hat_spread": float(high / low) if low > 0 else None,
            "accepted_steps": it.step,
            "rejections": it.counts.rejections,
            "skipped_batches": it.counts.skipped,
            "trials_per_step": len(run.solution.records) / it.step,
            "last_loss": per_epoch[-1],
            "sweeps": int(sweeps[-1]),
            "target_loss": s["target"],
            "sweeps_to_target": int(sweeps[reached[0] + width - 1]) if reached.size else None,
            "kept_percent": 100 * kept / entries,
            "test_percent": 100 * right.part,
            "test_images": right.images,
            "training_images": int(data.x.shape[0]),
            "descent_violations": run.tally.violations,
            "descent_checked": run.tally.checked,
            "status": str(run.solution.status),
            "ended_early": run.solution.status is not Status.ITERATION_LIMIT,
            "run_seconds": run.seconds,
            "curves": {
                "sweeps": sweeps[index],
                "eps": eps[index],
                "c_hat": c_hat[index],
                "loss_at": sweeps[width - 1 :][sparse(len(smooth), 150)],
                "loss": smooth[sparse(len(smooth), 150)],
            },
        }

    def alt(self, figure: str) -> str:
        if figure == "depth-summary":
            return (
                "Median ε, sweeps to a given loss, spread of Ĉ and mean loss of the last epoch over "
                "the number of layers, one colour for each metric."
            )
        return (
            "Columns: depths. Mean loss, ε and measured curvature Ĉ over the sweeps of a batch, one colour for each "
            "metric."
        )

    def figures(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """Summary over depth; curves for each depth."""
        for stored in results:
            r = stored["result"]
            same = [
                other["result"]["sweeps_to_target"]
                for other in results
                if other["result"]["layers"] == r["layers"]
                and other["settings"]["metric"] == stored["settings"]["metric"]
            ]
            r["reached"] = None if None in same else r["sweeps_to_target"]  # a median of those that reached it misleads
        return self.over_depth(results) | self.over_sweeps(results)

    def over_depth(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """Median over the seeds with bars from the smallest to the largest value."""
        figure, axes = new_figure(8.2, 6.0, 2, 2, sharex=True)
        panels = (
            ("median_eps", "median ε of the steps", True),
            ("reached", f"batch sweeps to mean loss {results[0]['settings']['target']:g}", False),
            ("c_hat_spread", "spread of Ĉ (90 % / 10 % quantile)", True),
            ("last_loss", "mean loss, last epoch", False),
        )
        for (metric, rows), style in zip(grouped(results, "metric").items(), STYLES, strict=False):
            by_depth = sorted(grouped(rows, "layers").items())
            for axis, (name, _, _) in zip(axes.ravel(), panels, strict=True):
                points(axis, [n for (n,), _ in by_depth], [g for _, g in by_depth], name, style, LABELS[metric[0]])
        layers = sorted({r["result"]["layers"] for r in results})
        for axis, (_, label, log) in zip(axes.ravel(), panels, strict=True):
            axis.set(ylabel=label, xscale="log")
            axis.set_xticks(layers, [str(n) for n in layers])
            axis.set_xticks([], minor=True)
            if log:
                axis.set_yscale("log")
                decades(axis.yaxis)
        for axis in axes[1]:
            axis.set_xlabel("layers with kernels")
        for axis in axes[:, 1]:
            name_ends(axis)
        s = results[0]["settings"]
        figure.supxlabel(
            f"{results[0]['result']['training_images']} images, batch {s['batch_size']}, {s['epochs']} "
            f"epochs, ρ = {power(s['rho'])}; {seeds(results)}; no mark: a seed did not reach the loss",
            fontsize=9,
        )
        return {"depth-summary": figure}

    def over_sweeps(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """One column for each depth."""
        by_depth = sorted(grouped(results, "layers").items())
        figure, axes = new_figure(
            2.3 * len(by_depth) + 0.9, 6.6, len(by_depth), 3, sharex=True, sharey="row", squeeze=False
        )
        for column, ((layers,), of_depth) in zip(axes.T, by_depth, strict=True):
            for (metric,), rows in grouped(of_depth, "metric").items():
                style, curves = STYLES[list(LABELS).index(metric)], [r["result"]["curves"] for r in rows]
                band(column[0], [(c["loss_at"], c["loss"]) for c in curves], style, LABELS[metric])
                band(column[1], [(c["sweeps"], c["eps"]) for c in curves], style, None)
                band(column[2], [(c["sweeps"], c["c_hat"]) for c in curves], style, None, fill=False, lw=0.9)
            column[0].set_title(f"{layers} layers", fontsize=10)
            column[2].set_xlabel("sweeps of a batch")
            for axis in column[1:]:
                axis.set_yscale("log")
                decades(axis.yaxis)
        for row, label in zip(axes, ("mean loss", "ε", "measured curvature Ĉ"), strict=True):
            row[0].set_ylabel(label)
        legend(figure, axes[0, 0], title="metric")
        figure.supxlabel(f"{seeds(results)} (Ĉ: median)", fontsize=9)
        return {"depth-curves": figure}
