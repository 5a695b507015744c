"""What users call: ``solve``, ``step`` and ``certify`` with everything chosen that was not given.

The method (``pmp_ref.bsqh``, ``one_step``, ``certificate``) takes a sweep and knows of none but the clear one. Here,
and only here, the sweep is chosen from the arrays: fast kernels for NumPy, those of a GPU for arrays that lie there
(:func:`suited`). A problem that was given a sweep keeps it.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field

from pmp_ref import bsqh, certificate, one_step
from pmp_ref.arrays import Array, Controls, library, to_floats
from pmp_ref.batches import FlipsAndShifts, batches_in
from pmp_ref.bsqh import Callback
from pmp_ref.certificate import Certificate
from pmp_ref.controls import kernel_entries
from pmp_ref.errors import InputError
from pmp_ref.initialise import initial_controls
from pmp_ref.iterate import Iterate
from pmp_ref.kernels import make_sweep
from pmp_ref.method import Method
from pmp_ref.model import Model
from pmp_ref.problem import Problem
from pmp_ref.result import Record, Run
from pmp_ref.stop import Stop
from pmp_ref.watch import Bar


@dataclass(frozen=True, repr=False)
class Solution(Run):
    """Where a run ended, and what its controls are worth on all data it was given.

    ``J`` = L + ρR at the problem's ρ, or the last one of a run that steers it, and ``loss`` L, the mean, over all
    images of the run, in mini-batches too;
    ``nonzeros`` of the ``entries`` of all kernels. ``model`` is the network with the controls found.
    """

    J: float
    loss: float
    nonzeros: int
    entries: int
    model: Model = field(compare=False)

    def __repr__(self) -> str:
        kept = f"{self.nonzeros:,} of {self.entries:,} weights"
        return f"<Solution: {self.status} after {self.iterate.place}: J = {self.J:.6g}, loss = {self.loss:.6g}, {kept}>"


def solve(
    problem: Problem,
    x: Array,
    y: Array,
    *,
    controls: Controls | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    method: Method | None = None,
    stop: Stop | None = None,
    steps: int | None = None,
    epochs: int | None = None,
    increment: float = 0.0,
    residual: float = 0.0,
    keep: float | None = None,
    callback: Callback | None = None,
    progress: bool = False,
    resume: Iterate | None = None,
    vary: FlipsAndShifts | None = None,
) -> Solution:
    """Minimise J = L + ρR over the controls on images x (N, …) and labels y by bSQH.

    ``batch_size`` None: full batch, every step uses all data. ``method`` None: ``Method.full_batch()`` or
    ``Method.minibatch()``, the defaults of ``pmp-ref train``. ``controls`` None: drawn from ``seed``, which the order
    of the batches follows too. When to stop is said by at least one of ``steps`` (accepted ones), ``epochs``,
    ``increment``, ``residual``, or by ``stop``, see :class:`Stop`. Library, dtype and device are those of x; for bytes
    the dtype is float32.

    ``vary`` = ``FlipsAndShifts(shift, flip)``: the images of a mini-batch are moved and mirrored at random, anew in
    every epoch; J and loss of the solution are those of the images as they are.

    ``keep``: the run ends with at most so many nonzero kernel entries, or below 1 with that part of them; ρ is steered,
    and the problem's ρ is a guess of its last value (0: none), see :class:`AtMost`. J is then that of the last ρ.

    ``callback(iterate, record)`` is called after every trial; a true return value ends the run ("interrupted"), and
    so does Ctrl-C, both with the last complete iterate. ``progress`` shows a bar, in a notebook or on stderr.
    ``resume`` continues from an iterate of an earlier run with the same arguments, bit for bit; ``controls`` are then
    those of the iterate, or None.

    Raises InputError for what does not fit, and for controls that are not those of ``resume``. Warns with ScaleWarning
    of images whose largest value is far from 1, with LabelWarning of labels that seem to count from 1.
    """
    if method is None:
        method = Method.full_batch() if batch_size is None else Method.minibatch()
    method = method.wishing(keep)
    if stop is None:
        stop = Stop(steps, epochs, increment, residual)
    elif (steps, epochs, increment, residual) != (None, None, 0.0, 0.0):
        raise InputError("stop was given, and steps, epochs, increment or residual beside it; expected one of the two")
    problem.network.check_images(x)
    if controls is None and resume is None:
        controls = problem.project(initial_controls(problem.network, seed, x))
    problem = suited(problem, x)
    it = bsqh.first_iterate(method, controls, resume)
    bsqh.check_run(problem, method, stop, it.controls, x, y, batch_size, seed, vary)
    with ExitStack() as entered:
        if progress:
            bar = entered.enter_context(Bar(stop, batches_in(x.shape[0], batch_size), it.place))
            callback = bar.beside(callback)
        run = bsqh.loop(problem, method, stop, it, x, y, batch_size, seed, callback, vary)
    e = run.iterate.current.evaluation
    if e is None or e.x is not x:
        e = problem.sweeper.trial(run.controls, x, y)
    loss, penalty = to_floats(problem.sweeper.mean_loss(e), problem.penalty(run.controls))
    rho = problem.rho if method.wish is None else run.iterate.steering.rho
    nonzeros, entries = kernel_entries(problem.network.names(), run.controls)
    return Solution(
        run.status,
        run.iterate,
        run.records,
        J=loss + rho * penalty,
        loss=loss,
        nonzeros=nonzeros,
        entries=entries,
        model=Model(problem.network, run.controls),
    )


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
    """One trial on the batch (x, y), from ``Iterate(controls, eps)`` on; :func:`pmp_ref.one_step.step` with the sweep
    chosen.

    After a rejection give the same arrays again; other arrays are the next batch.
    """
    return one_step.step(suited(problem, x), method, it, x, y, rho, progress, full, part)


def certify(problem: Problem, controls: Controls, x: Array, y: Array, eps: float | None = None) -> Certificate:
    """Certificate of ``controls`` on (x, y); :func:`pmp_ref.certificate.certify` with the sweep chosen."""
    return certificate.certify(suited(problem, x), controls, x, y, eps)


def suited(problem: Problem, x: Array) -> Problem:
    """The problem with the sweep that suits arrays like x, made once for each kind of them; itself if it has one."""
    if problem.sweep is not None:
        return problem
    kind = library(x), getattr(x, "dtype", None)
    if kind not in problem.suited:
        sweep = make_sweep(problem.network, problem.loss, example=x)
        problem.suited[kind] = problem.swept_by(sweep)
    return problem.suited[kind]
