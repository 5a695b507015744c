"""The same operations in PyTorch, eager, with automatic differentiation.

Every stage becomes one functional call; standardisation followed by scale-and-shift becomes PyTorch's fused group
normalisation. Losses, gradients and the step are those of the method, so that both sides compute the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from pmp_ref.layers import (
    AveragePool,
    Convolution,
    Dense,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    Merge,
    OnBranch,
    ReLU,
    ScaleShift,
    Split,
    Stage,
    Standardise,
    Tanh,
)
from verification.performance.configurations import EPS, RHO, Case

Parameters = list[tuple[torch.Tensor, ...]]


def stage_map(stage: Stage, x: Any, u: tuple[torch.Tensor, ...], norm: Any) -> Any:
    """One stage; ``norm`` is the standardisation before a scale-and-shift, to be done with it."""
    match stage:
        case Convolution():
            w = stage.windows
            return F.conv2d(x, u[0], u[1] if stage.bias else None, w.stride, w.padding, w.dilation, stage.groups)
        case Dense():
            return F.linear(x, u[0], u[1] if stage.bias else None)
        case ScaleShift():
            return F.group_norm(x, norm.groups, u[0], u[1], norm.delta)
        case Tanh():
            return torch.tanh(x)
        case ReLU():
            return torch.relu(x)
        case AveragePool():
            return F.avg_pool2d(x, stage.windows.size, stage.windows.stride)
        case MaxPool():
            return F.max_pool2d(x, stage.windows.size, stage.windows.stride)
        case GlobalAveragePool():
            return x.mean((2, 3))
        case Flatten():
            return x.flatten(1)
        case Split():
            return (x, x)
        case Merge():
            return x[1] + x[0] if stage.step == 1 else torch.add(x[1], x[0], alpha=stage.step)
    raise NotImplementedError(f"{stage} has no counterpart here")


def final_state(stages: tuple[Stage, ...], controls: Parameters, x: Any) -> Any:
    """x_L of the batch."""
    norm = None
    for stage, u in zip(stages, controls, strict=True):
        inner = stage.stage if isinstance(stage, OnBranch) else stage
        if isinstance(inner, Standardise):
            norm = inner
        elif isinstance(stage, OnBranch):
            new = stage_map(inner, x[stage.branch], u, norm)
            x = (new, x[1]) if stage.branch == 0 else (x[0], new)
        else:
            x = stage_map(stage, x, u, norm)
    return x


def parameters(controls: Any, channels_last: bool, device: str = "cpu") -> Parameters:
    """The controls as tensors."""
    result = []
    for stage in controls:
        tensors = [torch.from_numpy(np.array(a)).to(device) for a in stage]
        if channels_last:
            tensors = [t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t for t in tensors]
        result.append(tuple(t.requires_grad_() for t in tensors))
    return result


def flat(controls: Parameters) -> list[torch.Tensor]:
    """All tensors, stage by stage."""
    return [t for stage in controls for t in stage]


def operation(name: str, case: Case, threads: int, channels_last: bool, device: str = "cpu") -> Callable[[], float]:
    """As :func:`verification.performance.ours.operation`."""
    torch.set_num_threads(threads)
    x, y = torch.from_numpy(case.x).to(device), torch.from_numpy(case.y).to(device)
    if channels_last and x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    stages, u = case.network.stages, parameters(case.controls, channels_last, device)
    penalised = [n == "kernel" for names in case.network.names() for n in names]

    def losses(v: Parameters) -> torch.Tensor:
        return F.cross_entropy(final_state(stages, v, x), y, reduction="none")

    def gradient(phi: torch.Tensor, v: Parameters) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(phi.mean(), flat(v))

    def forward_backward() -> float:
        phi = losses(u)
        gradient(phi, u)
        return float(phi.detach().double().mean())

    def maximised(g: tuple[torch.Tensor, ...]) -> Parameters:
        """The pointwise maximiser for L0 on penalised arrays: u − ∇L/(2ε), or 0 where that is worth more."""
        with torch.no_grad():
            new = []
            for t, d, kernel in zip(flat(u), g, penalised, strict=True):
                c = t - d / (2 * EPS)
                new.append(torch.where(c * c > RHO / EPS, c, torch.zeros_like(c)) if kernel else c)
        tensors = iter(new)
        return [tuple(next(tensors).requires_grad_() for _ in stage) for stage in u]

    def judged(v: Parameters, g: tuple[torch.Tensor, ...], phi: torch.Tensor, trial: torch.Tensor) -> float:
        """The scalars of the acceptance test."""
        with torch.no_grad():
            delta = [(b - a).double() for a, b in zip(flat(u), flat(v), strict=True)]
            numbers = [
                (trial.double() - phi.double()).mean(),
                sum((-d.double() * e).sum() for d, e in zip(g, delta, strict=True)),
                sum((e * e).sum() for e in delta),
                sum(torch.count_nonzero(t) for t, kernel in zip(flat(v), penalised, strict=True) if kernel),
                trial.double().mean(),
            ]
        return [float(n) for n in numbers][-1]

    if name == "forward_backward":
        return forward_backward

    def mini_batch_step() -> float:
        phi = losses(u)
        g = gradient(phi, u)
        v = maximised(g)
        with torch.no_grad():
            trial = losses(v)
        return judged(v, g, phi, trial)

    if name == "mini_batch_step":
        return mini_batch_step
    phi = losses(u)
    g = gradient(phi, u)
    phi = phi.detach()

    def full_batch_step() -> float:
        v = maximised(g)
        trial = losses(v)  # the trial keeps what its backward sweep needs
        loss = judged(v, g, phi, trial)
        gradient(trial, v)
        return loss

    return full_batch_step


def switching_norms(case: Case, threads: int) -> list[float]:
    """‖∇_l L‖ of each control."""
    torch.set_num_threads(threads)
    u = parameters(case.controls, False)
    x, y = torch.from_numpy(case.x), torch.from_numpy(case.y)
    g = torch.autograd.grad(F.cross_entropy(final_state(case.network.stages, u, x), y), flat(u))
    return [float(d.double().norm()) for d in g]
