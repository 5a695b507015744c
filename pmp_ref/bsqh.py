"""The batch sequential quadratic Hamiltonian method: one flat accept/reject loop over ``step`` (``one_step.py``).

A candidate is a guess: it maximises K_ε with the states and costates of the old control, which are wrong as soon as the
control moves. So the loop believes none. It looks at J of the candidate itself and moves on, to the next control or
batch, only if J has fallen enough. Otherwise the control stays as it was, to the last bit, and ε grows: a larger ε
makes a shorter step (T18), and a step that is short enough is accepted (T6), so that the search ends (T8).

What a trial means for the run is decided in ``go_on``, and each end has a name of its own: a small step proves nothing
where ε is large (T19), and a failed search must not be called convergence.

Full batch is the case of one batch that never changes; then an accepted trial keeps the sweep it has already made, so a
step without rejection costs one forward and one backward sweep. Theory: "The algorithm".

``pmp_ref.library`` has what users call: there controls, method and sweep need not be given.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from pmp_ref.arrays import Array, Controls, is_array, to_numpy
from pmp_ref.batches import FlipsAndShifts, batches_in, take_batch
from pmp_ref.cardinality import check_wish, nearest
from pmp_ref.controls import arrays_of, entry_sums, vectors
from pmp_ref.errors import InputError, LabelWarning, ScaleWarning
from pmp_ref.hamiltonian import step_terms
from pmp_ref.iterate import Current, Iterate
from pmp_ref.maximise import maximise
from pmp_ref.method import Method
from pmp_ref.one_step import prepare, record_of_projection, step
from pmp_ref.problem import Problem, scale_advice
from pmp_ref.result import Record, Run, Status, Verdict
from pmp_ref.stop import Stop
from pmp_ref.sweep import quiet
from pmp_ref.trial import layout

Callback: TypeAlias = Callable[[Iterate, Record], object]  # a true value ends the run


def bsqh(
    problem: Problem,
    controls: Controls | None,
    x: Array,
    y: Array,
    *,
    stop: Stop,
    method: Method | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    callback: Callback | None = None,
    resume: Iterate | None = None,
    vary: FlipsAndShifts | None = None,
) -> Run:
    """Run bSQH from ``controls`` on images x (N, …) and labels y; ``batch_size`` None: full batch.

    ``callback(iterate, record)`` is called after every trial; a true return value ends the run ("interrupted"), and
    so does Ctrl-C, both with the last complete iterate. ``resume`` continues from an iterate of an earlier run with
    the same arguments; the order of the batches depends on (seed, epoch) only, so the run goes on bit for bit.
    ``controls`` are then those of the iterate, or None. ``method`` None: ``Method()``. ``vary``: the images of a
    mini-batch are moved and mirrored at random.

    Raises InputError for shapes, dtypes, libraries, devices, labels or values that do not fit, and for controls that
    are not those of ``resume``. Warns with ScaleWarning of images whose largest value is far from 1, with LabelWarning
    of labels that seem to count from 1.
    """
    method = Method() if method is None else method
    it = first_iterate(method, controls, resume)
    check_run(problem, method, stop, it.controls, x, y, batch_size, seed, vary)
    return loop(problem, method, stop, it, x, y, batch_size, seed, callback, vary)


def loop(
    problem: Problem,
    method: Method,
    stop: Stop,
    it: Iterate,
    x: Array,
    y: Array,
    batch_size: int | None,
    seed: int,
    callback: Callback | None,
    vary: FlipsAndShifts | None = None,
) -> Run:
    """The loop of :func:`bsqh`, of arguments that are checked: step, judge, move on.

    ``it`` is replaced and never changed, and only when all of a trial is done. So whatever interrupts the loop, there
    is a last complete iterate, and a run that goes on from it repeats the same bits.
    """
    full = batch_size is None
    batches = batches_in(x.shape[0], batch_size)
    records: list[Record] = []
    status = None
    wish, size = method.wish, problem.network.kernel_size()

    def interrupted(record: Record) -> bool:
        """Tell of a record; whether the run is to end by it."""
        records.append(record)
        return callback is not None and bool(callback(it, record))

    try:
        while status is None:
            # A control with more weights than wished is cut where the run says so, without a trial: J may rise (T20).
            done = stop.done(it.place)
            if wish is not None and wish.above(it.steering, size, stop.progress(it.place, batches), done):
                it, record = projected(problem, method, it)
                status = Status.INTERRUPTED if interrupted(record) else None
                continue
            if done:
                break
            # After a rejection the same batch is tried again, and in full batch there is no other: then what was found
            # on it is still there. Otherwise the next batch follows from (seed, epoch) alone, so that runs repeat.
            e, place = it.current.evaluation, it.place
            if e is not None:
                bx, by = e.x, e.y
            else:
                bx, by = (
                    (x, y)
                    if full
                    else take_batch(x, y, batches, place.position, seed, place.epoch, problem.sweeper, vary)
                )
            # One ρ for both sides of a test. While it is on its way up J is another function in every step, and no
            # test may call the run stationary.
            progress = stop.progress(place, batches)
            it, rho = with_rho(problem, method, it, size, progress)
            tests = stop if rho == problem.rho else replace(stop, increment=0.0, residual=0.0)
            # The trial, and what it means for the run.
            it = prepare(problem, method, it, bx, by)
            after, record = step(problem, method, it, bx, by, rho, progress, full, stop.part(batches))
            if record.accepted:
                after = replace(after, steering=replace(after.steering, nonzeros=record.nonzeros))
            status, after = go_on(method, tests, it, after, record, full, batches)
            if record.accepted and status is Status.CONVERGED_RESIDUAL:  # the control before this trial is the answer
                record = replace(record, verdict=Verdict.CONVERGED_RESIDUAL, step=after.step)
            if status is None and after.place.position == 0 and not full and after.epoch > it.epoch:
                status, after = end_of_epoch(problem, method, tests, after, x, y, rho)
            it = after  # not before all of this trial is done: Ctrl-C finds a complete iterate
            if interrupted(record) and status is None:
                status = Status.INTERRUPTED
        early = status not in (None, Status.INTERRUPTED, Status.NON_FINITE)
        if early and wish is not None and wish.above(it.steering, size, 0.0, True):
            it, record = projected(problem, method, it)
            interrupted(record)
    except KeyboardInterrupt:
        status = Status.INTERRUPTED
    return Run(status or Status.ITERATION_LIMIT, it, tuple(records))


def with_rho(problem: Problem, method: Method, it: Iterate, size: int, progress: float) -> tuple[Iterate, float]:
    """The ρ of a step, steered where a size is wished; ``size`` counts all kernel entries."""
    if method.wish is None:
        return it, method.rho_at(problem.rho, progress)
    steering = method.wish.steer(it.steering, problem.rho, size, progress)
    return replace(it, steering=steering), steering.rho


def projected(problem: Problem, method: Method, it: Iterate) -> tuple[Iterate, Record]:
    """The nearest control of the wished size (T20), and a record that says so."""
    assert method.wish is not None
    s, size = it.steering, problem.network.kernel_size()
    k = method.wish.at_end(size)
    controls = nearest(problem.network.names(), it.controls, it.current.metric, k)
    steering = replace(s, nonzeros=k, projections=s.projections + 1, cut=s.cut + s.count(size) - k)
    it = replace(it, controls=controls, current=Current(metric=it.current.metric), steering=steering)
    return it, record_of_projection(it)


def go_on(
    method: Method, stop: Stop, before: Iterate, it: Iterate, record: Record, full: bool, batches: int
) -> tuple[Status | None, Iterate]:
    """What a trial means for the run: (status that ends it or None, iterate to go on with).

    A small residual counts only for the first trial of a control: after rejections a step is short because ε is large,
    and that says nothing of u. By mini-batches a trial ends a run only if it is not finite or the rule has given up,
    since what looks finished on one batch is not on the next; a batch that no step can leave is skipped and counted,
    and a whole epoch of them ends the run.
    """
    verdict = record.verdict
    if verdict is Verdict.NON_FINITE:
        return Status.NON_FINITE, it
    # w = u may come from rounding and prove nothing
    first = before.current.rejections == 0 and verdict is not Verdict.CONTROL_UNCHANGED
    if full and first and stop.stationary(record.residual, record.sum_dh, record.eps, record.tau):
        counts = replace(it.counts, rejections=before.counts.rejections)
        return Status.CONVERGED_RESIDUAL, replace(before, counts=counts)
    if verdict is Verdict.ACCEPTED:
        if not full:
            return None, next_batch(it, batches)
        it = replace(it, place=replace(it.place, epoch=it.place.epoch + 1))
        return (Status.CONVERGED_INCREMENT if record.tau < stop.increment else None), it
    if verdict is Verdict.AVERAGE_DROPPED:
        return None, it
    if verdict in (Verdict.REJECTED, Verdict.NON_FINITE_TRIAL):
        if math.isinf(it.eps):  # the rule gave up; the run ends with the ε that failed
            return Status.AUGMENTATION_LIMIT, replace(it, eps=before.eps)
        if it.current.rejections < method.max_rejections and it.eps <= method.eps_max:
            return None, it
        reason = Status.AUGMENTATION_LIMIT if it.current.finite_trials else Status.NON_FINITE
    else:
        reason = Status.PRECISION_LIMIT if verdict is Verdict.PRECISION_LIMIT else Status.CONTROL_UNCHANGED
        it = replace(it, eps=it.current.eps_start)  # rounding, not curvature, ended this control
    if full:
        return reason, it
    wasted = it.place.position == batches - 1 and it.place.accepted_in_epoch == 0
    return (reason if wasted else None), skip_batch(it, method.eps_max, batches)


def next_batch(it: Iterate, batches: int) -> Iterate:
    """The iterate at the next batch of the epoch, or at the first of the next epoch."""
    return replace(it, current=replace(it.current, evaluation=None), place=it.place.next_batch(batches))


def skip_batch(it: Iterate, eps_max: float, batches: int) -> Iterate:
    """The same control at the next batch, with an ε that is allowed."""
    return next_batch(
        replace(
            it,
            eps=min(it.eps, eps_max),
            current=replace(it.current, prepared=False),
            counts=replace(it.counts, skipped=it.counts.skipped + 1),
        ),
        batches,
    )


def end_of_epoch(
    problem: Problem, method: Method, stop: Stop, it: Iterate, x: Array, y: Array, rho: float
) -> tuple[Status | None, Iterate]:
    """Tests of τ and residual on all data, made after an epoch of mini-batches if asked for: one sweep each way.

    On all data, because a small step on one batch says nothing about the others.
    """
    if stop.increment == 0 and stop.residual == 0:
        return None, it
    e = problem.sweeper.forward_backward(it.controls, x, y)
    it = replace(it, counts=it.counts.swept(e))
    place = layout(problem, method)
    u, g, d = (vectors(nested, place) for nested in (it.controls, e.switching, it.current.metric))
    with quiet():
        w = maximise(problem, u, g, it.eps, rho, d)
        groups = (*step_terms(g, u, w, d), *map(problem.penalty_terms, (u, w)))
        linear, tau, fixed_point, _, penalty, penalty_w = to_numpy(entry_sums(map(arrays_of, groups), u)).tolist()
        sum_dh = linear - rho * (penalty_w - penalty)
    if tau == 0:  # may come from rounding: no proof of a small residual
        return Status.CONTROL_UNCHANGED, it
    if stop.stationary(2 * it.eps * math.sqrt(fixed_point), sum_dh, it.eps, tau):
        return Status.CONVERGED_RESIDUAL, it
    return (Status.CONVERGED_INCREMENT if tau < stop.increment else None), it


# --- before the loop --------------------------------------------------------------------------------------------------


def first_iterate(method: Method, controls: Controls | None, resume: Iterate | None) -> Iterate:
    """Where a run begins or goes on; InputError without controls, or with others than those of ``resume``."""
    if resume is None:
        if controls is None:
            raise InputError("no controls were given; expected those to start from, as initial_controls makes them")
        return Iterate(controls, method.rule.eps0)
    mine = resume.controls
    if controls is None or controls is mine:
        return resume
    nested = isinstance(controls, Sequence) and all(isinstance(stage, Sequence) for stage in controls)
    if nested and list(map(len, controls)) == list(map(len, mine)):
        pairs = zip(arrays_of(controls), arrays_of(mine), strict=True)
        if all(is_array(a) and a.shape == b.shape and np.array_equal(to_numpy(a), to_numpy(b)) for a, b in pairs):
            return resume
    raise InputError(
        "controls are not those of resume, where the run goes on; give None or resume.controls, or leave "
        "resume out to start from other controls"
    )


def check_run(
    problem: Problem,
    method: Method,
    stop: Stop,
    controls: Controls,
    x: Array,
    y: Array,
    batch_size: int | None,
    seed: int,
    vary: FlipsAndShifts | None = None,
) -> None:
    """Raise InputError for what does not go together, and warn of data that look mistaken: see :func:`bsqh`.

    Warnings show the line that called the caller.
    """
    if advice := scale_advice(problem.check(controls, x, y)):
        warnings.warn(advice, ScaleWarning, stacklevel=3)
    if advice := problem.loss.advice(problem.network.output_shape, y):
        warnings.warn(advice, LabelWarning, stacklevel=3)
    n = x.shape[0]
    if batch_size is not None and not (type(batch_size) is int and 1 <= batch_size <= n):
        raise InputError(f"batch size {batch_size} for {n} samples; expected an integer from 1 to {n}, or full batch")
    if method.averaging is not None and batch_size is None:
        raise InputError("averaged switching functions need mini-batches; leave averaging out or give a batch size")
    if vary is not None:
        vary.check(x.shape[1:])
        if batch_size is None:
            raise InputError(f"{vary} needs mini-batches; leave it out or give a batch size")
    if type(seed) is not int or seed < 0:
        raise InputError(f"seed is {seed!r}; expected an integer ≥ 0")
    if method.wish is not None:
        check_wish(problem)
        if stop.steps is None and stop.epochs is None:
            raise InputError("a wished size needs to know how long the run is; give steps or epochs, or leave it out")
        if stop.increment or stop.residual:
            raise InputError("a wished size steers ρ to the end of the run; leave increment and residual out")
    if method.ramp is not None and stop.steps is None and stop.epochs is None:
        raise InputError("a ramp of ρ needs to know how long the run is; give steps or epochs, or leave it out")
