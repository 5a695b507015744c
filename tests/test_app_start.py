"""``train --start`` and ``certify``: runs from a model of one's own, and what is said of it."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pmp_ref as pr
from pmp_ref.app.certify import words
from pmp_ref.app.main import main
from pmp_ref.app.options import from_json, resolve, to_json
from pmp_ref.app.start import read_start
from pmp_ref.controls import arrays_of, cast
from pmp_ref.model import behind_pixels
from tests.app_data import TINY, bad, results, run, summary, write_images
from tests.test_app_resume import Killed, break_after

HAS_ONNX = importlib.util.find_spec("onnx") is not None
PLAIN = ("--acceptance", "relative")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "d.npz")


def own(data: Path, with_statistics: bool = True, seed: int = 3) -> pr.Model:
    """A network that no name builds, with a skip, and weights of its own."""
    images = pr.load(data)
    act, (c, h, w) = pr.Tanh(), images.train_images.shape[1:]
    stages = [
        pr.Convolution(3, 3, 2),
        act,
        pr.residual(pr.Convolution(3, 1), act),
        pr.Flatten(),
        pr.Dense(images.classes),
    ]
    network = pr.Network(stages, (c, h, w))
    controls = cast(pr.initial_controls(network, seed, np.zeros(1)), "float32")
    names = tuple(f"kind {k}" for k in range(images.classes))
    model = pr.Model(network, controls, names)
    return behind_pixels(model, (0.3,) * c, (0.4,) * c) if with_statistics else model


@pytest.fixture(scope="module")
def start(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("start") / "own.npz"
    own(data).save(path)
    return path


def test_a_run_begins_with_the_weights_given(data: Path, start: Path, tmp_path: Path) -> None:
    assert run(data, tmp_path / "r", "--start", str(start), "--steps", "0", "--epochs", "none") == 0
    before, after = pr.read_model(start), pr.read_model(tmp_path / "r")
    assert after.network == before.network and after.class_names == before.class_names
    for a, b in zip(arrays_of(after.controls), arrays_of(before.controls), strict=True):
        assert a.tobytes() == b.tobytes()


def test_a_run_goes_on_from_there_and_its_model_can_be_used(
    data: Path, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r"
    assert run(data, out, "--start", str(start), "--epochs", "3", "--rho", "1e-3") == 0
    first = float((out / "history.csv").read_text().splitlines()[1].split(",")[3])
    assert summary(out)["train_loss"] < first and summary(out)["descent_violations"] == 0
    assert "own.npz on d.npz" in (out / "report.html").read_text(encoding="utf-8")
    for command in (["inspect"], ["compact"], ["certify", "--data", str(data)]):
        assert main([command[0], str(out), *command[1:]]) == 0
    images = pr.load(data)
    compacted, whole = pr.read_model(out), pr.read_model(out / "model.npz")
    assert np.allclose(compacted.outputs(images.train_images), whole.outputs(images.train_images), atol=1e-4)


def test_a_broken_run_ends_as_an_unbroken_one_without_the_file_it_began_with(
    data: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy.npz"
    copy.write_bytes(start.read_bytes())
    assert run(data, tmp_path / "whole", "--start", str(copy)) == 0
    with monkeypatch.context() as patch:
        break_after(3, patch)
        with pytest.raises(Killed):
            run(data, tmp_path / "broken", "--start", str(copy))
    copy.unlink()
    assert main(["train", "--resume", str(tmp_path / "broken"), *TINY[4:]]) == 0
    assert results(tmp_path / "broken") == results(tmp_path / "whole")


def test_another_copy_is_not_taken_for_the_start(
    data: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    break_after(1, monkeypatch)
    with pytest.raises(Killed):
        run(data, tmp_path / "r", "--start", str(start))
    own(data, seed=4).save(tmp_path / "r" / "start.npz")
    bad(capsys, ["train", "--resume", str(tmp_path / "r")], "is not the model that the run began with")
    (tmp_path / "r" / "start.npz").unlink()
    bad(capsys, ["train", "--resume", str(tmp_path / "r")], "no file")


def test_what_does_not_fit_a_start_is_refused(
    data: Path, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ["train", "--start", str(start), "--data", str(data), "--out", str(tmp_path / "r")]
    for option in (["--network", "lenet5"], ["--activation", "relu"], ["--pooling", "max"]):
        bad(capsys, [*at, *option], f"{option[0]} {option[1]} with --start", "leave")
    bad(capsys, ["train", "--start", str(start), "--data", "mnist-subset"], "the model takes", "the data have")
    bad(capsys, ["train", "--start", str(data), "--data", str(data)], "holds no model")
    bad(capsys, ["train", "--start", str(tmp_path / "nowhere"), "--data", str(data)], "nowhere")
    assert not (tmp_path / "r").exists()


def test_a_configuration_names_a_network_or_a_start(start: Path) -> None:
    stored = to_json(resolve({"start": str(start)}))
    assert from_json(stored) == resolve({"start": str(start)})
    older = to_json(resolve({}))
    del older["start"]
    assert from_json(older) == resolve({})
    for wrong in (stored | {"start": None}, stored | {"network": "lenet5"}, older | {"activation": None}):
        with pytest.raises(pr.InputError, match="a network nor a start"):
            from_json(wrong)


def certified(path: Path, data: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    """What ``certify --json`` prints, strictly read."""
    capsys.readouterr()
    assert main(["certify", str(path), "--data", str(data), "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def test_certify_gives_the_certificate_of_the_library(
    data: Path, start: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = certified(start, data, capsys, "--rho", "1e-3", "--images", "20")
    model, floats, images = pr.read_model(start), own(data, with_statistics=False), pr.load(data)
    x = pr.standardise(images.train_images[:20], (0.3,), (0.4,))
    problem = pr.Problem(floats.network, rho=1e-3)
    c = pr.certify(problem, cast(floats.controls, "float64"), x, images.train_labels[:20])
    stored = found["certificate"]
    assert stored["eps_star"] == pytest.approx(c.eps_star, rel=1e-9) and stored["eps"] == stored["eps_star"]
    assert stored["images"] == 20 and stored["loss"] == pytest.approx(c.loss, rel=1e-12)
    assert found["accuracy"]["part"] == model.accuracy(images.train_images[:20], images.train_labels[:20])
    said = " ".join(found["words"])
    largest = max(c.controls, key=lambda r: r.eps_star)
    assert f"Farthest from the maximum principle is the {largest.name} of stage {largest.stage + 1} (" in said
    steepest = max(c.controls, key=lambda r: r.residual)
    assert f"Farthest from stationary is the {steepest.name} of stage {steepest.stage + 1} (" in said
    assert "no point of the maximum principle yet" in said


def test_certify_prints_words_and_the_table(data: Path, start: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certify", str(start), "--data", str(data), "--eps", "2", "--regulariser", "l1"]) == 0
    out = capsys.readouterr().out
    assert "accuracy on" in out and "gaps at ε = 2" in out and "Convolution" in out and "1e-10" in out


def test_a_model_without_statistics_gets_pixels_over_255_and_a_note(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = own(data, with_statistics=False)
    model.save(tmp_path / "m.npz")
    assert main(["certify", str(tmp_path / "m.npz"), "--data", str(data), "--json"]) == 0
    out, err = capsys.readouterr()
    assert "pixel/255" in err
    images = pr.load(data)
    x = (images.train_images / 255).astype(np.float32)
    assert json.loads(out)["accuracy"]["part"] == pytest.approx(model.accuracy(x, images.train_labels))


def test_words_of_a_point_of_the_maximum_principle(data: Path) -> None:
    """Zero weights where no class is more frequent than another: the loss has no slope there, and nothing is kept."""
    model, images = own(data), pr.load(data)
    zero = tuple(tuple(np.zeros(a.shape) for a in u) for u in model.controls)
    assert len(set(np.bincount(images.train_labels))) == 1
    c = pr.certify(pr.Problem(model.network, rho=1e-3), zero, images.x, images.y, eps=1.0)
    assert math.hypot(c.residual_support, c.residual_unpenalised) < 1e-12
    said = " ".join(words(c, model.network))
    assert "it is a point of the maximum principle there" in said and "not stationary" not in said
    assert "The kernels of stages [1, 3, 7] are all zero" in said


def test_bad_arguments_of_certify(data: Path, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = ["certify", str(start), "--data", str(data)]
    bad(capsys, [*at, "--eps", "0"], "--eps", "expected a number > 0")
    bad(capsys, [*at, "--images", "0"], "--images", "at least 1")
    bad(capsys, [*at, "--rho", "x"], "--rho")
    bad(capsys, ["certify", str(tmp_path / "none.npz"), "--data", str(data)], "none.npz")
    bad(capsys, ["certify", str(start)], "the model takes")


@pytest.mark.skipif(not HAS_ONNX, reason="onnx is not installed (extra onnx)")
def test_an_onnx_file_is_taken_by_both_commands(
    data: Path, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = pr.read_model(start)
    model.to_onnx(tmp_path / "own.onnx")
    assert read_start(tmp_path / "own.onnx").network.reads == model.network.reads
    assert run(data, tmp_path / "r", "--start", str(tmp_path / "own.onnx"), "--steps", "1", "--epochs", "none") == 0
    by_onnx = certified(tmp_path / "own.onnx", data, capsys)["certificate"]
    assert by_onnx["eps_star"] == pytest.approx(certified(start, data, capsys)["certificate"]["eps_star"], rel=1e-3)
