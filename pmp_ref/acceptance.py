"""Acceptance tests: a trial becomes the new control only if the true objective falls enough (T6, T16).

Here the method's promise is kept, and by nothing else: whatever the maximiser, the rule or the metric did, no step is
taken that does not lower J, unless the test is switched off to see what is lost. Each test is written as "accept iff
the inequality is true", so a NaN rejects.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from pmp_ref.arrays import as_floats
from pmp_ref.errors import InputError


class Acceptance(ABC):
    """A test of ΔJ = J(w) − J(u) against τ or ΣΔH."""

    eta: float = 0.0  # the η that a rule for ε adds to the curvature
    share: float = 1.0  # a trial passes once (Ĉ + η)/share ≤ ε: 1 − η₁ in the relative test (T16), else 1

    @abstractmethod
    def accepts(self, delta_j: float, tau: float, sum_dh: float) -> bool:
        """True iff the trial is accepted."""


@dataclass(frozen=True)
class AbsoluteTest(Acceptance):
    """J(w) − J(u) ≤ −ητ, η > 0 (T6); InputError otherwise."""

    eta: float = 1e-6

    def __post_init__(self) -> None:
        as_floats(self, "eta")
        if not (math.isfinite(self.eta) and self.eta > 0):
            raise InputError(f"eta is {self.eta}; expected a number > 0")

    def accepts(self, delta_j: float, tau: float, sum_dh: float) -> bool:
        return delta_j <= -self.eta * tau


@dataclass(frozen=True)
class RelativeTest(Acceptance):
    """J(u) − J(w) ≥ η₁ΣΔH with ΣΔH > 0, 0 < η₁ < 1 (T16); InputError otherwise."""

    eta1: float = 0.1

    def __post_init__(self) -> None:
        as_floats(self, "eta1")
        if not 0 < self.eta1 < 1:
            raise InputError(f"eta1 is {self.eta1}; expected a number in (0, 1)")

    @property
    def share(self) -> float:  # type: ignore[override]
        return 1 - self.eta1

    def accepts(self, delta_j: float, tau: float, sum_dh: float) -> bool:
        return sum_dh > 0 and -delta_j >= self.eta1 * sum_dh


@dataclass(frozen=True)
class NoTest(Acceptance):
    """Every finite trial is accepted: no descent is guaranteed. For comparison only."""

    def accepts(self, delta_j: float, tau: float, sum_dh: float) -> bool:
        return math.isfinite(delta_j)


ACCEPTANCES = {"absolute": AbsoluteTest, "relative": RelativeTest, "none": NoTest}
