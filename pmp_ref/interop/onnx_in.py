"""An ONNX file as a model. The file is read in bounded pieces, parsed by the package ``onnx``, and taken node by node.

Constants are evaluated only where they are small or only seen in another shape, so that a file cannot ask for more
memory than it pays for. Data kept in other files are refused, and so is all that is no operator of ONNX itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from pmp_ref.data.files import opened, read_all
from pmp_ref.errors import InputError
from pmp_ref.interop.assembly import LARGEST, MOST, NONE, Assembly, Value
from pmp_ref.layers import (
    AveragePool,
    LeakyReLU,
    MaxPool,
    ReLU,
    Sigmoid,
    SiLU,
    Softplus,
    Tanh,
)
from pmp_ref.model import Model, _check

MAX_FILE = 2**30  # bytes; protobuf itself ends at 2³¹
MAX_WEIGHTS = 2**27  # entries of all constants together once sparse ones are filled up, as in a model's own file
BATCH = 2**40 + 15  # stands for the length of the batch in shapes: larger than any other, smaller than an overflow
SMALL = 64  # entries of a constant that is computed, such as a shape
DOMAINS = ("", "ai.onnx")
DAMAGE = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, MemoryError)

Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}


def read(path: Path, output: str | None, names: Any, mean: Any, std: Any) -> Model:
    """The model in a file, see :func:`pmp_ref.interop.from_onnx`."""
    try:
        import onnx
    except ImportError:
        raise InputError("from_onnx needs the package onnx, which is missing: pip install onnx") from None
    with opened(path) as stream:
        content = bytes(read_all(stream, str(path), MAX_FILE))
    return parse(onnx, content, str(path), output, names, mean, std)


def parse(
    onnx: Any, content: bytes, source: str, output: str | None, names: Any = (), mean: Any = (), std: Any = ()
) -> Model:
    """The model that these bytes of a file hold."""
    try:
        whole = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf answers with types of its own
        raise InputError(
            f"{source!r} is no ONNX file that can be read ({type(error).__name__}): export it again"
        ) from None
    try:
        model = Reader(onnx, whole).model(output, names, mean, std)
        _check(model, source)
        return model
    except InputError as error:
        text = one_line(str(error))
        raise InputError(text if source in text else f"{source!r}: {text}") from None
    except DAMAGE as error:
        said = one_line(str(error))[:100]
        raise InputError(f"{source!r} is damaged ({type(error).__name__}: {said}): export it again") from None


def one_line(text: str) -> str:
    """The text with a question mark for what is not printable: names in a file may hold anything."""
    return "".join(c if c.isprintable() else "?" for c in text)


class Reader:
    """Constants and values by the names of their tensors."""

    def __init__(self, onnx: Any, whole: Any) -> None:
        self.onnx, self.graph = onnx, whole.graph
        self.constants: dict[str, np.ndarray] = {}
        self.values: dict[str, Value] = {}
        self.opset = next((o.version for o in whole.opset_import if o.domain in DOMAINS), 1)
        self.entries = 0
        if self.opset < 7:
            raise InputError(f"its opset is {self.opset}; expected 7 or later: export it again, or convert it")

    def model(self, output: str | None, names: Any, mean: Any, std: Any) -> Model:
        """The model that ends in that tensor."""
        graph = self.graph
        for tensor in graph.initializer:
            self.constants[tensor.name] = self.array(tensor)
        for sparse in graph.sparse_initializer:
            self.constants[sparse.values.name] = self.filled(sparse)
        inputs = [i for i in graph.input if i.name not in self.constants]
        if len(inputs) != 1 or not graph.output:
            raise InputError(f"the graph has {len(inputs)} inputs and {len(graph.output)} outputs; expected one input")
        name = graph.output[0].name if output is None else output
        nodes = self.nodes_of(name)
        kind, batch, shape = self.input_of(inputs[0])
        self.batch = (BATCH, -1, 0, batch)
        given, own = self.layout(inputs[0].name, shape, nodes)
        self.assembly = Assembly(own)
        first = self.assembly.value(0)
        self.values[inputs[0].name] = replace(first, index=given(first.index))
        for node in nodes:
            self.take(node)
        if name not in self.values:
            raise InputError(f"the output {name!r} does not depend on the input {inputs[0].name!r}")
        return self.assembly.model(self.values[name], kind == self.onnx.TensorProto.UINT8, names, mean, std)

    def input_of(self, info: Any) -> tuple[int, int, tuple[int, ...]]:
        """Type of the entries, length of the batch (BATCH where it is free) and shape of a sample."""
        tensor = info.type.tensor_type
        types = self.onnx.TensorProto
        if tensor.elem_type not in (types.FLOAT, types.DOUBLE, types.UINT8):
            raise InputError(f"the input {info.name!r} is of type {tensor.elem_type}; expected float, double or uint8")
        lengths = [d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim]
        if len(lengths) < 2 or min(lengths[1:]) < 1 or prod(lengths[1:]) > LARGEST:
            raise InputError(
                f"the input {info.name!r} has the shape {[n or 'free' for n in lengths]}; expected (batch, …) with "
                "fixed, positive lengths behind the batch: export it with an example of that size"
            )
        return tensor.elem_type, lengths[0] or BATCH, tuple(lengths[1:])

    def layout(self, name: str, shape: tuple[int, ...], nodes: Sequence[Any]) -> tuple[Rule, tuple[int, ...]]:
        """How the input looks at the first state, and that state's shape.

        They differ where the first thing that happens to images, up to arithmetic by constants, is that their channels
        are brought to the front, or that axes are added: then that is the state.
        """
        for node in nodes:
            if name not in node.input:
                continue
            if (
                node.op_type == "Transpose"
                and len(shape) == 3
                and list(self.attributes(node).get("perm", ())) == [0, 3, 1, 2]
            ):
                return (lambda index: index.transpose(1, 2, 0)), (shape[2], shape[0], shape[1])
            if node.op_type == "Reshape" and node.input[1] in self.constants:
                target = [int(n) for n in self.constants[node.input[1]]][1:]
                if len(target) == 3 and min(target) > 0 and prod(target) == prod(shape):
                    return (lambda index: index.reshape(shape)), tuple(target)
            if node.op_type in ("Cast", "Identity", "Mul", "Sub", "Add", "Div"):
                name = node.output[0]
                continue
            break
        return (lambda index: index), shape

    def nodes_of(self, output: str) -> list[Any]:
        """The nodes that lead to a tensor, in the order of the file."""
        if len(self.graph.node) > MOST:
            raise InputError(f"the graph has {len(self.graph.node)} nodes; expected at most {MOST}")
        wanted, nodes = {output}, []
        for node in reversed(self.graph.node):
            if wanted.intersection(node.output):
                wanted.update(node.input)
                nodes.append(node)
        if not any(output in node.output for node in nodes):
            made = [name for node in self.graph.node for name in node.output][-8:]
            raise InputError(f"there is no tensor {output!r} that a node makes; the last ones are {', '.join(made)}")
        return nodes[::-1]

    def array(self, tensor: Any) -> np.ndarray:
        """A stored array; InputError unless its entries are in the file and as many as its shape says."""
        if tensor.data_location == self.onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise InputError(
                f"the tensor {tensor.name!r} lies in another file, which is not read: export it in one file"
            )
        if min(tensor.dims, default=1) < 0:
            raise InputError(f"the tensor {tensor.name!r} has the shape {list(tensor.dims)}")
        self.count(tensor.name, tensor.dims)
        return np.asarray(self.onnx.numpy_helper.to_array(tensor))

    def count(self, name: str, shape: Sequence[int]) -> None:
        """InputError if the constants are too many together."""
        self.entries += prod(shape)
        if self.entries > MAX_WEIGHTS:
            raise InputError(
                f"with the tensor {name!r} the constants have {self.entries} entries; at most {MAX_WEIGHTS}"
            )

    def filled(self, sparse: Any) -> np.ndarray:
        """A sparse tensor with its zeros."""
        name, shape = sparse.values.name, tuple(sparse.dims)
        values, index = self.array(sparse.values), self.array(sparse.indices)
        if min(shape, default=0) < 1 or values.ndim != 1 or index.dtype != np.int64 or index.shape[:1] != values.shape:
            raise InputError(f"the parts of the sparse tensor {name!r} do not fit each other")
        self.count(name, shape)
        if index.ndim == 2:
            index = np.ravel_multi_index(tuple(index.T), shape)
        if index.size and (index.min() < 0 or index.max() >= prod(shape) or np.any(np.diff(index) <= 0)):
            raise InputError(f"the sparse tensor {name!r} has indices that are not ascending within its shape {shape}")
        full = np.zeros(prod(shape), values.dtype)
        full[index] = values
        return full.reshape(shape)

    def attributes(self, node: Any) -> dict[str, Any]:
        """Attributes by name, as Python values."""
        return {a.name: self.onnx.helper.get_attribute_value(a) for a in node.attribute}

    def named(self, name: str) -> Any:
        """The constant or value of that name; None for an input that is left out."""
        if name and name not in self.constants and name not in self.values:
            raise InputError(f"its input {name!r} is made by no node before it")
        return None if not name else self.constants[name] if name in self.constants else self.values[name]

    def take(self, node: Any) -> None:
        """One node; InputError with its name, its operator and the reason where it cannot be taken."""
        name = node.name or (node.output[0] if node.output else "")
        try:
            if node.domain not in DOMAINS:
                raise InputError(f"the operator is of the domain {node.domain!r}; expected ONNX's own")
            if node.op_type not in RULES:
                raise InputError(f"no stage does this; known: {', '.join(sorted(RULES))}")
            inputs = [self.named(name) for name in node.input]
            if node.op_type != "Where" and any(isinstance(x, Above) for x in inputs):
                raise InputError("it reads a comparison; expected numbers")
            made = RULES[node.op_type](self, self.attributes(node), *inputs)
        except InputError as error:
            raise InputError(f"node {name!r} ({node.op_type}): {error}") from None
        except DAMAGE as error:
            said = " ".join(str(error).split())[:100]
            raise InputError(
                f"node {name!r} ({node.op_type}): its inputs and attributes do not fit each other "
                f"({type(error).__name__}: {said})"
            ) from None
        (self.values if isinstance(made, Value) else self.constants)[node.output[0]] = made


@dataclass(frozen=True, eq=False)
class Above(Value):
    """The question whether a value is above a threshold, which PyTorch's softplus asks."""

    threshold: float = 0.0


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Registers how operators are taken: a function of reader, attributes and inputs, constants or values."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(operators, function))
        return function

    return register


def a_value(x: Any, what: str = "its input") -> Value:
    """x, if it depends on the images."""
    if not isinstance(x, Value):
        raise InputError(f"{what} is a constant; expected values that depend on the input")
    return x


def a_constant(a: Any, what: str) -> np.ndarray:
    """a, if it is a constant."""
    if not isinstance(a, np.ndarray):
        raise InputError(f"{what} depends on the input; expected a constant")
    return a


def maybe(a: Any, what: str) -> np.ndarray | None:
    """A constant, or nothing."""
    return None if a is None else a_constant(a, what)


def per_sample(a: np.ndarray, x: Value) -> np.ndarray:
    """A constant that broadcasts to the batch, without the axis of the batch."""
    if a.ndim == len(x.shape) + 1:
        if a.shape[0] != 1:
            raise InputError(f"its constant of shape {a.shape} differs from sample to sample")
        return a[0]
    return a


def integers(a: Any, what: str) -> list[int]:
    """A small constant list of integers."""
    a = a_constant(a, what)
    if a.size > SMALL or a.dtype.kind not in "iu":
        raise InputError(f"{what} is {a.dtype} of shape {a.shape}; expected a few integers")
    return [int(n) for n in a.ravel()]


def axes_of(attributes: dict[str, Any], given: Any, x: Value) -> list[int] | None:
    """Axes, by attribute or input, counted without the batch; None if none are given."""
    axes = integers(given, "axes") if given is not None else attributes.get("axes")
    if axes is None:
        return None
    rank = len(x.shape) + 1
    own = [a % rank for a in axes if -rank <= a < rank]
    if len(own) != len(axes) or 0 in own:
        raise InputError(f"its axes are {list(axes)}; expected some of 1 to {rank - 1}, not the batch")
    return [a - 1 for a in own]


@rule("Identity", "Dropout", "Cast")
def _same(r: Reader, at: dict[str, Any], x: Any, *others: Any) -> Any:
    if len(others) > 1 and others[1] is not None and bool(np.any(others[1])):
        raise InputError("it is in training; export the model in inference")
    types = r.onnx.TensorProto
    if "to" in at and isinstance(x, Value) and at["to"] not in (types.FLOAT, types.DOUBLE):
        raise InputError(f"it makes the type {at['to']} of values; expected float or double")
    if "to" in at and isinstance(x, np.ndarray):
        r.count(str(x.dtype), x.shape)
        return x.astype(r.onnx.helper.tensor_dtype_to_np_dtype(at["to"]))
    return x


@rule("Constant")
def _constant(r: Reader, at: dict[str, Any]) -> Any:
    if "value" in at:
        return r.array(at["value"])
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    for name, kind in kinds.items():
        if name in at:
            return np.asarray(at[name], kind)
    raise InputError(f"it has the attributes {sorted(at)}; expected a tensor or numbers")


@rule("Conv")
def _conv(r: Reader, at: dict[str, Any], x: Any, kernel: Any, bias: Any = None) -> Value:
    x, kernel = a_value(x), a_constant(kernel, "its kernel")
    if len(x.shape) != 3 or kernel.ndim != 4:
        raise InputError(f"it convolves values of shape {x.shape}; expected images (channels, rows, columns)")
    size, stride, dilation = kernel.shape[2:], at.get("strides", (1, 1)), at.get("dilations", (1, 1))
    pads = _pads(at, x.shape[1:], size, stride, dilation)
    return r.assembly.convolution(x, kernel, maybe(bias, "its bias"), stride, pads, dilation, at.get("group", 1))


def _pads(at: dict[str, Any], image: Any, size: Any, stride: Any, dilation: Any) -> Sequence[int]:
    """Padding (top, left, bottom, right), given or by ``auto_pad``."""
    auto = at.get("auto_pad", b"NOTSET").decode()
    if auto == "NOTSET":
        return tuple(at.get("pads", NONE))
    if auto == "VALID":
        return NONE
    total = [
        max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
        for n, k, s, d in zip(image, size, stride, dilation, strict=True)
    ]
    less, more = [n // 2 for n in total], [n - n // 2 for n in total]
    return (*less, *more) if auto == "SAME_UPPER" else (*more, *less)


def _pool(kind: Any) -> Rule:
    """The rule of average or maximum pooling."""

    def take(r: Reader, at: dict[str, Any], x: Any) -> Value:
        x, size = a_value(x), at["kernel_shape"]
        if len(x.shape) != 3 or len(size) != 2:
            raise InputError(f"it pools values of shape {x.shape} by {size}; expected images (channels, rows, columns)")
        stride, dilation = at.get("strides", (1, 1)), at.get("dilations", (1, 1))
        if tuple(dilation) != (1, 1):
            raise InputError(f"its dilation is {tuple(dilation)}; expected none")
        pads = _pads(at, x.shape[1:], size, stride, dilation)
        more = {"count_include_pad": bool(at.get("count_include_pad", 0))} if kind is AveragePool else {}
        return r.assembly.pooled(kind, x, size, stride, pads, bool(at.get("ceil_mode", 0)), **more)

    return take


RULES |= {"AveragePool": _pool(AveragePool), "MaxPool": _pool(MaxPool)}


@rule("GlobalAveragePool")
def _global_average(r: Reader, at: dict[str, Any], x: Any) -> Value:
    x = a_value(x)
    return r.assembly.mean(x, range(1, len(x.shape)), True)


@rule("ReduceMean")
def _reduce_mean(r: Reader, at: dict[str, Any], x: Any, axes: Any = None) -> Value:
    x = a_value(x)
    own = axes_of(at, axes, x)
    if own is None:
        raise InputError("it is the mean over all axes, the batch too; expected that over pixels")
    return r.assembly.mean(x, own, bool(at.get("keepdims", 1)))


@rule("Gemm")
def _gemm(r: Reader, at: dict[str, Any], x: Any, b: Any, c: Any = None) -> Value:
    x, kernel = a_value(x, "its left factor"), a_constant(b, "its right factor")
    if at.get("transA", 0):
        raise InputError("transA is 1, which mixes samples")
    kernel = kernel if at.get("transB", 0) else kernel.T
    alpha, beta = at.get("alpha", 1.0), at.get("beta", 1.0)
    kernel = kernel if alpha == 1 else (alpha * kernel).astype(kernel.dtype)
    bias = maybe(c, "its bias")
    if bias is not None:
        bias = bias if beta == 1 else (beta * bias).astype(bias.dtype)
        if bias.ndim == 2 and bias.shape[0] != 1:
            raise InputError(f"its bias of shape {bias.shape} differs from sample to sample")
        bias = np.broadcast_to(bias.reshape(-1), (kernel.shape[0],))
    return r.assembly.dense(x, kernel, bias)


@rule("MatMul")
def _matmul(r: Reader, at: dict[str, Any], x: Any, b: Any) -> Value:
    return r.assembly.dense(a_value(x, "its left factor"), a_constant(b, "its right factor").T, None)


ACTIVATIONS: dict[str, Any] = {
    "Relu": lambda at: ReLU(),
    "LeakyRelu": lambda at: LeakyReLU(float(at.get("alpha", 0.01))),
    "Tanh": lambda at: Tanh(),
    "Sigmoid": lambda at: Sigmoid(),
    "Softplus": lambda at: Softplus(),
}


def _activation(make: Any) -> Rule:
    return lambda r, at, x: r.assembly.apply(make(at), a_value(x))


for _name, _make in ACTIVATIONS.items():
    RULES[_name] = _activation(_make)


@rule("Swish")
def _swish(r: Reader, at: dict[str, Any], x: Any) -> Value:
    if at.get("alpha", 1.0) != 1:
        raise InputError(f"its alpha is {at['alpha']}; expected 1")
    return r.assembly.apply(SiLU(), a_value(x))


@rule("Greater")
def _greater(r: Reader, at: dict[str, Any], x: Any, threshold: Any) -> Value:
    x = r.assembly.plain(a_value(x))
    return Above(x.state, x.index, threshold=float(a_constant(threshold, "its threshold").reshape(())))


@rule("Where")
def _where(r: Reader, at: dict[str, Any], above: Any, x: Any, y: Any) -> Value:
    """x where it is above a threshold, else log(1 + eˣ): PyTorch's softplus, to e^−threshold the same."""
    if isinstance(above, Above) and isinstance(x, Value) and isinstance(y, Value) and y.state > 0:
        l, same = y.state - 1, [v.index for v in (x, y)]
        softplus = type(r.assembly.stages[l]) is Softplus and r.assembly.reads[l] == (x.state,) == (above.state,)
        in_order = all(np.array_equal(index, above.index) for index in same)
        if softplus and in_order and above.threshold >= 15 and x.factor == y.factor == 1:
            return y
    raise InputError("it chooses between values; expected the softplus of PyTorch")


@rule("Add", "Sum")
def _add(r: Reader, at: dict[str, Any], *terms: Any) -> Any:
    values = [x for x in terms if isinstance(x, Value)]
    constants = [a for a in terms if isinstance(a, np.ndarray)]
    if not values:
        return _computed(terms, lambda a: sum(a[1:], start=a[0]))
    result = r.assembly.sum(values)
    for a in constants:
        result = r.assembly.shifted(result, per_sample(a, result))
    return result


@rule("Sub")
def _sub(r: Reader, at: dict[str, Any], x: Any, y: Any) -> Any:
    if not isinstance(x, Value) and not isinstance(y, Value):
        return _computed((x, y), lambda a: a[0] - a[1])
    minus = replace(y, factor=-y.factor) if isinstance(y, Value) else -y
    return _add(r, at, x, minus)


@rule("Mul")
def _mul(r: Reader, at: dict[str, Any], x: Any, y: Any) -> Any:
    if isinstance(x, Value) and isinstance(y, Value):
        return r.assembly.product(x, y)
    if not isinstance(x, Value) and not isinstance(y, Value):
        return _computed((x, y), lambda a: a[0] * a[1])
    value, constant = (x, y) if isinstance(x, Value) else (y, x)
    return r.assembly.scaled(value, per_sample(constant, value))


@rule("Div")
def _div(r: Reader, at: dict[str, Any], x: Any, y: Any) -> Any:
    divisor = a_constant(y, "its divisor")
    if not isinstance(x, Value):
        return _computed((x, y), lambda a: a[0] // a[1] if a[0].dtype.kind in "iu" else a[0] / a[1])
    if divisor.dtype.kind != "f" or not np.all(divisor):
        raise InputError("its divisor has zeros, or other numbers than floats")
    return r.assembly.scaled(x, per_sample((1 / divisor.astype(np.float64)).astype(divisor.dtype), x))


def _computed(arrays: Sequence[Any], compute: Callable[[Sequence[np.ndarray]], Any]) -> np.ndarray:
    """A small constant made of constants."""
    if any(not isinstance(a, np.ndarray) or a.size > SMALL for a in arrays):
        raise InputError(f"it computes with constants of more than {SMALL} entries; export with constant folding")
    return np.asarray(compute(arrays))


@rule("BatchNormalization")
def _batch_norm(r: Reader, at: dict[str, Any], x: Any, scale: Any, shift: Any, mean: Any, var: Any) -> Value:
    if at.get("training_mode", 0):
        raise InputError("it is in training; export the model in inference")
    a, b, m, v = (a_constant(c, "one of its parameters") for c in (scale, shift, mean, var))
    return r.assembly.batch_norm(a_value(x), a, b, m, v, float(at.get("epsilon", 1e-5)))


@rule("InstanceNormalization")
def _instance_norm(r: Reader, at: dict[str, Any], x: Any, scale: Any, shift: Any) -> Value:
    a, b = a_constant(scale, "its scale"), a_constant(shift, "its shift")
    y = r.assembly.standardised(a_value(x), at.get("epsilon", 1e-5))
    return y if np.all(a == 1) and np.all(b == 0) else r.assembly.scale_shift(y, a, b)


@rule("GroupNormalization")
def _group_norm(r: Reader, at: dict[str, Any], x: Any, scale: Any, shift: Any) -> Value:
    x, a, b = a_value(x), a_constant(scale, "its scale"), a_constant(shift, "its shift")
    groups, channels = at["num_groups"], x.shape[0]
    y = r.assembly.standardised(x.reshaped((groups, -1)), at.get("epsilon", 1e-5)).reshaped(x.shape)
    if a.size == groups != channels:  # before opset 21: one for each group
        a, b = np.repeat(a, channels // groups), np.repeat(b, channels // groups)
    return r.assembly.scale_shift(y, a, b)


@rule("LayerNormalization")
def _layer_norm(r: Reader, at: dict[str, Any], x: Any, scale: Any, shift: Any = None) -> Value:
    x, a, b = a_value(x), a_constant(scale, "its scale"), maybe(shift, "its shift")
    if at.get("axis", -1) not in (1, -len(x.shape)):
        raise InputError(f"its axis is {at.get('axis', -1)}; expected 1, all entries of a sample")
    y = r.assembly.standardised(x.reshaped((1, -1)), at.get("epsilon", 1e-5)).reshaped(x.shape)
    y = r.assembly.scaled(y, a) if a.size > 1 or np.any(a != 1) else y
    return y if b is None else r.assembly.shifted(y, b)


# Shapes


@rule("Flatten")
def _flatten(r: Reader, at: dict[str, Any], x: Any) -> Value:
    x = a_value(x)
    if at.get("axis", 1) not in (1, -len(x.shape)):
        raise InputError(f"its axis is {at['axis']}; expected 1, each sample on its own")
    return x.reshaped((-1,))


@rule("Reshape")
def _reshape(r: Reader, at: dict[str, Any], x: Any, target: Any) -> Any:
    lengths = integers(target, "its shape")
    if isinstance(x, np.ndarray):
        r.count("reshaped", x.shape)
        return x.reshape([x.shape[i] if n == 0 and not at.get("allowzero", 0) else n for i, n in enumerate(lengths)])
    x = a_value(x)
    if not lengths or lengths[0] not in r.batch:
        raise InputError(f"it makes the shape {lengths}; expected the batch first, each sample on its own")
    rest = [x.shape[i] if n == 0 else n for i, n in enumerate(lengths[1:])]
    return x.reshaped(rest)


@rule("Squeeze")
def _squeeze(r: Reader, at: dict[str, Any], x: Any, axes: Any = None) -> Any:
    if isinstance(x, np.ndarray):
        own = integers(axes, "axes") if axes is not None else at.get("axes")
        return np.squeeze(x, None if own is None else tuple(own))
    x = a_value(x)
    given = axes_of(at, axes, x)
    if given is None or any(x.shape[a] != 1 for a in given):
        raise InputError(f"it takes the axes {given} off {x.shape}; expected axes of length 1, named")
    return x.reshaped([n for a, n in enumerate(x.shape) if a not in given])


@rule("Unsqueeze")
def _unsqueeze(r: Reader, at: dict[str, Any], x: Any, axes: Any = None) -> Any:
    own = integers(axes, "axes") if axes is not None else list(at["axes"])
    if isinstance(x, np.ndarray):
        return np.expand_dims(x, tuple(own))
    x = a_value(x)
    rank = len(x.shape) + 1 + len(own)
    own = sorted(a % rank for a in own)
    if own[0] == 0 or len(own) > SMALL:
        raise InputError("it adds an axis before the batch")
    shape = list(x.shape)
    for a in own:
        shape.insert(a - 1, 1)
    return x.reshaped(shape)


@rule("Transpose")
def _transpose(r: Reader, at: dict[str, Any], x: Any) -> Any:
    if isinstance(x, np.ndarray):
        return np.transpose(x, at.get("perm"))
    x, order = a_value(x), list(at.get("perm", ()))
    if sorted(order) != list(range(len(x.shape) + 1)) or order[0] != 0:
        raise InputError(f"its order is {order} for values with {len(x.shape) + 1} axes; expected the batch first")
    return x.transposed([a - 1 for a in order[1:]])


@rule("Pad")
def _pad(r: Reader, at: dict[str, Any], x: Any, pads: Any = None, value: Any = None, axes: Any = None) -> Value:
    x = a_value(x)
    lengths = integers(pads, "its padding") if pads is not None else list(at.get("pads", ()))
    constant = float(at.get("value", 0.0)) if value is None else float(a_constant(value, "its value").reshape(()))
    if at.get("mode", b"constant") != b"constant" or constant != 0 or axes is not None:
        raise InputError("it pads by other numbers than 0; expected constant zeros along all axes")
    if len(lengths) != 2 * (len(x.shape) + 1) or min(lengths, default=0) < 0:
        raise InputError(
            f"its padding is {lengths} for values with {len(x.shape) + 1} axes; expected numbers from 0 on"
        )
    if not any(lengths):
        return x
    batch0, channel0, *before, batch1, channel1 = lengths[: len(lengths) // 2 + 2]
    after = lengths[len(lengths) // 2 + 2 :]
    if len(x.shape) != 3 or any((batch0, channel0, batch1, channel1)) or any(x.pads):
        raise InputError(f"its padding is {lengths}; expected padding of rows and columns only, channels first")
    return replace(x, pads=(*before, *after))


@rule("Shape")
def _shape(r: Reader, at: dict[str, Any], x: Any) -> np.ndarray:
    shape = (BATCH, *x.shape) if isinstance(x, Value) else x.shape
    return np.asarray(shape[at.get("start", 0) : at.get("end", len(shape))], np.int64)


@rule("Gather")
def _gather(r: Reader, at: dict[str, Any], a: Any, index: Any) -> np.ndarray:
    a_constant(a, "its input"), a_constant(index, "its index")
    return _computed((a, index), lambda p: np.take(p[0], p[1], axis=at.get("axis", 0)))


@rule("Slice")
def _slice(r: Reader, at: dict[str, Any], a: Any, *bounds: Any) -> np.ndarray:
    a_constant(a, "its input")
    start, end = (
        integers(bounds[i], "its bounds") if len(bounds) > i else at[n] for i, n in enumerate(("starts", "ends"))
    )
    if len(start) != 1 or a.ndim != 1 or len(bounds) > 3:
        raise InputError("it cuts more than a list; expected a piece of a shape")
    return _computed((a,), lambda p: p[0][start[0] : end[0]])


@rule("Concat")
def _concat(r: Reader, at: dict[str, Any], *parts: Any) -> np.ndarray:
    for part in parts:
        a_constant(part, "one of its inputs")
    return _computed(parts, lambda p: np.concatenate(p, axis=at["axis"]))
