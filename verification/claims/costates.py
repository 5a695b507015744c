"""T1, T2, T3, T14: costates, switching functions, Hamiltonian increments, second-order sweeps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from pmp_ref.arrays import Controls, to_floats, to_numpy
from pmp_ref.controls import arrays_of, map_controls, to_vector, total
from pmp_ref.hamiltonian import augmented_increment, hamiltonian, increments, squared_increments
from pmp_ref.layers import (
    AffineStage,
    Convolution,
    Dense,
    LeakyReLU,
    MaxPool,
    ReLU,
    Sigmoid,
    Softplus,
    Stage,
    Standardise,
    Tanh,
)
from pmp_ref.loss import CrossEntropy, SquaredLoss
from pmp_ref.maximise import maximise
from pmp_ref.network import Network
from pmp_ref.problem import Problem
from pmp_ref.regulariser import L0, L1, L2, Polynomial
from pmp_ref.second_order import hessian, hessian_vector, largest_eigenvalue
from pmp_ref.sweep import Sweep
from verification import oracles
from verification.claim import Case, Check, Context, Outcome, claim, survey
from verification.claims import problems
from verification.claims.forward_maps import (
    STAGES,
    difference,
    draw_state,
    host,
    largest_ratio,
    magnitude,
    move,
    switching,
    terms,
)
from verification.claims.problems import Setting

SQUARE_STAGES: tuple[tuple[Stage, Any], ...] = (  # where a transposed kernel has the same shape
    (Dense(4), (4,)),
    (Convolution(2, 3, padding=1), (2, 4, 4)),
)


def inner_states(p: Any, x: Any) -> float:
    """⟨p, x⟩ of states on the host, summed exactly."""
    if isinstance(x, tuple):
        return math.fsum(inner_states(a, b) for a, b in zip(p, x, strict=True))
    return math.fsum((np.asarray(p) * np.asarray(x)).ravel().tolist())


def absolute(state: Any) -> Any:
    """Entrywise absolute values of a state."""
    return tuple(absolute(p) for p in state) if isinstance(state, tuple) else np.abs(state)


def axpy(x: Any, t: Any, dx: Any) -> Any:
    """x + t dx of states."""
    return tuple(axpy(a, t, b) for a, b in zip(x, dx, strict=True)) if isinstance(x, tuple) else x + t * dx


def imaginary(state: Any, h: float) -> Any:
    """The imaginary part over h: the derivative by the complex step."""
    return tuple(imaginary(p, h) for p in state) if isinstance(state, tuple) else np.imag(state) / h


def tangent_size(stage: Stage, x: Any, u: tuple[np.ndarray, ...], dx: Any, v: tuple[np.ndarray, ...]) -> Any:
    """|∂_xΛ||dx| + |∂_uΛ||v|: what rounding errors of the tangent are relative to. An upper bound by loops."""
    if isinstance(stage, AffineStage):
        first, second = tuple(map(np.abs, u)), tuple(map(np.abs, v))
        zero = (*first[:1], *(np.zeros(b.shape) for b in first[1:]))
        return oracles.forward_by_loops(stage, absolute(dx), zero) + oracles.forward_by_loops(
            stage, absolute(x), second
        )
    if isinstance(stage, Standardise):
        g = x.reshape(x.shape[0], stage.groups, -1)
        s = np.sqrt(np.var(g, axis=2, keepdims=True) + stage.delta)
        y = np.abs(g - g.mean(axis=2, keepdims=True)) / s
        h = np.abs(dx).reshape(g.shape)
        wide = (h + h.mean(axis=2, keepdims=True) + y * np.mean(y * h, axis=2, keepdims=True)) / s
        return (wide * (1 + np.max(np.abs(g), axis=2, keepdims=True) / s)).reshape(x.shape)
    if type(stage) in oracles.SCALAR:
        return 2 * np.abs(dx)  # |σ′| ≤ 1.1 for every activation here
    if isinstance(stage, MaxPool):
        return oracles.forward_by_loops(stage, absolute(dx), ())
    return magnitude(stage, dx, u)


def draw_stage(case: Case) -> tuple[Stage, Any, Any, Any, Any, Any, Any, str]:
    """A stage with state, control, their directions and a costate, all on the run's library."""
    stage, shape = case.cycle(*STAGES, *SQUARE_STAGES)
    x, dx = draw_state(case.rng, shape, 3), draw_state(case.rng, shape, 3)
    u = tuple(case.rng.standard_normal(s) for s in stage.control_shapes(shape))
    v = tuple(case.rng.standard_normal(a.shape) for a in u)
    p = draw_state(case.rng, stage.output_shape(shape), 3)
    arrays = (move(case, x), move(case, u), move(case, dx), move(case, v), move(case, p))
    return (stage, shape, *arrays, f"{stage} on {shape}")


@claim(tag="T1a", title="Adjoint identity of every stage", statement="⟨p, ∂Λ(dx, v)⟩ = ⟨∂_xΛ*p, dx⟩ + ⟨∂_uΛ*p, v⟩")
def adjoints(context: Context) -> Outcome:
    """Statement: costate map and switching function of every stage are the adjoints of its derivative.

    Hypotheses: none for affine and analytic stages; ReLU and max pooling away from kinks (random draws).

    Measured: the difference of both sides for random directions, for the state and the control alone, and the tangent
    against the complex step of the forward map (analytic stages) or against the quotient [Λ(x + h dx) − Λ(x)]/h
    (piecewise linear ones, h so small that no kink is crossed). Bound: (2n + 40)u·⟨|p|, |∂Λ||(dx, v)|⟩ with n the
    longest sum, never relative to the inner product, which cancels; 10⁻⁶(|dx| + |x|) for the quotient.
    """

    def one(case: Case) -> Iterator[Check]:
        stage, shape, x, u, dx, v, p, name = draw_stage(case)
        tangent = stage.tangent(x, u, dx, v)
        hx, hu, hdx, hv, hp = host(x), host(u), host(dx), host(v), host(p)
        q, g = host(stage.costate(x, u, p)), host(stage.switching(x, u, p))
        size = tangent_size(stage, hx, hu, hdx, hv)
        n = max(terms(stage, shape), 3 * math.prod(_shape(size)[1:]))
        tolerance = (2 * n + 40) * context.u
        scale = inner_states(absolute(hp), size) + np.finfo(float).tiny
        left = inner_states(hp, host(tangent))
        right = inner_states(q, hdx) + sum(inner_states(a, b) for a, b in zip(g, hv, strict=True))
        yield Check(abs(left - right) / scale, tolerance, f"adjoint, {name}")
        none = tuple(np.zeros(a.shape) for a in hv)
        alone = inner_states(hp, host(stage.tangent(x, u, dx, move(case, none))))
        yield Check(abs(alone - inner_states(q, hdx)) / scale, tolerance, f"adjoint in the state, {name}")
        if stage.analytic:
            h = oracles.STEP
            exact = imaginary(stage.forward(axpy(hx, 1j * h, hdx), axpy(hu, 1j * h, hv)), h)
            bound = (2 * n + 40) * context.u
        else:
            h = 2.0**-26  # a kink within h|dx| has a probability of 10⁻⁷ in a draw
            quotient = difference(stage.forward(axpy(hx, h, hdx), hu), stage.forward(hx, hu))
            exact, bound = quotient / h, 1e-6
            size = axpy(size, 1.0, _filled(size, _largest(hx)))  # the quotient rounds relative to x
        yield Check(largest_ratio(difference(host(tangent), exact), size), bound, f"tangent, {name}")

    count = len(STAGES) + len(SQUARE_STAGES)
    return survey(context, one, micro=count, quick=3 * count, full=30 * count)


def _shape(state: Any) -> tuple[int, ...]:
    return max((_shape(p) for p in state), key=math.prod) if isinstance(state, tuple) else state.shape


@claim(tag="T1b", title="Costates and switching functions are exact", statement="p_l = −∂L_B/∂x_l, g_l = −∂L_B/∂u_l")
def costates(context: Context) -> Outcome:
    """Statement: the backward sweep gives minus the derivatives of L_B in every state and control.

    Hypotheses: analytic stages (LeNets, residual nets, dense chains), both losses, several chunks.

    Measured: complex-step derivatives of L_B, computed from the forward maps alone in complex128, in random
    directions, direction by direction for each control array and each state; in small networks entry by entry; where
    PyTorch is installed also its autograd. Error relative to the norm of the array; bound 10⁻¹² in float64, that is
    9007u, in every dtype.
    """

    def one(case: Case) -> Iterator[Check]:
        s = problems.smooth(case)
        h, bound = problems.host(s), 1e-12 * context.u / 2.0**-53
        e = s.problem.sweeper.backward(s.controls, s.problem.sweeper.forward(s.controls, s.x, s.y))
        g = map_controls(host, e.switching)
        for l, stage in enumerate(g):
            for i, a in enumerate(stage):
                v = case.rng.standard_normal(a.shape)
                only = map_controls(lambda b: np.zeros(b.shape), g)
                only = tuple(
                    tuple(v if (m, j) == (l, i) else z for j, z in enumerate(part)) for m, part in enumerate(only)
                )
                error = abs(float(np.sum(a * v)) + oracles.complex_step(h, only))
                scale = float(np.linalg.norm(to_vector(g)) * np.linalg.norm(v))
                yield Check(error / scale, bound, f"control {i} of stage {l}, {s.name}")
        states = s.network.forward_sweep(s.controls, s.x)
        p, _ = s.network.backward_sweep(
            s.controls, states, Sweep(s.network, s.problem.loss).terminal_costate(states[-1], s.y, _rows(s.x))
        )
        for l in (l for l in range(1, len(states)) if s.network.controlled[l]):
            dx = draw_state(case.rng, s.network.shapes[l], _rows(s.x))
            exact = _state_derivative(h, l, host(tuple(states[: l + 1])), dx)
            q = host(p[l])
            size = math.sqrt(inner_states(q, q) * inner_states(dx, dx))
            yield Check(abs(inner_states(q, dx) + exact) / (size + np.finfo(float).tiny), bound, f"p_{l}, {s.name}")
        if context.profile != "micro" and case.index % 3 == 2:
            slopes = oracles.complex_gradient(h)
            yield Check(
                float(np.linalg.norm(to_vector(g) + slopes) / np.linalg.norm(slopes)), bound, f"all g, {s.name}"
            )
        if context.profile != "micro" and oracles.torch_available():
            slopes = oracles.torch_gradient(h)
            yield Check(
                float(np.linalg.norm(to_vector(g) + slopes) / np.linalg.norm(slopes)), bound, f"torch, {s.name}"
            )

    note = "PyTorch's autograd is one more oracle here" if oracles.torch_available() else "PyTorch is not installed"
    return survey(context, one, micro=3, quick=36, full=300, notes=[note])


def _rows(x: Any) -> int:
    return int(x.shape[0])


def _state_derivative(h: Setting, l: int, states: tuple[Any, ...], dx: Any) -> float:
    """d/dt L_B as a function of the state x_l, by the complex step through the later stages; x_0, …, x_{l−1} stay."""
    moved = axpy(states[l], 1j * oracles.STEP, dx)
    end = oracles.final_state(h, h.controls, moved, lambda stage, x, u: stage.forward(x, u), l, states[:l])
    values = h.problem.loss.values(end, h.y)
    return float(np.mean(values).imag) / oracles.STEP


@claim(
    tag="T1c", title="Networks with kinks, away from them", statement="⟨g, v⟩ = −d/dt L_B(u + tv), ReLU and max pooling"
)
def kinked_networks(context: Context) -> Outcome:
    """Statement: at inputs away from all kinks the switching functions of networks with ReLU, leaky ReLU and max
    pooling are minus the derivatives of L_B.

    Hypotheses: every pre-activation and every gap between the two largest entries of a pooling window exceeds ten times
    its change over the step of the difference (draws that do not meet this are drawn anew).

    Measured: central differences with Richardson's extrapolation, step 10⁻³, in random directions; bound 10⁻⁹ relative
    to ‖g‖ for the fourth-order error of the difference, plus 10⁴u for the switching function itself.
    """

    def one(case: Case) -> Check:
        step = 1e-3
        for _ in range(200):  # a draw meets the hypothesis with a probability of a few per cent or more
            s = problems.kinked(case, samples=2, chunk=1)
            h, v = problems.host(s), host(problems.direction(case, s.controls))
            if clear_of_kinks(h, v, step):
                break
        else:
            return Check(math.inf, 0.0, "no draw in 200 keeps its distance from the kinks")
        e = s.problem.sweeper.backward(s.controls, s.problem.sweeper.forward(s.controls, s.x, s.y))
        g = to_vector(switching(e))
        exact = oracles.central_difference(lambda t: float(oracles.mean_loss(h, axpy(h.controls, t, v))), step)
        error = abs(float(g @ to_vector(v)) + exact) / float(np.linalg.norm(g))
        return Check(error, 1e-9 + 1e4 * context.u, s.name)

    return survey(context, one, micro=4, quick=40, full=400)


def clear_of_kinks(h: Setting, v: Controls, step: float) -> bool:
    """True if along u + tv, |t| ≤ step, every distance to a kink exceeds ten times its change."""
    sweeps = [h.network.forward_sweep(axpy(h.controls, t, v), h.x) for t in (-step, 0.0, step)]
    for l, stage in enumerate(h.network.stages):
        states = [h.network.entering(l, sweep) for sweep in sweeps]
        if isinstance(stage, LeakyReLU):
            gaps = [np.abs(z) for z in states]
        elif isinstance(stage, MaxPool):
            gaps = [_pooling_gaps(stage, z) for z in states]
        else:
            continue
        change = max(float(np.max(np.abs(states[k] - states[1]))) for k in (0, 2))
        if float(min(np.min(g) for g in gaps)) <= 10 * change:
            return False
    return True


def _pooling_gaps(stage: MaxPool, x: np.ndarray) -> np.ndarray:
    """Largest minus second largest entry of each window. Windows of zeros behind a ReLU tie harmlessly."""
    (kh, kw), (rh, rw), (ph, pw) = stage.windows.size, stage.windows.stride, stage.windows.padding
    rows, columns = stage.windows.positions(x.shape[2], x.shape[3])
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=-np.inf)
    found = []
    for i in range(rows):
        for j in range(columns):
            window = x[:, :, i * rh : i * rh + kh, j * rw : j * rw + kw].reshape(x.shape[0], x.shape[1], -1)
            top = np.sort(window, axis=2)
            found.append(np.where(top[:, :, -1] == 0, np.inf, top[:, :, -1] - top[:, :, -2]))
    return np.stack(found)


KINKS: tuple[tuple[Stage, tuple[int, ...]], ...] = (
    (ReLU(), (4,)),
    (LeakyReLU(0.25), (4,)),
    (MaxPool(2), (1, 2, 4)),
    (MaxPool((2, 2), stride=(1, 2)), (1, 3, 4)),
    (MaxPool((3, 2), stride=(2, 1), padding=(1, 0)), (1, 3, 4)),
)


@claim(tag="T1d", title="At kinks", statement="⟨∂Λ*e_o, dx⟩ lies between the one-sided derivatives, stage by stage")
def one_sided(context: Context) -> Outcome:
    """Statement: at a kink the costate map of ReLU, leaky ReLU and max pooling takes a value between the one-sided
    derivatives, and only one entry of a tied window carries the costate.

    Hypotheses: per stage, not per network: relu(x) − relu(−x) is a counterexample for networks. States in {−1, 0, 1},
    so that zeros and ties abound; directions in multiples of 1/8, so that all values are exact.

    Measured: for each output entry o and direction dx the distance of ⟨∂Λ*e_o, dx⟩ from the interval of the one-sided
    derivatives of Λ_o, which are exact differences of a piecewise linear function (bound 0 for dyadic leaks); for max
    pooling |Σ ∂Λ*e_o − 1| (bound 0).
    """

    def one(case: Case) -> Iterator[Check]:
        stage, shape = case.cycle(*KINKS)
        x = case.rng.integers(-1, 2, (1, *shape)).astype(float)
        dx = case.rng.integers(-8, 9, (1, *shape)) / 8
        h = 2.0**-6  # a kink lies at 0 or at distance 1 at least, and |h dx| < 1/2
        here = host(stage.forward(case.asarray(x), ()))
        right = (host(stage.forward(case.asarray(x + h * dx), ())) - here) / h
        left = (here - host(stage.forward(case.asarray(x - h * dx), ()))) / h
        for o in np.ndindex(*here.shape):
            e = np.zeros(here.shape)
            e[o] = 1.0
            q = host(stage.costate(case.asarray(x), (), case.asarray(e)))
            value = float(np.sum(q * dx))
            outside = max(min(left[o], right[o]) - value, value - max(left[o], right[o]), 0.0)
            yield Check(outside, 0.0, f"{stage}, output {o}, x = {x.ravel().tolist()}")
            if not isinstance(stage, MaxPool):
                below = case.asarray(x - h)
                due = (here[o] - host(stage.forward(below, ()))[o]) / h
                yield Check(abs(q[o] - due), 0.0, f"{stage}: left derivative at x = {x[o]}")
            if isinstance(stage, MaxPool):
                yield Check(abs(float(np.sum(q)) - 1), 0.0, f"{stage}, share of the costate")
        tangent = host(stage.tangent(case.asarray(x), (), case.asarray(dx), ()))
        p = case.rng.integers(-8, 9, here.shape) / 8
        q = host(stage.costate(case.asarray(x), (), case.asarray(p)))
        yield Check(abs(float(np.sum(p * tangent) - np.sum(q * dx))), 0.0, f"{stage}: tangent and costate at a kink")

    return survey(context, one, micro=8, quick=80, full=800)


# --- T2 ---------------------------------------------------------------------------------------------------------------


@claim(
    tag="T2",
    title="Hamiltonian increments are exact",
    statement="H_l(x, p, w) − H_l(x, p, u) = ⟨g_l, w − u_l⟩ − ρω_l[r_l(w) − r_l(u_l)]",
)
def hamiltonian_increments(context: Context) -> Outcome:
    """Statement: for elementary stages ΔH_l = ⟨g_l, w − u_l⟩ − ρω_l[r_l(w) − r_l(u_l)] for every w, near or far.

    Hypotheses: elementary stages; smooth and kinked networks (the identity needs no smoothness), all regularisers.

    Measured: the left side by applying Λ_l to w (by loops in small networks), without g; ΣΔH − ετ against the sum of
    the definitions of K. Bound: 200u relative to ⟨|p|, |Λ(w)| + |Λ(u)|⟩ + ρω[r(w) + r(u)].
    """

    def one(case: Case) -> Iterator[Check]:
        draw = problems.kinked if case.index % 4 == 3 else problems.smooth
        s = draw(case, samples=3)
        problem, rho = s.problem, 2 * s.problem.rho
        states = s.network.forward_sweep(s.controls, s.x)
        p_end = Sweep(s.network, problem.loss).terminal_costate(states[-1], s.y, _rows(s.x))
        p, g = s.network.backward_sweep(s.controls, states, p_end)
        w = map_controls(lambda a: case.asarray(host(a) + case.rng.standard_normal(a.shape)), s.controls)
        found = increments(problem, g, s.controls, w, rho)
        all_scales, all_left = 0.0, 0.0
        for l in s.network.layers():
            x, q = s.network.entering(l, states), p[l + 1]
            left = to_floats(hamiltonian(problem, l, x, q, w[l], rho))[0]
            left -= to_floats(hamiltonian(problem, l, x, q, s.controls[l], rho))[0]
            hx, hq, stage = host(x), host(q), s.network.stages[l]
            forward = oracles.forward_by_loops if isinstance(stage, Dense) else lambda st, a, b: st.forward(a, b)
            after, before = (forward(stage, hx, host(c)) for c in (w[l], s.controls[l]))
            sizes = tuple(
                rho * omega * oracles.penalty_by_loops(r, host(a))
                for c in (w[l], s.controls[l])
                for r, omega, a in zip(problem.regulariser[l], problem.weights[l], c, strict=True)
            )
            half = len(sizes) // 2
            exact = inner_states(hq, difference(after, before)) - math.fsum(sizes[:half]) + math.fsum(sizes[half:])
            scale = (
                inner_states(absolute(hq), axpy(absolute(after), 1.0, absolute(before)))
                + math.fsum(sizes)
                + np.finfo(float).tiny
            )
            right = math.fsum(to_floats(*found[l]))
            yield Check(abs(left - right) / scale, 200 * context.u, f"stage {l}, {s.name}")
            yield Check(abs(exact - right) / scale, 200 * context.u, f"stage {l} by its definition, {s.name}")
            all_scales, all_left = all_scales + scale, all_left + exact
        d = map_controls(lambda a: case.asarray(0.5 + case.rng.random(a.shape)), s.controls)
        eps = 0.375
        for metric in (None, d):
            ones = map_controls(lambda a: np.ones(a.shape), s.controls)
            weights = ones if metric is None else metric
            tau = math.fsum(
                float(np.sum(host(m) * (host(b) - host(a)) ** 2))
                for m, a, b in zip(arrays_of(weights), arrays_of(s.controls), arrays_of(w), strict=True)
            )
            measured = to_floats(total(squared_increments(s.controls, w, metric)))[0]
            yield Check(abs(measured - tau) / tau, 20 * context.u, f"τ, metric {metric is not None}, {s.name}")
            gain = to_floats(augmented_increment(problem, g, s.controls, w, eps, rho, metric))[0]
            error = abs(gain - (all_left - eps * tau)) / (all_scales + eps * tau)
            yield Check(error, 200 * context.u, f"ΣΔK, metric {metric is not None}, {s.name}")

    return survey(context, one, micro=4, quick=60, full=600)


# --- T3 ---------------------------------------------------------------------------------------------------------------


def merged_costate(slope: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The costate behind the activation, σ′(z)∘q, from the costate q after it (T3)."""
    return slope * q


def merged_update(
    stage: Stage,
    x: np.ndarray,
    u: tuple[np.ndarray, ...],
    q: np.ndarray,
    slope: np.ndarray,
    eps: float,
    rho: float,
    r: Polynomial,
) -> list[list[Fraction]]:
    """argmax of K_ε for the merged stage σ(A(u)x) linearised at u, entry by entry in exact arithmetic.

    ∂⟨q, σ(z + t δz)⟩/∂t = ⟨σ′(z)∘q, δz⟩, and the change δz of a unit change of a control entry comes from the loops'
    definition of the stage, for that is affine in its control. No map of the core enters.
    """
    p = merged_costate(slope, q)
    zero = tuple(np.zeros(a.shape) for a in u)
    offset = oracles.forward_by_loops(stage, x, zero)
    found = []
    for i, a in enumerate(u):
        row = []
        for index in np.ndindex(*a.shape):
            unit = tuple(b.copy() for b in zero)
            unit[i][index] = 1.0
            g = inner_states(p, oracles.forward_by_loops(stage, x, unit) - offset)
            weight = rho if i == 0 else 0.0
            row.append(oracles.exact_argmax(a[index], g, eps, weight, r, problems.WHOLE_LINE))
        found.append(row)
    return found


@claim(
    tag="T3",
    title="Merged stages = split stages",
    statement="argmax K_ε of σ(A(u)x), linearised at u = argmax K_ε of A(u)x",
)
def merged_stages(context: Context) -> Outcome:
    """Statement: a merged stage σ(A(u)x), its Hamiltonian linearised at u, has the same update as the split stages.

    Hypotheses: A affine in its control (dense, convolution), σ = tanh or the logistic function; L0, L1, L2.

    Measured: the split update by the core; the merged one by code of its own here, with loops, σ′ by the complex step
    and maximisation in rationals. Largest difference of an entry relative to 1 + |w|, bound 2000u: g carries n·u
    relative to its terms, and ε ≥ ¼ doubles it. Entries whose two best candidates differ by less than 10⁻⁴ in K (10⁻⁹
    in float64) are left out: there the choice of the candidate is rounding.
    """

    def one(case: Case) -> Iterator[Check]:
        stage, shape = case.cycle((Dense(3), (4,)), (Convolution(2, 2), (1, 3, 3)))
        act = case.choose(Tanh(), Sigmoid())
        r = case.choose(L0, L1, L2)()
        head = Network((stage, act), shape)
        size = head.output_shape
        x = case.asarray(case.rng.standard_normal((2, *shape)))
        u = tuple(case.asarray(0.5 * case.rng.standard_normal(s)) for s in head.control_shapes[0])
        q = case.asarray(case.rng.standard_normal((2, *size)))
        eps, rho = float(case.choose(0.25, 1.0)), 0.125
        problem = Problem(head, SquaredLoss(), r, rho=rho)
        states = head.forward_sweep((u, ()), x)
        _, g = head.backward_sweep((u, ()), states, q)
        w = maximise(problem, (u, ()), g, eps, rho)
        hz = host(states[1]).astype(complex)
        slope = np.imag(act.sigma(hz + 1j * oracles.STEP)) / oracles.STEP
        exact = merged_update(stage, host(x), tuple(host(a) for a in u), host(q), slope, eps, rho, r)
        close = 1e-9 if context.dtype == "float64" else 1e-4
        worst, kept = 0.0, 0
        for i, (a, row) in enumerate(zip(w[0], exact, strict=True)):
            values = zip(host(a).ravel(), row, host(g[0][i]).ravel(), host(u[i]).ravel(), strict=True)
            for value, best, gi, ui in values:
                weight = Fraction(rho if i == 0 else 0.0) * Fraction(r.a0)
                gap = abs(Fraction(eps) * (Fraction(ui) + Fraction(gi) / Fraction(2 * eps)) ** 2 - weight)
                if weight == 0 or gap > close:
                    worst, kept = max(worst, abs(float(value) - float(best)) / (1 + abs(float(best)))), kept + 1
        if kept == 0:
            raise ValueError("no entry is clear of its threshold")
        yield Check(worst, 2000 * context.u, f"{stage}, {act}, {r}, ε = {eps}")

    return survey(context, one, micro=2, quick=24, full=240)


# --- T14 --------------------------------------------------------------------------------------------------------------


@claim(
    tag="T14a",
    title="Second-order maps of every stage",
    statement="d/dt of the costate map and switching function along (dx, v, dp)",
)
def second_order_stages(context: Context) -> Outcome:
    """Statement: ``tangent_costate`` and ``tangent_switching`` are the derivatives of ``costate`` and ``switching``.

    Hypotheses: analytic stages by the complex step; ReLU and max pooling by their linearity in p away from kinks.

    Measured: the complex step of the first-order maps (which T1a ties to the forward maps) against the second-order
    maps, entry by entry, relative to the largest entry of the result plus the size of the arguments; bound 2000u.
    """

    def one(case: Case) -> Iterator[Check]:
        stage, _, x, u, dx, v, p, name = draw_stage(case)
        dp = move(case, _noise(case, host(p)))
        found = (host(stage.tangent_costate(x, u, p, dx, v, dp)), host(stage.tangent_switching(x, u, p, dx, v, dp)))
        hx, hu, hdx, hv, hp, hdp = host(x), host(u), host(dx), host(v), host(p), host(dp)
        if stage.analytic:
            h = oracles.STEP
            at = (axpy(hx, 1j * h, hdx), axpy(hu, 1j * h, hv), axpy(hp, 1j * h, hdp))
            exact = (imaginary(stage.costate(*at), h), imaginary(stage.switching(*at), h))
        else:
            exact = (stage.costate(hx, hu, hdp), ())
        for part, a, b in (("costate", found[0], exact[0]), ("switching function", found[1], exact[1])):
            if not isinstance(b, tuple) or b:
                size = _filled(b, 1 + _largest(b) + _largest(hp) * _largest(hdx) + _largest(hdp))
                yield Check(largest_ratio(difference(a, b), size), 2000 * context.u, f"tangent of the {part}, {name}")
            else:
                yield Check(float(len(a)), 0.0, f"no control, {name}")

    count = len(STAGES) + len(SQUARE_STAGES)
    return survey(context, one, micro=count, quick=3 * count, full=30 * count)


def _noise(case: Case, state: Any) -> Any:
    if isinstance(state, tuple):
        return tuple(_noise(case, p) for p in state)
    return case.rng.standard_normal(state.shape)


def _largest(state: Any) -> float:
    if isinstance(state, tuple):
        return max((_largest(p) for p in state), default=0.0)
    return float(np.max(np.abs(state), initial=0.0))


def _filled(state: Any, value: float) -> Any:
    return tuple(_filled(p, value) for p in state) if isinstance(state, tuple) else np.full(np.shape(state), value)


@claim(tag="T14", title="Hessian-vector products", statement="−dg = D²L_B v, ⟨v, D²L_B w⟩ = ⟨w, D²L_B v⟩")
def second_order_sweeps(context: Context) -> Outcome:
    """Statement: the second-order sweeps give D²L_B v; the Hessian is symmetric; Lanczos gives its largest eigenvalue.

    Hypotheses: analytic networks, both losses, several chunks. Lanczos in float64 on chains of dense stages.

    Measured: D²L_B v against the complex step of the backward sweep, Im g(u + ihv)/h, relative to its norm, bound
    9007u (10⁻¹² in float64); its central differences, bound 10⁻⁶; the asymmetry relative to ‖v‖‖Hw‖, bound 9007u;
    λ_max against LAPACK on the Hessian assembled by the complex step, relative to ‖H‖, bound 10⁻⁵ (Lanczos stops at
    10⁻⁶).
    """

    def one(case: Case) -> Iterator[Check]:
        many = {"samples": 70} if case.index % 3 == 2 else {}  # more than one chunk of 64
        s = problems.smooth(case, **many)
        h, bound = problems.host(s), 1e-12 * context.u / 2.0**-53
        v, w = problems.direction(case, s.controls), problems.direction(case, s.controls)
        found = to_vector(hessian_vector(s.problem, s.controls, s.x, s.y, v))
        exact = complex_hessian_vector(h, map_controls(host, v))
        size = float(np.linalg.norm(exact))
        yield Check(float(np.linalg.norm(found - exact)) / size, bound, f"complex step, {s.name}")
        other = to_vector(hessian_vector(s.problem, s.controls, s.x, s.y, w))
        asymmetry = abs(float(to_vector(v) @ other) - float(to_vector(w) @ found))
        yield Check(asymmetry / (size + float(np.linalg.norm(other))), bound, f"symmetry, {s.name}")
        if case.index % 3 == 2:
            full = hessian(s.problem, s.controls, s.x, s.y)
            units = [complex_hessian_vector(h, e) for e in oracles.units(h.controls)]
            reference = np.stack(units, axis=1)
            norm = float(np.linalg.norm(reference))
            yield Check(float(np.linalg.norm(full - reference)) / norm, bound, f"full Hessian, {s.name}")
            if context.dtype == "float64":
                top = float(np.linalg.eigvalsh(0.5 * (reference + reference.T))[-1])
                value = largest_eigenvalue(s.problem, s.controls, s.x, s.y)
                yield Check(abs(value - top) / norm, 1e-5, f"λ_max, {s.name}")
                for n in (1, 2, 3):  # Lanczos needs more than two unknowns
                    x = case.rng.standard_normal((5, n))
                    small = Problem(Network((Dense(1, bias=False),), (n,)), SquaredLoss(), rho=0.0)
                    u = ((case.asarray(case.rng.standard_normal((1, n))),),)
                    value = largest_eigenvalue(small, u, case.asarray(x), case.asarray(np.zeros((5, 1))))
                    top = float(np.linalg.eigvalsh(x.T @ x / 5)[-1])
                    yield Check(abs(value - top) / top, 1e-5, f"λ_max of least squares in {n} unknowns")
                    value = largest_eigenvalue(small, u, case.asarray(0 * x), case.asarray(np.zeros((5, 1))))
                    yield Check(abs(value), 0.0, f"λ_max of a Hessian that is 0, {n} unknowns")
                yield mostly_negative(case)
        elif context.profile != "micro":
            shifted = lambda t: _gradient(h, axpy(h.controls, t, map_controls(host, v)))  # noqa: E731
            slope = (shifted(1e-4) - shifted(-1e-4)) / 2e-4
            error = float(np.linalg.norm(found - slope)) / size
            yield Check(error, 1e-6 + bound, f"central differences, {s.name}")

    return survey(context, one, micro=3, quick=24, full=240)


def mostly_negative(case: Case) -> Check:
    """λ_max where the eigenvalues that are largest in modulus are negative: targets far above a softplus."""
    x = case.asarray(case.rng.standard_normal((6, 4)))
    network = Network((Dense(1, bias=False), Softplus()), (4,))
    s = Setting(
        Problem(network, SquaredLoss(), rho=0.0), ((x[:1, :],), ()), x, 0 * x[:, :1] + 100, "softplus", frozenset()
    )
    reference = np.stack([complex_hessian_vector(problems.host(s), e) for e in oracles.units(s.controls)], axis=1)
    values = np.linalg.eigvalsh(0.5 * (reference + reference.T))
    found = largest_eigenvalue(s.problem, s.controls, s.x, s.y)
    return Check(abs(found - values[-1]) / abs(values[0]), 1e-5, "λ_max of a Hessian that is mostly negative")


def _gradient(h: Setting, controls: Controls) -> np.ndarray:
    """∇L_B by the core's sweeps on the host (T1b)."""
    e = h.problem.sweeper.backward(controls, h.problem.sweeper.forward(controls, h.x, h.y))
    return -to_vector(switching(e))


def complex_hessian_vector(h: Setting, v: Controls) -> np.ndarray:
    """D²L_B(u) v = −Im g(u + ihv)/h, the complex step of the first-order backward sweep."""
    shifted = axpy(h.controls, 1j * oracles.STEP, v)
    states = h.network.forward_sweep(shifted, h.x.astype(complex))
    p = -h.problem.loss.gradient(states[-1], h.y) / h.x.shape[0]
    _, g = h.network.backward_sweep(shifted, states, p)
    return np.concatenate([-np.imag(to_numpy(a)).ravel() / oracles.STEP for a in arrays_of(g)])


@claim(tag="T14b", title="Second derivatives of the losses", statement="Φ″dx, ∇Φ by the complex step")
def loss_derivatives(context: Context) -> Outcome:
    """Statement: gradient and Hessian of the terminal losses are the derivatives of their values.

    Hypotheses: none; scores of size 1, 20 (a nearly certain softmax) and 1000.

    Measured: complex steps of ``values`` and of ``gradient``, relative to 1 + ‖dx‖; bound 100u.
    """

    def one(case: Case) -> Iterator[Check]:
        loss: Any = case.cycle(CrossEntropy(), SquaredLoss())
        x = (1.0, 1000.0, 20.0)[case.index // 2 % 3] * case.rng.standard_normal((3, 4))
        y = case.rng.integers(0, 4, 3) if case.index % 2 == 0 else case.rng.standard_normal((3, 4))
        dx = case.rng.standard_normal((3, 4))
        mx, my, md = case.asarray(x), case.asarray(y), case.asarray(dx)
        hx, hy, hd = host(mx), y if case.index % 2 == 0 else host(my), host(md)
        h = oracles.STEP
        first = np.imag(loss.values(hx + 1j * h * hd, hy)) / h
        scale = 1 + np.linalg.norm(hd, axis=1)
        found = np.sum(host(loss.gradient(mx, my)) * hd, axis=1)
        extra = 1.0 if case.index % 2 == 0 else float(np.max(np.abs(hx))) + 3.0  # |∇Φ| of the squared loss
        yield Check(largest_ratio(found - first, extra * scale), 100 * context.u, f"∇Φ, {loss}")
        second = np.imag(loss.gradient(hx + 1j * h * hd, hy)) / h
        found = host(loss.tangent_gradient(mx, my, md))
        yield Check(largest_ratio(found - second, scale[:, None] + 0 * second), 100 * context.u, f"Φ″, {loss}")

    return survey(context, one, micro=4, quick=40, full=400)
