"""Controls u = (u_0, …, u_{L−1}) as nested tuples: ``u[l]`` is ``(kernel, bias)``, ``(kernel,)`` or ``()``.

Increments, switching functions, metrics and weights have the same nesting. Norms and inner products are summed in
float64 and stay on the device as 0-d arrays.

The method treats alike all entries that have one regulariser, weight and admissible set: all kernels, say, and all
biases. So it lays them side by side in one vector, kind after kind (:class:`Layout`). :class:`Vectors` are a nesting
too, of one stage with an array for each kind, so that every formula below holds for them as it stands, in few large
operations. :class:`Packed` are the same controls, stage by stage, as views of the vector. :func:`in_blocks` works
formulas of many operations out block by block: what lies between them then stays in the processor's cache. A block is a
:class:`Piece` of the layout, and so is a rank's share of it (``kernels.ranks``).
"""

from __future__ import annotations

import math
import operator
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial, reduce
from itertools import pairwise
from typing import Any

import numpy as np

from pmp_ref.arrays import (
    UNIT,
    Array,
    Controls,
    Units,
    fused,
    joined,
    like,
    namespace,
    product64,
    sums,
    to_numpy,
    unit_products,
    unit_sums,
)
from pmp_ref.errors import InputError

BLOCK = 32 * UNIT  # entries of a block: few enough for a processor's cache, enough to be worth a round of Python


class _Kinds:
    """A vector of entries, kind after kind: all entries of controls (:class:`Layout`) or some (:class:`Piece`).

    Of each kind: ``members`` are its controls, (stage, index); ``cuts`` is its first entry, its last + 1, and the shape
    that its array has; ``alone`` says that it is one control, which keeps its shape.
    """

    members: tuple[tuple[tuple[int, int], ...], ...]
    cuts: list[tuple[int, int, tuple[int, ...]]]
    alone: list[bool]

    def first(self, nested: Any) -> tuple[tuple[Any, ...], ...]:
        """What ``nested`` holds for the first control of each kind: constants that are equal within a kind."""
        return (tuple(nested[l][i] for (l, i), *_ in self.members),)

    def kinds(self, whole: Array) -> tuple[Array, ...]:
        """The kinds as views of the vector of all entries."""
        xp = namespace(whole)
        return tuple(
            whole[start:stop] if len(shape) == 1 else xp.reshape(whole[start:stop], shape)
            for start, stop, shape in self.cuts
        )

    @cached_property
    def edges(self) -> list[list[int]]:
        """Where the units of each kind begin, and the last one ends."""
        return [
            [start, stop] if alone else [*range(start, stop, UNIT), stop]
            for (start, stop, _), alone in zip(self.cuts, self.alone, strict=True)
        ]

    @cached_property
    def ends(self) -> list[int]:
        """Where the vector may be cut: between units, and at both its ends."""
        return sorted({edge for edges in self.edges for edge in edges})

    @cached_property
    def blocks(self) -> list[Piece]:
        """The entries in pieces of at most ``BLOCK``, or of one unit that is larger."""
        return [Piece(self, start, stop) for start, stop in pairwise(places_to_cut(self.ends, BLOCK))]

    @cached_property
    def held(self) -> int:
        """Entries of the vector."""
        return self.cuts[-1][1]


class Layout(_Kinds):
    """Where the entries of each control lie, for controls of the given shapes in the given kinds.

    ``kinds`` is nested like the shapes. All entries lie in one vector, kind after kind, and within a kind in the order
    of the stages. A control of the kind None, or of one without a hash, keeps its shape and is a kind of its own.
    """

    def __init__(self, shapes: Sequence[Sequence[tuple[int, ...]]], kinds: Sequence[Sequence[Any]]) -> None:
        self.shapes = tuple(map(tuple, shapes))
        members: dict[Any, list[tuple[int, int]]] = {}
        alone = set()
        for l, stage in enumerate(kinds):
            for i, kind in enumerate(stage):
                if kind is None or not _has_hash(kind):
                    kind = (l, i)
                    alone.add(kind)
                members.setdefault(kind, []).append((l, i))
        self.members = tuple(map(tuple, members.values()))
        self.trivial = all(len(places) == 1 for places in self.members)  # no two controls share a kind
        self.alone = [kind in alone for kind in members]
        self.cuts = []
        start = 0
        for kind, places in members.items():
            stop = start + sum(math.prod(self.shapes[l][i]) for l, i in places)
            (l, i), *_ = places
            self.cuts.append((start, stop, self.shapes[l][i] if kind in alone else (stop - start,)))
            start = stop

    def vectors(self, nested: Any) -> Vectors:
        """The arrays of a nesting by stage, side by side."""
        return Vectors(self, joined([nested[l][i] for places in self.members for l, i in places]))

    def views(self, whole: Array) -> Controls:
        """Stage by stage: the inverse of :meth:`vectors`, without a copy."""
        xp, found, start = namespace(whole), {}, 0
        for l, i in (place for places in self.members for place in places):
            stop = start + math.prod(self.shapes[l][i])
            found[l, i] = xp.reshape(whole[start:stop], self.shapes[l][i])
            start = stop
        return tuple(tuple(found[l, i] for i in range(len(stage))) for l, stage in enumerate(self.shapes))

    def sums(self, groups: Iterable[Iterable[Array]]) -> Array:
        """Σ of all entries of the arrays of each group, an array for each kind; see :func:`pmp_ref.arrays.sums`.

        A layout that holds a part of the entries sums over all of them.
        """
        return sums(groups)

    @property
    def whole(self) -> Layout:
        """The layout of all entries; of a layout that holds a part of them, that of which it is a part."""
        return self

    @cached_property
    def size(self) -> int:
        """Entries of all controls."""
        return sum(math.prod(shape) for stage in self.shapes for shape in stage)


def places_to_cut(ends: Sequence[int], most: int) -> list[int]:
    """The first and the last of the ``ends`` and some between, neighbours at most ``most`` apart where that can be."""
    found = [ends[0]]
    while found[-1] < ends[-1]:
        found.append(max(ends[bisect_right(ends, found[-1] + most) - 1], ends[bisect_right(ends, found[-1])]))
    return found


class Piece(_Kinds):
    """The entries start, …, stop − 1 of a layout, cut between *units*: runs of ``UNIT`` entries of one kind, or a
    control that is a kind of its own.

    ``kept`` are the kinds of the layout that have entries here (one at least, which may have none), and ``units`` the
    numbers of their units.
    """

    def __init__(self, of: _Kinds, start: int, stop: int) -> None:
        self.of, self.run = of, slice(start, stop)
        units = [
            range(min(bisect_left(edges, start), len(edges) - 1), min(bisect_left(edges, stop), len(edges) - 1))
            for edges in of.edges
        ]
        self.kept = [kind for kind, part in enumerate(units) if part] or [of.alone.index(False)]
        self.units = [units[kind] for kind in self.kept]
        self.members = tuple(of.members[kind] for kind in self.kept)
        self.alone = [of.alone[kind] for kind in self.kept]
        self.cuts = []
        for kind, alone in zip(self.kept, self.alone, strict=True):
            first, last, shape = of.cuts[kind]
            first, last = (min(max(edge, start), stop) - start for edge in (first, last))
            self.cuts.append((first, last, shape if alone else (last - first,)))

    def part(self, nested: Any) -> Any:
        """The piece's part of vectors of the layout, of what is given for each of its kinds, or of None."""
        if nested is None:
            return None
        if isinstance(nested, Vectors):
            return Vectors(self, nested.whole[self.run])
        return (tuple(nested[0][kind] for kind in self.kept),)


def _has_hash(kind: Any) -> bool:
    """False for what holds arrays or lists."""
    try:
        hash(kind)
    except TypeError:
        return False
    return True


class Vectors(Sequence):  # type: ignore[type-arg]
    """A nesting of one stage, with an array for each kind of the ``layout``; what is not given is made when asked for.

    ``kinds`` are the arrays, ``whole`` is the vector of all entries; one of them at least.
    """

    __slots__ = ("_kinds", "_whole", "layout", "views")

    def __init__(self, layout: _Kinds, whole: Array = None, kinds: tuple[Array, ...] | None = None) -> None:
        self.layout: Any = layout
        self._whole, self._kinds = whole, kinds
        self.views: Controls | None = None  # stage by stage, once asked for (``Packed``)

    @property
    def whole(self) -> Array:
        """All entries in one vector."""
        if self._whole is None:
            assert self._kinds is not None
            self._whole = joined(self._kinds)
        return self._whole

    @property
    def kinds(self) -> tuple[Array, ...]:
        """An array for each kind."""
        if self._kinds is None:
            self._kinds = self.layout.kinds(self._whole)
        return self._kinds

    @property
    def arrays(self) -> tuple[Array, ...]:
        """What is held: the vector of all entries, or the kinds."""
        return self._kinds if self._whole is None else (self._whole,)  # type: ignore[return-value]

    def __len__(self) -> int:
        return 1

    def __getitem__(self, l: Any) -> Any:
        return (self.kinds,)[l]

    def __iter__(self) -> Iterator[Any]:
        return iter((self.kinds,))


class Packed(Sequence):  # type: ignore[type-arg]
    """Controls stage by stage, as views of their ``vectors``; the views are made when they are asked for."""

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors

    @property
    def views(self) -> Controls:
        """The nesting of plain tuples."""
        if self.vectors.views is None:
            self.vectors.views = self.vectors.layout.views(self.vectors.whole)
        return self.vectors.views

    def __len__(self) -> int:
        return len(self.vectors.layout.shapes)

    def __getitem__(self, l: Any) -> Any:
        return self.views[l]

    def __reduce__(self) -> Any:
        return tuple, (self.views,)


def layout_of(controls: Controls) -> Layout | None:
    """How the controls are laid out side by side; None if they are not."""
    if isinstance(controls, Packed):
        return controls.vectors.layout
    return controls.layout if isinstance(controls, Vectors) else None


def plain_layout(shapes: Sequence[Sequence[tuple[int, ...]]]) -> Layout:
    """Each control on its own, in the order of the stages."""
    return Layout(shapes, [[None] * len(stage) for stage in shapes])


def vectors(nested: Any, layout: Layout) -> Any:
    """The controls side by side in the given layout; as they are if it is trivial, and None for None."""
    if nested is None or isinstance(nested, Vectors):
        return nested
    if isinstance(nested, Packed):
        return nested.vectors if nested.vectors.layout is layout else vectors(nested.views, layout)
    return nested if layout.trivial else layout.vectors(nested)


def by_stage(nested: Any) -> Any:
    """The inverse of :func:`vectors`."""
    return Packed(nested) if isinstance(nested, Vectors) else nested


def map_controls(f: Callable[..., Any], *controls: Any) -> Any:
    """f applied array by array to one or more nestings of the same form."""
    made = tuple([tuple([f(*parts) for parts in zip(*stage, strict=True)]) for stage in zip(*controls, strict=True)])
    layout = next((c.layout for c in controls if isinstance(c, Vectors)), None)
    return made if layout is None else Vectors(layout, kinds=made[0])


def entrywise(f: Callable[..., Any], *controls: Any) -> Any:
    """:func:`map_controls` with an f that acts entry by entry, alike everywhere: on vectors in one operation."""
    if not isinstance(controls[0], Vectors):
        return map_controls(f, *controls)
    return Vectors(controls[0].layout, f(*(c.whole for c in controls)))


def in_blocks(f: Callable[..., Any], *nested: Any) -> Any:
    """f(*nested), for large vectors of NumPy block by block.

    f returns nestings, and groups of arrays that are to be summed (:func:`entry_sums`). It acts entry by entry, the
    same way within a kind. Of what is to be summed the sums of the units are kept, so the sums have the same bits
    (T21).
    """
    first = nested[0]
    numpy = isinstance(first, Vectors) and all(type(a) is np.ndarray for a in first.arrays)
    if not numpy or first.layout.held <= BLOCK:
        return f(*nested)
    layout: _Kinds = first.layout
    made: list[np.ndarray] = []
    units: list[list[list[np.ndarray]]] = []  # of each group and kind, block by block
    for block in layout.blocks:
        parts, groups = f(*map(block.part, nested))
        made = made or [np.empty(layout.held, part.whole.dtype) for part in parts]
        for whole, part in zip(made, parts, strict=True):
            whole[block.run] = part.whole
        for i, group in enumerate(groups):
            if i == len(units):
                units.append([[] for _ in layout.cuts])
            for kind, a in zip(block.kept, group, strict=True):
                units[i][kind].append(unit_sums(a))
    sums = [[Units(np.concatenate(found)) for found in group] for group in units]
    return [Vectors(layout, whole) for whole in made], sums


def arrays_of(controls: Any) -> Iterator[Any]:
    """The entries of a nesting, stage by stage."""
    for stage in controls:
        yield from stage


def kernels_of(names: Any, controls: Any) -> Iterator[Any]:
    """The entries of a nesting whose name in ``names``, nested alike, is "kernel"."""
    for name, a in zip(arrays_of(names), arrays_of(controls), strict=True):
        if name == "kernel":
            yield a


def kernel_entries(names: Any, controls: Any) -> tuple[int, int]:
    """(nonzero, all) kernel entries, penalised or not; biases are not among them."""
    kernels = list(kernels_of(names, controls))
    return sum(int(namespace(k).count_nonzero(k)) for k in kernels), sum(math.prod(k.shape) for k in kernels)


def entry_sums(groups: Iterable[Iterable[Array]], like: Controls) -> Array:
    """Σ of all entries of the arrays of each group, which are laid out as ``like`` is: one vector in float64."""
    layout = layout_of(like)
    return sums(groups) if layout is None else layout.sums(groups)


def inner(a: Controls, b: Controls) -> Array:
    """⟨a, b⟩ = Σ_l Σ_i a_{l,i} b_{l,i}, each product formed and summed in float64; 0-d."""
    return entry_sums([arrays_of(products(a, b))], a)[0]


def products(a: Controls, b: Controls) -> Controls:
    """a_i b_i in float64, to be summed; but for CuPy the sums of their units (:func:`pmp_ref.arrays.unit_products`)."""
    if type(next(arrays_of(a))).__module__ == "cupy":
        return entrywise(partial(fused, product64), a, b)
    return map_controls(unit_products, a, b)


def total(scalars: Any) -> Array:
    """Σ of the 0-d entries of a nesting, in order."""
    return reduce(operator.add, arrays_of(scalars))


def add(a: Controls, b: Controls) -> Controls:
    """a + b."""
    return entrywise(operator.add, a, b)


def subtract(a: Controls, b: Controls) -> Controls:
    """a − b."""
    return entrywise(operator.sub, a, b)


def multiply(a: Controls, b: Controls) -> Controls:
    """a_i b_i, in the dtype of the controls."""
    return entrywise(operator.mul, a, b)


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
