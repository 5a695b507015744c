"""Second opinion on every accepted step: its inequality, evaluated anew in float64 on the clear path.

For a step from u to w made on a batch with ρ, metric d and η, two fresh forward sweeps of ``pmp_ref.sweep.Sweep`` give

    ΔJ = (1/B) Σ_s [Φ_s(w) − Φ_s(u)] + ρ[R(w) − R(u)],    τ = Σ_i d_i (w_i − u_i)².

Absolute test: ΔJ ≤ −ητ. Relative test: ΔJ ≤ −η₁ΣΔH, ΣΔH from a backward sweep of its own. Losses, τ, ΔH and the
verdict of the solver are not used. Runs without a test are held against the absolute inequality. The allowance is
ν = 4 u_mach (1/B) Σ_s (|Φ_s(u)| + ‖x_L^s‖_∞), the rounding of ΔJ in the dtype of the run; under
the relative test η₁ times the rounding of ΣΔH, 4 u_mach (1 + √B) Σ_i |g_i Δ_i|, is added: √B, for the switching
function is a sum over the batch.
"""

from __future__ import annotations

import math
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from pmp_ref.acceptance import AbsoluteTest, Acceptance, RelativeTest
from pmp_ref.arrays import Array, Controls, namespace, sum64, to_floats, unit_roundoff
from pmp_ref.controls import cast, inner, map_controls, subtract, total
from pmp_ref.network import states_like
from pmp_ref.problem import Problem
from pmp_ref.sweep import Sweep, quiet

if TYPE_CHECKING:
    from pmp_ref.app.build import Setup

QUEUE = 6  # steps that may wait for their check; each holds its controls and metric


class Reading(NamedTuple):
    """One step: ΔJ, the bound it must not exceed, the allowance."""

    delta_j: float
    bound: float
    slack: float

    @property
    def violated(self) -> bool:
        """True unless ΔJ ≤ bound + slack is true; NaN violates."""
        return not self.delta_j <= self.bound + self.slack

    @property
    def violated_without_slack(self) -> bool:
        """The same with no allowance."""
        return not self.delta_j <= self.bound


@dataclass(frozen=True)
class Tally:
    """Counts over the steps checked so far; ``slack`` is the largest allowance."""

    checked: int = 0
    violations: int = 0
    without_slack: int = 0
    slack: float = 0.0

    def plus(self, reading: Reading) -> Tally:
        """The tally with one more step."""
        return Tally(
            self.checked + 1,
            self.violations + reading.violated,
            self.without_slack + reading.violated_without_slack,
            max(self.slack, reading.slack) if math.isfinite(reading.slack) else self.slack,
        )


def recheck(
    problem: Problem, test: Acceptance, u: Controls, w: Controls, metric: Any, x: Array, y: Array, rho: float
) -> Reading:
    """The step from u to w on the batch (x, y), in float64 on the clear path."""
    u_mach, xp = unit_roundoff(states_like(u, x)), namespace(x)
    x = x if problem.network.takes_bytes else cast(((x,),), "float64")[0][0]
    u, w = cast(u, "float64"), cast(w, "float64")
    d = None if metric is None else cast(metric, "float64")
    sweep = Sweep(problem.network, problem.loss)
    with quiet():
        before, after = sweep.forward(u, x, y), sweep.forward(w, x, y)
        delta = subtract(w, u)
        weighted = delta if d is None else map_controls(lambda a, b: a * b, d, delta)
        samples = x.shape[0]
        rise, scale, tau, r_u, r_w = to_floats(
            sum64(after.losses - before.losses) / samples,
            sum64(xp.abs(before.losses) + before.largest) / samples,
            inner(weighted, delta),
            problem.penalty(u),
            problem.penalty(w),
        )
        penalty = rho * (r_w - r_u)
        slack = 4 * u_mach * scale
        if isinstance(test, RelativeTest):
            g = sweep.backward(u, before).switching
            assert g is not None
            terms = map_controls(lambda a, b: xp.abs(a * b), g, delta)
            linear, size = to_floats(inner(g, delta), total(map_controls(sum64, terms)))
            slack += test.eta1 * 4 * u_mach * (1 + math.sqrt(samples)) * size
            return Reading(rise + penalty, -test.eta1 * (linear - penalty), slack)
    eta = test.eta if isinstance(test, AbsoluteTest) else AbsoluteTest().eta
    return Reading(rise + penalty, -eta * tau, slack)


class Checker:
    """Checks steps in background threads, a few at a time; what it found is complete after ``drain``.

    Of several processes that share a run each, ``rank`` of ``size``, checks some of the steps, by itself.
    """

    def __init__(self, setup: Setup, tally: Tally, workers: int, rank: int = 0, size: int = 1) -> None:
        every = setup.options.check_descent
        self.every = None if every == "none" else 1 if every == "all" else int(every)
        self.setup, self.rank, self.size = setup, rank, size
        self.problem = replace(setup.problem, sweep=Sweep(setup.network, setup.problem.loss))
        self.tally = tally
        self.pending: list[Future[Reading]] = []
        self.room = threading.BoundedSemaphore(QUEUE)
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="descent")

    def due(self, step: int) -> bool:
        """Whether a step is to be checked, by whichever process."""
        return self.every is not None and step % self.every == 0

    def submit(self, step: int, u: Controls, w: Controls, metric: Any, epoch: int, position: int, rho: float) -> None:
        """Have the step checked if its number is due and its turn this process'; waits while the queue is full."""
        if self.every is None or not self.due(step) or step // self.every % self.size != self.rank:
            return

        def work() -> Reading:
            x, y = self.setup.batch(epoch, position)
            return recheck(self.problem, self.setup.method.acceptance, u, w, metric, x, y, rho)

        self.room.acquire()
        future = self.pool.submit(work)
        future.add_done_callback(lambda _: self.room.release())
        self.pending.append(future)
        while self.pending and self.pending[0].done():
            self._count()

    def drain(self) -> Tally:
        """Wait for the steps submitted so far; the tally with all of them."""
        while self.pending:
            self._count()
        return self.tally

    def close(self) -> None:
        """Give the threads back; what has not begun is dropped."""
        self.pool.shutdown(wait=True, cancel_futures=True)

    def _count(self) -> None:
        self.tally = self.tally.plus(self.pending[0].result())
        self.pending.pop(0)
