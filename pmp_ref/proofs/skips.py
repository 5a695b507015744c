"""Skip connections in the sweep of enclosures: the state inside a block is a pair, see ``pmp_ref.layers.residual``."""

from __future__ import annotations

from typing import Any

from pmp_ref.layers import Merge, OnBranch, Split, Stage
from pmp_ref.proofs.arithmetic import add, scale
from pmp_ref.proofs.stages import Rule, rule


def total(x: Any, y: Any) -> Any:
    """x + y of states, enclosures or pairs."""
    return (total(x[0], y[0]), total(x[1], y[1])) if isinstance(x, tuple) else add(x, y)


class SplitRule(Rule):
    """x ↦ (x, x), and (p, q) ↦ p + q."""

    def forward(self, stage: Split, x: Any, u: Any, sizes: Any) -> Any:
        return (x, x), None

    def backward(self, stage: Split, x: Any, u: Any, sizes: Any, note: Any, p: Any, costate: bool) -> Any:
        return (), total(*p) if costate else None


class MergeRule(Rule):
    """(h, s) ↦ s + step h, and p ↦ (step p, p)."""

    def forward(self, stage: Merge, x: Any, u: Any, sizes: Any) -> Any:
        return add(x[1], scale(stage.step, x[0])), None

    def backward(self, stage: Merge, x: Any, u: Any, sizes: Any, note: Any, p: Any, costate: bool) -> Any:
        return (), (scale(stage.step, p), p) if costate else None


class BranchRule(Rule):
    """The rule of the stage inside, on one component of the pair."""

    def prepare(self, stage: OnBranch, u: Any, shape: Any) -> Any:
        return rule_of(stage.stage, 0).prepare(stage.stage, u, shape[stage.branch])

    def forward(self, stage: OnBranch, x: Any, u: Any, sizes: Any) -> Any:
        y, note = rule_of(stage.stage, 0).forward(stage.stage, x[stage.branch], u, sizes)
        return replaced(x, stage.branch, y), note

    def backward(self, stage: OnBranch, x: Any, u: Any, sizes: Any, note: Any, p: Any, costate: bool) -> Any:
        i = stage.branch
        g, q = rule_of(stage.stage, 0).backward(stage.stage, x[i], u, sizes, note, p[i], costate)
        return g, replaced(p, i, q) if costate else None


def replaced(pair: Any, branch: int, new: Any) -> Any:
    """The pair with one component exchanged."""
    return (new, pair[1]) if branch == 0 else (pair[0], new)


SKIPS: dict[type[Stage], Rule] = {Split: SplitRule(), Merge: MergeRule(), OnBranch: BranchRule()}


def rule_of(stage: Stage, l: int) -> Rule:
    """The rule of a stage or of a part of a skip connection; InputError where there is none."""
    if type(stage) is OnBranch:
        rule_of(stage.stage, l)
    return SKIPS.get(type(stage)) or rule(stage, l)
