"""Proofs of runs from the command line: ``prove RUN``, ``train --prove``, interruption, what is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmp_ref.app import proof_report
from pmp_ref.app import prove as application
from pmp_ref.app import run as training
from pmp_ref.app.main import main
from pmp_ref.app.proof_file import number
from pmp_ref.app.proof_report import proof_part
from pmp_ref.files import decode, unpack
from tests.app_data import bad, run, write_images

QUIET = ["--quiet", "--no-figures", "--threads", "1"]


class Killed(BaseException):
    """Ends a command where it stands."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "d.npz")


@pytest.fixture(scope="module")
def proven(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, proven afterwards, with figures."""
    out = tmp_path_factory.mktemp("runs") / "r"
    assert run(data, out) == 0
    assert main(["prove", str(out), "--quiet", "--threads", "1"]) == 0
    return out


def proof(out: Path) -> dict[str, Any]:
    """``proof.json``."""
    return json.loads((out / "proof.json").read_text(encoding="utf-8"))


def test_every_step_of_a_run_is_proven(proven: Path) -> None:
    content = proof(proven)
    summary = json.loads((proven / "summary.json").read_text(encoding="utf-8"))
    assert content["replay"]["identical"] is True
    assert content["counts"] == {"proven": summary["accepted_steps"], "undecided": 0, "refuted": 0}
    assert [s["step"] for s in content["steps"]] == list(range(1, summary["accepted_steps"] + 1))
    assert content["test"] == {"kind": "absolute", "eta": "4722366482869645/4722366482869645213696"}
    low, high = map(number, content["final"]["eps_star"])
    assert low <= summary["epsilon_star"] <= high
    low, high = map(number, content["final"]["loss"])
    assert abs(summary["train_loss"] - (low + high) / 2) < 1e-9


def test_a_run_whose_images_are_moved_and_mirrored_is_proven(data: Path, tmp_path: Path) -> None:
    """The replay draws the images of each batch as the run did."""
    assert run(data, tmp_path / "r", "--batch-size", "18", "--shift", "1", "--flip", "horizontal") == 0
    assert main(["prove", str(tmp_path / "r"), "--quiet", "--threads", "1"]) == 0
    content = proof(tmp_path / "r")
    assert content["replay"]["identical"] is True
    assert content["counts"]["proven"] == len(content["steps"]) > 0


def test_the_intervals_hold_the_numbers_of_the_history(proven: Path) -> None:
    """The history is float32; the enclosures are thinner than its errors."""
    rows = (proven / "history.csv").read_text(encoding="utf-8").splitlines()
    names = rows[0].split(",")
    for row, step in zip(rows[2:], proof(proven)["steps"], strict=True):
        values = dict(zip(names, row.split(","), strict=True))
        low, high = map(number, step["delta_J"])
        assert low <= high and abs(float(values["delta_J"]) - low) < 1e-5 and high - low < 1e-9
        low, high = map(number, step["tau"])
        assert low <= high and abs(float(values["tau"]) / low - 1) < 1e-5
        assert number(step["switching"]["distance"]) < 5e-5 and not step["switching"]["inside"]


def test_the_files_of_a_few_steps_hold_all_that_a_checker_needs(proven: Path) -> None:
    named = [s["evidence"] for s in proof(proven)["steps"] if s["evidence"]]
    assert named == ["proof/step-000001.npz", "proof/step-000002.npz", "proof/step-000004.npz"]
    arrays = unpack(proven / named[0])
    note, stages = decode(arrays["note"]), decode(arrays["stages"])
    assert stages[0]["kind"] == "Pixels" and arrays["x"].dtype == np.uint8
    assert note["samples"] == len(arrays["x"]) == len(arrays["before_mid"])
    assert arrays["u/01.kernel"].dtype == np.float32 and arrays["g_rad/01.kernel"].dtype == np.float64


def test_the_report_has_a_section_and_a_picture(proven: Path) -> None:
    page = (proven / "report.html").read_text(encoding="utf-8")
    assert "<h2>Proof</h2>" in page and 'id="proof"' in page and "bit for bit" in page
    assert (proven / "proof.png").read_bytes().startswith(b"\x89PNG")


def test_steps_that_are_not_proven_are_named_in_the_report(proven: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = copy.deepcopy(proof(proven))
    content["steps"][1] |= {"verdict": "refuted", "descent": "refuted"}
    content["steps"][2] |= {"verdict": "undecided", "missing": (1.5e-9).hex()}
    content["counts"] = {"proven": 4, "undecided": 1, "refuted": 1}
    part = proof_part(content, None)
    assert (
        "Steps that are not proven" in part
        and "1.5e-09" in part
        and "1 undecided, 1 refuted" in part.replace("\n", " ")
    )
    assert application.sentence(content).endswith("1 undecided, 1 refuted") and "more, see" not in part
    monkeypatch.setattr(proof_report, "SHOWN", 1)
    assert "and 1 more, see proof.json" in proof_part(content, None)


@pytest.mark.parametrize("options", [(), ("--batch-size", "full", "--epochs", "3"), ("--acceptance", "relative")])
def test_a_run_that_proves_as_it_goes_says_the_same(data: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    assert run(data, tmp_path / "a", *options, "--prove", "all") == 0
    assert run(data, tmp_path / "b", *options) == 0
    assert main(["prove", str(tmp_path / "b"), *QUIET]) == 0
    first, second = proof(tmp_path / "a"), proof(tmp_path / "b")
    assert first["steps"] == second["steps"] and first["final"] == second["final"]
    assert first["counts"]["proven"] == len(first["steps"]) > 0 and first["replay"] is None


def test_every_nth_step(data: Path, tmp_path: Path) -> None:
    assert run(data, tmp_path / "a", "--prove", "2") == 0
    content = proof(tmp_path / "a")
    assert [s["step"] for s in content["steps"]] == [2, 4, 6] and content["accepted_steps"] == 6
    assert "3 of 3 examined" in application.sentence(content)


def test_a_replay_that_is_killed_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(data, tmp_path / "a") == 0
    assert run(data, tmp_path / "b") == 0
    assert main(["prove", str(tmp_path / "a"), *QUIET]) == 0
    original = application.Replay.__call__
    count = 0

    def call(self: Any, it: Any, record: Any) -> bool:
        nonlocal count
        count += 1
        if count == 2:
            raise Killed
        stop = original(self, it, record)
        self.stopping = count == 4  # as Ctrl-C does
        return stop or self.stopping

    monkeypatch.setattr(application.Replay, "__call__", call)
    monkeypatch.setattr(application, "CHECKPOINT_EVERY", 0.0)
    with pytest.raises(Killed):
        main(["prove", str(tmp_path / "b"), *QUIET])
    assert not (tmp_path / "b" / "proof.json").exists()
    assert main(["prove", str(tmp_path / "b"), *QUIET]) == 130
    assert not (tmp_path / "b" / "proof.json").exists()
    assert main(["prove", str(tmp_path / "b"), *QUIET]) == 0
    assert proof(tmp_path / "a") == proof(tmp_path / "b")


def test_a_run_that_proves_and_is_killed_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(data, tmp_path / "a", "--prove", "all") == 0
    original = training.Recorder.__call__
    count = 0

    def call(self: Any, it: Any, record: Any) -> bool:
        nonlocal count
        count += 1
        stop = original(self, it, record)
        if count == 3:
            raise Killed
        return stop

    monkeypatch.setattr(training.Recorder, "__call__", call)
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 0.0)
    with pytest.raises(Killed):
        run(data, tmp_path / "b", "--prove", "all")
    assert main(["train", "--resume", str(tmp_path / "b"), *QUIET]) == 0
    assert proof(tmp_path / "a") == proof(tmp_path / "b")


def test_a_replay_that_differs_says_where_and_proves_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data, tmp_path / "a") == 0
    history = tmp_path / "a" / "history.csv"
    rows = history.read_text(encoding="utf-8").splitlines()
    cells = rows[3].split(",")
    cells[2] = repr(np.nextafter(float(cells[2]), 1.0).item())
    history.write_text("\n".join([*rows[:3], ",".join(cells), *rows[4:], ""]), encoding="utf-8")
    capsys.readouterr()
    assert main(["prove", str(tmp_path / "a"), *QUIET]) == 3
    out = capsys.readouterr().out
    assert "the replay differs from the run: J of step 2" in out and cells[2] in out
    assert not (tmp_path / "a" / "proof.json").exists() and not (tmp_path / "a" / "proof").exists()


def test_another_last_control_differs(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data, tmp_path / "a") == 0
    path = tmp_path / "a" / "model.npz"
    content = bytearray(path.read_bytes())
    content[-400] ^= 1
    path.write_bytes(bytes(content))
    assert main(["prove", str(tmp_path / "a"), *QUIET]) == 3
    assert "its last control is not that of model.npz" in capsys.readouterr().out


def test_a_step_that_is_not_what_it_says_is_refuted(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A maximiser with half its ε: the steps descend, but they do not maximise the augmented Hamiltonian."""
    original = application.Prover.step_of

    def step_of(self: Any, *arguments: Any) -> Any:
        step = original(self, *arguments)
        return application.Step(*(0.5 * v if name == "eps" else v for name, v in vars(step).items()))

    monkeypatch.setattr(application.Prover, "step_of", step_of)
    assert run(data, tmp_path / "a") == 0
    assert main(["prove", str(tmp_path / "a"), *QUIET]) == 3
    content = proof(tmp_path / "a")
    assert content["counts"]["refuted"] == len(content["steps"]) > 0
    assert {s["descent"] for s in content["steps"]} == {"proven"}
    assert "6 refuted" in capsys.readouterr().out


def test_bad_input(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a"
    bad(capsys, ["prove", str(tmp_path)], "holds no run")
    assert run(data, out) == 0
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    bad(capsys, ["prove", str(out), "--every", "0"], "--every")
    (out / "model.npz").rename(tmp_path / "model.npz")
    bad(capsys, ["prove", str(out)], "model.npz", "which a proof needs")
    (tmp_path / "model.npz").rename(out / "model.npz")
    config = json.loads(before["config.json"])
    config["versions"]["pmp_ref"] = "0.0.9"
    (out / "config.json").write_text(json.dumps(config), encoding="utf-8")
    bad(capsys, ["prove", str(out)], "0.0.9", "can replay it")
    (out / "config.json").write_bytes(before["config.json"])
    (out / "summary.json").unlink()
    bad(capsys, ["prove", str(out)], "is not finished")
    (out / "summary.json").write_bytes(before["summary.json"])
    assert {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()} == before
    assert main(["prove", str(out), *QUIET]) == 0
    capsys.readouterr()
    bad(capsys, ["prove", str(out)], "proof.json", "is there already")


def test_float32_controls_outside_their_box_are_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """0.1 in float32 is 0.10000000149."""
    assert run(data, tmp_path / "a", "--box", "0.1") == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()}
    bad(capsys, ["prove", str(tmp_path / "a"), *QUIET], "0.10000000149", "--dtype float64")
    assert {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()} == before
    command = ["train", "--data", str(data), "--out", str(tmp_path / "b"), "--batch-size", "18", "--box", "0.1"]
    bad(capsys, [*command, "--prove", "all"], "0.10000000149", "--dtype float64")
    assert not (tmp_path / "b").exists()
    assert run(data, tmp_path / "c", "--box", "0.125", "--prove", "all") == 0


def test_one_process_makes_a_proof(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several ranks are refused before anything is written, and told how a proof is made of their run."""
    monkeypatch.setattr(training.World, "size", 2)
    command = ["train", "--data", str(data), "--out", str(tmp_path / "a"), "--batch-size", "18"]
    bad(capsys, [*command, "--prove", "all"], "--prove all on 2 ranks", "pmp-ref prove RUN")
    assert not (tmp_path / "a").exists()
