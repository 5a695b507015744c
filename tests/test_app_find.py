"""``pmp-ref find``: which networks are trained, which is chosen, what is written, and a search that was killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmp_ref import read_model
from pmp_ref.app import conclude as ends
from pmp_ref.app import find as search
from pmp_ref.app import run as application
from pmp_ref.app.find import Goal, Member, begun_with, chosen, following, knee, name_of
from pmp_ref.app.main import main
from tests.app_data import bad, summary, write_images
from tests.test_app_resume import Killed, break_after

FAST = ("--epochs", "4", "--batch-size", "30", "--quiet", "--threads", "1", "--check-descent", "none", "--models", "4")


def of(*pairs: tuple[int, int], names: tuple[str, ...] = ()) -> list[Member]:
    """Members with so many weights of 10,000 and so many held-out images of 200 right."""
    return [
        Member(names[i] if names else f"{i:02}", kept, 10_000, correct, 200, 0.1, 0.01)
        for i, (kept, correct) in enumerate(pairs)
    ]


def test_down_by_thirds_until_one_is_not_good_then_between() -> None:
    goal = Goal(1.0)
    assert following(goal, of((10_000, 190))) == 3000
    assert following(goal, of((10_000, 190), (3000, 191))) == 949
    assert following(goal, of((10_000, 190), (3000, 188), (949, 188))) == 300  # 2 of 200 are one point
    assert following(goal, of((10_000, 190), (3000, 188), (949, 187))) == round((3000 * 949) ** 0.5)
    names = ("00", "01", "02", "03r", "04r")
    family = of((10_000, 190), (3000, 188), (949, 180), (1687, 189), (1265, 170), names=names)
    assert following(goal, family[:4]) == round((1687 * 949) ** 0.5)
    assert following(goal, family) is None  # two between are enough
    assert following(Goal(1.0, refine=0), family[:3]) is None
    assert following(Goal(1.0, models=3), family[:3]) is None
    assert following(goal, of((10_000, 190), (20, 190))) is None  # fewer than ten weights are not tried
    assert following(goal, of((10_000, 190), (3000, 100))) == round((3000 * 10_000) ** 0.5)


def test_down_to_a_wished_size() -> None:
    goal = Goal(None, "2%")
    assert following(goal, of((10_000, 190))) == 3000
    assert following(goal, of((10_000, 190), (3000, 20))) == 949  # however bad
    assert following(goal, of((10_000, 190), (3000, 20), (949, 20))) == 200
    assert following(goal, of((10_000, 190), (3000, 20), (949, 20), (180, 20))) is None


def test_which_weights_a_network_begins_with_and_its_name() -> None:
    family = of((10_000, 190), (3000, 188), (949, 180))
    assert begun_with(Goal(1.0), family, 300).kept == 3000  # not the one that is bad
    assert begun_with(Goal(None, "300"), family, 300).kept == 949
    assert name_of(family, 1687) == "03-1687r" and name_of(family, 300) == "03-300"


def test_the_smallest_good_one_or_the_best_of_the_size() -> None:
    family = of((10_000, 190), (3000, 188), (949, 180), (1687, 189), (1265, 187))
    assert chosen(Goal(1.0), family).kept == 1687 and chosen(Goal(1.5), family).kept == 1265
    assert chosen(Goal(1.0), family[:1]).kept == 10_000
    assert chosen(Goal(None, "1300"), family).kept == 1265


def test_the_knee_is_farthest_above_the_chord() -> None:
    family = of((10_000, 190), (1000, 188), (100, 180), (10, 100))
    bend = knee(family)
    assert bend is not None and bend.kept == 100  # 80/90 − 1/3, against 88/90 − 2/3
    assert knee([*family, *of((0, 20))]) == bend  # nothing left: no place on the logarithmic axis
    assert knee(family[:2]) is None
    assert knee(of((10_000, 190), (1000, 110), (10, 100))) is None  # below the chord all the way
    assert knee(of((10_000, 100), (1000, 150), (10, 100))) is None  # no accuracy is lost


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "d.npz", train=200, test=40)


def results(out: Path) -> dict[str, Any]:
    """What must agree between a broken and an unbroken search."""
    members = sorted(p for p in out.iterdir() if p.is_dir())
    return {
        "result": (out / "result.json").read_bytes(),
        "model": (out / "model.npz").read_bytes(),
        **{p.name: ((p / "model.npz").read_bytes(), summary(p)["kept_weights"]) for p in members},
    }


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finds") / "f"
    assert main(["find", "--data", str(data), "--out", str(out), *FAST]) == 0
    return out


def test_what_a_search_writes(whole: Path, data: Path) -> None:
    result = json.loads((whole / "result.json").read_text())
    assert {"report.html", "curve.png", "result.json", "model.npz", "find.json"} < {p.name for p in whole.iterdir()}
    names = [m["name"] for m in result["family"]]
    assert names == sorted(p.name for p in whole.iterdir() if p.is_dir()) and len(names) == 4
    kept = [m["kept"] for m in result["family"]]
    assert kept[0] == result["family"][0]["total"] and kept[1] <= 0.3 * kept[0]
    dense, best = result["family"][0], next(m for m in result["family"] if m["name"] == result["chosen"])
    assert 100 * (dense["correct"] - best["correct"]) <= best["images"]
    assert (whole / "model.npz").read_bytes() == (whole / result["chosen"] / "model.npz").read_bytes()
    arrays = np.load(data)
    exact = read_model(whole / "model.npz").accuracy(arrays["test_images"], arrays["test_labels"])
    assert result["test_accuracy"] == pytest.approx(exact, abs=1 / 40)
    page = (whole / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in names) and "chosen" in page and page.count("<img") == 1


def test_members_are_runs_that_leave_the_test_images_alone(whole: Path) -> None:
    for m in (p for p in whole.iterdir() if p.is_dir()):
        s = summary(m)
        assert s["test_accuracy"] is None and "leave" in s["reasons"]["test_accuracy"] and s["diagnosis"]
        config = json.loads((m / "config.json").read_text())["options"]
        assert config["test_images"] == "leave" and (m / "report.html").is_file()
        if m.name != "00-dense":
            begun = (whole / Path(config["start"]).parent.name / "model.npz").read_bytes()
            assert config["keep"] == m.name.split("-")[1].rstrip("r") and begun
            first = read_model(m / "start.npz").controls
            before = read_model(Path(config["start"])).controls
            assert all(
                np.array_equal(a, b) for p, q in zip(first, before, strict=True) for a, b in zip(p, q, strict=True)
            )


def test_test_images_are_looked_at_once(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    original = ends.test_accuracy
    for module in (ends, search):
        monkeypatch.setattr(module, "test_accuracy", lambda *a: looks.append(1) or original(*a))
    assert (
        main(["find", "--data", str(data), "--out", str(tmp_path / "f"), "--no-figures", *FAST, "--models", "2"]) == 0
    )
    assert looks == [1] and not (tmp_path / "f" / "curve.png").exists()


@pytest.mark.parametrize("trials", [1, 70])
def test_a_killed_search_goes_on_where_it_was(trials: int, whole: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "f"
    with pytest.MonkeyPatch.context() as patch:
        break_after(trials, patch)
        with pytest.raises(Killed):
            main(["find", "--data", str(data), "--out", str(out), *FAST])
    assert main(["find", "--resume", str(out), "--quiet", "--threads", "1"]) == 0
    assert results(out) == results(whole)
    trained = [p for p in out.iterdir() if p.is_dir()]
    assert sum(summary(p)["restarts"] for p in trained) == 1


def test_killed_before_its_result_a_search_trains_nothing_anew(
    whole: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    out = tmp_path / "f"
    shutil.copytree(whole, out)
    (out / "result.json").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pmp_ref.app.build.bsqh", lambda *_, **__: pytest.fail("trained again"))
        assert main(["find", "--resume", str(out), "--quiet"]) == 0
        assert (out / "result.json").read_bytes() == (whole / "result.json").read_bytes()
        capsys.readouterr()
        assert main(["find", "--resume", str(out)]) == 0
    assert "nothing is left to do" in capsys.readouterr().out


def test_an_interrupted_search_says_how_to_go_on(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = application.Recorder.__call__
    monkeypatch.setattr(application.Recorder, "__call__", lambda self, it, r: original(self, it, r) or it.step == 5)
    out = tmp_path / "f"
    assert main(["find", "--data", str(data), "--out", str(out), *FAST]) == 130
    assert f"go on with: pmp-ref find --resume {out}" in capsys.readouterr().out


def test_down_to_a_size(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "f"
    assert main(["find", "--data", str(data), "--out", str(out), *FAST, "--keep", "10%", "--no-figures"]) == 0
    result = json.loads((out / "result.json").read_text())
    assert [m["name"] for m in result["family"]] == ["00-dense", "01-4441", "02-1480"]
    assert result["family"][-1]["kept"] <= 1480 and result["chosen"] == "02-1480"
    assert "the network of the wished size (10%)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--within", "1", "--keep", "1%"), ("--within", "--keep", "one of them")),
        (("--within", "0"), ("--within", "> 0")),
        (("--keep", "x"), ("1%", "5000")),
        (("--models", "0"), ("--models", "at least 1")),
        (("--refine", "-1"), ("--refine", "at least 0")),
        (("--rho", "1e-3"), ("--rho",)),
        (("--held-out", "0"), ("--held-out",)),
        (("--resume", "nowhere"), ("find.json",)),
        (("--epoch", "3"), ("--epochs",)),
        (("--resume", "x", "--epochs", "3"), ("--epochs", "leave")),
        (("--resume", "x", "--keep", "3"), ("--keep", "leave")),
        (("--network", "lenet6"), ("lenet5",)),
    ],
)
def test_errors(
    options: tuple[str, ...], parts: tuple[str, ...], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = () if "--resume" in options else ("--out", str(tmp_path / "f"), "--data", str(data))
    bad(capsys, ["find", *out, *options], *parts)
    assert not (tmp_path / "f").exists()


def test_a_directory_in_use_or_damaged(
    whole: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad(capsys, ["find", "--data", str(data), "--out", str(whole)], "not empty")
    (tmp_path / "find.json").write_text('{"format": 2}')
    bad(capsys, ["find", "--resume", str(tmp_path)], "find.json")
