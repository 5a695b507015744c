"""Averaged switching functions of mini-batches (T13), and the running means that metrics use too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pmp_ref.arrays import Array, Controls, as_floats, fused
from pmp_ref.controls import entrywise
from pmp_ref.errors import InputError


@dataclass(frozen=True)
class Averaging:
    """Running mean m of the batches' switching functions, corrected for its start at 0; mini-batches only (T13).

    The maximiser takes m for g; ΣΔH, Ĉ and the test keep the batch's own g. Where ΣΔH ≤ 0 or a trial fails the
    maximiser returns to g before ε grows; after ``patience`` such returns in a row the mean is reset.
    """

    beta: float = 0.9
    patience: int = 5

    def __post_init__(self) -> None:
        as_floats(self, "beta")
        if not (0 <= self.beta < 1 and self.patience >= 1):
            raise InputError(
                f"averaging with beta {self.beta}, patience {self.patience}; expected 0 ≤ beta < 1, patience ≥ 1"
            )

    def update(self, memory: Controls | None, g: Controls) -> Controls:
        """(1 − β) Σ_k β^k g_{−k}."""
        if memory is None:
            return entrywise(lambda a: (1 - self.beta) * a, g)
        return entrywise(lambda m, a: fused(running, m, a, beta=self.beta), memory, g)

    def mean(self, memory: Controls, count: int) -> Controls:
        """m, with ``count`` ≥ 1 switching functions in it."""
        return entrywise(lambda m: fused(corrected, m, count, beta=self.beta), memory)


def running(m: Array, a: Array, beta: float) -> Array:
    """βm + (1 − β)a."""
    return beta * m + (1 - beta) * a


def corrected(m: Array, count: Any, beta: float) -> Array:
    """m/(1 − βⁿ), n = ``count``."""
    base = beta + 0 * count  # a kernel has powers of arrays, not of numbers
    return m / (1 - base**count)
