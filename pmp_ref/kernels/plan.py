"""The stages of a network as fast maps, chosen once, and the sweep of one chunk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pmp_ref.kernels.activation import ActivationMap, LeakyReLUMap, OutputMap, SigmoidMap, TanhMap
from pmp_ref.kernels.convolution import ConvolutionMap
from pmp_ref.kernels.dense import DenseMap, ScaleShiftMap
from pmp_ref.kernels.normalisation import StandardiseMap
from pmp_ref.kernels.pooling import AveragePoolMap, GlobalAveragePoolMap, MaxPoolMap, disjoint
from pmp_ref.kernels.residual import FlattenMap, MergeMap, OnBranchMap, SplitMap, plain
from pmp_ref.kernels.stagemap import ClearMap, StageMap, fast_shape, is_pair, to_clear, to_fast
from pmp_ref.kernels.workspace import Workspace
from pmp_ref.layers import (
    Activation,
    AveragePool,
    Convolution,
    Dense,
    Flatten,
    GlobalAveragePool,
    LeakyReLU,
    MaxPool,
    Merge,
    OnBranch,
    ReLU,
    ScaleShift,
    Sigmoid,
    Split,
    Stage,
    Standardise,
    Tanh,
)
from pmp_ref.network import Network

# By exact type: a subclass may have maps of its own.
BUILDERS: dict[type[Stage], Callable[[Any, Any, int], StageMap]] = {
    Convolution: ConvolutionMap,
    Dense: DenseMap,
    ScaleShift: ScaleShiftMap,
    Standardise: StandardiseMap,
    GlobalAveragePool: GlobalAveragePoolMap,
    Flatten: FlattenMap,
    AveragePool: AveragePoolMap,
    MaxPool: lambda s, shape, key: (MaxPoolMap if disjoint(s) else ClearMap)(s, shape, key),
    Split: lambda s, shape, key: (ClearMap if is_pair(shape) else SplitMap)(s, shape, key),
    Merge: lambda s, shape, key: (MergeMap if plain(shape) else ClearMap)(s, shape, key),
}
OUTPUT_MAPS: dict[type[Stage], Any] = {Tanh: TanhMap, Sigmoid: SigmoidMap, LeakyReLU: LeakyReLUMap, ReLU: LeakyReLUMap}


@dataclass(frozen=True)
class Plan:
    """One fast map for each stage of a network."""

    network: Network
    maps: tuple[StageMap, ...]

    def prepare(self, controls: Any) -> tuple[Any, ...]:
        """The controls as the maps want them."""
        return tuple(m.prepare(u) for m, u in zip(self.maps, controls, strict=True))

    def forward(self, w: Workspace, prepared: tuple[Any, ...], x: np.ndarray) -> list[Any]:
        """States [x_0, …, x_L] of the chunk x, given in the clear layout."""
        shape = self.network.input_shape
        states: list[Any] = [to_fast(x, shape, w.array("x", fast_shape(shape)))]
        for m, u in zip(self.maps, prepared, strict=True):
            states.append(m.forward(w, u, states[-1]))
        return states

    def backward(self, w: Workspace, prepared: tuple[Any, ...], states: list[Any], p: np.ndarray) -> Any:
        """Switching functions from p_L = ``p``, given in the clear layout (T1); uses the states up."""
        p = to_fast(p, self.network.output_shape)
        g: list[Any] = [()] * len(self.maps)
        first = next((l for l, shapes in enumerate(self.network.control_shapes) if shapes), len(self.maps))
        for l in range(len(self.maps) - 1, first - 1, -1):
            g[l], p = self.maps[l].backward(w, prepared[l], states[l], states[l + 1], p, l > first)
        return tuple(g)

    def final_state(self, states: list[Any]) -> np.ndarray:
        """x_L in the clear layout."""
        return to_clear(states[-1], self.network.output_shape)


def plan(network: Network) -> Plan:
    """The fast maps of a network; stages that have none keep their clear maps."""
    maps: list[StageMap] = []
    free: Any = False  # may the next stage overwrite the state entering? One answer for each component of a pair
    for l, stage in enumerate(network.stages):
        shape = network.shapes[l]
        if type(stage) is OnBranch and not is_pair(shape[stage.branch]):
            inner = build(stage.stage, shape[stage.branch], l, component(free, stage.branch))
            maps.append(OnBranchMap(stage, shape, l, inner))
            parts = [component(free, 0), component(free, 1)]
            parts[stage.branch] = inner.free
            free = tuple(parts)
        else:
            maps.append(build(stage, shape, l, free is True))
            free = maps[-1].free
    for l in range(1, len(maps)):
        fuse(maps[l - 1], maps[l])
    return Plan(network, tuple(maps))


def fuse(first: StageMap, second: StageMap) -> None:
    """Let a pooling stage take over the slope of the activation before it; before maxima also ReLU itself."""
    if isinstance(first, OnBranchMap) and isinstance(second, OnBranchMap) and first.branch == second.branch:
        fuse(first.inner, second.inner)
    if isinstance(first, OutputMap) and isinstance(second, AveragePoolMap | MaxPoolMap):
        second.before, first.fused = first, True
        first.deferred = isinstance(second, MaxPoolMap) and type(first.stage) is ReLU and first.stage.leak == 0


def component(free: Any, branch: int) -> bool:
    """The answer for one component of a pair."""
    return free[branch] is True if isinstance(free, tuple) else False


def build(stage: Stage, shape: Any, key: int, overwrite: bool) -> StageMap:
    """The fast map of one stage, or its clear maps."""
    kind = type(stage)
    if kind in BUILDERS:
        return BUILDERS[kind](stage, shape, key)
    if kind in OUTPUT_MAPS and (not isinstance(stage, LeakyReLU) or 0 <= stage.leak < 1) and not is_pair(shape):
        return OUTPUT_MAPS[kind](stage, shape, key, overwrite)
    own = (
        kind.forward is Activation.forward and kind.costate is Activation.costate
        if isinstance(stage, Activation)
        else False
    )
    return (ActivationMap if own and not is_pair(shape) else ClearMap)(stage, shape, key)
