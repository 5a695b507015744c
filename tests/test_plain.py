"""The method in 250 lines makes the runs of ``pmp_ref`` trial by trial, imports nothing of it; faults in it show."""

from __future__ import annotations

import ast
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmp_ref.acceptance import AbsoluteTest, NoTest, RelativeTest
from pmp_ref.admissible import Box
from pmp_ref.augmentation import ClassicRule, CurvatureRule, FixedRule
from pmp_ref.averaging import Averaging
from pmp_ref.bsqh import bsqh
from pmp_ref.controls import map_controls, to_vector
from pmp_ref.initialise import initial_controls
from pmp_ref.layers import AveragePool, Convolution, Dense, Flatten, ReLU, Sigmoid, Tanh
from pmp_ref.loss import CrossEntropy, SquaredLoss
from pmp_ref.method import Method, Ramp
from pmp_ref.metric import GradientMetric, IdentityMetric, LayerMetric
from pmp_ref.network import Network
from pmp_ref.problem import Problem, layer_weights
from pmp_ref.regulariser import Polynomial
from pmp_ref.result import Record
from pmp_ref.stop import Stop
from tests.strategies import seeds
from verification import plain
from verification.conformance import translate
from verification.conformance.cases import described

SOURCE = Path(plain.__file__)
TRIALS = 25
Pick = Callable[..., Any]


@dataclass
class Run:
    """A problem, a method and data, drawn."""

    problem: Problem
    controls: Any
    x: np.ndarray
    y: np.ndarray
    method: Method
    stop: Stop
    batch_size: int | None
    seed: int


def drawn(pick: Pick, seed: int) -> Run:
    """``pick(a, b, …)`` chooses one of its arguments; the entries of arrays come from the seed. Nothing is square."""
    rng = np.random.default_rng(seed)
    act, bias, classes = pick(Tanh(), ReLU(), Sigmoid()), pick(True, False), 3
    if pick(True, False):
        groups, shape = pick(1, 2), (2, 8, 9)
        stages: Any = (
            Convolution(4, (3, pick(1, 2)), (1, pick(1, 2)), (pick(0, 1), pick(0, 2)), (pick(1, 2), 1), groups, bias),
            act,
            AveragePool((2, 3), pick(None, (1, 2))),
            Flatten(),
            Dense(classes, bias),
        )
    else:
        shape, stages = (5,), (Dense(4, bias), act, Dense(4), act, Dense(classes, bias))
    network, loss = Network(stages, shape), pick(CrossEntropy(), SquaredLoss())
    box = pick(Box(), Box(-1, 0.75), Box(-0.25, 0.25), Box(0.0, 2.0), Box(0.125, 1.0), Box(-1.0, -0.125))
    problem = Problem(
        network,
        loss,
        Polynomial(pick(0.0, 1.0), pick(0.0, 0.5), pick(0.0, 1.0)),
        rho=pick(0.0, 0.01, 0.1),
        admissible=box,
        weights=layer_weights(network, biases=pick(0.0, 0.5), by_stage={network.layers()[-1]: 2.0}),
    )
    samples = pick(5, 7)
    x = rng.standard_normal((samples, *shape))
    y = rng.integers(0, classes, samples) if isinstance(loss, CrossEntropy) else None
    y = rng.standard_normal((samples, classes)) if y is None else y
    start = initial_controls(network, seed % 1000, x)
    start = map_controls(lambda a: a + 0.25 * rng.standard_normal(a.shape) * (rng.random(a.shape) < 0.5), start)
    start = map_controls(lambda a: a * (rng.random(a.shape) < 0.75), start)
    batch_size = pick(None, 2, 3)
    eps0 = pick(0.01, 0.1, 1.0)
    stop = Stop(epochs=3) if batch_size and pick(True, False) else Stop(steps=8)
    method = Method(
        pick(
            CurvatureRule(eps0, memory=0.75, growth=pick(1.0, 3.0), band=pick(1.0, 4.0), fall=float(seed % 2)),
            ClassicRule(eps0, 1.5, 0.75),
            FixedRule(10 * eps0),
        ),
        pick(AbsoluteTest(), AbsoluteTest(0.1), RelativeTest(0.3), NoTest()),
        pick(IdentityMetric(), GradientMetric(0.75, 0.5, 2.0), LayerMetric(0.5, 0.1, 4.0)),
        pick(None, Averaging(0.8, 2)) if batch_size else None,
        pick(None, Ramp(0.1, 0.7)),
        max_rejections=pick(3, 60),
    )
    return Run(problem, problem.project(start), x, y, method, stop, batch_size, seed % 100)


def records(run: Run) -> list[Record]:
    """The run by ``pmp_ref``, cut after a number of trials."""
    found: list[Record] = []

    def keep(it: Any, record: Record) -> bool:
        found.append(record)
        return len(found) == TRIALS

    bsqh(
        run.problem,
        run.controls,
        run.x,
        run.y,
        stop=run.stop,
        method=run.method,
        batch_size=run.batch_size,
        seed=run.seed,
        callback=keep,
    )
    return found


def departure(run: Run, program: ModuleType = plain) -> str:
    """Where the second program first departs from ``pmp_ref``; "" if it does not.

    Numbers agree to 1e-9 of themselves, differences of J to 1e-9 of J. A run is compared up to the first trial in
    which ΣΔH or Ĉτ is so close to the rounding ν that it decides what follows, or in which J, untested, has risen:
    steps that run away blow rounding up.
    """
    spec = described(run.problem, run.method)
    P = translate.problem(spec)
    limits = {"steps": run.stop.steps or math.inf, "epochs": run.stop.epochs or math.inf}
    trials = program.bsqh(
        P,
        to_vector(run.controls),
        run.x,
        run.y,
        batch_size=run.batch_size,
        seed=run.seed,
        **limits,
        **translate.choices(spec, P),
    )
    made = records(run)
    k = -1
    for k, (r, t) in enumerate(zip(made, islice(trials, TRIALS), strict=False)):
        size = abs(r.J) + abs(r.J_before) + abs(r.sum_dh)
        measured = abs(r.delta_J + r.sum_dh) > 1e9 * r.rounding
        pairs = [
            ("ε", r.eps, t.eps, r.eps),
            ("ρ", r.rho, t.rho, r.rho),
            ("τ", r.tau, t.tau, r.tau),
            ("J", r.J, t.J, r.J),
            ("J before", r.J_before, t.J_u, r.J_before),
            ("ΔJ", r.delta_J, t.delta_j, size),
            ("ΣΔH", r.sum_dh, t.sum_dh, size),
            ("ν", r.rounding, t.rounding, r.rounding),
            ("residual", r.residual, t.residual, r.residual),
        ]
        pairs += [("Ĉ", r.c_hat, t.c_hat, r.c_hat)] if measured and r.tau > 0 else []
        for name, value, other, scale in pairs:
            if not abs(value - other) <= 1e-9 * abs(scale):
                return f"{name} {value} for {other} in trial {k}"
        unchanged = r.tau == t.tau == 0
        rose = r.verdict == "accepted" and r.delta_J > 0
        if (r.sum_dh <= 1e4 * r.rounding and not unchanged) or rose:
            return ""
        exact = [
            ("verdict", r.verdict, t.verdict),
            ("kept", r.nonzeros, t.kept),
            ("averaged", r.averaged, t.averaged),
            ("step", r.step, t.step),
            ("epoch", r.epoch, t.epoch),
            ("position", r.position, t.position),
            ("rejections", r.rejections, t.rejections),
        ]
        for name, value, other in exact:
            if value != other:
                return f"{name} {value} for {other} in trial {k}"
        if not (measured or unchanged):
            return ""
    complete = k == TRIALS - 1 or (k == len(made) - 1 and next(trials, None) is None)
    return "" if complete else f"{len(made)} trials, not so many in the second program, or more"


@settings(max_examples=60)
@given(st.data(), seeds)
def test_it_agrees_with_the_solver_trial_by_trial(data: st.DataObject, seed: int) -> None:
    assert departure(drawn(lambda *options: data.draw(st.sampled_from(options)), seed)) == ""


def fixed(seed: int) -> Run:
    """A run that depends on the seed alone."""
    rng = np.random.default_rng(seed)
    return drawn(lambda *options: options[rng.integers(len(options))], seed)


def test_runs_hold_what_they_are_drawn_for() -> None:
    """Every verdict, and as a rule many trials before a run is too close to rounding."""
    made = [records(fixed(seed)) for seed in range(120)]
    verdicts = {r.verdict for run in made for r in run}
    assert verdicts >= {"accepted", "rejected", "average dropped", "control unchanged"}
    assert sum(len(run) >= 4 for run in made) > 90


# Each is a piece of the file and what stands in its place.
FAULTS: dict[str, tuple[str, str]] = {
    "tanh: slope at the state that leaves": ("(1 - np.tanh(x) ** 2) * p", "(1 - np.tanh(np.tanh(x)) ** 2) * p"),
    "dense: W for Wᵀ where it fits": ("p @ u[0],", "p @ (u[0].T if u[0].shape[0] == u[0].shape[1] else u[0]),"),
    "pooling not divided": ("/ math.prod(size))", "/ 1)"),
    "adjoint of the windows without their overlap": ("np.add.at(q, pixels, X)", "q[pixels] = X"),
    "padding on one side": ("((n, n) for n in padding)", "((2 * n, 0) for n in padding)"),
    "1/B missing in p_L": ("[1] / len(y)]", "[1]]"),
    "threshold √(2ρ/ε)": ("(gain > 0)", "(gain > rho * self.a[0] * self.omega)"),
    "L1 against the sign": ("(g - sign * a1", "(g + sign * a1"),
    "box clipped after thresholding": ("max(lo, 0), max(hi, 0)", "0, math.inf"),
    "ΣΔH without the regulariser": ("g @ (w - u) - change", "g @ (w - u)"),
    "τ without the metric": ("d @ (w - u) ** 2, g", "((w - u) ** 2).sum(), g"),
    "ε without the metric": ("eps * d, rho)", "eps, rho)"),
    "metric not clipped": ("if d.any() else", "if False else"),
    "metric from g for g²": ("np.sqrt(squares)", "squares"),
    "Ĉ not divided by 1 − η₁": ("known = c_hat / (1 - M.eta1)", "known = c_hat"),
    "ε never below σ_min ε": ("max(M.sigma_min * eps, M.theta * (c + M.eta))", "M.sigma_min * eps"),
    "memory reversed": ("M.memory * mean + (1 - M.memory) * max(c, 0)", "(1 - M.memory) * mean + M.memory * max(c, 0)"),
    "θ does not grow": ("max(0, 2 * progress - 1) * (1 - 1 / M.growth)", "0"),
    "ε falls as fast as ζ lets it": ("max(M.zeta, math.exp(-part / M.fall))", "M.zeta"),
    "average used after a failed trial": ("use_average, returns = False,", "use_average, returns = True,"),
    "average never reset": ("if returns >= M.patience", "if False"),
    "the same batches in every epoch": ("(M.seed, epoch)", "(M.seed, 0)"),
    "states of the batch before": ("states_w if full else []", "states_w"),
    "acceptance without τ and ΣΔH": ("delta_j <= -M.eta * tau - M.eta1 * sum_dh", "delta_j <= 0"),
    "ε of a control that rounding ended": ("eps, ended = eps_start, verdict", "ended = verdict"),
}


def faulty(old: str, new: str) -> ModuleType:
    """The program with a piece replaced."""
    text = SOURCE.read_text(encoding="utf-8")
    assert text.count(old) == 1, (text.count(old), old)
    module = ModuleType("faulty")
    sys.modules["faulty"] = module  # dataclasses look for their module there
    exec(compile(text.replace(old, new), "faulty", "exec"), vars(module))
    return module


def departs(run: Run, program: ModuleType) -> bool:
    """True if the program departs or breaks down."""
    try:
        return departure(run, program) != ""
    except (IndexError, ValueError):
        return True


@pytest.mark.parametrize("name", list(FAULTS))
def test_a_fault_in_it_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = faulty(*FAULTS[name])
    monkeypatch.setattr(translate, "plain", program)
    with np.errstate(all="ignore"):
        assert any(departs(fixed(seed), program) for seed in range(150))


def test_the_runs_that_faults_are_looked_for_in_agree_without_one() -> None:
    assert [seed for seed in range(150) if departure(fixed(seed))] == []


def test_it_imports_nothing_of_the_package() -> None:
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    names = [a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names]
    names += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.partition(".")[0] for name in names} <= {"numpy", *sys.stdlib_module_names}
    assert not any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(tree))
    assert "import_module" not in SOURCE.read_text(encoding="utf-8")


def test_it_has_250_lines() -> None:
    lines = SOURCE.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 250 and max(map(len, lines)) <= 120


def test_it_runs_by_itself(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(SOURCE)], cwd=tmp_path, capture_output=True, text=True, check=True)
    accepted = [float(line.split()[3]) for line in done.stdout.splitlines() if "accepted" in line]
    assert len(accepted) == 40 and accepted == sorted(accepted, reverse=True)  # J falls in every accepted step
    assert done.stdout.rstrip().endswith("iteration limit")
