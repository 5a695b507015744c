"""What a trial and its preparation compute on the arrays' device, between two decisions of the method.

Everything here is a function of arrays and numbers that takes no value from the device: ``bsqh`` hands it to the sweep
to run, and decides by the sums that come back. On a GPU a sweep may record it once and repeat it (``kernels.replay``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from pmp_ref.arrays import Array, Controls, fused, namespace, sums
from pmp_ref.controls import Layout, arrays_of, by_stage, products, vectors
from pmp_ref.hamiltonian import linear_terms, residual_terms, squared_terms
from pmp_ref.maximise import candidate
from pmp_ref.problem import Problem
from pmp_ref.sweep import Evaluation, quiet

if TYPE_CHECKING:
    from pmp_ref.bsqh import Method


class Measured(NamedTuple):
    """The numbers of one trial, fetched from the device in one transfer."""

    delta_loss: float  # L(w) − L(u), from per-sample differences in float64
    linear: float  # ⟨g, w − u⟩ with the batch's own g
    tau: float  # ‖w − u‖²_D
    fixed_point: float  # ‖D(w − u)‖²
    penalty: float  # R(u)
    penalty_w: float  # R(w)
    loss: float
    loss_w: float
    scale: float  # mean of |Φ_s(u)| + ‖x_L^s‖_∞
    switching: float  # ‖g‖², to see whether it is finite
    nonzeros: float

    @classmethod
    def of(cls, found: list[float], samples: int) -> Measured:
        """From the sums of what :func:`measure` names; losses are means over the samples."""
        made = cls(*found)
        return made._replace(
            delta_loss=made.delta_loss / samples,
            loss=made.loss / samples,
            loss_w=made.loss_w / samples,
            scale=made.scale / samples,
        )


def measure(
    problem: Problem, e: Evaluation, u: Controls, w: Controls, d: Any, trial: Evaluation
) -> Iterator[Iterable[Array]]:
    """What is to be summed to judge a trial, in the order of :class:`Measured`: arrays on the device."""
    assert e.switching is not None
    yield [fused(_rise, e.losses, trial.losses)]
    yield arrays_of(linear_terms(e.switching, u, w))
    yield arrays_of(squared_terms(u, w, d))
    yield arrays_of(residual_terms(u, w, d))
    yield arrays_of(problem.penalty_terms(u))
    yield arrays_of(problem.penalty_terms(w))
    yield [e.losses]
    yield [trial.losses]
    yield [fused(_magnitude, e.losses, e.largest)]
    yield arrays_of(products(e.switching, e.switching))
    names = arrays_of(problem.fitting(w, problem.network.names()))
    yield [a != 0 for name, a in zip(names, arrays_of(w), strict=True) if name == "kernel"]


def _rise(before: Array, after: Array) -> Array:
    """Φ_s(w) − Φ_s(u), in float64."""
    xp = namespace(before, after)
    return xp.astype(after, xp.float64) - xp.astype(before, xp.float64)


def _magnitude(losses: Array, largest: Array) -> Array:
    """|Φ_s(u)| + ‖x_L^s‖_∞, in float64."""
    xp = namespace(losses, largest)
    return xp.astype(xp.abs(losses), xp.float64) + xp.astype(largest, xp.float64)


def attempt(
    problem: Problem,
    method: Method,
    full: bool,
    e: Evaluation,
    u: Controls,
    average: Any,
    averaged: Any,
    d: Any,
    eps: Any,
    rho: Any,
) -> tuple[Controls, Evaluation, Array]:
    """What a trial computes on the device: the candidate w, its sweep, the numbers that it is judged by.

    ``rho`` is ρω of each control. The maximiser takes g, or the average of ``averaged`` switching functions if given.
    """
    with quiet():
        e = replace(e, switching=vectors(e.switching, layout(problem, method)))
        assert e.switching is not None
        direction = e.switching if average is None else method.averaging.mean(average, averaged)  # type: ignore[union-attr]
        w = candidate(problem, u, direction, eps, rho, d)
    swept = by_stage(w)
    trial = problem.sweep.forward(swept, e.x, e.y) if full else problem.sweep.trial(swept, e.x, e.y)
    if trial.switching is not None:
        trial = replace(trial, switching=by_stage(vectors(trial.switching, layout(problem, method))))
    with quiet():
        return w, trial, sums(measure(problem, e, u, w, d, trial))


def layout(problem: Problem, method: Method) -> Layout:
    """How the method lays the controls: side by side where metric and problem treat their entries alike."""
    own = vars(type(method.metric))  # a class that extends another says for itself whether it acts entry by entry
    return problem.together if own.get("entrywise", False) else problem.apart


def follow(problem: Problem, method: Method, g: Controls, memory: Any, average: Any, count: Any) -> Any:
    """(g, memory, d, average): metric and average follow the switching functions g of a new control or batch."""
    g = vectors(g, layout(problem, method))
    with quiet():
        memory, d = method.metric.update(memory, count, g)
        if method.averaging is not None:
            average = method.averaging.update(average, g)
    return by_stage(g), memory, d, average


def sweep_and_follow(
    problem: Problem, method: Method | None, e: Evaluation | None, u: Controls, x: Array, y: Array, *rest: Any
) -> Any:
    """What preparing a control computes on the device: the evaluation with g, and :func:`follow`.

    Sweeps are made as far as they are missing; without a method metric and average stay as they are.
    """
    swept = by_stage(u)
    e = problem.sweep.forward_backward(swept, x, y) if e is None else problem.sweep.backward(swept, e)
    if method is None:
        return (e,)
    assert e.switching is not None
    g, *followed = follow(problem, method, e.switching, *rest)
    return replace(e, switching=g), *followed
