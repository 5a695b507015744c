"""The commands ``compact`` and ``predict`` end to end: what they write, print and refuse; the file's reader; ONNX."""

from __future__ import annotations

import copy
import gzip
import importlib.util
import json
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import pmp_ref as pr
from pmp_ref import model as models
from pmp_ref.app import compact as command
from pmp_ref.app import conclude
from pmp_ref.app import run as application
from pmp_ref.app.files import locked
from pmp_ref.app.main import compact_parser, main, predict_parser
from pmp_ref.compact import sparse
from pmp_ref.compact.description import describe, network_from
from pmp_ref.compact.sparse import forms_of
from pmp_ref.controls import arrays_of
from pmp_ref.data import load
from pmp_ref.errors import InputError
from pmp_ref.files import OutputError, decode, pack, unpack, write_atomically
from pmp_ref.model import Model, from_file, to_bytes
from pmp_ref.network import headed
from tests.app_data import bad, run, write_images
from tests.test_compact import chains, drawn_controls, same, sample
from tests.test_docs_code import commands

ROOT = Path(__file__).resolve().parents[1]
HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason="onnx and onnxruntime are not installed (extra onnx)")
EXACT_FILES = {"compact.npz", "compact.json"}


@pytest.fixture(scope="module", autouse=True)
def short_timings() -> Iterator[None]:
    """What is measured here is not judged, so it need not be exact."""
    with pytest.MonkeyPatch.context() as m:
        m.setattr(sparse, "SECONDS", 1e-4)
        m.setattr(sparse, "ROUNDS", 3)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "d.npz")


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, its model then given dead and unread units: one filter, thirty neurons, one unread filter."""
    out = tmp_path_factory.mktemp("runs") / "r"
    assert run(data, out, "--rho", "0") == 0
    thin_out(
        out / "model.npz",
        {"01.kernel": np.s_[[1, 4]], "04.kernel": np.s_[:, 2], "08.kernel": np.s_[:30], "10.kernel": np.s_[:, 30:33]},
    )
    return out


def thin_out(path: Path, zeros: dict[str, Any]) -> None:
    """Set parts of kernels to zero and give all biases values."""
    arrays = unpack(path)
    for name, where in zeros.items():
        arrays[name][where] = 0
    for name, a in arrays.items():
        if name.endswith("bias"):
            a[:] = np.linspace(-0.4, 0.6, a.size)
    note = {"network": decode(arrays.pop("network"))}
    path.write_bytes(pack(arrays, note))


@pytest.fixture(scope="module")
def compacted(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compact") / "c"
    assert main(["compact", str(trained), "--out", str(out)]) == 0
    return out


def report(directory: Path) -> dict[str, Any]:
    """``compact.json``, read strictly."""

    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} in compact.json")

    return json.loads((directory / "compact.json").read_text(encoding="utf-8"), parse_constant=refuse)


# --- compact ----------------------------------------------------------------------------------------------------------


def test_the_directory_holds_the_model_and_the_report(compacted: Path) -> None:
    assert {p.name for p in compacted.iterdir()} == EXACT_FILES


def standardised_here(model: Model, raw: np.ndarray) -> np.ndarray:
    """The final states by the stages behind the head, of images standardised here."""
    head = model.network.stages[0]
    assert isinstance(head, pr.Pixels)
    x = ((raw / 255 - head.mean[0]) / head.std[0]).astype(np.float32)
    rest = pr.Network(model.network.stages[1:], model.network.input_shape)
    return rest.forward_sweep(model.controls[1:], x)[-1]


def test_the_compact_model_gives_the_outputs_of_the_run(trained: Path, compacted: Path, data: Path) -> None:
    """By a way of its own: the library's stages on controls read with NumPy, images standardised here."""
    before, after = models.read_model(trained / "model.npz"), models.read_model(compacted / "compact.npz")
    raw = load(str(data)).test_images
    assert raw is not None
    y = standardised_here(before, raw)
    assert np.max(np.abs(after.run()(raw) - y)) < 1e-4
    assert np.max(np.abs(after.network.forward_sweep(after.controls, raw)[-1] - y)) < 1e-4
    assert np.max(np.abs(y)) > 0.1


def test_the_report_counts_what_is_there(trained: Path, compacted: Path, data: Path) -> None:
    r = report(compacted)
    arrays = unpack(trained / "model.npz")
    kernels = [a for name, a in arrays.items() if name.endswith("kernel")]
    assert r["weights"]["before"] == sum(a.size for a in kernels)
    assert r["weights"]["nonzero_before"] == sum(np.count_nonzero(a) for a in kernels)
    assert [s["after"] for s in r["stages"]] == [[3, 1, 5, 5], [16, 3, 5, 5], [87, 16], [84, 87], [3, 84]]
    assert r["weights"]["after"] == sum(int(np.prod(s["after"])) for s in r["stages"])
    assert r["weights"]["nonzero_after"] <= r["weights"]["after"] < r["weights"]["before"]
    positions = [144, 4, 1, 1, 1]  # 12×12 padded by 2, then 6×6 without padding
    assert r["multiply_adds"]["before"] == sum(
        n * int(np.prod(s["before"])) for n, s in zip(positions, r["stages"], strict=True)
    )
    assert r["multiply_adds"]["after"] == sum(
        n * int(np.prod(s["after"])) for n, s in zip(positions, r["stages"], strict=True)
    )
    assert r["bytes"] == {
        "before": (trained / "model.npz").stat().st_size,
        "after": (compacted / "compact.npz").stat().st_size,
    }
    assert all(r["seconds_per_image"][name] > 0 for name in ("before", "after", "single_before", "single_after"))
    assert [f["stage"] for f in r["forms"]] == [1, 4, 8, 10, 12] and not r["disconnected"]
    for f in r["forms"]:
        assert f["form"] == ("sparse" if f["sparse_seconds"] < 0.95 * f["dense_seconds"] else "dense")
    c = r["checked"]
    assert c["images"] == len(load(str(data)).train_images) + 128 + 2
    assert 0 <= c["float64_difference"] <= c["float64_allowed"] and c["difference"] <= c["allowed"] < 0.01
    assert c["classes_changed"] == 0


def test_forms_can_be_fixed_and_then_the_file_repeats(trained: Path, tmp_path: Path) -> None:
    for form in ("dense", "sparse"):
        for name in ("a", "b"):
            assert main(["compact", str(trained), "--out", str(tmp_path / form / name), "--form", form]) == 0
        one, two = ((tmp_path / form / name / "compact.npz").read_bytes() for name in ("a", "b"))
        assert one == two
        assert set(models.read_model(tmp_path / form / "a" / "compact.npz").forms) == {"", form}


def test_forms_can_be_chosen_for_one_image(trained: Path, tmp_path: Path) -> None:
    seen = []

    def watch(network: Any, controls: Any, x: np.ndarray) -> Any:
        seen.append(len(x))
        return sparse.choose_forms(network, controls, x)

    with pytest.MonkeyPatch.context() as m:
        m.setattr(command, "choose_forms", watch)
        assert main(["compact", str(trained), "--out", str(tmp_path / "c"), "--batch", "1"]) == 0
    assert seen == [1] and report(tmp_path / "c")["forms_chosen_for"] == 1


def test_json_on_stdout_is_the_report(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compact", str(trained), "--out", str(tmp_path / "c"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == report(tmp_path / "c")


def test_text_on_stdout_names_the_figures(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compact", str(trained), "--out", str(tmp_path / "c")]) == 0
    out, err = capsys.readouterr()
    r = report(tmp_path / "c")
    assert f"{r['weights']['after']:,}" in out and f"{r['bytes']['after']:,}" in out and err == ""
    assert "µs per image" in out and "checked on" in out and str(tmp_path / "c" / "compact.npz") in out


def test_a_wrong_compaction_is_not_written(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pmp_ref.compact import fold

    with monkeypatch.context() as m:
        m.setattr(fold, "shifted", lambda bias, shift: bias)
        bad(
            capsys,
            ["compact", str(trained), "--out", str(tmp_path / "c")],
            "gives other outputs",
            "nothing was written",
        )
    right = command.smaller

    def wrong_file(*a: Any) -> Any:
        """Right in float64, wrong in what would be written."""
        model, timings = right(*a)
        controls = [list(u) for u in model.controls]
        controls[8][0] = controls[8][0] * np.float32(1.001)
        return replace(model, controls=tuple(tuple(u) for u in controls)), timings

    with monkeypatch.context() as m:
        m.setattr(command, "smaller", wrong_file)
        bad(
            capsys,
            ["compact", str(trained), "--out", str(tmp_path / "c")],
            "gives other outputs",
            "nothing was written",
        )
    assert not (tmp_path / "c").exists()


def test_a_disconnected_run_is_reported(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copied = tmp_path / "r"
    shutil.copytree(trained, copied)
    thin_out(copied / "model.npz", {"08.kernel": np.s_[:]})
    assert main(["compact", str(copied)]) == 0
    out, err = capsys.readouterr()
    assert "disconnected" in out and "warning: the network is disconnected" in err
    r = report(copied)
    assert r["disconnected"] and len(r["constant_output"]) == 3 and r["weights"]["nonzero_after"] == 0
    assert len(r["unread_pixels"]) == r["pixels"] == 144
    after = models.read_model(copied)
    y = after.run()(np.zeros((1, 1, 12, 12), np.uint8))[0]
    assert np.max(np.abs(y - r["constant_output"])) < 1e-5


def test_a_run_in_float64_stays_in_float64(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    assert run(data, out, "--steps", "2", "--epochs", "none", "--dtype", "float64") == 0
    thin_out(out / "model.npz", {"01.kernel": np.s_[1]})
    assert main(["compact", str(out), "--form", "sparse"]) == 0
    assert models.read_model(out).dtype == "float64" and report(out)["checked"]["allowed"] < 1e-7


def test_a_residual_run_says_what_stays(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    assert run(data, out, "--network", "residual", "--steps", "2", "--epochs", "none") == 0
    names = [name for name in unpack(out / "model.npz") if name.endswith("kernel")]
    first = min(names)
    thin_out(out / "model.npz", {first: np.s_[3]})
    assert main(["compact", str(out)]) == 0
    assert any("a sum ties" in k["reason"] for k in report(out)["kept"])


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["{tmp}/none"], ["holds no run"]),
        (["{run}", "--form", "thin"], ["--form 'thin'", "auto, dense or sparse"]),
        (["{run}", "--batch", "0"], ["--batch", "'0'"]),
        (["{run}", "--data", "mnist-subset"], ["(1, 28, 28)", "(1, 12, 12)"]),
        (["{run}", "--data", "{tmp}/none.npz"], ["no file", "--data"]),
        (["{run}", "--out", "{run}/model.npz/x"], ["cannot make the directory"]),
        (["{run}", "--outt", "x"], ["did you mean '--out'"]),
    ],
)
def test_bad_input(
    arguments: list[str], parts: list[str], trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad(capsys, ["compact", *(a.format(tmp=tmp_path, run=trained) for a in arguments)], *parts)


def test_a_run_without_a_model_is_told_to_go_on(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, tmp_path / "r")
    (tmp_path / "r" / "model.npz").unlink()
    bad(capsys, ["compact", str(tmp_path / "r")], "no model.npz", "--resume")


# --- the file ---------------------------------------------------------------------------------------------------------


@given(chains(), st.integers(0, 2**32 - 1), st.sampled_from(["float32", "float64"]))
def test_models_come_back_as_they_were(network: pr.Network, seed: int, dtype: str) -> None:
    assert network_from(json.loads(json.dumps(describe(network)))) == network
    if len(network.input_shape) != 3 or len(network.output_shape) != 1:
        return
    controls = tuple(tuple(a.astype(dtype) for a in u) for u in drawn_controls(network, seed))
    forms = tuple(f and "sparse" for f in forms_of(network))
    again = from_file(unpack(Path("x.npz"), to_bytes(Model(network, controls, (), forms))), "x.npz")
    assert again.network == network and again.forms == forms
    assert all(
        a.dtype == dtype and np.array_equal(a, b)
        for a, b in zip(arrays_of(again.controls), arrays_of(controls), strict=True)
    )


def test_pools_without_padding_are_described_as_older_versions_do() -> None:
    plain = pr.Network((pr.MaxPool(2), pr.AveragePool(1)), (1, 4, 6))
    assert describe(plain)["stages"] == [
        {"kind": "MaxPool", "size": 2, "stride": None},
        {"kind": "AveragePool", "size": 1, "stride": None},
    ]
    padded = pr.Network((pr.MaxPool(3, 2, (1, 0)), pr.AveragePool(2, 1, 1, False)), (1, 4, 6))
    assert network_from(json.loads(json.dumps(describe(padded)))) == padded
    for field, value in (("padding", -1), ("padding", 1.5), ("count_include_pad", 1), ("ceil_mode", True)):
        words = describe(plain)
        words["stages"][1][field] = value
        with pytest.raises(pr.InputError, match=field):
            network_from(words)


def small_model() -> dict[str, np.ndarray]:
    """The arrays of a file with a sparse and a dense kernel."""
    network = pr.Network((pr.Convolution(2, 3), pr.ReLU(), pr.Flatten(), pr.Dense(3)), (1, 5, 6))
    controls = [[np.ones(s, np.float32) for s in shapes] for shapes in network.control_shapes]
    controls[3][0][:, 1:20] = 0
    frozen = tuple(tuple(u) for u in controls)
    return unpack(Path("x.npz"), to_bytes(Model(network, frozen, forms=forms_of(network))))


def test_the_smaller_storage_is_taken() -> None:
    arrays = small_model()
    assert {"03.kernel.count", "03.kernel.index", "03.kernel.value", "00.kernel"} <= set(arrays)
    assert arrays["03.kernel.index"].dtype == np.uint16 and arrays["03.kernel.count"].tolist() == [5, 5, 5]
    assert from_file(arrays, "x").controls[3][0][0].tolist() == [1] + [0] * 19 + [1] * 4


def _edit(part: Callable[[Any], Any]) -> Callable[[dict[str, np.ndarray]], None]:
    def change(arrays: dict[str, np.ndarray]) -> None:
        note = part(decode(arrays["compact"]))
        arrays["compact"] = np.frombuffer(json.dumps(note).encode(), np.uint8)

    return change


def _stage(l: int, **fields: Any) -> Callable[[dict[str, np.ndarray]], None]:
    def change(note: Any) -> Any:
        note["network"]["stages"][l] |= fields
        return note

    return _edit(change)


def _replace(name: str, value: Any) -> Callable[[dict[str, np.ndarray]], None]:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays[name] = np.asarray(value)

    return change


def _sum(weights: Any) -> Callable[[dict[str, np.ndarray]], None]:
    """A sum in place of the activation."""

    def change(note: Any) -> Any:
        stages = note["network"]["stages"]
        stages[1] = {"kind": "WeightedSum", "weights": weights}
        return note | {"network": note["network"] | {"reads": [[0], [1, 1], [2], [3]]}}

    return _edit(change)


def _head(fields: dict[str, Any]) -> Callable[[dict[str, np.ndarray]], None]:
    """Pixels in place of the activation, which is no worse a place here."""

    def change(note: Any) -> Any:
        note["network"]["stages"][1] = {"kind": "Pixels"} | fields
        return note

    return _edit(change)


BROKEN: dict[str, Callable[[dict[str, np.ndarray]], Any]] = {
    "no note": lambda a: a.pop("compact"),
    "note that is no JSON": _replace("compact", np.frombuffer(b"{", np.uint8)),
    "names that are no texts": _edit(lambda n: n | {"class_names": [1, 2, 3]}),
    "names too few": _edit(lambda n: n | {"class_names": ["a", "b"]}),
    "note that is a list": _edit(lambda n: [n]),
    "later format": _edit(lambda n: n | {"format": 4}),
    "unknown stage": _stage(1, kind="Evil"),
    "stage of another kind": _stage(1, kind="Dense"),
    "reads of text": _edit(lambda n: n | {"network": n["network"] | {"reads": ["0"] * 4}}),
    "reads of what is not there": _edit(lambda n: n | {"network": n["network"] | {"reads": [[0], [1], [2], [4]]}}),
    "reads too few": _edit(lambda n: n | {"network": n["network"] | {"reads": [[0], [1], [2]]}}),
    "weights of a sum that are text": _sum(["1", "2"]),
    "a sum of one state": _sum([1.0]),
    "field too many": _stage(1, extra=1),
    "field of another type": _stage(0, channels="2"),
    "field true for 1": _stage(0, groups=True),
    "padding that asks for gigabytes": _stage(0, padding=[2**20, 2**20]),
    "channels that ask for gigabytes": _stage(0, channels=2**31),
    "neurons that ask for gigabytes": _stage(3, neurons=2**31),
    "input that asks for gigabytes": _edit(
        lambda n: n | {"network": n["network"] | {"input_shape": [1, 2**30, 2**30]}}
    ),
    "no stages": _edit(lambda n: n | {"network": n["network"] | {"stages": []}}),
    "forms too few": _edit(lambda n: n | {"forms": ["dense"]}),
    "form unknown": _edit(lambda n: n | {"forms": ["thin", "", "", "dense"]}),
    "a form of no text": _edit(lambda n: n | {"forms": [{}, "", "", "dense"]}),
    "counts that do not add up": _replace("03.kernel.count", np.array([5, 5, 4], np.int32)),
    "counts that are negative": _replace("03.kernel.count", np.array([20, -5, 0], np.int32)),
    "counts that overflow": _replace("03.kernel.count", np.array([2**31 - 1] * 2 + [17], np.int32)),
    "counts of another shape": _replace("03.kernel.count", np.array([[5, 5, 5]], np.int32)),
    "counts that are floats": _replace("03.kernel.count", np.array([5.0, 5, 5])),
    "columns out of range": _replace("03.kernel.index", np.full(15, 24, np.uint16)),
    "columns twice": _replace("03.kernel.index", np.zeros(15, np.uint16)),
    "columns negative": _replace("03.kernel.index", np.tile(np.arange(-1, 4, dtype=np.int32), 3)),
    "values too few": _replace("03.kernel.value", np.ones(14, np.float32)),
    "values that are whole numbers": _replace("03.kernel.value", np.ones(15, np.int64)),
    "values of another dtype": _replace("03.kernel.value", np.ones(15, np.float64)),
    "a value that is NaN": _replace("03.kernel.value", np.full(15, np.nan, np.float32)),
    "a bias of another shape": _replace("03.bias", np.ones(4, np.float32)),
    "a kernel that is missing": lambda a: a.pop("00.kernel"),
    "too many means": _head({"mean": [0.5] * 3, "std": [0.2] * 3}),
    "a deviation of zero": _head({"mean": [0.5], "std": [0.0]}),
    "no deviation": _head({"mean": [0.5], "std": []}),
    "a mean of text": _head({"mean": ["0.5"], "std": [0.2]}),
    "a mean that is no number": _head({"mean": [float("nan")], "std": [0.2]}),
    "a mean beside the network, without its deviation": _replace("mean", np.ones(1)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_is_refused(name: str) -> None:
    arrays = copy.deepcopy(small_model())
    BROKEN[name](arrays)
    with pytest.raises(InputError, match=r"x\.npz") as error:
        from_file(arrays, "x.npz")
    assert "\n" not in str(error.value)


@given(st.integers(0, 4000), st.binary(min_size=1, max_size=4), st.booleans())
def test_damaged_bytes_are_refused_or_read_as_a_model(at: int, bytes_: bytes, cut: bool) -> None:
    import tempfile

    network = pr.Network((pr.Convolution(2, 3), pr.ReLU(), pr.Flatten(), pr.Dense(3)), (1, 5, 6))
    controls = tuple(
        tuple(np.eye(*s[:2], dtype=np.float32).reshape(s) if s == (3, 24) else np.ones(s, np.float32) for s in shapes)
        for shapes in network.control_shapes
    )
    content = to_bytes(Model(network, controls, forms=forms_of(network)))
    at %= len(content)
    broken = content[:at] if cut else content[:at] + bytes_ + content[at + len(bytes_) :]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.npz"
        path.write_bytes(broken)
        try:
            assert isinstance(models.read_model(path), Model)
        except InputError as error:
            assert "\n" not in str(error)


def test_a_stage_of_another_package_is_not_written() -> None:
    from tests.test_compact import Roll

    with pytest.raises(InputError, match="not of this package"):
        describe(pr.Network((pr.Dense(3), Roll()), (2,)))


# --- predict ----------------------------------------------------------------------------------------------------------


def test_images() -> np.ndarray:
    """Three uint8 images 12×12 with a bright stripe each."""
    a = np.full((3, 12, 12), 40, np.uint8)
    for k in range(3):
        a[k, 4 * k : 4 * k + 3] = 200
    return a


test_images.__test__ = False  # type: ignore[attr-defined]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The same three images in every form that is read."""
    a, made = test_images(), {}
    for k in range(3):
        for ending in ("png", "pgm"):
            made[f"{ending}{k}"] = tmp_path / f"{k}.{ending}"
            Image.fromarray(a[k]).save(made[f"{ending}{k}"])
    made["jpg"] = tmp_path / "0.jpg"
    Image.fromarray(a[0]).save(made["jpg"], quality=100)
    made["npy"] = tmp_path / "a.npy"
    np.save(made["npy"], a)
    made["one"] = tmp_path / "one.npy"
    np.save(made["one"], a[1])
    made["npz"] = tmp_path / "a.npz"
    np.savez_compressed(made["npz"], test_images=a[..., None], test_labels=np.arange(3))
    header = struct.pack(">4B3I", 0, 0, 8, 3, *a.shape)
    made["idx"] = tmp_path / "t-idx3-ubyte"
    made["idx"].write_bytes(header + a.tobytes())
    made["idx.gz"] = tmp_path / "t-idx3-ubyte.gz"
    made["idx.gz"].write_bytes(gzip.compress(header + a.tobytes()))
    return made


def same_controls(u: Any, v: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(arrays_of(u), arrays_of(v), strict=True))


def predicted(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["predict", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["images"]


def test_all_forms_of_images_give_the_same(
    compacted: Path, trained: Path, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(compacted / "compact.npz")
    reference = models.read_model(trained / "model.npz")
    z = standardised_here(reference, test_images()[:, None]).astype(float)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    expected = [(int(q.argmax()), q) for q in p]
    one_by_one = predicted(capsys, model, *(str(files[f"{e}{k}"]) for e in ("png", "pgm") for k in range(3)))
    for rows in (
        one_by_one[:3],
        one_by_one[3:],
        predicted(capsys, model, str(files["npy"])),
        predicted(capsys, model, str(files["npz"]), "--array", "test_images"),
        predicted(capsys, model, str(files["idx"])),
        predicted(capsys, model, str(files["idx.gz"])),
        predicted(capsys, str(trained / "model.npz"), str(files["npy"])),
    ):
        assert [r["class"] for r in rows] == [k for k, _ in expected]
        for r, (k, q) in zip(rows, expected, strict=True):
            assert np.max(np.abs(np.array(r["probabilities"]) - q)) < 1e-5 and r["probability"] == r["probabilities"][k]
    (single,) = predicted(capsys, model, str(files["one"]))
    assert single["index"] is None and abs(single["probability"] - max(expected[1][1])) < 1e-5
    assert len(predicted(capsys, model, str(files["jpg"]))) == 1


def test_text_has_one_line_per_image(
    compacted: Path, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["predict", str(compacted), str(files["png0"]), str(files["npy"])]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) == 4 and err == ""
    assert re.fullmatch(re.escape(str(files["png0"])) + r": class \d, probability [01]\.\d{4}", lines[0])
    assert lines[3].startswith(f"{files['npy']}[2]: class ")
    assert lines[0].partition(": ")[2] == lines[1].partition(": ")[2]


def test_a_directory_takes_the_compact_model_first(
    trained: Path, tmp_path: Path, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, tmp_path / "r", ignore=shutil.ignore_patterns("compact.*"))
    assert (
        models.read_model(tmp_path / "r").network.stages[0]
        == models.read_model(trained / "model.npz").network.stages[0]
    )
    assert main(["compact", str(tmp_path / "r")]) == 0
    assert (
        models.read_model(tmp_path / "r").network.stages[1]
        != models.read_model(trained / "model.npz").network.stages[1]
    )


def test_a_run_that_goes_on_takes_the_compact_model_with_it(data: Path, tmp_path: Path) -> None:
    """Compacted while interrupted: the resumed run removes it before it writes its model, wherever it is killed."""
    out = tmp_path / "r"
    original = application.Recorder.__call__

    def stop(self: Any, it: Any, record: Any) -> bool:
        self.stopping = self.stopping or it.step == 2  # as Ctrl-C does
        return original(self, it, record)

    with pytest.MonkeyPatch.context() as m:
        m.setattr(application.Recorder, "__call__", stop)
        assert run(data, out) == 130
    assert main(["compact", str(out)]) == 0
    early = models.read_model(out)
    assert (out / "compact.npz").is_file() and (out / "compact.json").is_file()
    written = []

    def die(path: Path, content: bytes) -> None:
        written.append(path.name)
        if path.name == "model.npz":
            raise KeyboardInterrupt
        write_atomically(path, content)

    with pytest.MonkeyPatch.context() as m:
        m.setattr(conclude, "write_atomically", die)  # dies between the removal and the new model
        assert main(["train", "--resume", str(out), "--quiet", "--no-figures"]) == 130
    assert written == ["model.npz"]
    assert not (out / "compact.npz").exists() and not (out / "compact.json").exists()
    assert same_controls(models.read_model(out).controls, models.read_model(out / "model.npz").controls)
    assert main(["train", "--resume", str(out), "--quiet", "--no-figures"]) == 0
    last = models.read_model(out)
    assert not same_controls(last.controls, early.controls)
    assert main(["compact", str(out)]) == 0
    assert len(last.controls) == len(models.read_model(out).controls)


def test_results_written_again_leave_the_compact_model(data: Path, tmp_path: Path) -> None:
    """Equal content is no other model."""
    out = tmp_path / "r"
    assert run(data, out) == 0
    assert main(["compact", str(out)]) == 0
    before = (out / "compact.npz").read_bytes()
    (out / "summary.json").unlink()  # as if killed before the last file
    assert main(["train", "--resume", str(out), "--quiet", "--no-figures"]) == 0
    assert (out / "compact.npz").read_bytes() == before and (out / "compact.json").is_file()


def test_a_stale_model_that_cannot_be_removed_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(30, "Read-only file system")

    (tmp_path / "compact.npz").write_bytes(b"old")
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OutputError, match=r"Read-only file system.*out of date"):
        conclude.write_model(tmp_path, b"new")
    assert not (tmp_path / "model.npz").exists()


def test_a_run_in_progress_is_not_compacted(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It will write another model."""
    with locked(trained):
        bad(capsys, ["compact", str(trained)], "another process is working on")


def test_inverted_images_are_noted_and_inverted_on_demand(
    compacted: Path, files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dark = np.full((12, 12), 250, np.uint8)
    dark[4:7] = 20
    Image.fromarray(dark).save(tmp_path / "dark.png")
    capsys.readouterr()
    assert main(["predict", str(compacted), str(tmp_path / "dark.png"), "--json"]) == 0
    out, err = capsys.readouterr()
    assert "--invert" in err and json.loads(out)["notes"] and not json.loads(out)["inverted"]
    np.save(tmp_path / "bright.npy", 255 - dark)
    turned = predicted(capsys, str(compacted), str(tmp_path / "dark.png"), "--invert")
    plain = predicted(capsys, str(compacted), str(tmp_path / "bright.npy"))
    assert turned[0]["probabilities"] == plain[0]["probabilities"]
    assert capsys.readouterr().err == ""


def _png(name: str, a: np.ndarray, mode: str | None = None) -> Callable[[Path], Path]:
    def write(directory: Path) -> Path:
        image = Image.fromarray(a)
        (image.convert(mode) if mode else image).save(directory / name)
        return directory / name

    return write


def _bytes(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(directory: Path) -> Path:
        (directory / name).write_bytes(content)
        return directory / name

    return write


def _npy(name: str, a: Any) -> Callable[[Path], Path]:
    def write(directory: Path) -> Path:
        np.save(directory / name, a, allow_pickle=True)
        return directory / name

    return write


def _npz(name: str, **arrays: Any) -> Callable[[Path], Path]:
    def write(directory: Path) -> Path:
        np.savez(directory / name, **arrays)
        return directory / name

    return write


GREY = np.zeros((12, 12), np.uint8)
UNREADABLE: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "another size": (_png("a.png", np.zeros((10, 12), np.uint8)), ["10 rows × 12 columns", "12 rows × 12", "resize"]),
    "colour": (_png("a.png", np.zeros((12, 12, 3), np.uint8)), ["mode 'RGB'", "expected 'L'"]),
    "transparency": (_png("a.png", GREY, "LA"), ["mode 'LA'"]),
    "palette": (_png("a.png", GREY, "P"), ["mode 'P'"]),
    "sixteen bits": (_png("a.png", np.zeros((12, 12), np.uint16)), ["mode 'I;16'"]),
    "no picture": (_bytes("a.png", b"hello"), ["no readable PNG"]),
    "another format than its name": (_png("b.gif", GREY), ["no known ending"]),
    "a huge picture": (_bytes("a.pgm", b"P5 60000 60000 255\n" + bytes(10)), ["no readable PPM"]),
    "a truncated picture": (_bytes("a.pgm", b"P5 12 12 255\n" + bytes(10)), ["no readable PPM"]),
    "no ending": (_bytes("image", b""), ["no known ending", ".png"]),
    "floats": (_npy("a.npy", np.zeros((12, 12))), ["integer array"]),
    "longer integers": (_npy("a.npy", np.zeros((12, 12), np.int64)), ["int64", "unsigned bytes"]),
    "a pickle": (_npy("a.npy", np.array([{}], object)), ["integer array"]),
    "a vector": (_npy("a.npy", np.zeros(144, np.uint8)), ["(144,)"]),
    "channels first": (_npy("a.npy", np.zeros((5, 1, 12, 12), np.uint8)), ["12 channels", "the model takes"]),
    "an array cut off": (_bytes("a.npy", b"\x93NUMPY\x01\x00"), ["truncated"]),
    "several arrays": (_npz("a.npz", a=GREY, b=GREY), ["holds 2 arrays", "--array"]),
    "no archive": (_bytes("a.npz", b"PK"), ["not a readable .npz"]),
    "no IDX": (_bytes("a-idx3-ubyte", bytes(20)), ["expected 0x"]),
    "nothing there": (lambda directory: directory / "none.png", ["no file"]),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_images_that_do_not_fit(name: str, compacted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write, parts = UNREADABLE[name]
    bad(capsys, ["predict", str(compacted / "compact.npz"), str(write(tmp_path))], *parts)


def test_wrong_arguments(compacted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = _png("a.png", GREY)(tmp_path)
    bad(capsys, ["predict", str(tmp_path / "none.npz"), str(image)], "no file")
    bad(capsys, ["predict", str(compacted), str(image), "--array", "x"], "--array x", "leave --array out")
    two = _npz("a.npz", a=GREY, b=GREY)(tmp_path)
    bad(capsys, ["predict", str(compacted), str(two), "--array", "c"], "holds no 'c'")
    bad(capsys, ["predict", str(compacted)], "IMAGES")


def test_colour_pictures(tmp_path: Path) -> None:
    from pmp_ref.app.predict import images

    a = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    Image.fromarray(a).save(tmp_path / "a.png")
    assert np.array_equal(images(tmp_path / "a.png", (3, 6, 5)), a.transpose(2, 0, 1)[None])
    Image.fromarray(a[..., 0]).save(tmp_path / "g.png")
    with pytest.raises(InputError, match="mode 'L'"):
        images(tmp_path / "g.png", (3, 6, 5))
    Image.fromarray(a[..., 0] > 99).save(tmp_path / "b.png")
    assert np.array_equal(images(tmp_path / "b.png", (1, 6, 5))[0, 0], 255 * (a[..., 0] > 99))


# --- ONNX -------------------------------------------------------------------------------------------------------------


def run_onnx(content: bytes, raw: np.ndarray) -> list[np.ndarray]:
    import onnxruntime

    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"images": raw})


@needs_onnx
def test_the_command_writes_an_onnx_file_that_runs(
    trained: Path, compacted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compact", str(trained), "--out", str(tmp_path), "--onnx", str(tmp_path / "net.onnx")]) == 0
    assert "agrees on" in capsys.readouterr().out
    states, probabilities = run_onnx((tmp_path / "net.onnx").read_bytes(), test_images()[:, None])
    model = models.read_model(compacted)
    assert np.max(np.abs(states - standardised_here(model, test_images()[:, None]))) < 1e-4
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)


@needs_onnx
@given(chains(), st.integers(0, 2**32 - 1))
def test_drawn_networks_run_alike_in_onnxruntime(network: pr.Network, seed: int) -> None:
    """In float32, against float64: the bound is for rounding in float32, a mistake changes outputs by parts."""
    from pmp_ref.interop.onnx_out import Graph

    if len(network.input_shape) != 3:
        return
    import onnx

    controls = drawn_controls(network, seed)
    c = network.input_shape[0]
    raw = np.random.default_rng(seed).integers(0, 256, (3, *network.input_shape), np.uint8)
    head = pr.Pixels((0.4,) * c, tuple(np.linspace(0.2, 0.3, c)))
    bytes_ = Model(headed(head, network), ((), *controls), forms=("", *forms_of(network)))
    floats = Model(network, controls, forms=forms_of(network))
    for model, x in ((bytes_, raw), (floats, head.forward(raw.astype(np.float32), ()))):
        states, _ = run_onnx(Graph(model).build(onnx), x)
        y = model.run()(x)
        assert np.max(np.abs(states - y)) <= 1e-4 * max(1, np.max(np.abs(y)))


@needs_onnx
def test_onnx_outputs_that_differ_are_not_written(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pmp_ref.interop import onnx_out

    monkeypatch.setitem(onnx_out.ELEMENTWISE, pr.Tanh, "Softsign")
    out = tmp_path / "c"
    bad(capsys, ["compact", str(trained), "--out", str(out), "--onnx", str(tmp_path / "n.onnx")], "onnxruntime gives")
    assert not out.exists() and not (tmp_path / "n.onnx").exists()


def test_without_onnx_the_extra_is_named(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)  # import onnx raises ImportError
    out = tmp_path / "c"
    bad(capsys, ["compact", str(trained), "--out", str(out), "--onnx", str(tmp_path / "n.onnx")], "pip install onnx")
    assert not out.exists()


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_commands_of_the_pages_are_understood() -> None:
    found = []
    for _, line in commands():
        words = line.partition("#")[0].split()
        if words[:2] in (["pmp-ref", "compact"], ["pmp-ref", "predict"]):
            (compact_parser() if words[1] == "compact" else predict_parser()).parse_args(words[2:])
            found.append(words[1])
    assert {"compact", "predict"} <= set(found)


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("compact", "predict"):
        assert main([name, "--help"]) == 0
        assert f"\n  pmp-ref {name} runs/001" in capsys.readouterr().out


def test_same_is_sharp() -> None:
    """The comparison that these tests rest on sees a relative change of 1e-9."""
    network = pr.Network((pr.Dense(3),), (2,))
    y = network.forward_sweep(drawn_controls(network, 0), sample(network, 0))[-1]
    assert same(y, y + 1e-14) and not same(y, y * (1 + 1e-8) + 1e-9)
