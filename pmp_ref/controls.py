"""Controls u = (u_0, …, u_{L−1}) as nested tuples: ``u[l]`` is ``(kernel, bias)``, ``(kernel,)`` or ``()``.

Increments, switching functions, metrics and weights have the same nesting. Norms and inner products are summed in
float64 and stay on the device as 0-d arrays.

The method treats alike all entries that have one regulariser, weight and admissible set: all kernels, say, and all
biases. So it lays them side by side in one vector, kind after kind (:class:`Layout`). :class:`Vectors` are a nesting
too, of one stage with an array for each kind, so that every formula below holds for them as it stands, in few large
operations. :class:`Packed` are the same controls, stage by stage, as views of the vector. A formula of many operations
is worked out run by run (:class:`Block`, :func:`in_blocks`, :func:`sums_in_blocks`): what lies between them then stays
in the processor's cache.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial, reduce
from typing import Any

import numpy as np

from pmp_ref.arrays import (
    UNIT,
    Array,
    Controls,
    fused,
    joined,
    like,
    namespace,
    sum64,
    sums,
    to_numpy,
    tree_sum,
    unit_sums,
)
from pmp_ref.errors import InputError

BLOCK = 16 * UNIT  # entries of a block: a few arrays of them fit a core's cache


class Layout:
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
        self.alone = [kind in alone for kind in members]  # which kinds are a control that keeps its shape
        self.cuts: list[tuple[int, int, tuple[int, ...]]] = []  # of each kind: first entry, last entry + 1, shape
        start = 0
        for kind, places in members.items():
            stop = start + sum(math.prod(self.shapes[l][i]) for l, i in places)
            (l, i), *_ = places
            self.cuts.append((start, stop, self.shapes[l][i] if kind in alone else (stop - start,)))
            start = stop

    def first(self, nested: Any) -> tuple[tuple[Any, ...], ...]:
        """What ``nested`` holds for the first control of each kind: constants that are equal within a kind."""
        return (tuple(nested[l][i] for (l, i), *_ in self.members),)

    def vectors(self, nested: Any) -> Vectors:
        """The arrays of a nesting by stage, side by side."""
        return Vectors(self, joined([nested[l][i] for places in self.members for l, i in places]))

    def kinds(self, whole: Array) -> tuple[Array, ...]:
        """The kinds as views of the vector of all entries."""
        xp = namespace(whole)
        return tuple(
            whole[start:stop] if len(shape) == 1 else xp.reshape(whole[start:stop], shape)
            for start, stop, shape in self.cuts
        )

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

    @cached_property
    def blocks(self) -> list[Block]:
        """All entries, in runs of one kind each; a control that keeps its shape is one."""
        return [
            Block(self, kind, first, last)
            for kind, ((start, stop, _), alone) in enumerate(zip(self.cuts, self.alone, strict=True))
            for first, last in ([(start, stop)] if alone else runs(start, stop))
        ]

    @property
    def whole(self) -> Layout:
        """The layout of all entries; of a layout that holds a part of them, that of which it is a part."""
        return self

    @property
    def size(self) -> int:
        """Entries of all controls."""
        return sum(math.prod(shape) for stage in self.shapes for shape in stage)


def runs(start: int, stop: int) -> list[tuple[int, int]]:
    """The interval in runs of ``BLOCK`` entries, the last one shorter."""
    return [(first, min(first + BLOCK, stop)) for first in range(start, stop, BLOCK)]


class Block:
    """A run of entries of one kind of a layout: how parts of :class:`Vectors` are laid out."""

    def __init__(self, layout: Layout, kind: int, start: int, stop: int) -> None:
        self.layout, self.kind, self.run = layout, kind, slice(start, stop)
        self.shape = layout.cuts[kind][2] if layout.alone[kind] else (stop - start,)

    def first(self, nested: Any) -> tuple[tuple[Any, ...], ...]:
        """What ``nested`` holds for the first control of the kind."""
        return ((self.layout.first(nested)[0][self.kind],),)

    def kinds(self, whole: Array) -> tuple[Array, ...]:
        """The entries of the block, in the shape of the control where that is a kind of its own."""
        return (namespace(whole).reshape(whole, self.shape),)

    def part(self, nested: Any) -> Any:
        """The block's part of vectors, of what is given for each kind, or of None."""
        if nested is None:
            return None
        return Vectors(self, nested.whole[self.run]) if isinstance(nested, Vectors) else ((nested[0][self.kind],),)


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

    def __init__(self, layout: Layout | Block, whole: Array = None, kinds: tuple[Array, ...] | None = None) -> None:
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
    made = tuple(tuple(f(*parts) for parts in zip(*stage, strict=True)) for stage in zip(*controls, strict=True))
    layout = next((c.layout for c in controls if isinstance(c, Vectors)), None)
    return made if layout is None else Vectors(layout, kinds=made[0])


def entrywise(f: Callable[..., Any], *controls: Any) -> Any:
    """:func:`map_controls` with an f that acts entry by entry, alike everywhere: on vectors in one operation."""
    if not isinstance(controls[0], Vectors):
        return map_controls(f, *controls)
    return in_blocks(lambda *parts: Vectors(parts[0].layout, f(*(c.whole for c in parts))), *controls)


def in_blocks(f: Callable[..., Any], *nested: Any) -> Any:
    """f(*nested), for large vectors of NumPy block by block; f acts entry by entry, the same way within a kind."""
    if not in_many(nested[0]):
        return f(*nested)
    layout, made = nested[0].layout, None
    for block in layout.blocks:
        part = f(*map(block.part, nested)).whole
        if made is None:
            made = np.empty(layout.size, part.dtype)
        made[block.run] = part
    return Vectors(layout, made)


def sums_in_blocks(f: Callable[..., Iterable[Iterable[Array]]], *nested: Any) -> Array:
    """``entry_sums(f(*nested), …)`` for large vectors of NumPy, with the same bits: f makes the groups of one block at
    a time, and the sums of their units are kept (T21)."""
    units: dict[tuple[int, int], list[Array]] = {}
    for block in nested[0].layout.blocks:
        for i, (a,) in enumerate(f(*map(block.part, nested))):
            counted = a.dtype == bool
            units.setdefault((i, block.kind), []).append(sum64(a)[None] if counted else unit_sums(a))
    found: dict[int, Any] = {}
    for (i, _), parts in units.items():
        terms = joined(parts)
        total = tree_sum(terms) if terms.shape[0] else np.float64(0)
        found[i] = total if i not in found else found[i] + total
    return np.array([found[i] for i in sorted(found)])


def in_many(nested: Any) -> bool:
    """Whether these are vectors of NumPy, all entries of them, of several blocks."""
    return (
        isinstance(nested, Vectors)
        and type(nested.layout) is Layout
        and nested.layout.size > BLOCK
        and all(type(a) is np.ndarray for a in nested.arrays)
    )


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
    """a_i b_i in float64."""
    return entrywise(partial(fused, product64), a, b)


def product64(a: Array, b: Array) -> Array:
    """a_i b_i of two arrays, in float64."""
    xp = namespace(a, b)
    return xp.astype(a, xp.float64) * xp.astype(b, xp.float64)


def total(scalars: Any) -> Array:
    """Σ of the 0-d entries of a nesting, in order."""
    return reduce(operator.add, arrays_of(scalars))


def add(a: Controls, b: Controls) -> Controls:
    """a + b."""
    return map_controls(lambda x, y: x + y, a, b)


def subtract(a: Controls, b: Controls) -> Controls:
    """a − b."""
    return map_controls(lambda x, y: x - y, a, b)


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
