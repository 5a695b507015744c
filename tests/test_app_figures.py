"""Figures of a run show the numbers they are given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pmp_ref.app.figures import LIGHT, convergence, filters, histograms, path, patterns, running_mean
from pmp_ref.app.find import Goal, Member
from pmp_ref.app.find_report import curve

STEPS = {
    "forward_sweeps": [1.0, 2.0, 4.0],
    "backward_sweeps": [0.0, 1.0, 2.0],
    "J": [3.0, 2.0, 1.5],
    "loss": [2.5, 1.5, 1.0],
    "eps": [1.0, 0.5, 2.0],
}
TRIALS = {"forward_sweeps": [3.0], "backward_sweeps": [1.0], "eps": [0.25]}


def lines(axis: Any) -> dict[str, tuple[list[float], list[float]]]:
    """Label → data of the lines with one."""
    return {
        str(line.get_label()): ([float(v) for v in line.get_xdata()], [float(v) for v in line.get_ydata()])
        for line in axis.get_lines()
    }


def test_convergence_shows_objective_loss_and_both_kinds_of_trials() -> None:
    top, bottom = convergence(LIGHT, STEPS, TRIALS, False, False).axes
    sweeps = [1.0, 3.0, 6.0]
    assert lines(top) == {"J = L + ρR": (sweeps, STEPS["J"]), "loss L": (sweeps, STEPS["loss"])}
    shown = lines(bottom)
    assert shown["trials not taken (1)"] == ([4.0], [0.25])
    assert shown["ε of accepted steps"] == (sweeps, STEPS["eps"])
    assert (top.get_yscale(), bottom.get_yscale()) == ("log", "log")


def test_convergence_in_mini_batches_adds_running_means_and_says_that_rho_rises() -> None:
    top, _ = convergence(LIGHT, STEPS | {"loss": [1.0, -1.0, 1.0]}, {}, True, True).axes
    means = {label: y for label, (_, y) in lines(top).items() if "running mean" in label}
    assert list(means) == ["J = L + ρR, ρ rising (running mean over batches)", "loss L (running mean over batches)"]
    assert top.get_yscale() == "linear"  # not every loss is positive


def test_a_running_mean_is_over_the_last_values() -> None:
    values = np.arange(99.0)
    mean = running_mean(values)
    np.testing.assert_allclose(mean[:3], [0.0, 0.5, 1.0])
    np.testing.assert_allclose(mean[10], np.mean(values[8:11]))
    assert running_mean(np.array([1.0, np.nan])).tolist() == [1.0, 0.0]


def test_the_path_runs_over_kept_weights_and_ends_with_the_test() -> None:
    held = {"nonzeros": [100.0, 50.0, 20.0], "accuracy": [0.5, 0.7, 0.8], "epoch": [0.0, 1.0, 2.0]}
    tested = {"test_accuracy": 0.75, "test_accuracy_interval": (0.7, 0.78)}
    summary = {"total_weights": 200, "kept_fraction": 0.1} | tested
    (axis,) = path(LIGHT, held, summary).axes
    assert lines(axis)["held-out images, along the run"] == ([50.0, 25.0, 10.0], pytest.approx([50.0, 70.0, 80.0]))
    (bar,) = axis.containers
    (segment,) = bar[2][0].get_segments()
    np.testing.assert_allclose(segment, [[10.0, 70.0], [10.0, 78.0]])
    assert axis.xaxis_inverted() and axis.get_xscale() == "log"
    assert [t.get_text() for t in axis.texts] == ["epoch 0", "epoch 2"]


def test_histograms_count_the_nonzero_entries_of_each_layer() -> None:
    layers = [("0 Dense", np.array([[0.0, 1.0], [-2.0, 0.0]])), ("2 Dense", np.zeros((1, 2)))]
    first, second = histograms(LIGHT, layers).axes[:2]
    assert sum(patch.get_height() for patch in first.patches) == 2 and not second.patches
    assert histograms(LIGHT, 4 * layers[:1]).axes[0].get_gridspec().get_geometry() == (2, 3)
    assert "2 of 4 kept (50.0 %)" in first.get_title() and "0 of 2 kept (0.0 %)" in second.get_title()


def test_filters_show_every_kernel_on_one_scale_and_mark_what_is_negative() -> None:
    kernel = np.zeros((2, 1, 2, 3))
    kernel[0, 0, 1, 2], kernel[1, 0, 0, 1] = 4.0, -2.0
    figure = filters(LIGHT, kernel)
    (one, two) = [axis for axis in figure.axes if axis.images][:2]
    assert one.images[0].get_clim() == two.images[0].get_clim() == (-4.0, 4.0)
    assert float(one.images[0].get_array()[1, 2]) == 4.0
    assert two.collections[0].get_offsets().tolist() == [[1.0, 0.0]] and not len(one.collections[0].get_offsets())


def test_many_filters_stand_eight_in_a_row() -> None:
    for count, rows, columns in ((6, 1, 6), (9, 2, 8)):
        axes = filters(LIGHT, np.ones((count, 1, 2, 2))).axes
        assert axes[0].get_gridspec().get_geometry() == (rows, columns)
        assert sum(len(axis.images) for axis in axes) == count


@pytest.mark.parametrize("inputs", [4, 451])
def test_patterns_show_signs_and_shares(inputs: int) -> None:
    kernel = np.zeros((2, inputs))
    kernel[0, 1], kernel[1, 3] = 0.5, -0.5
    (axis,) = patterns(LIGHT, [("3 Dense", kernel)]).axes
    if inputs == 4:
        assert axis.images[0].get_array().tolist() == np.sign(kernel).tolist()
    else:
        assert axis.collections[0].get_offsets().tolist() == [[1.0, 0.0], [3.0, 1.0]]
    assert axis.get_title() == f"stage 3 Dense: {inputs} inputs, 2 outputs, {100 * 2 / (2 * inputs):.2f} % kept"


def test_the_curve_of_a_search_shows_every_network_with_its_interval_and_what_was_asked_for() -> None:
    pairs = (1000, 190), (300, 188), (0, 20), (100, 180)
    family = [Member(f"{i:02}", kept, 1000, right, 200, 0.1, 0.01) for i, (kept, right) in enumerate(pairs)]
    tested = {"test_accuracy": 0.9, "test_accuracy_interval": (0.88, 0.915)}
    (axis,) = curve(LIGHT, {"knee": "01", "chosen": "03"} | tested, Goal(1.5), family).axes
    shown = lines(axis)
    assert shown["1.5 points below the dense one"][1] == pytest.approx([93.5, 93.5])
    assert shown["knee: 300 weights"] == ([30.0], [94.0]) and shown["chosen: 100 weights"] == ([10.0], [90.0])
    held, test = axis.containers
    assert held[0].get_xdata().tolist() == [100.0, 30.0, 10.0] and held[0].get_ydata().tolist() == [95.0, 94.0, 90.0]
    for m, (low, high) in zip((family[0], family[1], family[3]), held[2][0].get_segments(), strict=True):
        np.testing.assert_allclose([low[1], high[1]], 100 * np.array(m.held.interval()))
    np.testing.assert_allclose(test[2][0].get_segments(), [[[9.4, 88.0], [9.4, 91.5]]])
