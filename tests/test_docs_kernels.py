"""The drawings of docs/kernels.md show what the kernels do: their numbers are compared with the code."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pmp_ref as pr
from pmp_ref import layers as L
from pmp_ref.controls import BLOCK
from pmp_ref.kernels import FastSweep
from pmp_ref.kernels.convolution import ConvolutionMap
from pmp_ref.kernels.filtering import WORTH, FilteredMap, cost, minimal_filter, pays
from pmp_ref.kernels.live import LiveParts
from pmp_ref.kernels.plan import plan
from pmp_ref.kernels.pooling import AveragePoolMap
from pmp_ref.kernels.stagemap import Place, to_fast
from pmp_ref.kernels.sweep import chunk_size
from pmp_ref.kernels.workspace import Workspace
from pmp_ref.network import Network
from pmp_ref.problem import Problem
from pmp_ref.summation import Tree

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "kernels.md").read_text(encoding="utf-8")
NAMES = re.findall(r"\]\(figures/kernels/(\w+)\.svg\)", PAGE)


def drawing(name: str) -> str:
    return (DOCS / "figures" / "kernels" / f"{name}.svg").read_text(encoding="utf-8")


def texts(name: str, label: str) -> list[str]:
    """The texts of a drawing that have this class, without tags inside."""
    found = re.findall(rf'<text class="(?:[^"]* )?{label}(?: [^"]*)?"[^>]*>(.*?)</text>', drawing(name))
    return [re.sub(r"<[^>]*>", "", words).replace("−", "-") for words in found]


def numbers(name: str, label: str) -> list[float]:
    return [float(n) for words in texts(name, label) for n in re.findall(r"-?\d+(?:\.\d+)?", words)]


def cells(name: str, label: str) -> list[tuple[float, float]]:
    """Left upper corners of the rectangles of this class."""
    found = re.findall(rf'<rect class="(?:[^"]* )?{label}(?: [^"]*)?" x="([\d.]+)" y="([\d.]+)"', drawing(name))
    return [(float(x), float(y)) for x, y in found]


def test_the_page_shows_every_drawing_and_each_keeps_its_styles_to_itself() -> None:
    assert sorted(NAMES) == sorted(p.stem for p in (DOCS / "figures" / "kernels").iterdir()) and len(NAMES) == 12
    for name in NAMES:
        text = drawing(name)
        assert f'id="kernels-{name}" class="drawing" data-fits=""' in text
        style = text[text.index("<style>") + 7 : text.index("</style>")]
        rules = [rule for rule in style.splitlines() if rule.strip()]
        assert rules and all(r.strip().startswith((f"#kernels-{name} ", "@media (prefers-color")) for r in rules)


def test_layout_is_what_a_chunk_looks_like_in_memory() -> None:
    x = np.array([[[[(s, c) for c in range(4)]]] for s in range(3)], dtype="i,i").reshape(3, 1, 1, 4)
    owner = {xy: s for s, colour in enumerate(("blue", "orange", "green")) for xy in cells("layout", colour)}
    places = sorted((y, x) for x, y in owner)
    drawn = list(zip([owner[x, y] for y, x in places], map(int, numbers("layout", "column")), strict=False))
    assert drawn[:12] == [(int(e[0]), int(e[1])) for e in x.ravel()]
    assert drawn[12:24] == [(int(e[0]), int(e[1])) for e in to_fast(x).ravel()]


def test_unfolding_shows_Z_and_factors_that_overlap() -> None:
    image = np.tile(np.arange(6.0), (5, 1)).reshape(1, 1, 5, 6)
    stage = ConvolutionMap(L.Convolution(1, 3), Place(0, (1, 5, 6)))
    w = Workspace(1, np.float64)
    z = stage.unfolded(w, to_fast(image), 0, 3)
    assert numbers("unfolding", "copy") == z.ravel().tolist()
    factors = stage.factor(z, 0, 3, 9, 1)[0, :, 0]
    for r in range(3):
        np.testing.assert_array_equal(factors[r], z.reshape(15, 4)[3 * r : 3 * r + 9])
    assert all(np.shares_memory(a, b) for a, b in pairwise(factors))
    assert numbers("unfolding", "factor") == [0, 1, 2]


def test_strips_have_the_rows_and_bytes_of_the_drawing() -> None:
    stage = ConvolutionMap(L.Convolution(32, 5, padding=2), Place(0, (3, 32, 32)))
    strips = list(stage.strips(32, stage.taps, 64, 4))
    assert numbers("strips", "written") == [b - a for a, b in strips]
    w = Workspace(64, np.float32)
    z = stage.unfolded(w, np.zeros((32, 3, 32, 64), np.float32), *strips[1], 1)
    assert numbers("strips", "read") == [z.shape[1]]
    assert numbers("strips", "room") == [pytest.approx(z.nbytes / 2**20, abs=0.05)]


def test_the_numbers_of_the_filter_are_right() -> None:
    of_tile, kernel, into_tile = (np.array(a, float) for a in minimal_filter(2, 3))
    d, k, p = np.array(numbers("filter", "data")), np.array([1.0, 2.0, 3.0]), np.array([2.0, 1.0])
    u, z, v = kernel @ k, into_tile @ d, of_tile.T @ p
    assert [numbers("filter", c) for c in ("moved", "kernel", "product")] == [a.tolist() for a in (z, u, u * z)]
    y = np.correlate(d, k)
    assert numbers("filter", "value") == y.tolist() == (of_tile @ (u * z)).tolist()
    assert [numbers("trilinear", f"of-{c}") for c in "kdp"] == [a.tolist() for a in (k, d, p)]
    assert [numbers("trilinear", c) for c in ("kernel", "moved", "costate")] == [a.tolist() for a in (u, z, v)]
    assert numbers("trilinear", "product") == [*(u * z), *(u * v), *(v * z)]
    costate, switching = np.convolve(p, k), np.correlate(d, p)
    assert numbers("trilinear", "result") == [*y, *costate, *switching]
    assert costate.tolist() == (into_tile.T @ (u * v)).tolist()
    assert switching.tolist() == (kernel.T @ (v * z)).tolist()


def test_matrices_on_the_page_are_those_of_the_code() -> None:
    shown = re.findall(r"\\begin\{pmatrix\}(.*?)\\end\{pmatrix\}", PAGE)
    value = {"\\tfrac12": 0.5, "-\\tfrac12": -0.5}
    found = [[[value.get(e) or float(e) for e in row.split("&")] for row in m.split("\\\\")] for m in shown]
    of_tile, kernel, into_tile = (np.array(a, float).tolist() for a in minimal_filter(2, 3))
    assert found == [into_tile, kernel, of_tile]


def test_transformed_columns_are_as_many_as_drawn() -> None:
    stage = FilteredMap(L.Convolution(1, 3, padding=1), Place(0, (1, 8, 8)))
    assert (stage.tiles, stage.lines) == (2, 12)
    assert [int(n) for n in numbers("lines", "count")] == [3 * 8, stage.lines]
    reads = [np.flatnonzero(stage.into.reshape(6, 2, 8)[:, tile].any(axis=0)) for tile in range(2)]
    assert [r.tolist() for r in reads] == [[0, 1, 2, 3, 4], [3, 4, 5, 6, 7]]  # and a column of padding each


def test_the_band_of_the_means() -> None:
    m = AveragePoolMap(L.AveragePool(2), Place(0, (1, 2, 8))).prepare(())
    xs, ys = (sorted(set(values)) for values in zip(*cells("pooling", "cell"), strict=True))
    drawn = np.zeros((len(ys), len(xs)))
    for x, y in cells("pooling", "band"):
        drawn[ys.index(y), xs.index(x)] = 0.25
    np.testing.assert_array_equal(drawn, m)


def test_the_maximum_before_relu_and_its_costate() -> None:
    network = Network((L.ReLU(), L.MaxPool(2)), (1, 2, 4))
    fast, w = plan(network), Workspace(1, np.float64)
    assert fast.maps[0].deferred  # type: ignore[attr-defined]
    x = np.array(numbers("maximum", "state")[:8]).reshape(1, 1, 2, 4)
    assert numbers("maximum", "state")[8:] == x.ravel().tolist()
    windows = x.reshape(2, 2, 2).max(axis=(0, 2))
    assert numbers("maximum", "largest") == windows.tolist()
    states = fast.forward(w, fast.prepare(((), ())), x)
    assert numbers("maximum", "value") == states[-1].ravel().tolist() == [3, 0]
    y = states[-1].copy()
    _, back = fast.maps[1].backward(w, (), states[1], y, np.full((1, 1, 2, 1), 7.0), True)
    assert [t.replace("p", "7") for t in texts("maximum", "costate")] == [f"{v:g}" for v in back.ravel()]


def test_the_tree_of_six_chunks() -> None:
    assert chunk_size(6 * 64, 4) == 64
    tree = Tree(lambda a, b: f"({a} + {b})")
    for i in range(6):
        tree.push(i)
    assert texts("tree", "sum") == [f"g = {tree.total()[1:-1]}"]


def test_blocks_of_entries() -> None:
    layout = Problem(pr.lenet5_caffe(), rho=1e-3).together
    assert len(layout.blocks) == 4 and layout.size == 431_080 and "131,072 entries" in PAGE and BLOCK == 131_072
    sizes = [1e-6 * 4 * n for n in (layout.size, BLOCK)]
    assert numbers("blocks", "size") == [pytest.approx(s, abs=0.05) for s in sizes]


def test_kernels_without_their_dead_units() -> None:
    network = Network((L.Dense(6), L.Tanh(), L.Dense(4)), (5,))
    u: Any = ((np.ones((6, 5)), np.ones(6)), (), (np.ones((4, 6)), np.ones(4)))
    u[0][0][[1, 4]], u[2][0][:, [1, 4]] = 0, 0
    part = LiveParts(network).at(u, lambda smaller: smaller)
    assert part is not None
    whole, small = network.control_shapes, part.sweep.control_shapes
    for colour, stage in (("blue", 0), ("orange", 2)):
        shapes = whole[stage][0], small[stage][0]
        left = np.count_nonzero(u[stage][0])
        assert len(cells("dead", colour)) == left + np.prod(shapes[1])
    assert len(texts("dead", "zero")) == len(cells("dead", "none")) == 2 * 5 + 2 * 4


def test_bars_of_the_plain_way() -> None:
    assert numbers("plain", "limit") == [WORTH]
    shapes = [list(map(int, re.findall(r"\d+", words))) for words in texts("plain", "shape")]
    assert len(shapes) == 8
    ratios, filtered = [], []
    for fewer, more, kh, kw, rows, columns in shapes:
        stage = L.Convolution(more, (kh, kw), padding=0 if (fewer, more) in ((20, 50), (1, 20), (6, 16)) else kh // 2)
        ratios.append(round(cost(stage, (fewer, rows, columns)), 2))
        filtered.append(pays(stage, (fewer, rows, columns)))
    assert numbers("plain", "ratio") == ratios
    bars = sorted(
        [(y, True) for _, y in cells("plain", "bar blue")] + [(y, False) for _, y in cells("plain", "bar orange")]
    )
    assert [f for _, f in bars] == filtered


def test_plain_and_filtered_are_both_taken_by_networks_of_the_library() -> None:
    kinds = {type(m) for m in FastSweep(pr.lenet5_caffe(), pr.CrossEntropy()).plan.maps}
    assert {ConvolutionMap, FilteredMap} <= kinds
