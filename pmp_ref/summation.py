"""Sums whose bits do not depend on who adds: one binary tree over the numbers of the terms (T21).

The tree over the terms a, …, b − 1 splits at a + the largest power of two below b − a. Each node is one floating point
addition per entry of its two children. So the terms decide its bits, and not the process, the thread or the time. Who
holds consecutive terms adds the complete subtrees among them (:func:`subtrees`, :class:`Tree`); the few nodes above
them are added when all subtrees are there.

The terms are the chunks of a batch, and for sums over the controls runs of ``UNIT`` entries. :class:`Alone` says that
one process holds them all; ``pmp_ref.kernels.ranks`` shares them out among processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from pmp_ref.arrays import Array, Controls, joined, namespace, sums, tree_sum
from pmp_ref.controls import Layout, Vectors, by_stage


class Node(NamedTuple):
    """The sum of the terms start, …, start + 2^height − 1."""

    start: int
    height: int
    value: Any


class Tree:
    """The sum of terms that come in their order, from the term ``first`` on; about log₂ of them are held at once.

    ``plus(a, b)`` is the sum of two values; it may write into either. ``count`` is the number of all terms, those of
    other processes too.
    """

    def __init__(self, plus: Callable[[Any, Any], Any], first: int = 0, count: int = 0) -> None:
        self.plus, self.next, self.count = plus, first, count
        self.nodes: list[Node] = []  # the complete subtrees so far, each the largest there is

    def push(self, term: Any) -> None:
        """Add the next term."""
        self.join(Node(self.next, 0, term))

    def join(self, node: Node) -> None:
        """Add a complete subtree that begins where the last ended."""
        self.next = node.start + 2**node.height
        while self.nodes and siblings(self.nodes[-1], node):
            left = self.nodes.pop()
            node = Node(left.start, left.height + 1, self.plus(left.value, node.value))
        self.nodes.append(node)

    def total(self) -> Any:
        """The sum of all terms, the first of which is term 0: what is left is folded from the right."""
        *left, last = self.nodes
        value = last.value
        for node in reversed(left):
            value = self.plus(node.value, value)
        return value


def siblings(left: Node, right: Node) -> bool:
    """Whether two neighbouring subtrees are the children of one node."""
    return left.height == right.height and left.start % 2 ** (left.height + 1) == 0


def subtrees(start: int, stop: int) -> list[tuple[int, int]]:
    """(first term, height) of the largest complete subtrees that make up the terms start, …, stop − 1, in order."""
    found = []
    while start < stop:
        height = (stop - start).bit_length() - 1
        if start:
            height = min(height, (start & -start).bit_length() - 1)
        found.append((start, height))
        start += 2**height
    return found


def partial_sums(rows: Array, start: int) -> list[Array]:
    """The complete subtrees of terms start, start + 1, … that are the rows of an array; their sums, in order."""
    stop = start + rows.shape[0]
    return [tree_sum(rows[a - start : a - start + 2**h, ...]) for a, h in subtrees(start, stop)]


def laid_out(layout: Layout, entries: Array) -> Controls:
    """Controls whose entries lie in one vector, stage by stage."""
    return layout.views(entries) if layout.trivial else by_stage(Vectors(layout, entries))


class Alone:
    """One process, that holds all chunks of a batch and all entries of the controls."""

    def __eq__(self, other: object) -> bool:
        return self is other or type(self) is type(other) is Alone

    def __hash__(self) -> int:
        return hash(type(self))

    def part(self, count: int) -> range:
        """Which of ``count`` terms this process adds."""
        return range(count)

    def replicated(self) -> Alone:
        """The same processes; each does all of the arithmetic on controls."""
        return self

    def layout(self, layout: Layout) -> Layout:
        """How this process lays out what the method computes entry by entry."""
        return layout

    def take(self, sweep: Any, x: Array, index: Array) -> Array:
        """The images of a batch; those that another process sweeps may be missing."""
        return namespace(x).take(x, index, axis=0)

    def switching(self, tree: Tree, layout: Layout, like: Array, vector: Callable[[Any], Array] | None = None) -> Any:
        """g, the sum of the chunks of all processes, from the sums that this one has in ``tree``.

        ``vector`` makes of a value of the tree its entries in a row, as the ``layout`` has them; None: the values are
        nestings. ``like`` is an array of the controls.
        """
        total = tree.total()
        return total if vector is None else laid_out(layout, vector(total))

    def sums(self, rows: Array, chunks: int, groups: Iterable[Iterable[Array]] | None, layout: Layout | None) -> Array:
        """Σ of the ``rows``, one for each chunk of this process, of ``chunks`` in all; then, if there are groups, Σ of
        all entries of each, which lie in the ``layout``."""
        found = tree_sum(rows)
        if groups is None:
            return found
        return joined([found, sums(groups) if layout is None else layout.sums(groups)])


ALONE = Alone()
