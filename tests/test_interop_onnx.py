"""ONNX in and out: drawn networks both ways, each operator against onnxruntime, refusals, hostile files."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pmp_ref as pr
from pmp_ref.controls import arrays_of, cast
from pmp_ref.model import behind_pixels
from tests.strategies import networks
from tests.test_compact import drawn_controls

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason="onnx and onnxruntime are not installed (extra onnx)")
OPSET = 17
F32 = np.float32


def run(content: bytes, x: np.ndarray, output: str | None = None) -> np.ndarray:
    """What onnxruntime gives; ``images`` or whatever the only input is called."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None if output is None else [output], {session.get_inputs()[0].name: x})[0]  # type: ignore[no-any-return]


def close(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Rounding in float32; a mistake changes outputs by parts."""
    assert ours.shape == theirs.shape
    assert np.max(np.abs(ours - theirs)) <= 1e-4 * max(1, np.max(np.abs(theirs)))


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(F32)


Node = tuple[str, list[str], list[str], dict[str, Any]]


def graph(
    nodes: list[Node],
    constants: dict[str, np.ndarray],
    shape: tuple[Any, ...],
    kind: str = "FLOAT",
    opset: int = OPSET,
    output: str = "y",
) -> bytes:
    """A file with these nodes from x to y."""
    import onnx
    from onnx import helper as h

    types = onnx.TensorProto
    made = h.make_graph(
        [h.make_node(op, i, o, name=f"n{k}", **at) for k, (op, i, o, at) in enumerate(nodes)],
        "g",
        [h.make_tensor_value_info("x", getattr(types, kind), shape)],
        [h.make_tensor_value_info(output, types.FLOAT, None)],
        [onnx.numpy_helper.from_array(a, name) for name, a in constants.items()],
    )
    return h.make_model(made, opset_imports=[h.make_opsetid("", opset)], ir_version=8).SerializeToString()  # type: ignore[no-any-return]


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., pr.Model]:
    """The model in a file with this content."""

    def from_bytes(content: bytes, **given: Any) -> pr.Model:
        (tmp_path / "m.onnx").write_bytes(content)
        return pr.from_onnx(tmp_path / "m.onnx", **given)

    return from_bytes


# --- Out and in ----------------------------------------------------------------------------------------------------


@needs_onnx
@given(networks(smooth=False), st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
def test_drawn_networks_come_back_with_the_bits_of_their_weights(
    network: pr.Network, seed: int, as_bytes: bool, sparse: bool
) -> None:
    import onnx

    from pmp_ref.interop.onnx_in import parse
    from pmp_ref.interop.onnx_out import Graph

    generator = np.random.default_rng(seed)
    controls = cast(drawn_controls(network, seed), "float32")
    if sparse:
        controls = tuple(tuple(np.where(generator.random(a.shape) < 0.9, F32(0), a) for a in u) for u in controls)
    c = network.input_shape[0]
    model = pr.Model(network, controls)
    if as_bytes:
        model = behind_pixels(model, (0.4,) * c, tuple(np.linspace(0.2, 0.3, c)))
    content = Graph(model).build(onnx, sparse)
    back = parse(onnx, content, "drawn", None)
    assert back.network.reads == model.network.reads
    assert [type(s) for s in back.network.stages] == [type(s) for s in model.network.stages]
    for a, b in zip(arrays_of(back.controls), arrays_of(controls), strict=True):
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()
    shape = (3, *network.input_shape)
    x = generator.integers(0, 256, shape, np.uint8) if as_bytes else generator.standard_normal(shape).astype(F32)
    close(back.outputs(x), run(content, x, "states"))
    close(back.outputs(x), model.outputs(x))
    if as_bytes:
        there, here = back.network.stages[0], model.network.stages[0]
        assert isinstance(there, pr.Pixels) and isinstance(here, pr.Pixels)
        assert there.mean == pytest.approx(here.mean, rel=1e-6) and there.std == pytest.approx(here.std, rel=1e-6)


@needs_onnx
def test_a_sparse_model_makes_a_smaller_file_and_a_dense_one_no_sparse_tensors(tmp_path: Path) -> None:
    import onnx

    network = pr.Network([pr.Flatten(), pr.Dense(50), pr.Tanh(), pr.Dense(3)], (1, 20, 21))
    dense = tuple(tuple(normal(*shape) for shape in shapes) for shapes in network.control_shapes)
    thin = tuple(tuple(np.where(np.arange(a.size).reshape(a.shape) % 20, F32(0), a) for a in u) for u in dense)
    sizes, tensors = [], []
    for name, controls in (("dense", dense), ("thin", thin)):
        assert "agrees on" in pr.Model(network, controls).to_onnx(tmp_path / name, sparse=True)
        sizes.append((tmp_path / name).stat().st_size)
        tensors.append(len(onnx.load(tmp_path / name).graph.sparse_initializer))
    assert sizes[1] < 0.2 * sizes[0] and tensors == [0, 2]


@needs_onnx
def test_a_vector_as_input_and_no_onnxruntime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    network = pr.Network([pr.Dense(4), pr.SiLU(), pr.Dense(3, bias=False)], (5,))
    model = pr.Model(network, cast(drawn_controls(network, 1), "float32"))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "not compared" in model.to_onnx(tmp_path / "v.onnx")
    x = normal(6, 5)
    close(pr.from_onnx(tmp_path / "v.onnx").outputs(x), model.outputs(x))


def test_without_onnx_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    (tmp_path / "a.onnx").write_bytes(b"")
    with pytest.raises(pr.InputError, match="pip install onnx"):
        pr.from_onnx(tmp_path / "a.onnx")


# --- Operators, as exporters write them ------------------------------------------------------------------------------

END: list[Node] = [("Flatten", ["h"], ["f"], {}), ("Gemm", ["f", "W", "b"], ["y"], {"transB": 1})]
IMAGE = (2, 6, 7)


def with_head(nodes: list[Node], constants: dict[str, np.ndarray], entries: int, **given: Any) -> bytes:
    """The nodes from x to h, then a dense layer to y."""
    return graph(
        nodes + END, constants | {"W": normal(3, entries, seed=8), "b": normal(3, seed=9)}, ("N", *IMAGE), **given
    )


K = normal(4, 2, 3, 2)
CASES: dict[str, tuple[list[Node], dict[str, np.ndarray], int]] = {
    "convolution, strides, dilations, unequal axes": (
        [("Conv", ["x", "K", "c"], ["h"], {"strides": [2, 1], "dilations": [1, 2], "pads": [1, 2, 1, 2]})],
        {"K": K, "c": normal(4)},
        4 * 3 * 9,
    ),
    "convolution in groups without bias": (
        [("Conv", ["x", "K"], ["h"], {"group": 2})],
        {"K": normal(4, 1, 3, 2)},
        4 * 4 * 6,
    ),
    "padding that differs at the ends": (
        [("Conv", ["x", "K", "c"], ["h"], {"strides": [2, 2], "pads": [0, 2, 1, 1]})],
        {"K": K, "c": normal(4)},
        4 * 3 * 5,
    ),
    "padding that differs, dilated": (
        [("Conv", ["x", "K"], ["h"], {"dilations": [2, 1], "pads": [2, 0, 0, 1]})],
        {"K": K},
        4 * 4 * 7,
    ),
    "SAME_UPPER": ([("Conv", ["x", "K"], ["h"], {"auto_pad": "SAME_UPPER", "strides": [2, 2]})], {"K": K}, 4 * 3 * 4),
    "SAME_LOWER": ([("Conv", ["x", "K"], ["h"], {"auto_pad": "SAME_LOWER", "strides": [1, 2]})], {"K": K}, 4 * 6 * 4),
    "Pad before a convolution": (
        [("Pad", ["x", "p"], ["q"], {}), ("Conv", ["q", "K"], ["h"], {"pads": [1, 0, 0, 0]})],
        {"K": K, "p": np.array([0, 0, 1, 0, 0, 0, 0, 1])},
        4 * 6 * 7,
    ),
    "pools": (
        [
            ("AveragePool", ["x"], ["a"], {"kernel_shape": [2, 3], "strides": [1, 2]}),
            ("MaxPool", ["a"], ["h"], {"kernel_shape": [2, 1], "strides": [2, 1], "ceil_mode": 0}),
        ],
        {},
        2 * 2 * 3,
    ),
    "padded pools": (
        [
            ("MaxPool", ["x"], ["m"], {"kernel_shape": [3, 2], "strides": [1, 1], "pads": [1, 0, 1, 0]}),
            ("AveragePool", ["m"], ["a"], {"kernel_shape": [2, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
            ("AveragePool", ["a"], ["h"], {"kernel_shape": [3, 3], "strides": [2, 3], "pads": [1, 1, 1, 1]}),
        ],
        {},
        2 * 4 * 2,
    ),
    "Pad before a mean": (
        [("Pad", ["x", "p"], ["q"], {}), ("AveragePool", ["q"], ["h"], {"kernel_shape": [2, 3], "strides": [2, 1]})],
        {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
        2 * 4 * 7,
    ),
    "batch norm": (
        [("BatchNormalization", ["x", "g", "c", "m", "v"], ["h"], {"epsilon": 1e-3})],
        {"g": normal(2), "c": normal(2, seed=1), "m": normal(2, seed=2), "v": np.abs(normal(2, seed=3))},
        2 * 6 * 7,
    ),
    "group norm as PyTorch exports it": (
        [
            ("Reshape", ["x", "r"], ["a"], {}),
            ("InstanceNormalization", ["a", "one", "nought"], ["i"], {"epsilon": 1e-4}),
            ("Shape", ["x"], ["s"], {}),
            ("Reshape", ["i", "s"], ["u"], {}),
            ("Mul", ["u", "g"], ["v"], {}),
            ("Add", ["v", "c"], ["h"], {}),
        ],
        {
            "r": np.array([0, 1, -1]),
            "one": np.ones(1, F32),
            "nought": np.zeros(1, F32),
            "g": normal(2, 1, 1),
            "c": normal(2, 1, 1, seed=4),
        },
        2 * 6 * 7,
    ),
    "activations": (
        [
            ("LeakyRelu", ["x"], ["a"], {"alpha": 0.3}),
            ("Tanh", ["a"], ["b1"], {}),
            ("Softplus", ["b1"], ["c"], {}),
            ("Sigmoid", ["c"], ["d"], {}),
            ("Mul", ["c", "d"], ["e"], {}),
            ("Relu", ["e"], ["h"], {}),
        ],
        {},
        2 * 6 * 7,
    ),
    "a sigmoid that is read beside the product": (
        [
            ("Sigmoid", ["x"], ["s"], {}),
            ("Mul", ["s", "x"], ["m"], {}),
            ("Sub", ["m", "s"], ["h"], {}),
        ],
        {},
        2 * 6 * 7,
    ),
    "sums, weights, constants": (
        [
            ("Relu", ["x"], ["r"], {}),
            ("Mul", ["half", "r"], ["m"], {}),
            ("Sub", ["m", "x"], ["d"], {}),
            ("Div", ["d", "half"], ["e"], {}),
            ("Sum", ["e", "x", "r"], ["s"], {}),
            ("Add", ["shift", "s"], ["h"], {}),
        ],
        {"half": np.array(0.5, F32), "shift": normal(1, 2, 1, 1)},
        2 * 6 * 7,
    ),
    "global average, axes kept": (
        [("GlobalAveragePool", ["x"], ["g"], {}), ("Squeeze", ["g", "ax"], ["h"], {})],
        {"ax": np.array([2, -1])},
        2,
    ),
    "mean over pixels": ([("ReduceMean", ["x"], ["h"], {"axes": [-1, 2], "keepdims": 0})], {}, 2),
    "flattened by a computed shape": (
        [
            ("Shape", ["x"], ["s"], {}),
            ("Gather", ["s", "nought"], ["n"], {"axis": 0}),
            ("Unsqueeze", ["n", "front"], ["n1"], {}),
            ("Concat", ["n1", "rest"], ["t"], {"axis": 0}),
            ("Reshape", ["x", "t"], ["h"], {}),
        ],
        {"nought": np.array(0), "front": np.array([0]), "rest": np.array([-1])},
        2 * 6 * 7,
    ),
    "channels brought behind before flattening": (
        [
            ("Conv", ["x", "K"], ["k"], {}),
            ("Transpose", ["k"], ["t"], {"perm": [0, 2, 3, 1]}),
            ("Add", ["t", "c"], ["u"], {}),
            ("Relu", ["u"], ["h"], {}),
        ],
        {"K": K, "c": normal(4)},
        4 * 4 * 6,
    ),
    "a state that is read with its constant and without": (
        [
            ("Conv", ["x", "K"], ["k"], {}),
            ("Add", ["k", "c"], ["s"], {}),
            ("Tanh", ["s"], ["t"], {}),
            ("Add", ["t", "k"], ["h"], {}),
        ],
        {"K": K, "c": normal(1, 4, 1, 1)},
        4 * 4 * 6,
    ),
    "weights in another shape": (
        [("Reshape", ["flat", "ks"], ["K"], {}), ("Identity", ["K"], ["K1"], {}), ("Conv", ["x", "K1"], ["h"], {})],
        {"flat": K.reshape(-1), "ks": np.array(K.shape)},
        4 * 4 * 6,
    ),
}


@needs_onnx
@pytest.mark.parametrize("case", CASES, ids=str)
def test_operators_agree_with_onnxruntime(case: str, read: Callable[..., pr.Model]) -> None:
    content, x = with_head(*CASES[case]), normal(3, *IMAGE, seed=7)
    model = read(content)
    close(model.outputs(x), run(content, x))
    assert model.dtype == "float32"


@needs_onnx
def test_a_matrix_product_with_a_bias_behind_it_is_one_stage(read: Callable[..., pr.Model]) -> None:
    nodes: list[Node] = [("MatMul", ["x", "W"], ["m"], {}), ("Add", ["m", "b"], ["y"], {})]
    content = graph(nodes, {"W": normal(5, 3), "b": normal(3)}, ("N", 5))
    model = read(content)
    assert model.network.stages == (pr.Dense(3),)
    close(model.outputs(normal(4, 5, seed=2)), run(content, normal(4, 5, seed=2)))


@needs_onnx
def test_channels_last_as_other_exporters_write_them(read: Callable[..., pr.Model]) -> None:
    nodes: list[Node] = [
        ("Sub", ["x", "m"], ["s"], {}),
        ("Transpose", ["s"], ["t"], {"perm": [0, 3, 1, 2]}),
        ("Conv", ["t", "K"], ["k"], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ("Transpose", ["k"], ["u"], {"perm": [0, 2, 3, 1]}),
        ("Add", ["u", "c"], ["v"], {}),
        ("Reshape", ["v", "r"], ["f"], {}),
        ("MatMul", ["f", "W"], ["y"], {}),
    ]
    constants = {"m": normal(2), "K": K, "c": normal(4), "r": np.array([-1, 48]), "W": normal(48, 3)}
    content = graph(nodes, constants, ("N", 6, 7, 2))
    x = normal(3, *IMAGE)
    close(read(content).outputs(x), run(content, np.ascontiguousarray(x.transpose(0, 2, 3, 1))))


@needs_onnx
def test_statistics_may_be_given_and_bytes_bring_their_own(read: Callable[..., pr.Model]) -> None:
    content = with_head([("Relu", ["x"], ["h"], {})], {}, 84)
    raw = np.random.default_rng(0).integers(0, 256, (3, *IMAGE), np.uint8)
    model = read(content, mean=(0.5, 0.4), std=(0.2, 0.3), class_names=("a", "b", "c"))
    close(model.outputs(raw), run(content, pr.standardise(raw, (0.5, 0.4), (0.2, 0.3), F32)))
    assert model.class_names == ("a", "b", "c")
    as_bytes = with_head([("Cast", ["x"], ["c"], {"to": 1}), ("Relu", ["c"], ["h"], {})], {}, 84, kind="UINT8")
    close(read(as_bytes).outputs(raw), run(as_bytes, raw))
    with pytest.raises(pr.InputError, match="leave them out"):
        read(as_bytes, mean=(0.0, 0.0), std=(1.0, 1.0))


@needs_onnx
def test_another_output_can_be_named(read: Callable[..., pr.Model]) -> None:
    nodes: list[Node] = [
        ("Flatten", ["x"], ["f"], {}),
        ("Gemm", ["f", "W"], ["z"], {"transB": 1}),
        ("Softmax", ["z"], ["y"], {}),
    ]
    content = graph(nodes, {"W": normal(3, 84)}, ("N", *IMAGE))
    with pytest.raises(pr.InputError, match=r"node 'n2' \(Softmax\): no stage does this"):
        read(content)
    assert len(read(content, output="z").network.stages) == 2
    with pytest.raises(pr.InputError, match="there is no tensor 'w'"):
        read(content, output="w")


# --- Refusals --------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[list[Node], dict[str, np.ndarray], str]] = {
    "unknown operator": ([("Erf", ["x"], ["h"], {})], {}, r"node 'n0' \(Erf\): no stage does this"),
    "pool padded at one end": (
        [("MaxPool", ["x"], ["h"], {"kernel_shape": [3, 3], "pads": [0, 0, 1, 1]})],
        {},
        r"node 'n0' \(MaxPool\): its padding is \(0, 0\) before",
    ),
    "pool padded by more than half": (
        [("MaxPool", ["x"], ["h"], {"kernel_shape": [3, 3], "pads": [2, 1, 2, 1]})],
        {},
        "at most half",
    ),
    "zeros before a maximum": (
        [("Pad", ["x", "p"], ["q"], {}), ("MaxPool", ["q"], ["h"], {"kernel_shape": [2, 2]})],
        {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
        "convolutions and means only",
    ),
    "padded windows over the edge": (
        [
            (
                "MaxPool",
                ["x"],
                ["h"],
                {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1},
            )
        ],
        {},
        "ceil_mode",
    ),
    "windows over the edge": (
        [("AveragePool", ["x"], ["h"], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1})],
        {},
        "ceil_mode",
    ),
    "product of values": ([("Mul", ["x", "x"], ["h"], {})], {}, "multiplies values"),
    "constant within a channel": ([("Add", ["x", "c"], ["h"], {})], {"c": normal(1, 7)}, "within a channel"),
    "constant by sample": ([("Add", ["x", "c"], ["h"], {})], {"c": normal(3, 2, 1, 1)}, "sample to sample"),
    "padding that a dilation does not divide": (
        [("Conv", ["x", "K"], ["h"], {"dilations": [2, 2], "pads": [1, 0, 0, 0]})],
        {"K": K},
        "does not divide",
    ),
    "samples mixed": ([("Reshape", ["x", "r"], ["h"], {})], {"r": np.array([2, -1])}, "the batch first"),
    "kernel of other channels": (
        [("Conv", ["x", "K"], ["h"], {})],
        {"K": normal(4, 3, 2, 2)},
        "weights have the shapes",
    ),
    "images out of order": (
        [("Transpose", ["x"], ["t"], {"perm": [0, 1, 3, 2]}), ("Conv", ["t", "K"], ["h"], {})],
        {"K": K},
        "by transposing or reshaping",
    ),
    "weights that are no numbers": (
        [("Add", ["x", "c"], ["h"], {})],
        {"c": np.full((1, 2, 1, 1), np.inf, F32)},
        "NaN or",
    ),
}


@needs_onnx
@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_what_has_no_stage_is_refused_with_node_operator_and_reason(case: str, read: Callable[..., pr.Model]) -> None:
    nodes, constants, said = REFUSED[case]
    with pytest.raises(pr.InputError, match=said) as caught:
        read(with_head(nodes, constants, 84))
    assert "m.onnx" in str(caught.value) and "\n" not in str(caught.value)


@needs_onnx
def test_data_in_other_files_are_not_read(read: Callable[..., pr.Model], tmp_path: Path) -> None:
    import onnx

    whole = onnx.load_model_from_string(with_head([("Conv", ["x", "K"], ["h"], {})], {"K": K}, 96))
    onnx.save(whole, tmp_path / "e.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(pr.InputError, match="another file, which is not read"):
        pr.from_onnx(tmp_path / "e.onnx")


@needs_onnx
def test_files_that_are_none_or_ask_for_much(read: Callable[..., pr.Model], tmp_path: Path) -> None:
    import onnx

    with pytest.raises(pr.InputError, match="no ONNX file"):
        read(b"\x00not protobuf\xff" * 3)
    with pytest.raises(pr.InputError, match="no file"):
        pr.from_onnx(tmp_path / "nowhere.onnx")
    with pytest.raises(pr.InputError, match=r"\(E\?rf\)"):  # found by fuzzing: a name that breaks the line
        read(graph([("E\x1crf", ["x"], ["y"], {})], {}, ("N", 5)))
    with pytest.raises(pr.InputError, match="fixed"):
        read(graph(END, {}, ("N", 2, "H", "W")))
    with pytest.raises(pr.InputError, match="opset is 6"):
        read(with_head([], {}, 84, opset=6))
    whole = onnx.load_model_from_string(with_head([("Conv", ["x", "K"], ["h"], {})], {"K": K}, 96))
    whole.graph.initializer[0].dims[:] = [2**20, 2**20, 1, 1]
    with pytest.raises(pr.InputError, match="entries; at most"):
        read(whole.SerializeToString())
    many: list[Node] = [("Gemm", [f"d{k}" if k else "x", "A"], [f"d{k + 1}"], {}) for k in range(40)]
    with pytest.raises(pr.InputError, match="expected a smaller network"):  # one array, copied into each stage
        read(graph(many, {"A": np.zeros((2000, 2000), F32)}, ("N", 2000), output="d40"))
