"""The one seam between method and network: sweeps over a batch, chunk by chunk.

The method asks two things of a network, losses and switching functions, and need not know who computes them: the clear
path in this file, the fast kernels (``pmp_ref.kernels``) or a class of one's own. What a sweep found is an
:class:`Evaluation`.

A batch is swept chunk by chunk, because the way back needs the states of the way there. Of all images at once they may
fill the memory; those of a chunk stay in the cache. ``Sweep.forward`` gives the losses sample by sample,
``Sweep.backward`` the switching functions, summed over the chunks along a fixed tree, so that their bits do not depend
on how many threads or processes share the work (T21). States are kept only if all of them fit the memory budget;
otherwise they are computed once more, and that sweep is counted too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from pmp_ref.arrays import Array, Controls, device, item_size, namespace, sum64, sums, zeros
from pmp_ref.controls import Layout, add, arrays_of, layout_of, plain_layout
from pmp_ref.errors import InputError
from pmp_ref.loss import Loss
from pmp_ref.network import Network, states_like
from pmp_ref.summation import ALONE, Alone, Tree


@dataclass(frozen=True, repr=False)
class Evaluation:
    """What the sweeps over one batch found at one control.

    ``losses`` Φ_s (B,); ``largest`` ‖x_L^s‖_∞ (B,), for the rounding estimate ν; ``switching`` g = −∇L_B, or None
    before the backward sweep; ``states`` per chunk, or None where they were not kept; and the sweeps made. Where
    several processes share a batch, losses, ‖x_L^s‖_∞ and states are those of this process' samples.
    """

    x: Array
    y: Array
    losses: Array
    largest: Array
    states: Any = None
    switching: Controls | None = None
    forward_sweeps: int = 1
    backward_sweeps: int = 0

    def __repr__(self) -> str:
        known = "losses" if self.switching is None else "losses and switching functions"
        return f"<Evaluation: {known} of {self.losses.shape[0]} samples>"


class Sweeper(Protocol):
    """What the method asks of a sweep: :class:`Sweep` does it, and so may a class of one's own."""

    def belongs(self, network: Network, loss: Loss) -> bool:
        """Whether this is a sweep of that network and loss."""

    def forward(self, controls: Controls, x: Array, y: Array) -> Evaluation:
        """Per-sample losses of the batch."""

    def trial(self, controls: Controls, x: Array, y: Array) -> Evaluation:
        """Per-sample losses of a batch on which no backward sweep will follow, so that no states need be kept."""

    def backward(self, controls: Controls, e: Evaluation) -> Evaluation:
        """The evaluation completed by g = −∇L_B."""

    def forward_backward(self, controls: Controls, x: Array, y: Array) -> Evaluation:
        """Losses and switching functions of the batch."""

    def run(self, f: Callable[..., Any], *arguments: Any) -> Any:
        """f(*arguments), which may be recorded and repeated."""

    @property
    def ranks(self) -> Alone:
        """The processes that share a batch; ``ALONE`` where it is one."""

    def take(self, x: Array, index: Array) -> Array:
        """The images of that index."""

    def sums(
        self,
        x: Array,
        values: Sequence[Array],
        groups: Iterable[Iterable[Array]] | None = None,
        layout: Layout | None = None,
    ) -> Array:
        """Σ over the samples of each of ``values``, then Σ of all entries of each group."""

    def mean_loss(self, e: Evaluation) -> Array:
        """The mean loss of an evaluation."""


@dataclass(frozen=True)
class Sweep:
    """Forward and backward sweeps on the clear path (``pmp_ref.layers``).

    ``chunk`` samples are swept at a time; ``memory`` bytes may be held by kept states (0: always recompute). ``ranks``
    are the processes that share a batch (``kernels.ranks``), by default this one alone; the states are then those of
    all, so that each sweeps as often as one process would.
    """

    network: Network
    loss: Loss
    chunk: int = 64
    memory: int = 256 * 2**20
    ranks: Alone = field(default=ALONE, kw_only=True)

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise InputError(f"chunk is {self.chunk}; expected at least one sample")

    def belongs(self, network: Network, loss: Loss) -> bool:
        """Whether this is a sweep of that network and loss."""
        what = [(each.stages, each.reads, each.input_shape) for each in (self.network, network)]
        return what[0] == what[1] and self.loss == loss

    def forward(self, controls: Controls, x: Array, y: Array) -> Evaluation:
        """Per-sample losses of the batch; one forward sweep."""
        return self._forward(controls, x, y, self.keeps(controls, x))

    def _forward(self, controls: Controls, x: Array, y: Array, keep: bool) -> Evaluation:
        xp = namespace(x)
        losses, largest, states = [], [], []
        with quiet():
            for cut in self.own_chunks(x):
                s = self.network.forward_sweep(controls, x[cut, ...], keep)
                losses.append(self.loss.values(s[-1], y[cut, ...]))
                largest.append(largest_entry(s[-1]))
                states.append(s if keep else None)
        none = [zeros((0,), next(arrays_of(controls)))]  # of a process without a chunk
        return Evaluation(x, y, xp.concat(losses or none), xp.concat(largest or none), states if keep else None)

    def trial(self, controls: Controls, x: Array, y: Array) -> Evaluation:
        """Per-sample losses of a batch on which no backward sweep will follow; one forward sweep."""
        return self._forward(controls, x, y, keep=False)

    def run(self, f: Callable[..., Any], *arguments: Any) -> Any:
        """f(*arguments). A sweep may record what f does on the device and repeat the record (``kernels.replay``)."""
        return f(*arguments)

    def backward(self, controls: Controls, e: Evaluation) -> Evaluation:
        """The evaluation completed by g = −∇L_B, L_B the mean loss of the batch (T1); one backward sweep."""
        tree = self.tree(e.x)
        with quiet():
            for i, cut in enumerate(self.own_chunks(e.x)):
                s = e.states[i] if e.states is not None else self.network.forward_sweep(controls, e.x[cut, ...])
                p = self.terminal_costate(s[-1], e.y[cut, ...], e.x.shape[0])
                _, g = self.network.backward_sweep(controls, s, p)
                tree.push(g)
        again = 0 if e.states is not None else 1
        return replace(
            e,
            states=None,
            switching=self.shared(tree, controls),
            forward_sweeps=e.forward_sweeps + again,
            backward_sweeps=e.backward_sweeps + 1,
        )

    def forward_backward(self, controls: Controls, x: Array, y: Array) -> Evaluation:
        """Losses and switching functions of the batch; one sweep each way."""
        return self.backward(controls, self.forward(controls, x, y))

    def terminal_costate(self, x: Array, y: Array, samples: int) -> Array:
        """p_L = −(1/B)∇Φ_s(x_L^s), B the samples of the whole batch; the factor 1/B stands here and nowhere else."""
        return -self.loss.gradient(x, y) / samples

    def chunks(self, x: Array) -> Iterator[slice]:
        """Slices of the batch, in order."""
        chunk = self.chunk_size(x)
        for start in range(0, x.shape[0], chunk):
            yield slice(start, min(start + chunk, x.shape[0]))

    def chunk_size(self, x: Array) -> int:
        """Samples of a chunk of the batch x, the last one may have fewer.

        By batch and dtype alone: if the number of threads decided, it would decide the bits of g (T21).
        """
        return self.chunk

    def own(self, x: Array) -> range:
        """Numbers of the chunks that this process sweeps."""
        return self.ranks.part(-(-x.shape[0] // self.chunk_size(x)))

    def own_chunks(self, x: Array) -> Iterator[slice]:
        """The chunks that this process sweeps, as slices of the batch, in order."""
        chunk = self.chunk_size(x)
        for i in self.own(x):
            yield slice(chunk * i, min(chunk * (i + 1), x.shape[0]))

    def tree(self, x: Array, plus: Callable[[Any, Any], Any] = add) -> Tree:
        """An empty sum over the chunks that this process sweeps."""
        return Tree(plus, self.own(x).start, -(-x.shape[0] // self.chunk_size(x)))

    def shared(self, tree: Tree, controls: Controls) -> Controls:
        """g, the sum of the chunks of all processes."""
        layout = layout_of(controls) or plain_layout(self.network.control_shapes)
        return self.ranks.switching(tree, layout, next(arrays_of(controls)))  # type: ignore[no-any-return]

    def take(self, x: Array, index: Array) -> Array:
        """The images of that index, as far as this process sweeps them in a batch of these."""
        return self.ranks.take(self, x, index)

    def sums(
        self,
        x: Array,
        values: Sequence[Array],
        groups: Iterable[Iterable[Array]] | None = None,
        layout: Layout | None = None,
    ) -> Array:
        """Σ over the samples of the batch x of each vector of ``values``, then Σ of all entries of the arrays of each
        group, which lie in the ``layout``: one vector in float64, on the arrays' device.

        Values are summed chunk by chunk, and the chunks along the tree (T21); each process has those of its samples.
        """
        size, samples = self.chunk_size(x), values[0].shape[0]
        cuts = [slice(start, min(start + size, samples)) for start in range(0, samples, size)]
        return self.ranks.sums(chunk_sums(values, cuts), -(-x.shape[0] // size), groups, layout)

    def mean_loss(self, e: Evaluation) -> Array:
        """L_B = (1/B) Σ_s Φ_s over all samples of the batch, summed in float64; 0-d."""
        return self.sums(e.x, [e.losses])[0] / e.x.shape[0]

    def keeps(self, controls: Controls, x: Array) -> bool:
        """Whether the states of the batch fit the memory."""
        return bool(x.shape[0] * self.bytes_per_sample(states_like(controls, x)) <= self.memory)

    def bytes_per_sample(self, states: Array) -> int:
        """Bytes of the states x_1 … x_L of one sample, in the dtype of ``states``."""
        return self.entries_per_sample * item_size(states, 8)

    @property
    def entries_per_sample(self) -> int:
        """Entries of the states x_1 … x_L of one sample."""
        return sum(map(math.prod, self.network.shapes[1:]))


def chunk_sums(values: Sequence[Array], cuts: Sequence[slice]) -> Array:
    """Σ in float64 of each vector over each slice: (slices, vectors)."""
    xp = namespace(*values)
    if not cuts:
        return xp.zeros((0, len(values)), dtype=xp.float64, device=device(values[0]))
    if type(values[0]).__module__ == "cupy":
        return xp.reshape(sums([[v[cut]] for cut in cuts for v in values]), (len(cuts), len(values)))
    columns = xp.stack([xp.astype(v, xp.float64, copy=False) for v in values])
    return xp.stack([xp.sum(columns[:, cut], axis=1) for cut in cuts])


def mean_loss(e: Evaluation) -> Array:
    """L_B = (1/B) Σ_s Φ_s of an evaluation that one process made, summed in float64; 0-d.

    What several made together is asked of their sweep, :meth:`Sweep.mean_loss`.
    """
    return sum64(e.losses) / e.losses.shape[0]


def largest_entry(x: Array) -> Array:
    """‖x_L^s‖_∞ of each sample, (B,)."""
    xp = namespace(x)
    return xp.max(xp.abs(xp.reshape(x, (x.shape[0], -1))), axis=1)


def quiet() -> Any:
    """NumPy's floating point warnings off: non-finite values are found by the method and reported as a status."""
    return np.errstate(all="ignore")
