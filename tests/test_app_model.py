"""A model read from a file takes images as they are, and refuses what would give wrong classes in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmp_ref.compact.description import describe
from pmp_ref.data import load, standardise, statistics
from pmp_ref.errors import InputError
from pmp_ref.files import unpack
from pmp_ref.layers import Pixels
from pmp_ref.model import Model, from_file, read_model, to_bytes
from pmp_ref.network import Network
from tests.app_data import bad, run, write_images


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("model")
    data = write_images(folder / "images.npz")
    assert run(data, folder / "run", "--network", "lenet5") == 0
    return folder / "run", data


def test_images_are_standardised_as_in_training(trained: tuple[Path, Path]) -> None:
    """By a way of its own: the other stages of the network on images standardised here."""
    directory, data = trained
    model, raw = read_model(str(directory)), load(str(data)).train_images
    head = model.network.stages[0]
    assert isinstance(head, Pixels)
    np.testing.assert_allclose((head.mean, head.std), statistics(raw), rtol=0.01)  # some images are held out
    x = ((raw / 255 - head.mean[0]) / head.std[0]).astype(model.dtype)
    rest = Network(model.network.stages[1:], model.network.input_shape)
    expected = rest.forward_sweep(model.controls[1:], x)[-1]
    np.testing.assert_allclose(model.outputs(raw), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.outputs(raw[:, 0]), expected, rtol=1e-4, atol=1e-5)
    assert model.outputs(raw[:0]).shape == (0, expected.shape[1])
    np.testing.assert_array_equal(model.predict(raw), expected.argmax(axis=1))
    labels = expected.argmax(axis=1).copy()
    labels[: len(labels) // 2] += 1
    assert model.accuracy(raw, labels) == pytest.approx(1 - (len(labels) // 2) / len(labels))


def older(arrays: dict[str, np.ndarray], head: Pixels) -> dict[str, np.ndarray]:
    """The arrays of a file up to format 2: stages counted without the head, whose numbers lie beside the network."""
    moved = {"mean": np.asarray(head.mean), "std": np.asarray(head.std)}
    for name, a in arrays.items():
        moved[f"{int(name[:2]) - 1:02}{name[2:]}" if name[:2].isdigit() else name] = a
    return moved


@pytest.mark.parametrize("version", [1, 2])
def test_older_files_are_read(version: int, trained: tuple[Path, Path]) -> None:
    """Their models give the same outputs, up to the rounding of the standardisation."""
    directory, data = trained
    raw, new = load(str(data)).train_images, read_model(directory / "model.npz")
    head = new.network.stages[0]
    assert isinstance(head, Pixels)
    note: dict[str, Any] = {"name": "lenet5", "activation": "tanh", "pooling": None} | (
        {"format": 2} if version == 2 else {}
    )
    ordinary = older(unpack(directory / "model.npz"), head)
    ordinary["network"] = packed(note | {"input_shape": [1, 12, 12], "classes": 3})
    compact = older(unpack(Path("x"), to_bytes(new)), head)
    whole = describe(Network(new.network.stages[1:], new.network.input_shape))
    if version == 1:
        del whole["reads"]
    compact["compact"] = packed({"format": version, "network": whole, "forms": list(new.forms[1:])})
    floats = older(unpack(Path("x"), to_bytes(new)), head) | {"mean": np.zeros(0), "std": np.zeros(0)}
    floats["compact"] = compact["compact"]
    for arrays in (ordinary, compact):
        old = from_file(arrays, "x.npz")
        assert old.network == new.network and old.forms == new.forms
        np.testing.assert_array_equal(old.outputs(raw), new.outputs(raw))
    assert from_file(floats, "x.npz").network == Network(new.network.stages[1:], new.network.input_shape)


def packed(note: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(note).encode(), np.uint8)


@pytest.mark.parametrize("kind", ["Split", "residual"])
def test_older_files_of_networks_with_skips_are_refused(trained: tuple[Path, Path], kind: str) -> None:
    arrays = unpack(trained[0] / "model.npz")
    note: Any = {"name": "residual", "activation": "tanh", "pooling": None, "input_shape": [1, 12, 12], "classes": 3}
    if kind == "Split":
        network = {"input_shape": [1, 4, 4], "stages": [{"kind": "Split"}]}
        arrays, note = {}, {"format": 1, "network": network, "forms": [""]}
    arrays["compact" if kind == "Split" else "network"] = np.frombuffer(json.dumps(note).encode(), np.uint8)
    with pytest.raises(InputError, match=r"x\.npz.*older version, which numbered the stages.*train again") as error:
        from_file(arrays, "x.npz")
    assert "\n" not in str(error.value)


def test_wrong_scales_are_refused(trained: tuple[Path, Path]) -> None:
    directory, data = trained
    model, raw = read_model(directory), load(str(data)).train_images
    assert isinstance(model, Model)
    for wrong in (raw / 255, standardise(raw, *statistics(raw)), raw.astype(np.int64)):
        for take in (model.outputs, model.run()):
            with pytest.raises(InputError, match=r"expected bytes, uint8"):
                take(wrong)
    for wrong in (raw[:, :, 1:], raw[0, 0]):
        with pytest.raises(InputError, match=r"images have shape"):
            model.outputs(wrong)
    with pytest.raises(InputError, match="labels for"):
        model.accuracy(raw, np.zeros(3, int))
    with pytest.raises(InputError, match="at least one"):
        model.accuracy(raw[:0], np.zeros(0, int))


def test_a_model_that_takes_floats_is_not_fed_bytes(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = read_model(trained[0])
    rest = Network(model.network.stages[1:], model.network.input_shape)
    Model(rest, model.controls[1:]).save(tmp_path / "floats.npz")
    np.save(tmp_path / "x.npy", load(str(trained[1])).train_images[:1, 0])
    bad(capsys, ["predict", str(tmp_path / "floats.npz"), str(tmp_path / "x.npy")], "does not say how", "mean=…, std=…")
