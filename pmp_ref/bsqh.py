"""The batch sequential quadratic Hamiltonian method: one flat accept/reject loop over a public ``step``.

``solve`` prepares the current control on the current batch (forward and backward sweep), makes a trial (``step``)
and moves on: to the next control or batch after an accepted trial, to a larger ε after a rejected one. Full batch
is the case of one batch that never changes; then an accepted trial keeps the sweep it has already made, so a step
without rejection costs one forward and one backward sweep. Theory: "The algorithm".
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from pmp_ref.acceptance import AbsoluteTest, Acceptance, NoTest
from pmp_ref.arrays import Array, Controls, as_floats, device, is_array, namespace, to_floats, to_numpy, unit_roundoff
from pmp_ref.augmentation import CurvatureRule, Rule
from pmp_ref.controls import arrays_of, by_stage, total, vectors
from pmp_ref.errors import InputError, LabelWarning, PenaltyWarning, ScaleWarning
from pmp_ref.hamiltonian import increments, residual_squares, squared_increments
from pmp_ref.maximise import maximise, weighted
from pmp_ref.metric import Averaging, IdentityMetric, Metric
from pmp_ref.problem import Problem, scale_advice
from pmp_ref.result import Iterate, Record, Solution, Status
from pmp_ref.sweep import quiet
from pmp_ref.trial import Measured, attempt, follow, layout, sweep_and_follow


@dataclass(frozen=True)
class Ramp:
    """ρ rises linearly from 0 to its full value while the run's progress goes from ``start`` to ``stop``."""

    start: float = 0.0
    stop: float = 0.5

    def __post_init__(self) -> None:
        as_floats(self, "start", "stop")
        if not 0 <= self.start < self.stop <= 1:
            raise InputError(f"ramp from {self.start} to {self.stop}; expected 0 ≤ start < stop ≤ 1")

    def __call__(self, rho: float, progress: float) -> float:
        return rho * min(max((progress - self.start) / (self.stop - self.start), 0.0), 1.0)


@dataclass(frozen=True)
class Method:
    """What varies in bSQH: the rule for ε, the acceptance test, the metric, averaging, the ramp of ρ, the caps.

    ``max_rejections`` bounds the rejections of one control, ``eps_max`` bounds ε. A cap below C + η voids the
    guarantee that the line search ends by acceptance (T8); the default is far above any curvature in floating point.
    """

    rule: Rule = field(default_factory=CurvatureRule)
    acceptance: Acceptance = field(default_factory=AbsoluteTest)
    metric: Metric = field(default_factory=IdentityMetric)
    averaging: Averaging | None = None
    ramp: Ramp | None = None
    max_rejections: int = 200
    eps_max: float = 1e15

    def __post_init__(self) -> None:
        as_floats(self, "eps_max")
        if not isinstance(self.max_rejections, int) or self.max_rejections < 1 or not self.eps_max > self.rule.eps0:
            raise InputError(
                f"max_rejections {self.max_rejections}, eps_max {self.eps_max}; expected an "
                f"integer ≥ 1 and a cap above ε₀ = {self.rule.eps0}"
            )


@dataclass(frozen=True)
class Stop:
    """When to stop: accepted steps, epochs (full batch: an accepted step is an epoch), increment κ, residual.

    τ < κ ("converged by increment") and 2ε‖D(w − u)‖ ≤ residual ("converged by residual", see :meth:`stationary`) are
    tested in every full-batch step; with mini-batches on all data at the end of an epoch. 0 switches a test off. While
    a ramp has ρ below its value neither is made.
    """

    steps: int | None = None
    epochs: int | None = None
    increment: float = 0.0
    residual: float = 0.0

    def __post_init__(self) -> None:
        as_floats(self, "increment", "residual")
        limits = [n for n in (self.steps, self.epochs, self.increment, self.residual) if n is not None]
        whole = all(n is None or isinstance(n, int) for n in (self.steps, self.epochs))
        if not (whole and all(n >= 0 for n in limits)):
            raise InputError(f"{self}; expected numbers ≥ 0, steps and epochs integers")
        if self.steps is None and self.epochs is None and self.increment == 0 and self.residual == 0:
            raise InputError("no stop was given; expected at least one of steps, epochs, increment, residual")

    def stationary(self, residual: float, sum_dh: float, eps: float, tau: float) -> bool:
        """Whether 2ε‖D(w − u)‖ max(1, ΣΔH/(2ετ)) ≤ residual. Inside the box on a fixed support ΣΔH = 2ετ. A jump to a
        bound or off the support makes 2ε‖w − u‖ small at a small ε wherever u is; it counts with its ΣΔH."""
        return self.residual > 0 and residual * max(1.0, sum_dh / (2 * eps * tau)) <= self.residual

    def done(self, it: Iterate) -> bool:
        """True when the steps or epochs asked for are done."""
        return (self.steps is not None and it.step >= self.steps) or (
            self.epochs is not None and it.epoch >= self.epochs
        )

    def progress(self, it: Iterate, batches: int) -> float:
        """Part of the run that is done, in [0, 1]; 0 without a limit of steps or epochs."""
        parts = [0.0]
        if self.steps:
            parts.append(it.step / self.steps)
        if self.epochs:
            parts.append((it.epoch + it.position / batches) / self.epochs)
        return min(max(parts), 1.0)


def step(
    problem: Problem, method: Method, it: Iterate, rho: float, progress: float = 0.0, full: bool = True
) -> tuple[Iterate, Record]:
    """One trial from a prepared iterate: maximise K_ε layer by layer, sweep the candidate, judge J, move or not.

    Accepted: the controls become w, with the sweep already made. Otherwise the controls and their evaluation stay
    as they were and ε grows, or the maximiser goes back from the averaged to the batch's own switching function.
    ``full`` False: the next control meets another batch, so that nothing of the trial's sweep is kept.
    """
    e, place = it.evaluation, layout(problem, method)
    if not it.prepared or e is None or e.switching is None:
        raise InputError("step needs an iterate with switching functions; call prepare first")
    u = vectors(it.controls, place)
    average = it.average_memory if it.use_average and method.averaging is not None else None
    w, trial, numbers = problem.sweep.run(
        attempt,
        problem,
        method,
        full,
        e,
        u,
        vectors(average, place),
        it.averaged,
        vectors(it.metric, place),
        it.eps,
        weighted(problem, u, rho),
    )
    m = Measured.of(to_numpy(numbers).tolist(), e.losses.shape[0])
    sum_dh = m.linear - rho * (m.penalty_w - m.penalty)
    delta_j = m.delta_loss + rho * (m.penalty_w - m.penalty)
    remainder = m.delta_loss + m.linear  # J(w) − J(u) + ΣΔH; the regulariser cancels
    nu = 4 * unit_roundoff(e.losses) * m.scale
    c_hat = remainder / m.tau if m.tau > 0 else math.nan
    known = c_hat / method.acceptance.share if math.isfinite(c_hat) and abs(remainder) > 10 * nu else None
    finite = math.isfinite(m.loss_w) and math.isfinite(remainder)
    it = replace(
        it,
        forward_sweeps=it.forward_sweeps + trial.forward_sweeps,
        backward_sweeps=it.backward_sweeps + trial.backward_sweeps,
    )

    if not (math.isfinite(m.loss) and math.isfinite(m.switching)):
        verdict = "non-finite"
    elif m.tau == 0:
        verdict = "control unchanged"
    elif sum_dh <= nu and not isinstance(method.acceptance, NoTest):
        verdict = "precision limit"
    elif finite and method.acceptance.accepts(delta_j, m.tau, sum_dh):
        verdict = "accepted"
    else:
        verdict = "rejected" if finite else "non-finite trial"
    if it.use_average and verdict not in ("accepted", "non-finite"):
        verdict = "average dropped"

    record = Record(
        verdict=verdict,
        step=it.step + (verdict == "accepted"),
        epoch=it.epoch,
        position=it.position,
        J=m.loss_w + rho * m.penalty_w,
        loss=m.loss_w,
        J_before=m.loss + rho * m.penalty,
        loss_before=m.loss,
        delta_J=delta_j,
        rho=rho,
        nonzeros=int(m.nonzeros),
        eps=it.eps,
        c_hat=c_hat,
        tau=m.tau,
        sum_dh=sum_dh,
        rounding=nu,
        residual=2 * it.eps * math.sqrt(m.fixed_point),
        averaged=it.use_average,
        rejections=it.rejections,
        forward_sweeps=it.forward_sweeps,
        backward_sweeps=it.backward_sweeps,
    )
    eta = method.acceptance.eta
    if verdict == "accepted":
        above = 11 * nu / (m.tau * method.acceptance.share)
        if known is None and it.smoothed is not None and above < it.smoothed:
            known = above  # Ĉτ is lost in rounding, so at most 11ν: an estimate above that comes down, or ε would stay
        eps, smoothed = method.rule.accepted(it.eps, known, it.smoothed, eta, progress)
        it = replace(
            it,
            controls=by_stage(w),
            evaluation=trial,
            prepared=False,
            eps=eps,
            smoothed=smoothed,
            step=it.step + 1,
            accepted_in_epoch=it.accepted_in_epoch + 1,
            returns=0 if it.use_average else it.returns,
        )
    elif verdict == "average dropped":
        it = replace(it, use_average=False, returns=it.returns + 1)
    elif verdict in ("rejected", "non-finite trial"):
        grown = method.rule.rejected(it.eps, known, eta)
        it = replace(
            it,
            eps=math.inf if grown is None else grown,
            rejections=it.rejections + 1,
            finite_trials=it.finite_trials + finite,
            total_rejections=it.total_rejections + 1,
        )
    return it, record


def prepare(problem: Problem, method: Method, it: Iterate, x: Array, y: Array) -> Iterate:
    """Sweeps at the control on the batch (x, y) as far as they are missing; then metric and average follow g."""
    place, before = layout(problem, method), it.evaluation
    u, e = vectors(it.controls, place), before
    average, averaged, returns = it.average_memory, it.averaged, it.returns
    if not it.prepared and method.averaging is not None:
        if returns >= method.averaging.patience:
            average, averaged, returns = None, 0, 0
        averaged = averaged + 1
    rest = vectors(it.metric_memory, place), vectors(average, place), it.iterates
    followed: Any = ()
    if e is None or e.switching is None:
        known = None if it.prepared else method  # a restart: metric and average already know this batch
        e, *followed = problem.sweep.run(sweep_and_follow, problem, known, e, u, x, y, *rest)
    elif not it.prepared:
        idle = type(method.metric) is IdentityMetric and method.averaging is None
        run = (lambda f, *arguments: f(*arguments)) if idle else problem.sweep.run
        g, *followed = run(follow, problem, method, e.switching, *rest)
        e = replace(e, switching=g)
    forward, backward = (0, 0) if before is None else (before.forward_sweeps, before.backward_sweeps)
    it = replace(
        it,
        controls=by_stage(u),
        evaluation=e,
        forward_sweeps=it.forward_sweeps + e.forward_sweeps - forward,
        backward_sweeps=it.backward_sweeps + e.backward_sweeps - backward,
    )
    if it.prepared:
        return it
    memory, d, average = followed
    return replace(
        it,
        prepared=True,
        metric=by_stage(d),
        metric_memory=by_stage(memory),
        average_memory=by_stage(average),
        averaged=averaged,
        use_average=method.averaging is not None and averaged > 1,
        returns=returns,
        iterates=it.iterates + 1,
        eps_start=it.eps,
        rejections=0,
        finite_trials=0,
    )


def solve(
    problem: Problem,
    controls: Controls | None,
    x: Array,
    y: Array,
    *,
    stop: Stop,
    method: Method | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    callback: Callable[[Iterate, Record], Any] | None = None,
    resume: Iterate | None = None,
) -> Solution:
    """Run bSQH from ``controls`` on images x (N, …) and labels y; ``batch_size`` None: full batch.

    ``callback(iterate, record)`` is called after every trial; a true return value ends the run ("interrupted"), and
    so does Ctrl-C, both with the last complete iterate. ``resume`` continues from an iterate of an earlier run with
    the same arguments; the order of the batches depends on (seed, epoch) only, so the run goes on bit for bit.
    ``controls`` are then those of the iterate, or None.

    Raises InputError for shapes, dtypes, libraries, devices, labels or values that do not fit, and for controls that
    are not those of ``resume``. Warns with ScaleWarning of images whose largest value is far from 1, with LabelWarning
    of labels that seem to count from 1, with PenaltyWarning of a regulariser that was given without ρ.
    """
    method = Method() if method is None else method
    if resume is not None:
        controls = resumed(controls, resume)
    elif controls is None:
        raise InputError("no controls were given; expected those to start from, as initial_controls makes them")
    if advice := scale_advice(problem.check(controls, x, y)):
        warnings.warn(advice, ScaleWarning, stacklevel=2)
    if advice := problem.loss.advice(problem.network.output_shape, y):
        warnings.warn(advice, LabelWarning, stacklevel=2)
    if advice := problem.penalty_advice():
        warnings.warn(advice, PenaltyWarning, stacklevel=2)
    n = x.shape[0]
    if batch_size is not None and not (type(batch_size) is int and 1 <= batch_size <= n):
        raise InputError(f"batch size {batch_size} for {n} samples; expected an integer from 1 to {n}, or full batch")
    if method.averaging is not None and batch_size is None:
        raise InputError("averaged switching functions need mini-batches; leave averaging out or give a batch size")
    if type(seed) is not int or seed < 0:
        raise InputError(f"seed is {seed!r}; expected an integer ≥ 0")
    if method.ramp is not None and stop.steps is None and stop.epochs is None:
        raise InputError("a ramp of ρ needs to know how long the run is; give steps or epochs, or leave it out")
    batches = 1 if batch_size is None else -(-n // batch_size)
    it = Iterate(controls, method.rule.eps0) if resume is None else resume
    records: list[Record] = []
    status = None
    try:
        while status is None and not stop.done(it):
            bx, by = (x, y) if batch_size is None else take_batch(x, y, batches, it.position, seed, it.epoch)
            it = prepare(problem, method, it, bx, by)
            progress = stop.progress(it, batches)
            rho = problem.rho if method.ramp is None else method.ramp(problem.rho, progress)
            tests = stop if rho == problem.rho else replace(stop, increment=0.0, residual=0.0)
            after, record = step(problem, method, it, rho, progress, batch_size is None)
            status, after = judge(method, tests, it, after, record, batch_size is None, batches)
            if record.accepted and after.step == it.step:  # the control before this trial is the answer
                record = replace(record, verdict=str(status), step=it.step)
            if status is None and after.position == 0 and batch_size is not None and after.epoch > it.epoch:
                status, after = end_of_epoch(problem, method, tests, after, x, y, rho)
            it = after  # not before all of this trial is done: Ctrl-C finds a complete iterate
            records.append(record)
            if callback is not None and callback(it, record) and status is None:
                status = Status.INTERRUPTED
    except KeyboardInterrupt:
        status = Status.INTERRUPTED
    return Solution(it.controls, status or Status.ITERATION_LIMIT, it, tuple(records))


def resumed(controls: Any, it: Iterate) -> Controls:
    """The controls of the iterate that a run goes on from; InputError if others were given."""
    mine = it.controls
    if controls is None or controls is mine:
        return mine
    nested = isinstance(controls, Sequence) and all(isinstance(stage, Sequence) for stage in controls)
    if nested and list(map(len, controls)) == list(map(len, mine)):
        pairs = zip(arrays_of(controls), arrays_of(mine), strict=True)
        if all(is_array(a) and a.shape == b.shape and np.array_equal(to_numpy(a), to_numpy(b)) for a, b in pairs):
            return mine
    raise InputError(
        "controls are not those of resume, where the run goes on; give None or resume.controls, or leave "
        "resume out to start from other controls"
    )


def judge(
    method: Method, stop: Stop, before: Iterate, it: Iterate, record: Record, full: bool, batches: int
) -> tuple[Status | None, Iterate]:
    """What a trial means for the run: (status that ends it or None, iterate to go on with)."""
    verdict = record.verdict
    if verdict == "non-finite":
        return Status.NON_FINITE, it
    first = before.rejections == 0 and verdict != "control unchanged"  # w = u may come from rounding and prove nothing
    if full and first and stop.stationary(record.residual, record.sum_dh, record.eps, record.tau):
        return Status.CONVERGED_RESIDUAL, replace(
            before, forward_sweeps=it.forward_sweeps, backward_sweeps=it.backward_sweeps
        )
    if verdict == "accepted":
        if full:
            it = replace(it, epoch=it.epoch + 1)
            return (Status.CONVERGED_INCREMENT if record.tau < stop.increment else None), it
        return None, next_batch(it, batches)
    if verdict == "average dropped":
        return None, it
    if verdict in ("rejected", "non-finite trial"):
        if math.isinf(it.eps):  # the rule gave up; the run ends with the ε that failed
            return Status.AUGMENTATION_LIMIT, replace(it, eps=before.eps)
        if it.rejections < method.max_rejections and it.eps <= method.eps_max:
            return None, it
        reason = Status.AUGMENTATION_LIMIT if it.finite_trials else Status.NON_FINITE
    else:
        reason = Status.PRECISION_LIMIT if verdict == "precision limit" else Status.CONTROL_UNCHANGED
        it = replace(it, eps=it.eps_start)  # rounding, not curvature, ended this control
    if full:
        return reason, it
    last = it.position == batches - 1
    it = replace(it, skipped=it.skipped + 1, prepared=False, eps=min(it.eps, method.eps_max))
    if last and it.accepted_in_epoch == 0:
        return reason, next_batch(it, batches)
    return None, next_batch(it, batches)


def next_batch(it: Iterate, batches: int) -> Iterate:
    """The iterate at the next batch of the epoch, or at the first of the next epoch."""
    it = replace(it, evaluation=None, position=it.position + 1)
    if it.position == batches:
        it = replace(it, epoch=it.epoch + 1, position=0, accepted_in_epoch=0)
    return it


def end_of_epoch(
    problem: Problem, method: Method, stop: Stop, it: Iterate, x: Array, y: Array, rho: float
) -> tuple[Status | None, Iterate]:
    """Tests of τ and residual on all data, made after an epoch of mini-batches if asked for: one sweep each way."""
    if stop.increment == 0 and stop.residual == 0:
        return None, it
    e = problem.sweep.forward_backward(it.controls, x, y)
    it = replace(
        it, forward_sweeps=it.forward_sweeps + e.forward_sweeps, backward_sweeps=it.backward_sweeps + e.backward_sweeps
    )
    u, g, d = (vectors(nested, layout(problem, method)) for nested in (it.controls, e.switching, it.metric))
    with quiet():
        w = maximise(problem, u, g, it.eps, rho, d)
        tau, fixed_point, sum_dh = to_floats(
            total(squared_increments(u, w, d)),
            total(residual_squares(u, w, d)),
            total(increments(problem, g, u, w, rho)),
        )
    if tau == 0:  # may come from rounding: no proof of a small residual
        return Status.CONTROL_UNCHANGED, it
    if stop.stationary(2 * it.eps * math.sqrt(fixed_point), sum_dh, it.eps, tau):
        return Status.CONVERGED_RESIDUAL, it
    return (Status.CONVERGED_INCREMENT if tau < stop.increment else None), it


def take_batch(x: Array, y: Array, batches: int, position: int, seed: int, epoch: int) -> tuple[Array, Array]:
    """Batch ``position`` of the epoch: a permutation by (seed, epoch), split into parts whose sizes differ by at
    most one, so that every sample is used once."""
    part = np.array_split(order_of_epoch(x.shape[0], seed, epoch), batches)[position].copy()
    xp = namespace(x, y)
    index = xp.asarray(part, device=device(x))
    return xp.take(x, index, axis=0), xp.take(y, index, axis=0)


@lru_cache(maxsize=2)
def order_of_epoch(samples: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of the samples by (seed, epoch); drawn once for all batches of an epoch."""
    order = np.random.default_rng((seed, epoch)).permutation(samples)
    order.setflags(write=False)
    return order
