"""The command ``train`` end to end: what it writes, what it prints, how it ends."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmp_ref import AbsoluteTest, Network, Status
from pmp_ref.accuracy import Accuracy
from pmp_ref.app import run as application
from pmp_ref.app.build import build, split
from pmp_ref.app.inspect import GAP_HEAD, HEAD, control_rows, gap_rows
from pmp_ref.app.main import main
from pmp_ref.app.options import NO_TEST, resolve
from pmp_ref.certificate import DECADES, certify
from pmp_ref.data import load, statistics
from pmp_ref.files import decode, unpack
from pmp_ref.sweep import mean_loss
from tests.app_data import TINY, rows, run, summary, write_images

FIGURES = {"convergence.png", "accuracy.png", "filters.png", "sparsity.png", "weights.png"}
TABLES = {"history.csv", "trials.csv", "accuracy.csv"}
FILES = {"config.json", "summary.json", "model.npz", "certificate.json", "checkpoint.npz", "report.html"} | TABLES
COLUMNS = "step,epoch,J,loss,rho,nonzeros,eps,c_hat,tau,rejections,forward_sweeps,backward_sweeps,seconds"
FIELDS = (
    "status test_accuracy train_loss kept_fraction kept_weights total_weights accepted_steps rejections "
    "skipped_batches forward_sweeps backward_sweeps seconds epsilon_star seed versions "
    "descent_violations descent_checked descent_slack"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "d.npz")


@pytest.fixture(scope="module")
def drawn(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with figures."""
    out = tmp_path_factory.mktemp("runs") / "r"
    options = [a for a in TINY if a != "--no-figures"]
    assert main(["train", "--data", str(data), "--out", str(out), *options, "--check-descent", "all"]) == 0
    return out


def test_the_directory_holds_all_files(drawn: Path) -> None:
    assert {p.name for p in drawn.iterdir()} == FILES | FIGURES


def test_history_has_row_0_and_one_row_for_each_accepted_step(drawn: Path) -> None:
    assert (drawn / "history.csv").read_text().startswith(COLUMNS + ",")
    steps = rows(drawn / "history.csv", without=())
    assert [int(r["step"]) for r in steps] == list(range(summary(drawn)["accepted_steps"] + 1))
    assert int(steps[0]["nonzeros"]) == summary(drawn)["total_weights"]
    for row in steps[1:]:
        assert float(row["delta_J"]) <= -1e-6 * float(row["tau"])


def test_the_summary_is_complete_and_agrees_with_the_model(drawn: Path, data: Path) -> None:
    s, setup = summary(drawn), build(resolve({"data": str(data)} | {"batch_size": "18", "epochs": "2"}))
    assert set(FIELDS.split()) <= set(s) and s["reasons"] == {}
    model = unpack(drawn / "model.npz")
    kernels = [a for name, a in model.items() if name.endswith(".kernel")]
    assert s["kept_weights"] == sum(np.count_nonzero(k) for k in kernels)
    assert s["total_weights"] == sum(k.size for k in kernels)
    controls = tuple(tuple(model[f"{l:02}.{name}"] for name in names) for l, names in enumerate(setup.network.names()))
    c = certify(setup.problem, controls, setup.x, setup.y, s["epsilon"])
    assert s["epsilon_star"] == c.eps_star and s["train_loss"] == c.loss
    # the test accuracy by a way of its own
    dataset = load(str(data))
    assert dataset.test_images is not None and dataset.test_labels is not None
    mean, std = statistics(dataset.train_images)
    x = ((dataset.test_images / 255 - mean[0]) / std[0]).astype(np.float32)
    rest = Network(setup.network.stages[1:], setup.network.input_shape)
    final = rest.forward_sweep(controls[1:], x)[-1]
    assert s["test_accuracy"] == np.mean(np.argmax(final, axis=1) == dataset.test_labels)
    assert decode(model["network"])["name"] == "lenet5" and int(model["classes"]) == 3


def test_the_model_holds_plain_arrays_only_and_repeats_bit_for_bit(data: Path, drawn: Path, tmp_path: Path) -> None:
    assert run(data, tmp_path / "again", "--check-descent", "none", "--threads", "2") == 0
    assert (tmp_path / "again" / "model.npz").read_bytes() == (drawn / "model.npz").read_bytes()
    assert run(data, tmp_path / "other", "--seed", "1") == 0
    assert (tmp_path / "other" / "model.npz").read_bytes() != (drawn / "model.npz").read_bytes()
    with np.load(drawn / "model.npz", allow_pickle=False) as archive:
        assert all(archive[name].dtype.kind in "fiu" for name in archive.files)


class Page(HTMLParser):
    """What the report refers to, and its images."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.links += [v for k, v in attrs if k in ("src", "href", "srcset") and v]
        if tag == "img":
            self.images.append(values)


def test_the_report_is_self_contained_and_describes_its_figures(drawn: Path) -> None:
    text = (drawn / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert len(page.images) == len(FIGURES) and all(image["alt"] for image in page.images)
    assert page.links and all(link.startswith("data:image/png;base64,") for link in page.links)
    outside = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", text)  # letters of a picture may spell anything
    assert len(outside) < len(text) and not any(part in outside for part in ("http", "url(", "<script"))
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text
    for part in ("iteration limit", "--batch-size", "Certificate", "kept_weights", str(summary(drawn)["kept_weights"])):
        assert part in text


def test_figures_are_png_of_a_sensible_size(drawn: Path) -> None:
    for name in FIGURES:
        content = (drawn / name).read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = (int.from_bytes(content[i : i + 4], "big") for i in (16, 20))
        assert 600 <= width <= 1200 and 100 <= height <= 2000


def test_inspect_prints_certificate_and_layers(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(drawn)]) == 0
    text = capsys.readouterr().out
    s = summary(drawn)
    assert "ε*" in text and f"{s['epsilon_star']:.4g}" in text and "Convolution" in text and "6×1×5×5" in text
    assert re.search(r"bias \(free\)", text) and f"{s['kept_weights']:,}" in text


def test_report_and_inspect_show_the_same_tables(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    c = json.loads((drawn / "certificate.json").read_text(encoding="utf-8"))
    page = (drawn / "report.html").read_text(encoding="utf-8").split("<tr>")
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in page]
    assert main(["inspect", str(drawn)]) == 0
    lines = [re.split(r" {2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
    controls, gaps = control_rows(c), gap_rows(c)
    assert len(controls) == len(gaps) == len(c["controls"]) == 10
    assert all(len(row) == len(HEAD) for row in controls)
    assert all(len(row) == len(GAP_HEAD) + len(DECADES) for row in gaps)
    for row in (HEAD, *controls, *gaps):
        assert row in cells and row in lines
    assert [*GAP_HEAD, *(f"1e-{k}" for k in DECADES)] in lines
    assert [*GAP_HEAD, *"10⁻¹ 10⁻² 10⁻³ 10⁻⁴ 10⁻⁵ 10⁻⁶ 10⁻⁷ 10⁻⁸ 10⁻⁹ 10⁻¹⁰".split()] in cells


def test_results_go_to_stdout_and_progress_to_stderr(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    loud = [a for a in TINY if a != "--quiet"]
    for number in ("001", "002"):
        assert main(["train", "--data", str(data), *loud]) == 0
        out, err = capsys.readouterr()
        lines = out.splitlines()
        assert lines[0] == lines[-1] == f"run directory: runs/{number}"
        assert "held_out" in err and "J " in err and "loss " in err and "kept " in err and "eps " in err
        assert "held_out" not in out


def test_full_batch_never_lets_J_rise_and_keeps_rho(data: Path, tmp_path: Path) -> None:
    assert run(data, tmp_path / "r", "--batch-size", "full", "--epochs", "15", "--check-descent", "all") == 0
    steps = rows(tmp_path / "r" / "history.csv")
    objective = [float(r["J"]) for r in steps]
    assert len(objective) == 16 and all(b < a for a, b in itertools.pairwise(objective))
    assert len({r["rho"] for r in steps}) == 1
    assert summary(tmp_path / "r")["descent_violations"] == 0


def test_both_objectives_of_a_step_use_the_same_rho(data: Path, tmp_path: Path) -> None:
    assert run(data, tmp_path / "r", "--batch-size", "full", "--epochs", "8", "--ramp", "0:0.9", "--rho", "0.01") == 0
    steps = rows(tmp_path / "r" / "history.csv")[1:]
    assert len({r["rho"] for r in steps}) > 4
    for r in steps:
        assert float(r["J"]) < float(r["J_before"])


def test_a_run_without_acceptance_test_is_marked_everywhere(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loud = [a for a in TINY if a != "--quiet"]
    out = tmp_path / "r"
    arguments = ["--acceptance", "none", "--check-descent", "all"]
    assert main(["train", "--data", str(data), "--out", str(out), *loud, *arguments]) == 0
    stdout, stderr = capsys.readouterr()
    assert NO_TEST in stdout and NO_TEST in stderr
    assert summary(out)["notice"] == json.loads((out / "config.json").read_text())["notice"] == NO_TEST
    assert NO_TEST in (out / "report.html").read_text(encoding="utf-8")
    assert main(["inspect", str(out)]) == 0
    assert NO_TEST in capsys.readouterr().out
    assert summary(out)["descent_checked"] == summary(out)["accepted_steps"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rule", "classic"],
        ["--rule", "fixed", "--eps0", "5"],
        ["--acceptance", "relative"],
        ["--metric", "layer"],
        ["--regulariser", "l1/2", "--rho", "1e-5"],
        ["--regulariser", "l0+0.1*l2"],
        ["--regulariser", "group-l0"],
        ["--admissible=-0.1,0,0.1", "--metric", "identity"],
        ["--box", "0.2", "--penalise", "all"],
        ["--sweep", "clear"],
        ["--network", "residual"],
        ["--dtype", "float64"],
        ["--layer-weights", "1=0.5,4=2"],
        ["--held-out", "0"],
    ],
)
def test_every_kind_of_run_ends_well(arguments: list[str], data: Path, tmp_path: Path) -> None:
    assert run(data, tmp_path / "r", *arguments, "--steps", "3", "--check-descent", "all") == 0
    s = summary(tmp_path / "r")
    assert s["accepted_steps"] == s["descent_checked"] == 3 and s["descent_violations"] == 0
    assert (s["held_out_accuracy"] is None) == ("--held-out" in arguments)
    assert main(["inspect", str(tmp_path / "r")]) == 0


def test_box_and_finite_set_hold(data: Path, tmp_path: Path) -> None:
    assert run(data, tmp_path / "r", "--box", "0.2", "--steps", "5") == 0
    assert max(float(abs(a).max()) for name, a in unpack(tmp_path / "r" / "model.npz").items() if name[0] in "01") <= (
        np.float32(0.2)
    )
    assert run(data, tmp_path / "s", "--admissible=-0.1,0,0.1", "--metric", "identity", "--steps", "3") == 0
    model = unpack(tmp_path / "s" / "model.npz")
    values = {float(v) for name, a in model.items() if name.endswith(".kernel") for v in a.ravel()}
    assert values <= {float(np.float32(v)) for v in (-0.1, 0.0, 0.1)}
    assert {float(v) for v in model["01.bias"]} - values  # biases are free


def test_data_without_test_images(tmp_path: Path) -> None:
    assert run(write_images(tmp_path / "d.npz", test=0), tmp_path / "r") == 0
    s = summary(tmp_path / "r")
    assert s["test_accuracy"] is None and s["reasons"]["test_accuracy"] == "the data set has no test images"


def test_validation_images_are_held_out_where_there_are_any(tmp_path: Path) -> None:
    x, y = np.full((6, 12, 12), 7, np.uint8), np.arange(6) % 3
    path = write_images(tmp_path / "d.npz", val_images=x, val_labels=y)
    assert run(path, tmp_path / "r") == 0
    s = summary(tmp_path / "r")
    assert (s["training_images"], s["held_out_images"]) == (60, 6)


def test_the_held_out_part_is_a_tenth_of_every_class() -> None:
    dataset = load()
    train, held = split(dataset, 0.1)
    assert held is not None and len(train) == 4500
    assert np.bincount(held[1]).tolist() == [50] * 10
    assert np.bincount(dataset.train_labels[train]).tolist() == [450] * 10


def test_test_images_change_nothing_but_the_test_accuracy(tmp_path: Path) -> None:
    results = []
    for name, seed in (("a", 5), ("b", 6)):
        noise = np.random.default_rng(seed).integers(0, 256, (9, 12, 12)).astype(np.uint8)
        path = write_images(tmp_path / f"{name}.npz", test_images=noise, test_labels=np.arange(9) % 3)
        assert run(path, tmp_path / name) == 0
        results.append(((tmp_path / name / "model.npz").read_bytes(), rows(tmp_path / name / "history.csv")))
    assert results[0] == results[1]


def test_no_step_at_all(data: Path, tmp_path: Path) -> None:
    assert run(data, tmp_path / "r", "--steps", "0") == 0
    assert len(rows(tmp_path / "r" / "history.csv")) == 1 and summary(tmp_path / "r")["accepted_steps"] == 0


def test_convergence_by_residual_does_not_count_the_trial_it_did_not_take(data: Path, tmp_path: Path) -> None:
    assert run(data, tmp_path / "r", "--batch-size", "full", "--residual", "1e9", "--check-descent", "all") == 0
    s = summary(tmp_path / "r")
    assert s["status"] == "converged by residual" and s["accepted_steps"] == s["descent_checked"] == 0
    assert len(rows(tmp_path / "r" / "history.csv")) == 1
    assert [r["verdict"] for r in rows(tmp_path / "r" / "trials.csv")] == ["converged by residual"]


@pytest.mark.parametrize("status", list(Status))
def test_exit_codes(status: Status) -> None:
    failed = {Status.AUGMENTATION_LIMIT: 3, Status.NON_FINITE: 3, Status.INTERRUPTED: 130}
    assert application.EXIT.get(status, 0) == failed.get(status, 0)


def test_a_run_that_gives_up_exits_with_3(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("--rule", "fixed", "--eps0", "1e-6", "--batch-size", "full", "--dtype", "float64")
    assert run(data, tmp_path / "a", *arguments) == 3
    assert summary(tmp_path / "a")["status"] == "augmentation limit"
    monkeypatch.setattr(AbsoluteTest, "accepts", lambda *_: False)
    assert run(data, tmp_path / "b", "--batch-size", "full", "--max-rejections", "3") == 3


def test_what_is_not_finite_becomes_null_with_a_reason(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Network.forward_sweep

    def overflow(self: Network, controls: Any, x: Any, keep: bool = True) -> Any:
        states = original(self, controls, x, keep)
        return [*states[:-1], states[-1] * np.inf]

    monkeypatch.setattr(Network, "forward_sweep", overflow)
    assert run(data, tmp_path / "r", "--sweep", "clear") == 3
    s = summary(tmp_path / "r")
    assert s["status"] == "non-finite" and s["train_loss"] is None and s["reasons"]["train_loss"] == "not a number"
    assert main(["inspect", str(tmp_path / "r")]) == 0


def test_wilson_interval_against_its_equation() -> None:
    for accuracy in (Accuracy(981, 1000), Accuracy(0, 10), Accuracy(10, 10)):
        for bound in accuracy.interval():
            if 1e-12 < bound < 1 - 1e-12:  # where it is not cut off: the bounds p solve (p̂ − p)² = z² p(1 − p)/n
                z2 = 1.959963984540054**2
                left = (accuracy.part - bound) ** 2
                assert math.isclose(left, z2 * bound * (1 - bound) / accuracy.images, rel_tol=1e-9)
        low, high = accuracy.interval()
        assert 0 <= low <= accuracy.part <= high <= 1 and low < high


def test_a_full_disk_leaves_the_last_checkpoint_and_the_run_goes_on(data: Path, tmp_path: Path) -> None:
    assert run(data, tmp_path / "whole", "--epochs", "12") == 0
    out = tmp_path / "r"
    limit = (tmp_path / "whole" / "history.csv").stat().st_size // 2
    script = (
        "import resource, sys\nfrom pmp_ref.app import checkpoint\nfrom pmp_ref.app.main import main\n"
        "original = checkpoint.write\n"
        "def write(*a):\n    original(*a)\n    resource.setrlimit(resource.RLIMIT_FSIZE, (" + str(limit) + ",) * 2)\n"
        "checkpoint.write = write\nsys.exit(main(sys.argv[1:]))"
    )
    arguments = ["train", "--data", str(data), "--out", str(out), *TINY, "--epochs", "12"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1 and "cannot write" in done.stderr and "--resume" in done.stderr
    assert main(["train", "--resume", str(out), "--quiet", "--no-figures"]) == 0
    assert (out / "model.npz").read_bytes() == (tmp_path / "whole" / "model.npz").read_bytes()
    assert rows(out / "history.csv") == rows(tmp_path / "whole" / "history.csv")


def test_the_command_from_another_directory_with_spaces_and_letters(data: Path, tmp_path: Path) -> None:
    place = tmp_path / "läufe und mehr"
    place.mkdir()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    relative = os.path.relpath(data, place)
    command = [sys.executable, "-W", "error", "-m", "pmp_ref", "train", "--data", relative, *TINY]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (place / "runs" / "001" / "summary.json").is_file()
    assert json.loads((place / "runs" / "001" / "config.json").read_text())["options"]["data"] == str(data)


def test_images_that_vary_change_the_run_and_every_step_is_judged_on_them(data: Path, tmp_path: Path) -> None:
    given = ("--check-descent", "all", "--shift", "1", "--flip", "horizontal")
    plain, varied = tmp_path / "plain", tmp_path / "varied"
    assert run(data, plain) == run(data, varied, *given) == 0
    assert summary(varied)["train_loss"] != summary(plain)["train_loss"]
    assert summary(varied)["descent_checked"] == summary(varied)["accepted_steps"] > 0
    assert summary(varied)["descent_violations"] == 0
    options = dict(zip((a.removeprefix("--").replace("-", "_") for a in given[::2]), given[1::2], strict=True))
    setup = build(resolve(options | {"data": str(data), "batch_size": "18"}))
    x, y = setup.batch(0, 0)
    first = float(mean_loss(setup.problem.sweeper.trial(setup.controls, x, y)))
    assert float(rows(varied / "history.csv")[0]["loss"]) == first
    assert float(rows(plain / "history.csv")[0]["loss"]) != first


@pytest.mark.parametrize("given", [("--shift", "1"), ("--flip", "horizontal")])
def test_full_batch_has_no_images_that_vary(given: tuple[str, str], data: Path, tmp_path: Path) -> None:
    assert main(["train", "--data", str(data), "--batch-size", "full", *given, "--out", str(tmp_path / "r")]) == 2
    assert not (tmp_path / "r").exists()
