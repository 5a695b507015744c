"""The maximum principle at minimisers (T10c) and the certificate ε* (T11), for drawn networks, data, ρ and ε.

Each property is also run with a fault planted in the code it tests, and must fail then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import verification.claims.maximum_principle as claims
from pmp_ref.admissible import WHOLE_LINE, Admissible, Box, FiniteSet
from pmp_ref.arrays import like, to_numpy
from pmp_ref.certificate import augmented_gaps, certify, eps_star, stationarity_residual
from pmp_ref.controls import map_controls
from pmp_ref.hamiltonian import augmented_increment
from pmp_ref.initialise import initial_controls
from pmp_ref.loss import CrossEntropy
from pmp_ref.maximise import maximise
from pmp_ref.network import Network
from pmp_ref.problem import Problem
from pmp_ref.regulariser import L0, Polynomial
from pmp_ref.sweep import Sweep
from tests.planted import fails_under, fixed_examples
from tests.strategies import images_for, networks, seeds
from verification.claim import Case, Context
from verification.claims.exhaustive import LEAST_SQUARES, TERNARY, Minimiser, least_squares, ternary
from verification.libraries import load

LIBRARIES = ("numpy", "array_api_strict")
ROUNDING = 1e-10  # of gaps, relative to Σ|gu| + ρ: minimisers are known to the rounding of a linear solve


@dataclass(frozen=True)
class Draw:
    """A minimiser to be made: kind of problem, seed of network and data, how close ρ is to a change of support."""

    kind: str
    seed: int
    orthogonal: bool
    marginal: float | None

    def minimiser(self, library: str) -> Minimiser:
        case = Case(Context(library=load(library)), 0, np.random.default_rng(self.seed))
        if self.kind in TERNARY:
            return ternary(case, self.kind)[0]
        return least_squares(case, self.kind, self.orthogonal, self.marginal)


kinds = st.sampled_from([*LEAST_SQUARES, *TERNARY])
draws = st.builds(Draw, kinds, seeds, st.booleans(), st.sampled_from([None, 0.5, 0.98, 1.02]))
marginal_draws = st.builds(Draw, st.just("L0, line"), seeds, st.just(True), st.sampled_from([0.98, 1.02]))
factors = st.sampled_from([1.0, 1.5, 10.0])


def augmented_principle(draw: Draw, factor: float) -> None:
    """T10c: at ε = factor·C_l no candidate has a larger augmented Hamiltonian than the minimiser, layer by layer, and
    ε* does not exceed the largest C_l (T11); bit for bit alike on both libraries."""
    found = []
    for library in LIBRARIES:
        m = draw.minimiser(library)
        problem, u = m.problem, m.controls
        e = problem.sweeper.backward(u, problem.sweeper.forward(u, m.x, m.y))
        assert e.switching is not None
        flat = [
            (to_numpy(a), to_numpy(b)) for s, t in zip(u, e.switching, strict=True) for a, b in zip(s, t, strict=True)
        ]
        scale = 1 + problem.rho + sum(float(np.sum(np.abs(a * b))) for a, b in flat)
        for l, curvature in m.curvature.items():
            eps = factor * max(claims.constant(curvature), 1e-12)
            w = maximise(problem, u, e.switching, eps, problem.rho)
            moved = tuple(w[k] if k == l else u[k] for k in range(len(u)))
            gain = float(augmented_increment(problem, e.switching, u, moved, eps, problem.rho))
            assert gain <= ROUNDING * scale, (draw, library, l, gain)
        largest = max(claims.constant(c) for c in m.curvature.values())
        c = certify(problem, u, m.x, m.y, max(largest, 1e-12))
        if not math.isinf(c.eps_star):
            assert c.eps_star <= largest * (1 + ROUNDING) + ROUNDING * scale, (draw, library, c.eps_star, largest)
        else:  # convex r: 0 or ∞, and ∞ only by the rounding of g at |g| = ρ
            assert problem.regulariser[0][0].convex and c.residual_support <= ROUNDING * scale, (draw, library)
        found.append(c)
    assert found[0] == found[1]


def certificate_is_sharp(
    network: Network, seed: int, r: Polynomial, admissible: Admissible, rho: float, t: float
) -> None:
    """T11: with the residual taken out, u maximises K_ε at ε = tε* iff t ≥ 1, control by control, on both libraries."""
    stars: list[list[float]] = []
    for library in LIBRARIES:
        rng = np.random.default_rng(seed)
        convert = load(library).asarray
        x = convert(images_for(network, rng, 4))
        y = convert(rng.integers(0, network.output_shape[0], 4))
        problem = Problem(
            network, CrossEntropy(), r, rho=rho, admissible=admissible, sweep=Sweep(network, CrossEntropy(), chunk=3)
        )
        u = initial_controls(network, seed, x, "float64")
        u = problem.project(map_controls(lambda a: a * like(rng.random(a.shape) < 0.7, a), u))  # noqa: B023
        e = problem.sweeper.backward(u, problem.sweeper.forward(u, x, y))
        assert e.switching is not None
        stars.append([])
        for l, stage in enumerate(u):
            for k, a in enumerate(stage):
                weight = rho * problem.weights[l][k]
                host = to_numpy(e.switching[l][k])
                g = like(host - stationarity_residual(to_numpy(a), host, r, weight, admissible), a)
                star = eps_star(a, g, r, weight, admissible)
                stars[-1].append(star)
                if star < 1e-9 or math.isinf(star):  # below that ε* is a rounding of g, which may be 1e-17 for 0
                    continue
                gaps = augmented_gaps(a, g, r, weight, admissible, t * star)
                if t >= 1:
                    assert float(np.max(gaps)) <= ROUNDING * (weight + star), (library, l, k, star)
                else:
                    assert float(np.max(gaps)) > 1e-6 * min(1.0, star) * (1 - t), (library, l, k, star)
    assert stars[0] == stars[1]


sets = st.sampled_from([WHOLE_LINE, Box(-0.6, 0.4), FiniteSet((-1.0, 0.0, 1.0)), FiniteSet((-0.5, 0.25, 0.5))])
penalties = st.sampled_from([L0(), Polynomial(a0=0.5, a2=0.25)])
rhos = st.sampled_from([0.001, 0.03, 0.5])
multiples = st.sampled_from([0.5, 0.9, 1.001, 3.0])
certificates = (networks(classes=3, heads=True), seeds, penalties, sets, rhos, multiples)


@given(draws, factors)
def test_minimisers_satisfy_the_augmented_maximum_principle(draw: Draw, factor: float) -> None:
    augmented_principle(draw, factor)


@pytest.mark.filterwarnings("ignore::pmp_ref.problem.PenaltyWarning")  # L0 is constant on a set without 0
@given(*certificates)
def test_certificate_is_the_smallest_augmentation(
    network: Network, seed: int, r: Polynomial, admissible: Admissible, rho: float, t: float
) -> None:
    certificate_is_sharp(network, seed, r, admissible, rho, t)


sharp_on_the_line = (networks(classes=3, heads=True), seeds, st.just(L0()), st.just(WHOLE_LINE), rhos, multiples)


def test_the_marginal_draws_hold_without_a_fault() -> None:
    fixed_examples(given(marginal_draws, st.just(1.0))(augmented_principle))()


@pytest.mark.parametrize("name", ["T10c: ¼ for ½ in C_l", "T11: g²/(2ρ) for g²/(4ρ) in ε*"])
def test_the_augmented_principle_fails_close_to_a_change_of_support(name: str) -> None:
    fails_under(name, augmented_principle, marginal_draws, st.just(1.0))


def test_the_augmented_principle_fails_under_a_wrong_sign_of_the_terminal_costate() -> None:
    fails_under("wrong sign of p_L", augmented_principle, draws, factors)


@pytest.mark.parametrize("name", ["T11: g²/(2ρ) for g²/(4ρ) in ε*", "threshold √(2ρ/ε) for √(ρ/ε)"])
def test_the_certificate_fails_under_a_planted_fault(name: str) -> None:
    fails_under(name, certificate_is_sharp, *sharp_on_the_line)


def test_the_certificate_fails_without_the_penalty_on_finite_sets() -> None:
    ternary_sets = st.just(FiniteSet((-1.0, 0.0, 1.0)))
    fails_under(
        "T11: penalty left out on finite sets", certificate_is_sharp, *certificates[:3], ternary_sets, *certificates[4:]
    )
