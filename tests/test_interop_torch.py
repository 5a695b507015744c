"""PyTorch in and out: drawn networks both ways, modules as people write them, exporters, refusals."""

from __future__ import annotations

import importlib.util
import io
from dataclasses import replace
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

HAS_TORCH = importlib.util.find_spec("torch") is not None
HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
HAS_SCRIPT = HAS_ONNX and importlib.util.find_spec("onnxscript") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="PyTorch is not installed (extra torch)")

if HAS_TORCH:
    import torch
    from torch import nn
    from torch.nn import functional as F


def torch_outputs(module: Any, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module.eval()(torch.from_numpy(x)).numpy()  # type: ignore[no-any-return]


def close(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Rounding in the dtype; a mistake changes outputs by parts."""
    allowed = 1e-4 if ours.dtype == np.float32 else 1e-8
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
    assert np.max(np.abs(ours - theirs)) <= allowed * max(1, np.max(np.abs(theirs)))


def same_bits(a: Any, b: Any) -> None:
    for v, w in zip(arrays_of(a), arrays_of(b), strict=True):
        assert v.dtype == w.dtype and v.shape == w.shape and v.tobytes() == w.tobytes()


# --- Out and in ----------------------------------------------------------------------------------------------------


@needs_torch
@given(networks(smooth=False), st.integers(0, 2**32 - 1), st.sampled_from(["float32", "float64"]), st.booleans())
def test_drawn_networks_come_back_with_the_bits_of_their_weights(
    network: pr.Network, seed: int, dtype: str, as_bytes: bool
) -> None:
    controls = cast(drawn_controls(network, seed), dtype)
    c = network.input_shape[0]
    model = pr.Model(network, controls)
    if as_bytes:
        model = behind_pixels(model, (0.4,) * c, tuple(np.linspace(0.2, 0.3, c)))
    module = model.to_torch()
    generator, shape = np.random.default_rng(seed), (3, *network.input_shape)
    x = generator.integers(0, 256, shape, np.uint8) if as_bytes else generator.standard_normal(shape).astype(dtype)
    close(torch_outputs(module, x), model.outputs(x))

    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    other = replace(model, controls=tuple(tuple(0 * a for a in u) for u in model.controls)).to_torch()
    other.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    back = pr.from_torch(other, torch.from_numpy(x))
    assert back.network == model.network
    same_bits(back.controls, model.controls)


@needs_torch
@given(networks(smooth=False), st.integers(0, 2**32 - 1), st.sampled_from(["float32", "float64"]))
def test_drawn_networks_are_read_from_what_torch_runs(network: pr.Network, seed: int, dtype: str) -> None:
    """The trace of the module, not its memory of where it came from."""
    from pmp_ref.interop.torch_in import Reader, fx

    controls = cast(drawn_controls(network, seed), dtype)
    module = pr.Model(network, controls).to_torch()
    back = Reader(fx.symbolic_trace(module), network.input_shape).model(())
    x = np.random.default_rng(seed).standard_normal((3, *network.input_shape)).astype(dtype)
    close(back.outputs(x), torch_outputs(module, x))
    same_bits(back.controls, controls)


# --- Modules as people write them ------------------------------------------------------------------------------------

if HAS_TORCH:

    class Residual(nn.Module):
        """Blocks with batch norm and a projection, a mean, a flattening by x.size(0)."""

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, (3, 5), padding=(1, 2), bias=False)
            self.norm, self.other = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
            self.inner = nn.Conv2d(8, 8, 3, padding="same", groups=2)
            self.down = nn.Conv2d(8, 8, 1, stride=1)
            self.pool, self.drop = nn.AdaptiveAvgPool2d((1, 1)), nn.Dropout(0.5)
            self.head = nn.Linear(8, 5)
            for p in (self.norm, self.other):
                nn.init.uniform_(p.weight, 0.5, 2)
                nn.init.normal_(p.bias)
                p.running_mean.normal_()
                p.running_var.uniform_(0.5, 2)

        def forward(self, x: Any) -> Any:
            x = F.relu(self.norm(self.first(x)))
            y = self.other(self.inner(x))
            y += self.down(x)
            x = torch.add(torch.relu_(y) * 0.5, x, alpha=0.75)
            return self.head(self.drop(self.pool(x).view(x.size(0), -1)))

    class Functional(nn.Module):
        """Parameters of its own, functions, permutations, constants."""

        def __init__(self) -> None:
            super().__init__()
            self.k, self.b = nn.Parameter(torch.randn(4, 3, 2, 3)), nn.Parameter(torch.randn(4))
            self.w = nn.Parameter(torch.randn(6, 4 * 2 * 3))
            self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1))

        def forward(self, x: Any) -> Any:
            x = (x - self.mean) / 0.25
            x = F.conv2d(x, self.k, self.b, stride=(2, 1), dilation=(1, 2))
            x = F.group_norm(x, 2)
            x = F.leaky_relu(F.max_pool2d(x, (2, 1)), 0.2) - F.avg_pool2d(x, (2, 1))
            x = torch.sigmoid(x) * x
            x = x.permute(0, 2, 3, 1)
            return F.softplus(F.linear(x.reshape(x.shape[0], -1), self.w)).tanh()

    def sequential() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1),
            nn.GroupNorm(3, 6),
            nn.SiLU(),
            nn.MaxPool2d(3, 1, padding=1),
            nn.AvgPool2d(2, 1, padding=(1, 0), count_include_pad=False),
            nn.InstanceNorm2d(6),
            nn.Softplus(),
            nn.AvgPool2d((1, 2), padding=(0, 1)),
            nn.Identity(),
            nn.Flatten(),
            nn.Linear(6 * 6 * 3, 7),
            nn.LayerNorm(7),
            nn.BatchNorm1d(7),
            nn.Tanh(),
            nn.Linear(7, 4),
            nn.Sigmoid(),
        )

    SHAPES = {Residual: (3, 8, 11), Functional: (3, 9, 7), sequential: (3, 9, 9)}


@needs_torch
@pytest.mark.parametrize("name", ["Residual", "Functional", "sequential"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_modules_give_the_same_outputs(name: str, dtype: str) -> None:
    make = next(m for m in SHAPES if m.__name__ == name)
    torch.manual_seed(3)
    module = make().to(getattr(torch, dtype))
    x = np.random.default_rng(0).standard_normal((4, *SHAPES[make])).astype(dtype)
    model = pr.from_torch(module, torch.from_numpy(x))
    assert module.training, "the module stays as it was"
    close(model.outputs(x), torch_outputs(module, x))
    assert model.dtype == dtype
    close(model.to_torch()(torch.from_numpy(x)).detach().numpy(), torch_outputs(module, x))


@needs_torch
@pytest.mark.parametrize("name", ["Residual", "Functional", "sequential"])
@pytest.mark.parametrize("dynamo", [False, True], ids=["TorchScript", "dynamo"])
@pytest.mark.filterwarnings("ignore")  # of the exporters, on what will change in them
@pytest.mark.skipif(not HAS_ONNX, reason="onnx and onnxruntime are not installed (extra onnx)")
def test_what_both_exporters_write_is_read(name: str, dynamo: bool, tmp_path: Path) -> None:
    if dynamo and not HAS_SCRIPT:
        pytest.skip("onnxscript, which PyTorch's second exporter needs, is not installed")
    make = next(m for m in SHAPES if m.__name__ == name)
    torch.manual_seed(4)
    module = make().eval()
    x = torch.randn(2, *SHAPES[make])
    path = tmp_path / "m.onnx"
    axes = {"dynamic_shapes": ({0: torch.export.Dim("n")},)} if dynamo else {"dynamic_axes": {"x": {0: "n"}}}
    torch.onnx.export(module, (x,), str(path), input_names=["x"], dynamo=dynamo, external_data=False, **axes)
    model = pr.from_onnx(path)
    close(model.outputs(x.numpy()), torch_outputs(module, x.numpy()))
    more = torch.randn(5, *SHAPES[make]).numpy()
    close(model.outputs(more), torch_outputs(module, more))


@needs_torch
def test_statistics_and_names_are_taken() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(18, 2))
    model = pr.from_torch(module, torch.randn(2, 2, 3, 3), mean=(0.1, 0.2), std=(0.5, 0.6), class_names=("cat", "dog"))
    raw = np.random.default_rng(0).integers(0, 256, (3, 2, 3, 3), np.uint8)
    x = pr.standardise(raw, (0.1, 0.2), (0.5, 0.6), np.float32)
    close(model.outputs(raw), torch_outputs(module, x))
    assert model.class_names == ("cat", "dog")


# --- Refusals --------------------------------------------------------------------------------------------------------


def refused(module: Any, said: str, shape: tuple[int, ...] = (2, 3, 6, 6)) -> None:
    with pytest.raises(pr.InputError, match=said) as caught:
        pr.from_torch(module, torch.randn(*shape))
    assert "\n" not in str(caught.value)


@needs_torch
def test_what_has_no_stage_is_refused_with_node_operator_and_reason() -> None:
    end = (nn.Flatten(), nn.Linear(108, 2))
    refused(nn.Sequential(nn.GELU(), *end), r"node '_0' \(GELU\): no stage does this")
    refused(nn.Sequential(nn.MaxPool2d(2, 2, ceil_mode=True), *end), "ceil_mode", (2, 3, 5, 6))
    refused(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"), *end), "padding_mode is 'reflect'")
    refused(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), *end), "running statistics")
    refused(nn.Sequential(nn.Softplus(beta=2), *end), "beta is 2")
    refused(nn.Conv2d(3, 3, 3), "expected a vector")
    refused(nn.Identity(), "vector|no stage")
    refused("a module", "expected a torch.nn.Module")


if HAS_TORCH:

    class Branches(nn.Module):
        """Control flow that depends on values."""

        def forward(self, x: Any) -> Any:
            return x if x.sum() > 0 else -x

    class Products(nn.Module):
        """A product that is no stage."""

        def forward(self, x: Any) -> Any:
            return (x * x).flatten(1)

    class Batches(nn.Module):
        """Mixes samples."""

        def forward(self, x: Any) -> Any:
            return x.flatten(0)

    class Computes(nn.Module):
        """Arithmetic with the length of the batch."""

        def forward(self, x: Any) -> Any:
            return x.view(x.shape[0] * 2, -1)


@needs_torch
def test_forwards_that_cannot_be_read_are_refused() -> None:
    refused(Branches(), "torch.fx cannot trace Branches .*from_onnx")
    refused(Products(), r"node 'mul' \(mul\): it multiplies values")
    refused(Batches(), "flattens the batch")
    refused(Computes(), "length of the batch")


@needs_torch
def test_examples_and_images_that_do_not_fit_are_refused() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(108, 2)).double()
    refused(module, "does not take the example")
    as_bytes = pr.from_torch(module, torch.zeros(1, 3, 6, 6).double(), mean=(0.5,) * 3, std=(0.25,) * 3).to_torch()
    assert as_bytes(torch.zeros(1, 3, 6, 6, dtype=torch.uint8)).shape == (1, 2)
    with pytest.raises(pr.InputError, match="expected bytes"):
        as_bytes(torch.zeros(1, 3, 6, 6))


@needs_torch
def test_outputs_that_differ_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from pmp_ref.interop import torch_in

    monkeypatch.setitem(torch_in.MODULES, "Tanh", torch_in.called("sigmoid"))
    refused(nn.Sequential(nn.Flatten(), nn.Linear(108, 4), nn.Tanh()), "outputs on the example differ")


def test_without_torch_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in ("pmp_ref.interop.torch_in", "pmp_ref.interop.torch_out"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    model = pr.Model(pr.Network([pr.Dense(2)], (3,)), ((np.ones((2, 3)), np.ones(2)),))
    for call in (model.to_torch, lambda: pr.from_torch(None, None)):
        with pytest.raises(pr.InputError, match="pip install torch"):
            call()
