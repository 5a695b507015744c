"""A model as a PyTorch module: one child for each stage with controls, of PyTorch's own kinds where there is one.

The children are named by stage and kind, ``00_Convolution``; their parameters are ``weight`` and ``bias``, with the
bits and the dtype of the controls. A sparse kernel is stored with its zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pmp_ref.arrays import to_numpy
from pmp_ref.errors import InputError
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
from pmp_ref.model import Model

PLAIN = {Tanh: nn.Tanh, Sigmoid: nn.Sigmoid, SiLU: nn.SiLU, ReLU: nn.ReLU, Flatten: nn.Flatten}


class Network(nn.Module):
    """The network of a model. ``forward`` takes what the model takes, floats or bytes, and gives the scores."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.description = (model.network, model.class_names, model.forms)
        self.names = [f"{l:02}_{type(stage).__name__}" for l, stage in enumerate(model.network.stages)]
        for name, stage, u, shape in zip(
            self.names, model.network.stages, model.controls, model.network.shapes[1:], strict=True
        ):
            self.add_module(name, module_of(stage, [to_numpy(a) for a in u], shape))

    def forward(self, images: Any) -> Any:
        """The scores (N, classes)."""
        network = self.description[0]
        x = images
        if network.takes_bytes and x.dtype != torch.uint8:
            raise InputError(
                f"images are {x.dtype}; expected bytes, torch.uint8: this network standardises them itself"
            )
        if network.takes_bytes:
            x = x.to(next((p.dtype for p in self.parameters()), torch.float32))
        return network.propagate(lambda l, entering: getattr(self, self.names[l])(entering), x, keep=False)[-1]

    def model(self) -> Model:
        """The model with the parameters as they are now: the way back, for instance after ``load_state_dict``."""
        network, class_names, forms = self.description
        controls = []
        for name in self.names:
            own = dict(getattr(self, name).named_parameters())
            controls.append(tuple(own[k].detach().cpu().numpy().copy() for k in ("weight", "bias") if k in own))
        return Model(network, tuple(controls), class_names, forms)


class Scale(nn.Module):
    """k ⊙ x + β by channel."""

    def __init__(self, shape: tuple[int, ...], bias: bool, dtype: torch.dtype) -> None:
        super().__init__()
        channels, *pixels = shape
        self.along = (channels, *(1 for _ in pixels))
        self.weight = nn.Parameter(torch.ones(channels, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(channels, dtype=dtype)) if bias else None

    def forward(self, x: Any) -> Any:
        """As the class says."""
        y = self.weight.reshape(self.along) * x
        return y if self.bias is None else y + self.bias.reshape(self.along)


class Groups(nn.Module):
    """Zero mean and unit variance over groups of channels."""

    def __init__(self, groups: int, delta: float) -> None:
        super().__init__()
        self.groups, self.delta = groups, delta

    def forward(self, x: Any) -> Any:
        """As the class says; layer norm takes a group of one entry, which PyTorch's group norm refuses."""
        y = x.reshape(x.shape[0], self.groups, -1)
        return functional.layer_norm(y, y.shape[2:], eps=self.delta).reshape(x.shape)


class Mean(nn.Module):
    """The mean over all pixels."""

    def forward(self, x: Any) -> Any:
        """As the class says."""
        return x.mean((2, 3))


class Standardised(nn.Module):
    """(x/255 − mean)/std = x/(255 std) − mean/std by channel."""

    def __init__(self, stage: Pixels, axes: int) -> None:
        super().__init__()
        self.axes = axes
        self.scale = [1 / (255 * s) for s in stage.std]
        self.shift = [m / s for m, s in zip(stage.mean, stage.std, strict=True)]

    def forward(self, x: Any) -> Any:
        """As the class says."""
        scale, shift = (x.new_tensor(a).reshape(-1, *(1,) * self.axes) for a in (self.scale, self.shift))
        return x * scale - shift


class Sum(nn.Module):
    """Σ α_j x_j."""

    def __init__(self, weights: tuple[float, ...]) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, states: Any) -> Any:
        """As the class says, of a tuple of states."""
        terms = [x if w == 1 else w * x for w, x in zip(self.weights, states, strict=True)]
        return sum(terms[1:], start=terms[0])


def module_of(stage: Stage, u: list[np.ndarray], shape: tuple[int, ...]) -> nn.Module:
    """The module of one stage with its controls; ``shape`` is that of the state leaving, without the batch.

    Raises InputError for a stage of another package.
    """
    kind: Any = type(stage)
    dtype = torch.from_numpy(u[0][:0].copy()).dtype if u else torch.float32
    made: Any
    if kind in PLAIN:
        return PLAIN[kind]()
    if isinstance(stage, LeakyReLU):
        return nn.LeakyReLU(stage.leak)
    if isinstance(stage, Softplus):
        return nn.Softplus(
            threshold=50
        )  # above it PyTorch takes x for log(1 + eˣ); at 20, its default, float64 shows it
    if isinstance(stage, AveragePool | MaxPool):
        w = stage.windows
        if isinstance(stage, AveragePool):
            return nn.AvgPool2d(w.size, w.stride, w.padding, count_include_pad=stage.count_include_pad)
        return nn.MaxPool2d(w.size, w.stride, w.padding)
    if isinstance(stage, GlobalAveragePool):
        return Mean()
    if isinstance(stage, Standardise):
        return Groups(stage.groups, stage.delta)
    if isinstance(stage, Pixels):
        return Standardised(stage, len(shape) - 1)
    if isinstance(stage, WeightedSum):
        return Sum(stage.weights)
    if isinstance(stage, Convolution):
        w, k = stage.windows, u[0]
        made = nn.Conv2d(
            k.shape[1] * stage.groups,
            k.shape[0],
            w.size,
            w.stride,
            w.padding,
            w.dilation,
            stage.groups,
            stage.bias,
            dtype=dtype,
        )
    elif isinstance(stage, Dense):
        made = nn.Linear(u[0].shape[1], u[0].shape[0], stage.bias, dtype=dtype)
    elif isinstance(stage, ScaleShift):
        made = Scale(shape, stage.bias, dtype)
    else:
        raise InputError(f"the stage {stage} has no counterpart in PyTorch")
    with torch.no_grad():
        for name, a in zip(("weight", "bias"), u, strict=False):
            getattr(made, name).copy_(torch.from_numpy(np.array(a)))
    return made  # type: ignore[no-any-return]
