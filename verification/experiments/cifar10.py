"""CIFAR-10: all 50,000 images, moved and mirrored, residual nets of 8 to 32 layers, dense and at wished sizes.

Every row trains on all training images and looks at the test images once, at its end. Adam has the same network,
initial controls, batches and drawn images; it is pruned gradually to the share that is wished for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pmp_ref.app.build import build
from pmp_ref.app.options import resolve
from pmp_ref.sweep import mean_loss
from verification.experiments import baselines
from verification.experiments.baselines import Plan
from verification.experiments.drawing import QUICK, STYLES, grouped, name_ends
from verification.experiments.experiment import Context, Experiment, Row, new_figure
from verification.experiments.training import train

DATA = {"data": "cifar10", "held_out": "0", "batch_size": "128", "shift": "4", "flip": "horizontal"}
QUICK_DATA = {"data": "mnist-subset", "held_out": "0.8", "batch_size": "32", "shift": "1"}  # 1,000 images
# today's defaults, so that a row keeps them
RULE = {"theta": "0.7", "memory": "0.9", "growth": "20", "band": "20", "fall": "0.05"}
EPOCHS, EQUAL = 30, 10  # with 20 layers; of every depth, to compare them
DEPTHS = (8, 14, 20, 32)
SHARES = ("10%", "5%")
ADAM_STEP = 3e-3


class Cifar10(Experiment):
    """Rows: method × wished size with 20 layers, and method × depth with all weights."""

    name = "cifar10"
    title = "CIFAR-10"
    summary = (
        "All 50,000 images of CIFAR-10, moved by up to four pixels and mirrored at random, residual nets like "
        "ResNet-20: what does bSQH reach with all weights, with a tenth and with a twentieth of them, how does it go "
        "with depth, and what does an epoch cost beside Adam?"
    )
    columns: ClassVar[Mapping[str, str]] = {
        "method": "method",
        "layers": "layers",
        "keep": "wished size",
        "epochs": "epochs",
        "seed": "seeds",
        "loss": "training loss",
        "kept_percent": "kept weights (%)",
        "test_percent": "test accuracy (%)",
        "test_low": "from",
        "test_high": "to (95 %)",
        "seconds_per_epoch": "seconds per epoch",
        "rejections": "rejections",
        "descent_violations": "descent violations",
        "status": "status",
        "command": "command",
    }

    def rows(self, quick: bool) -> list[Row]:
        """20 layers with all weights and at two sizes, then all depths; quick: grey images, 8 layers, one epoch."""
        if quick:
            plan = [(method, 8, keep, 1) for keep in (None, "10%") for method in ("bSQH", "Adam")]
        else:
            plan = [(method, 20, keep, EPOCHS) for keep in (None, *SHARES) for method in ("bSQH", "Adam")]
            plan += [(method, depth, None, EQUAL) for depth in DEPTHS for method in ("bSQH", "Adam")]
        return [row(*entry, seed=0, quick=quick) for entry in plan]

    def run(self, row: Row, context: Context) -> dict[str, Any]:
        """The numbers of a row, and the command that makes it."""
        found = (bsqh if row.settings["method"] == "bSQH" else adam)(row, context)
        per_epoch = round(found["seconds"] / row.settings["epochs"], 2)
        return {"command": self.command(row), "seconds_per_epoch": per_epoch} | found

    def figures(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """Left: test accuracy over kept weights with the most layers run. Right: over depth, all weights."""
        figure, (left, right) = new_figure(8.2, 3.6, 2)
        for (method,), style in zip(grouped(results, "method"), STYLES, strict=False):
            of = [stored["settings"] | stored["result"] for stored in results if stored["settings"]["method"] == method]
            longest = max(r["epochs"] for r in of)
            sizes = sorted((r["kept_percent"], r["test_percent"]) for r in of if r["epochs"] == longest)
            depths = sorted((r["layers"], r["test_percent"]) for r in of if r["epochs"] < longest)
            left.plot(*zip(*sizes, strict=True), label=f"{method}, {longest} epoch{'s' * (longest > 1)}", **style)
            if depths:
                right.plot(*zip(*depths, strict=True), label=method, **style)
        left.set(xscale="log", xlabel="kept weights (%)", ylabel="test accuracy (%)")
        left.xaxis.set_major_formatter(lambda v, _: f"{v:g}")
        left.legend()
        if right.lines:
            name_ends(right)
        right.set(xlabel="layers with kernels", ylabel=f"test accuracy (%), {EQUAL} epochs")
        return {"cifar10": figure}

    def alt(self, figure: str) -> str:
        return "Test accuracy on CIFAR-10: on the left over the share of kept weights, on the right over depth."


def row(method: str, layers: int, keep: str | None, epochs: int, seed: int, quick: bool) -> Row:
    """A row; its options hold all that a ``pmp-ref train`` run needs."""
    size = "dense" if keep is None else f"keep{keep.rstrip('%')}"
    data = QUICK_DATA if quick else DATA
    options = data | {"network": f"resnet{layers}", "epochs": str(epochs), "check_descent": "20", "seed": str(seed)}
    if method == "bSQH":
        options |= RULE | ({"rho": "0", "band": "1", "fall": "0"} if keep is None else {"keep": keep})
    return Row(
        f"{QUICK[quick]}{method.lower()}-resnet{layers}-{size}-epochs{epochs}-seed{seed}",
        {
            "method": method,
            "layers": layers,
            "keep": keep or "all",
            "epochs": epochs,
            "seed": seed,
            "quick": quick,
            "options": options,
        },
    )


def bsqh(row: Row, context: Context) -> dict[str, Any]:
    """A ``pmp-ref train`` run."""
    trained = train(row.settings["options"], context)
    r = trained.result
    return {
        **in_percent(r),
        "loss": r["train_loss"],
        "seconds": r["seconds"],
        "curves": trained.history(("step", "loss", "nonzeros", "eps", "rho")),
        **{
            name: r[name]
            for name in ("rejections", "descent_violations", "descent_checked", "status", "emptied_layers")
        },
    }


def adam(row: Row, context: Context) -> dict[str, Any]:
    """Adam on the same batches, pruned gradually where a size is wished."""
    s = row.settings
    setup = build(resolve(s["options"]), context.threads)
    share = None if s["keep"] == "all" else float(s["keep"].rstrip("%")) / 100
    plan = Plan("adam", s["epochs"], ADAM_STEP, "linear", share=share)
    state = baselines.train(setup, plan, context.directory / "adam.npz", context.progress)
    return {
        **in_percent(baselines.judge(setup, state.controls)),
        "loss": float(mean_loss(setup.problem.sweeper.trial(state.controls, setup.x, setup.y))),
        "seconds": round(state.seconds, 3),
    }


def in_percent(found: Mapping[str, Any]) -> dict[str, float]:
    """Kept weights and test accuracy with its interval, in per cent."""
    names = {
        "kept_percent": "kept_fraction",
        "test_percent": "test_accuracy",
        "test_low": "test_low",
        "test_high": "test_high",
    }
    return {name: 100 * found[part] for name, part in names.items()}
