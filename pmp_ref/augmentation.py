"""Rules for the augmentation parameter ε: classic σ/ζ, curvature estimate, fixed (theory, T8, T15).

ε is the price of moving, and nobody knows the right one beforehand: it depends on the curvature that the step will
meet. With too small an ε the trial is rejected, and a sweep is lost; with too large a one the step is short, and every
sweep buys less. The classic rule tries its luck, shrinking ε after each success until a trial fails: with σ = 1.1 and
ζ = 0.9 more than half of all trials do in the long run (T8). But a trial measures the curvature along its step,

    Ĉ = [J(w) − J(u) + ΣΔH]/τ,

from numbers that are there anyway, so the curvature rule goes where it points. A rule answers with the ε of the next
trial. Under the relative test it is given Ĉ/(1 − η₁), which ε must exceed there (T16).
``smoothed`` is C̃, the running mean of Ĉ over accepted steps (None before the first). ``progress`` ∈ [0, 1] is the
part of the run that is done.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

from pmp_ref.arrays import as_floats
from pmp_ref.errors import InputError


class Rule(ABC):
    """How ε follows rejections and acceptances."""

    eps0: float

    @abstractmethod
    def rejected(self, eps: float, c_hat: float | None, eta: float) -> float | None:
        """ε after a rejected trial; ``c_hat`` is None where Ĉ is not finite or lost in rounding. None: give up."""

    @abstractmethod
    def accepted(
        self, eps: float, c_hat: float | None, smoothed: float | None, eta: float, progress: float
    ) -> tuple[float, float | None]:
        """(ε, C̃) after an accepted trial."""

    def unpenalised(self) -> Rule:
        """The rule of a run at ρ = 0; the same unless a class says otherwise."""
        return self

    def slowed(self, part: float) -> Rule:
        """The rule of a step with ρ > 0 that is this part of the run; the same unless a class says otherwise."""
        return self

    def _check(self, **bounds: tuple[Callable[[float], bool], str]) -> None:
        as_floats(self, *bounds)
        for name, (good, expected) in bounds.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and good(value)):
                raise InputError(f"{name} is {value}; expected {expected}")


_POSITIVE = (lambda a: a > 0, "a number > 0")
_ABOVE_ONE = (lambda a: a > 1, "a number > 1")
_AT_LEAST_ONE = (lambda a: a >= 1, "a number ≥ 1")
_SHRINK = (lambda a: 0 < a <= 1, "a number in (0, 1]")


@dataclass(frozen=True)
class ClassicRule(Rule):
    """Reject: ε ← σε. Accept: ε ← max(ζε, ε_min). Raises InputError unless ε₀ > 0, σ > 1, 0 < ζ ≤ 1."""

    eps0: float = 1.0
    sigma: float = 1.1
    zeta: float = 0.9
    eps_min: float = 1e-8

    def __post_init__(self) -> None:
        self._check(eps0=_POSITIVE, sigma=_ABOVE_ONE, zeta=_SHRINK, eps_min=_POSITIVE)

    def rejected(self, eps: float, c_hat: float | None, eta: float) -> float | None:
        return self.sigma * eps

    def accepted(
        self, eps: float, c_hat: float | None, smoothed: float | None, eta: float, progress: float
    ) -> tuple[float, float | None]:
        return max(self.zeta * eps, self.eps_min), None


@dataclass(frozen=True)
class CurvatureRule(Rule):
    """Reject: ε ← max(σ_min ε, θ(Ĉ + η)). Accept: ε stays between c = θ_t(C̃ + η) and band·c, or goes there:

        ε ← max(c, min(ε, max(ζε, band·c)), ε_min),    at most max(ε, c, ε_min).

    C̃ ← C̃ + (1 − memory)(max(Ĉ, 0) − C̃). Where Ĉ is unknown C̃ stays as it is, and a rejected trial multiplies ε by
    ``sigma``. ``band`` 1 makes ε follow C̃ down as far as ζ lets it; a wider one holds ε, and with it the L0 threshold
    √(ρ/ε), while the curvature falls because weights vanish ("A band for the augmentation"); without penalty it is 1.
    ``growth`` makes θ_t rise from θ to growth·θ over the second half of the run (1: constant). 1/θ_t falls linearly,

        θ_t = θ/(1 − a(1 − 1/growth)),    a = clip(2·progress − 1, 0, 1),

    and with it the length of a step. ``fall`` is the part of the run in which ε may come down by the factor e while
    ρ > 0 (0: as fast as ζ lets it). Since a rejected trial has Ĉ + η > ε, every jump increases ε
    (T8).
    """

    eps0: float = 1.0
    theta: float = 1.2
    sigma_min: float = 1.1
    sigma: float = 4.0
    zeta: float = 0.5
    memory: float = 0.5
    growth: float = 1.0
    band: float = 1.0
    eps_min: float = 1e-8
    fall: float = 0.0

    def __post_init__(self) -> None:
        self._check(
            eps0=_POSITIVE,
            theta=_POSITIVE,
            sigma_min=_ABOVE_ONE,
            sigma=_ABOVE_ONE,
            zeta=_SHRINK,
            eps_min=_POSITIVE,
            memory=(lambda a: 0 <= a < 1, "a number in [0, 1)"),
            growth=_AT_LEAST_ONE,
            band=_AT_LEAST_ONE,
            fall=(lambda a: 0 <= a <= 1, "a number in [0, 1]"),
        )

    def rejected(self, eps: float, c_hat: float | None, eta: float) -> float | None:
        if c_hat is None:
            return self.sigma * eps
        return max(self.sigma_min * eps, self.theta * (c_hat + eta))

    def accepted(
        self, eps: float, c_hat: float | None, smoothed: float | None, eta: float, progress: float
    ) -> tuple[float, float | None]:
        if c_hat is not None:
            c = max(c_hat, 0.0)
            smoothed = c if smoothed is None else smoothed + (1 - self.memory) * (c - smoothed)
        if smoothed is None:
            return eps, None
        late = max(0.0, min(2 * progress - 1, 1.0))
        least = self.theta / (1 - late * (1 - 1 / self.growth)) * (smoothed + eta)
        return max(least, min(eps, max(self.zeta * eps, self.band * least)), self.eps_min), smoothed

    def unpenalised(self) -> CurvatureRule:
        return replace(self, band=1.0)

    def slowed(self, part: float) -> CurvatureRule:
        """ζ is at least exp(−part/fall)."""
        if part <= 0 or self.fall == 0:
            return self
        return replace(self, zeta=max(self.zeta, math.exp(-part / self.fall)))


@dataclass(frozen=True)
class FixedRule(Rule):
    """ε is constant; a failed trial ends the run, and the status says so.

    It shows what the rules are for: no ε is right for the beginning of a run and for its end.
    """

    eps0: float = 1.0

    def __post_init__(self) -> None:
        self._check(eps0=_POSITIVE)

    def rejected(self, eps: float, c_hat: float | None, eta: float) -> float | None:
        return None

    def accepted(
        self, eps: float, c_hat: float | None, smoothed: float | None, eta: float, progress: float
    ) -> tuple[float, float | None]:
        return eps, None


RULES = {"classic": ClassicRule, "curvature": CurvatureRule, "fixed": FixedRule}
