"""Sweeps of CuPy arrays through the stages of this package."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

from pmp_ref.arrays import Array, Controls, item_size, joined, library, sums, zeros
from pmp_ref.controls import Layout, arrays_of
from pmp_ref.errors import InputError
from pmp_ref.kernels.cuda.convolution import CudaConvolution, CudaDense
from pmp_ref.kernels.cuda.normalisation import CudaStandardise
from pmp_ref.kernels.cuda.pixels import CudaPixels
from pmp_ref.kernels.cuda.pooling import CudaAveragePool, CudaGlobalAveragePool, CudaMaxPool
from pmp_ref.kernels.cuda.products import KERNEL, Affine, compile_ahead
from pmp_ref.kernels.cuda.residual import CudaWeightedSum
from pmp_ref.kernels.cuda.scaling import CudaScaleShift
from pmp_ref.kernels.cuda.source import ENTRIES, applies
from pmp_ref.kernels.cuda.terminal import terminal, terminal_applies
from pmp_ref.kernels.gpu import BlockAveragePool, BlockMaxPool, GpuSweep, StridedConvolution
from pmp_ref.kernels.replay import Replays
from pmp_ref.layers import (
    AveragePool,
    Convolution,
    Dense,
    GlobalAveragePool,
    MaxPool,
    Pixels,
    ScaleShift,
    Stage,
    Standardise,
    WeightedSum,
)
from pmp_ref.loss import Loss
from pmp_ref.network import Network, states_like
from pmp_ref.summation import Alone
from pmp_ref.sweep import Evaluation, Sweep, largest_entry, quiet

KINDS: dict[type, Any] = {
    Convolution: CudaConvolution,
    StridedConvolution: CudaConvolution,
    Dense: CudaDense,
    ScaleShift: CudaScaleShift,
    Standardise: CudaStandardise,
    AveragePool: CudaAveragePool,
    BlockAveragePool: CudaAveragePool,
    MaxPool: CudaMaxPool,
    BlockMaxPool: CudaMaxPool,
    GlobalAveragePool: CudaGlobalAveragePool,
    Pixels: CudaPixels,
    WeightedSum: CudaWeightedSum,
}


class Swept(NamedTuple):
    """The states x_0 … x_L of a chunk, and what :meth:`CudaSweep.terminal` makes of the last."""

    states: list[Any]
    losses: Array
    largest: Array
    p: Array


@dataclass(frozen=True)
class CudaSweep(GpuSweep):
    """:class:`pmp_ref.sweep.Sweep` with kernels of its own, for CuPy arrays of float32 or float64.

    Other arrays take the superclass' path. A sweep only makes arrays and launches kernels: it can be recorded in a
    CUDA graph. ``chunk`` and ``memory`` as in :class:`pmp_ref.kernels.gpu.GpuSweep`; there are no patches to count,
    but partial sums. The same control and batch give the same bits on any device of one kind.

    With ``graphs`` the method's work between two decisions is recorded once and repeated (``kernels.replay``). The
    forward sweep of a full-batch trial then takes costates along, for states in a record's memory do not last.
    """

    graphs: bool = True
    replays: Replays = field(init=False, repr=False, compare=False, default_factory=Replays)
    compiled: set[Any] = field(init=False, repr=False, compare=False, default_factory=set)

    def __post_init__(self) -> None:
        if self.chunk < 0:
            raise InputError(f"chunk is {self.chunk}; expected a number of samples, or 0: as many as fit into memory")
        object.__setattr__(self, "network", cuda_network(self.network))

    def belongs(self, network: Network, loss: Loss) -> bool:
        """Whether this is a sweep of that network and loss."""
        return Sweep.belongs(self, cuda_network(network), loss)

    def forward(self, controls: Controls, x: Array, y: Array) -> Evaluation:
        """Per-sample losses of the batch; one forward sweep."""
        if not self.takes(controls, x):
            return super().forward(controls, x, y)
        if self.graphs:
            return self.forward_backward(controls, x, y)
        return self._launched(controls, x, y, self.keeps(controls, x))

    def trial(self, controls: Controls, x: Array, y: Array) -> Evaluation:
        """Per-sample losses of a batch on which no backward sweep will follow; one forward sweep."""
        if not self.takes(controls, x):
            return super().trial(controls, x, y)
        return self._launched(controls, x, y, False)

    def run(self, f: Callable[..., Any], *arguments: Any) -> Any:
        """f(*arguments), from a record where there is one."""
        return self.replays(f, *arguments) if self.graphs else f(*arguments)

    def _launched(self, controls: Controls, x: Array, y: Array, keep: bool) -> Evaluation:
        losses, largest, swept = [], [], []
        with quiet():
            for found in self.swept(controls, x, y, keep):
                losses.append(found.losses)
                largest.append(found.largest)
                swept.append(found if keep else None)
        return Evaluation(x, y, in_a_row(losses, x), in_a_row(largest, x), swept if keep else None)

    def backward(self, controls: Controls, e: Evaluation) -> Evaluation:
        """The evaluation completed by g = −∇L_B (T1); one backward sweep, from the kept p_L where there is one."""
        if e.switching is not None:
            return e
        mine = e.states is None or all(isinstance(s, Swept) for s in e.states)
        if not (mine and self.takes(controls, e.x)):
            return super().backward(controls, e)
        tree = self.tree(e.x)
        with quiet():
            for found in self.swept(controls, e.x, e.y) if e.states is None else e.states:
                tree.push(self.switching(controls, found))
        return replace(
            e,
            states=None,
            switching=self.shared(tree, controls),
            forward_sweeps=e.forward_sweeps + (e.states is None),
            backward_sweeps=e.backward_sweeps + 1,
        )

    def forward_backward(self, controls: Controls, x: Array, y: Array) -> Evaluation:
        """Losses and switching functions of the batch; one sweep each way, each chunk there and back at once."""
        if not self.takes(controls, x):
            return super().forward_backward(controls, x, y)
        losses, largest, tree = [], [], self.tree(x)
        with quiet():
            for found in self.swept(controls, x, y):
                losses.append(found.losses)
                largest.append(found.largest)
                tree.push(self.switching(controls, found))
        return Evaluation(
            x, y, in_a_row(losses, x), in_a_row(largest, x), None, self.shared(tree, controls), backward_sweeps=1
        )

    def swept(self, controls: Controls, x: Array, y: Array, keep: bool = True) -> Iterator[Swept]:
        """The forward sweep, chunk by chunk; without ``keep`` its states but the last are gone."""
        self.compile_ahead(x, str(states_like(controls, x).dtype))
        for cut in self.own_chunks(x):
            states = self.network.forward_sweep(controls, x[cut, ...], keep)
            yield Swept(states, *self.terminal(states[-1], y[cut, ...], x.shape[0]))

    def switching(self, controls: Controls, found: Swept) -> Controls:
        """The switching functions of a chunk."""
        return self.network.backward_sweep(controls, found.states, found.p)[1]

    def sums(
        self,
        x: Array,
        values: Sequence[Array],
        groups: Iterable[Iterable[Array]] | None = None,
        layout: Layout | None = None,
    ) -> Array:
        """See :meth:`pmp_ref.sweep.Sweep.sums`; for one process and one chunk by two kernels in all."""
        if type(self.ranks) is Alone and len(self.own(x)) == 1 and type(x).__module__ == "cupy":
            return sums([*([v] for v in values), *(groups or ())])
        return super().sums(x, values, groups, layout)

    def takes(self, controls: Controls, x: Array) -> bool:
        """Whether these are arrays for the kernels of this package; x may be bytes where the network takes them."""
        if self.network.takes_bytes and library(x).startswith("cupy.") and str(x.dtype) == "uint8" and x.size:
            return applies(*arrays_of(controls))
        return applies(x, *arrays_of(controls))

    def compile_ahead(self, x: Array, dtype: str) -> None:
        """Compile the products for batches like x before the first of them is swept."""
        batches = frozenset(cut.stop - cut.start for cut in self.chunks(x))
        if (batches, dtype) not in self.compiled:
            compile_ahead(affine_stages(self.network), batches, dtype)
            self.compiled.add((batches, dtype))

    def terminal(self, x: Array, y: Array, samples: int) -> tuple[Array, Array, Array]:
        """Φ_s, ‖x_L^s‖_∞ and p_L of final states x; in one launch for cross-entropy."""
        if terminal_applies(self.loss, x, y):
            return terminal(x, y, samples)
        return self.loss.values(x, y), largest_entry(x), self.terminal_costate(x, y, samples)

    def largest_chunk(self, x: Array) -> int:
        """Samples swept at a time: the whole batch if its states and partial sums fit into ``memory`` bytes, else as
        many samples as do, at least one; and no more than the kernels can count."""
        itemsize = item_size(x, 8)
        most = min(x.shape[0], max(1, ENTRIES // max(map(math.prod, self.network.shapes))))
        affine = [a for a, _ in affine_stages(self.network)]
        sums = itemsize * max((a.workspace(KERNEL, most, itemsize) for a in affine), default=0)
        return min(most, max(1, (self.memory - sums) // (itemsize * self.entries_per_sample)))


def in_a_row(parts: list[Array], x: Array) -> Array:
    """Numbers of the samples, chunk after chunk; none where this process has no chunk."""
    return joined(parts) if parts else zeros((0,), x)


def cuda_network(network: Network) -> Network:
    """The same network with the stages of this package."""
    return replace(network, stages=tuple(map(cuda, network.stages)))


def cuda(stage: Stage) -> Stage:
    """The stage with kernels of its own; the stage itself where there are none (by exact type), and padded pooling."""
    if isinstance(stage, AveragePool | MaxPool) and any(stage.windows.padding):
        return stage
    kind = KINDS.get(type(stage))
    return stage if kind is None else kind(**{f.name: getattr(stage, f.name) for f in fields(stage)})  # type: ignore[arg-type]


def affine_stages(network: Network) -> list[tuple[Affine, bool]]:
    """The convolutions and dense stages, each with whether a costate leaves it."""
    return [
        (Affine(stage, network.shapes[i]), network.controlled[i])
        for stage, (i, *_) in zip(network.stages, network.reads, strict=True)
        if isinstance(stage, Convolution | Dense)
    ]
