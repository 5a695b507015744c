"""Folders of pictures and directories of ``.npy`` files: what is read, and what is refused with which words."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pmp_ref.data import load, pictures
from pmp_ref.errors import InputError

RNG = np.random.default_rng(5)


def save(path: Path, rows: int = 6, columns: int = 4, mode: str = "L") -> np.ndarray:
    """A picture of noise; its pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (rows, columns) if mode in ("L", "1") else (rows, columns, len(mode))
    pixels = RNG.integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return pixels


def folders(root: Path, mode: str = "L") -> dict[str, np.ndarray]:
    """Three classes, two pictures each, by name."""
    return {f"{c}/{i}": save(root / c / f"{i}.png", mode=mode) for c in ("cat", "ant", "bee") for i in (1, 0)}


def test_classes_are_the_folders_in_alphabetical_order(tmp_path: Path) -> None:
    made = folders(tmp_path)
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "cat" / "Thumbs.db").touch()
    found = load(tmp_path)
    assert found.class_names == ("ant", "bee", "cat") and found.classes == 3
    assert found.train_labels.tolist() == [0, 0, 1, 1, 2, 2]
    expected = [made[f"{c}/{i}"] for c in found.class_names for i in (0, 1)]
    assert np.array_equal(found.train_images, np.stack(expected)[:, np.newaxis])
    assert found.test_images is None


def test_colour_pictures_have_their_channels_first(tmp_path: Path) -> None:
    made = folders(tmp_path, "RGB")
    found = load(tmp_path)
    assert found.train_images.shape == (6, 3, 6, 4)
    assert np.array_equal(found.train_images[3].transpose(1, 2, 0), made["bee/1"])


def test_parts_lie_in_folders_of_their_own(tmp_path: Path) -> None:
    folders(tmp_path / "train")
    made = save(tmp_path / "test" / "bee" / "9.png")
    save(tmp_path / "validation" / "cat" / "9.png")
    found = load(tmp_path)
    assert found.class_names == ("ant", "bee", "cat")
    assert found.test_images is not None and found.test_labels is not None and found.val_labels is not None
    assert np.array_equal(found.test_images[0, 0], made)
    assert found.test_labels.tolist() == [1] and found.val_labels.tolist() == [2]


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    save(tmp_path / "train" / "0.png")
    save(tmp_path / "bus" / "0.png")
    assert load(tmp_path).class_names == ("bus", "train")


def test_pictures_are_brought_to_a_size_and_a_colour_if_asked(tmp_path: Path) -> None:
    save(tmp_path / "a" / "0.png", 8, 8, "RGBA")
    grey = save(tmp_path / "b" / "0.png", 4, 8)
    found = load(tmp_path, resize=(4, 4), colour="grey")
    assert found.train_images.shape == (2, 1, 4, 4)
    halved = grey.reshape(4, 4, 2).mean(axis=2)
    assert np.max(np.abs(found.train_images[1, 0] - halved)) <= 0.5
    in_colour = load(tmp_path, resize=(4, 8), colour="rgb").train_images
    assert in_colour.shape == (2, 3, 4, 8)
    assert np.array_equal(in_colour[1], np.broadcast_to(grey, (3, 4, 8)))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: save(p / "cat" / "2.png", 5, 4), r"2\.png' has 5 rows × 4 columns, grey, .*resize"),
        (lambda p: save(p / "cat" / "2.png", mode="RGB"), r"2\.png' has 6 rows × 4 columns, colour, .*grey or rgb"),
        (lambda p: save(p / "cat" / "2.png", mode="RGBA"), r"2\.png' has the mode 'RGBA'.*convert"),
        (lambda p: (p / "cat" / "2.png").write_bytes(b"no picture"), r"2\.png' is no readable PNG picture"),
        (lambda p: (p / "cat" / "notes.txt").touch(), r"notes\.txt' is no picture.*move it out"),
        (lambda p: (p / "cat" / "deep").mkdir(), r"deep' is no picture"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, spoil: object, words: str) -> None:
    folders(tmp_path)
    spoil(tmp_path)  # type: ignore[operator]
    with pytest.raises(InputError, match=words):
        load(tmp_path)


def test_folders_that_are_no_data_set(tmp_path: Path) -> None:
    save(tmp_path / "one" / "0.png")
    with pytest.raises(InputError, match="holds 1 folders; expected one for each class, at least two"):
        load(tmp_path)
    (tmp_path / "two").mkdir()
    save(tmp_path / "three.png")
    with pytest.raises(InputError, match="holds no data set"):
        load(tmp_path)
    (tmp_path / "three.png").unlink()
    (tmp_path / "one" / "0.png").unlink()
    with pytest.raises(InputError, match="holds no picture"):
        load(tmp_path)
    folders(tmp_path / "x" / "train")
    save(tmp_path / "x" / "test" / "dog" / "0.png")
    with pytest.raises(InputError, match="has the class 'dog', which the training part has not"):
        load(tmp_path / "x")


def test_size_is_looked_at_before_pixels_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a" / "0.png", 10, 10)
    save(tmp_path / "b" / "0.png", 10, 10)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 99)
    with pytest.raises(InputError, match="more than 99 pixels"):
        load(tmp_path, resize=(2, 2))
    monkeypatch.setattr(pictures, "MAX_PIXELS", 100)
    monkeypatch.setattr(pictures, "MAX_BYTES", 199)
    with pytest.raises(InputError, match=re.escape("holds 2 pictures of 100 bytes, more than 199 together")):
        load(tmp_path)


@pytest.mark.parametrize("wrong", [{"resize": (0, 4)}, {"resize": (4,)}, {"resize": (2**15, 4)}, {"colour": "blue"}])
def test_arguments_that_mean_nothing(tmp_path: Path, wrong: dict[str, object]) -> None:
    folders(tmp_path)
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is"):
        load(tmp_path, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="for folders of pictures"):
        load(colour="grey")


def test_arrays_in_files_of_their_own_are_mapped(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (7, 5, 4, 3), np.uint8)
    np.save(tmp_path / "train_images.npy", images)
    np.save(tmp_path / "train_labels.npy", np.arange(7)[:, np.newaxis] % 3)
    np.save(tmp_path / "test_images.npy", np.asfortranarray(images[:2]))
    np.save(tmp_path / "test_labels.npy", np.array([2, 0]))
    found = load(tmp_path)
    assert np.array_equal(found.train_images, images.transpose(0, 3, 1, 2)) and found.classes == 3
    assert found.test_images is not None and np.array_equal(found.test_images, images[:2].transpose(0, 3, 1, 2))
    base = found.train_images
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(base, np.memmap)  # a view of the file, not a copy
    assert type(found.train_images) is np.ndarray and not found.train_images.flags.writeable


def test_damaged_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "train_images.npy", np.zeros((3, 4, 4), np.uint8))
    with pytest.raises(InputError, match=r"no file .*train_labels\.npy"):
        load(tmp_path)
    np.save(tmp_path / "train_labels.npy", np.arange(3))
    whole = (tmp_path / "train_images.npy").read_bytes()
    (tmp_path / "train_images.npy").write_bytes(whole[:-1])
    with pytest.raises(InputError, match="claims the shape"):
        load(tmp_path)
    np.save(tmp_path / "train_images.npy", np.zeros((3, 4, 4)))
    with pytest.raises(InputError, match="expected an integer array"):
        load(tmp_path)
