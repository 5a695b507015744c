"""The same operations in PyTorch with automatic differentiation: eager, compiled, or recorded as one CUDA graph.

Every stage becomes one functional call; standardisation followed by scale-and-shift becomes PyTorch's fused group
normalisation. Losses, gradients and the step are those of the method, so that both sides compute the same numbers. All
controls lie in one vector, of which the arrays are views: the maximiser and the numbers of a trial take one call for
all layers, and the numbers are fetched together.
"""

from __future__ import annotations

import itertools
import types
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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
    ReLU,
    ScaleShift,
    Stage,
    Standardise,
    Tanh,
    WeightedSum,
)
from pmp_ref.network import Network
from verification.performance.configurations import EPS, RHO, Case

HOW = ("eager", "compiled", "graph")
Tensors = Sequence[torch.Tensor]
Map = Callable[[Any, Tensors], Any]
_numbers = itertools.count()


def stage_map(stage: Stage, norm: Any) -> Map:
    """One stage as a function of state and controls; ``norm`` is the standardisation before a scale-and-shift, to be
    done with it. Sizes are read here, so that the function holds PyTorch alone."""
    match stage:
        case Convolution():
            w, bias, groups = stage.windows, stage.bias, stage.groups
            stride, padding, dilation = w.stride, w.padding, w.dilation
            return lambda x, u: F.conv2d(x, u[0], u[1] if bias else None, stride, padding, dilation, groups)
        case Dense():
            bias = stage.bias
            return lambda x, u: F.linear(x, u[0], u[1] if bias else None)
        case ScaleShift():
            groups, delta = norm.groups, norm.delta
            return lambda x, u: F.group_norm(x, groups, u[0], u[1], delta)
        case Tanh():
            return lambda x, u: torch.tanh(x)
        case ReLU():
            return lambda x, u: torch.relu(x)
        case AveragePool():
            w, whole = stage.windows, stage.count_include_pad
            return lambda x, u: F.avg_pool2d(x, w.size, w.stride, w.padding, count_include_pad=whole)
        case MaxPool():
            w = stage.windows
            return lambda x, u: F.max_pool2d(x, w.size, w.stride, w.padding)
        case GlobalAveragePool():
            return lambda x, u: x.mean((2, 3))
        case Flatten():
            return lambda x, u: x.flatten(1)
        case WeightedSum(weights=(1.0, step)):
            return lambda x, u: x[0] + x[1] if step == 1 else torch.add(x[0], x[1], alpha=step)
    raise NotImplementedError(f"{stage} has no counterpart here")


class Step(NamedTuple):
    """The map of a stage, the states that it reads, those that nobody reads after it, and where its controls lie."""

    map: Map
    reads: tuple[int, ...]
    free: tuple[int, ...]
    first: int
    last: int


def steps(network: Network) -> list[Step]:
    """The maps of a network."""
    result, norm, first = [], None, 0
    for l, (stage, own) in enumerate(zip(network.stages, network.names(), strict=True)):
        norm = stage if isinstance(stage, Standardise) else norm
        made = (lambda x, u: x) if isinstance(stage, Standardise) else stage_map(stage, norm)
        reads, last = network.reads[l], first + len(own)
        result.append(Step(made, reads, tuple(i for i in reads if network.readers[i][-1] == l), first, last))
        first = last
    return result


def run(chain: list[Step], x: Any, arrays: Tensors) -> Any:
    """The final state."""
    states: list[Any] = [x]
    for step in chain:
        entering = [states[i] for i in step.reads]
        for i in step.free:
            states[i] = None
        states.append(step.map(entering if len(entering) > 1 else entering[0], arrays[step.first : step.last]))
    return states[-1]


class Vector:
    """Where each control lies in the vector of all controls; kernels with ``channels_last`` lie in that layout."""

    def __init__(self, case: Case, channels_last: bool, device: str) -> None:
        arrays = [np.array(a) for stage in case.controls for a in stage]
        names = [n for stage in case.network.names() for n in stage]
        self.last = [channels_last and a.ndim == 4 for a in arrays]
        arrays = [a.transpose(0, 2, 3, 1) if last else a for a, last in zip(arrays, self.last, strict=True)]
        self.shapes, self.sizes = [a.shape for a in arrays], [a.size for a in arrays]
        self.controls = torch.from_numpy(np.concatenate([a.ravel() for a in arrays])).to(device)
        penalised = np.repeat([n == "kernel" for n in names], self.sizes)
        self.penalised = torch.from_numpy(penalised).to(device)

    def views(self, vector: torch.Tensor) -> list[torch.Tensor]:
        """The arrays, as views."""
        parts = zip(vector.split(self.sizes), self.shapes, self.last, strict=True)
        return [v.view(shape).permute(0, 3, 1, 2) if last else v.view(shape) for v, shape, last in parts]

    def joined(self, arrays: Tensors) -> torch.Tensor:
        """The vector of arrays of these shapes."""
        parts = zip(arrays, self.last, strict=True)
        return torch.cat([(a.permute(0, 2, 3, 1) if last else a).reshape(-1) for a, last in parts])


def by_autograd(losses: Callable[[Tensors], torch.Tensor], arrays: Tensors) -> tuple[torch.Tensor, Tensors]:
    """Losses and gradient of their mean, by the tape."""
    leaves = [a.detach().requires_grad_() for a in arrays]
    phi = losses(leaves)
    return phi.detach(), torch.autograd.grad(phi.mean(), leaves)


def by_transform(losses: Callable[[Tensors], torch.Tensor], arrays: Tensors) -> tuple[torch.Tensor, Tensors]:
    """The same by a transformation of the function, which ``torch.compile`` takes as one graph."""

    def mean(leaves: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        phi = losses(leaves)
        return phi.mean(), phi

    gradient, phi = torch.func.grad(mean, has_aux=True)(list(arrays))
    return phi, gradient


def step_functions(
    case: Case, channels_last: bool, device: str, differentiate: Any
) -> tuple[dict[str, Callable[..., tuple[torch.Tensor, ...]]], Tensors, Tensors]:
    """The operations by name, as functions of images, labels and controls that end on the device; their arguments; the
    tensors that they enclose. The first result holds the numbers of the step, the last of them the loss."""
    x, y = torch.from_numpy(case.x).to(device), torch.from_numpy(case.y).to(device)
    if channels_last and x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    vector = Vector(case, channels_last, device)
    chain, penalised = steps(case.network), vector.penalised
    # On the device: PyTorch would copy the number 0 there for each call of where, and wait for it.
    zero = torch.zeros((), dtype=vector.controls.dtype, device=device)

    def losses(arrays: Tensors, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(run(chain, x, arrays), y, reduction="none")

    def sweep(x: torch.Tensor, y: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        phi, gradient = differentiate(lambda arrays: losses(arrays, x, y), vector.views(u))
        return phi, vector.joined(gradient)

    def maximised(u: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        """The pointwise maximiser for L0 on penalised arrays: u − ∇L/(2ε), or 0 where that is worth more."""
        c = u - g / (2 * EPS)
        return torch.where(penalised & (c * c <= RHO / EPS), zero, c)

    def judged(
        u: torch.Tensor, v: torch.Tensor, g: torch.Tensor, phi: torch.Tensor, trial: torch.Tensor
    ) -> torch.Tensor:
        """The numbers of the acceptance test, in float64."""
        delta = (v - u).double()
        numbers = [
            (trial.double() - phi.double()).mean(),
            -(g.double() * delta).sum(),
            (delta * delta).sum(),
            ((v != 0) & penalised).sum().double(),
            trial.double().mean(),
        ]
        return torch.stack(numbers)

    def forward_backward(x: torch.Tensor, y: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, ...]:
        phi, g = sweep(x, y, u)
        return phi.double().mean().reshape(1), g

    def mini_batch_step(x: torch.Tensor, y: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, ...]:
        phi, g = sweep(x, y, u)
        with torch.no_grad():
            v = maximised(u, g)
            trial = losses(vector.views(v), x, y)
            return judged(u, v, g, phi, trial), v

    def full_batch_step(
        x: torch.Tensor, y: torch.Tensor, u: torch.Tensor, phi: torch.Tensor, g: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            v = maximised(u, g)
        trial, new = sweep(x, y, v)  # the backward sweep is queued before the host waits for the numbers
        with torch.no_grad():
            return judged(u, v, g, phi, trial), v, trial, new

    functions: dict[str, Callable[..., tuple[torch.Tensor, ...]]] = {
        "forward_backward": forward_backward,
        "full_batch_step": full_batch_step,
        "mini_batch_step": mini_batch_step,
        "sweep": sweep,
    }
    return functions, (x, y, vector.controls), (penalised, zero)


def operation(
    name: str, case: Case, threads: int, channels_last: bool, device: str = "cpu", how: str = "eager"
) -> Callable[[], float]:
    """As :func:`verification.performance.ours.operation`; ``how`` is one of ``HOW``.

    ``compiled``: by ``torch.compile`` with mode "reduce-overhead", which records CUDA graphs. ``graph``: the eager
    calls of the whole operation recorded in one CUDA graph and launched again.
    """
    torch.set_num_threads(threads)
    functions, arguments, enclosed = step_functions(
        case, channels_last, device, by_transform if how == "compiled" else by_autograd
    )
    if name == "full_batch_step":
        # by the tape whatever the side: this is made once, outside of what is measured
        eager, _, _ = step_functions(case, channels_last, device, by_autograd)
        phi, g = eager["sweep"](*arguments)
        arguments = (*arguments, phi.detach(), g.detach())
    if how == "compiled":
        run = compiled(functions[name], arguments, enclosed)
    elif how == "graph":
        run = recorded(functions[name], arguments)
    else:
        run = lambda: functions[name](*arguments)  # noqa: E731
    return lambda: float(run()[0].tolist()[-1])


def compiled(function: Callable[..., Any], arguments: Tensors, enclosed: Tensors) -> Callable[[], Any]:
    """The function compiled; called with these arguments, which stay where they are, as do the tensors it encloses."""
    import torch._dynamo

    for tensor in (*arguments, *enclosed):
        torch._dynamo.mark_static_address(tensor)  # they need not be copied into the graph for each launch
    fast = torch.compile(own_code(function), mode="reduce-overhead", fullgraph=True, dynamic=False)

    def run(held: Any = enclosed) -> Any:  # the graphs know these tensors by their addresses only
        torch.compiler.cudagraph_mark_step_begin()  # what the last call returned may be overwritten
        return fast(*arguments)

    return run


def own_code(function: Callable[..., Any]) -> Callable[..., Any]:
    """A copy with a code object of its own: ``torch.compile`` keeps what it made with the code object, and looks
    through all of it, so functions that differ in what they enclose would slow each other down."""
    assert isinstance(function, types.FunctionType)
    name = f"{function.__name__}_{next(_numbers)}"
    code = function.__code__.replace(co_name=name)
    return types.FunctionType(code, function.__globals__, name, function.__defaults__, function.__closure__)


def recorded(function: Callable[..., Any], arguments: Tensors) -> Callable[[], Any]:
    """The function's calls recorded in one CUDA graph; each call launches it. What is returned holds all that the graph
    reads: else that memory is given to others, and labels that they overwrite fail an assertion on the device."""
    warm = torch.cuda.Stream()
    warm.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm):  # choices of algorithms and workspaces are made before the recording
        for _ in range(3):
            function(*arguments)
    torch.cuda.current_stream().wait_stream(warm)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = function(*arguments)

    def run(held: Any = (function, arguments)) -> Any:  # the graph knows what it reads by its address only
        graph.replay()
        return results

    return run


def switching_norms(case: Case, threads: int) -> list[float]:
    """‖∇_l L‖ of each control."""
    torch.set_num_threads(threads)
    functions, arguments, _ = step_functions(case, False, "cpu", by_autograd)
    _, g = functions["sweep"](*arguments)
    return [float(d.double().norm()) for d in Vector(case, False, "cpu").views(g)]
