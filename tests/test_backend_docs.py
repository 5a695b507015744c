"""docs/backends.md: its Python blocks run, its commands are understood."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pmp_ref as pr
from pmp_ref.app.main import train_parser
from pmp_ref.app.options import resolve
from pmp_ref.kernels import FastSweep
from pmp_ref.library import suited
from tests.backends import NAMES, probe
from verification.__main__ import parser as verification_parser
from verification.cuda_on_cpu.__main__ import parser as cuda_parser
from verification.gpu.__main__ import parser as gpu_parser

PAGE = (Path(__file__).parent.parent / "docs" / "backends.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
SHELL = re.findall(r"^ *```sh\n(.*?)^ *```", PAGE, re.M | re.S)
COMMANDS = [line.strip() for block in SHELL for line in block.splitlines()]


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """The names that the Python blocks define, run one after the other as a reader would."""
    names: dict[str, Any] = {"__name__": "page"}
    for block in PYTHON:
        exec(compile(block, "docs/backends.md", "exec"), names)
    return names


def test_the_tutorial_trains_and_goes_on(page: dict[str, Any]) -> None:
    assert [r.step for r in page["laptop"].steps] == [1, 2, 3]
    assert [r.step for r in page["goes_on"].steps] == [4, 5, 6]
    assert isinstance(suited(page["problem"], page["x"]).sweep, FastSweep)
    assert page["host"].current.evaluation is None


def test_the_moved_run_is_the_run(page: dict[str, Any]) -> None:
    x, y = page["setup"]("numpy")
    whole = pr.solve(page["problem"], x, y, batch_size=20, steps=6, method=pr.Method())
    assert [vars(r) for r in whole.steps[3:]] == [vars(r) for r in page["goes_on"].steps]


def test_the_tutorial_in_pytorch(page: dict[str, Any]) -> None:
    if reason := probe("torch"):
        pytest.skip(f"backend torch: {reason}")
    problem, (x, y), how = page["problem"], page["setup"]("torch"), {"batch_size": 20, "method": pr.Method()}
    there = pr.solve(problem, x, y, steps=3, **how)
    np.testing.assert_allclose([r.J for r in there.records], [r.J for r in page["laptop"].records], rtol=1e-10)
    on = pr.solve(problem, x, y, steps=6, resume=page["host"].moved(page["mover"]("torch")), **how)
    np.testing.assert_allclose([r.J for r in on.records], [r.J for r in page["goes_on"].records], rtol=1e-10)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command: str) -> None:
    words = shlex.split(command)
    if words[:3] == ["python", "-m", "verification.cuda_on_cpu"]:
        options = cuda_parser().parse_args(words[3:])
        assert options.step != bool(options.command)
        if options.command:
            test_commands_are_understood(shlex.join(options.command).replace("python -m pmp_ref", "pmp-ref"))
    elif words[:2] == ["pmp-ref", "train"]:
        given = vars(train_parser().parse_args(words[2:]))
        resume = given.pop("resume")
        known = {name: given[name] for name in ("steps", "backend", "dtype") if given[name] is not None}
        assert not resume or set(known) == {"backend"}
        resolve(known)
    elif words[:3] == ["python", "-m", "verification"]:
        options = verification_parser().parse_args(words[3:])
        assert options.backend in (*NAMES, "mylibrary")
    elif words[:3] == ["python", "-m", "verification.gpu"]:
        assert gpu_parser().parse_args(words[3:]).backend == "cupy"
    else:
        assert words[:3] == ["python", "-m", "pytest"]
        assert words[-2] == "--backend" and words[-1] in (*NAMES, "mylibrary")


def test_blocks_are_found() -> None:
    assert len(PYTHON) == 3 and len(COMMANDS) == 9
