"""Section 5: the algorithm. A second program, ``verification/plain.py``, makes the same runs trial by trial."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from pmp_ref.acceptance import AbsoluteTest, Acceptance, NoTest, RelativeTest
from pmp_ref.admissible import WHOLE_LINE, Box
from pmp_ref.arrays import like
from pmp_ref.augmentation import ClassicRule, CurvatureRule, FixedRule
from pmp_ref.averaging import Averaging
from pmp_ref.bsqh import bsqh
from pmp_ref.controls import kernel_entries, map_controls, to_vector
from pmp_ref.errors import ScaleWarning
from pmp_ref.iterate import Iterate
from pmp_ref.layers import Dense, Tanh
from pmp_ref.loss import CrossEntropy, SquaredLoss
from pmp_ref.method import Method, Ramp
from pmp_ref.metric import GradientMetric, IdentityMetric, LayerMetric
from pmp_ref.network import Network
from pmp_ref.one_step import prepare, step
from pmp_ref.problem import everywhere
from pmp_ref.regulariser import L0, L1, NoPenalty, Polynomial
from pmp_ref.result import Record, Run, Status
from pmp_ref.stop import Stop
from pmp_ref.sweep import Sweep
from verification import plain
from verification.claim import Case, Check, Context, Outcome, claim, holds, survey
from verification.claims import problems
from verification.claims.forward_maps import host
from verification.claims.problems import Setting
from verification.conformance import translate
from verification.conformance.cases import describe, described


@dataclass
class Trial:
    """What the second program expects of one trial."""

    verdict: str
    numbers: dict[str, float]
    controls: np.ndarray  # after the trial
    status: str  # of the run, if it ends here


def second(s: Setting, method: Method, stop: Stop, batch_size: int | None, seed: int) -> Iterator[Trial]:
    """The run once more by ``verification/plain.py``, which has nothing of ``pmp_ref`` but a description of it.

    Sweeps are counted where they are made, in the first stage.
    """
    spec = described(s.problem, method)
    problem = translate.problem(spec)
    sweeps = {"forward": 0, "backward": 0}

    def counted(name: str, f: Any) -> Any:
        def counting(*arguments: Any) -> Any:
            sweeps[name] += 1
            return f(*arguments)

        return counting

    first = problem.stages[0]
    problem.stages[0] = first._replace(
        forward=counted("forward", first.forward), switching=counted("backward", first.switching)
    )
    more = {"steps": stop.steps or math.inf, "epochs": stop.epochs or math.inf, "batch_size": batch_size, "seed": seed}
    for t in plain.bsqh(problem, to_vector(s.controls), s.x, s.y, **translate.choices(spec, problem), **more):
        numbers = {name: getattr(t, name) for name in SAME} | {
            "delta_J": t.delta_j,
            "J_before": t.J_u,
            "loss": float(np.mean(t.losses)),
            "loss_before": float(np.mean(t.losses_u)),
            "averaged": float(t.averaged),
            "nonzeros": t.kept,
            "forward_sweeps": sweeps["forward"],
            "backward_sweeps": sweeps["backward"],
        }
        yield Trial(t.verdict, numbers, t.after, t.status)


SAME = "eps tau sum_dh c_hat J rho rounding residual rejections epoch position step".split()  # named alike in both
EXACT = ("rejections", "epoch", "position", "step", "forward_sweeps", "backward_sweeps", "averaged", "nonzeros")


def compare(name: str, records: tuple[Record, ...], controls: list[np.ndarray], trials: list[Trial]) -> Iterator[Check]:
    """Every record against the second program; numbers relative to the sizes that rounding is relative to."""
    yield Check(float(abs(len(records) - len(trials))), 0.0, f"number of trials, {name}")
    for k, (record, now, trial) in enumerate(zip(records, controls, trials, strict=False)):
        where = f"trial {k}, {name}"
        if {record.verdict, trial.verdict} == {"control unchanged", "precision limit"}:  # w = u or not is rounding
            continue
        yield holds(record.verdict == trial.verdict, f"verdict {record.verdict} for {trial.verdict}, {where}")
        scale = abs(trial.numbers["J"]) + abs(trial.numbers["J_before"]) + abs(trial.numbers["sum_dh"])
        for field, due in trial.numbers.items():
            value = float(getattr(record, field))
            if field in EXACT:
                yield Check(abs(value - due), 0.0, f"{field} {value:g} for {due:g}, {where}")
            elif field == "c_hat":
                error = abs(value - due) * trial.numbers["tau"] if math.isfinite(due) else float(value == value)
                yield Check(error / scale, 1e-11, f"{field} {value:g} for {due:g}, {where}")
            elif field in ("J", "J_before", "loss", "loss_before", "delta_J", "sum_dh"):
                yield Check(abs(value - due) / scale, 1e-11, f"{field} {value:g} for {due:g}, {where}")
            else:
                yield Check(abs(value - due) / (abs(due) + 1e-300), 1e-7, f"{field} {value:g} for {due:g}, {where}")
        yield Check(float(np.linalg.norm(now - trial.controls)) / (1 + float(np.linalg.norm(now))), 1e-9, f"u, {where}")


@claim(
    tag="S5",
    title="The algorithm, trial by trial",
    statement="section 5 = a second program written from the theory",
    dtypes=("float64",),
)
def algorithm(context: Context) -> Outcome:
    """Statement: every trial of a run has the candidate, J, τ, ΣΔH, Ĉ, ν, ε, the decision, the counts of sweeps and the
    next control that section 5 prescribes: full batch and mini-batches, every rule, acceptance test, metric, averaged
    switching functions, ramp of ρ, caps.

    Hypotheses: small chains of dense stages; polynomial regularisers on a line or a box; float64, for the decisions of
    both programs must be the same.

    Measured: each number of each record against a second program (``verification/plain.py``), relative to |J| + |ΣΔH|
    for differences of J, bound 10⁻¹¹, relative to itself for ε, τ, ν and the residual, bound 10⁻⁷ (an ε from Ĉ carries
    the cancellation in Ĉ); counts, verdicts and the status exactly.
    """

    def one(case: Case) -> Iterator[Check]:
        s, method, stop, size = configuration(case)
        trace: list[np.ndarray] = []

        def keep(it: Iterate, record: Record) -> bool:
            trace.append(to_vector(it.controls))
            return len(trace) >= 200

        with np.errstate(all="ignore"):
            problem = s.problem.swept_by(s.problem.sweeper)  # as users get it, the sweep put in afterwards
            run = bsqh(problem, s.controls, s.x, s.y, stop=stop, method=method, batch_size=size, seed=3, callback=keep)
            trials = list(itertools.islice(second(problems.host(s), method, stop, size, 3), 200))
        name = (
            f"{type(method.rule).__name__}, {method.acceptance}, {type(method.metric).__name__}, batch {size}, {s.name}"
        )
        yield from compare(name, run.records, trace, trials)
        due = trials[-1].status
        yield holds(due in ("", str(run.status)), f"status {run.status} for {due}, {name}")
        accepted = [r for r in run.records if r.accepted]
        yield holds(run.steps == tuple(accepted), f"steps of the solution, {name}")
        kept = kernel_entries(s.network.names(), run.controls)[0]
        yield holds(not accepted or accepted[-1].nonzeros == kept, f"kernel entries kept, {name}")
        rejected = sum(r.verdict == "rejected" for r in run.records)
        yield holds(run.iterate.counts.rejections == rejected, f"total rejections, {name}")

    return survey(context, one, micro=len(CONFIGURATIONS), quick=3 * len(CONFIGURATIONS), full=30 * len(CONFIGURATIONS))


# Each rule, test and metric appears; ε₀ is small to provoke rejections.
CONFIGURATIONS: tuple[dict[str, Any], ...] = (
    {"rule": CurvatureRule(eps0=0.01, memory=0.75, band=3.0, fall=0.2), "regulariser": L0()},
    {
        "rule": ClassicRule(eps0=0.02, sigma=2.0, zeta=0.5, eps_min=0.04),
        "regulariser": Polynomial(0.5, 0.5, 1.0),
        "ramp": Ramp(0.0, 0.75),
    },
    {
        "rule": CurvatureRule(eps0=0.02, growth=3.0, band=2.0),
        "acceptance": RelativeTest(0.4),
        "metric": GradientMetric(0.8, 0.5, 1.5),
        "size": 3,
        "ramp": Ramp(0.2, 0.8),
        "epochs": 2,
    },
    {"rule": ClassicRule(eps0=0.05, sigma=1.5), "metric": LayerMetric(0.5, 0.1, 4.0), "acceptance": AbsoluteTest(0.05)},
    {"rule": FixedRule(eps0=2.0), "acceptance": NoTest(), "size": 4, "epochs": 3, "ramp": Ramp(0.25, 0.75)},
    {
        "rule": CurvatureRule(eps0=0.1, memory=0.25, zeta=0.9, theta=0.5),
        "size": 2,
        "averaging": Averaging(0.9, 2),
        "epochs": 3,
        "acceptance": AbsoluteTest(0.2),
    },
    {
        "rule": CurvatureRule(eps0=0.1, memory=0.25, zeta=0.9, theta=0.5),
        "size": 2,
        "averaging": Averaging(0.8, 1),
        "epochs": 3,
        "acceptance": AbsoluteTest(0.2),
    },
    {"rule": FixedRule(eps0=0.01), "size": 3, "epochs": 2, "acceptance": AbsoluteTest(0.5)},
    {"rule": CurvatureRule(eps0=5.0, band=100.0, fall=0.5), "rho": 0.0},  # without a penalty neither band nor fall
    {"rule": CurvatureRule(eps0=50.0, fall=1.0), "size": 3, "epochs": 2},  # ε comes down from far above, slowly
)


def configuration(case: Case) -> tuple[Setting, Method, Stop, int | None]:
    """A small problem and a method; the configurations go round with the index."""
    c = case.cycle(*CONFIGURATIONS)
    build = lambda inner: ((Dense(2), Tanh(), Dense(2, bias=False)), (2,))  # noqa: E731
    s = problems.dress(
        case,
        build,
        loss=case.choose(CrossEntropy(), SquaredLoss()),
        samples=7,
        chunk=3,
        rho=c.get("rho", 0.01),
        spread=1.0,
        regulariser=c.get("regulariser", case.choose(L0(), L1())),
        admissible=case.choose(WHOLE_LINE, Box(-2.0, 2.0)),
    )
    method = Method(
        c["rule"],
        c.get("acceptance", AbsoluteTest()),
        c.get("metric", IdentityMetric()),
        c.get("averaging"),
        c.get("ramp"),
        max_rejections=6 if "size" in c else 60,
    )
    stop = Stop(epochs=c["epochs"]) if "epochs" in c else Stop(steps=case.context.count(4, 6, 6))
    return s, method, stop, c.get("size")


# --- statuses ---------------------------------------------------------------------------------------------------------


def tiny(case: Case, **choices: Any) -> Setting:
    """Least squares with two inputs: an exactly known curvature."""
    build = lambda inner: ((Dense(1, bias=False),), (2,))  # noqa: E731
    return problems.dress(
        case,
        build,
        **{
            "loss": SquaredLoss(),
            "samples": 6,
            "regulariser": NoPenalty(),
            "rho": 0.0,
            "admissible": WHOLE_LINE,
            **choices,
        },
    )


def curvature(s: Setting) -> float:
    """½λ_max of least squares: half the largest eigenvalue of XᵀX/B."""
    x = host(s.x)
    return 0.5 * float(np.linalg.eigvalsh(x.T @ x / len(x))[-1])


def go(s: Setting, stop: Stop, method: Method | None = None, **more: Any) -> Run:
    """A run, warnings of floating point and of ill-scaled images off: some runs here have images of size 1e200."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ScaleWarning)
        return bsqh(s.problem, s.controls, s.x, s.y, stop=stop, method=method, **more)


@claim(
    tag="S5a",
    title="Statuses mean what they say",
    statement="each status iff its condition holds, each provoked",
    dtypes=("float64",),
)
def statuses(context: Context) -> Outcome:
    """Statement: a run ends with the status whose condition of section 5 holds, and not before.

    Hypotheses: least squares in two unknowns, where curvature, minimiser and residual are known; float64, for whose
    range and rounding the runs are built.

    Measured: for each status a run that must end with it; the condition recomputed from the records and the data
    (number of violations, bound 0).
    """

    def one(case: Case) -> Iterator[Check]:
        yield from (holds(good, words) for good, words in provoked(case))

    return survey(context, one, micro=1, quick=6, full=60)


def provoked(case: Case) -> Iterator[tuple[bool, str]]:
    """(condition, words) for each status."""
    s = tiny(case)
    c = curvature(s)
    slow = Method(FixedRule(eps0=4 * c))  # contraction ¾ or slower: τ falls by less than 2 in a step

    kappa = 1e-3
    run = go(s, Stop(increment=kappa, steps=2000), slow)
    yield run.status is Status.CONVERGED_INCREMENT, f"{run.status}, expected convergence by increment"
    yield (
        run.records[-1].tau < kappa <= min((r.tau for r in run.records[:-1]), default=kappa),
        "τ < κ, then and not before",
    )
    yield str(run.status) == "converged by increment" and "κ" in run.message and run.success, "words of the status"

    run = go(s, Stop(residual=1e-2, steps=2000), slow)
    yield run.status is Status.CONVERGED_RESIDUAL, f"{run.status}, expected convergence by residual"
    u, x, y = to_vector(run.controls), host(s.x), host(s.y).ravel()
    gradient = x.T @ (x @ u - y) / len(x)
    yield bool(np.linalg.norm(gradient) <= 1.01e-2), "‖∇L‖ below the residual asked for"
    yield all(r.residual > 1e-2 for r in run.records[:-1]), "residual not met before"
    yield run.iterate.step == len(run.steps) == len(run.records) - 1, "the control returned is that of the residual"

    impatient = Method(
        ClassicRule(eps0=1e-3 * c, sigma=2.0)
    )  # the first trials are rejected, with small residuals 2ε‖Δ‖ too
    run = go(s, Stop(residual=1e9, steps=3), impatient)
    yield run.status is Status.CONVERGED_RESIDUAL and len(run.records) == 1, "a large residual tolerance stops at once"
    run = go(s, Stop(steps=3), slow)
    yield run.status is Status.ITERATION_LIMIT and len(run.steps) == 3, "three steps"
    run = go(s, Stop(epochs=2), slow, batch_size=2)
    yield run.status is Status.ITERATION_LIMIT and run.iterate.epoch == 2 and len(run.records) >= 6, "two epochs"

    run = go(s, Stop(steps=5000), Method(CurvatureRule(eps0=c)))
    ended = (Status.PRECISION_LIMIT, Status.CONTROL_UNCHANGED)
    yield run.status in ended, f"{run.status}: a run without tolerances ends by rounding"
    last = run.records[-1]
    yield last.verdict == str(run.status) and last.sum_dh <= last.rounding, "ΣΔH ≤ ν at the precision limit"
    yield all(r.sum_dh > r.rounding for r in run.steps), "ΣΔH > ν before"
    rule, mean = CurvatureRule(eps0=c), None
    for a, b in zip(run.records, run.records[1:], strict=False):
        used = abs(a.c_hat) * a.tau / a.rounding
        if not a.accepted or 9.99 < used < 10.01:  # so close to 10ν, use or not is rounding
            break
        fed = max(a.c_hat, 0.0) if used > 10 else 11 * a.rounding / a.tau
        if mean is None:
            mean = fed if used > 10 else None
        elif used > 10 or fed < mean:  # lost in rounding: an upper bound of Ĉ, which only lowers the mean
            mean = rule.memory * mean + (1 - rule.memory) * fed
        due = a.eps if mean is None else max(rule.zeta * a.eps, rule.theta * (mean + AbsoluteTest().eta), rule.eps_min)
        yield abs(b.eps - due) <= 1e-9 * due, f"ε = {b.eps} for {due} after |Ĉ|τ = {used:.3g} ν"
    yield from close_to_minimiser(s, c)
    yield from lost_in_rounding(s, c)
    yield from not_yet(s, c)
    start = replace(s, controls=map_controls(lambda a: 0 * a, s.controls))  # at 0 every g/(2ε) is a step
    below = go(start, Stop(steps=3), Method(CurvatureRule(eps0=1e18 * c), eps_max=1e20 * c))
    yield (
        below.status is Status.PRECISION_LIMIT and not below.steps,
        f"{below.status}: ΣΔH below rounding stops the run",
    )

    penalised = tiny(case, regulariser=L0(), rho=1e6)
    zero = replace(penalised, controls=map_controls(lambda a: 0 * a, penalised.controls))
    run = go(zero, Stop(steps=3), Method(FixedRule(eps0=1.0)))
    yield run.status is Status.CONTROL_UNCHANGED and len(run.records) == 1, "w = u ends the run"
    yield run.records[0].verdict == "control unchanged" and run.iterate.step == 0, "a null step is no step"
    run = go(zero, Stop(steps=3, residual=1e9), Method(FixedRule(eps0=1.0)))
    yield run.status is Status.CONTROL_UNCHANGED, f"{run.status}: w = u is no proof of a small residual"

    few = Method(ClassicRule(eps0=1e-6 * c, sigma=1.1), max_rejections=3)
    run = go(s, Stop(steps=3), few)
    yield run.status is Status.AUGMENTATION_LIMIT and len(run.records) == 3, "three rejections allowed, three made"
    yield run.iterate.current.rejections == 3 and run.iterate.counts.rejections == 3, "rejections counted"
    run = go(s, Stop(steps=3), Method(ClassicRule(eps0=1e-6 * c, sigma=2.0), eps_max=1e-4 * c))
    yield run.status is Status.AUGMENTATION_LIMIT and len(run.records) == 7, f"cap on ε, {len(run.records)} trials"
    run = go(s, Stop(steps=3), Method(FixedRule(eps0=1e-3 * c)))
    yield run.status is Status.AUGMENTATION_LIMIT and len(run.records) == 1, "the fixed rule gives up at once"
    yield run.iterate.eps == 1e-3 * c, "the ε that failed is shown"

    huge = problems.with_data(s, 1e200 * s.x, s.y)  # J(u) overflows
    run = go(huge, Stop(steps=3), Method(ClassicRule()))
    yield run.status is Status.NON_FINITE and run.records[0].verdict == "non-finite", "J(u) not finite"
    steep = replace(s, x=1e200 * s.x, controls=map_controls(lambda a: 1e-200 * a, s.controls))  # J finite, ‖g‖² not
    run = go(steep, Stop(steps=3), Method(ClassicRule()))
    yield run.records[0].verdict == "non-finite" and math.isfinite(run.records[0].J_before), "g not finite"
    far = Method(FixedRule(eps0=1e-220), acceptance=NoTest())
    run = go(s, Stop(steps=3), far)
    yield run.records[0].verdict == "non-finite trial" and not run.steps, "J(w) not finite is never accepted"
    run = go(s, Stop(steps=3), Method(ClassicRule(eps0=1e-220, sigma=2.0), max_rejections=2))
    yield run.status is Status.NON_FINITE and len(run.records) == 2, "the cap is reached with non-finite trials only"
    run = go(s, Stop(steps=1), Method(CurvatureRule(eps0=1e-220, sigma=1e40)))
    yield run.status is Status.ITERATION_LIMIT, f"{run.status}: ε leaves the non-finite trials behind"
    yield run.records[1].eps == 1e40 * run.records[0].eps, "σ where Ĉ is unknown"

    run = go(s, Stop(steps=50), slow, callback=lambda it, record: record.step >= 4)
    yield run.status is Status.INTERRUPTED and len(run.steps) == 4, "interrupted by the callback"

    def stopped(it: Iterate, record: Record) -> None:
        raise KeyboardInterrupt

    run = go(s, Stop(steps=50), slow, callback=stopped)
    yield run.status is Status.INTERRUPTED, "interrupted from the keyboard"

    run = go(s, Stop(steps=400, increment=1e-3), slow, batch_size=6)
    other = go(s, Stop(steps=400, residual=0.2), slow, batch_size=6)
    yield run.status is Status.CONVERGED_INCREMENT, "increment at the end of an epoch"
    yield other.status is Status.CONVERGED_RESIDUAL, "residual at the end of an epoch"
    u = to_vector(other.controls)
    yield bool(np.linalg.norm(x.T @ (x @ u - y) / len(x)) <= 0.2001), "‖∇L‖ on all data at the end of an epoch"
    before = [r for r in other.steps[:-1] if r.residual <= 0.2]
    yield len(before) <= 1, "not converged epochs before"

    # An epoch in which no batch admits a step; batches are skipped and counted.
    run = go(zero, Stop(epochs=3), Method(FixedRule(eps0=1.0)), batch_size=3)
    yield (
        run.status is Status.CONTROL_UNCHANGED and run.iterate.counts.skipped == 2,
        "an epoch without a step ends the run",
    )
    # One step to 0, where no batch admits a step: the second epoch ends the run.
    ones = replace(penalised, controls=map_controls(lambda a: 0 * a + 1, penalised.controls))
    heavy = go(ones, Stop(epochs=5), Method(ClassicRule(eps0=1.0)), batch_size=6)
    yield heavy.status is Status.CONTROL_UNCHANGED and heavy.iterate.epoch == 2, f"{heavy.status} in the second epoch"
    yield len(heavy.steps) == 1, "one step to 0"
    heavy = go(ones, Stop(epochs=5, residual=1e9), Method(ClassicRule(eps0=1.0)), batch_size=6)
    yield heavy.status is Status.CONTROL_UNCHANGED and heavy.iterate.epoch == 1, f"{heavy.status}: w = u on all data"
    scaled = Method(FixedRule(eps0=8 * c), metric=GradientMetric(0.5, 0.2, 5.0))
    run = go(s, Stop(epochs=400, residual=0.2), scaled, batch_size=6)
    yield run.status is Status.CONVERGED_RESIDUAL, f"{run.status}: residual in the metric"
    e = s.problem.sweeper.backward(run.controls, s.problem.sweeper.forward(run.controls, s.x, s.y))
    yield (
        bool(e.switching is not None and np.linalg.norm(to_vector(e.switching)) <= 0.2001),
        "2ε‖D(w − u)‖ = ‖g‖ in any metric",
    )
    previous = [a for a, b in zip(run.records, run.records[1:], strict=False) if b.residual <= 0.1999]
    yield not previous, "not converged at the end of an earlier epoch"
    epochs = run.iterate.epoch
    yield run.iterate.counts.forward_sweeps == len(run.records) + 2 * epochs, "forward sweeps at the ends of epochs"
    yield run.iterate.counts.backward_sweeps == 2 * epochs, "backward sweeps at the ends of epochs"
    full, part = go(s, Stop(steps=6), slow, batch_size=4), go(s, Stop(steps=3), slow, batch_size=4)
    for held in (part.iterate, part.iterate.at_rest(), part.iterate.moved(lambda a: a)):
        rest = go(replace(s, controls=held.controls), Stop(steps=6), slow, batch_size=4, resume=held)
        same = bool(np.array_equal(to_vector(full.controls), to_vector(rest.controls)))
        yield same and full.records[3:] == rest.records, "a run in two parts is the run in one part"


class Never(Acceptance):
    """A test that nothing passes."""

    eta, share = 1e-6, 1.0

    def accepts(self, delta_j: float, tau: float, sum_dh: float) -> bool:
        """False."""
        return False


def not_yet(s: Setting, c: float) -> Iterator[tuple[bool, str]]:
    """While ρ is on its ramp no test of convergence counts; a batch that is skipped leaves ε at its cap."""
    penalised = replace(s, problem=replace(s.problem, regulariser=everywhere(s.network, L1()), rho=1e-6))
    method = Method(FixedRule(eps0=4 * c), ramp=Ramp(0.0, 0.5))
    for stop in (Stop(steps=8, residual=1e9), Stop(steps=8, increment=1e9)):
        run = go(penalised, stop, method)
        rhos = [r.rho for r in run.records]
        yield max(rhos[:-1]) < rhos[-1] == 1e-6, f"{run.status} with ρ = {rhos[-1]:g} of 1e-06"
    method = Method(ClassicRule(eps0=c, sigma=7.0), acceptance=Never(), eps_max=20 * c)
    run = go(s, Stop(epochs=2), method, batch_size=2)
    yield run.iterate.counts.skipped >= 2 and max(r.eps for r in run.records) <= 20 * c, "ε after skipped batches"


def lost_in_rounding(s: Setting, c: float) -> Iterator[tuple[bool, str]]:
    """At ε = C̃ = 10⁸c a step is so short that Ĉτ ≤ 10ν: then 11ν/τ, far below C̃, brings C̃ and ε down."""
    rule = CurvatureRule(eps0=1e8 * c, memory=0.75, zeta=0.5)
    method = Method(rule)
    it = prepare(s.problem, method, Iterate(s.controls, rule.eps0), s.x, s.y)
    after, r = step(s.problem, method, replace(it, smoothed=rule.eps0), s.x, s.y)
    bound = 11 * r.rounding / r.tau if r.tau > 0 else math.inf
    yield (
        r.accepted and abs(r.c_hat) * r.tau <= 10 * r.rounding and bound < 1e-2 * rule.eps0,
        f"{r.verdict}: accepted with Ĉ lost in rounding, 11ν/τ = {bound:.3g} for C̃ = {rule.eps0:.3g}",
    )
    mean = 0.75 * rule.eps0 + 0.25 * bound
    yield abs((after.smoothed or 0.0) - mean) <= 1e-12 * mean, f"C̃ = {after.smoothed} for {mean} after a lost Ĉ"
    due = rule.theta * (mean + AbsoluteTest().eta)
    yield abs(after.eps - due) <= 1e-12 * due, f"ε = {after.eps} for {due} after a lost Ĉ"


def close_to_minimiser(s: Setting, c: float) -> Iterator[tuple[bool, str]]:
    """Line searches that start with too small an ε next to a minimiser."""
    x, y = host(s.x), host(s.y).ravel()
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    best = np.linalg.lstsq(x, y, rcond=None)[0]
    at = lambda u: ((np.asarray(u).reshape(1, 2),),)  # noqa: E731
    on = lambda setting, u: replace(setting, controls=map_controls(setting_like(setting), at(u)))  # noqa: E731
    nu = 4 * 2.0**-53 * float(np.mean(0.5 * (x @ best - y) ** 2 + np.abs(x @ best)))
    shift = math.sqrt(2 * c * nu * 0.03) / (2 * c)  # ΣΔH = g²/(2ε) is 30ν at ε = c/1000 and 0.03ν at ε = c
    run = go(on(s, best + shift * vectors[:, -1]), Stop(steps=3), Method(ClassicRule(eps0=1e-3 * c, sigma=2.0)))
    yield (
        run.status is Status.PRECISION_LIMIT and run.iterate.current.rejections > 0,
        f"{run.status}: rejections, then rounding",
    )
    yield run.iterate.eps == 1e-3 * c, "ε as at the first trial of this control"

    # Pure L0 at ū = (1, −1.5): at a small ε the maximiser drops both entries and is rejected, at a larger one it keeps
    # them with a small residual |g|. A control with rejections is not converged; the next control is.
    solution = np.array([1.0, -1.5])
    penalised = replace(s, y=s.x @ setting_like(s)(solution.reshape(2, 1)))
    rho = 0.1 * float(values[0])
    problem = replace(s.problem, regulariser=everywhere(s.network, L0()), rho=rho)
    start = on(replace(penalised, problem=problem), solution + 1e-7 * vectors[:, -1])
    run = go(start, Stop(steps=5, residual=1e-4), Method(ClassicRule(eps0=rho / 9, sigma=2.0)))
    yield run.records[0].verdict == "rejected", "dropping both entries is rejected"
    yield (
        run.status is Status.CONVERGED_RESIDUAL and run.iterate.step >= 1,
        "converged by residual, not after rejections",
    )


def setting_like(s: Setting) -> Any:
    """Host arrays to the library and dtype of the setting."""
    return lambda a: like(np.asarray(a), s.x)


# --- infinite and undefined objectives --------------------------------------------------------------------------------


@claim(
    tag="S5b",
    title="Nothing undefined is accepted",
    statement="J(w) not finite ⇒ rejected; J_k of accepted steps finite, falling",
)
def undefined(context: Context) -> Outcome:
    """Statement: a trial is accepted only if the inequality of the test is true; NaN and infinite objectives
    reject, and states, switching functions and control of u stay as they were, bit for bit.

    Hypotheses: two dense stages whose product overflows for small ε.

    Measured: over a line search from ε = 10⁻²⁰⁰ (10⁻²⁵ in float32): accepted trials whose J is not finite or does not
    fall (bound 0), and entries of the control, of g and of Φ(u) that change in a rejected trial (bound 0).
    """

    def one(case: Case) -> Iterator[Check]:
        build = lambda inner: ((Dense(2), Dense(2)), (3,))  # noqa: E731
        s = problems.dress(
            case,
            build,
            loss=case.cycle(CrossEntropy(), SquaredLoss()),
            rho=0.01,
            regulariser=L1(),
            admissible=WHOLE_LINE,
        )
        start, factor = (1e-200, 1e12) if context.dtype == "float64" else (1e-25, 100.0)
        method = Method(ClassicRule(eps0=start, sigma=factor, eps_min=1e-3 * start), metric=GradientMetric())
        it = prepare(s.problem, method, Iterate(s.controls, start), s.x, s.y)
        with np.errstate(all="ignore"):
            for _ in range(40):
                after, record = step(s.problem, method, it, s.x, s.y)
                if record.accepted:
                    good = math.isfinite(record.J) and record.J < record.J_before
                    yield holds(good, f"accepted J = {record.J}, {s.name}")
                    break
                assert after.current.evaluation is not None and it.current.evaluation is not None
                changed = float(np.sum(to_vector(after.controls) != to_vector(it.controls)))
                changed += float(np.sum(switching(after) != switching(it)))
                changed += float(np.sum(host(after.current.evaluation.losses) != host(it.current.evaluation.losses)))
                changed += float(np.sum(metric_of(after) != metric_of(it)))
                yield Check(changed, 0.0, f"rejected at ε = {record.eps:.3g}, {s.name}")
                again = prepare(s.problem, method, after, s.x, s.y)
                yield holds(again.counts.backward_sweeps == after.counts.backward_sweeps, "no sweep after a rejection")
                moved = float(np.sum(metric_of(again) != metric_of(it)))
                yield Check(moved, 0.0, f"metric after a rejection, {s.name}")
                yield holds(after.eps > it.eps, f"ε grows, {s.name}")
                it = after
            else:
                yield Check(math.inf, 0.0, f"no trial accepted in 40, {s.name}")

    return survey(context, one, micro=2, quick=20, full=200)


@claim(
    tag="S5c",
    title="One forward sweep per trial",
    statement="full batch: accepted steps without rejection cost one sweep each way",
)
def work(context: Context) -> Outcome:
    """Statement: in full batch an accepted step costs one backward sweep and one forward sweep for each trial; the
    states of an accepted trial are kept for its backward sweep.

    Hypotheses: states fit into memory; several chunks.

    Measured: sweeps counted by wrapping the problem's sweep, against 1 + trials forward sweeps and one backward sweep
    for each control (bound 0), and against the counts of the records.
    """

    def one(case: Case) -> Iterator[Check]:
        s = problems.dense(case, regulariser=L0(), rho=0.01)
        counted = Counting(s.network, s.problem.loss, chunk=2)
        problem = replace(s.problem, sweep=counted)
        method = Method(case.cycle(CurvatureRule(eps0=0.01), ClassicRule(eps0=0.05, sigma=2.0)))
        run = bsqh(problem, s.controls, s.x, s.y, stop=Stop(steps=4), method=method)
        trials = len(run.records)
        chunks = -(-int(s.x.shape[0]) // 2)
        controls = len({r.step - r.accepted for r in run.records})
        yield Check(float(abs(counted.forward_chunks() - chunks * (1 + trials))), 0.0, f"forward sweeps, {s.name}")
        yield Check(
            float(abs(run.iterate.counts.forward_sweeps - 1 - trials)), 0.0, f"forward sweeps counted, {s.name}"
        )
        yield Check(
            float(abs(run.iterate.counts.backward_sweeps - controls)), 0.0, f"backward sweeps counted, {s.name}"
        )

    return survey(context, one, micro=2, quick=12, full=60)


@dataclass(frozen=True)
class Counting(Sweep):
    """A sweep over a network that counts the forward passes of its chunks."""

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "network", CountingNetwork(self.network.stages, self.network.input_shape, self.network.reads)
        )

    def forward_chunks(self) -> int:
        """Forward passes made so far."""
        return len(self.network.passes)  # type: ignore[attr-defined]


class CountingNetwork(Network):
    """A network that notes each forward sweep."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        object.__setattr__(self, "passes", [])

    def forward_sweep(self, controls: Any, x: Any, keep: bool = True) -> Any:
        """See :meth:`Network.forward_sweep`; noted."""
        self.passes.append(int(x.shape[0]))  # type: ignore[attr-defined]
        return super().forward_sweep(controls, x, keep)


@claim(
    tag="S5d",
    title="Line search from any ε",
    statement="rules: ε grows on rejection, C̃ = memory·C̃ + (1 − memory) max(Ĉ, 0)",
)
def rules(context: Context) -> Outcome:
    """Statement: the rules for ε follow their formulas for every argument.

    Hypotheses: none.

    Measured: the rules' answers against the second program's (``rejected`` and ``accepted`` of
    ``verification/plain.py``), relative error, bound 10⁻¹⁴; a tested trial is accepted iff the inequality holds, on
    dyadic numbers including equality and NaN; progress of ramps at, before and behind their ends.
    """

    def one(case: Case) -> Iterator[Check]:
        rng = case.rng
        rule: Any = case.cycle(
            ClassicRule(1.0, 1.5, 0.5, 0.25),
            CurvatureRule(1.0, 0.75, 1.25, 3.0, 0.5, 0.8, 2.0, 4.0, 0.125, 0.25),
            FixedRule(2.0),
        )
        test: Any = case.choose(AbsoluteTest(0.125), RelativeTest(0.25), NoTest())
        own = translate.choices({"method": describe(Method(rule, test))}, plain.Problem([], []))
        M = SimpleNamespace(**plain.METHOD | own)
        for _ in range(12):
            eps, progress = 2.0 ** rng.uniform(-5, 5), float(rng.choice([0.0, 0.4, 0.6, 0.9, 1.0]))
            c_hat = case.choose(None, 3.0 * float(rng.standard_normal()))
            smoothed = case.choose(None, 2.0 * float(rng.random()))
            due = plain.rejected(M, eps, c_hat)
            found = rule.rejected(eps, c_hat, test.eta)
            found = math.inf if found is None else found
            yield Check(_relative(found, due), 1e-14, f"{rule} after a rejection at ε = {eps:.3g}, Ĉ = {c_hat}")
            part = case.choose(0.0, 2.0 ** rng.uniform(-9, 0))
            due, mean = plain.accepted(M, eps, c_hat, smoothed, progress, part)
            mean = mean if M.theta > 0 else None  # a rule without θ has no use for C̃
            pairs = zip(rule.slowed(part).accepted(eps, c_hat, smoothed, test.eta, progress), (due, mean), strict=True)
            for value, exact in pairs:
                lost = value is None or exact is None
                error = float(value is not exact) if lost else _relative(value, exact)  # type: ignore[arg-type]
                yield Check(error, 1e-14, f"{rule} after acceptance at ε = {eps:.3g}, Ĉ = {c_hat}, C̃ = {smoothed}")
            tau, dh = float(rng.integers(0, 9)) / 4, float(rng.integers(-4, 9)) / 4
            for delta in (-0.125 * tau, -0.25 * dh, float(rng.integers(-8, 9)) / 16, math.nan, -math.inf, math.inf):
                good = delta <= -M.eta * tau - M.eta1 * dh and (dh > 0 or M.eta1 == 0)  # T6, T16
                wrong = test.accepts(delta, tau, dh) != (good if M.tested else math.isfinite(delta))
                yield Check(float(wrong), 0.0, f"{test} of ΔJ = {delta}, τ = {tau}, ΣΔH = {dh}")
        for _ in range(12):
            residual, dh, eps, tau, level = (float(2.0**k) for k in rng.uniform(-2, 2, 5))
            due = residual * dh <= level * 2 * eps * tau if dh > 2 * eps * tau else residual <= level
            found = Stop(residual=level).stationary(residual, dh, eps, tau)
            yield holds(found == due, f"residual {residual}, ΣΔH {dh}, ε {eps}, τ {tau}, tolerance {level}")
        zero = ((case.asarray(np.zeros((2, 3))),),)
        for metric in (LayerMetric(), GradientMetric()):
            _, d = metric.update(None, 0, zero)
            assert d is not None
            yield Check(float(np.sum(to_vector(d) != 1)), 0.0, f"{metric} where every switching function is 0")
        ramp = Ramp(0.25, 0.75)
        for at, due in ((0.0, 0.0), (0.25, 0.0), (0.375, 0.5), (0.5, 1.0), (0.75, 2.0), (1.0, 2.0)):
            yield Check(abs(ramp(2.0, at) - due), 0.0, f"ramp at {at}")

    return survey(context, one, micro=6, quick=60, full=600)


def switching(it: Iterate) -> np.ndarray:
    """g of an iterate as a vector."""
    assert it.current.evaluation is not None and it.current.evaluation.switching is not None
    return to_vector(it.current.evaluation.switching)


def metric_of(it: Iterate) -> np.ndarray:
    """d of an iterate as a vector."""
    assert it.current.metric is not None
    return to_vector(it.current.metric)


def _relative(a: float, b: float) -> float:
    return 0.0 if a == b else abs(a - b) / abs(b)
