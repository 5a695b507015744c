"""Initial controls: drawn by one NumPy generator on the host, then moved, so that all backends start alike."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pmp_ref.arrays import Array, Controls, like, namespace
from pmp_ref.layers import Activation, LeakyReLU, ScaleShift, SiLU, Softplus
from pmp_ref.network import Network


def initial_controls(network: Network, seed: int, example: Array, dtype: Any = None) -> Controls:
    """Kernels uniform on ±√(3·gain/fan_in), so that their variance is gain/fan_in; biases 0, scales 1.

    gain is 2 where the next activation is of the ReLU kind (He), else 1 (LeCun). Library and device are those of
    ``example``, and so is the dtype unless one is given, "float32" or "float64"; for bytes it is float32. The same seed
    gives the same numbers on every backend.
    """
    if dtype is not None or example.dtype == namespace(example).uint8:
        dtype = getattr(namespace(example), dtype or "float32")
    generator = np.random.default_rng(seed)
    controls = []
    for l, (stage, shapes) in enumerate(zip(network.stages, network.control_shapes, strict=True)):
        arrays = []
        for name, shape in zip(stage.control_names, shapes, strict=True):
            if name == "bias":
                host = np.zeros(shape)
            elif isinstance(stage, ScaleShift):
                host = np.ones(shape)
            else:
                bound = math.sqrt(3 * _gain(network, l) / math.prod(shape[1:]))
                host = generator.uniform(-bound, bound, shape)
            arrays.append(like(host, example, dtype))
        controls.append(tuple(arrays))
    return tuple(controls)


def _gain(network: Network, l: int) -> float:
    """2 if the first activation that x_{l+1} comes to, through whatever reads it, is of the ReLU kind, else 1."""
    reached = {l + 1}
    for m in range(l + 1, len(network.stages)):
        if not reached.isdisjoint(network.reads[m]):
            if isinstance(network.stages[m], Activation):
                return 2.0 if isinstance(network.stages[m], LeakyReLU | SiLU | Softplus) else 1.0
            reached.add(m + 1)
    return 1.0
