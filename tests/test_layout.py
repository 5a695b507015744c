"""Controls side by side in one vector: nothing is lost, formulas do not notice, and nothing is merged that differs."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmp_ref import layers as L
from pmp_ref.admissible import Box, FiniteSet
from pmp_ref.arrays import UNIT, joined, sum64, sums, to_numpy
from pmp_ref.batches import order_of_epoch
from pmp_ref.bsqh import bsqh
from pmp_ref.controls import (
    Layout,
    Packed,
    Vectors,
    arrays_of,
    by_stage,
    entrywise,
    in_blocks,
    map_controls,
    products,
    to_vector,
    vectors,
)
from pmp_ref.initialise import initial_controls
from pmp_ref.iterate import Iterate
from pmp_ref.kernels import FastSweep
from pmp_ref.kernels.ranks import Share, folded
from pmp_ref.loss import CrossEntropy
from pmp_ref.maximise import maximise
from pmp_ref.method import Method
from pmp_ref.metric import GradientMetric, IdentityMetric, LayerMetric
from pmp_ref.network import Network
from pmp_ref.one_step import prepare, step
from pmp_ref.problem import Problem, everywhere
from pmp_ref.regulariser import L0, L1, GroupL0, LHalf, Polynomial
from pmp_ref.stop import Stop
from pmp_ref.summation import Node
from tests.backends import Backend
from tests.strategies import seeds

NET = Network(
    (L.Convolution(3, (2, 3)), L.Tanh(), L.Flatten(), L.Dense(4), L.Tanh(), L.Dense(3, bias=False)), (2, 4, 5)
)


def controls(seed: int = 0) -> Any:
    generator = np.random.default_rng(seed)
    return tuple(tuple(generator.standard_normal(s) for s in stage) for stage in NET.control_shapes)


def data() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    return generator.standard_normal((12, *NET.input_shape)), generator.integers(0, 3, 12)


@given(st.lists(st.lists(st.sampled_from([None, "a", "b"]), max_size=3), min_size=1, max_size=4), seeds)
def test_there_and_back(kinds: list[list[str | None]], seed: int) -> None:
    """Any kinds: every array comes back, equal kinds are one array, entries of a kind keep the order of the stages."""
    generator = np.random.default_rng(seed)
    shapes = [[tuple(generator.integers(1, 4, generator.integers(1, 3))) for _ in stage] for stage in kinds]
    nested = tuple(tuple(generator.standard_normal(s) for s in stage) for stage in shapes)
    if not any(shapes):
        return
    layout = Layout(shapes, kinds)
    packed = layout.vectors(nested)
    for a, b in zip(arrays_of(by_stage(packed)), arrays_of(nested), strict=True):
        np.testing.assert_array_equal(a, b)
    flat = [kind for stage in kinds for kind in stage]
    assert len(packed[0]) == flat.count(None) + len({kind for kind in flat if kind is not None})
    of_a = [
        a.ravel()
        for stage, row in zip(kinds, nested, strict=True)
        for kind, a in zip(stage, row, strict=True)
        if kind == "a"
    ]
    if of_a:
        np.testing.assert_array_equal(packed[0][layout.first(kinds)[0].index("a")], np.concatenate(of_a))


def test_views_share_the_vector() -> None:
    problem = Problem(NET, rho=1e-3)
    v = vectors(controls(), problem.together)
    assert isinstance(v, Vectors) and [a.size for a in v[0]] == [36 + 4 * 27 + 12, 3 + 4]
    for a in arrays_of(by_stage(v)):
        assert np.shares_memory(a, v.whole)
    assert vectors(by_stage(v), problem.together) is v
    assert vectors(None, problem.together) is None
    again = pickle.loads(pickle.dumps(by_stage(v)))
    assert isinstance(again, tuple) and len(again) == len(NET.stages)


def test_what_differs_is_not_merged() -> None:
    """Penalties, weights, sets and names keep controls apart; so does what has no hash; groups keep their shape."""
    kinds = lambda problem: len(problem.together.members)  # noqa: E731
    assert kinds(Problem(NET, rho=1.0)) == 2  # kernels, biases
    assert kinds(Problem(NET, rho=1.0, weights=((1.0, 0.0), (), (), (2.0, 0.0), (), (1.0,)))) == 3
    assert kinds(Problem(NET, rho=1.0, weights=everywhere(NET, 1.0))) == 2  # a bias is no kernel
    sets = ((Box(), Box()), (), (), (FiniteSet((0.0, 1.0)), Box()), (), (Box(-1.0, 1.0),))
    assert kinds(Problem(NET, rho=1.0, admissible=sets)) == 4
    assert kinds(Problem(NET, rho=1.0, regulariser=GroupL0())) == 5

    @dataclass(frozen=True)
    class Entrywise(Box):
        """A box with bounds of its own for each entry."""

        bound: Any = None

        def project(self, w: Any) -> Any:
            return np.clip(w, -self.bound, self.bound)

    own = tuple(tuple(Entrywise(bound=np.ones(s)) for s in stage) for stage in NET.control_shapes)
    problem = Problem(NET, rho=1.0, admissible=own)
    assert kinds(problem) == 5 and problem.together.trivial
    own = ((own[0][0], Box()), (), (), (Box(), Box()), (), (Box(),))
    v = vectors(controls(), Problem(NET, rho=1.0, admissible=own).together)
    assert [a.shape for a in v[0]] == [NET.control_shapes[0][0], (3 + 4,), (4 * 27 + 12,)]


@pytest.mark.parametrize("regulariser", [L0(), L1(), GroupL0()])
@given(seeds)
def test_formulas_do_not_notice(regulariser: Any, seed: int) -> None:
    problem = Problem(NET, rho=0.2, regulariser=regulariser)
    u, g, d = controls(seed), controls(seed + 1), map_controls(abs, controls(seed + 2))
    su, sg, sd = (vectors(nested, problem.together) for nested in (u, g, d))
    for metric, packed in ((None, None), (d, sd)):
        expected = maximise(problem, u, g, 0.7, 0.2, metric)
        found = by_stage(maximise(problem, su, sg, 0.7, 0.2, packed))
        for a, b in zip(arrays_of(found), arrays_of(expected), strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(float(problem.penalty(su)), float(problem.penalty(u)), rtol=1e-14)
    np.testing.assert_array_equal(to_vector(by_stage(entrywise(np.square, su))), to_vector(u) ** 2)


def test_runs_do_not_notice() -> None:
    """A metric that is not said to act entry by entry keeps the controls apart; the run is the same to rounding."""

    class Same(GradientMetric):
        """The metric again; what a class inherits is not said of it."""

    problem, (x, y) = Problem(NET, rho=1e-3), data()
    runs = [
        bsqh(problem, controls(), x, y, stop=Stop(steps=8), method=Method(metric=metric), batch_size=5)
        for metric in (GradientMetric(), Same())
    ]
    assert isinstance(runs[0].controls, Packed) and not isinstance(runs[1].controls, Packed)
    assert [r.verdict for r in runs[0].records] == [r.verdict for r in runs[1].records]
    np.testing.assert_allclose(to_vector(runs[0].controls), to_vector(runs[1].controls), rtol=1e-9, atol=1e-12)
    layer = bsqh(problem, controls(), x, y, stop=Stop(steps=3), method=Method(metric=LayerMetric()))
    assert not isinstance(layer.controls, Packed)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_joined_and_sums(backend: Backend, dtype: Any) -> None:
    generator = np.random.default_rng(0)
    hosts = [generator.standard_normal(s).astype(dtype) for s in ((3, 5), (), (70_001,), (2, 1, 4))]
    arrays = [backend.asarray(a) for a in hosts]
    np.testing.assert_array_equal(to_numpy(joined(arrays)), np.concatenate([a.ravel() for a in hosts]))
    np.testing.assert_array_equal(to_numpy(joined(arrays[:1])), hosts[0].ravel())
    found = sums([arrays, arrays[2:3], [a > 0 for a in arrays], [arrays[0][:0, :], arrays[1]]])
    wide = [a.astype(np.float64) for a in hosts]
    expected = [sum(a.sum() for a in wide), wide[2].sum(), sum(float((a > 0).sum()) for a in hosts), wide[1]]
    assert found.dtype == backend.xp.float64 and found.device == backend.device
    np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-12)  # other orders of 70,000 terms
    assert float(to_numpy(sum64(arrays[2] > 0))) == (hosts[2] > 0).sum()


def test_a_mini_batch_trial_sweeps_forward_only() -> None:
    """The next control meets another batch: no costates are taken along, no states kept; in full batch they are."""
    x, y = data()
    for full, backward in ((False, 1), (True, 2)):
        sweep = FastSweep(NET, CrossEntropy(), memory=0)  # no room for states: costates are taken along
        problem, method = Problem(NET, rho=1e-3, sweep=sweep), Method()
        it = prepare(problem, method, Iterate(initial_controls(NET, 0, x), 10.0), x, y)
        it, record = step(problem, method, it, x, y, full=full)
        assert record.accepted and (it.counts.forward_sweeps, it.counts.backward_sweeps) == (2, backward)
        assert it.current.evaluation is not None and it.current.evaluation.states is None
    s = bsqh(replace(problem), controls(), x, y, stop=Stop(epochs=2), batch_size=4)
    assert s.iterate.counts.backward_sweeps == 6 and s.iterate.counts.forward_sweeps == 6 + len(s.records)


def test_an_epoch_has_one_order() -> None:
    a = order_of_epoch(50, 3, 1)
    assert order_of_epoch(50, 3, 1) is a and not a.flags.writeable
    assert sorted(a) == list(range(50)) and list(a) != list(order_of_epoch(50, 3, 2))


WIDE = Network((L.Dense(110), L.Tanh(), L.Dense(60), L.Tanh(), L.Dense(3)), (40,))  # kernels of two units and a part


@pytest.mark.parametrize(
    "choice",
    [
        {"regulariser": L0()},
        {"regulariser": Polynomial(a0=1.0, a1=0.1, a2=0.5), "admissible": Box(-0.1, 0.2)},
        {"regulariser": LHalf(), "metric": LayerMetric()},
        {"regulariser": L0(), "admissible": FiniteSet((-0.5, 0.0, 0.5)), "metric": IdentityMetric()},
        {"regulariser": tuple(tuple(GroupL0() if len(s) > 1 else L0() for s in u) for u in WIDE.control_shapes)},
        {"regulariser": L0(), "batch": None},
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_blocks_change_no_bit(choice: dict[str, Any], dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is worked out block by block is what is worked out at once, sums included (T21)."""
    generator = np.random.default_rng(4)
    x, y = generator.standard_normal((50, 40)).astype(dtype), generator.integers(0, 3, 50)
    batch = choice.get("batch", 20)
    metric = choice.get("metric", GradientMetric())
    method = Method(metric=metric) if batch is None else Method.minibatch(metric=metric)
    given = {name: choice[name] for name in ("regulariser", "admissible") if name in choice}
    found = []
    for block in (UNIT, 10**9):
        monkeypatch.setattr("pmp_ref.controls.BLOCK", block)
        problem = Problem(WIDE, rho=1e-3, sweep=FastSweep(WIDE, CrossEntropy()), **given)
        u = problem.project(initial_controls(WIDE, 0, x))
        found.append(bsqh(problem, u, x, y, stop=Stop(epochs=4), method=method, batch_size=batch))
        assert len(problem.together.blocks) >= 3 if block == UNIT else len(problem.together.blocks) == 1
    assert list(map(repr, found[0].records)) == list(map(repr, found[1].records)) and len(found[0].records) > 3
    for a, b in zip(arrays_of(found[0].controls), arrays_of(found[1].controls), strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 40])
def test_a_share_is_worked_out_in_blocks(ranks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks that hold parts of the entries find the same bits as one process, block by block; some hold nothing."""
    generator = np.random.default_rng(ranks)
    layout = Layout([[(13 * UNIT + 5,), (2 * UNIT, 2)], [(UNIT + 1,), (9,)]], [["a", None], ["b", "a"]])
    a, b = (Vectors(layout, generator.standard_normal(layout.size)) for _ in range(2))
    sizes: list[int] = []

    def f(a: Any, b: Any, factors: Any) -> Any:
        sizes.append(a.whole.size)
        made = map_controls(lambda x, y, z: x * y + z, a, b, factors), entrywise(np.square, b)
        return made, [arrays_of(products(a, b)), arrays_of(a), [x > y for x, y in zip(a[0], b[0], strict=True)]]

    factors = ((1.0, 2.0, 3.0),)
    made, groups = f(a, b, factors)
    sums = layout.sums(groups)
    monkeypatch.setattr("pmp_ref.controls.BLOCK", UNIT)
    sizes.clear()
    shares = [Share(layout, SimpleNamespace(size=ranks, rank=rank)) for rank in range(ranks)]
    found = [in_blocks(f, *map(share.part, (a, b, factors))) for share in shares]
    assert sum(share.held for share in shares) == layout.held == layout.size == shares[0].size
    assert sum(sizes) == layout.size and max(sizes) == 4 * UNIT  # the control of a kind of its own is one unit
    assert min(share.held for share in shares) == 0 or ranks < 40
    for i, whole in enumerate(made):
        assert joined([parts[i].whole for parts, _ in found]).tobytes() == whole.whole.tobytes()
    nodes: dict[int, list[Node]] = {0: [], 1: [], 2: []}
    for share, (_, groups) in zip(shares, found, strict=True):
        for (kind, *place), row in zip(share.nodes[share.ranks.rank], share.sheet(groups), strict=True):
            nodes[kind].append(Node(*place, row))
    assert sum(map(folded, nodes.values())).tobytes() == sums.tobytes()
