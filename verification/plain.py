"""The batch sequential quadratic Hamiltonian method in 250 lines of plain NumPy, for reading.

A network is a chain of stages x_{l+1} = Λ_l(x_l, u_l). Its control u, all kernels and biases in one vector, is to
make J(u) = L_B(u) + ρ R(u) small: L_B is the mean of the losses Φ_s over a batch, R(u) = Σ_i ω_i r(u_i). States run
forward, costates backward; where they meet stands the switching function g. The candidate w maximises the augmented
Hamiltonian entry by entry, so that L0 gives exact zeros. It becomes the control if J falls enough, else ε grows.

Symbols are those of docs/notation.md, tags such as T4 those of docs/theory/. The file imports nothing of
``pmp_ref``: claims and conformance vectors compare the two. It leaves out residual blocks, normalisation, max
and padded pooling, |w|^q, groups, finite sets, stops on τ and on the residual, numbers not finite, bad arguments.
"""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy import ndarray as Array

# A stage: Λ(x, u), its costate map ∂_x⟨p, Λ(x, u)⟩ and its switching function ∂_u⟨p, Λ(x, u)⟩ (T1). The first axis
# of x and p are the samples; u is (V, b) or (V,), a kernel with or without bias, or ().
Stage = namedtuple("Stage", "forward costate switching", defaults=[lambda x, u, p: ()])

tanh = Stage(lambda x, u: np.tanh(x), lambda x, u, p: (1 - np.tanh(x) ** 2) * p)
relu = Stage(lambda x, u: np.maximum(x, 0), lambda x, u, p: (x > 0) * p)
flatten = Stage(lambda x, u: x.reshape(len(x), -1), lambda x, u, p: p.reshape(x.shape))
dense = Stage(  # y = V x + b
    forward=lambda x, u: x @ u[0].T + sum(u[1:]),
    costate=lambda x, u, p: p @ u[0],
    switching=lambda x, u, p: (p.T @ x, p.sum(axis=0))[: len(u)],
)


def convolution(*moves: Any) -> Stage:
    """y[o, i, j] = Σ_{c,s,t} V[o, c, s, t] X[c, s, t, i, j] + b[o]; moves: stride, padding, dilation."""

    def seen(x: Array, u: Any) -> tuple[Array, Any]:
        return windows(x, u[0].shape[2:], *moves)

    return Stage(
        forward=lambda x, u: np.einsum("ocst,bcstij->boij", u[0], seen(x, u)[0]) + sum(b[:, None, None] for b in u[1:]),
        costate=lambda x, u, p: seen(x, u)[1](np.einsum("ocst,boij->bcstij", u[0], p)),
        switching=lambda x, u, p: (np.einsum("boij,bcstij->ocst", p, seen(x, u)[0]), p.sum(axis=(0, 2, 3)))[: len(u)],
    )


def average_pool(size: Any, stride: Any) -> Stage:
    """y[c, i, j] is the mean of X[c, s, t, i, j] over the window."""
    return Stage(
        forward=lambda x, u: windows(x, size, stride)[0].mean(axis=(2, 3)),
        costate=lambda x, u, p: windows(x, size, stride)[1](p[:, :, None, None] / math.prod(size)),
    )


def windows(x: Array, size: Any, stride: Any, padding: Any = (0, 0), dilation: Any = (1, 1)) -> tuple[Array, Any]:
    """X[c, s, t, i, j] = z[c, i·stride + s·dilation, j·stride + t·dilation], z the image x between zeros: pixel (s, t)
    of the window at position (i, j). With it the adjoint of x ↦ X."""
    z = np.pad(x, ((0, 0), (0, 0), *((n, n) for n in padding)))
    taps = [d * np.arange(k) for k, d in zip(size, dilation, strict=True)]
    places = [np.arange(0, n - s[-1], h) for n, s, h in zip(z.shape[2:], taps, stride, strict=True)]
    rows, columns = (s[:, None] + i for s, i in zip(taps, places, strict=True))
    pixels: Any = (..., rows[:, None, :, None], columns[None, :, None, :])

    def adjoint(X: Array) -> Array:
        q = np.zeros(z.shape)
        np.add.at(q, pixels, X)
        return q[..., padding[0] : padding[0] + x.shape[2], padding[1] : padding[1] + x.shape[3]]

    return z[pixels], adjoint


def cross_entropy(x: Array, y: Array) -> tuple[Array, Array]:
    """Φ_s = log Σ_k exp(x_k) − x_y and ∇Φ_s = π − e_y, π = softmax(x)."""
    z = x - x.max(axis=1, keepdims=True)
    total, label = np.exp(z).sum(axis=1, keepdims=True), np.arange(x.shape[1]) == y[:, None]
    return np.log(total[:, 0]) - z[label], np.exp(z) / total - label


def squared(x: Array, y: Array) -> tuple[Array, Array]:
    """Φ_s = ½‖x − y‖² and ∇Φ_s = x − y."""
    return ((x - y) ** 2).sum(axis=1) / 2, x - y


@dataclass
class Problem:
    """J of a network, and the admissible controls."""

    stages: list[Stage]
    shapes: list[Any]  # of the controls of each stage
    loss: Callable[[Array, Array], tuple[Array, Array]] = cross_entropy
    rho: float = 0.0
    omega: Any = 1.0  # ω, a number or an entry for each of u
    a: tuple[float, float, float] = (1.0, 0.0, 0.0)  # r(w) = a₀|w|₀ + a₁|w| + (a₂/2) w²
    box: tuple[float, float] = (-math.inf, math.inf)  # where each entry lies

    def by_stage(self, u: Array) -> list[tuple[Array, ...]]:
        """u_0, …, u_{L−1} from the vector u."""
        parts = iter(np.split(u, np.cumsum([math.prod(s) for shapes in self.shapes for s in shapes])))
        return [tuple(next(parts).reshape(s) for s in shapes) for shapes in self.shapes]

    def forward_sweep(self, u: Array, x: Array) -> list[Array]:
        """The states x_0, …, x_L."""
        states = [x]
        for stage, ul in zip(self.stages, self.by_stage(u), strict=True):
            states.append(stage.forward(states[-1], ul))
        return states

    def backward_sweep(self, u: Array, states: list[Array], y: Array) -> tuple[list[Array], Array]:
        """The costates p_L, …, p_0, from p_L = −(1/B)∇Φ_s, and g = −∇L_B(u) (T1)."""
        costates, g = [-self.loss(states[-1], y)[1] / len(y)], list[Array]()
        for stage, x, ul in zip(self.stages[::-1], states[-2::-1], self.by_stage(u)[::-1], strict=True):
            g[:0] = [a.ravel() for a in stage.switching(x, ul, costates[-1])]
            costates.append(stage.costate(x, ul, costates[-1]))
        return costates, np.concatenate(g)

    def r(self, w: Array) -> Array:
        """ω_i r(w_i)."""
        return self.omega * (self.a[0] * (w != 0) + self.a[1] * np.abs(w) + self.a[2] / 2 * w**2)

    def maximiser(self, u: Array, g: Array, eps: Any, rho: float) -> Array:
        """w_i = argmax over [lo, hi] of φ(w) = g_i w − ρω_i r(w) − ε(w − u_i)² (T4). φ is concave on either side of
        0: the stationary point of a side, or the end next to it, is taken where φ is larger than at 0."""
        (lo, hi), (_, a1, a2) = self.box, (rho * self.omega * a for a in self.a)
        right, left = (u + (g - sign * a1 - a2 * u) / (2 * eps + a2) for sign in (1, -1))
        w = np.clip(right, max(lo, 0), max(hi, 0)) + np.clip(left, min(lo, 0), min(hi, 0))
        gain = w * (2 * eps * u + g - eps * w) - rho * self.r(w)  # φ(w) − φ(0)
        return np.where((gain > 0) | (lo > 0) | (hi < 0), w, 0.0)


METHOD: dict[str, Any] = {
    "eps0": 1.0, "eps_min": 1e-8, "eps_max": 1e15, "max_rejections": 200, "zeta": 0.5, "memory": 0.5, "growth": 1.0,
    "theta": 1.2, "sigma_min": 1.1, "sigma": 4.0,  # classic rule: θ = 0, σ_min = σ; constant ε: σ = ∞, ζ = 1 too
    "eta": 1e-6, "eta1": 0.0, "tested": True,  # accept iff −ΔJ ≥ ητ + η₁ΣΔH, where η or η₁ is 0
    "squares": None, "beta": 0.99, "floor": 1e-3, "ceiling": 1e3,  # of the metric: g ↦ g², or its means by layer
    "average": None, "patience": 5, "ramp": (-1.0, 0.0),  # β of the mean of g; ρ grows between these parts of a run
    "band": 1.0, "fall": 0.0, "steps": math.inf, "epochs": math.inf, "batch_size": None, "seed": 0,  # where ρ > 0
}  # fmt: skip


def rejected(M: Any, eps: float, c: float | None) -> float:
    """ε after a rejected trial with Ĉ = c, None where rounding hides it (T8)."""
    return M.sigma * eps if c is None else max(M.sigma_min * eps, M.theta * (c + M.eta))


def accepted(M: Any, eps: float, c: float | None, mean: Any, progress: float, part: float = 0) -> tuple[float, Any]:
    """(ε, C̃) after an accepted trial; ``mean`` is C̃ before it, ``part`` 0 or that of the run which a step is."""
    if c is not None:
        mean = max(c, 0) if mean is None else M.memory * mean + (1 - M.memory) * max(c, 0)
    low = M.theta / (1 - max(0, 2 * progress - 1) * (1 - 1 / M.growth)) * ((mean or 0) + M.eta)
    less = eps * (max(M.zeta, math.exp(-part / M.fall)) if part * M.fall > 0 else M.zeta)
    return (eps if mean is None and M.theta > 0 else max(low, min(eps, max(less, M.band * low)), M.eps_min)), mean


def bsqh(P: Problem, u: Array, x: Array, y: Array, **choices: Any) -> Iterator[SimpleNamespace]:
    """The trials of a run from the control u on images x and labels y; the last one has a status."""
    M = SimpleNamespace(**METHOD | choices | ({} if P.rho > 0 else {"band": 1.0}))
    eps, mean, squares, average = M.eps0, None, 0.0, 0.0
    averaged = returns = step = epoch = position = earlier = 0
    fresh, full, status, states = True, M.batch_size is None, "", list[Array]()
    while not status:
        if fresh:  # a control on a batch; on all data an accepted trial has made the forward sweep
            order = np.arange(len(x)) if full else np.random.default_rng((M.seed, epoch)).permutation(len(x))
            batches = np.array_split(order, 1 if full else math.ceil(len(x) / M.batch_size))
            batch = batches[position]
            progress = min(1, max(step / M.steps, (epoch + position / len(batches)) / M.epochs))
            part = max(1 / M.steps, 1 / (M.epochs * len(batches)))
            rho = P.rho * min(1, max(0, (progress - M.ramp[0]) / (M.ramp[1] - M.ramp[0])))
            states = P.forward_sweep(u, x[batch]) if not states else states
            phi, _ = P.loss(states[-1], y[batch])
            _, g = P.backward_sweep(u, states, y[batch])
            d, use_average, rejections, eps_start = np.ones(u.shape), False, 0, eps
            if M.squares:  # (T17)
                squares = M.beta * squares + (1 - M.beta) * M.squares(g)
                d = np.sqrt(squares)
                d = np.clip(d, M.floor * d.mean(), M.ceiling * d.mean()) if d.any() else 1 + d
                d = d / d.mean()
            if M.average:  # (T13)
                average, averaged, returns = (0, 0, 0) if returns >= M.patience else (average, averaged, returns)
                average, averaged = M.average * average + (1 - M.average) * g, averaged + 1
                use_average = averaged > 1

        # The model is believed for the candidate only. What w is worth is asked of J, on the same batch, at the same ρ.
        w = P.maximiser(u, average / (1 - M.average**averaged) if use_average else g, eps * d, rho)
        states_w = P.forward_sweep(w, x[batch])
        phi_w = P.loss(states_w[-1], y[batch])[0]
        change = rho * (P.r(w) - P.r(u)).sum()
        tau, sum_dh = d @ (w - u) ** 2, g @ (w - u) - change  # τ = ‖w − u‖²_D and ΣΔH (T17, T2)
        delta_j = (phi_w - phi).mean() + change
        c_hat = (delta_j + sum_dh) / tau if tau > 0 else math.nan
        nu = 4 * 2.0**-53 * (np.abs(phi) + np.abs(states[-1]).max(axis=1)).mean()
        known = c_hat / (1 - M.eta1) if abs(delta_j + sum_dh) > 10 * nu else None
        # In this order: a gain below the rounding of ΔJ cannot be seen, and what is not shown to be less is rejected.
        if tau == 0:
            verdict = "control unchanged"
        elif sum_dh <= nu and M.tested:
            verdict = "precision limit"
        elif delta_j <= -M.eta * tau - M.eta1 * sum_dh or not M.tested:  # (T6, T16)
            verdict = "accepted"
        else:
            verdict = "rejected"
        if use_average and verdict != "accepted":
            verdict = "average dropped"  # with an average rejections need not end (T13)
        t = SimpleNamespace(
            verdict=verdict, batch=batch, u=u, g=g, d=d, w=w, eps=eps, rho=rho, tau=tau, sum_dh=sum_dh, c_hat=c_hat,
            delta_j=delta_j, rounding=nu, losses_u=phi, losses=phi_w, penalty_u=P.r(u).sum(), penalty=P.r(w).sum(),
            residual=2 * eps * np.linalg.norm(d * (w - u)), epoch=epoch, position=position, rejections=rejections,
            averaged=use_average, J_u=phi.mean() + rho * P.r(u).sum(), J=phi_w.mean() + rho * P.r(w).sum(),
            kept=sum(np.count_nonzero(ul[0]) for ul in P.by_stage(w) if ul),
        )  # fmt: skip
        # Accepted: on from w. Rejected: u stays, and with a larger ε the next w lies nearer to it (T18).
        ended = ""  # why the batch is left without a step
        if verdict == "accepted":
            if known is None and mean is not None:
                known = min(mean, 11 * nu / tau / (1 - M.eta1))  # Ĉ is at most that, so C̃ may come down
            eps, mean = accepted(M, eps, known, mean, progress, part if rho > 0 else 0)
            u, step, returns = w, step + 1, 0 if use_average else returns
        elif verdict == "average dropped":
            use_average, returns = False, returns + 1
        elif verdict == "rejected":
            eps, rejections = rejected(M, eps, known), rejections + 1
            ended = "augmentation limit" if rejections == M.max_rejections or eps > M.eps_max else ""
        else:
            eps, ended = eps_start, verdict  # rounding, not curvature, has ended this control
        # A control on a batch is left after a step, or when no step can be made there.
        if fresh := (verdict == "accepted" or ended != ""):
            last = position + 1 == len(batches)
            if ended and (full or math.isinf(eps) or (last and step == earlier)):
                status = ended
            states, eps = states_w if full else [], min(eps, M.eps_max)
            position, epoch, earlier = (0, epoch + 1, step) if last else (position + 1, epoch, earlier)
            status = status or ("iteration limit" if step >= M.steps or epoch >= M.epochs else "")
        t.status, t.step, t.after, t.eps_after = status, step, u, eps
        yield t


if __name__ == "__main__":  # python -m verification.plain: L0 on the kernels of a small network, 200 bundled images
    with np.load(Path(__file__).parents[1] / "pmp_ref" / "data" / "mnist_subset.npz", allow_pickle=False) as data:
        x, y = data["train_images"][:200, None] / 255, data["train_labels"][:200]
    stages = [convolution((2, 2)), tanh, average_pool((2, 2), (2, 2)), flatten, dense]
    shapes = [[(6, 1, 5, 5), (6,)], [], [], [], [(10, 216), (10,)]]
    omega = np.repeat([1, 0, 1, 0], [150, 6, 2160, 10])  # biases are not penalised
    u = omega * np.random.default_rng(0).uniform(-0.1, 0.1, omega.size)
    for t in bsqh(Problem(stages, shapes, rho=1e-4, omega=omega), u, x, y, steps=40):
        print(f"step {t.step:2}  J {t.J:.6f}  kept {t.kept:4}  ε {t.eps:9.4g}  {t.verdict} {t.status}")
