"""A model as an ONNX graph, behind the extra ``onnx``: from images to classes' states and probabilities.

Input ``images``: of a model that takes bytes, uint8 (N, C, H, W), pixels 0 to 255 as in a file, and the standardisation
is part of the graph; else float32, as the network takes them. Outputs ``states`` (N, classes), the final state, and
``probabilities``, its softmax. Always float32: onnxruntime has no convolution in float64. Weights are stored
dense unless asked otherwise; they run dense in any case, for ONNX has no operator for a sparse product.
"""

from __future__ import annotations

from typing import Any

import numpy as np

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
    Standardise,
    Tanh,
    WeightedSum,
)
from pmp_ref.model import Model

OPSET = 17  # has all operators used; read by onnxruntime since 1.12
IR = 8  # the format of that opset's time, so that older readers take the file
ALLOWED = 1e-4  # of the largest output, between onnxruntime and this package: both round in float32, in other orders
ELEMENTWISE = {Tanh: "Tanh", Sigmoid: "Sigmoid", Softplus: "Softplus", ReLU: "Relu"}


def export(model: Model, raw: np.ndarray, sparse: bool = False) -> tuple[bytes, str]:
    """The file's content, compared with onnxruntime on images where that is installed, and a sentence on that.

    Raises InputError if onnx is missing, for stages without a counterpart, and if the outputs differ.
    """
    try:
        import onnx
    except ImportError:
        raise InputError("ONNX needs the package onnx, which is missing: pip install onnx onnxruntime") from None
    content = Graph(model).build(onnx, sparse)
    try:
        import onnxruntime
    except ImportError:
        return content, "not compared: onnxruntime is not installed"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (theirs,) = session.run(["states"], {"images": raw if model.network.takes_bytes else raw.astype(np.float32)})
    ours = model.outputs(raw)
    difference, scale = float(np.max(np.abs(theirs - ours))), max(1.0, float(np.max(np.abs(ours))))
    if not difference <= ALLOWED * scale:
        raise InputError(
            f"onnxruntime gives other outputs: they differ by {difference:.3g}, allowed "
            f"{ALLOWED * scale:.3g}; nothing was written: please report this with the run"
        )
    return content, f"onnxruntime {onnxruntime.__version__} agrees on {len(raw)} images to {difference:.1e}"


def thinner(onnx: Any, name: str, a: np.ndarray) -> Any:
    """The array as a sparse tensor, 8 bytes for the index of each entry but +0; None where that is no smaller."""
    index = np.flatnonzero((a != 0) | np.signbit(a))  # −0 keeps its sign
    if a.ndim < 2 or index.size * (a.itemsize + 8) >= a.nbytes:
        return None
    values = onnx.numpy_helper.from_array(a.reshape(-1)[index], name)
    return onnx.helper.make_sparse_tensor(values, onnx.numpy_helper.from_array(index.astype(np.int64)), a.shape)


class Graph:
    """Nodes and constants, collected stage by stage; a state is the name of a tensor."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}

    def build(self, onnx: Any, sparse: bool = False) -> bytes:
        """The serialised model, checked by onnx; with ``sparse``, weights go sparse where that takes fewer bytes, after
        the check of types, which takes a sparse weight for a mistake where onnxruntime does not."""
        self.make = onnx.helper.make_node
        network = self.model.network
        x, kind = "images", onnx.TensorProto.FLOAT
        if network.takes_bytes:
            x, kind = self.add("Cast", [x], to=onnx.TensorProto.FLOAT), onnx.TensorProto.UINT8

        def step(l: int, entering: Any) -> str:
            shape = network.entering(l, network.shapes)
            return self.stage(network.stages[l], [to_numpy(a) for a in self.model.controls[l]], shape, entering)

        state = network.propagate(step, x)[-1]
        self.nodes.append(self.make("Identity", [state], ["states"]))
        self.nodes.append(self.make("Softmax", [state], ["probabilities"], axis=1))
        value = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            self.nodes,
            "pmp_ref",
            [value("images", kind, ["N", *network.input_shape])],
            [value(name, onnx.TensorProto.FLOAT, ["N", *network.output_shape]) for name in ("states", "probabilities")],
            [onnx.numpy_helper.from_array(a, name) for name, a in self.constants.items()],
        )
        whole = onnx.helper.make_model(
            graph, producer_name="pmp_ref", ir_version=IR, opset_imports=[onnx.helper.make_opsetid("", OPSET)]
        )
        onnx.checker.check_model(whole, full_check=True)
        if sparse:
            thin = {name: t for name, a in self.constants.items() if (t := thinner(onnx, name, a)) is not None}
            dense = [tensor for tensor in whole.graph.initializer if tensor.name not in thin]
            del whole.graph.initializer[:]
            whole.graph.initializer.extend(dense)
            whole.graph.sparse_initializer.extend(thin.values())
            onnx.checker.check_model(whole)
        return bytes(whole.SerializeToString())

    def add(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        """A node; the name of its output."""
        name = f"x{len(self.nodes)}"
        self.nodes.append(self.make(operator, inputs, [name], **attributes))
        return name

    def constant(self, a: Any, dtype: Any = np.float32) -> str:
        """A stored array; its name."""
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(a, dtype)
        return name

    def stage(self, stage: Any, u: list[np.ndarray], shape: Any, x: Any) -> str:
        """The nodes of one stage."""
        kind = type(stage)
        if kind is WeightedSum:
            terms = [
                a if w == 1 else self.add("Mul", [a, self.constant(w)]) for w, a in zip(stage.weights, x, strict=True)
            ]
            return self.add("Sum", terms)
        if kind is Pixels:
            mean, std = (np.reshape(a, (1, -1, *(1,) * (len(shape) - 1))) for a in (stage.mean, stage.std))
            y = self.add("Mul", [x, self.constant(1 / (255 * std))])
            return self.add("Sub", [y, self.constant(mean / std)])
        if kind in ELEMENTWISE:
            return self.add(ELEMENTWISE[kind], [x])
        if isinstance(stage, LeakyReLU):
            return self.add("LeakyRelu", [x], alpha=stage.leak)
        if kind is SiLU:
            return self.add("Mul", [x, self.add("Sigmoid", [x])])
        if kind is Flatten:
            return self.add("Flatten", [x], axis=1)
        if kind is GlobalAveragePool:
            return self.add("Flatten", [self.add("GlobalAveragePool", [x])], axis=1)
        if isinstance(stage, AveragePool | MaxPool):
            w = stage.windows
            means = {"count_include_pad": int(stage.count_include_pad)} if isinstance(stage, AveragePool) else {}
            return self.add(
                "AveragePool" if means else "MaxPool",
                [x],
                kernel_shape=list(w.size),
                strides=list(w.stride),
                pads=[*w.padding, *w.padding],
                **means,
            )
        if isinstance(stage, Dense):
            return self.add("Gemm", [x, *map(self.constant, u)], transB=1)
        if isinstance(stage, Convolution):
            w = stage.windows
            return self.add(
                "Conv",
                [x, *map(self.constant, u)],
                group=stage.groups,
                kernel_shape=list(w.size),
                strides=list(w.stride),
                dilations=list(w.dilation),
                pads=[*w.padding, *w.padding],
            )
        if isinstance(stage, ScaleShift):
            along = [self.constant(a.reshape(-1, *(1,) * (len(shape) - 1))) for a in u]
            y = self.add("Mul", [x, along[0]])
            return self.add("Add", [y, along[1]]) if stage.bias else y
        if isinstance(stage, Standardise):
            g = stage.groups
            y = self.add("Reshape", [x, self.constant([0, g, -1], np.int64)])
            y = self.add(
                "InstanceNormalization", [y, self.constant(np.ones(g)), self.constant(np.zeros(g))], epsilon=stage.delta
            )
            return self.add("Reshape", [y, self.constant([-1, *shape], np.int64)])
        raise InputError(f"the stage {stage} has no counterpart in ONNX")
