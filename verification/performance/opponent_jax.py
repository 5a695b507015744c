"""The same operations in JAX, compiled by ``jax.jit`` as one function each, on the CPU.

Losses, gradients and the step are those of the method, so that all sides compute the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pmp_ref.layers import (
    AveragePool,
    Convolution,
    Dense,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    ReLU,
    ScaleShift,
    Stage,
    Standardise,
    Tanh,
    WeightedSum,
)
from verification.performance.configurations import EPS, RHO, Case

jax.config.update("jax_enable_x64", True)  # losses are compared and summed in float64
jax.config.update("jax_platforms", "cpu")

Map = Callable[[Any, Any], Any]


def stage_map(stage: Stage) -> Map:
    """One stage as a function of state and controls."""
    match stage:
        case Convolution():
            w, bias, groups = stage.windows, stage.bias, stage.groups
            padding = [(p, p) for p in w.padding]

            def convolution(x: Any, u: Any) -> Any:
                y = lax.conv_general_dilated(
                    x, u[0], w.stride, padding, rhs_dilation=w.dilation, feature_group_count=groups
                )
                return y + u[1][:, None, None] if bias else y

            return convolution
        case Dense():
            bias = stage.bias
            return lambda x, u: x @ u[0].T + u[1] if bias else x @ u[0].T
        case Standardise():
            groups, delta = stage.groups, stage.delta

            def standardise(x: Any, u: Any) -> Any:
                z = x.reshape(x.shape[0], groups, -1)
                z = z - z.mean(axis=2, keepdims=True)
                return (z * lax.rsqrt((z * z).mean(axis=2, keepdims=True) + delta)).reshape(x.shape)

            return standardise
        case ScaleShift():
            return lambda x, u: x * u[0][:, None, None] + u[1][:, None, None]
        case Tanh():
            return lambda x, u: jnp.tanh(x)
        case ReLU():
            return lambda x, u: jax.nn.relu(x)
        case AveragePool():
            size, stride = (1, 1, *stage.windows.size), (1, 1, *stage.windows.stride)
            area = np.prod(size)
            return lambda x, u: lax.reduce_window(x, np.zeros((), x.dtype), lax.add, size, stride, "VALID") / area
        case MaxPool():
            size, stride = (1, 1, *stage.windows.size), (1, 1, *stage.windows.stride)
            return lambda x, u: lax.reduce_window(x, -np.inf, lax.max, size, stride, "VALID")
        case GlobalAveragePool():
            return lambda x, u: x.mean((2, 3))
        case Flatten():
            return lambda x, u: x.reshape(x.shape[0], -1)
        case WeightedSum(weights=(1.0, step)):
            return lambda x, u: x[0] + step * x[1]
    raise NotImplementedError(f"{stage} has no counterpart here")


def functions_of(case: Case) -> dict[str, Callable[..., Any]]:
    """The operations by name, as functions of images, labels and controls."""
    network = case.network
    maps = [stage_map(stage) for stage in network.stages]
    penalised = tuple(tuple(name == "kernel" for name in stage) for stage in network.names())

    def losses(u: Any, x: Any, y: Any) -> Any:
        states = [x]
        for l, f in enumerate(maps):
            entering = [states[i] for i in network.reads[l]]
            states.append(f(entering if len(entering) > 1 else entering[0], u[l]))
        logits = states[-1]
        return jax.nn.logsumexp(logits, axis=1) - jnp.take_along_axis(logits, y[:, None], axis=1)[:, 0]

    def mean(u: Any, x: Any, y: Any) -> tuple[Any, Any]:
        phi = losses(u, x, y)
        return phi.mean(), phi

    def sweep(x: Any, y: Any, u: Any) -> tuple[Any, Any]:
        g, phi = jax.grad(mean, has_aux=True)(u, x, y)
        return phi, g

    def maximised(u: Any, g: Any) -> Any:
        """u − ∇L/(2ε), or 0 where that is worth more."""
        c = jax.tree.map(lambda a, b: a - b / (2 * EPS), u, g)
        return jax.tree.map(lambda a, p: jnp.where(a * a <= RHO / EPS, 0, a) if p else a, c, penalised)

    def judged(u: Any, v: Any, g: Any, phi: Any, trial: Any) -> Any:
        """The numbers of the acceptance test, in float64; the loss last."""
        delta = jax.tree.map(lambda a, b: (b - a).astype(jnp.float64), u, v)
        total = lambda tree: sum(jax.tree.leaves(jax.tree.map(jnp.sum, tree)))  # noqa: E731
        return jnp.stack(
            [
                (trial.astype(jnp.float64) - phi.astype(jnp.float64)).mean(),
                -total(jax.tree.map(lambda a, b: a.astype(jnp.float64) * b, g, delta)),
                total(jax.tree.map(jnp.square, delta)),
                total(jax.tree.map(lambda a, p: (a != 0).astype(jnp.float64) * p, v, penalised)),
                trial.astype(jnp.float64).mean(),
            ]
        )

    def forward_backward(x: Any, y: Any, u: Any) -> Any:
        phi, g = sweep(x, y, u)
        return phi.astype(jnp.float64).mean().reshape(1), g

    def mini_batch_step(x: Any, y: Any, u: Any) -> Any:
        phi, g = sweep(x, y, u)
        v = maximised(u, g)
        return judged(u, v, g, phi, losses(v, x, y)), v

    def full_batch_step(x: Any, y: Any, u: Any, phi: Any, g: Any) -> Any:
        v = maximised(u, g)
        trial, new = sweep(x, y, v)
        return judged(u, v, g, phi, trial), v, trial, new

    return {f.__name__: f for f in (forward_backward, mini_batch_step, full_batch_step, sweep)}


def operation(name: str, case: Case, threads: int) -> Callable[[], float]:
    """As :func:`verification.performance.ours.operation`; the number of threads is set when the process starts."""
    functions = functions_of(case)
    arguments = [jnp.asarray(case.x), jnp.asarray(case.y), jax.tree.map(jnp.asarray, case.controls)]
    if name == "full_batch_step":
        arguments += jax.jit(functions["sweep"])(*arguments)
    run = jax.jit(functions[name])

    def once() -> float:
        found = jax.block_until_ready(run(*arguments))
        return float(found[0][-1])

    return once


def switching_norms(case: Case, threads: int) -> list[float]:
    """‖∇_l L‖ of each control."""
    arguments = [jnp.asarray(case.x), jnp.asarray(case.y), jax.tree.map(jnp.asarray, case.controls)]
    _, g = jax.jit(functions_of(case)["sweep"])(*arguments)
    return [float(np.linalg.norm(np.asarray(a, np.float64))) for a in jax.tree.leaves(g)]
