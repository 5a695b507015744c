"""A model read from a file takes images as they are, and refuses what would give wrong classes in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pmp_ref import model as models
from pmp_ref.data import load, standardise
from pmp_ref.errors import InputError
from pmp_ref.model import Model, read_model
from tests.app_data import run, write_images


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("model")
    data = write_images(folder / "images.npz")
    assert run(data, folder / "run", "--network", "lenet5") == 0
    return folder / "run", data


def test_bytes_are_standardised_as_in_training(trained: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """By a way of its own: the library's stages on images standardised here; a few at a time or all at once."""
    directory, data = trained
    model, raw = read_model(str(directory)), load(str(data)).train_images
    x = ((raw / 255 - model.mean[0]) / model.std[0]).astype(model.dtype)
    expected = model.network.forward_sweep(model.controls, x)[-1]
    for at_once in (1024, 5):
        monkeypatch.setattr(models, "AT_ONCE", at_once)
        np.testing.assert_allclose(model.outputs(raw), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.outputs(raw[:, 0]), expected, rtol=1e-4, atol=1e-5)
    assert model.outputs(raw[:0]).shape == (0, expected.shape[1])
    np.testing.assert_array_equal(model.predict(raw), expected.argmax(axis=1))
    labels = expected.argmax(axis=1).copy()
    labels[: len(labels) // 2] += 1
    assert model.accuracy(raw, labels) == pytest.approx(1 - (len(labels) // 2) / len(labels))


def test_wrong_scales_are_refused(trained: tuple[Path, Path]) -> None:
    directory, data = trained
    model, raw = read_model(directory), load(str(data)).train_images
    assert isinstance(model, Model)
    with pytest.raises(InputError, match=r"images are uint8; this map takes standardised ones"):
        model.run()(raw)
    for wrong in (raw / 255, standardise(raw, model.mean, model.std), raw.astype(np.int64), raw[:, :, 1:], raw[0, 0]):
        with pytest.raises(InputError, match=r"expected bytes, uint8"):
            model.outputs(wrong)
    with pytest.raises(InputError, match="labels for"):
        model.accuracy(raw, np.zeros(3, int))
    with pytest.raises(InputError, match="at least one"):
        model.accuracy(raw[:0], np.zeros(0, int))
