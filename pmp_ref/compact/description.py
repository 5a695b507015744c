"""A network as plain values for JSON, and back: only the stages of this package, every field checked."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from pmp_ref.errors import InputError, nearest
from pmp_ref.layers import (
    AveragePool,
    Convolution,
    Dense,
    Flatten,
    GlobalAveragePool,
    LeakyReLU,
    MaxPool,
    Merge,
    OnBranch,
    ReLU,
    ScaleShift,
    Sigmoid,
    SiLU,
    Softplus,
    Split,
    Stage,
    Standardise,
    Tanh,
)
from pmp_ref.network import Network
from pmp_ref.sweep import entries

STAGES: dict[str, type[Stage]] = {
    kind.__name__: kind
    for kind in (
        AveragePool,
        Convolution,
        Dense,
        Flatten,
        GlobalAveragePool,
        LeakyReLU,
        MaxPool,
        Merge,
        OnBranch,
        ReLU,
        ScaleShift,
        Sigmoid,
        SiLU,
        Softplus,
        Split,
        Standardise,
        Tanh,
    )
}
_DEPTH = 16  # OnBranch inside OnBranch; residual_net has one
_LARGEST = 2**26  # entries of a state, or of the patches of one, for one image: 0.25 GiB in float32
_STAGES = 10_000


def describe(network: Network) -> dict[str, Any]:
    """``{"input_shape": […], "stages": [{"kind": "Dense", "neurons": 10, "bias": true}, …]}``.

    Raises InputError for a stage of another package.
    """
    return {"input_shape": list(network.input_shape), "stages": [_describe(stage) for stage in network.stages]}


def _describe(stage: Stage) -> dict[str, Any]:
    kind = type(stage).__name__
    if STAGES.get(kind) is not type(stage):
        raise InputError(f"the stage {stage} is not of this package; a model file holds only {', '.join(STAGES)}")
    values = {f.name: getattr(stage, f.name) for f in fields(stage)}  # type: ignore[arg-type]
    plain = {
        k: _describe(v) if isinstance(v, Stage) else list(v) if isinstance(v, tuple) else v for k, v in values.items()
    }
    return {"kind": kind} | plain


def network_from(description: Any) -> Network:
    """Inverse of :func:`describe`; InputError for anything that it would not have written, or that is very large."""
    if not isinstance(description, dict) or set(description) != {"input_shape", "stages"}:
        raise InputError("the network is no object with input_shape and stages")
    shape, stages = description["input_shape"], description["stages"]
    if not isinstance(shape, list) or not shape or not all(_whole(n, 1) for n in shape):
        raise InputError(f"input_shape is {str(shape)[:80]}; expected a list of positive integers")
    if not isinstance(stages, list) or not 0 < len(stages) <= _STAGES:
        raise InputError(f"the network has no list of 1 to {_STAGES} stages")
    network = Network(tuple(_stage(s, 0) for s in stages), tuple(shape))
    for l, stage in enumerate(network.stages):
        _check_size(l, stage, network.shapes[l], network.shapes[l + 1])
    return network


def _whole(n: Any, least: int) -> bool:
    return type(n) is int and least <= n <= 2**31


def _stage(value: Any, depth: int) -> Stage:
    if not isinstance(value, dict) or depth > _DEPTH:
        raise InputError("a stage is no object, or too many are nested")
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in STAGES:
        raise InputError(f"unknown stage {str(kind)[:40]!r}: {nearest(kind, STAGES)}")
    expected = {f.name: str(f.type) for f in fields(STAGES[kind])}  # type: ignore[arg-type]
    if set(value) != {"kind", *expected}:
        raise InputError(f"the stage {kind} has the fields {sorted(map(str, value))[:12]}; expected {sorted(expected)}")
    return STAGES[kind](**{name: _field(kind, name, form, value[name], depth) for name, form in expected.items()})


def _field(kind: str, name: str, form: str, v: Any, depth: int) -> Any:
    """The value of a field by its annotation: Stage, bool, float, int, a pair of ints, or None."""
    if form == "Stage":
        return _stage(v, depth + 1)
    if form == "bool" and type(v) is bool:
        return v
    if form == "float" and type(v) in (int, float) and math.isfinite(v):
        return float(v)
    if form.startswith("int") and _whole(v, 0):
        return v
    if "tuple" in form and isinstance(v, list) and len(v) == 2 and all(_whole(n, 0) for n in v):
        return v[0], v[1]
    if "None" in form and v is None:
        return None
    raise InputError(f"the stage {kind} has {name} {str(v)[:40]!r}; expected {form}")


def _check_size(l: int, stage: Stage, enters: Any, leaves: Any) -> None:
    """InputError if one image would need very large arrays; controls are held to the file's own size elsewhere."""
    while isinstance(stage, OnBranch):
        enters, leaves, stage = enters[stage.branch], leaves[stage.branch], stage.stage
    largest = max(entries(enters), entries(leaves))
    if isinstance(stage, Convolution | AveragePool | MaxPool):
        w = stage.windows
        padded = enters[0] * math.prod(n + 2 * p for n, p in zip(enters[1:], w.padding, strict=True))
        largest = max(largest, padded, enters[0] * math.prod(w.size) * math.prod(leaves[1:]))
    if largest > _LARGEST:
        raise InputError(f"stage {l} ({stage}) needs {largest} numbers for one image; expected at most {_LARGEST}")
