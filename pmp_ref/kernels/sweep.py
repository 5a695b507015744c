"""The fast sweep: whole chunks through fast maps, chunks on several threads, sums in the order of the chunks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pmp_ref.arrays import Array, Controls, library, namespace
from pmp_ref.controls import arrays_of, map_controls
from pmp_ref.errors import InputError
from pmp_ref.kernels.blas import one_thread
from pmp_ref.kernels.cuda import CudaSweep
from pmp_ref.kernels.gpu import GpuSweep, on_gpu
from pmp_ref.kernels.plan import Plan, plan
from pmp_ref.kernels.terminal import terminal
from pmp_ref.kernels.workers import Threads, available_cores
from pmp_ref.kernels.workspace import Store, Workspace
from pmp_ref.loss import Loss
from pmp_ref.network import Network
from pmp_ref.sweep import Evaluation, Sweep, quiet


@dataclass(frozen=True)
class Swept:
    """The states of a chunk and the workspace that holds them."""

    states: list[np.ndarray]
    workspace: Workspace


@dataclass(frozen=True)
class Found:
    """What the sweep of one chunk found: Φ_s, ‖x_L^s‖_∞, the chunk's part of g (in its workspace, partly), states."""

    losses: np.ndarray
    largest: np.ndarray
    switching: Any
    swept: Swept


@dataclass(frozen=True)
class ChunkSweep:
    """The sweep of one chunk: a function of (x, y, kept states or None) that remembers nothing."""

    sweep: FastSweep
    controls: Controls
    prepared: tuple[Any, ...]
    samples: int
    backward: bool

    def __call__(self, item: tuple[np.ndarray, np.ndarray, Swept | None]) -> Found:
        x, y, swept = item
        sweep = self.sweep
        with quiet():
            if swept is None:
                w = sweep.store.take(x.shape[0], x.dtype)
                swept = Swept(sweep.plan.forward(w, self.prepared, x), w)
            else:
                w = sweep.store.equip(swept.workspace)
            final = sweep.plan.final_state(swept.states)
            losses, largest, p = terminal(sweep, final, y, self.samples, self.backward)
            g = sweep.plan.backward(w, self.prepared, swept.states, p) if self.backward else None
        sweep.store.give_room(w)
        return Found(losses, largest, g, swept)


class Kept:
    """The states of a forward sweep, chunk by chunk, until a backward sweep uses them up or nobody holds them."""

    def __init__(self, store: Store, chunks: list[Swept]) -> None:
        self._store, self._chunks, self._lock = store, chunks, threading.Lock()

    def take(self) -> list[Swept] | None:
        """The states, once; None after that."""
        with self._lock:
            chunks, self._chunks = self._chunks, []
        return chunks or None

    def __del__(self) -> None:
        for chunk in self._chunks:
            self._store.give(chunk.workspace)

    def __reduce__(self) -> Any:
        return type(None), ()  # a copy of an evaluation holds no states: they are computed once more


@dataclass(frozen=True)
class FastSweep(Sweep):
    """Forward and backward sweeps in NumPy, batch innermost; the same values as :class:`pmp_ref.sweep.Sweep`.

    ``chunk`` samples are swept at a time (0: by :func:`chunk_size`, from batch and dtype alone), on ``threads`` threads
    (0: as many as cores). The results do not depend on the number of threads.

    States are kept for the backward sweep if they fit ``memory`` bytes. Otherwise, with ``costates``, the forward sweep
    of a trial takes costates along while its states are in cache; without, states are computed once more if asked for.
    The former is cheaper if more than about two trials in three are accepted, as with the default rule for ε. Either is
    counted as the sweeps it is (docs/performance.md).

    Arrays other than NumPy's float32 and float64 take the clear path.
    """

    chunk: int = 0
    threads: int = 0
    costates: bool = True
    plan: Plan = field(init=False, repr=False, compare=False)
    store: Store = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.chunk < 0 or self.threads < 0:
            raise InputError(f"chunk {self.chunk}, threads {self.threads}; expected numbers ≥ 0 (0: chosen here)")
        object.__setattr__(self, "plan", plan(self.network))
        object.__setattr__(self, "store", Store())

    def forward(self, controls: Controls, x: Array, y: Array) -> Evaluation:
        """Per-sample losses of the batch: one forward sweep, and one backward if costates are taken along."""
        if not applies(controls, x, y):
            return super().forward(controls, x, y)
        keep = x.shape[0] * self.bytes_per_sample(x) <= self.memory
        backward = self.costates and not keep
        losses, largest, g, swept = self._sweep(controls, x, y, None, backward, keep)
        return Evaluation(
            x, y, losses, largest, Kept(self.store, swept) if keep else None, g, backward_sweeps=int(backward)
        )

    def trial(self, controls: Controls, x: Array, y: Array) -> Evaluation:
        """Per-sample losses of the batch: one forward sweep, of which nothing is kept."""
        if not applies(controls, x, y):
            return super().trial(controls, x, y)
        losses, largest, _, _ = self._sweep(controls, x, y, None, False, False)
        return Evaluation(x, y, losses, largest)

    def backward(self, controls: Controls, e: Evaluation) -> Evaluation:
        """The evaluation completed by g = −∇L_B; nothing is left to do if the forward sweep took costates along."""
        if e.switching is not None:
            return e
        if not applies(controls, e.x, e.y) or not (e.states is None or isinstance(e.states, Kept)):
            return super().backward(controls, e)
        swept = None if e.states is None else e.states.take()
        _, _, g, _ = self._sweep(controls, e.x, e.y, swept, True, False)
        return replace(
            e,
            states=None,
            switching=g,
            forward_sweeps=e.forward_sweeps + (swept is None),
            backward_sweeps=e.backward_sweeps + 1,
        )

    def forward_backward(self, controls: Controls, x: Array, y: Array) -> Evaluation:
        """Losses and switching functions of the batch; each chunk there and back while it is in cache."""
        if not applies(controls, x, y):
            return super().forward_backward(controls, x, y)
        losses, largest, g, _ = self._sweep(controls, x, y, None, True, False)
        return Evaluation(x, y, losses, largest, None, g, backward_sweeps=1)

    def chunks(self, x: Array) -> Iterator[slice]:
        """Slices of the batch, in order."""
        chunk = self.chunk or chunk_size(x.shape[0], namespace(x).finfo(x.dtype).bits // 8)
        for start in range(0, x.shape[0], chunk):
            yield slice(start, min(start + chunk, x.shape[0]))

    def _sweep(
        self, controls: Controls, x: np.ndarray, y: np.ndarray, swept: list[Swept] | None, backward: bool, keep: bool
    ) -> tuple[np.ndarray, np.ndarray, Any, list[Swept]]:
        """One map over the chunks; losses in a row, switching functions summed in the order of the chunks."""
        f = ChunkSweep(self, controls, self.plan.prepare(controls), x.shape[0], backward)
        cuts = list(self.chunks(x))
        items = [(x[cut], y[cut], swept[i] if swept else None) for i, cut in enumerate(cuts)]
        threads = Threads(self.threads or available_cores())
        losses, largest, states, total = [], [], [], None
        with one_thread():
            for found in threads(f, items):
                losses.append(found.losses)
                largest.append(found.largest)
                if backward:
                    total = accumulate(total, found.switching)
                if keep:
                    states.append(found.swept)
                self.store.give(found.swept.workspace, states=not keep)
        return np.concatenate(losses), np.concatenate(largest), total, states


def accumulate(total: Any, g: Any) -> Any:
    """total + g, in the arrays of ``total``; a copy of g where there is no total yet."""
    if total is None:
        return map_controls(np.copy, g)
    for a, b in zip(arrays_of(total), arrays_of(g), strict=True):
        np.add(a, b, out=a)
    return total


def applies(controls: Controls, x: Any, y: Any) -> bool:
    """True for NumPy arrays of one dtype, float32 or float64."""
    arrays = [x, *arrays_of(controls)]
    return type(y) is np.ndarray and all(
        type(a) is np.ndarray and a.dtype == x.dtype and a.dtype in (np.float32, np.float64) for a in arrays
    )


def chunk_size(batch: int, itemsize: int) -> int:
    """Samples per chunk, from batch and bytes per number alone, never from the number of threads.

    Large batches: what measurements found best. Small ones are cut in at least two, so that two cores have work.
    """
    largest = 64 if itemsize == 4 else 32
    return max(16, min(largest, -(-batch // 2)))


def make_sweep(
    network: Network,
    loss: Loss,
    fast: bool | None = None,
    *,
    threads: int | None = None,
    example: Any = None,
    chunk: int | None = None,
    memory: int | None = None,
    costates: bool = True,
) -> Sweep:
    """A fast sweep where it applies to arrays like ``example``, else the clear one.

    ``fast`` None: fast if ``example`` is None or a NumPy array of float32 or float64; True: in any case (other arrays
    still take the clear path inside it); False: the clear one. CuPy arrays get a
    :class:`pmp_ref.kernels.cuda.CudaSweep`, other arrays on a GPU a :class:`pmp_ref.kernels.gpu.GpuSweep`, unless
    ``fast`` is False. Other arguments as in :class:`FastSweep`.
    """
    if example is not None and on_gpu(example) and fast is not False:
        kind = CudaSweep if library(example).startswith("cupy.") else GpuSweep
        return kind(network, loss, **{k: v for k, v in (("chunk", chunk), ("memory", memory)) if v is not None})
    if fast is None:
        fast = example is None or (type(example) is np.ndarray and example.dtype in (np.float32, np.float64))
    sizes: dict[str, Any] = {k: v for k, v in (("chunk", chunk), ("memory", memory)) if v is not None}
    if not fast:
        return Sweep(network, loss, **sizes)
    return FastSweep(network, loss, **sizes, threads=threads or 0, costates=costates)
