"""What went well in a run and what did not, in sentences, each with what to do about it.

Every sentence has a condition on the numbers of the run. A run that meets none is called healthy, and only that is
green. The thresholds stand with their reasons in ``LIMITS``.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pmp_ref.app import parse
from pmp_ref.app.options import Options
from pmp_ref.cardinality import has_kink

NOTE, BAD, GOOD = "note", "bad", "good"
FAILED = ("augmentation limit", "non-finite")
HEALTHY = "nothing to mend: training images fitted, the loss settled, no layer empty, no accuracy lost on the way"


@dataclass(frozen=True)
class Limits:
    """From where on a sentence is said."""

    hardly: float = 0.5  # kept share: pruning that leaves half the weights saves nothing in time or memory
    early: float = 0.5  # share of all weights that went …
    early_part: float = 0.05  # … in the first twentieth of the steps, before the loss could tell which are needed
    grown: float = 100.0  # ε at the end over ε at 10 to 30 % of the run: ``growth`` alone makes 7 of it
    moved: float = 0.01  # way of the last third of the steps, as a part of the whole way
    skipped: float = 0.2  # part of all batches; some at the precision limit are the end of an easy problem
    falling: float = 0.01  # mean loss of the last tenth of the steps below that of the tenth before; nats
    fitted: float = 0.9  # training accuracy
    gap: float = 0.1  # training accuracy above held-out accuracy
    fell: float = 0.02  # held-out accuracy below its best
    cut: float = 0.1  # projected weights, as a part of the wished ones
    few: int = 20  # steps: below that tenths and thirds of a run say nothing


LIMITS = Limits()


@dataclass(frozen=True)
class Finding:
    """``name`` of the condition, ``level`` (good, note, bad), what was ``seen``, what to ``do``."""

    name: str
    level: str
    seen: str
    do: str = ""

    @property
    def sentence(self) -> str:
        """Both in one line."""
        return f"{self.seen}: {self.do}" if self.do else self.seen


def note(name: str, seen: str, do: str) -> Finding:
    """What can be better."""
    return Finding(name, NOTE, seen, do)


def bad(name: str, seen: str, do: str) -> Finding:
    """What must be looked at."""
    return Finding(name, BAD, seen, do)


Table = dict[str, list[float]]


def diagnose(
    options: Options, summary: dict[str, Any], steps: Table, held: Table, verdicts: Counter[str] | None = None
) -> list[Finding]:
    """The findings on a finished run, worst first; one that says so if there are none.

    ``steps`` and ``held`` are the columns of ``history.csv`` and ``accuracy.csv``, ``verdicts`` counts those of
    ``trials.csv``.
    """
    found = [*ended(summary), *layers(summary), *guessing(summary)]
    if summary["status"] not in FAILED:  # of a run that failed the rest means nothing
        found += pruning(options, summary, steps, held)
        found += steps_made(options, summary, steps, Counter() if verdicts is None else verdicts)
        found += fit(options, summary, steps, any(f.level == BAD for f in found))
    found = sorted(found, key=lambda f: f.level != BAD)
    return found or [Finding("healthy", GOOD, HEALTHY)]


def to_json(found: list[Finding]) -> list[dict[str, str]]:
    """As they stand in ``summary.json``."""
    return [asdict(f) for f in found]


def from_json(stored: Any) -> list[Finding]:
    """From ``summary.json``; nothing of an older run."""
    return [Finding(**f) for f in stored or []]


def ended(s: dict[str, Any]) -> list[Finding]:
    """A status or a check that says that something is wrong."""
    found = []
    if s["status"] in FAILED:
        found.append(bad("failed", f"the run failed ({s['status']})", s["message"]))
    if s["descent_violations"]:
        found.append(
            bad(
                "descent",
                f"{s['descent_violations']} accepted steps did not lower the objective, evaluated anew in float64",
                "train with --dtype float64, and report it if it stays",
            )
        )
    if "notice" in s:
        found.append(note("no test", s["notice"], "leave --acceptance none to comparisons"))
    return found


def layers(s: dict[str, Any]) -> list[Finding]:
    """A kernel that is all zero lets nothing through."""
    if not s["emptied_layers"]:
        return []
    which = ", ".join(map(str, s["emptied_layers"]))
    return [
        bad(
            "disconnected",
            f"a layer is empty: the kernels of stages {which} are all zero, and what comes before them plays no part",
            "use a smaller --rho or a larger --keep, or a smaller price there, such as "
            f"--layer-weights {s['emptied_layers'][0]}=0.3",
        )
    ]


def guessing(s: dict[str, Any]) -> list[Finding]:
    """An accuracy that guessing reaches."""
    name = "test_accuracy" if s["test_accuracy"] is not None else "held_out_accuracy"
    if s[name] is None or s[f"{name}_interval"][0] > 1 / s["classes"]:
        return []
    return [
        bad(
            "guessing",
            f"the network is no better than guessing ({100 * s[name]:.1f} % of {s['classes']} classes)",
            "use a smaller --rho or a larger --keep; if no weight is missing, look at the images and train for longer",
        )
    ]


def gives_zeros(options: Options) -> bool:
    """Whether the run was to make weights vanish at all."""
    penalised = options.keep is not None or options.rho > 0
    return penalised and has_kink(
        parse.regulariser(options.regulariser), parse.admissible(options.admissible), np.zeros((1, 1))
    )


def pruning(options: Options, s: dict[str, Any], steps: Table, held: Table) -> list[Finding]:
    """How many weights went, when, and at what price."""
    if not gives_zeros(options):
        return []
    found, total, kept = [], s["total_weights"], s["kept_fraction"]
    if kept > LIMITS.hardly and options.keep is None:
        found.append(
            note(
                "hardly pruned",
                f"hardly pruned: {100 * kept:.1f} % of the weights are left",
                f"raise --rho ({options.rho:g}) by factors of three, or wish a size, such as --keep 10%",
            )
        )
    n = np.asarray(steps["nonzeros"])
    first = max(1, round(LIMITS.early_part * (n.size - 1)))
    if n.size > LIMITS.few and n[first] < (1 - LIMITS.early) * n[0]:
        found.append(
            note(
                "early",
                f"weights vanished early: {100 * (1 - n[first] / n[0]):.0f} % of them in the first {first} steps, "
                "before the loss could tell which are needed",
                "let ρ rise (--ramp 0.1:0.5), or begin with a larger --eps0",
            )
        )
    cut, wished = s["projected_weights"], s["wished_weights"]
    if wished is not None and cut > LIMITS.cut * wished:
        found.append(
            note(
                "cut",
                f"{cut:,} weights above the wished {wished:,} were cut off, for ρ had not brought them to 0",
                "train for longer, or give --rho, the ρ expected at the end",
            )
        )
    accuracies = np.asarray(held.get("accuracy", []))
    if accuracies.size > 1 and kept < 1 and s["held_out_accuracy"] is not None:
        best, last, images = int(np.argmax(accuracies)), float(accuracies[-1]), held["images"][-1]
        top = float(accuracies[best])
        chance = math.sqrt((top * (1 - top) + last * (1 - last)) / images)
        if top - last > max(LIMITS.fell, 2 * chance):
            then = 100 * held["nonzeros"][best] / total
            found.append(
                note(
                    "price",
                    f"pruning has cost accuracy: held out {100 * top:.1f} % with {then:.3g} % of the weights, and "
                    f"{100 * last:.1f} % with {100 * kept:.3g} % at the end",
                    "use a smaller --rho or a larger --keep, or train for longer",
                )
            )
    return found


def steps_made(options: Options, s: dict[str, Any], steps: Table, verdicts: Counter[str]) -> list[Finding]:
    """Steps that vanished, batches without one, a principle that does not hold at the last ε."""
    found = []
    eps, tau = np.asarray(steps["eps"])[1:], np.asarray(steps["tau"])[1:]
    n = eps.size
    if n > LIMITS.few:
        before, after = np.median(eps[n // 10 : max(3 * n // 10, n // 10 + 1)]), np.median(eps[-(n // 10) :])
        way = np.sqrt(np.nan_to_num(tau))
        share = float(np.sum(way[-(n // 3) :]) / max(float(np.sum(way)), math.ulp(0.0)))
        if after > LIMITS.grown * before and share < LIMITS.moved:
            found.append(
                bad(
                    "ε grew",
                    f"ε grew from {before:.3g} to {after:.3g} and the steps vanish: the last third of them made "
                    f"{100 * share:.2g} % of the way",
                    "use --rule curvature, a smaller --growth, a smoother network (tanh, average pooling)",
                )
            )
    batches = s["accepted_steps"] + s["skipped_batches"]
    if s["skipped_batches"] > LIMITS.skipped * batches:
        found.append(
            note(
                "skipped",
                f"{s['skipped_batches']} of {batches} batches were skipped, for no trial on them was accepted",
                skipped_advice(verdicts),
            )
        )
    star, eps_end = s["epsilon_star"], s["epsilon"]
    if options.metric == "identity" and star is not None and star > eps_end:
        found.append(
            note(
                "ε* above ε",
                f"the maximum principle does not hold yet at the last ε: ε* = {star:.3g} is above ε = {eps_end:.3g}",
                "go on for more steps; a weight close to its threshold is enough for it",
            )
        )
    return found


def skipped_advice(verdicts: Counter[str]) -> str:
    """By what most of the trials that were not accepted ended with."""
    reasons = {
        "precision limit": "the gain is below rounding: train with --dtype float64, or for fewer epochs",
        "control unchanged": "no step is left at this ε: use a smaller --rho if hardly any weight is left",
    }
    most = max(reasons, key=lambda name: verdicts.get(name, 0))
    if verdicts.get(most, 0):
        return reasons[most]
    return "the line search was cut short: allow more with --max-rejections, or begin with a larger --eps0"


def fit(options: Options, s: dict[str, Any], steps: Table, lost: bool) -> list[Finding]:
    """Loss still falling, training images not fitted (said unless all is ``lost``), overfitting."""
    found = []
    loss = np.asarray(steps["loss"])[1:]
    tenth = loss.size // 10
    if loss.size > LIMITS.few:
        last, before = loss[-tenth:], loss[-2 * tenth : -tenth]
        fall = float(np.mean(before) - np.mean(last))
        chance = 0.0 if options.full_batch else math.sqrt((np.var(last) + np.var(before)) / tenth)  # of two means
        if fall > max(LIMITS.falling, 2 * chance):
            found.append(
                note(
                    "falling",
                    f"the loss is still falling: {np.mean(last):.3g} over the last tenth of the steps, "
                    f"{np.mean(before):.3g} over the tenth before",
                    f"train for longer ({'--steps' if options.epochs is None else '--epochs'})",
                )
            )
    train, held = s["train_accuracy"], s["held_out_accuracy"]
    if train is not None and train < LIMITS.fitted and not lost:
        found.append(
            note(
                "not fitted",
                f"the training images are not fitted: {100 * train:.1f} % of them are right with "
                f"{100 * s['kept_fraction']:.3g} % of the weights",
                "use a smaller --rho or a larger --keep, a larger --network, or train for longer",
            )
        )
    if train is not None and held is not None:
        _, high = s["held_out_accuracy_interval"]
        if train - held > LIMITS.gap and high < train:
            found.append(
                note(
                    "overfitting",
                    f"overfitting: {100 * train:.1f} % of the training images are right, {100 * held:.1f} % of those "
                    "held out",
                    "give more images, prune more (a larger --rho, --keep), or train for fewer epochs",
                )
            )
    return found
