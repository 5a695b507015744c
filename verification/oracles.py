"""Independent computations that the claims compare with: definitions by Python loops, complex step, differences,
exact rationals, exhaustive search, and PyTorch's autograd where it is installed.

Nothing here calls the formula under test. Loops and rationals use no part of ``pmp_ref`` but the descriptions of
stages and regularisers (sizes, strides, coefficients). Complex step and differences use the forward maps alone, which
T0 ties to the loops. Everything runs on the host in float64 or complex128.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from pmp_ref.admissible import Admissible, Box, FiniteSet
from pmp_ref.arrays import Controls
from pmp_ref.controls import map_controls
from pmp_ref.layers import (
    AveragePool,
    Convolution,
    Dense,
    Flatten,
    GlobalAveragePool,
    LeakyReLU,
    MaxPool,
    Pixels,
    ReLU,
    ScaleShift,
    Sigmoid,
    SiLU,
    Softplus,
    Stage,
    Standardise,
    Tanh,
    WeightedSum,
)
from pmp_ref.loss import CrossEntropy, Loss, SquaredLoss
from pmp_ref.regulariser import GroupL0, LHalf, LTwoThirds, Polynomial, Regulariser
from verification.claims.problems import Setting

# --- definitions by loops (T0) ----------------------------------------------------------------------------------------

SCALAR: dict[type, Callable[[Any, float], float]] = {
    Tanh: lambda s, z: (math.exp(2 * z) - 1) / (math.exp(2 * z) + 1) if z < 300 else 1.0,
    Sigmoid: lambda s, z: 1 / (1 + math.exp(-z)) if z > -700 else 0.0,
    Softplus: lambda s, z: math.log(1 + math.exp(z)) if z < 30 else z,
    SiLU: lambda s, z: z / (1 + math.exp(-z)) if z > -700 else 0.0,
    LeakyReLU: lambda s, z: z if z > 0 else s.leak * z,
    ReLU: lambda s, z: z if z > 0 else 0.0,
}


def forward_by_loops(stage: Stage, x: Any, u: tuple[np.ndarray, ...]) -> Any:
    """Λ(x, u) of any stage, entry by entry from its definition, with compensated sums (``math.fsum``)."""
    if isinstance(stage, Pixels):
        pairs = zip(stage.mean, stage.std, strict=True)
        return np.stack([_each(lambda a, m=m, s=s: (a / 255 - m) / s, x[:, c]) for c, (m, s) in enumerate(pairs)], 1)
    if isinstance(stage, WeightedSum):
        return _each(lambda *parts: math.fsum(w * a for w, a in zip(stage.weights, parts, strict=True)), *x)
    if type(stage) in SCALAR:
        return _each(lambda z: SCALAR[type(stage)](stage, z), x)
    for kind, definition in _DEFINITIONS.items():
        if type(stage) is kind:
            return definition(stage, x, u)
    raise TypeError(f"no definition by loops for {type(stage).__name__}: write one in verification/oracles.py")


def _each(f: Callable[..., float], *arrays: np.ndarray) -> np.ndarray:
    result = np.empty(arrays[0].shape)
    for index in np.ndindex(*arrays[0].shape):
        result[index] = f(*(float(a[index]) for a in arrays))
    return result


def _convolution(c: Convolution, x: np.ndarray, u: tuple[np.ndarray, ...]) -> np.ndarray:
    k, w = u[0], c.windows
    inputs = x.shape[1] // c.groups
    outputs = c.channels // c.groups
    rows, columns = _positions(x.shape[2], w, 0), _positions(x.shape[3], w, 1)
    y = np.empty((x.shape[0], c.channels, rows, columns))
    for b, o, i, j in np.ndindex(*y.shape):
        terms = [float(u[1][o])] if c.bias else []
        for ci, s, t in np.ndindex(inputs, *w.size):
            r = i * w.stride[0] + s * w.dilation[0] - w.padding[0]
            q = j * w.stride[1] + t * w.dilation[1] - w.padding[1]
            if 0 <= r < x.shape[2] and 0 <= q < x.shape[3]:
                terms.append(float(k[o, ci, s, t]) * float(x[b, (o // outputs) * inputs + ci, r, q]))
        y[b, o, i, j] = math.fsum(terms)
    return y


def _positions(length: int, w: Any, axis: int) -> int:
    count, start = 0, -w.padding[axis]
    while start + w.dilation[axis] * (w.size[axis] - 1) < length + w.padding[axis]:
        count, start = count + 1, start + w.stride[axis]
    return count


def _dense(d: Dense, x: np.ndarray, u: tuple[np.ndarray, ...]) -> np.ndarray:
    y = np.empty((x.shape[0], d.neurons))
    for b, o in np.ndindex(*y.shape):
        terms = [float(u[0][o, i]) * float(x[b, i]) for i in range(x.shape[1])]
        y[b, o] = math.fsum(terms + ([float(u[1][o])] if d.bias else []))
    return y


def _scale_shift(s: ScaleShift, x: np.ndarray, u: tuple[np.ndarray, ...]) -> np.ndarray:
    y = np.empty(x.shape)
    for index in np.ndindex(*x.shape):
        y[index] = float(u[0][index[1]]) * float(x[index]) + (float(u[1][index[1]]) if s.bias else 0.0)
    return y


def _pool(p: AveragePool | MaxPool, x: np.ndarray, u: tuple[np.ndarray, ...]) -> np.ndarray:
    w = p.windows
    y = np.empty((*x.shape[:2], _positions(x.shape[2], w, 0), _positions(x.shape[3], w, 1)))
    for b, c, i, j in np.ndindex(*y.shape):
        window = []
        for s, t in np.ndindex(*w.size):
            r, q = i * w.stride[0] + s - w.padding[0], j * w.stride[1] + t - w.padding[1]
            if 0 <= r < x.shape[2] and 0 <= q < x.shape[3]:
                window.append(float(x[b, c, r, q]))
            elif isinstance(p, AveragePool) and p.count_include_pad:
                window.append(0.0)
        y[b, c, i, j] = max(window) if isinstance(p, MaxPool) else math.fsum(window) / len(window)
    return y


def _global_pool(p: GlobalAveragePool, x: np.ndarray, u: tuple[np.ndarray, ...]) -> np.ndarray:
    pixels = x.shape[2] * x.shape[3]
    return np.array(
        [[math.fsum(map(float, x[b, c].ravel())) / pixels for c in range(x.shape[1])] for b in range(x.shape[0])]
    )


def _standardise(s: Standardise, x: np.ndarray, u: tuple[np.ndarray, ...]) -> np.ndarray:
    y, width = np.empty(x.shape), x.shape[1] // s.groups
    for b, group in np.ndindex(x.shape[0], s.groups):
        cut = slice(group * width, (group + 1) * width)
        entries = [float(v) for v in x[b, cut].ravel()]
        mean = math.fsum(entries) / len(entries)
        variance = math.fsum((v - mean) ** 2 for v in entries) / len(entries)
        y[b, cut] = (x[b, cut] - mean) / math.sqrt(variance + s.delta)
    return y


def _flatten(f: Flatten, x: np.ndarray, u: tuple[np.ndarray, ...]) -> np.ndarray:
    return np.array([[float(sample[index]) for index in np.ndindex(*sample.shape)] for sample in x])


_DEFINITIONS: dict[type, Callable[..., np.ndarray]] = {
    Convolution: _convolution,
    Dense: _dense,
    ScaleShift: _scale_shift,
    AveragePool: _pool,
    MaxPool: _pool,
    GlobalAveragePool: _global_pool,
    Standardise: _standardise,
    Flatten: _flatten,
}


def loss_by_loops(loss: Loss, x: np.ndarray, y: np.ndarray) -> list[float]:
    """Φ_s of each sample from its definition."""
    if isinstance(loss, CrossEntropy):
        found = []
        for scores, label in zip(x, y, strict=True):
            total = math.fsum(math.exp(float(v - scores[int(label)])) for v in scores)
            found.append(math.log(total))
        return found
    if isinstance(loss, SquaredLoss):
        return [
            0.5 * math.fsum((float(a) - float(b)) ** 2 for a, b in zip(s.ravel(), t.ravel(), strict=True))
            for s, t in zip(x, y, strict=True)
        ]
    raise TypeError(f"no definition by loops for {type(loss).__name__}: write one in verification/oracles.py")


def batch_loss_by_loops(s: Setting) -> float:
    """L_B = (1/B) Σ_s Φ_s, every stage by loops; the setting on the host."""
    values = loss_by_loops(s.problem.loss, final_state(s, s.controls, s.x, forward_by_loops), s.y)
    return math.fsum(values) / len(values)


def final_state(s: Setting, controls: Controls, x: Any, forward: Any, first: int = 0, before: Any = ()) -> Any:
    """x_L by ``forward``(stage, x, u) from the state x_first = x, the states before it given: the list of what each
    stage reads, taken literally."""
    states = [*before, x]
    for l in range(first, len(s.network.stages)):
        read = [states[i] for i in s.network.reads[l]]
        states.append(forward(s.network.stages[l], read[0] if len(read) == 1 else tuple(read), controls[l]))
    return states[-1]


def penalty_by_loops(r: Regulariser, w: np.ndarray) -> float:
    """r(w), entry by entry or group by group."""
    entries = [float(v) for v in w.ravel()]
    if isinstance(r, Polynomial):
        return math.fsum(r.a0 * (v != 0) + r.a1 * abs(v) + r.a2 * v * v / 2 for v in entries)
    if isinstance(r, LHalf):
        return math.fsum(math.sqrt(abs(v)) for v in entries)
    if isinstance(r, LTwoThirds):
        return math.fsum(math.exp(2 / 3 * math.log(abs(v))) if v else 0.0 for v in entries)
    if isinstance(r, GroupL0):
        groups = np.moveaxis(w, r.axis, 0)
        return r.omega * sum(1 for group in groups if any(float(v) != 0 for v in group.ravel()))
    raise TypeError(f"no definition by loops for {type(r).__name__}: write one in verification/oracles.py")


def objective_by_loops(s: Setting) -> float:
    """J_B(u) = L_B(u) + ρ Σ ω r(u), by loops; the setting on the host."""
    penalty = math.fsum(
        omega * penalty_by_loops(r, u)
        for rs, ws, us in zip(s.problem.regulariser, s.problem.weights, s.controls, strict=True)
        for r, omega, u in zip(rs, ws, us, strict=True)
    )
    return batch_loss_by_loops(s) + s.problem.rho * penalty


# --- derivatives from the forward maps alone --------------------------------------------------------------------------

STEP = 1e-30  # of the complex step: no cancellation, so far below rounding that the error is rounding alone


def mean_loss(s: Setting, controls: Any, x: Any = None) -> Any:
    """L_B from the forward maps, in the arithmetic of its arguments (complex for the complex step)."""
    states = s.network.forward_sweep(controls, s.x if x is None else x)
    values = s.problem.loss.values(states[-1], s.y)
    return sum(complex(v) if np.iscomplexobj(values) else float(v) for v in values) / len(values)


def complex_step(s: Setting, v: Controls) -> float:
    """⟨∇L_B(u), v⟩ = Im L_B(u + ihv)/h; exact up to rounding for analytic networks. The setting on the host."""
    shifted = map_controls(lambda a, b: a + 1j * STEP * b, s.controls, v)
    return float(mean_loss(s, shifted, s.x.astype(complex)).imag) / STEP


def complex_gradient(s: Setting) -> np.ndarray:
    """∇L_B(u) as a vector, entry by entry with the complex step; the setting on the host."""
    found = []
    for unit in units(s.controls):
        found.append(complex_step(s, unit))
    return np.array(found)


def units(controls: Controls) -> Iterator[Controls]:
    """The unit vectors, nested like the controls, in the order of ``to_vector``."""
    zero = map_controls(lambda a: np.zeros(a.shape), controls)
    for l, stage in enumerate(controls):
        for i, a in enumerate(stage):
            for index in np.ndindex(*a.shape):
                e = np.zeros(a.shape)
                e[index] = 1.0
                yield tuple(
                    tuple(e if (m, j) == (l, i) else z for j, z in enumerate(part)) for m, part in enumerate(zero)
                )


def central_difference(f: Callable[[float], float], h: float) -> float:
    """(f(h) − f(−h))/(2h), improved once by Richardson's extrapolation: error O(h⁴)."""
    coarse, fine = (f(h) - f(-h)) / (2 * h), (f(h / 2) - f(-h / 2)) / h
    return fine + (fine - coarse) / 3


# --- exact rationals (T4) ---------------------------------------------------------------------------------------------


def exact_argmax(
    u: Any, g: Any, eps: Any, rho: Any, r: Polynomial, admissible: Admissible, number: type = Fraction
) -> Any:
    """argmax of φ(w) = g w − ρ r(w) − ε(w − u)² over U for a polynomial regulariser; exact for ``number`` Fraction.

    φ is concave on each side of 0, so its maximum lies at the stationary point of a side where that lies in U, at an
    end of U, or at 0. Ties as T4 says: on a box to 0, on a finite set to 0 if 0 is penalised less, then to the value
    closest to u, then to the smallest |v|, then to the smaller v.
    """
    a0, a1, a2, two = (number(a) for a in (r.a0, r.a1, r.a2, 2))
    u, g, eps, rho, zero = number(u), number(g), number(eps), number(rho), number(0)

    def phi(w: Any) -> Any:  # φ(w) − φ(0)
        return w * (g + two * eps * u - eps * w) - rho * (a0 * (w != 0) + a1 * abs(w) + a2 / two * w * w)

    if isinstance(admissible, FiniteSet):
        values = [number(v) for v in admissible.values]
        best = max(phi(v) for v in values)
        tied = [v for v in values if phi(v) == best]
        less = rho > 0 and r.a0 + r.a1 + r.a2 > 0
        return min(tied, key=lambda v: (not (less and v == 0), abs(v - u), abs(v), v))
    assert isinstance(admissible, Box)
    lo = None if math.isinf(admissible.lo) else number(admissible.lo)
    hi = None if math.isinf(admissible.hi) else number(admissible.hi)
    inside = lambda w: (lo is None or lo <= w) and (hi is None or w <= hi)  # noqa: E731
    points = [end for end in (lo, hi) if end is not None]
    points += [zero] if inside(zero) else []
    for side in (1, -1):
        w = (two * eps * u + g - side * rho * a1) / (two * eps + rho * a2)
        if w * side > 0 and inside(w):
            points.append(w)
    best = max(phi(w) for w in points)
    tied = [w for w in points if phi(w) == best]
    return zero if zero in tied else tied[0]


def power_maximum(c: float, lam: float, q: float, lo: float, hi: float) -> tuple[float, float]:
    """(w, gain) of max over [lo, hi] ∋ 0 of w(2c − w) − λ|w|^q, by safeguarded Newton on the derivative; q < 1.

    On the side of c, 2c − 2w − λq w^{q−1} is concave in w with its largest value at w₀ = (λq(1−q)/2)^{1/(2−q)}: no
    stationary point if it is negative there, else the local maximum is its root above w₀.
    """
    side, a = math.copysign(1.0, c), abs(c)
    end = hi if side > 0 else -lo
    gain = lambda w: w * (2 * a - w) - lam * w**q  # noqa: E731
    slope = lambda w: 2 * a - 2 * w - lam * q * w ** (q - 1)  # noqa: E731
    w0 = (lam * q * (1 - q) / 2) ** (1 / (2 - q))
    if slope(w0) <= 0 or w0 >= a:
        return 0.0, 0.0
    low, high = w0, a
    for _ in range(200):  # bisection to the last bit: 60 halvings of a double, the rest is idle
        middle = 0.5 * (low + high)
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    w = min(0.5 * (low + high), end)
    return (side * w, gain(w)) if gain(w) > 0 else (0.0, 0.0)


# --- exhaustive search ------------------------------------------------------------------------------------------------


def all_batches(samples: int, size: int) -> list[tuple[int, ...]]:
    """Every batch of that size drawn without replacement, as index tuples."""
    return list(itertools.combinations(range(samples), size))


# --- PyTorch, where installed -----------------------------------------------------------------------------------------


def torch_available() -> bool:
    """True if PyTorch can be imported."""
    return importlib.util.find_spec("torch") is not None


def torch_gradient(s: Setting) -> np.ndarray:
    """∇L_B(u) as a vector by PyTorch's autograd on the same stages; the setting on the host. Needs PyTorch."""
    import torch

    functional = torch.nn.functional
    controls = map_controls(lambda a: torch.tensor(np.asarray(a), requires_grad=True), s.controls)
    x = final_state(s, controls, torch.tensor(s.x), lambda *at: _torch_stage(torch, functional, *at))
    if isinstance(s.problem.loss, CrossEntropy):
        value = functional.cross_entropy(x, torch.tensor(s.y).long())
    else:
        value = 0.5 * ((x - torch.tensor(s.y)) ** 2).sum() / x.shape[0]
    value.backward()
    return np.concatenate([a.grad.numpy().ravel() for stage in controls for a in stage])


def _torch_stage(torch: Any, functional: Any, stage: Stage, x: Any, u: tuple[Any, ...]) -> Any:
    if isinstance(stage, Pixels):
        channels = [(x[:, c : c + 1] / 255 - m) / s for c, (m, s) in enumerate(zip(stage.mean, stage.std, strict=True))]
        return torch.cat(channels, dim=1)
    if isinstance(stage, WeightedSum):
        return sum(w * a for w, a in zip(stage.weights, x, strict=True))
    bias = u[1] if len(u) > 1 else None
    if isinstance(stage, Convolution):
        w = stage.windows
        return functional.conv2d(x, u[0], bias, w.stride, w.padding, w.dilation, stage.groups)
    if isinstance(stage, Dense):
        return functional.linear(x, u[0], bias)
    if isinstance(stage, ScaleShift):
        shape = (1, -1) + (1,) * (x.ndim - 2)
        return u[0].reshape(shape) * x + (bias.reshape(shape) if bias is not None else 0.0)
    if isinstance(stage, AveragePool):
        w = stage.windows
        return functional.avg_pool2d(x, w.size, w.stride, w.padding, count_include_pad=stage.count_include_pad)
    if isinstance(stage, MaxPool):
        return functional.max_pool2d(x, stage.windows.size, stage.windows.stride, stage.windows.padding)
    if isinstance(stage, GlobalAveragePool):
        return x.mean(dim=(2, 3))
    if isinstance(stage, Standardise):
        return functional.group_norm(x, stage.groups, eps=stage.delta)
    if isinstance(stage, Flatten):
        return x.flatten(1)
    kinds: dict[type, Any] = {
        Tanh: torch.tanh,
        Sigmoid: torch.sigmoid,
        Softplus: functional.softplus,
        SiLU: functional.silu,
        ReLU: torch.relu,
    }
    if type(stage) in kinds:
        return kinds[type(stage)](x)
    return functional.leaky_relu(x, stage.leak)  # type: ignore[attr-defined]
