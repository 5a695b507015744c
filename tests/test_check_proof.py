"""The second program on the proof of a run: it confirms what is right and rejects what was changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmp_ref.files import decode, pack, unpack
from tests.app_data import run, write_images
from verification import check_proof

flint = pytest.importorskip("flint", reason="python-flint is not installed (the extra proof)")


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("check")
    out = place / "r"
    data = write_images(place / "d.npz", train=24, test=0)
    assert run(data, out, "--batch-size", "7", "--steps", "2", "--epochs", "none", "--prove", "all") == 0
    return out


def changed(proven: Path, place: Path, step: dict[str, Any], arrays: dict[str, Any]) -> Path:
    """A copy of the proof with the first step's entry and file changed."""
    (place / "proof").mkdir()
    proof = json.loads((proven / "proof.json").read_text(encoding="utf-8"))
    proof["steps"] = [proof["steps"][0] | step]
    (place / "proof.json").write_text(json.dumps(proof), encoding="utf-8")
    file = unpack(proven / proof["steps"][0]["evidence"])
    texts = {name: decode(file.pop(name)) for name in ("note", "stages", "reads")}
    (place / proof["steps"][0]["evidence"]).write_bytes(pack(file | arrays, texts))
    return place


def test_it_confirms(proven: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_proof.main([str(proven)]) == 0
    assert "2 of 2 steps confirmed by Arb" in capsys.readouterr().out


def test_it_rejects_what_was_changed(proven: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = unpack(proven / "proof" / "step-000001.npz")
    step = json.loads((proven / "proof.json").read_text(encoding="utf-8"))["steps"][0]
    g, w = file["g_mid/00.kernel"].copy(), file["w/07.kernel"].copy()
    g[0, 0, 0, 0] += 1e-6
    w[0, 0] += np.float32(1e-2)
    cases: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("Φ of sample 2", {}, {"before_mid": file["before_mid"] + np.eye(len(file["before_mid"]))[2] * 1e-9}),
        ("switching function", {}, {"g_mid/00.kernel": g}),
        ("τ", {"tau": [(float.fromhex(v) * 1.001).hex() for v in step["tau"]]}, {}),
        ("delta_J", {"delta_J": [(float.fromhex(v) + 1e-6).hex() for v in step["delta_J"]]}, {}),
        ("called refuted", {"descent": "refuted"}, {}),
        ("gains", {}, {"w/07.kernel": w}),
        ("another step", {"step": 17}, {}),
    ]
    for number, (words, entry, arrays) in enumerate(cases):
        place = tmp_path / str(number)
        place.mkdir()
        assert check_proof.main([str(changed(proven, place, entry, arrays))]) == 1, words
        assert words in capsys.readouterr().out


def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_proof.main([str(tmp_path)]) == 2
    assert "proof.json" in capsys.readouterr().err
