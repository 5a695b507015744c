"""T21: sums that do not depend on who adds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np

from pmp_ref.arrays import UNIT, sum64, to_numpy, unit_sums
from pmp_ref.controls import BLOCK, Layout, Vectors, arrays_of, in_blocks, map_controls, products
from pmp_ref.kernels import FastSweep
from pmp_ref.kernels.ranks import Share
from pmp_ref.summation import ALONE, Alone, Node, Tree, partial_sums, subtrees
from pmp_ref.sweep import Sweep
from verification.claim import Case, Check, Context, Outcome, claim, survey
from verification.claims import problems


def by_definition(terms: list[Any]) -> Any:
    """The sum of arrays by T21's own words: split at the largest power of two below their number."""
    if len(terms) == 1:
        return terms[0]
    power = 1
    while 2 * power < len(terms):
        power *= 2
    return by_definition(terms[:power]) + by_definition(terms[power:])


@dataclass(frozen=True)
class Some(Alone):
    """A process that sweeps the chunks start, …, stop − 1 and hands out the sums that it has made."""

    start: int
    stop: int

    def part(self, count: int) -> range:
        return range(self.start, self.stop)

    def switching(self, tree: Tree, layout: Any, like: Any, vector: Any = None) -> Any:
        entries = entries_of if vector is None else vector
        return [Node(start, height, np.copy(entries(value))) for start, height, value in tree.nodes]


def entries_of(controls: Any) -> np.ndarray:
    """All entries in one vector, stage by stage."""
    return np.concatenate([to_numpy(a).ravel() for a in arrays_of(controls)])


def plus(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a + b."""
    return a + b


def joined(nodes: list[Node]) -> np.ndarray:
    """The sum of subtrees that are given in the order of their terms."""
    tree = Tree(plus)
    for node in nodes:
        tree.join(node)
    return tree.total()  # type: ignore[no-any-return]


def differing(a: np.ndarray, b: np.ndarray) -> float:
    """How many entries differ in any bit."""
    return float(np.count_nonzero(a.view(np.uint8) != b.view(np.uint8))) if a.shape == b.shape else float(a.size + 1)


def borders(case: Case, terms: int) -> list[int]:
    """0 ≤ … ≤ ``terms``: how a few processes share the terms, some of them with none."""
    inner = case.rng.integers(0, terms + 1, int(case.rng.integers(1, 5)))
    return [0, *sorted(int(b) for b in inner), terms]


def block_checks(case: Case) -> Iterator[Check]:
    """Maps and sums worked out block by block, in NumPy, by one process and by ranks that share the entries, against
    those worked out at once: entries that differ."""
    sizes = (int(case.rng.integers(1, 2 * BLOCK)), int(case.rng.integers(BLOCK, 3 * BLOCK)), 7)
    layout = Layout([[(sizes[0],), (sizes[1],)], [(sizes[2], 1)]], [["a", "b"], [None]])
    a, b = (Vectors(layout, case.rng.standard_normal(layout.size)) for _ in range(2))
    factors = ((2.0, -1.0, 0.5),)  # one for each kind
    constants = ((3.0, 0.25), (-2.0,))  # one for each control

    def f(a: Any, b: Any, factors: Any) -> Any:
        made = map_controls(lambda x, y, z, c: x * z + c * y, a, b, factors, a.layout.first(constants))
        return (made,), [arrays_of(products(a, b)), arrays_of(a), [x > 0 for x in arrays_of(a)]]

    (made,), groups = f(a, b, factors)
    sums = to_numpy(layout.sums(groups))
    (found,), groups = in_blocks(f, a, b, factors)
    yield Check(differing(found.whole, made.whole), 0.0, f"{sizes} entries mapped block by block")
    yield Check(differing(to_numpy(layout.sums(groups)), sums), 0.0, f"{sizes} entries summed block by block")
    ranks = int(case.rng.integers(2, 6))
    parts, nodes = [], defaultdict(list)
    for rank in range(ranks):
        share = Share(layout, SimpleNamespace(size=ranks, rank=rank))  # type: ignore[arg-type]
        (found,), groups = in_blocks(f, *map(share.part, (a, b, factors)))
        parts.append(found.whole)
        for (kind, start, height), row in zip(share.nodes[rank], share.sheet(groups), strict=True):
            nodes[kind].append(Node(start, height, row))
    yield Check(differing(np.concatenate(parts), made.whole), 0.0, f"{sizes} entries mapped by {ranks} ranks")
    total = reduce(plus, (joined(nodes[kind]) for kind in sorted(nodes)))
    yield Check(differing(total, sums), 0.0, f"{sizes} entries summed by {ranks} ranks")


@claim(
    tag="T21",
    title="Sums do not depend on who adds",
    statement="the bits of Σ over chunks and entries are those of one tree, whoever holds which of them",
)
def fixed_tree(context: Context) -> Outcome:
    """Statement: switching functions of chunks and sums in float64 are added along the tree that splits a, …, b − 1 at
    a + the largest power of two below b − a. Processes with consecutive chunks that add their complete subtrees, and
    whoever adds the rest, get the same bits as one process; so do threads.

    Hypotheses: any network, batch and chunk size; any borders between the processes.

    Measured: entries that differ in a bit, 0 expected. On one side g of the sweep, and g of up to six processes that
    share the chunks at random borders, clear and fast; on the other the recursion of the statement on the g of each
    chunk, swept alone. The same for Σ of vectors of up to 40 units of entries, and for maps and sums of long vectors
    that are worked out block by block, by one process or shared among up to five. Each interval is made up of complete
    sets.
    """
    library = context.library.name == "numpy"

    def one(case: Case) -> Iterator[Check]:
        s = case.cycle(problems.kinked, problems.dense)(case, samples=int(case.rng.integers(3, 14)))
        chunk = int(case.rng.integers(1, 3))
        sweeps: dict[str, Any] = {"clear": Sweep(s.network, s.problem.loss, chunk=chunk, ranks=ALONE.replicated())}
        if library:
            sweeps["fast"] = FastSweep(s.network, s.problem.loss, chunk=chunk, threads=1 + case.index % 3)
        chunks = -(-s.x.shape[0] // chunk)
        for name, sweep in sweeps.items():

            def nodes(start: int, stop: int, sweep: Sweep = sweep) -> list[Node]:
                part = replace(sweep, ranks=Some(start, stop))
                return part.forward_backward(s.controls, s.x, s.y).switching  # type: ignore[return-value]

            found = entries_of(sweep.forward_backward(s.controls, s.x, s.y).switching)
            expected = by_definition([nodes(i, i + 1)[0].value for i in range(chunks)])
            yield Check(differing(found, expected), 0.0, f"one process, {name}, {chunks} chunks, {s.name}")
            cuts = borders(case, chunks)
            shared = joined([node for a, b in pairwise(cuts) for node in nodes(a, b)])
            yield Check(differing(shared, expected), 0.0, f"chunks shared at {cuts}, {name}, {s.name}")
        found_sets = [place for b in range(13) for a in range(b) for place in subtrees(a, b)]
        crossing = sum(start % 2**height for start, height in found_sets)
        yield Check(float(crossing), 0.0, "sets of the intervals within [0, 12) that are not complete")
        size = int(case.rng.integers(1, 40 * UNIT))
        a = context.asarray(case.rng.standard_normal(size) * 10.0 ** case.rng.integers(-2, 3, size))
        units = unit_sums(a)
        total = np.asarray(by_definition([np.atleast_1d(u) for u in to_numpy(units)]))
        yield Check(differing(np.atleast_1d(to_numpy(sum64(a))), total), 0.0, f"{size} entries")
        first = int(case.rng.integers(0, units.shape[0]))
        later = unit_sums(a[first * UNIT :])
        yield Check(differing(to_numpy(later), to_numpy(units)[first:]), 0.0, f"{size} entries, from unit {first} on")
        cuts = borders(case, units.shape[0])
        parts = []
        for first, last in pairwise(cuts):
            values = partial_sums(units[first:last, ...], first) if last > first else []
            for place, value in zip(subtrees(first, last), values, strict=True):
                parts.append(Node(*place, np.atleast_1d(to_numpy(value))))
        yield Check(differing(joined(parts), total), 0.0, f"{size} entries, units shared at {cuts}")
        yield from block_checks(case)

    return survey(context, one, micro=3, quick=30, full=300)
