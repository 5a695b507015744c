"""The experiments on bSQH alone, each in a tiny form: declared columns, figures, and what each one rests on."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmp_ref import FixedRule, Method, NoTest, Stop, initial_controls, lenet5
from pmp_ref.data import load
from pmp_ref.second_order import largest_eigenvalue
from tests.app_data import write_images
from verification.experiments.depth import Depth
from verification.experiments.drawing import at, band, fewer_images, first_of_each_class, name_ends, power, spread
from verification.experiments.experiment import COLOURS, Context, Experiment, Row, draw, lookup, new_figure
from verification.experiments.full_batch import FullBatch
from verification.experiments.groups import NAMES, OUTPUT_STAGE, Groups
from verification.experiments.mini_batch import RHO, MiniBatch
from verification.experiments.non_smooth import Along, NonSmooth
from verification.experiments.solving import Images, follow, problem
from verification.experiments.solving import images as prepare
from verification.experiments.store import Store

Results = list[dict[str, Any]]


def tiny(experiment: Experiment, tmp_path: Path, choose: Any, **changes: Any) -> Results:
    """Stored rows: the quick rows for which ``choose`` holds, with other settings; options by ``options__name``."""
    options = {k.removeprefix("options__"): v for k, v in changes.items() if k.startswith("options__")}
    plain = {k: v for k, v in changes.items() if not k.startswith("options__")}
    results, store = [], Store(tmp_path, experiment.name)
    for row in experiment.rows(quick=True):
        if not choose(row.settings):
            continue
        settings = row.settings | plain
        if options:
            settings["options"] = settings["options"] | options
            if settings.get("before"):
                settings["before"] = settings["before"] | {k: v for k, v in options.items() if k != "rho"}
        results.append(store.run(experiment, Row(row.key, settings), 1, lambda line: None))
    assert results
    return results


def complete(experiment: Experiment, results: Results, directory: Path) -> None:
    """Every column is there in some row, no name is foreign to a row, figures are written in both forms."""
    for name in experiment.columns:
        assert any(lookup(r, name) is not None for r in results), name
        for r in results:
            assert name in r["result"] or name in r["settings"], name
    headings, lines = experiment.table(results)
    assert len(headings) == len(experiment.columns) and len(lines) == len(
        {re.sub("-seed[0-9]+$", "", r["key"]) for r in results}
    )
    paths = draw(experiment, results, directory)
    light = {p.stem for p in paths if p.suffix == ".svg"}
    assert light and {p.name for p in paths} == {s + e for s in light for e in (".png", ".svg", "-dark.png")}
    for p in paths:
        assert p.stat().st_size > 5000
        assert len(experiment.alt(p.stem.removesuffix("-dark"))) > 40


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Small images of three classes, 28×28, for the runs by ``pmp-ref train``."""
    return str(write_images(tmp_path_factory.mktemp("data") / "images.npz", train=90, test=30, size=28))


@pytest.fixture(scope="module")
def few() -> Images:
    return prepare(load("mnist-subset"), 3, 2)


# full batch


def test_full_batch(stripes: str, tmp_path: Path) -> None:
    """J falls in every accepted step, the sweeps are those of T8's accounting, float64 agrees."""
    results = tiny(
        FullBatch(),
        tmp_path,
        lambda s: s["rho"] == 1e-4,
        images_per_class=20,
        budget=20,
        options__data=stripes,
        options__steps="14",
        options__check_descent="all",
    )
    complete(FullBatch(), results, tmp_path / "figures")
    assert [r["settings"]["variant"] for r in results] == ["classic", "curvature"]
    for stored in results:
        r, curves = stored["result"], stored["result"]["curves"]
        assert r["training_images"] == 60  # of 81 that are not held out
        assert r["steps_with_rise"] == 0 and r["descent_violations"] == 0 and r["descent_checked"] == 14
        assert np.all(np.diff(curves["J"]) < 0)
        assert curves["rejections"][-1] == r["rejections"] == len(curves["rejected_eps"])
        assert r["sweeps"] == curves["sweeps"][-1] == r["forward_sweeps"] + r["backward_sweeps"]
        assert r["forward_sweeps"] == 1 + r["accepted_steps"] + r["rejections"]  # a rejection costs one forward sweep
        assert r["backward_sweeps"] == r["accepted_steps"]
        before = [J for J, sweeps in zip(curves["J"], curves["sweeps"], strict=True) if sweeps <= 20]
        assert r["objective_at_budget"] == before[-1]
    classic = results[0]["result"]["curves"]["eps"]
    assert all(
        b / a == pytest.approx(0.9)
        for a, b, n in zip(
            classic[1:], classic[2:], np.diff(results[0]["result"]["curves"]["rejections"])[1:], strict=False
        )
        if n == 0
    )


# mini-batches


def test_mini_batch(stripes: str, tmp_path: Path) -> None:
    """With the test on no step raises J of its batch. Without it a small fixed ε does; with it the same ε ends."""
    results = tiny(
        MiniBatch(),
        tmp_path,
        lambda s: True,
        options__data=stripes,
        options__check_descent="all",
        batch_size=64,
        options__batch_size="9",
        options__epochs="3",
    )
    complete(MiniBatch(), results, tmp_path / "figures")
    on = [r["result"] for r in results if r["settings"]["acceptance"] == "absolute"]
    assert len(on) == 4 and all(r["percent_rise"] == 0 and r["descent_violations"] == 0 for r in on)
    by = {(r["settings"]["rule"], r["settings"]["acceptance"]): r["result"] for r in results}
    trap = by["fixed-0.02", "none"]
    assert trap["percent_rise"] > 0 and trap["descent_violations"] > 0
    assert trap["accepted_steps"] == 27 and trap["rejections"] == 0
    assert by["fixed-0.02", "absolute"]["status"] == "augmentation limit"
    collapse = by["classic", "none"]["curves"]["eps"]  # nothing is ever rejected: ε ← 0.9 ε in every step
    assert collapse[-1] == pytest.approx(collapse[1] * 0.9 ** (len(collapse) - 2))
    epochs = by["curvature", "absolute"]["curves"]
    assert len(epochs["epoch"]) == len(epochs["epoch_loss"]) == len(epochs["seconds"]) == 4


def test_mini_batch_rows_pair_test_on_and_off() -> None:
    """Each row without test has a partner with it that differs in nothing else."""
    rows = [row.settings for row in MiniBatch().rows(quick=False)]
    off = [s for s in rows if s["acceptance"] == "none"]
    assert off and {s["rho"] for s in off} == {0.0, RHO}
    for s in off:
        partner = s | {"acceptance": "absolute", "options": s["options"] | {"acceptance": "absolute"}}
        assert partner in rows


# groups


def test_groups(stripes: str, tmp_path: Path) -> None:
    """Nothing is taken out of a full network; a price above all gains empties it, and the row says so."""
    small = {
        "options__data": stripes,
        "options__epochs": "1",
        "options__batch_size": "27",
        "options__check_descent": "1",
    }
    results = tiny(Groups(), tmp_path / "low", lambda s: s["rho"] in (0.3, 0.6), options__rho="1e-6", **small)
    complete(Groups(), results, tmp_path / "figures")
    weights, sums = 60_882, 6 * 25 * 784 + 16 * 150 * 100 + 400 * 120 + 120 * 84 + 84 * 3  # three classes
    for stored in results:
        r = stored["result"]
        assert [r[name] for name in NAMES] == [6, 16, 120, 84] and not r["disconnected"]
        assert r["compact_weights"] == weights == r["total_weights"] and r["multiply_adds"] == sums
        assert r["descent_violations"] == 0
        assert r["descent_checked"] == (6 if stored["settings"]["before"] else 3)  # both phases
    (dead,) = tiny(
        Groups(), tmp_path / "high", lambda s: s["rho"] == 0.6, options__rho="50", options__ramp="none", **small
    )
    assert dead["result"]["disconnected"] and dead["result"]["multiply_adds_percent"] < 6
    assert dead["result"]["kept_weights"] == 84 * 3  # the output layer is not penalised


def test_group_penalty_spares_the_output_stage() -> None:
    """The stage that the rows leave unpenalised is the last one with a kernel."""
    assert lenet5().layers()[-1] + 1 == OUTPUT_STAGE  # behind Pixels
    grouped = [row.settings["options"] for row in Groups().rows(False) if row.settings["penalty"] != "l0"]
    assert all(o["regulariser"] == "group-l0" and o["layer_weights"] == f"{OUTPUT_STAGE}=0" for o in grouped)


# drawing and data


def test_at_and_band() -> None:
    """A curve holds its last value; a band spans the curves where all of them are defined, None is a gap."""
    curve = ([0, 2, 4], [1.0, None, 3.0])
    assert at(curve, np.array([-1.0, 0.0, 1.0, 4.0, 5.0])).tolist()[1:4] == [1.0, 1.0, 3.0]
    assert np.isnan(at(curve, np.array([-1.0, 2.0, 5.0]))).all()
    axis = new_figure()[1]
    band(axis, [([0, 1, 2], [1.0, 2.0, 9.0]), ([0, 1], [3.0, 4.0])], {"color": "0", "ls": "-"}, "both")
    assert axis.lines[0].get_xdata().tolist() == [0, 1] and axis.lines[0].get_ydata().tolist() == [2.0, 3.0]
    low, high = axis.collections[0].get_paths()[0].get_extents().intervaly
    assert (low, high) == (1.0, 4.0)


def seen(colour: str, matrix: list[list[float]]) -> np.ndarray:
    """A colour as Lab, as an eye sees it whose loss is that matrix on linear sRGB."""
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.clip(np.array(matrix) @ np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4), 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    f = np.cbrt(xyz / [0.9505, 1.0, 1.0888])
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


EYES = {  # Machado, Oliveira, Fernandes 2009, full loss of one kind of cone
    "all cones": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


@pytest.mark.parametrize("eye", EYES)
def test_colours_of_curves_stay_apart(eye: str) -> None:
    """On both papers, for every eye: 20 in Lab, where 10 is seen at a glance; and not lost on the paper."""
    for ink, colours in COLOURS.items():
        labs = [seen(c, EYES[eye]) for c in colours[:4]]
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(labs, 2)) > 20
        assert all(abs(seen(c, EYES[eye])[0] - seen(ink.paper, EYES[eye])[0]) > 30 for c in colours)
    grey = [seen(c, EYES[eye]) for c in ("#000000", "#595959", "#8c8c8c", "#333333")]  # what the figures had before
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(grey, 2)) < 20


def test_names_of_lines_do_not_cover_each_other() -> None:
    axis = new_figure()[1]
    for end in (1.0, 1.001, 0.999, 0.2):
        axis.plot([0, 1], [0.0, end], label=f"{end}")
    name_ends(axis, 0.1)
    heights = sorted(text.xy[1] for text in axis.texts)
    assert len(heights) == 4 and min(np.diff(heights)) > 0.0999
    from_below = sorted(axis.lines, key=lambda line: line.get_ydata()[-1])
    assert [text.get_color() for text in axis.texts] == [line.get_color() for line in from_below]


def test_spread_leaves_missing_values_out() -> None:
    stored = [{"result": {"a": v}, "settings": {}} for v in (3.0, None, 1.0, 2.0)]
    assert spread(stored, "a") == (1.0, 2.0, 3.0)
    assert all(math.isnan(v) for v in spread(stored, "b"))


@pytest.mark.parametrize(
    ("value", "text"), [(1e-4, "10⁻⁴"), (5e-3, "5·10⁻³"), (0.0, "0"), (1.0, "10⁰"), (1e12, "10¹²")]
)
def test_power(value: float, text: str) -> None:
    assert power(value) == text


def test_first_of_each_class() -> None:
    labels = np.array([0, 1, 0, 1, 1, 0, 2])
    assert first_of_each_class(labels, 2, 3).tolist() == [0, 1, 2, 3, 6]
    assert fewer_images(1) is not None


def test_halved_images_are_means_of_four() -> None:
    data = load("mnist-subset")
    small = prepare(data, 2, 1, halved=True)
    assert small.x.shape == (20, 1, 14, 14) and small.test_x.shape == (10, 1, 14, 14) and small.x.dtype == np.float32
    raw = data.train_images[first_of_each_class(data.train_labels, 2, 10)].astype(float)
    means = np.round((raw[:, :, ::2, ::2] + raw[:, :, 1::2, ::2] + raw[:, :, ::2, 1::2] + raw[:, :, 1::2, 1::2]) / 4)
    assert small.x == pytest.approx((means - means.mean()) / means.std(), abs=1e-5)
    assert small.y.tolist() == data.train_labels[first_of_each_class(data.train_labels, 2, 10)].tolist()


# following a run


@pytest.mark.parametrize("batch_size", [None, 6])
def test_follow_sees_a_rise(few: Images, batch_size: int | None) -> None:
    """Without test and with a tiny fixed ε steps raise J: the second opinion counts them, on the step's own batch."""
    p = problem(lenet5(), 1e-4, few.x, 1)
    wild = Method(rule=FixedRule(eps0=1e-3), acceptance=NoTest())
    run = follow(p, few, wild, Stop(steps=4), batch_size, 0, 1, Context(Path()))
    rises = sum(r.delta_J > 0 for r in run.solution.steps)
    assert run.tally.checked == 4 and rises > 0 and run.tally.violations >= rises
    tame = follow(p, few, Method(), Stop(steps=4), batch_size, 0, 1, Context(Path()))
    assert tame.tally.checked == 4 and tame.tally.violations == 0


# depth


def test_depth(tmp_path: Path) -> None:
    results = tiny(
        Depth(),
        tmp_path,
        lambda s: True,
        images_per_class=3,
        test_per_class=2,
        batch_size=10,
        epochs=2,
        check_every=2,
        target=3.0,
    )
    complete(Depth(), results, tmp_path / "figures")
    assert sorted({r["result"]["layers"] for r in results}) == [8, 14]
    for stored in results:
        r = stored["result"]
        assert r["accepted_steps"] == 6 and r["descent_checked"] == 3 and r["descent_violations"] == 0
        assert r["sweeps_to_target"] == stored["result"]["curves"]["loss_at"][0]  # loss 3 is reached at once
        assert r["first_c_hat"] > 0 and r["c_hat_spread"] >= 1
    first = {r["settings"]["metric"]: r["result"]["first_c_hat"] for r in results if r["result"]["layers"] == 8}
    assert len(set(first.values())) == 3  # the metric reaches the solver


def test_depth_says_what_is_missing(tmp_path: Path) -> None:
    row = Depth().rows(quick=True)[0]
    with pytest.raises(ValueError, match="has fewer than 100000 images of a class"):
        Depth().run(Row(row.key, row.settings | {"images_per_class": 100000}), Context(tmp_path, 1))


# without smoothness


def test_non_smooth(tmp_path: Path) -> None:
    """tanh and average pooling: T5 to quadrature, T6 in every step. ReLU and max pooling: a part of Ĉ is in kinks."""
    results = tiny(
        NonSmooth(),
        tmp_path,
        lambda s: True,
        images_per_class=2,
        test_per_class=2,
        steps=6,
        apart=[2, 4],
        nodes=12,
        ray=3,
        check_every=1,
    )
    complete(NonSmooth(), results, tmp_path / "figures")
    smooth, kinked = (r["result"] for r in results)
    assert smooth["analytic"] and not kinked["analytic"]
    assert smooth["largest_kink_percent"] < 1e-3 and smooth["inequality_held"] == smooth["inequality_checked"] == 2
    assert kinked["kink_percent"] > 0.1
    for r in (smooth, kinked):  # descent is a matter of the test
        assert r["descent_violations"] == 0 and r["descent_checked"] == 6 and r["steps_with_rise"] == 0
        assert set(r["curves"]["rays"]) >= {"batch"} and len(r["curves"]["rays"]) == 5
    near = np.array(smooth["curves"]["rays"]["batch"][:20])
    assert np.ptp(near) < 1e-2 * abs(near.mean())  # Ĉ(t) → d(0)/2τ


def test_along_against_the_hessian(few: Images) -> None:
    """d(t) by differences of the remainder, and never above the largest eigenvalue; a wrong slope is seen."""
    p = problem(lenet5(), 0.0, few.x, 1)
    u = initial_controls(p.network, 0, few.x)
    w = initial_controls(p.network, 1, few.x)
    small = tuple(tuple(a + 0.1 * (b - a) for a, b in zip(x, y, strict=True)) for x, y in zip(u, w, strict=True))
    line = Along(p, u, small, few.x, few.y)
    assert line.remainder(1e-3) / (0.5e-6) == pytest.approx(line.second(0.0), rel=1e-2)
    top = largest_eigenvalue(line.p, line.u, line.x, line.y, 1e-4)
    assert line.second(0.0) <= top * line.tau * (1 + 1e-3)
    whole, (smooth, largest) = line.remainder(), line.smooth_part(10)
    assert smooth == pytest.approx(whole, rel=1e-6) and whole <= largest / 2
    line.slope *= 1.01
    assert abs(line.remainder() - smooth) > 1e-4 * abs(whole)
