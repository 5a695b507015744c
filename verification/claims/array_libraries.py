"""Claims A1 and A2: a run does not depend on the array library, nor on the order of its sums beyond rounding.

They are claims on the implementation, not of the theory, so their tags are not T-tags.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pmp_ref.acceptance import AbsoluteTest, RelativeTest
from pmp_ref.admissible import FiniteSet
from pmp_ref.arrays import Controls, namespace, to_numpy, unit_roundoff
from pmp_ref.augmentation import ClassicRule, CurvatureRule
from pmp_ref.averaging import Averaging
from pmp_ref.bsqh import bsqh
from pmp_ref.controls import arrays_of, map_controls, to_vector
from pmp_ref.errors import InputError
from pmp_ref.iterate import Iterate
from pmp_ref.loss import CrossEntropy
from pmp_ref.method import Method
from pmp_ref.metric import GradientMetric, LayerMetric
from pmp_ref.regulariser import L0, L1, GroupL0, LHalf
from pmp_ref.result import Record, Run
from pmp_ref.stop import Stop
from pmp_ref.sweep import Sweep
from verification.claim import Case, Check, Context, Outcome, claim, holds, survey
from verification.claims import problems
from verification.claims.fast_path import KERNELS, fast_path_checks
from verification.libraries import load

BITWISE = ("numpy", "numpy:readonly", "array_api_strict", "array_api_strict:device1")
OTHERS = ("torch", "jax.numpy", "cupy")
EVERY = {"jax.numpy": 5}  # JAX compiles each operation for each shape: every fifth instance

# A run of a dozen trials from the start multiplies one rounding by 10³–10⁴, mostly through ε = θ(Ĉ + η), whose Ĉ is a
# difference of objectives divided by τ. A wrong formula shows at 10⁻³ and above.
TOLERANCE = 1e-9


# Entries of a candidate w err by this many unit roundoffs of |w_i|: measured 5.5 for the closed form of L½, 29 for that
# of L⅔ (the arcosh of a ratio that grows with ε), fewer for the others, over ε from 1e-3 to 1e13.
CLOSED_FORM = 32.0


def residual_floor(u_mach: float, eps: float, heaviest: float, length: float) -> float:
    """What the rounding of w alone does to the residual 2ε‖D(w − u)‖ of two runs: 2 · 2ε max d · 32 u_mach‖w‖.

    At a large ε the step is short and w − u a difference of close numbers. Two runs that round w differently, each to
    the last places, then agree in w to 1e-15 and in the residual to far less. ``length`` ≥ ‖w‖, ``heaviest`` = max d.
    """
    return 2 * (2 * eps * heaviest) * CLOSED_FORM * u_mach * length


METHODS: tuple[tuple[Method, int | None], ...] = (
    (Method(ClassicRule(eps0=0.01, sigma=2.0)), None),
    (Method(CurvatureRule(eps0=0.02), RelativeTest(0.2), GradientMetric()), 3),
    (Method(CurvatureRule(eps0=0.02), AbsoluteTest(1e-4), averaging=Averaging()), 2),
    (Method(ClassicRule(eps0=0.02, sigma=3.0), metric=LayerMetric()), None),
)


@dataclass(frozen=True)
class Trace:
    """What a run did: per trial the verdict and the numbers of its record; status, final controls and their dtype.

    ``floors`` are the residual's, trial by trial (``residual_floor``).
    """

    verdicts: tuple[str, ...]
    numbers: np.ndarray
    floors: np.ndarray
    status: str
    controls: np.ndarray
    dtypes: tuple[str, ...]


def trace(run: tuple[Run, tuple[float, ...]]) -> Trace:
    """The trace of a run, from what :func:`run` returns."""
    solution, floors = run
    numbers = np.array([[getattr(r, name) for name in NUMBERS] for r in solution.records], dtype=float)
    dtypes = tuple(to_numpy(a).dtype.name for stage in solution.controls for a in stage)
    verdicts = tuple(r.verdict for r in solution.records)
    return Trace(verdicts, numbers, np.array(floors), str(solution.status), to_vector(solution.controls), dtypes)


NUMBERS = tuple(name for name, kind in Record.__annotations__.items() if kind != "Verdict")


def departures(a: Trace, b: Trace) -> list[str]:
    """The quantities in which two traces differ, bit for bit, in the order of the algorithm."""
    found = [f"trial {k}: {v} for {w}" for k, (v, w) in enumerate(zip(b.verdicts, a.verdicts, strict=False)) if v != w]
    if len(a.verdicts) != len(b.verdicts):
        found.append(f"{len(b.verdicts)} trials for {len(a.verdicts)}")
    else:
        same = (a.numbers == b.numbers) | (np.isnan(a.numbers) & np.isnan(b.numbers))
        found += [f"trial {k}: {NUMBERS[i]}" for k, i in np.argwhere(~same)]
    for name in ("status", "dtypes"):
        if getattr(a, name) != getattr(b, name):
            found.append(f"{name} {getattr(b, name)} for {getattr(a, name)}")
    if a.controls.shape != b.controls.shape or not np.array_equal(a.controls, b.controls):
        found.append("final controls")
    return found


def setting(case: Case, library: str, dtype: str, seed: int) -> problems.Setting:
    """A problem, the same for every library: networks, regularisers and admissible sets go round with the index.

    Its controls are arrays that the library made itself, so that on "numpy:readonly" they refuse writing.
    """
    context = replace(case.context, library=load(library), dtype=dtype)
    twin = Case(context, case.index, np.random.default_rng(seed))
    ternary = FiniteSet((-1.0, 0.0, 1.0))
    kinds: tuple[Any, ...] = (
        lambda c: problems.dress(c, problems.dense_chain, regulariser=L0()),
        lambda c: problems.smooth(c),
        lambda c: problems.kinked(c, regulariser=GroupL0(omega=2.0)),
        lambda c: problems.dress(c, problems.lenet, regulariser=LHalf()),
        lambda c: problems.dress(c, problems.residual_block, regulariser=L1()),
        lambda c: problems.dress(c, problems.dense_chain, regulariser=L0(), admissible=ternary),
        lambda c: problems.kinked(c),
    )
    if context.profile == "micro":
        s = problems.dress(twin, problems.dense_chain, regulariser=L0(), loss=CrossEntropy(), samples=3, chunk=3)
    else:
        s = twin.cycle(*kinds)(twin)
    return replace(s, controls=map_controls(lambda a: context.library.asarray(to_numpy(a)), s.controls))


def run(s: problems.Setting, index: int, steps: int) -> tuple[Run, tuple[float, ...]]:
    """A run on the setting and its residuals' floors; methods and batch sizes go round with the index."""
    method, batch_size = METHODS[index % len(METHODS)]
    floors: list[float] = []
    length = [norm(s.controls)]

    def see(it: Iterate, record: Record) -> None:
        weights = (
            [1.0]
            if it.current.metric is None
            else [float(v) for a in arrays_of(it.current.metric) for v in to_numpy(a).ravel()]
        )
        w = length[0] + math.sqrt(record.tau / min(weights))  # ‖w‖ ≤ ‖u‖ + ‖w − u‖
        floors.append(residual_floor(unit_roundoff(next(arrays_of(s.controls))), record.eps, max(weights), w))
        length[0] = norm(it.controls)

    solution = bsqh(
        s.problem,
        s.controls,
        s.x,
        s.y,
        stop=Stop(steps=steps),
        method=method,
        batch_size=batch_size,
        seed=index,
        callback=see,
    )
    return solution, tuple(floors)


def norm(controls: Controls) -> float:
    """‖u‖."""
    return float(np.linalg.norm(to_vector(controls)))


@claim(
    tag="A1",
    title="NumPy and array-api-strict agree bit for bit",
    statement="every number of every trial, every decision and the final controls are equal bit for bit",
)
def bit_for_bit(context: Context) -> Outcome:
    """Statement: a run on NumPy, on NumPy arrays that refuse writing, and on array-api-strict on two devices takes the
    same decisions and gives the same numbers, bit for bit, in float64 and in float32; dtypes do not change.

    Hypotheses: these libraries compute with the same routines, so any difference is a library taking another path: a
    number of another precision, an argument written to, an array made on the wrong device.

    Measured: the number of quantities that differ from the NumPy run, over classic and curvature rule, absolute and
    relative test, metrics, averaging, full batch and mini-batches; every second instance in float32. Bound 0. The
    backend of the run plays no part: the claim chooses its own.
    """
    steps = context.count(1, 4, 20)

    def one(case: Case) -> Iterator[Check]:
        seed, dtype = int(case.rng.integers(2**31)), case.cycle("float32", "float64")
        reference = trace(run(setting(case, BITWISE[0], dtype, seed), case.index, steps))
        if set(reference.dtypes) != {dtype}:
            yield Check(1.0, 0.0, f"numpy, {dtype}: final controls are {', '.join(sorted(set(reference.dtypes)))}")
            return
        strict = BITWISE[2 + (case.index + case.index // 2) % 2]  # strict is slow: one of its devices for each instance
        for library in (BITWISE[1], strict):
            s = setting(case, library, dtype, seed)
            found = departures(reference, trace(run(s, case.index, steps)))
            where = f", first in {found[0]}" if found else ""
            yield Check(float(len(found)), 0.0, f"{library}, {dtype}, {s.name}{where}")

    return survey(context, one, micro=2, quick=14, full=140)


@claim(
    tag="A2",
    title="Runs agree to rounding over libraries and orders of summation",
    statement="same decisions; |a − b| ≤ 1e-9 (1 + |a|) + rounding of w, numbers of all trials; fast = clear sweeps",
    dtypes=("float64",),
)
def to_rounding(context: Context) -> Outcome:
    """Statement: chunks of another size, samples in another order and other array libraries change the rounding only:
    all accept/reject decisions are the same, all numbers agree to the stated tolerance. So does the fast path, whatever
    was swept before, at ties and for scores of any size; what it gave before does not change.

    Hypotheses: float64 and a few trials from the start, so that no decision hangs on a rounding: such a trial would
    have to come within 1e-9 of a threshold. float32 is left out, for there that happens.

    Measured: the largest |a − b|/(1 + |a|) against 1e-9, and different decisions (none allowed), against NumPy in
    chunks of the setting: chunks of one sample, one chunk, the samples reversed (full batch), and PyTorch, JAX and CuPy
    where they are installed (not in the micro profile, whose time their import would take). Ĉ counts as Ĉτ, of which
    it is the quotient, and numbers are compared up to the first trial with ν/τ > 1e-9: from there on rounding decides Ĉ
    and so ε. From the residual 2ε‖D(w − u)‖ what the storage of w does to it is taken off first, 128 ε max d
    u‖w‖: below 1e-9 for ε < 1e4, and all there is where a first trial that leaves every scale (squared loss, kinks)
    has sent ε to 1e11. Fast sweeps: losses and g against the clear sweep, 10⁴ roundings (``fast_path.py``).
    """
    steps = context.count(3, 6, 15)
    libraries, notes = ([], []) if context.profile == "micro" else installed()

    def one(case: Case) -> Iterator[Check]:
        seed = int(case.rng.integers(2**31))
        s = setting(case, "numpy", "float64", seed)
        reference = trace(run(s, case.index, steps))
        others = {
            "chunks of one sample": (with_chunk(s, 1), case.index),
            "one chunk": (with_chunk(s, s.x.shape[0]), case.index),
        }
        if METHODS[case.index % len(METHODS)][1] is None:
            others["samples reversed"] = (problems.with_data(s, s.x[::-1], s.y[::-1]), case.index)
        for library in (name for name in libraries if case.index % EVERY.get(name, 1) == 0):
            others[library] = (setting(case, library, "float64", seed), case.index)
        for name, (other, index) in others.items():
            found = trace(run(other, index, steps))
            same = found.verdicts == reference.verdicts
            yield holds(same, f"decisions, {name}, {s.name}")
            if same:
                yield Check(distance(reference, found), TOLERANCE, f"numbers, {name}, {s.name}")
        yield from fast_path_checks(case, KERNELS[case.index % 2 :: 2])

    return survey(context, one, micro=2, quick=21, full=140, notes=notes)


def with_chunk(s: problems.Setting, chunk: int) -> problems.Setting:
    """The setting swept in chunks of that size."""
    sweep = Sweep(s.network, s.problem.loss, chunk=chunk)
    return replace(s, problem=replace(s.problem, sweep=sweep))


def distance(a: Trace, b: Trace) -> float:
    """Largest |a − b|/(1 + |a|) over the numbers of the trials that :func:`resolved` counts and the final controls; Ĉ
    counts multiplied by τ, and residuals less what rounding of w makes of them (:func:`residual_floor`)."""
    column, tau, residual = (NUMBERS.index(name) for name in ("c_hat", "tau", "residual"))
    trials = resolved(a)
    first, second = a.numbers[:trials].copy(), b.numbers[:trials].copy()
    for t in (first, second):
        t[:, column] *= t[:, tau]
    gaps = np.abs(first - second)
    gaps[:, residual] = np.maximum(gaps[:, residual] - a.floors[:trials], 0.0)
    gaps = gaps / (1 + np.abs(first))
    gaps = np.where(np.isnan(first) & np.isnan(second), 0.0, gaps)
    controls = np.abs(a.controls - b.controls) / (1 + np.abs(a.controls))
    worst = max(float(np.max(gaps)), float(np.max(controls)))
    return worst if worst == worst else math.inf


def resolved(a: Trace) -> int:
    """The trials up to the first whose Ĉ rounding decides to more than the tolerance, ν/τ > 1e-9, that one included.

    ε follows Ĉ, and a run that comes to rest divides ν by an ever smaller τ: from there on two runs differ in ε.
    """
    rounding, tau = (a.numbers[:, NUMBERS.index(name)] for name in ("rounding", "tau"))
    doubtful = np.flatnonzero(rounding > TOLERANCE * tau)
    return int(doubtful[0]) + 1 if doubtful.size else len(a.numbers)


def installed() -> tuple[list[str], list[str]]:
    """(libraries besides NumPy and strict that can be used here, a note for each that cannot)."""
    found, notes = [], []
    for name in OTHERS:
        if importlib.util.find_spec(name.split(".")[0]) is None:
            notes.append(f"{name} is not installed: not compared")
            continue
        try:
            namespace(load(name).asarray(np.zeros(1)))
            found.append(name)
        except InputError as error:
            notes.append(f"{name} not compared: {error}")
    return found, [*notes, *(f"{name} compared" for name in found)]
