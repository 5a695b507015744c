"""What a trial and its preparation compute on the arrays' device, between two decisions of the method.

Everything here is a function of arrays and numbers that takes no value from the device: ``bsqh`` hands it to the sweep
to run, and decides by the sums that come back. On a GPU a sweep may record it once and repeat it (``kernels.replay``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from pmp_ref.arrays import Array, Controls, fused, namespace
from pmp_ref.controls import Layout, arrays_of, by_stage, in_blocks, layout_of, vectors
from pmp_ref.hamiltonian import step_terms
from pmp_ref.maximise import candidate
from pmp_ref.method import Method
from pmp_ref.problem import Problem
from pmp_ref.sweep import Evaluation, quiet


class Measured(NamedTuple):
    """What a trial is judged by: sums, which one transfer has brought from the device. Losses are means over the
    samples."""

    delta_loss: Any  # L(w) − L(u), from per-sample differences in float64
    loss: Any
    loss_w: Any
    scale: Any  # mean of |Φ_s(u)| + ‖x_L^s‖_∞
    linear: Any  # ⟨g, w − u⟩ with the batch's own g
    tau: Any  # ‖w − u‖²_D
    fixed_point: Any  # ‖D(w − u)‖²
    switching: Any  # ‖g‖², to see whether it is finite
    penalty: Any  # R(u)
    penalty_w: Any  # R(w)
    nonzeros: Any  # kernel entries

    @classmethod
    def of(cls, found: Iterable[float], samples: int) -> Measured:
        """From the sums that :func:`attempt` finds; losses are means over the samples."""
        made = cls._make(found)
        return made._replace(
            delta_loss=made.delta_loss / samples,
            loss=made.loss / samples,
            loss_w=made.loss_w / samples,
            scale=made.scale / samples,
            nonzeros=int(made.nonzeros),
        )


def measure_losses(e: Evaluation, trial: Evaluation) -> dict[str, Array]:
    """What is to be summed over the samples to judge a trial, by name: arrays on the device."""
    return {
        "delta_loss": fused(_rise, e.losses, trial.losses),
        "loss": e.losses,
        "loss_w": trial.losses,
        "scale": fused(_magnitude, e.losses, e.largest),
    }


def measure_entries(problem: Problem, g: Controls, u: Controls, w: Controls, d: Any) -> Iterator[Iterable[Array]]:
    """What is to be summed over the entries of the controls, in the order of :class:`Measured`: on the device, an array
    for each control."""
    names = problem.fitting(w, problem.names)
    yield from map(arrays_of, step_terms(g, u, w, d))
    yield arrays_of(problem.penalty_terms(u))
    yield arrays_of(problem.penalty_terms(w))
    yield [(a if name == "kernel" else a[:0, ...]) != 0 for name, a in zip(arrays_of(names), arrays_of(w), strict=True)]


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

        def tried(u: Any, g: Any, average: Any, rho: Any, d: Any) -> Any:
            direction = g if average is None else method.averaging.mean(average, averaged)  # type: ignore[union-attr]
            w = candidate(problem, u, direction, eps, rho, d)
            return (w,), measure_entries(problem, g, u, w, d)

        (w,), entries = in_blocks(tried, u, e.switching, average, rho, d)
    swept = by_stage(w)
    trial = problem.sweeper.forward(swept, e.x, e.y) if full else problem.sweeper.trial(swept, e.x, e.y)
    if trial.switching is not None:
        trial = replace(trial, switching=by_stage(vectors(trial.switching, layout(problem, method))))
    with quiet():
        losses = measure_losses(e, trial).values()
        return w, trial, problem.sweeper.sums(e.x, list(losses), entries, layout_of(u))


def layout(problem: Problem, method: Method) -> Layout:
    """How the method lays the controls: side by side where metric and problem treat their entries alike."""
    own = vars(type(method.metric))  # a class that extends another says for itself whether it acts entry by entry
    whole = problem.together if own.get("entrywise", False) else problem.apart
    return problem.sweeper.ranks.layout(whole)


def follow(problem: Problem, method: Method, g: Controls, memory: Any, average: Any, count: Any) -> Any:
    """(g, memory, d, average): metric and average follow the switching functions g of a new control or batch."""
    g = vectors(g, layout(problem, method))
    with quiet():
        memory, d = method.metric.update(memory, count, g)
        if method.averaging is not None:
            update = method.averaging.update
            (average,), _ = in_blocks(lambda g, average: ((update(average, g),), ()), g, average)
    return by_stage(g), memory, d, average


def sweep_and_follow(
    problem: Problem, method: Method | None, e: Evaluation | None, u: Controls, x: Array, y: Array, *rest: Any
) -> Any:
    """What preparing a control computes on the device: the evaluation with g, and :func:`follow`.

    Sweeps are made as far as they are missing; without a method metric and average stay as they are.
    """
    swept = by_stage(u)
    e = problem.sweeper.forward_backward(swept, x, y) if e is None else problem.sweeper.backward(swept, e)
    if method is None:
        return (e,)
    assert e.switching is not None
    g, *followed = follow(problem, method, e.switching, *rest)
    return replace(e, switching=g), *followed
