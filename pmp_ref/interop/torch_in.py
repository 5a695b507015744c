"""A PyTorch module as a model: ``torch.fx`` gives the graph, and each call in it becomes a stage, or part of one.

A rule is a function with the parameter names of the PyTorch function that it stands for, so that Python itself binds
what is given by position and by name. Modules of PyTorch's own are called as their functions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from pmp_ref.errors import InputError
from pmp_ref.interop.assembly import NONE, Assembly, Value
from pmp_ref.interop.torch_out import Network
from pmp_ref.layers import AveragePool, LeakyReLU, MaxPool, ReLU, Sigmoid, SiLU, Softplus, Stage, Tanh
from pmp_ref.model import Model, _check, behind_pixels

ALLOWED = {np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-8}
# Of the largest output: rounding, in other orders; in float64 PyTorch's softplus, which is x from 20 on (2e-9).
BATCH = "the length of the batch"  # stands for it: a forward that computes with it fails


def read(module: Any, example: Any, names: Any, mean: Any, std: Any) -> Model:
    """The model of a module, see :func:`pmp_ref.interop.from_torch`."""
    if isinstance(module, Network):
        if names or mean or std:
            raise InputError(
                "the module was made by to_torch and has its own class names, mean and std: leave them out"
            )
        return module.model()
    if not isinstance(module, nn.Module) or not isinstance(example, torch.Tensor) or example.ndim < 2:
        raise InputError(
            f"from_torch got a {type(module).__name__} and a {type(example).__name__}; expected a torch.nn.Module and "
            "a tensor, a batch as the module takes it"
        )
    module = copy.deepcopy(module).eval()
    try:
        traced = fx.symbolic_trace(module)
    except Exception as error:  # whatever the forward of a user raises on placeholders
        said = " ".join(str(error).split())[:150]
        raise InputError(
            f"torch.fx cannot trace {type(module).__name__} ({said}): take what depends on values out of forward, or "
            "write it with torch.onnx.export and read the file with from_onnx"
        ) from None
    model = Reader(traced, tuple(example.shape[1:])).model(names)
    _check(model, type(module).__name__)
    compare(module, model, example)
    return behind_pixels(model, mean, std) if mean or std else model


def compare(module: Any, model: Model, example: Any) -> None:
    """InputError if module and model give other outputs on the example than rounding explains."""
    try:
        with torch.no_grad():
            theirs = module(example).cpu().numpy()
    except Exception as error:  # whatever the forward of a user raises
        said = " ".join(str(error).split())[:150]
        raise InputError(
            f"{type(module).__name__} does not take the example ({said}): give a batch that it takes"
        ) from None
    ours = model.outputs(example.detach().cpu().numpy())
    scale = max(1.0, float(np.max(np.abs(theirs))))
    difference = float(np.max(np.abs(ours - theirs))) if ours.shape == theirs.shape else np.inf
    allowed = ALLOWED[np.dtype(model.dtype)] * scale
    if not difference <= allowed:
        raise InputError(
            f"the outputs on the example differ by {difference:.3g}, allowed {allowed:.3g}: please report this"
        )


class Reader:
    """Values and other results by the nodes of the graph."""

    def __init__(self, traced: fx.GraphModule, shape: tuple[int, ...]) -> None:
        self.traced, self.assembly = traced, Assembly(shape)

    def model(self, names: Any) -> Model:
        """The model, once every node is taken."""
        results: dict[fx.Node, Any] = {}
        inputs = [node for node in self.traced.graph.nodes if node.op == "placeholder"]
        if len(inputs) != 1:
            raise InputError(f"forward has {len(inputs)} arguments; expected one, the images")
        for node in self.traced.graph.nodes:
            if node.op == "placeholder":
                results[node] = self.assembly.value(0)
                continue
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), results.__getitem__)
            if node.op == "output":
                if not isinstance(args[0], Value):
                    raise InputError("forward returns something else than one tensor that depends on the images")
                return self.assembly.model(args[0], False, names)
            kind = self.operator(node)
            try:
                results[node] = self.take(node, args, kwargs)
            except InputError as error:
                raise InputError(f"node {node.name!r} ({kind}): {error}") from None
            except (TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
                said = " ".join(str(error).split())[:150]
                raise InputError(f"node {node.name!r} ({kind}): its arguments are not understood ({said})") from None
        raise InputError("forward returns nothing")

    def operator(self, node: fx.Node) -> str:
        """What a node calls, in words."""
        if node.op == "call_module":
            return type(self.traced.get_submodule(str(node.target))).__name__
        return str(getattr(node.target, "__name__", node.target))

    def take(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        """The result of one node."""
        name = self.operator(node)
        if node.op == "get_attr":
            return array(getattr_path(self.traced, str(node.target)))
        if node.op == "call_module":
            if name not in MODULES:
                raise InputError(f"no stage does this; known: {', '.join(sorted(MODULES))}")
            return MODULES[name](self.assembly, self.traced.get_submodule(str(node.target)), *args, **kwargs)
        name = name.strip("_").removeprefix("i") if name in ("iadd", "isub", "imul", "itruediv") else name.rstrip("_")
        if not any(isinstance(a, Value) for a in flat((args, kwargs))):
            return by_itself(node, args, kwargs)
        if name not in FUNCTIONS:
            raise InputError(f"no stage does this; known: {', '.join(sorted(FUNCTIONS))}")
        return FUNCTIONS[name](self.assembly, *args, **kwargs)


def flat(nested: Any) -> list[Any]:
    """The leaves of nested tuples, lists and dictionaries."""
    if isinstance(nested, dict):
        return flat(list(nested.values()))
    return [leaf for part in nested for leaf in flat(part)] if isinstance(nested, list | tuple) else [nested]


def by_itself(node: fx.Node, args: Any, kwargs: Any) -> Any:
    """What does not depend on the images is computed as PyTorch does; arrays go in and come out."""
    if any(isinstance(a, str) and a == BATCH for a in flat((args, kwargs))) and node.op == "call_function":
        if getattr(node.target, "__name__", "") == "getitem":
            return args[0][args[1]]
        raise InputError("it computes with the length of the batch; expected -1 or x.shape[0] itself")
    tensors = fx.node.map_aggregate((args, kwargs), lambda a: torch.from_numpy(a) if isinstance(a, np.ndarray) else a)
    (first, *rest), named = tensors
    target: Any = node.target
    result = getattr(first, target)(*rest, **named) if node.op == "call_method" else target(first, *rest, **named)
    return array(result) if isinstance(result, torch.Tensor) else result


def getattr_path(module: Any, path: str) -> Any:
    """A parameter or buffer by its dotted name."""
    for name in path.split("."):
        module = getattr(module, name)
    return module


def array(tensor: Any) -> Any:
    """A tensor as an array of its own; None and numbers as they are."""
    return tensor.detach().cpu().numpy().copy() if isinstance(tensor, torch.Tensor) else tensor


def two(value: Any) -> tuple[int, int]:
    """A number, or a pair of them, as a pair."""
    a, b = value if isinstance(value, tuple | list) else (value, value)
    return int(a), int(b)


# Functions, with PyTorch's own names of parameters


def conv2d(
    a: Assembly,
    input: Value,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    """As torch.nn.functional.conv2d."""
    dilation = two(dilation)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        pads = (*(n // 2 for n in total), *(n - n // 2 for n in total))
    else:
        pads = NONE if padding == "valid" else (*two(padding), *two(padding))
    return a.convolution(input, weight, bias, two(stride), pads, dilation, groups)


def linear(a: Assembly, input: Value, weight: Any, bias: Any = None) -> Value:
    """As torch.nn.functional.linear."""
    return a.dense(input, weight, bias)


def pooling(kind: Any) -> Callable[..., Value]:
    """Average and maximum over windows."""

    def windows(a: Assembly, input: Value, size: Any, stride: Any, padding: Any, ceil: bool, **more: Any) -> Value:
        stride = size if stride in (None, [], ()) else stride
        return a.pooled(kind, input, two(size), two(stride), 2 * two(padding), ceil, **more)

    def average(
        a: Assembly,
        input: Value,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: Any = None,
    ) -> Value:
        if divisor_override is not None:
            raise InputError("divisor_override is given; expected the mean")
        more = {"count_include_pad": bool(count_include_pad)}
        return windows(a, input, kernel_size, stride, padding, ceil_mode, **more)

    def largest(
        a: Assembly,
        input: Value,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Value:
        if two(dilation) != (1, 1) or return_indices:
            raise InputError("it has a dilation, or returns indices; expected the maximum over plain windows")
        return windows(a, input, kernel_size, stride, padding, ceil_mode)

    return average if kind is AveragePool else largest


def adaptive_avg_pool2d(a: Assembly, input: Value, output_size: Any) -> Value:
    """As torch.nn.functional.adaptive_avg_pool2d, where all windows are alike."""
    rows, columns = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
    _, height, width = input.shape
    size = (rows or height, columns or width)
    if size == (1, 1):
        return a.mean(input, (1, 2), True)
    if height % size[0] or width % size[1]:
        raise InputError(f"it makes {size} windows of {height} × {width} pixels; expected numbers that divide")
    windows = (height // size[0], width // size[1])
    return a.pooled(AveragePool, input, windows, windows, NONE, False)


def batch_norm(
    a: Assembly,
    input: Value,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Value:
    """As torch.nn.functional.batch_norm in inference."""
    if training or running_mean is None or running_var is None:
        raise InputError("it takes mean and variance of the batch; expected running statistics, in inference")
    return a.batch_norm(input, weight, bias, running_mean, running_var, eps)


def group_norm(
    a: Assembly, input: Value, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Value:
    """As torch.nn.functional.group_norm."""
    y = a.standardised(input.reshaped((num_groups, -1)), eps).reshaped(input.shape)
    if weight is None:
        return y if bias is None else a.shifted(y, along(bias, y))
    return a.scale_shift(y, weight, np.zeros_like(weight) if bias is None else bias)


def layer_norm(
    a: Assembly, input: Value, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Value:
    """As torch.nn.functional.layer_norm over each sample, or over each entry of its first axis."""
    axes = len(normalized_shape)
    groups = prod(input.shape[: len(input.shape) - axes])
    y = a.standardised(input.reshaped((groups, -1)), eps).reshaped(input.shape)
    y = y if weight is None else a.scaled(y, weight)
    return y if bias is None else a.shifted(y, bias)


def along(b: np.ndarray, x: Value) -> np.ndarray:
    """A vector along the first axis of a sample."""
    return b.reshape((-1, *(1,) * (len(x.shape) - 1)))


def constant(b: Any, x: Value, a: Assembly) -> np.ndarray:
    """What is combined with a value, without the axis of the batch."""
    b = np.asarray(b, a.dtype()) if isinstance(b, int | float) else b
    if not isinstance(b, np.ndarray) or (b.ndim > len(x.shape) and b.shape[0] != 1):
        raise InputError("its constant differs from sample to sample, or is no tensor")
    return b[0] if b.ndim > len(x.shape) else b


def add(a: Assembly, input: Any, other: Any, alpha: float = 1) -> Value:
    """As torch.add."""
    if isinstance(other, Value):
        other = replace(other, factor=other.factor * alpha)
        return a.sum([input, other]) if isinstance(input, Value) else a.shifted(other, constant(input, other, a))
    if alpha != 1:
        raise InputError("alpha multiplies a constant; expected the constant itself")
    return a.shifted(input, constant(other, input, a))


def sub(a: Assembly, input: Any, other: Any, alpha: float = 1) -> Value:
    """As torch.sub."""
    return add(a, input, replace(other, factor=-other.factor) if isinstance(other, Value) else -other, alpha)


def mul(a: Assembly, input: Any, other: Any) -> Value:
    """As torch.mul, by a constant, or x times the sigmoid of x."""
    if isinstance(input, Value) and isinstance(other, Value):
        return a.product(input, other)
    x, b = (input, other) if isinstance(input, Value) else (other, input)
    return a.scaled(x, constant(b, x, a))


def divided(a: Assembly, input: Any, other: Any) -> Value:
    """As torch.div by a constant."""
    if not isinstance(input, Value) or isinstance(other, Value) or not np.all(other):
        raise InputError("it divides by values, or by zero; expected a constant")
    b = constant(other, input, a)
    return a.scaled(input, (1 / b.astype(np.float64)).astype(b.dtype))


def mean(a: Assembly, input: Value, dim: Any = None, keepdim: bool = False) -> Value:
    """As torch.mean over pixels."""
    return a.mean(input, own_axes(input, dim), keepdim)


def own_axes(x: Value, dim: Any) -> list[int]:
    """Axes counted without the batch."""
    rank = len(x.shape) + 1
    axes = [d % rank for d in (dim if isinstance(dim, tuple | list) else [dim])] if dim is not None else [0]
    if 0 in axes:
        raise InputError("it goes over the batch; expected each sample on its own")
    return [d - 1 for d in axes]


def flatten(a: Assembly, input: Value, start_dim: int = 0, end_dim: int = -1) -> Value:
    """As torch.flatten behind the batch."""
    rank = len(input.shape) + 1
    start, end = start_dim % rank, end_dim % rank
    if start == 0:
        raise InputError("it flattens the batch, too; expected start_dim 1")
    return input.reshaped((*input.shape[: start - 1], -1, *input.shape[end:]))


def reshape(a: Assembly, input: Value, *shape: Any) -> Value:
    """As torch.reshape and view, the batch first."""
    target: Sequence[Any] = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
    first, *rest = target
    if BATCH in rest or (first not in (BATCH, -1) or (first == -1 and -1 in rest)):
        raise InputError(f"it makes the shape {tuple(target)}; expected the batch first, as x.shape[0] or -1")
    return input.reshaped(rest)


def permute(a: Assembly, input: Value, *dims: Any) -> Value:
    """As torch.permute, the batch first."""
    order = dims[0] if len(dims) == 1 else dims
    if order[0] != 0:
        raise InputError(f"its order is {tuple(order)}; expected the batch first")
    return input.transposed(own_axes(input, list(order[1:])))


def squeeze(a: Assembly, input: Value, dim: Any = None) -> Value:
    """As torch.squeeze with named axes."""
    axes = own_axes(input, dim)
    return input.reshaped([n for i, n in enumerate(input.shape) if i not in axes or n != 1])


def unsqueeze(a: Assembly, input: Value, dim: int) -> Value:
    """As torch.unsqueeze behind the batch."""
    at = dim % (len(input.shape) + 2)
    if at == 0:
        raise InputError("it adds an axis before the batch")
    return input.reshaped((*input.shape[: at - 1], 1, *input.shape[at - 1 :]))


def size(a: Assembly, input: Value, dim: int | None = None) -> Any:
    """As Tensor.size."""
    shape = (BATCH, *input.shape)
    return shape if dim is None else shape[dim]


def attribute(a: Assembly, input: Value, name: str) -> Any:
    """x.shape, and nothing else."""
    if name != "shape":
        raise InputError(f"it asks for {name}; expected shape")
    return size(a, input)


def same(a: Assembly, input: Value, *args: Any, **kwargs: Any) -> Value:
    """The identity in inference."""
    return input


def dropout(a: Assembly, input: Value, p: float = 0.5, training: bool = True, inplace: bool = False) -> Value:
    """As torch.nn.functional.dropout in inference."""
    if training and p:
        raise InputError("it is in training; expected training=self.training")
    return input


def softplus(a: Assembly, input: Value, beta: float = 1, threshold: float = 20) -> Value:
    """As torch.nn.functional.softplus with β = 1."""
    if beta != 1:
        raise InputError(f"its beta is {beta}; expected 1")
    return a.apply(Softplus(), input)


def leaky_relu(a: Assembly, input: Value, negative_slope: float = 0.01, inplace: bool = False) -> Value:
    """As torch.nn.functional.leaky_relu."""
    return a.apply(LeakyReLU(float(negative_slope)), input)


def entrywise(stage: Stage) -> Callable[..., Value]:
    """An activation without parameters."""
    return lambda a, input, inplace=False: a.apply(stage, input)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "conv2d": conv2d,
    "linear": linear,
    "relu": entrywise(ReLU()),
    "leaky_relu": leaky_relu,
    "tanh": entrywise(Tanh()),
    "sigmoid": entrywise(Sigmoid()),
    "softplus": softplus,
    "silu": entrywise(SiLU()),
    "avg_pool2d": pooling(AveragePool),
    "max_pool2d": pooling(MaxPool),
    "adaptive_avg_pool2d": adaptive_avg_pool2d,
    "mean": mean,
    "batch_norm": batch_norm,
    "group_norm": group_norm,
    "layer_norm": layer_norm,
    "dropout": dropout,
    "add": add,
    "sub": sub,
    "mul": mul,
    "div": divided,
    "truediv": divided,
    "flatten": flatten,
    "reshape": reshape,
    "view": reshape,
    "permute": permute,
    "squeeze": squeeze,
    "unsqueeze": unsqueeze,
    "size": size,
    "getattr": attribute,
    "contiguous": same,
}


def called(name: str, *attributes: str) -> Callable[..., Any]:
    """A module as the function of that name, with these attributes of its own as arguments."""

    def take(a: Assembly, module: Any, input: Value) -> Any:
        return FUNCTIONS[name](a, input, **{k: array(getattr(module, k)) for k in attributes})

    return take


def convolved(a: Assembly, module: Any, input: Value) -> Value:
    """torch.nn.Conv2d."""
    if module.padding_mode != "zeros":
        raise InputError(f"its padding_mode is {module.padding_mode!r}; expected zeros")
    names = ("weight", "bias", "stride", "padding", "dilation", "groups")
    return called("conv2d", *names)(a, module, input)  # type: ignore[no-any-return]


def by_instance(a: Assembly, module: Any, input: Value) -> Value:
    """torch.nn.InstanceNorm2d without running statistics."""
    if module.track_running_stats:
        raise InputError("it has running statistics; expected those of the image")
    return group_norm(a, input, input.shape[0], array(module.weight), array(module.bias), module.eps)


BATCH_NORM = called("batch_norm", "running_mean", "running_var", "weight", "bias", "eps")
MODULES: dict[str, Callable[..., Any]] = {
    "Conv2d": convolved,
    "Linear": called("linear", "weight", "bias"),
    "ReLU": called("relu"),
    "LeakyReLU": called("leaky_relu", "negative_slope"),
    "Tanh": called("tanh"),
    "Sigmoid": called("sigmoid"),
    "Softplus": called("softplus", "beta", "threshold"),
    "SiLU": called("silu"),
    "AvgPool2d": called(
        "avg_pool2d", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"
    ),
    "MaxPool2d": called("max_pool2d", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    "AdaptiveAvgPool2d": called("adaptive_avg_pool2d", "output_size"),
    "Flatten": called("flatten", "start_dim", "end_dim"),
    "BatchNorm1d": BATCH_NORM,
    "BatchNorm2d": BATCH_NORM,
    "GroupNorm": called("group_norm", "num_groups", "weight", "bias", "eps"),
    "LayerNorm": called("layer_norm", "normalized_shape", "weight", "bias", "eps"),
    "InstanceNorm2d": by_instance,
    "Identity": called("contiguous"),
    "Dropout": called("contiguous"),
    "Dropout2d": called("contiguous"),
}
