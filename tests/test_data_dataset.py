"""The data set's checks, its standardisation, the error type, and what importing loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import pmp_ref.data
from pmp_ref.data import Dataset, load, prepare, standardise, statistics
from pmp_ref.errors import InputError, nearest

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 3, 5, 4), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])
VALID: dict[str, Any] = {
    "name": "mine",
    "train_images": IMAGES,
    "train_labels": LABELS,
    "test_images": IMAGES[:2],
    "test_labels": LABELS[:2],
    "classes": 3,
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no images": ({"train_images": IMAGES[:0], "train_labels": LABELS[:0]}, "expected at least one"),
    "no pixels": ({"train_images": IMAGES[:, :, :0]}, "expected at least one"),
    "float images": ({"train_images": IMAGES / 255}, r"images are float64 .6, 3, 5, 4., expected uint8"),
    "wide images": ({"train_images": IMAGES.astype(np.uint16)}, "images are uint16"),
    "three axes": ({"train_images": IMAGES[:, 0]}, r"expected uint8 .N, C, H, W."),
    "a list": ({"train_labels": [0, 1, 2, 0, 1, 2]}, "labels are list, expected integers"),
    "nothing": ({"train_images": None}, "images are NoneType"),
    "float labels": ({"train_labels": LABELS * 1.0}, "labels are float64"),
    "boolean labels": ({"train_labels": LABELS > 0}, "labels are bool"),
    "two axes": ({"train_labels": LABELS[:, np.newaxis]}, r"labels are int64 .6, 1."),
    "other number": ({"train_labels": LABELS[:5]}, "train part of data set 'mine': 6 images and 5 labels"),
    "test number": ({"test_labels": LABELS[:1]}, "test part of data set 'mine': 2 images and 1 labels"),
    "half a test part": ({"test_labels": None}, "test part of data set 'mine': labels are NoneType"),
    "label too large": ({"classes": 2}, "label 2 at position 2, expected 0 to 1"),
    "test label": ({"test_labels": LABELS[:2] + 2}, r"test part .*label 3 at position 1, expected 0 to 2"),
    "negative label": ({"train_labels": LABELS - 1}, "label -1 at position 0, expected 0 to 2"),
    "huge label": ({"train_labels": LABELS.astype(np.uint64) + 2**63}, "label 9223372036854775808"),
    "one class": ({"train_labels": LABELS * 0, "classes": 1}, "has 1 classes, expected 2 to 65536"),
    "many classes": ({"classes": 2**16 + 1}, "has 65537 classes, expected 2 to 65536"),
    "other shape": ({"test_images": IMAGES[:2, :, :4]}, r"images of shape .3, 4, 4., expected .3, 5, 4."),
    "val label": ({"val_images": IMAGES[:1], "val_labels": LABELS[:1] + 3}, r"val part .*label 3"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str) -> None:
    Dataset(**VALID)
    changes, message = REFUSED[case]
    with pytest.raises(InputError, match=rf"\A[^\n\r]*{message}[^\n\r]*\Z"):
        Dataset(**(VALID | changes))


def test_classes_of_files(tmp_path: Any) -> None:
    """The number of classes is what the caller states, else the largest training label + 1."""
    arrays = dict(train_images=IMAGES[:, 0], train_labels=LABELS, test_images=IMAGES[:1, 0], test_labels=[3])
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(InputError, match="label 3 at position 0, expected 0 to 2"):
        load(tmp_path / "set.npz")
    assert load(tmp_path / "set.npz", classes=5).classes == 5
    with pytest.raises(InputError, match=r"train part .*label 2 at position 2, expected 0 to 1"):
        load(tmp_path / "set.npz", classes=2)
    np.savez(tmp_path / "set.npz", train_images=IMAGES, train_labels=np.full(6, 2**40))
    with pytest.raises(InputError, match=r"C at most 4|classes"):
        load(tmp_path / "set.npz")
    np.savez(tmp_path / "set.npz", train_images=IMAGES[:, 0], train_labels=np.full(6, 2**40))
    with pytest.raises(InputError, match="has 1099511627777 classes, expected 2 to 65536"):
        load(tmp_path / "set.npz")
    np.savez(tmp_path / "set.npz", train_images=IMAGES[:, 0], train_labels=np.full(6, 2**63, np.uint64))
    with pytest.raises(InputError, match="classes"):
        load(tmp_path / "set.npz")


@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))),
    st.sampled_from([np.float32, np.float64]),
)
def test_standardisation(images: np.ndarray, dtype: Any) -> None:
    """(x/255 − mean) / std with mean and std of each channel, against NumPy's own."""
    scaled = images / 255
    try:
        mean, std = statistics(images)
    except InputError as error:
        assert (scaled == scaled[:1, :, :1, :1]).all() and "same constant" in str(error)
        return
    assert np.allclose(mean, scaled.mean(axis=(0, 2, 3)), rtol=1e-12, atol=0)
    expected = scaled.std(axis=(0, 2, 3))
    constant = np.array([len(np.unique(images[:, c])) == 1 for c in range(images.shape[1])])
    assert np.allclose(std, np.where(constant, 1, expected), rtol=1e-12, atol=0)
    result = standardise(images, mean, std, dtype)
    assert result.dtype == dtype and result.shape == images.shape
    exact = (scaled - np.reshape(mean, (-1, 1, 1))) / np.reshape(std, (-1, 1, 1))
    assert np.array_equal(result, exact.astype(dtype))
    assert all(type(value) is float for value in (*mean, *std))


def test_constant_channels() -> None:
    """One constant channel is mapped to 0; images that are constant in all channels hold nothing to learn from."""
    images = np.stack([IMAGES[:, 0], np.full_like(IMAGES[:, 0], 7)], axis=1)
    mean, std = statistics(images)
    assert mean[1] == 7 / 255 and std[1] == 1.0
    assert (standardise(images, mean, std)[:, 1] == 0).all()
    with pytest.raises(InputError, match="all training images are the same constant"):
        statistics(np.full_like(IMAGES, 7))


def test_many_images_in_blocks() -> None:
    """More images than one pass takes at once, the last block not full."""
    images = RNG.integers(0, 256, (2500, 2, 3, 3), dtype=np.uint8)
    mean, std = statistics(images)
    assert np.allclose(mean, (images / 255).mean(axis=(0, 2, 3)), rtol=1e-12, atol=0)
    result = standardise(images, mean, std)
    assert np.array_equal(result[[0, 1024, 2499]], standardise(images[[0, 1024, 2499]], mean, std))


def test_prepare_uses_the_training_images_for_all_parts() -> None:
    changes = {"val_images": IMAGES[2:3], "val_labels": LABELS[2:3]}
    prepared = prepare(Dataset(**(VALID | changes)), np.float32)
    mean, std = statistics(IMAGES)
    assert (prepared.mean, prepared.std, prepared.classes) == (mean, std, 3)
    assert np.array_equal(prepared.train_images, standardise(IMAGES, mean, std, np.float32))
    assert np.array_equal(prepared.test_images, standardise(IMAGES[:2], mean, std, np.float32))
    assert np.array_equal(prepared.val_images, standardise(IMAGES[2:3], mean, std, np.float32))
    assert prepared.train_labels is LABELS and prepared.val_labels.tolist() == [2]
    without = prepare(Dataset(**(VALID | {"test_images": None, "test_labels": None})))
    assert without.test_images is without.test_labels is without.val_images is None
    assert without.train_images.dtype == np.float64


def test_standardise_refusals() -> None:
    with pytest.raises(InputError, match="dtype int8 given, expected float32 or float64"):
        standardise(IMAGES, [0.5] * 3, [1.0] * 3, "int8")
    for images, mean in ((IMAGES / 255, [0.5] * 3), (IMAGES[0], [0.5] * 3), (IMAGES, [0.5])):
        with pytest.raises(InputError, match=r"expected uint8 .N, C, H, W. and one of each per channel"):
            standardise(images, mean, mean)


def test_nearest() -> None:
    assert nearest("minst", ["mnist", "cifar10"]) == "did you mean 'mnist'? known: mnist, cifar10"
    assert nearest("xyz", iter(["mnist", "cifar10"])) == "known: mnist, cifar10"
    assert issubclass(InputError, ValueError)


def test_importing_and_loading_need_no_plotting_library() -> None:
    code = (
        "import sys, pmp_ref.data; pmp_ref.data.load(); "
        "print(sorted({'matplotlib', 'PIL', 'cupy', 'torch'} & set(sys.modules)))"
    )
    root = Path(pmp_ref.data.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
