"""The stages of a network as fast maps, chosen once, and the sweep of one chunk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pmp_ref.kernels.activation import (
    ActivationMap,
    LeakyReLUMap,
    SigmoidMap,
    TanhMap,
    is_disjoint_maximum,
    is_plain_mean,
)
from pmp_ref.kernels.convolution import ConvolutionMap
from pmp_ref.kernels.dense import DenseMap, ScaleShiftMap
from pmp_ref.kernels.filtering import FilteredMap, pays
from pmp_ref.kernels.normalisation import StandardiseMap
from pmp_ref.kernels.pixels import PixelsMap
from pmp_ref.kernels.pooling import AveragePoolMap, GlobalAveragePoolMap, MaxPoolMap
from pmp_ref.kernels.residual import FlattenMap, WeightedSumMap
from pmp_ref.kernels.stagemap import ClearMap, Place, StageMap, fast_shape, to_clear, to_fast
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
    Pixels,
    ReLU,
    ScaleShift,
    Sigmoid,
    Stage,
    Standardise,
    Tanh,
    WeightedSum,
)
from pmp_ref.network import Network

# By exact type: a subclass may have maps of its own.
MAPS: dict[type[Stage], Callable[[Any, Place], StageMap]] = {
    Convolution: lambda s, place: (FilteredMap if pays(s, place.shape) else ConvolutionMap)(s, place),
    Dense: DenseMap,
    ScaleShift: ScaleShiftMap,
    Standardise: StandardiseMap,
    GlobalAveragePool: GlobalAveragePoolMap,
    Flatten: FlattenMap,
    Pixels: PixelsMap,
    WeightedSum: WeightedSumMap,
    AveragePool: lambda s, place: (AveragePoolMap if is_plain_mean(s) else ClearMap)(s, place),
    MaxPool: lambda s, place: (MaxPoolMap if is_disjoint_maximum(s) else ClearMap)(s, place),
    Tanh: TanhMap,
    Sigmoid: SigmoidMap,
    LeakyReLU: lambda s, place: (LeakyReLUMap if 0 <= s.leak < 1 else ActivationMap)(s, place),
    ReLU: LeakyReLUMap,
}


@dataclass(frozen=True)
class Plan:
    """One fast map for each stage of a network."""

    network: Network
    maps: tuple[StageMap, ...]

    def prepare(self, controls: Any) -> tuple[Any, ...]:
        """The controls as the maps want them."""
        return tuple(m.prepare(u) for m, u in zip(self.maps, controls, strict=True))

    def forward(self, w: Workspace, prepared: tuple[Any, ...], x: np.ndarray) -> list[np.ndarray]:
        """States [x_0, …, x_L] of the chunk x, given in the clear layout."""
        first = to_fast(x, w.array("x", fast_shape(self.network.input_shape)))
        return self.network.propagate(lambda l, entering: self.maps[l].forward(w, prepared[l], entering), first)

    def backward(self, w: Workspace, prepared: tuple[Any, ...], states: list[np.ndarray], p: np.ndarray) -> Any:
        """Switching functions from p_L = ``p``, given in the clear layout (T1); uses the states up."""
        network, last = self.network, len(self.maps)
        costates: list[Any] = [None] * last + [to_fast(p)]
        g: list[Any] = [()] * last
        for l in range(last - 1, -1, -1):
            if not network.controlled[l + 1]:
                continue
            x, y, p = network.entering(l, states), states[l + 1], costates[l + 1]
            costate = any(network.controlled[i] for i in network.reads[l])
            g[l], part = self.maps[l].backward(w, prepared[l], x, y, p, costate)
            costates[l + 1] = None
            if costate:
                network.hand_back(l, part, costates, partial(add, w))
        return tuple(g)

    def final_state(self, states: list[np.ndarray]) -> np.ndarray:
        """x_L in the clear layout."""
        return to_clear(states[-1])


def add(w: Workspace, i: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The sum of two parts of the costate of x_i, either of which may be a part of another one's too."""
    return np.add(a, b, out=w.array(("sum", i), a.shape[:-1]))


def plan(network: Network) -> Plan:
    """The fast maps of a network; stages that have none keep their clear maps."""
    maps: list[StageMap] = []
    for l, stage in enumerate(network.stages):
        place = Place(l, network.entering(l, network.shapes), before(network, l, maps), after(network, l))
        kind = MAPS.get(type(stage)) or (ActivationMap if acts_by_sigma(stage) else ClearMap)
        maps.append(kind(stage, place))
    return Plan(network, tuple(maps))


def before(network: Network, l: int, maps: list[StageMap]) -> StageMap | None:
    """The map that made the state entering stage l, if that is one, which nobody else reads, and not x_0."""
    i = network.reads[l][0]
    return maps[i - 1] if i > 0 and network.stages[l].arity == 1 and network.readers[i] == (l,) else None


def after(network: Network, l: int) -> Stage | None:
    """The stage that reads x_{l+1}, if it is the only one."""
    readers = network.readers[l + 1] if l + 1 < len(network.stages) else ()
    return network.stages[readers[0]] if len(readers) == 1 else None


def acts_by_sigma(stage: Stage) -> bool:
    """True for an activation whose maps are those of its class: entry by entry, by σ and σ′."""
    kind = type(stage)
    return isinstance(stage, Activation) and kind.forward is Activation.forward and kind.costate is Activation.costate
