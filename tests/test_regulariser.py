"""Exact pointwise maximisation (T4): exact rationals on dyadic draws, ties included; floats against challengers."""

from __future__ import annotations

import itertools
import math
from decimal import Decimal, getcontext
from fractions import Fraction as F
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pmp_ref.admissible import WHOLE_LINE, Admissible, Box, FiniteSet
from pmp_ref.errors import InputError
from pmp_ref.regulariser import (
    L0,
    L1,
    L2,
    REGULARISERS,
    GroupL0,
    LHalf,
    LTwoThirds,
    NoPenalty,
    Polynomial,
    Regulariser,
    free_maximiser,
)
from tests.backends import Backend, load
from tests.strategies import dyadics, seeds

getcontext().prec = 60
EPS = np.finfo(np.float64).eps
BOXES = (
    WHOLE_LINE,
    Box(-1.5, 2.0),
    Box(-0.25, 0.5),
    Box(lo=-1.0),
    Box(hi=0.75),
    Box(0.0, 1.0),
    Box(-2.0, 0.0),
    Box(0.5, 3.0),
    Box(-2.5, -0.125),
    Box(lo=0.25),
    Box(hi=-0.5),
)


def exact_r(a: tuple[F, F, F], w: F) -> F:
    return a[0] * (w != 0) + a[1] * abs(w) + a[2] / 2 * w * w


def exact_phi(u: F, g: F, eps: F, rho: F, a: tuple[F, F, F], w: F) -> F:
    """φ(w) = g w − ρ r(w) − ε (w − u)²."""
    return g * w - rho * exact_r(a, w) - eps * (w - u) ** 2


def exact_candidates(u: F, g: F, eps: F, rho: F, a: tuple[F, F, F], box: Box) -> list[F]:
    """Everything that can maximise φ on the box: 0, the bounds, the stationary point of either sign."""
    points = [F(0), *(F(b) for b in (box.lo, box.hi) if math.isfinite(b))]
    for sign in (1, -1):
        w = (2 * eps * u + g - sign * rho * a[1]) / (2 * eps + rho * a[2])
        if w * sign > 0:
            points.append(w)
    return [w for w in points if box.lo <= w <= box.hi]


def exact_argmax(u: F, g: F, eps: F, rho: F, a: tuple[F, F, F], box: Box) -> F:
    """The best candidate; ties go to 0."""
    candidates = exact_candidates(u, g, eps, rho, a, box)
    phi = lambda w: exact_phi(u, g, eps, rho, a, w)  # noqa: E731
    best = max(map(phi, candidates))
    tied = {w for w in candidates if phi(w) == best}
    assert len(tied - {F(0)}) <= 1
    return F(0) if 0 in tied else tied.pop()


@st.composite
def dyadic_cases(draw: st.DrawFn) -> tuple[F, F, F, F, tuple[F, F, F], Box, bool]:
    """(u, g, ε, ρ, a, box, tie) whose unclipped stationary point is dyadic; half of them are ties with 0."""
    u, w, eps = draw(dyadics(-3, 3)), draw(dyadics(-3, 3)), draw(dyadics(0, 2).filter(bool))
    rho, sign = draw(st.sampled_from([F(1, 2), F(1), F(2)])), 1 if w > 0 else -1
    a1, a2 = draw(st.sampled_from([F(0), F(1, 4), F(3, 8)])), draw(st.sampled_from([F(0), F(1, 2), F(3)]))
    box = draw(st.sampled_from(BOXES))
    g = (2 * eps + rho * a2) * w + sign * rho * a1 - 2 * eps * u
    a0 = draw(st.sampled_from([F(0), F(1, 8), F(1)]))
    tie = draw(st.booleans())
    if tie:
        clipped = min(max(w, F(box.lo) if math.isfinite(box.lo) else w), F(box.hi) if math.isfinite(box.hi) else w)
        gain = exact_phi(u, g, eps, rho, (F(0), a1, a2), clipped) - exact_phi(u, g, eps, rho, (F(0), a1, a2), F(0))
        tie = box.lo <= 0 <= box.hi and clipped != 0 and gain > 0
        a0 = gain / rho if tie else a0
    return u, g, eps, rho, (a0, a1, a2), box, tie


def floats(*values: F) -> list[np.ndarray]:
    return [np.array([float(v)]) for v in values]


@given(dyadic_cases(), st.booleans())
def test_polynomials_against_exact_rationals(case: Any, as_array: bool) -> None:
    """The exact maximiser, to the last bit, ties included; ε as a number or entry by entry (T17)."""
    u, g, eps, rho, a, box, tie = case
    expected = exact_argmax(u, g, eps, rho, a, box)
    assert expected == 0 or not tie
    eps_ = np.array([float(eps)]) if as_array else float(eps)
    w = Polynomial(*map(float, a)).argmax(*floats(u, g), eps_, float(rho), box)
    assert w[0] == expected


@settings(max_examples=4)
@given(st.lists(dyadic_cases(), min_size=40, max_size=40))
def test_dyadic_cases_hold_ties_and_kept_entries(cases: list[Any]) -> None:
    """Both occur among forty draws."""
    kept = [c for c in cases if exact_argmax(*c[:6]) != 0]
    ties = [c for c in cases if c[6]]
    assume(len({repr(c) for c in cases}) > 20)  # not the repetitive first draws
    assert kept and ties


@given(st.lists(dyadics(-3, 3), min_size=3, max_size=6), seeds, st.sampled_from(BOXES[:7]))
def test_entries_do_not_influence_one_another(us: list[F], seed: int, box: Box) -> None:
    generator = np.random.default_rng(seed)
    u = np.array([float(v) for v in us])
    g, eps = generator.standard_normal(u.size), generator.uniform(0.1, 2, u.size)
    for r in (Polynomial(0.1, 0.2, 0.3), LHalf(), LTwoThirds()):
        w = r.argmax(u, g, eps, 0.1, box)
        alone = [r.argmax(u[i : i + 1], g[i : i + 1], float(eps[i]), 0.1, box)[0] for i in range(u.size)]
        np.testing.assert_allclose(w, alone, rtol=1e-14)


# --- floats against structured challengers


def challengers(
    w: float, u: float, g: float, eps: float, rho: float, a: tuple[float, float, float], box: Box
) -> list[F]:
    exact = exact_candidates(F(u), F(g), F(eps), F(rho), tuple(map(F, a)), box)  # type: ignore[arg-type]
    near = [w, u, u + g / (2 * eps)]
    for v in (w, math.sqrt(rho * a[0] / eps), -math.sqrt(rho * a[0] / eps)):
        near += [v, math.nextafter(v, math.inf), math.nextafter(v, -math.inf), 1.001 * v, 0.999 * v]
    return exact + [F(v) for v in near if box.lo <= v <= box.hi]


FACTORS = (0.5, 0.9, 0.999, 1.0, 1.001, 1.1, 1.3, 1.5, 2.5)  # √2 lies between two of them


@given(
    st.sampled_from(
        [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.7, 0.3, 0.0), (0.5, 0.0, 2.0), (0.3, 0.2, 1.1)]
    ),
    st.floats(1e-3, 10),
    st.floats(1e-6, 1),
    st.floats(-3, 3),
    st.sampled_from(FACTORS),
    st.sampled_from([-1, 1]),
    st.integers(-1, 1),
    st.sampled_from(BOXES),
)
def test_polynomials_in_floats_are_not_beaten(
    a: tuple[float, float, float], eps: float, rho: float, u: float, factor: float, sign: int, ulp: int, box: Box
) -> None:
    """c near the threshold at which 0 and the stationary point are equal, ± one ulp; compared in exact rationals."""
    s = 2 * eps + rho * a[2]
    c = sign * factor * (math.sqrt(2 * rho * a[0] * s) + rho * a[1]) / (2 * eps) + (sign * 0.5 if a[0] == 0 else 0.0)
    c = math.nextafter(c, math.inf * ulp) if ulp else c
    g = 2 * eps * (c - u)
    w = float(Polynomial(*a).argmax(np.array([u]), np.array([g]), eps, rho, box)[0])
    assert box.lo <= w <= box.hi
    at = (F(u), F(g), F(eps), F(rho), tuple(map(F, a)))
    phi = lambda v: exact_phi(*at, v)  # type: ignore[arg-type]  # noqa: E731
    for v in challengers(w, u, g, eps, rho, a, box):
        # 8 roundings of the terms that are compared: b = 2εu + g and its products
        size = max(abs(F(w)), abs(v))
        terms = (
            (2 * F(eps) * abs(F(u)) + abs(F(g)) + F(rho * a[1])) * size + F(eps + rho * a[2]) * size**2 + F(rho * a[0])
        )
        assert phi(F(w)) >= phi(v) - 8 * F(EPS) * terms


def decimal_phi(u: float, g: float, eps: float, rho: float, q: F, w: float) -> Decimal:
    u_, g_, eps_, rho_, w_ = map(Decimal, (u, g, eps, rho, w))
    r = Decimal(0) if w == 0 else abs(w_) ** (Decimal(q.numerator) / Decimal(q.denominator))
    return g_ * w_ - rho_ * r - eps_ * (w_ - u_) ** 2


def power_threshold(r: Regulariser, lam: float) -> float:
    """Where 0 and the local maximiser are equal, from T4's text."""
    if isinstance(r, LHalf):
        return 54 ** (1 / 3) / 4 * lam ** (2 / 3)
    return 2 / 3 * (3 * lam**3) ** 0.25


@pytest.mark.parametrize(("r", "q"), [(LHalf(), F(1, 2)), (LTwoThirds(), F(2, 3))], ids=["half", "two thirds"])
@given(
    st.floats(1e-3, 10),
    st.floats(1e-6, 1),
    st.floats(-3, 3),
    st.sampled_from([*FACTORS, 1 - 1e-9, 1 + 1e-9, 1e3, 1e6]),
    st.sampled_from([-1, 1]),
    st.sampled_from(BOXES[:7]),
    st.booleans(),
)
def test_powers_are_not_beaten(
    r: Regulariser, q: F, eps: float, rho: float, u: float, factor: float, sign: int, box: Box, as_array: bool
) -> None:
    c = sign * factor * power_threshold(r, rho / eps)
    g = 2 * eps * (c - u)
    w = float(r.argmax(np.array([u]), np.array([g]), np.array([eps]) if as_array else eps, rho, box)[0])
    assert box.lo <= w <= box.hi
    near = [0.0, c, u, box.lo, box.hi, w, *(w * (1 + t) for t in (1e-6, -1e-6, 1e-3, -1e-3)), 2 / 3 * c, 0.9 * c]
    best = decimal_phi(u, g, eps, rho, q, w)
    for v in near:
        if box.lo <= v <= box.hi and math.isfinite(v):
            size = max(abs(w), abs(v))
            terms = (2 * eps * abs(u) + abs(g)) * size + eps * size**2 + rho * size ** float(q)
            assert best >= decimal_phi(u, g, eps, rho, q, v) - Decimal(16 * EPS * terms)


@pytest.mark.parametrize("r", [LHalf(), LTwoThirds()], ids=str)
@pytest.mark.parametrize("lam", [1e-24, 1e-12, 1e-4, 1.0, 1e4])
def test_thresholds_of_powers_hold_over_many_scales(r: Regulariser, lam: float) -> None:
    """Below the threshold 0, above it the local maximiser, near the known size; in float32 too, where λ³ underflows."""
    c = power_threshold(r, lam)
    for dtype, gap in ((np.float64, 1e-9), (np.float32, 1e-5)):
        if dtype == np.float32 and lam < 1e-15:
            continue  # λ^{3/2} is not a float32 there
        eps = np.array([1 / lam], dtype)
        u = np.zeros(1, dtype)
        for factor, kept in ((1 - gap, False), (1 + gap, True)):
            w = r.argmax(u, (2 * eps * np.array([c * factor])).astype(dtype), eps, 1.0, WHOLE_LINE)
            assert w.dtype == dtype and bool(w[0] != 0) == kept
            if kept:  # at the threshold w = ⅔c for q = ½ and w = ½c for q = ⅔
                np.testing.assert_allclose(w[0], c * (2 / 3 if isinstance(r, LHalf) else 1 / 2), rtol=1e-2)


# --- finite sets


def exact_finite(u: F, g: F, eps: F, rho: F, a: tuple[F, F, F], values: list[F]) -> F:
    """Best value, ties by T4's order."""
    penalised = lambda v: rho * (exact_r(a, v) - exact_r(a, F(0)))  # noqa: E731
    rivals = [v for v in values if v != 0]
    zero_less = all(penalised(v) > 0 for v in rivals)
    key = lambda v: (exact_phi(u, g, eps, rho, a, v), v == 0 and zero_less, -abs(v - u), -abs(v), -v)  # noqa: E731
    return max(values, key=key)


@example([F(-1), F(0), F(1)], F(1), F(1), F(0), F(0), (F(1), F(0), F(0)), 2, 0)
@given(
    st.lists(dyadics(-2, 2), min_size=2, max_size=5, unique=True),
    dyadics(0, 1).filter(bool),
    dyadics(0, 2),
    dyadics(-2, 2),
    dyadics(-2, 2),
    st.sampled_from([(F(1), F(0), F(0)), (F(0), F(1, 2), F(0)), (F(1, 4), F(0), F(2)), (F(0),) * 3]),
    st.integers(0, 4),
    st.integers(0, 4),
)
def test_finite_sets_against_exact_rationals(
    values: list[F], eps: F, rho: F, u: F, g: F, a: tuple[F, F, F], i: int, j: int
) -> None:
    """Best value and tie rules; in half of the draws g makes two of the values tie."""
    u = values[i % len(values)] if i % 2 else u
    v1, v2 = values[i % len(values)], values[j % len(values)]
    if v1 != v2 and (v2 - v1).numerator in (1, -1):  # then g is dyadic
        smooth = lambda v: -rho * exact_r(a, v) - eps * (v - u) ** 2  # noqa: E731
        g = (smooth(v1) - smooth(v2)) / (v2 - v1)
        assert exact_phi(u, g, eps, rho, a, v1) == exact_phi(u, g, eps, rho, a, v2)
    w = Polynomial(*map(float, a)).argmax(*floats(u, g), float(eps), float(rho), FiniteSet(tuple(map(float, values))))
    assert w[0] == exact_finite(u, g, eps, rho, a, values)


@pytest.mark.parametrize(
    ("values", "u", "g", "eps", "rho", "expected"),
    [
        ((-1.0, 0.0, 1.0), 1.0, 0.0, 1.0, 1.0, 0.0),  # φ(0) = φ(1) = −1: 0 is penalised less
        ((-1.0, 0.0, 1.0), 0.5, 0.0, 1.0, 0.0, 0.0),  # without penalty, equally close: smaller |v|
        ((-1.0, 1.0), 0.0, 0.0, 1.0, 1.0, -1.0),  # equally close and large: smaller v
        ((1.0, 2.0), 2.0, -1.0, 1.0, 0.0, 2.0),  # φ(1) = φ(2) = −2: the value closest to u
        ((-1.0, 0.0, 1.0), 1.0, -1.0, 1.0, 0.0, 1.0),  # φ(0) = φ(1) = −1 without penalty: closest to u
    ],
)
def test_ties_on_finite_sets(values: Any, u: float, g: float, eps: float, rho: float, expected: float) -> None:
    assert L0().argmax(np.array([u]), np.array([g]), eps, rho, FiniteSet(values))[0] == expected


def test_powers_on_finite_sets() -> None:
    u, g = np.array([0.0, 0.0, 1.0]), np.array([0.9, 1.1, -0.1])
    w = LHalf().argmax(u, g, 1e-9, 1.0, FiniteSet((-1.0, 0.0, 1.0)))
    np.testing.assert_array_equal(w, [0.0, 1.0, 0.0])


def test_large_augmentation_keeps_the_value() -> None:
    """φ is compared relative to u: at ε = 10¹² a gain of 10⁻³ between neighbouring values is still seen."""
    values = (1.0, 1.0 + 2.0**-40)
    w = NoPenalty().argmax(np.array([1.0]), np.array([0.5]), 1e12, 0.0, FiniteSet(values))
    exact = exact_finite(F(1), F(0.5), F(10**12), F(0), (F(0),) * 3, [F(v) for v in values])  # type: ignore[arg-type]
    assert w[0] == exact


# --- groups


@given(
    st.integers(0, 1),
    *(2 * [st.lists(dyadics(-2, 2), min_size=6, max_size=6)]),
    dyadics(0, 2).filter(bool),
    st.booleans(),
    st.integers(0, 2),
    st.booleans(),
)
def test_groups_against_exact_rationals(
    axis: int, us: list[F], cs: list[F], eps: F, as_array: bool, group: int, tie: bool
) -> None:
    """Keep the group iff Σ ε d_i c_i² > ρω; ties (exact on dyadics) go to 0."""
    shape = (2, 3) if axis == 0 else (3, 2)
    u, c = (np.array([float(v) for v in vs]).reshape(shape) for vs in (us, cs))
    d = np.array([1.0, 2.0, 0.5, 1.0, 4.0, 1.0]).reshape(shape) if as_array else np.ones(shape)
    weights = float(eps) * d
    norms = np.sum(weights * c * c, axis=1 - axis)  # exact: few-bit dyadics
    omega = float(norms[group % norms.size]) if tie and norms[group % norms.size] > 0 else 0.375
    w = GroupL0(axis, omega).argmax(u, 2 * weights * (c - u), weights if as_array else float(eps), 1.0, WHOLE_LINE)
    keep = np.expand_dims(norms > omega, 1 - axis)
    np.testing.assert_array_equal(w, np.where(keep, c, 0.0))


def test_groups_are_filters_neurons_or_channels() -> None:
    k = np.zeros((2, 3, 1, 2))
    k[0, 1, 0, 1] = k[1, 1, 0, 0] = 5.0
    assert float(GroupL0(0, 2.0).value(k)) == 4.0 and float(GroupL0(1, 2.0).value(k)) == 2.0
    assert float(GroupL0(0).value(np.array([0.0, 3.0, 1.0]))) == 2.0
    bias = np.array([0.0, 3.0, 0.5])  # no axis 1: each entry a group
    assert float(GroupL0(1).value(bias)) == 2.0
    np.testing.assert_array_equal(GroupL0(1).argmax(bias, 0 * bias, 1.0, 1.0, WHOLE_LINE), [0.0, 3.0, 0.0])
    for axis in (-1, 1.0, None, True):
        with pytest.raises(InputError, match="expected an integer ≥ 0"):
            GroupL0(axis)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="does not separate"):
        GroupL0().pointwise(k)
    with pytest.raises(InputError, match="whole line only"):
        GroupL0().argmax(k, k, 1.0, 1.0, Box(-1, 1))


# --- all of them

REGS: dict[str, Regulariser] = {
    **{name: make() for name, make in REGULARISERS.items()},
    "sum": Polynomial(0.5, 0.25, 2.0),
}
ENTRYWISE = {name: r for name, r in REGS.items() if name != "group-l0"}


@pytest.mark.parametrize("name", ENTRYWISE)
@given(seed=seeds)
def test_value_is_the_sum_of_its_entries(name: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    w = np.where(generator.random((3, 4)) < 0.5, 0.0, generator.standard_normal((3, 4)))
    np.testing.assert_allclose(float(REGS[name].value(w)), np.sum(REGS[name].pointwise(w)), rtol=1e-14)
    assert float(REGS[name].value(np.zeros(3))) == 0.0


def test_values_are_the_definitions() -> None:
    w = np.array([4.0, 0.0, -8.0])
    expected = {
        "l0": 2.0,
        "l1": 12.0,
        "l2": 40.0,
        "l1/2": 2 + 8**0.5,
        "l2/3": 4 ** (2 / 3) + 4,
        "none": 0.0,
        "sum": 1 + 3 + 80,
        "group-l0": 2.0,
    }
    assert expected.keys() == REGS.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(float(REGS[name].value(w)), value, rtol=1e-15)
    assert (L0().convex, L1().convex, L2().convex, LHalf().convex, GroupL0().convex) == (
        False,
        True,
        True,
        False,
        False,
    )


def test_values_of_float32_controls_are_summed_in_float64() -> None:
    w = np.array([2.0**24, 1.0, 1.0, 1.0], np.float32)  # float32 would lose the ones
    assert float(L1().value(w)) == 2.0**24 + 3
    assert float(L2().value(w)) == 0.5 * (2.0**48 + 3)


@pytest.mark.parametrize("name", REGS)
@pytest.mark.parametrize("admissible", [WHOLE_LINE, Box(-0.5, 1.0), FiniteSet((-1.0, 0.0, 1.0))], ids=str)
def test_without_weight_every_regulariser_projects(name: str, admissible: Admissible) -> None:
    u, g = np.array([[0.3, 0.0]]), np.array([[0.0, 1.0]])
    if name == "group-l0" and isinstance(admissible, FiniteSet):
        return  # InputError, see above
    w = REGS[name].argmax(u, g, 0.5, 0.0, admissible)
    np.testing.assert_array_equal(w, admissible.project(free_maximiser(u, g, 0.5)))


@pytest.mark.parametrize("name", ["l0", "l1/2", "l2/3", "group-l0", "none"])
def test_a_control_without_switching_function_stays_to_the_last_bit(name: str) -> None:
    """c = u exactly where g = 0: no movement by rounding, so that "control unchanged" can be seen."""
    u = np.random.default_rng(0).uniform(1, 2, (50, 2))
    for eps in (0.1, 0.3, 7.7):
        w = REGS[name].argmax(u, np.zeros_like(u), eps, 0.0 if "/" in name else 1e-9, WHOLE_LINE)
        np.testing.assert_array_equal(w, u)


@pytest.mark.parametrize("admissible", [WHOLE_LINE, Box(-0.5, 1.0), FiniteSet((-1.0, 0.1, 0.0, 1.0))], ids=str)
@pytest.mark.parametrize("name", REGS)
def test_backends_maximise_alike(backend: Backend, name: str, admissible: Admissible) -> None:
    """The NumPy result on every backend, bit for bit where the library is NumPy underneath; dtype and device kept."""
    if name == "group-l0" and admissible != WHOLE_LINE:
        return  # InputError, see above
    generator = np.random.default_rng(1)
    for dtype, as_array in itertools.product((np.float32, np.float64), (False, True)):
        u, g = generator.standard_normal((2, 4, 3, 2)).astype(dtype)
        d = generator.uniform(0.5, 2, u.shape).astype(dtype)
        expected = REGS[name].argmax(u, g, 0.7 * d if as_array else 0.7, 0.2, admissible)
        ub, gb, db = map(backend.asarray, (u, g, d))
        actual = REGS[name].argmax(ub, gb, 0.7 * db if as_array else 0.7, 0.2, admissible)
        assert actual.dtype == ub.dtype and actual.device == backend.device and actual.shape == ub.shape
        exact = backend.name.startswith(("numpy", "array_api_strict"))
        rtol = 0 if exact else 32 * np.finfo(dtype).eps  # other libraries have their own cosines and powers
        np.testing.assert_allclose(backend.to_numpy(actual), expected, rtol=rtol)
        value = REGS[name].value(ub)
        assert value.ndim == 0 and value.dtype == backend.xp.float64 and value.device == backend.device
        np.testing.assert_allclose(float(backend.to_numpy(value)), float(REGS[name].value(u)), rtol=1e-14)


@pytest.mark.parametrize("name", REGS)
def test_numpy_scalars_as_parameters_do_not_promote_float32(name: str) -> None:
    wide = np.float64(0.5)
    r = {"group-l0": GroupL0(0, wide), "sum": Polynomial(wide, wide, wide), "l0": Polynomial(a0=wide)}.get(
        name, REGS[name]
    )
    u = np.ones((2, 2), np.float32)
    box = WHOLE_LINE if name == "group-l0" else Box(-wide, wide)
    assert r.argmax(u, u, 0.5, 0.1, box).dtype == np.float32


@pytest.mark.parametrize("coefficients", list(itertools.product([-1.0, math.nan, math.inf], range(3))))
def test_bad_coefficients(coefficients: tuple[float, int]) -> None:
    bad, place = coefficients
    a = [0.0, 0.0, 0.0]
    a[place] = bad
    with pytest.raises(InputError, match="expected numbers ≥ 0"):
        Polynomial(*a)


@pytest.mark.parametrize("r", [LHalf(), LTwoThirds()], ids=str)
def test_powers_in_float32_at_the_ends_of_its_range(r: Regulariser) -> None:
    """27c²/(16λ^{3/2}) and λ^{3/2} leave the range of float32; the maximiser is far from doing so."""
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    np.testing.assert_allclose(r.argmax(100 * one, zero, 1e15, 1e-8, WHOLE_LINE), 100, rtol=1e-5)
    np.testing.assert_array_equal(r.argmax(zero, one, 1e-30, 0.01, Box(-1, 1)), [1])


@pytest.mark.parametrize("r", [LHalf(), LTwoThirds()], ids=str)
def test_powers_are_equal_bit_for_bit_with_one_weight_for_all(r: Regulariser) -> None:
    """A metric of one number for each layer (``LayerMetric``) is 0-d, which NumPy may turn into its own scalar."""
    strict = load("array_api_strict")
    rng = np.random.default_rng(0)
    u, g = rng.standard_normal((2, 400))
    for eps in np.exp(rng.uniform(-3, 3, 40)):
        ours = r.argmax(u, g, np.asarray(eps), 0.1, WHOLE_LINE)
        theirs = r.argmax(strict.asarray(u), strict.asarray(g), strict.asarray(np.asarray(eps)), 0.1, WHOLE_LINE)
        np.testing.assert_array_equal(ours, np.asarray(theirs))


@pytest.mark.parametrize("r", [LHalf(), LTwoThirds()], ids=str)
def test_powers_need_a_box_with_zero(r: Regulariser) -> None:
    with pytest.raises(InputError, match="box containing 0"):
        r.argmax(np.ones(1), np.ones(1), 1.0, 1.0, Box(1, 2))


# --- what certificates and proven steps ask for


@pytest.mark.parametrize("name", ENTRYWISE)
@given(st.floats(1e-2, 3), st.sampled_from([-1, 1]))
def test_derivatives_are_those_of_the_values(name: str, size: float, sign: int) -> None:
    """Off 0 against central differences; at 0 against the two one-sided quotients, NaN where they differ or grow."""
    r, w, h = REGS[name], sign * size, 1e-3 * size
    f = r.pointwise(np.array([w - 2 * h, w - h, w + h, w + 2 * h, 0.0, -1e-9, 1e-9]))
    difference = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h)
    np.testing.assert_allclose(r.derivative(np.array([w]))[0], difference, rtol=1e-8, atol=1e-9)
    left, right = (f[4] - f[5]) / 1e-9, (f[6] - f[4]) / 1e-9
    np.testing.assert_array_equal(r.derivative(np.array([0.0])), 0.0 if right - left < 1e-6 else np.nan)


@pytest.mark.parametrize("name", ENTRYWISE)
def test_asymptotic_slopes_are_limits(name: str) -> None:
    near, far = (float(REGS[name].pointwise(np.array([w]))[0]) / w for w in (1e15, 1e18))
    slope = REGS[name].asymptotic_slope()
    assert far > 100 * near if math.isinf(slope) else abs(far - slope) <= 1e-5
    assert GroupL0().asymptotic_slope() == 0


def test_groups_have_a_derivative_where_they_are_kept() -> None:
    w = np.array([[0.0, 0.0], [0.0, 2.0]])
    np.testing.assert_array_equal(GroupL0().derivative(w), [[np.nan, np.nan], [0, 0]])
    np.testing.assert_array_equal(GroupL0().group_sums(w + 1), [[2.0], [4.0]])
    assert not GroupL0(0, 0.3).error_bound(w).any()


@pytest.mark.parametrize("name", ENTRYWISE)
@given(st.one_of(st.floats(1e-280, 1e-3), st.floats(1e-3, 1e3)), st.sampled_from([-1, 1]))
def test_error_bounds_hold(name: str, size: float, sign: int) -> None:
    """The value as it is computed against 60 decimal digits; 0 promises the exact value."""
    r, w = REGS[name], sign * size
    exact = {"l1/2": lambda a: a.sqrt(), "l2/3": lambda a: a ** (Decimal(2) / 3)}.get(name)
    if exact is not None:
        value = exact(abs(Decimal(w)))
    else:
        assert isinstance(r, Polynomial)
        total = exact_r((F(r.a0), F(r.a1), F(r.a2)), F(w))
        value = Decimal(total.numerator) / Decimal(total.denominator)
    found, bound = (float(np.asarray(f(np.array([w])), float)[0]) for f in (r.terms, r.error_bound))
    assert abs(Decimal(found) - value) <= Decimal(bound) + Decimal("1e-50") * value + Decimal("1e-320")  # underflow
    assert bound <= 16 * EPS * found + abs(math.log(size)) * EPS * found


def test_l0_and_l1_are_exact_and_sums_are_not() -> None:
    w = np.array([0.1, -3.0, 0.0])
    for r in (L0(), L1(), Polynomial(a0=0.3), NoPenalty()):
        assert not r.error_bound(w).any()
    for r in (Polynomial(a1=0.3), Polynomial(1.0, 1.0), L2(), LHalf(), LTwoThirds()):
        assert (r.error_bound(w)[:2] > 0).all()


class Bare(Regulariser):
    """States what training needs."""

    def value(self, w: Any) -> Any:
        return np.sum(abs(w))

    def pointwise(self, w: Any) -> Any:
        return abs(w)

    def on_line(self, u: Any, g: Any, eps: Any, rho: float, box: Box) -> Any:
        return L1().on_line(u, g, eps, rho, box)


def test_a_class_that_states_no_more_than_training_needs() -> None:
    """Its closed form is left to bisection, its entries separate, and the rest names itself."""
    w = np.ones(3)
    assert Bare().eps_star(w, w, 0.1, WHOLE_LINE) is None and Bare().group_sums(w) is w
    for ask, method in (
        (lambda: Bare().derivative(w), r"derivative\(self, w\)"),
        (lambda: Bare().asymptotic_slope(), r"asymptotic_slope\(self\)"),
        (lambda: Bare().error_bound(w), r"error_bound\(self, w\)"),
    ):
        with pytest.raises(InputError, match=rf"^Bare states no \w+, and .* needs it; write def {method} in Bare: "):
            ask()
