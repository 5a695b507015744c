"""One program on many processes (MPI): each sweeps its share of a batch, and the numbers are those of one process.

``Ranks(comm)`` is handed to ``make_sweep(…, ranks=…)`` in every process of an MPI program; all call ``solve`` alike. A
rank sweeps an interval of the batch's chunks and adds them along the tree of T21 as far as it can. Then each rank gets
one slice of the entries of all these sums and adds what is left. Losses and the sums over the controls travel in one
small exchange for each trial. So controls, records and decisions have the same bits on any number of ranks.

What the method computes entry by entry (maximiser, metric, average, the sums of a trial) each rank computes on its
slice alone: :class:`Share` is a layout that holds a part of the entries. Candidates are gathered from the slices, since
all ranks sweep all controls. To ask a share for its controls stage by stage is therefore a step that all ranks must
take.

Buffers are NumPy's and travel as they lie, nothing is pickled. Arrays of a GPU go through pinned memory of the host or,
where ``direct`` says that MPI can do that, from device to device. Not yet run on GPUs.
"""

from __future__ import annotations

import importlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from pmp_ref import arrays
from pmp_ref.arrays import Array, Controls, joined, sums, to_numpy, tree_sum, unit_sums
from pmp_ref.controls import Layout, Piece, Vectors, by_stage
from pmp_ref.summation import Alone, Node, Tree, laid_out, partial_sums, subtrees


class Ranks(Alone):
    """The ranks of an MPI communicator (of mpi4py), of which this process is one.

    ``sliced``: what acts entry by entry on NumPy arrays is shared out too; otherwise each rank does all of it.
    ``direct``: MPI takes arrays of the device (CUDA-aware MPI).
    """

    def __init__(self, comm: Any, sliced: bool = True, direct: bool = False) -> None:
        self.comm, self.sliced, self.direct = comm, sliced, direct
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self.shares: dict[int, Share] = {}

    def part(self, count: int) -> range:
        """Which of ``count`` terms this rank adds."""
        return range(*borders(count, self.size)[self.rank : self.rank + 2])

    def replicated(self) -> Ranks:
        return Ranks(self.comm, False, self.direct)

    def layout(self, layout: Layout) -> Layout:
        """This rank's share of a layout; all of it where controls are not laid side by side, or by wish."""
        if not self.sliced or layout.trivial:
            return layout
        if id(layout) not in self.shares:
            self.shares[id(layout)] = Share(layout, self)
        return self.shares[id(layout)]

    def take(self, sweep: Any, x: Array, index: Array) -> Array:
        """The images of a batch: those that this rank sweeps, in an array that has room for all."""
        if type(x) is not np.ndarray:
            return super().take(sweep, x, index)
        batch = np.zeros((index.shape[0], *x.shape[1:]), x.dtype)
        own, chunk = sweep.own(batch), sweep.chunk_size(batch)
        rows = slice(chunk * own.start, min(chunk * own.stop, batch.shape[0]))
        np.take(x, index[rows], axis=0, out=batch[rows], mode="clip")
        return batch

    def switching(self, tree: Tree, layout: Layout, like: Array, vector: Callable[[Any], Array] | None = None) -> Any:
        """g, the sum of the chunks of all ranks: this rank's slice of it where the layout is a share, else all of g."""
        pack = vector or (lambda value: layout.whole.vectors(value).whole)
        mine = [self.outgoing(pack(node.value)) for node in tree.nodes]
        bounds = layout.bounds if isinstance(layout, Share) else even(layout.size, self.size)
        part = self.added(tree.count, mine, bounds, self.room(like))
        if isinstance(layout, Share):
            return by_stage(Vectors(layout, part))
        return laid_out(layout, self.incoming(self.gathered(part, bounds), like))

    def added(self, chunks: int, mine: list[Array], bounds: Sequence[int], room: Callable[[int], Array]) -> Array:
        """This rank's slice of the sum of all ranks' complete subtrees, of which ``mine`` are those of this rank."""
        trees = forests(chunks, self.size)
        sizes = [b - a for a, b in pairwise(bounds)]
        size, none = sizes[self.rank], [0] * self.size
        first = [0, *accumulate(map(len, trees))]  # row of each rank's first subtree
        rows = room(size * first[-1]).reshape(first[-1], size)
        for k in range(max(map(len, trees))):
            there = k < len(mine)
            send = [mine[k] if there else room(0), (sizes if there else none, bounds[:-1] if there else none)]
            counts = [size if k < len(t) else 0 for t in trees]
            self.comm.Alltoallv(
                send, [rows, (counts, [size * (i + k) if c else 0 for i, c in zip(first, counts, strict=False)])]
            )
        return folded([Node(*place, row) for place, row in zip([p for t in trees for p in t], rows, strict=True)])

    def gathered(self, part: Array, bounds: Sequence[int]) -> Array:
        """All entries, from the slices of all ranks."""
        entries = self.room(part)(bounds[-1])
        entries[bounds[self.rank] : bounds[self.rank + 1]] = part
        sizes = [b - a for a, b in pairwise(bounds)]
        self.comm.Allgatherv(in_place(), [entries, (sizes, bounds[:-1])])
        return entries

    def sums(self, rows: Array, chunks: int, groups: Iterable[Iterable[Array]] | None, layout: Layout | None) -> Array:
        """See :meth:`pmp_ref.summation.Alone.sums`: the same bits on all ranks."""
        share = layout if isinstance(layout, Share) and groups is not None else None
        found = self.exchanged(to_numpy(rows), chunks, [] if share is None else groups, share)
        totals = arrays.like(found, rows)
        if groups is None or share is not None:
            return totals
        return joined([totals, sums(groups) if layout is None else layout.sums(groups)])

    def exchanged(self, rows: np.ndarray, chunks: int, groups: Any, share: Share | None) -> np.ndarray:
        """Σ of the rows of all ranks, one for each chunk, and Σ of each group of arrays in a share: one exchange."""
        trees = forests(chunks, self.size)
        columns = rows.shape[1]
        values = partial_sums(rows, self.part(chunks).start) if rows.shape[0] else []
        width = 0
        if share is not None:
            sheet = share.sheet(groups)
            width = sheet.shape[1]
            values += list(sheet)
        nodes = [[] if share is None else share.nodes[r] for r in range(self.size)]
        counts = [columns * len(t) + width * len(n) for t, n in zip(trees, nodes, strict=True)]
        found = np.empty(sum(counts))
        mine = np.concatenate([np.zeros(0), *values])
        self.comm.Allgatherv(mine, [found, (counts, [0, *accumulate(counts)][:-1])])
        samples: list[Node] = []
        kinds: dict[int, list[Node]] = {}
        at = 0
        for places, entries in zip(trees, nodes, strict=True):
            for start, height in places:
                samples.append(Node(start, height, found[at : at + columns]))
                at += columns
            for kind, start, height in entries:
                kinds.setdefault(kind, []).append(Node(start, height, found[at : at + width]))
                at += width
        totals = [folded(kinds[kind]) for kind in sorted(kinds)]
        return np.concatenate([folded(samples), *([sum(totals[1:], totals[0])] if totals else [])])

    # where arrays lie

    def room(self, a: Array) -> Callable[[int], Array]:
        """Makes vectors of so many entries, of the dtype of ``a``, that MPI takes."""
        if self.direct and type(a).__module__ == "cupy":
            return lambda n: importlib.import_module("cupy").empty(n, a.dtype)
        return lambda n: np.empty(n, a.dtype if isinstance(a, np.ndarray) else str(a.dtype).rpartition(".")[2])

    def outgoing(self, a: Array) -> Array:
        """The vector where MPI takes it: as it is, or in pinned memory of the host."""
        if isinstance(a, np.ndarray):
            return a
        if type(a).__module__ != "cupy":
            return to_numpy(a)
        if self.direct:
            importlib.import_module("cupy").cuda.get_current_stream().synchronize()
            return a
        return a.get(out=importlib.import_module("cupyx").empty_pinned(a.shape, a.dtype))

    def incoming(self, entries: Array, a: Array) -> Array:
        """The vector where ``a`` lies."""
        return arrays.like(entries, a) if isinstance(entries, np.ndarray) and not isinstance(a, np.ndarray) else entries


class Share(Piece, Layout):
    """A rank's part of a layout.

    ``bounds[r]`` is the first entry of rank r, ``nodes[r]`` are the (kind, first unit in it, height) of its complete
    subtrees of units.
    """

    def __init__(self, of: Layout, ranks: Ranks) -> None:
        self.shapes, self.trivial, self.all, self.ranks = of.shapes, False, of, ranks
        aims = [of.size * r / ranks.size for r in range(ranks.size)]
        self.bounds = [*(of.ends[bisect_left(of.ends, aim)] for aim in aims), of.size]
        pieces = [Piece(of, start, stop) for start, stop in pairwise(self.bounds)]
        self.nodes = [
            [
                (kind, *place)
                for kind, units in zip(piece.kept, piece.units, strict=True)
                for place in subtrees(units.start, units.stop)
            ]
            for piece in pieces
        ]
        Piece.__init__(self, of, *self.bounds[ranks.rank : ranks.rank + 2])

    @property
    def whole(self) -> Layout:
        return self.all

    def vectors(self, nested: Any) -> Vectors:
        """This rank's entries of a nesting by stage."""
        return self.part(self.all.vectors(nested))  # type: ignore[no-any-return]

    def views(self, whole: Array) -> Controls:
        """All controls, stage by stage, gathered from all ranks; each of them must ask."""
        return self.all.views(self.ranks.gathered(whole, self.bounds))

    def sums(self, groups: Iterable[Iterable[Array]]) -> Array:
        """Σ over all entries, of all ranks; each of them must ask."""
        return self.ranks.exchanged(np.zeros((0, 0)), 0, groups, self)

    def sheet(self, groups: Iterable[Iterable[Array]]) -> np.ndarray:
        """Σ of each group over the entries of each of this rank's subtrees: (subtrees, groups)."""
        columns = []
        for group in groups:
            values: list[Any] = []
            for units, alone, a in zip(self.units, self.alone, group, strict=True):
                rows = unit_sums(a)
                if rows.shape[0] == 0:
                    rows = np.zeros(len(units))
                values += partial_sums(tree_sum(rows)[None] if alone else rows, units.start)
            columns.append(values)
        return np.array(columns).reshape(len(columns), -1).T


@lru_cache(maxsize=1024)
def borders(count: int, ranks: int) -> tuple[int, ...]:
    """0 ≤ … ≤ count: rank r has the terms borders[r] … borders[r + 1] − 1, none more than ⌈count/ranks⌉.

    Among these the roundest numbers are taken, so that each rank has few complete subtrees.
    """
    most, found = -(-count // ranks), [0]
    for left in range(ranks - 1, 0, -1):
        low, high = max(found[-1], count - left * most), min(found[-1] + most, count)
        found.append(roundest(low, high))
    return (*found, count)


@lru_cache(maxsize=64)
def forests(count: int, ranks: int) -> list[list[tuple[int, int]]]:
    """The complete subtrees of each rank's terms."""
    return [subtrees(a, b) for a, b in pairwise(borders(count, ranks))]


def roundest(low: int, high: int) -> int:
    """The number from low to high that the largest power of two divides."""
    step = 1
    while -(-low // (2 * step)) * 2 * step <= high and 2 * step <= high:
        step *= 2
    return -(-low // step) * step


def even(count: int, ranks: int) -> list[int]:
    """Borders of parts whose sizes differ by at most one."""
    return [count * r // ranks for r in range(ranks + 1)]


def folded(nodes: list[Node]) -> Any:
    """The sum of the complete subtrees of all terms; their values are written into."""
    tree = Tree(into)
    for node in nodes:
        tree.join(node)
    return tree.total() if nodes else np.zeros(0)


def into(a: Array, b: Array) -> Array:
    """a + b, in the place of a."""
    a += b
    return a


def in_place() -> Any:
    """MPI's mark for an argument that already lies in the result."""
    return importlib.import_module("mpi4py.MPI").IN_PLACE
