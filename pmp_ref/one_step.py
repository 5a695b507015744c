"""One step of bSQH: prepare the control on a batch, make a trial, judge it, move or not. Theory: "The algorithm".

w_l = argmax K_ε(x_l, p_{l+1}, w; u_l) for all l at once, accepted iff J_B(w) falls enough; else a larger ε.

Four functions, because they run in two places. To prepare and to try are sums over a batch: they run where the arrays
lie. To judge and to move are comparisons of a few Python floats, on the host. In between one vector of numbers is
brought over, once a trial. What is decided is decided in :func:`judge` alone: a verdict formed in two places can be
formed in two ways.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from pmp_ref.acceptance import NoTest
from pmp_ref.arrays import Array, Controls, to_numpy, unit_roundoff
from pmp_ref.augmentation import Rule
from pmp_ref.controls import by_stage, vectors
from pmp_ref.iterate import Current, Iterate
from pmp_ref.maximise import weighted
from pmp_ref.method import Method
from pmp_ref.metric import IdentityMetric
from pmp_ref.problem import Problem
from pmp_ref.result import Record, Verdict
from pmp_ref.sweep import Evaluation
from pmp_ref.trial import Measured, attempt, follow, layout, sweep_and_follow


def step(
    problem: Problem,
    method: Method,
    it: Iterate,
    x: Array,
    y: Array,
    rho: float | None = None,
    progress: float = 0.0,
    full: bool = True,
    part: float = 0.0,
) -> tuple[Iterate, Record]:
    """One trial on the batch (x, y): maximise K_ε layer by layer, sweep the candidate, judge J, move or not.

    The control is first prepared on the batch, unless it is already: after a rejection give the same arrays again,
    other arrays are the next batch. Accepted: the controls become w, with the sweep already made. Otherwise the
    controls and their evaluation stay as they were and ε grows, or the maximiser goes back from the averaged to the
    batch's own switching function. ``rho`` None: the problem's. ``full`` False: the next control meets another batch,
    so that nothing of the trial's sweep is kept. ``progress`` is the part of the run that is done, ``part`` that which
    a step is; 0 where the run has no length.
    """
    it = prepare(problem, method, it, x, y)
    t = trial(problem, method, it, problem.rho if rho is None else rho, full)
    it = replace(it, counts=it.counts.swept(t.evaluation))
    verdict = judge(method, it, t)
    rule = method.rule_at(max(t.rho, problem.rho))
    rule = rule.slowed(part) if t.rho > 0 else rule
    return move(method, rule, it, t, verdict, progress), record_of(it, t, verdict)


def prepare(problem: Problem, method: Method, it: Iterate, x: Array, y: Array) -> Iterate:
    """Sweeps at the control on the batch (x, y) as far as they are missing; then metric and average follow g.

    They follow once for a control on a batch, however many trials are made there: Ĉ and τ of trials in different
    metrics could not be compared, and T18 would not hold (T17).
    """
    it = it.on(x, y)
    new, before, memory = not it.current.prepared, it.current.evaluation, it.memory
    if not new and before is not None and before.switching is not None:
        return it
    if new and method.averaging is not None:
        if memory.returns >= method.averaging.patience:
            memory = replace(memory, average=None, averaged=0, returns=0)
        memory = replace(memory, averaged=memory.averaged + 1)
    place, e = layout(problem, method), before
    u = vectors(it.controls, place)
    rest = vectors(memory.metric, place), vectors(memory.average, place), memory.iterates
    followed: Any = ()
    if e is None or e.switching is None:
        following = method if new else None  # a restart: metric and average already know this batch
        e, *followed = problem.sweeper.run(sweep_and_follow, problem, following, e, u, x, y, *rest)
    else:
        idle = type(method.metric) is IdentityMetric and method.averaging is None
        run = (lambda f, *arguments: f(*arguments)) if idle else problem.sweeper.run
        g, *followed = run(follow, problem, method, e.switching, *rest)
        e = replace(e, switching=g)
    it = replace(it, controls=by_stage(u), current=replace(it.current, evaluation=e), counts=it.counts.swept(e, before))
    if not new:
        return it
    metric, d, average = map(by_stage, followed)
    return replace(
        it,
        current=Current(
            evaluation=e,
            prepared=True,
            metric=d,
            use_average=method.averaging is not None and memory.averaged > 1,
            eps_start=it.eps,
        ),
        memory=replace(memory, metric=metric, average=average, iterates=memory.iterates + 1),
    )


@dataclass(frozen=True)
class Trial:
    """A candidate w with its sweep, and the numbers that it is judged by."""

    w: Controls
    evaluation: Evaluation
    measured: Measured
    eps: float
    rho: float
    rounding: float  # ν

    @property
    def sum_dh(self) -> float:
        """ΣΔH, the gain that the Hamiltonians predict."""
        m = self.measured
        return m.linear - self.rho * (m.penalty_w - m.penalty)

    @property
    def delta_J(self) -> float:
        """J(w) − J(u)."""
        m = self.measured
        return m.delta_loss + self.rho * (m.penalty_w - m.penalty)

    @property
    def remainder(self) -> float:
        """J(w) − J(u) + ΣΔH; the regulariser cancels, however it jumps: what is left speaks of the smooth loss (T5)."""
        return self.measured.delta_loss + self.measured.linear

    @property
    def c_hat(self) -> float:
        """Ĉ, the curvature along the step; NaN for w = u."""
        return self.remainder / self.measured.tau if self.measured.tau > 0 else math.nan

    @property
    def finite(self) -> bool:
        """Whether the candidate's objective is finite."""
        return math.isfinite(self.measured.loss_w) and math.isfinite(self.remainder)

    def known(self, share: float) -> float | None:
        """Ĉ as the rules for ε take it; None where it is not finite or lost in rounding.

        Ĉ is a difference divided by a small number. Where the difference is not well above its own rounding a rule that
        believed it would follow noise.
        """
        c_hat = self.c_hat
        return c_hat / share if math.isfinite(c_hat) and abs(self.remainder) > 10 * self.rounding else None


def trial(problem: Problem, method: Method, it: Iterate, rho: float, full: bool) -> Trial:
    """The maximiser of K_ε, swept and measured; ``it`` is prepared."""
    e, place = it.current.evaluation, layout(problem, method)
    assert e is not None and e.switching is not None
    u = vectors(it.controls, place)
    average = it.memory.average if it.current.use_average and method.averaging is not None else None
    w, found, numbers = problem.sweeper.run(
        attempt,
        problem,
        method,
        full,
        e,
        u,
        vectors(average, place),
        it.memory.averaged,
        vectors(it.current.metric, place),
        it.eps,
        weighted(problem, u, rho),
    )
    m = Measured.of(to_numpy(numbers).tolist(), e.x.shape[0])
    return Trial(by_stage(w), found, m, it.eps, rho, rounding=4 * unit_roundoff(e.losses) * m.scale)


def judge(method: Method, it: Iterate, t: Trial) -> Verdict:
    """What becomes of a trial.

    The order of the questions matters. Where J(u) or g is not finite no number of the trial means anything. Where τ = 0
    there is no trial. Where the predicted gain ΣΔH is below the rounding ν of the difference of two J, to accept or to
    reject would be chance; the search ends then, and does not enlarge ε for ever. Only after these is J asked, in a
    form that NaN fails. With an averaged switching function every answer but acceptance means that the average goes
    first, because rejections need not end with it (T13).
    """
    m, test = t.measured, method.acceptance
    if not (math.isfinite(m.loss) and math.isfinite(m.switching)):
        return Verdict.NON_FINITE
    if m.tau == 0:
        verdict = Verdict.CONTROL_UNCHANGED
    elif t.sum_dh <= t.rounding and not isinstance(test, NoTest):
        verdict = Verdict.PRECISION_LIMIT
    elif t.finite and test.accepts(t.delta_J, m.tau, t.sum_dh):
        return Verdict.ACCEPTED
    else:
        verdict = Verdict.REJECTED if t.finite else Verdict.NON_FINITE_TRIAL
    return Verdict.AVERAGE_DROPPED if it.current.use_average else verdict


def move(method: Method, rule: Rule, it: Iterate, t: Trial, verdict: Verdict, progress: float) -> Iterate:
    """The iterate after a trial: at w, or at u with a larger ε or without the average.

    After an acceptance the trial's sweep goes along: in full batch it is the forward sweep of the next step. After a
    rejection nothing changes but ε and what is counted; states and costates are those of u, and u is where it was.
    """
    now, memory, test = it.current, it.memory, method.acceptance
    known = t.known(test.share)
    if verdict is Verdict.ACCEPTED:
        above = 11 * t.rounding / (t.measured.tau * test.share)
        if known is None and it.smoothed is not None and above < it.smoothed:
            known = above  # Ĉτ is lost in rounding, so at most 11ν: an estimate above that comes down, or ε would stay
        eps, smoothed = rule.accepted(it.eps, known, it.smoothed, test.eta, progress)
        return replace(
            it,
            controls=t.w,
            eps=eps,
            smoothed=smoothed,
            current=replace(now, evaluation=t.evaluation, prepared=False),
            memory=replace(memory, returns=0 if now.use_average else memory.returns),
            place=it.place.accepted(),
        )
    if verdict is Verdict.AVERAGE_DROPPED:
        return replace(it, current=replace(now, use_average=False), memory=replace(memory, returns=memory.returns + 1))
    if verdict in (Verdict.REJECTED, Verdict.NON_FINITE_TRIAL):
        grown = rule.rejected(it.eps, known, test.eta)
        tried = replace(now, rejections=now.rejections + 1, finite_trials=now.finite_trials + t.finite)
        return replace(
            it,
            eps=math.inf if grown is None else grown,
            current=tried,
            counts=replace(it.counts, rejections=it.counts.rejections + 1),
        )
    return it


def record_of(it: Iterate, t: Trial, verdict: Verdict) -> Record:
    """The trial made from ``it``, in Python floats."""
    m, place = t.measured, it.place
    return Record(
        verdict=verdict,
        step=place.step + (verdict is Verdict.ACCEPTED),
        epoch=place.epoch,
        position=place.position,
        J=m.loss_w + t.rho * m.penalty_w,
        loss=m.loss_w,
        J_before=m.loss + t.rho * m.penalty,
        loss_before=m.loss,
        delta_J=t.delta_J,
        rho=t.rho,
        nonzeros=m.nonzeros,
        eps=t.eps,
        c_hat=t.c_hat,
        tau=m.tau,
        sum_dh=t.sum_dh,
        rounding=t.rounding,
        residual=2 * t.eps * math.sqrt(m.fixed_point),
        averaged=it.current.use_average,
        rejections=it.current.rejections,
        forward_sweeps=it.counts.forward_sweeps,
        backward_sweeps=it.counts.backward_sweeps,
    )


def record_of_projection(it: Iterate) -> Record:
    """``it`` has been projected to a wished size: no trial, so nothing was measured."""
    place, nothing = it.place, math.nan
    return Record(
        verdict=Verdict.PROJECTED,
        step=place.step,
        epoch=place.epoch,
        position=place.position,
        J=nothing,
        loss=nothing,
        J_before=nothing,
        loss_before=nothing,
        delta_J=nothing,
        rho=it.steering.rho,
        nonzeros=it.steering.nonzeros,
        eps=it.eps,
        c_hat=nothing,
        tau=nothing,
        sum_dh=nothing,
        rounding=nothing,
        residual=nothing,
        averaged=False,
        rejections=0,
        forward_sweeps=it.counts.forward_sweeps,
        backward_sweeps=it.counts.backward_sweeps,
    )
