"""One set of defaults on many cells: data × network × activation × batch size × ρ, beside Adam on the same batches."""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pmp_ref.accuracy import accuracy
from pmp_ref.app.build import build
from pmp_ref.app.options import resolve
from pmp_ref.controls import kernel_entries
from pmp_ref.errors import InputError
from pmp_ref.files import write_atomically
from pmp_ref.sweep import mean_loss
from verification.experiments import baselines
from verification.experiments.baselines import Plan
from verification.experiments.drawing import QUICK, STYLES
from verification.experiments.experiment import Context, Experiment, Row, new_figure
from verification.experiments.training import train, train_or_reuse

RHOS = (1e-5, 1e-4, 1e-3, 1e-2)  # three decades
BATCHES = (32, 128, 512)
STEPS = (1e-3, 3e-3, 1e-2)  # of Adam
PER_CENT_ABOVE_ADAM = 5.0  # the most that the loss without penalty may lie above Adam's best
STALLED_KEPT, COLLAPSED = 90.0, 1.5  # per cent of weights; times the loss of Adam pruned to the same share


@dataclass(frozen=True)
class Cell:
    """A data set and a network; ``images`` is a name that ``pmp-ref train --data`` takes, or "digits"."""

    images: str
    network: str
    activation: str
    epochs: int


CELLS = tuple(
    Cell(images, network, activation, epochs)
    for images, networks, epochs in (
        ("mnist", ("lenet5", "lenet5-caffe"), 8),
        ("cifar10", ("residual", "lenet5", "lenet5-caffe"), 6),
        ("digits", ("residual",), 24),
    )
    for network in networks
    for activation in ("tanh", "relu")
)
QUICK_CELLS = (Cell("mnist-subset", "lenet5", "tanh", 1),)


class Grid(Experiment):
    """Rows: for every cell and batch size bSQH at each ρ and at ρ = 0, Adam with several steps, and Adam pruned
    gradually to the share that each bSQH row has kept."""

    name = "grid"
    title = "One set of defaults: data, networks, batch sizes, ρ"
    summary = (
        "The command's defaults on MNIST, CIFAR-10 and scikit-learn's digits, with every network, tanh and ReLU, three "
        "batch sizes and ρ over three decades. Does a cell stall (hardly pruned) or collapse, how far is the loss "
        "without penalty from Adam's, and how far is a pruned network from Adam pruned gradually to the same share? "
        "All accuracies are those of held-out training images."
    )
    columns: ClassVar[Mapping[str, str]] = {
        "cell": "cell",
        "method": "method",
        "strength": "ρ or step",
        "seed": "seeds",
        "loss": "training loss",
        "kept_percent": "kept weights (%)",
        "held_out_percent": "held-out accuracy (%)",
        "epsilon": "last ε",
        "rejections": "rejections",
        "skipped_batches": "skipped batches",
        "emptied": "layers without weights",
    }

    def rows(self, quick: bool) -> list[Row]:
        """All cells; quick: one cell, one batch size, two ρ."""
        cells, batches, rhos = (QUICK_CELLS, (64,), (1e-2,)) if quick else (CELLS, BATCHES, RHOS)
        return [row for cell in cells for batch in batches for row in rows_of(cell, batch, rhos, quick)]

    def run(self, row: Row, context: Context) -> dict[str, Any]:
        """The numbers of a row; a pruned Adam row runs the bSQH row first whose share it takes."""
        s = row.settings
        options = with_data(s["options"], context)
        if s["method"] == "bSQH":
            found = train(options, context).result
            return {
                "loss": found["train_loss"],
                "kept_percent": 100 * found["kept_fraction"],
                "held_out_percent": 100 * found["held_out_accuracy"],
                "emptied": found["emptied_layers"],
                **{name: found[name] for name in ("epsilon", "rejections", "skipped_batches", "seconds", "command")},
            }
        share = None
        if s["method"] == "Adam, pruned":
            share = train_or_reuse(options, context, s["source"], name="share").result["kept_fraction"]
        setup = build(resolve(options), context.threads)
        plan = Plan("adam", int(options["epochs"]), s["step"], "linear", share=share)
        state = baselines.train(setup, plan, context.directory / "adam.npz", context.progress)
        kept, entries = kernel_entries(setup.network.names(), state.controls)
        assert setup.held_out is not None
        return {
            "loss": float(mean_loss(setup.problem.sweeper.trial(state.controls, setup.x, setup.y))),
            "kept_percent": 100 * kept / entries,
            "held_out_percent": 100 * accuracy(setup.network, state.controls, *setup.held_out).part,
            "seconds": round(state.seconds, 3),
        }

    def table(self, results: list[dict[str, Any]]) -> tuple[Sequence[str], list[Sequence[Any]]]:
        """A line for each bSQH row: its distance to the best network of its cell that is no larger, and to Adam."""
        shown = {
            "cell": "cell",
            "strength": "ρ",
            "loss": "loss",
            "kept_percent": "kept (%)",
            "held_out_percent": "held-out (%)",
            "below_best": "below the best of the cell (points)",
            "above_adam": "above Adam's loss (%)",
            "above_pruned": "above Adam pruned to the same share (points)",
            "verdict": "verdict",
        }
        return tuple(shown.values()), [[r[name] for name in shown] for r in judged(results)]

    def figures(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """Kept weights against the distance to Adam pruned to the same share, a marker for each ρ."""
        figure, axes = new_figure(7.0, 4.2)
        rows = [r for r in judged(results) if r["above_pruned"] is not None]
        for rho, style in zip(sorted({r["strength"] for r in rows}), STYLES * 2, strict=False):
            chosen = [r for r in rows if r["strength"] == rho]
            axes.plot(
                [r["kept_percent"] for r in chosen],
                [r["above_pruned"] for r in chosen],
                ls="",
                marker=style["marker"],
                color=style["color"],
                label=f"ρ = {rho:g}",
            )
        axes.axhline(0, color="C4", lw=0.8)
        axes.set(xscale="log", xlabel="kept weights (%)", ylabel="accuracy above Adam's (points)")
        if rows:
            axes.legend()
        return {"grid": figure}

    def alt(self, figure: str) -> str:
        return "Held-out accuracy minus that of Adam pruned gradually to the same share, against the kept share."


def rows_of(cell: Cell, batch: int, rhos: Iterable[float], quick: bool) -> Iterable[Row]:
    """The rows of one cell at one batch size."""
    title = f"{cell.images} {cell.network} {cell.activation}, batch {batch}"
    stem = f"{QUICK[quick]}{cell.images}-{cell.network}-{cell.activation}-batch{batch}"
    options = {
        "data": cell.images,
        "network": cell.network,
        "activation": cell.activation,
        "batch_size": str(batch),
        "epochs": str(cell.epochs),
        "check_descent": "none",
    }

    def row(key: str, method: str, strength: float, **more: Any) -> Row:
        return Row(f"{stem}-{key}", {"cell": title, "method": method, "strength": strength, "seed": 0, **more})

    for step in STEPS[1:2] if quick else STEPS:
        yield row(f"adam-{step:g}", "Adam", step, step=step, options=options | {"rho": "0"})
    for rho in (0.0, *rhos):
        yield row(f"rho{rho:g}", "bSQH", rho, options=options | {"rho": repr(rho)})
        if rho > 0:
            yield row(
                f"pruned-rho{rho:g}",
                "Adam, pruned",
                rho,
                step=STEPS[1],
                source=f"{stem}-rho{rho:g}",
                options=options | {"rho": repr(rho)},
            )


def with_data(options: Mapping[str, str], context: Context) -> dict[str, str]:
    """The options with a file in place of "digits", which scikit-learn brings; InputError if it is not installed."""
    if options["data"] != "digits":
        return dict(options)
    file = context.directory.parent.parent / "digits.npz"
    if not file.is_file():
        try:
            load_digits = importlib.import_module("sklearn.datasets").load_digits
        except ImportError:
            raise InputError("the digits come with scikit-learn; pip install scikit-learn") from None
        digits = load_digits()
        buffer = io.BytesIO()
        images = (digits.images * (255 / 16)).astype(np.uint8)
        np.savez(buffer, train_images=images, train_labels=digits.target.astype(np.int64)[:, None])
        write_atomically(file, buffer.getvalue())
    return {**options, "data": str(file)}


def judged(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The bSQH rows with their distances; None where a row to compare with is missing."""
    rows = [stored["settings"] | stored["result"] for stored in results]
    found = []
    for r in (r for r in rows if r["method"] == "bSQH"):
        cell = [other for other in rows if other["cell"] == r["cell"]]
        dense = [o["loss"] for o in cell if o["method"] == "Adam"]
        pruned = [o for o in cell if o["method"] == "Adam, pruned" and o["strength"] == r["strength"]]
        best = max(o["held_out_percent"] for o in cell if o["kept_percent"] <= 1.05 * r["kept_percent"])
        above = 100 * (r["loss"] / min(dense) - 1) if dense and r["strength"] == 0 else None
        stalled = r["strength"] == max(RHOS) and r["kept_percent"] > STALLED_KEPT
        collapsed = bool(pruned) and r["loss"] > COLLAPSED * pruned[0]["loss"]
        slow = above is not None and above > PER_CENT_ABOVE_ADAM
        found.append(
            r
            | {
                "below_best": best - r["held_out_percent"],
                "above_adam": above,
                "above_pruned": r["held_out_percent"] - pruned[0]["held_out_percent"] if pruned else None,
                "verdict": "stalled" if stalled else "collapsed" if collapsed else "slow" if slow else "good",
            }
        )
    return found
