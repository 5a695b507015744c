"""A folder of pictures from training to prediction, by the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pmp_ref.app.main import main
from tests.app_data import bad, run

CLASSES = ("dark", "light")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Dark and light pictures of 20×16 pixels, in colour, twelve of each class."""
    rng = np.random.default_rng(3)
    for k, name in enumerate(CLASSES):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(100 * k, 100 * k + 60, (20, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{i:02}.png")
    return tmp_path / "pictures"


def test_from_a_folder_to_the_name_of_a_class(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run(pictures, out, "--resize", "24x20", "--colour", "grey", "--epochs", "8") == 0
    assert main(["compact", str(out)]) == 0  # the check takes the run's own size and colour
    capsys.readouterr()
    Image.fromarray(np.full((9, 7, 3), 140, np.uint8)).save(tmp_path / "new.png")
    for model in (out, out / "model.npz"):
        assert main(["predict", str(model), str(tmp_path / "new.png"), "--fit", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["images"][0]
        assert (found["name"], found["class"]) == (CLASSES[found["class"]], 1)
    assert main(["predict", str(out), str(tmp_path / "new.png"), "--fit"]) == 0
    assert "class light, probability" in capsys.readouterr().out
    bad(capsys, ["predict", str(out), str(tmp_path / "new.png")], "9 rows × 7 columns", "--fit")


def test_what_does_not_fit(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", "--out", str(tmp_path / "run"), "--data"]
    bad(capsys, [*train, str(pictures), "--resize", "24by20"], "--resize", "24x32")
    bad(capsys, [*train, str(pictures), "--colour", "blue"], "--colour", "grey")
    bad(capsys, [*train, "mnist-subset", "--resize", "24"], "for folders of pictures")
    (pictures / "dark" / "00.png").write_bytes(b"no picture")
    bad(capsys, [*train, str(pictures)], "00.png", "no readable PNG")
    assert not (tmp_path / "run").exists()
