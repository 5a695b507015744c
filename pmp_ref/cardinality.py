"""Networks of a wished size: at the end of a run at most k kernel entries are not 0 (T20).

    U_k = {w ∈ U_ad : at most k entries of w on P are not 0},    P all kernel entries.

ρ is steered so that the number of nonzero entries meets a falling target. What is above k then is cut off: the control
goes to the nearest point of U_k, which is exact. Theory: "Steering the price of a weight".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pmp_ref.admissible import Admissible, FiniteSet
from pmp_ref.arrays import Array, Controls, as_floats, like, to_numpy
from pmp_ref.controls import kernels_of, map_controls
from pmp_ref.errors import InputError
from pmp_ref.iterate import Steering
from pmp_ref.problem import Problem
from pmp_ref.regulariser import Regulariser

PRICE = 4.0  # κ₀: below where κ ended in runs on MNIST, digits and CIFAR-10, 8 to 25, for what is gone seldom returns
SWING = 2.0  # |ln(n/n*)| counts as at most this


@dataclass(frozen=True)
class AtMost:
    """At most so many nonzero kernel entries at the end: ``keep`` of them, or that part of all if it is below 1.

    With n the number of nonzero entries and a(t) = clip((t − start)/(stop − start), 0, 1) at progress t

        n*(t) = min(|P|, k/a(t)),    e = a ln(n/n*),    ρ(t) = κ exp(gain·e)/n*,    κ̇ = rate·e κ.

    At n = n* and constant κ that is the linear ramp ρ = κ a/k. The feedback grows with a, for at first weights need
    time to go, and a ρ that runs ahead takes too many. From ``hold`` of the run on ρ stays as it is while
    n ≤ k; a control above k goes to the nearest point of U_k there, and once more at the end. Raises InputError for
    other numbers.
    """

    keep: float
    start: float = 0.1
    stop: float = 0.6
    hold: float = 0.7
    gain: float = 1.5
    rate: float = 10.0

    def __post_init__(self) -> None:
        as_floats(self, "keep", "start", "stop", "hold", "gain", "rate")
        if not (math.isfinite(self.keep) and self.keep > 0 and (self.keep < 1 or self.keep == int(self.keep))):
            raise InputError(f"keep is {self.keep:g}; expected a part between 0 and 1 or a whole number of weights")
        if not 0 <= self.start < self.stop <= self.hold <= 1:
            raise InputError(
                f"start {self.start:g}, stop {self.stop:g}, hold {self.hold:g}; expected 0 ≤ start < stop ≤ hold ≤ 1"
            )
        if not (self.gain >= 0 and self.rate >= 0 and math.isfinite(self.gain + self.rate)):
            raise InputError(f"gain {self.gain:g}, rate {self.rate:g}; expected finite numbers ≥ 0")

    def at_end(self, size: int) -> int:
        """k, of ``size`` entries; at least 1."""
        return min(size, max(1, math.floor(self.keep * size) if self.keep < 1 else int(self.keep)))

    def wanted(self, size: int, progress: float) -> float:
        """n*(t), the number of nonzero entries that there should be."""
        k = self.at_end(size)
        a = min((progress - self.start) / (self.stop - self.start), 1.0)
        return float(size) if a * size <= k else k / a

    def steer(self, steering: Steering, first: float, size: int, progress: float) -> Steering:
        """With the ρ of the step at this progress. The same once more changes nothing, so that rejections do not.

        ``first``: the ρ that is expected at the end, from which κ begins; 0: from ``PRICE``.
        """
        k, n = self.at_end(size), steering.count(size)
        begun = steering.price if steering.price > 0 else first * k if first > 0 else PRICE
        if progress < self.start or (progress >= self.hold and n <= k and steering.rho > 0):
            return replace(steering, price=begun, progress=progress)
        wanted = self.wanted(size, progress)
        way = min((progress - self.start) / (self.stop - self.start), 1.0)
        e = way * min(max(math.log(max(n, 1) / wanted), -SWING), SWING)
        price = begun * math.exp(self.rate * (progress - steering.progress) * e)
        return replace(steering, rho=price * math.exp(self.gain * e) / wanted, price=price, progress=progress)

    def above(self, steering: Steering, size: int, progress: float, ends: bool) -> bool:
        """Whether the control goes to the nearest point of U_k: from ``hold`` on once, and where the run ``ends``."""
        due = ends or (progress >= self.hold and steering.projections == 0)
        return due and steering.count(size) > self.at_end(size)


def nearest(names: Any, u: Controls, d: Any, k: int) -> Controls:
    """The point of U_k nearest to u in ‖·‖_D: the k kernel entries with the largest d_i u_i² stay, the others are 0.

    It maximises K_ε(·; u) over U_k where g = 0 and ρ = 0 (T20). Of entries that tie the first stay, by stage and place.
    Found on the host, for it happens once or twice in a run.
    """
    squares = [to_numpy(a).astype(np.float64) ** 2 for a in kernels_of(names, u)]
    if d is not None:
        squares = [to_numpy(b) * a for a, b in zip(squares, kernels_of(names, d), strict=True)]
    gains = np.concatenate([a.ravel() for a in squares])
    kept = np.zeros(gains.size, bool)
    kept[np.argsort(-gains, kind="stable")[:k]] = True
    cuts = iter(np.split(kept, np.cumsum([a.size for a in squares])[:-1]))

    def part(name: str, a: Array) -> Array:
        if name != "kernel":
            return a
        return a * like(next(cuts).reshape(a.shape), a)

    return map_controls(part, names, u)  # type: ignore[no-any-return]


def check_wish(problem: Problem) -> None:
    """Raise InputError unless ρ can bring every kernel entry to 0: r counts it and has its kink there, 0 is allowed."""
    zeros = map_controls(np.zeros, problem.network.control_shapes)
    for l, (names, *stage) in enumerate(
        zip(problem.network.names(), problem.weights, problem.regulariser, problem.admissible, zeros, strict=True)
    ):
        for name, omega, r, admissible, zero in zip(names, *stage, strict=True):
            if name == "kernel" and omega == 0:
                raise InputError(f"the kernel of stage {l} is not penalised, so ρ cannot make it smaller; penalise it")
            if name == "kernel" and not (np.all(admissible.contains(zero)) and has_kink(r, admissible, zero)):
                raise InputError(
                    f"{r} on {admissible} (the kernel of stage {l}) gives no zeros, so there is no wished size; take "
                    "a regulariser such as L0 and values with 0 among them"
                )


def has_kink(r: Regulariser, admissible: Admissible, zero: Array) -> bool:
    """Whether r has no derivative at 0, so that its maximiser is 0 on an interval; on a finite set every r does it."""
    try:
        return isinstance(admissible, FiniteSet) or bool(np.all(np.isnan(r.derivative(zero))))
    except InputError:  # r does not say
        return True
