"""What is measured: networks, data, operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pmp_ref.architectures import ARCHITECTURES
from pmp_ref.initialise import initial_controls
from pmp_ref.network import Network

OPERATIONS = ("forward_backward", "full_batch_step", "mini_batch_step")
CONFIGS = ("lenet5", "lenet5-caffe", "residual", "resnet20")
DTYPES = ("float32", "float64")
EPS, RHO = 1000.0, 1e-3  # one step of the method: ε, large enough for descent here, and the weight of L0


@dataclass(frozen=True)
class Case:
    """A network with data of one size and dtype."""

    network: Network
    controls: Any
    x: np.ndarray
    y: np.ndarray


def network(config: str) -> Network:
    """The network of that name; ``residual:W:N`` is the residual net of width W with N blocks on each level."""
    build: Any = ARCHITECTURES[config.partition(":")[0]]
    if config.startswith("residual:"):
        width, blocks = map(int, config.split(":")[1:])
        return build(width=width, blocks=(blocks,) * 3)
    return build()


def case(config: str, batch: int, dtype: str) -> Case:
    """Standard normal images, uniform labels, initial controls; the same numbers for both sides."""
    net = network(config)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *net.input_shape), dtype=np.dtype(dtype).type)  # type: ignore[arg-type]
    y = rng.integers(0, net.output_shape[0], batch)
    return Case(net, initial_controls(net, 0, x), x, y)
