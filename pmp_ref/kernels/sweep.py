"""The fast sweep: whole chunks through fast maps, chunks on several threads, sums along the tree of the chunks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pmp_ref.arrays import Array, Controls, item_size, library
from pmp_ref.controls import Layout, arrays_of, layout_of, plain_layout
from pmp_ref.errors import InputError
from pmp_ref.kernels.blas import one_thread
from pmp_ref.kernels.cuda import CudaSweep
from pmp_ref.kernels.gpu import GpuSweep, on_gpu
from pmp_ref.kernels.live import LiveParts, multiplications
from pmp_ref.kernels.plan import Plan, plan
from pmp_ref.kernels.terminal import terminal
from pmp_ref.kernels.workers import Threads, available_cores
from pmp_ref.kernels.workspace import Store, Workspace, keep_freed_memory
from pmp_ref.loss import Loss
from pmp_ref.network import Network, states_like
from pmp_ref.summation import ALONE, Alone
from pmp_ref.sweep import Evaluation, Sweep, quiet

LEAST = 40_000_000  # multiplications that a thread is woken for, at least; measured, see docs/kernels.md
GPU_CHUNK = 512  # samples; where several GPUs share a batch


@dataclass(frozen=True)
class Swept:
    """The states of a chunk, the workspace that holds them and the store to which it goes back."""

    states: list[np.ndarray]
    workspace: Workspace
    store: Store


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
                w = sweep.store.take(x.shape[0], states_like(self.controls, x).dtype)
                swept = Swept(sweep.plan.forward(w, self.prepared, x), w, sweep.store)
            else:
                w = sweep.store.equip(swept.workspace)
            final = sweep.plan.final_state(swept.states)
            losses, largest, p = terminal(sweep, final, y, self.samples, self.backward)
            g = sweep.plan.backward(w, self.prepared, swept.states, p) if self.backward else None
        sweep.store.give_room(w)
        return Found(losses, largest, g, swept)


@dataclass(frozen=True)
class Part:
    """Switching functions of one chunk, in the arrays of its sweep, or of several, in a ``vector`` of their own."""

    arrays: Controls
    found: Found | None = None
    vector: Array = None


class Parts:
    """Sums of :class:`Part`: the entries of a sum lie in one vector, in the order of the ``layout``.

    Fresh memory costs more than an addition: a sum is written into the vector of its first term where that has one, and
    what the second held is free for the next. ``give`` takes back what a chunk held.
    """

    def __init__(self, layout: Layout, dtype: Any, give: Callable[[Found], None]) -> None:
        self.layout, self.dtype, self.give = layout, dtype, give
        self.free: list[Part] = []

    def plus(self, a: Part, b: Part) -> Part:
        """a + b."""
        target = a if a.found is None else self.room()
        for x, y, z in zip(arrays_of(a.arrays), arrays_of(b.arrays), arrays_of(target.arrays), strict=True):
            np.add(x, y, out=z)
        for part in (a, b):
            if part is not target:
                self.release(part)
        return target

    def vector(self, part: Part, layout: Layout | None = None) -> np.ndarray:
        """The entries of a part in a vector of their own."""
        if part.found is None:
            return part.vector  # type: ignore[no-any-return]
        target = self.room()
        for x, z in zip(arrays_of(part.arrays), arrays_of(target.arrays), strict=True):
            np.copyto(z, x)
        self.release(part)
        return target.vector  # type: ignore[no-any-return]

    def room(self) -> Part:
        """A vector for a sum."""
        if self.free:
            return self.free.pop()
        vector = np.empty(self.layout.size, self.dtype)
        return Part(self.layout.views(vector), vector=vector)

    def release(self, part: Part) -> None:
        """Take back what the part held."""
        if part.found is None:
            self.free.append(part)
        else:
            self.give(part.found)


class Kept:
    """The states of a forward sweep, chunk by chunk, until a backward sweep uses them up or nobody holds them."""

    def __init__(self, chunks: list[Swept]) -> None:
        self._lock = threading.Lock()
        self._chunks: list[Swept] | None = chunks

    def take(self) -> list[Swept] | None:
        """The states, once; None after that."""
        with self._lock:
            chunks, self._chunks = self._chunks, None
        return chunks

    def __del__(self) -> None:
        for chunk in self._chunks or ():
            chunk.store.give(chunk.workspace)

    def __reduce__(self) -> Any:
        return type(None), ()  # a copy of an evaluation holds no states: they are computed once more


@dataclass(frozen=True)
class FastSweep(Sweep):
    """Forward and backward sweeps in NumPy, batch innermost; the same values as :class:`pmp_ref.sweep.Sweep`.

    ``chunk`` samples are swept at a time (0: by :func:`chunk_size`, from batch and dtype alone), on ``threads`` threads
    (0: as many as there are cores and work is worth, see ``LEAST``). The results do not depend on their number.

    States are kept for the backward sweep if they fit ``memory`` bytes. Otherwise, with ``costates``, the forward sweep
    of a trial takes costates along while its states are in cache; without, states are computed once more if asked for.
    The former is cheaper if more than about two trials in three are accepted, as with the default rule for ε. Either is
    counted as the sweeps it is (docs/performance.md).

    ``live``: units without weights, in and out, are left out of a sweep (T22); they change nothing but the time.

    Arrays other than NumPy's float32 and float64 take the clear path.
    """

    chunk: int = 0
    threads: int = 0
    costates: bool = True
    live: bool = True
    plan: Plan = field(init=False, repr=False, compare=False)
    store: Store = field(init=False, repr=False, compare=False)
    flat: Layout = field(init=False, repr=False, compare=False)  # of controls that have none
    parts: LiveParts = field(init=False, repr=False, compare=False)
    work: int = field(init=False, repr=False, compare=False)  # multiplications of a forward sweep of one sample

    def __post_init__(self) -> None:
        if self.chunk < 0 or self.threads < 0:
            raise InputError(f"chunk {self.chunk}, threads {self.threads}; expected numbers ≥ 0 (0: chosen here)")
        object.__setattr__(self, "plan", plan(self.network))
        object.__setattr__(self, "store", Store())
        object.__setattr__(self, "flat", plain_layout(self.network.control_shapes))
        object.__setattr__(self, "parts", LiveParts(self.network))
        object.__setattr__(self, "work", multiplications(self.network))
        keep_freed_memory()

    def forward(self, controls: Controls, x: Array, y: Array) -> Evaluation:
        """Per-sample losses of the batch: one forward sweep, and one backward if costates are taken along."""
        if not applies(self.network, controls, x, y):
            return super().forward(controls, x, y)
        keep = self.keeps(controls, x)
        backward = self.costates and not keep
        losses, largest, g, swept = self._sweep(controls, x, y, None, backward, keep)
        return Evaluation(x, y, losses, largest, Kept(swept) if keep else None, g, backward_sweeps=int(backward))

    def trial(self, controls: Controls, x: Array, y: Array) -> Evaluation:
        """Per-sample losses of the batch: one forward sweep, of which nothing is kept."""
        if not applies(self.network, controls, x, y):
            return super().trial(controls, x, y)
        losses, largest, _, _ = self._sweep(controls, x, y, None, False, False)
        return Evaluation(x, y, losses, largest)

    def backward(self, controls: Controls, e: Evaluation) -> Evaluation:
        """The evaluation completed by g = −∇L_B; nothing is left to do if the forward sweep took costates along."""
        if e.switching is not None:
            return e
        if not applies(self.network, controls, e.x, e.y) or not (e.states is None or isinstance(e.states, Kept)):
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
        if not applies(self.network, controls, x, y):
            return super().forward_backward(controls, x, y)
        losses, largest, g, _ = self._sweep(controls, x, y, None, True, False)
        return Evaluation(x, y, losses, largest, None, g, backward_sweeps=1)

    def chunk_size(self, x: Array) -> int:
        """Samples of a chunk of the batch x: by batch and dtype alone, where bytes count as float32."""
        return self.chunk or chunk_size(x.shape[0], item_size(x, 4))

    def _sweep(
        self, controls: Controls, x: np.ndarray, y: np.ndarray, swept: list[Swept] | None, backward: bool, keep: bool
    ) -> tuple[np.ndarray, np.ndarray, Any, list[Swept]]:
        """The sweep, of the live part of the network where that is less work (T22)."""
        part = self.parts.at(controls, self.of) if self.live else None
        if part is None:
            return self._whole(controls, x, y, swept, backward, keep)
        losses, largest, g, states = part.sweep._whole(part.controls, x, y, swept, backward, keep)
        if backward:
            g = part.whole(g, self.network.control_shapes, layout_of(controls) or self.flat)
        return losses, largest, g, states

    def paying(self, samples: int, backward: bool) -> int:
        """How many threads have enough to do to be worth waking; a sweep both ways multiplies three times as much."""
        return min(available_cores(), max(1, self.work * samples * (3 if backward else 1) // LEAST))

    def of(self, smaller: Network) -> FastSweep:
        """The sweep of a smaller network, all of it."""
        return replace(self, network=smaller, live=False)

    def _whole(
        self, controls: Controls, x: np.ndarray, y: np.ndarray, swept: list[Swept] | None, backward: bool, keep: bool
    ) -> tuple[np.ndarray, np.ndarray, Any, list[Swept]]:
        """One map over this process' chunks; losses in a row, switching functions summed along the tree."""
        f = ChunkSweep(self, controls, self.plan.prepare(controls), x.shape[0], backward)
        cuts = list(self.own_chunks(x))
        items = [(x[cut], y[cut], swept[i] if swept else None) for i, cut in enumerate(cuts)]
        threads = Threads(self.threads or self.paying(x.shape[0], backward))
        like = next(arrays_of(controls))
        losses, largest, states = [np.zeros(0, like.dtype)], [np.zeros(0, like.dtype)], []  # perhaps no chunk is ours

        def give(found: Found) -> None:
            self.store.give(found.swept.workspace, states=not keep)

        layout = layout_of(controls) or self.flat
        parts = Parts(layout.whole, like.dtype, give)
        tree = self.tree(x, parts.plus)
        with one_thread():
            for found in threads(f, items):
                losses.append(found.losses)
                largest.append(found.largest)
                if keep:
                    states.append(found.swept)
                if backward:
                    tree.push(Part(found.switching, found))
                else:
                    give(found)
            g = self.ranks.switching(tree, layout, like, parts.vector) if backward else None
        return np.concatenate(losses), np.concatenate(largest), g, states


def applies(network: Network, controls: Controls, x: Any, y: Any) -> bool:
    """True for NumPy arrays of one dtype, float32 or float64; x may be bytes where the network takes them."""
    arrays = list(arrays_of(controls))
    images = network.takes_bytes and type(x) is np.ndarray and x.dtype == np.uint8
    if not all(type(a) is np.ndarray for a in (x, y, *arrays)):
        return False
    dtypes = {a.dtype for a in (arrays if images else [x, *arrays])}
    return len(dtypes) == 1 and dtypes <= {np.dtype(np.float32), np.dtype(np.float64)}


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
    ranks: Alone = ALONE,
) -> Sweep:
    """A fast sweep where it applies to arrays like ``example``, else the clear one.

    ``fast`` None: fast if ``example`` is None or a NumPy array of float32, float64 or bytes; True: in any case (other
    arrays still take the clear path inside it); False: the clear one. CuPy arrays get a
    :class:`pmp_ref.kernels.cuda.CudaSweep`, other arrays on a GPU a :class:`pmp_ref.kernels.gpu.GpuSweep`, unless
    ``fast`` is False. ``ranks`` are the processes that share a batch; on GPUs the batch is then cut into chunks of
    ``GPU_CHUNK`` samples, so that all have work, and nothing is recorded. Other arguments as in :class:`FastSweep`.
    """
    sizes: dict[str, Any] = {k: v for k, v in (("chunk", chunk), ("memory", memory)) if v is not None}
    if example is not None and type(example) is not np.ndarray:
        ranks = ranks.replicated()
    if example is not None and on_gpu(example) and fast is not False:
        if ranks == ALONE:
            return (CudaSweep if library(example).startswith("cupy.") else GpuSweep)(network, loss, **sizes)
        sizes = {"chunk": GPU_CHUNK, **sizes}
        if library(example).startswith("cupy."):
            return CudaSweep(network, loss, **sizes, graphs=False, ranks=ranks)
        return GpuSweep(network, loss, **sizes, ranks=ranks)
    if fast is None:
        fast = example is None or (type(example) is np.ndarray and example.dtype in (np.float32, np.float64, np.uint8))
    if not fast:
        return Sweep(network, loss, **sizes, ranks=ranks)
    return FastSweep(network, loss, **sizes, threads=threads or 0, costates=costates, ranks=ranks)
