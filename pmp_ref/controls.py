"""Controls u = (u_0, …, u_{L−1}) as nested tuples: ``u[l]`` is ``(kernel, bias)``, ``(kernel,)`` or ``()``.

Increments, switching functions, metrics and weights have the same nesting. Norms and inner products are summed in
float64 and stay on the device as 0-d arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from pmp_ref.arrays import Array, Controls, fused, like, namespace, sum64, to_numpy
from pmp_ref.errors import InputError


def map_controls(f: Callable[..., Any], *controls: Any) -> Any:
    """f applied array by array to one or more nestings of the same form."""
    return tuple(tuple(f(*parts) for parts in zip(*stage, strict=True)) for stage in zip(*controls, strict=True))


def arrays_of(controls: Any) -> Iterator[Any]:
    """The entries of a nesting, stage by stage."""
    for stage in controls:
        yield from stage


def inner(a: Controls, b: Controls) -> Array:
    """⟨a, b⟩ = Σ_l Σ_i a_{l,i} b_{l,i}, each product formed and summed in float64; 0-d."""
    return total(map_controls(partial(fused, inner64), a, b))


def inner64(a: Array, b: Array) -> Array:
    """⟨a, b⟩ of two arrays in float64; 0-d."""
    xp = namespace(a, b)
    return sum64(xp.astype(a, xp.float64) * xp.astype(b, xp.float64))


def total(scalars: Any) -> Array:
    """Σ of the 0-d entries of a nesting, in order."""
    return fused(_in_order, *arrays_of(scalars))


def _in_order(result: Array, *others: Array) -> Array:
    for other in others:
        result = result + other
    return result


def add(a: Controls, b: Controls) -> Controls:
    """a + b."""
    return map_controls(lambda x, y: x + y, a, b)


def subtract(a: Controls, b: Controls) -> Controls:
    """a − b."""
    return map_controls(lambda x, y: x - y, a, b)


def scaled(t: float, a: Controls) -> Controls:
    """t·a."""
    return map_controls(lambda x: t * x, a)


def to_vector(controls: Controls) -> np.ndarray:
    """All entries as one float64 vector on the host, stage by stage, in C order."""
    return np.concatenate([np.zeros(0), *(to_numpy(a).astype(np.float64).ravel() for a in arrays_of(controls))])


def from_vector(vector: np.ndarray, template: Controls) -> Controls:
    """Inverse of :func:`to_vector`; library, dtype and device from ``template``.

    Raises InputError for a vector of another length.
    """
    size = sum(math.prod(a.shape) for a in arrays_of(template))
    if vector.shape != (size,):
        raise InputError(f"a vector of shape {vector.shape} for controls with {size} entries")
    parts, start = [], 0
    for stage in template:
        new = []
        for a in stage:
            n = math.prod(a.shape)
            new.append(like(vector[start : start + n].reshape(a.shape), a))
            start += n
        parts.append(tuple(new))
    return tuple(parts)


def cast(controls: Controls, dtype: str) -> Controls:
    """The controls in another floating dtype ("float32" or "float64"), same library and device."""
    return map_controls(lambda a: namespace(a).astype(a, getattr(namespace(a), dtype)), controls)
