"""T7b beside AutoBound: the formulas of the table, and what the command says without AutoBound."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmp_ref.controls import to_vector
from verification.performance import __main__ as performance
from verification.performance import remainders


def test_remainders_from_coefficients() -> None:
    """φ(t) = 1 + 2t − 3t² + t³ + ½t⁴ at order 4, about 0 and about ½; the last coefficient known up to 0.1."""
    phi = np.polynomial.Polynomial([1.0, 2.0, -3.0, 1.0, 0.5])
    exact = phi(1.0) - phi(0.0) - phi.deriv()(0.0)
    middle = phi(np.polynomial.Polynomial([0.5, 1.0])).coef
    for order in (2, 3, 4):
        for coefficients, formula in (
            (phi.coef, remainders.from_start),
            (middle, lambda ends: remainders.from_middle(ends, 2.0)),
        ):
            centre = 0.0 if formula is remainders.from_start else 0.5
            known = np.polynomial.Polynomial(coefficients[:order])
            tops = [(phi(t) - known(t - centre)) / (t - centre) ** order for t in (0.0, 1.0) if t != centre]
            ends = [[c, c] for c in coefficients[:order]] + [[min(tops) - 0.05, max(tops) + 0.05]]
            low, high = formula(ends)
            assert low + 0.001 < exact < high - 0.001
            if formula is remainders.from_start:
                assert high - low == pytest.approx(0.1)


def test_the_table_without_autobound(monkeypatch: Any, capsys: Any) -> None:
    made = remainders.steps()
    assert [step.length for step in made[:3]] == [1.0, 0.1, 1e-4]
    for step in made:
        assert np.linalg.norm(to_vector(step.w) - to_vector(step.u)) == pytest.approx(step.length)
    monkeypatch.setattr(remainders, "steps", lambda: made[1:2])
    assert performance.main(["remainders"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and all(line.count("|") == 11 for line in lines)
    assert all(line.split("|")[7].strip() == "–" for line in lines[2:])
    widths = [float(line.split("|")[5]) for line in lines[2:]]
    assert widths == sorted(widths, reverse=True) and widths[-1] < 1e-4


def test_a_python_without_autobound_is_told(tmp_path: Path, capfd: Any) -> None:
    for python in (sys.executable, str(tmp_path / "none")):
        assert performance.main(["remainders", "--autobound", python]) == 2
        assert "error: --autobound" in capfd.readouterr().err
