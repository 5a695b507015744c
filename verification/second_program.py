"""A second program that computes what a proof encloses: networks over other numbers than NumPy's.

It shares no code with ``pmp_ref``. A network comes as plain JSON, as the files of a proof hold it: class names and
fields of its stages, and for each stage the states that it reads. States are arrays of Python objects, and every sum
is written out. The numbers are either Arb's balls (``python-flint``, which the extra ``proof`` installs), with
rigorous error bounds of their own, or decimal numbers of 60 digits, which every Python has: they err by 10⁻⁵⁰ where a
proof in double precision speaks of 10⁻¹².
"""

from __future__ import annotations

import decimal
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray
Stage = dict[str, Any]


class Decimals:
    """Decimal numbers of 60 digits."""

    def __init__(self, digits: int = 60) -> None:
        self.context = decimal.Context(prec=digits, Emax=10**9, Emin=-(10**9))
        decimal.setcontext(self.context)

    def of(self, x: Any) -> Any:
        """A floating point number, exactly."""
        return decimal.Decimal(float(x))

    def exp(self, x: Any) -> Any:
        """e^x."""
        return x.exp()

    def log(self, x: Any) -> Any:
        """ln x."""
        return x.ln()

    def sqrt(self, x: Any) -> Any:
        """√x."""
        return x.sqrt()

    def tanh(self, x: Any) -> Any:
        """(1 − e^{−2|x|})/(1 + e^{−2|x|}) with the sign of x."""
        e = (-2 * abs(x)).exp()
        return (1 - e) / (1 + e) if x >= 0 else (e - 1) / (1 + e)

    def above(self, x: Any, y: Any) -> bool | None:
        """x > y; None where it is not known."""
        return bool(x > y)

    def part(self) -> Any:
        """Anything from 0 to 1."""
        raise AssertionError("decimal comparisons are always decided")

    def product(self, a: Array, b: Array) -> Array:
        """The product of two matrices."""
        return np.asarray(a.dot(b))


class Balls:
    """Arb's balls."""

    def __init__(self, bits: int = 128) -> None:
        import flint

        flint.ctx.prec = bits
        self.arb, self.matrix = flint.arb, flint.arb_mat

    def of(self, x: Any) -> Any:
        """A floating point number, exactly."""
        return self.arb(float(x))

    def exp(self, x: Any) -> Any:
        """e^x."""
        return x.exp()

    def log(self, x: Any) -> Any:
        """ln x."""
        return x.log()

    def sqrt(self, x: Any) -> Any:
        """√x."""
        return x.sqrt()

    def tanh(self, x: Any) -> Any:
        """tanh x."""
        return x.tanh()

    def above(self, x: Any, y: Any) -> bool | None:
        """x > y; None where the balls overlap."""
        return True if x > y else False if x <= y else None

    def part(self) -> Any:
        """Anything from 0 to 1."""
        return self.arb(0.5, 0.5)

    def product(self, a: Array, b: Array) -> Array:
        """The product of two matrices, by Arb."""
        found = self.matrix(a.tolist()) * self.matrix(b.tolist())
        result = np.empty((a.shape[0], b.shape[1]), object)
        result.reshape(-1)[:] = found.entries()
        return result


Numbers = Decimals | Balls


def each(f: Callable[[Any], Any], x: Array) -> Array:
    """f entry by entry."""
    result = np.empty(x.shape, object)
    result.reshape(-1)[:] = [f(a) for a in x.reshape(-1)]
    return result


def objects(n: Numbers, a: Any) -> Array:
    """An array of floating point numbers as numbers of the second program."""
    return each(n.of, np.asarray(a))


def zeros(n: Numbers, shape: Any) -> Array:
    """Zeros."""
    return objects(n, np.zeros(shape))


# --- windows ----------------------------------------------------------------------------------------------------------


def pair(value: Any) -> tuple[int, int]:
    """(rows, columns)."""
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


def windows(stage: Stage, shape: Any) -> Any:
    """(row, column, place in the padded image) for every position of a window; the padding."""
    size = pair(stage["size"])
    pool = stage["kind"] != "Convolution"
    stride = size if pool and stage["stride"] is None else pair(stage["stride"])
    padding, dilation = (pair(stage.get(name, default)) for name, default in (("padding", 0), ("dilation", 1)))
    counts = [
        (length + 2 * padding[a] - dilation[a] * (size[a] - 1) - 1) // stride[a] + 1 for a, length in enumerate(shape)
    ]

    def span(a: int, o: int) -> slice:
        first = o * stride[a]
        return slice(first, first + dilation[a] * (size[a] - 1) + 1, dilation[a])

    places = [(r, c, span(0, r), span(1, c)) for r in range(counts[0]) for c in range(counts[1])]
    return places, padding, tuple(counts)


def padded(n: Numbers, x: Array, padding: tuple[int, int]) -> Array:
    """Zeros around an image."""
    h, w = padding
    big = zeros(n, (x.shape[0], x.shape[1] + 2 * h, x.shape[2] + 2 * w))
    big[:, h : h + x.shape[1], w : w + x.shape[2]] = x
    return big


def cropped(big: Array, padding: tuple[int, int]) -> Array:
    """And off again."""
    h, w = padding
    return big[:, h : big.shape[1] - h, w : big.shape[2] - w]


# --- stages: value, and (costate, switching functions) ----------------------------------------------------------------


def columns(big: Array, places: Any, here: slice) -> Array:
    """What each window of a group sees, one column for a position."""
    return np.stack([big[here, i, j].reshape(-1) for _, _, i, j in places], axis=1)


def convolution(n: Numbers, s: Stage, x: Array, u: Any) -> Array:
    """Σ over taps and channels of one group, plus bias."""
    places, padding, counts = windows(s, x.shape[1:])
    big, k, groups = padded(n, x, padding), u[0], s["groups"]
    per, inner = k.shape[0] // groups, x.shape[0] // groups
    y = np.empty((k.shape[0], *counts), object)
    for g in range(groups):
        rows, own = k[g * per : (g + 1) * per].reshape(per, -1), slice(g * inner, (g + 1) * inner)
        y[g * per : (g + 1) * per] = n.product(rows, columns(big, places, own)).reshape(per, *counts)
    return y + u[1][:, None, None] if s["bias"] else y


def convolution_back(n: Numbers, s: Stage, x: Array, u: Any, p: Array) -> Any:
    """The adjoints of the sums above."""
    places, padding, _ = windows(s, x.shape[1:])
    big, k, groups = padded(n, x, padding), u[0], s["groups"]
    per, inner = k.shape[0] // groups, x.shape[0] // groups
    q, g_k = zeros(n, big.shape), np.empty(k.shape, object)
    for g in range(groups):
        own, here = slice(g * per, (g + 1) * per), slice(g * inner, (g + 1) * inner)
        pull, z = p[own].reshape(per, -1), columns(big, places, here)
        g_k[own] = n.product(pull, z.T).reshape(g_k[own].shape)
        parts = n.product(k[own].reshape(per, -1).T, pull)
        for place, (_, _, i, j) in enumerate(places):
            q[here, i, j] += parts[:, place].reshape(q[here, i, j].shape)
    switching = (g_k, p.sum(axis=(1, 2))) if s["bias"] else (g_k,)
    return cropped(q, padding), switching


def dense(n: Numbers, s: Stage, x: Array, u: Any) -> Array:
    """K x + b."""
    y = n.product(u[0], x[:, None])[:, 0]
    return y + u[1] if s["bias"] else y


def dense_back(n: Numbers, s: Stage, x: Array, u: Any, p: Array) -> Any:
    """Kᵀp; p xᵀ, p."""
    g = np.multiply.outer(p, x)
    return n.product(p[None], u[0])[0], (g, p) if s["bias"] else (g,)


def spread(a: Array, x: Array) -> Array:
    """A vector over channels, along the other axes."""
    return a.reshape(-1, *(1,) * (x.ndim - 1))


def scale_shift(n: Numbers, s: Stage, x: Array, u: Any) -> Array:
    """k_c x_c + b_c."""
    y = spread(u[0], x) * x
    return y + spread(u[1], x) if s["bias"] else y


def scale_shift_back(n: Numbers, s: Stage, x: Array, u: Any, p: Array) -> Any:
    """k p; Σ x p, Σ p over the pixels of a channel."""
    over = lambda a: a.reshape(a.shape[0], -1).sum(axis=1)  # noqa: E731
    return spread(u[0], p) * p, (over(x * p), over(p)) if s["bias"] else (over(x * p),)


def logistic(n: Numbers, z: Any) -> Any:
    """1/(1 + e^{−z})."""
    return 1 / (1 + n.exp(-z))


def kinked(n: Numbers, z: Any, leak: Any) -> tuple[Any, Any]:
    """max(z, az) by its definition, and its slope; anything in between where the sign of z is not known."""
    positive = n.above(z, n.of(0.0))
    slope = n.of(1.0) if positive else leak
    if positive is None:
        slope = leak + (1 - leak) * n.part()
    return slope * z, slope


def curve(n: Numbers, s: Stage, z: Any) -> tuple[Any, Any]:
    """σ(z) and σ′(z)."""
    kind = s["kind"]
    if kind == "Tanh":
        t = n.tanh(z)
        return t, 1 - t * t
    if kind in ("ReLU", "LeakyReLU"):
        return kinked(n, z, n.of(s["leak"]))
    l = logistic(n, z)
    if kind == "Sigmoid":
        return l, l * (1 - l)
    if kind == "Softplus":
        return n.log(1 + n.exp(z)), l
    assert kind == "SiLU", kind
    return z * l, l + z * l * (1 - l)


def activation(n: Numbers, s: Stage, x: Array, u: Any) -> Array:
    """σ entry by entry."""
    return each(lambda z: curve(n, s, z)[0], x)


def activation_back(n: Numbers, s: Stage, x: Array, u: Any, p: Array) -> Any:
    """σ′ p."""
    return each(lambda z: curve(n, s, z)[1], x) * p, ()


def average(n: Numbers, s: Stage, x: Array, u: Any) -> Array:
    """The mean of each window."""
    places, padding, counts = windows(s, x.shape[1:])
    big = padded(n, x, padding)
    inside = on_image(big, padding)
    y = np.empty((x.shape[0], *counts), object)
    for r, c, i, j in places:
        patch = big[:, i, j].reshape(x.shape[0], -1)
        y[:, r, c] = patch.sum(axis=1) / entries(s, inside[i, j])
    return y


def on_image(big: Array, padding: tuple[int, int]) -> Any:
    """True on the image, False on the padding around it."""
    inside = np.zeros(big.shape[1:], bool)
    cropped(inside[None], padding)[...] = True
    return inside


def entries(s: Stage, inside: Any) -> int:
    """How many entries a mean is over: all of the window, or its pixels alone."""
    return int(inside.size if s.get("count_include_pad", True) else inside.sum())


def average_back(n: Numbers, s: Stage, x: Array, u: Any, p: Array) -> Any:
    """p/n at every entry of the window."""
    places, padding, _ = windows(s, x.shape[1:])
    big = padded(n, x, padding)
    inside, q = on_image(big, padding), zeros(n, big.shape)
    for r, c, i, j in places:
        patch = q[:, i, j]
        patch += (p[:, r, c] / entries(s, inside[i, j]))[:, None, None]
    return cropped(q, padding), ()


def candidates(n: Numbers, patch: list[Any]) -> list[int]:
    """Which entries may be the largest; the first of equal ones where that is decided."""
    best = 0
    for i, a in enumerate(patch):
        if n.above(a, patch[best]):
            best = i
    undecided = [i for i, a in enumerate(patch) if i != best and n.above(a, patch[best]) is None]
    return [best, *undecided]


def maximum(n: Numbers, s: Stage, x: Array, u: Any) -> Array:
    """The largest entry of each window."""
    places, padding, counts = windows(s, x.shape[1:])
    big = padded(n, x, padding)
    inside = on_image(big, padding)
    y = np.empty((x.shape[0], *counts), object)
    for r, c, i, j in places:
        for channel in range(x.shape[0]):
            patch = list(big[channel, i, j][inside[i, j]])
            top, *others = candidates(n, patch)
            value = patch[top]
            for other in others:
                value = value.max(patch[other])
            y[channel, r, c] = value
    return y


def maximum_back(n: Numbers, s: Stage, x: Array, u: Any, p: Array) -> Any:
    """p at the largest entry; a part of it at each where several may be."""
    places, padding, _ = windows(s, x.shape[1:])
    big = padded(n, x, padding)
    inside, q = on_image(big, padding), zeros(n, big.shape)
    for r, c, i, j in places:
        own = np.argwhere(inside[i, j])
        for channel in range(x.shape[0]):
            here = q[channel, i, j]
            chosen = candidates(n, list(big[channel, i, j][inside[i, j]]))
            share = p[channel, r, c] if len(chosen) == 1 else p[channel, r, c] * n.part()
            for place in chosen:
                here[tuple(own[place])] += share
    return cropped(q, padding), ()


def global_average(n: Numbers, s: Stage, x: Array, u: Any) -> Array:
    """The mean of each channel."""
    flat = x.reshape(x.shape[0], -1)
    return flat.sum(axis=1) / flat.shape[1]


def global_average_back(n: Numbers, s: Stage, x: Array, u: Any, p: Array) -> Any:
    """p/n at every pixel."""
    share = p / (x.shape[1] * x.shape[2])
    return zeros(n, x.shape) + share[:, None, None], ()


def standardise(n: Numbers, s: Stage, x: Array, u: Any) -> Array:
    """(x − m)/√(m((x − m)²) + δ) over each group of channels."""
    return np.concatenate([parts[0] for parts in standardised(n, s, x)]).reshape(x.shape)


def standardised(n: Numbers, s: Stage, x: Array) -> list[tuple[Array, Any]]:
    """(y, deviation) of each group, flat."""
    found = []
    for group in x.reshape(s["groups"], -1):
        centred = group - group.sum() / group.size
        deviation = n.sqrt((centred * centred).sum() / group.size + n.of(s["delta"]))
        found.append((centred / deviation, deviation))
    return found


def standardise_back(n: Numbers, s: Stage, x: Array, u: Any, p: Array) -> Any:
    """(p − m(p) − y m(yp))/s, group by group."""
    parts = []
    for (y, deviation), a in zip(standardised(n, s, x), p.reshape(s["groups"], -1), strict=True):
        parts.append((a - a.sum() / a.size - y * ((y * a).sum() / a.size)) / deviation)
    return np.concatenate(parts).reshape(x.shape), ()


def pixels(n: Numbers, s: Stage, x: Array, u: Any) -> Array:
    """(x_c/255 − m_c)/s_c."""
    mean, std = (spread(objects(n, s[name]), x) for name in ("mean", "std"))
    return (x / 255 - mean) / std


def pixels_back(n: Numbers, s: Stage, x: Array, u: Any, p: Array) -> Any:
    """p_c/(255 s_c)."""
    return p / (255 * spread(objects(n, s["std"]), x)), ()


def flatten(n: Numbers, s: Stage, x: Array, u: Any) -> Array:
    """One axis."""
    return x.reshape(-1)


def flatten_back(n: Numbers, s: Stage, x: Array, u: Any, p: Array) -> Any:
    """And back."""
    return p.reshape(x.shape), ()


def weighted_sum(n: Numbers, s: Stage, x: list[Array], u: Any) -> Array:
    """Σ α_j x_j."""
    total = n.of(s["weights"][0]) * x[0]
    for alpha, a in zip(s["weights"][1:], x[1:], strict=True):
        total = total + n.of(alpha) * a
    return total


def weighted_sum_back(n: Numbers, s: Stage, x: list[Array], u: Any, p: Array) -> Any:
    """α_j p for each state."""
    return [n.of(alpha) * p for alpha in s["weights"]], ()


VALUE: dict[str, Any] = {
    "Convolution": convolution,
    "Dense": dense,
    "ScaleShift": scale_shift,
    "AveragePool": average,
    "MaxPool": maximum,
    "GlobalAveragePool": global_average,
    "Standardise": standardise,
    "Flatten": flatten,
    "Pixels": pixels,
    "WeightedSum": weighted_sum,
} | {name: activation for name in ("Tanh", "Sigmoid", "Softplus", "SiLU", "ReLU", "LeakyReLU")}
BACK: dict[str, Any] = {
    "Convolution": convolution_back,
    "Dense": dense_back,
    "ScaleShift": scale_shift_back,
    "AveragePool": average_back,
    "MaxPool": maximum_back,
    "GlobalAveragePool": global_average_back,
    "Standardise": standardise_back,
    "Flatten": flatten_back,
    "Pixels": pixels_back,
    "WeightedSum": weighted_sum_back,
} | {name: activation_back for name in ("Tanh", "Sigmoid", "Softplus", "SiLU", "ReLU", "LeakyReLU")}


def value(n: Numbers, s: Stage, x: Any, u: Any) -> Any:
    """The state behind a stage."""
    return VALUE[s["kind"]](n, s, x, u)


def back(n: Numbers, s: Stage, x: Any, u: Any, p: Any) -> Any:
    """(costate before the stage, or a list of them where it reads several states; switching functions)."""
    return BACK[s["kind"]](n, s, x, u, p)


# --- loss and sweep ---------------------------------------------------------------------------------------------------


def terminal(n: Numbers, loss: str, x: Array, y: Any) -> tuple[Any, Array]:
    """Φ and ∇Φ."""
    if loss == "SquaredLoss":
        d = x - objects(n, y)
        return (d * d).sum() / 2, d
    assert loss == "CrossEntropy", loss
    shift = max(float(a) for a in x)
    e = each(lambda a: n.exp(a - n.of(shift)), x)
    total = e.sum()
    gradient = e / total
    gradient[int(y)] = gradient[int(y)] - 1
    return n.log(total) + n.of(shift) - x[int(y)], gradient


def entering(states: list[Any], read: list[int]) -> Any:
    """What a stage reads: a state, or a list of several."""
    return states[read[0]] if len(read) == 1 else [states[i] for i in read]


def sweep(
    n: Numbers, stages: list[Stage], reads: list[list[int]], loss: str, u: Any, x: Array, y: Any, backward: bool
) -> tuple[Any, Any]:
    """Φ of one sample, and the derivative of −Φ by every control (None unless asked for).

    ``reads[l]`` are the states that stage l reads; x is state 0, and stage l makes state l + 1.
    """
    states: list[Any] = [objects(n, x)]
    for s, read, ul in zip(stages, reads, u, strict=True):
        states.append(value(n, s, entering(states, read), ul))
    phi, gradient = terminal(n, loss, states[-1], y)
    if not backward:
        return phi, None
    costates: list[Any] = [None] * len(stages) + [-gradient]
    g: list[Any] = [()] * len(stages)
    for l in range(len(stages) - 1, -1, -1):
        read = reads[l]
        q, g[l] = back(n, stages[l], entering(states, read), u[l], costates[l + 1])
        for i, part in zip(read, [q] if len(read) == 1 else q, strict=True):
            costates[i] = part if costates[i] is None else costates[i] + part
    return phi, g
