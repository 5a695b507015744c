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
from pmp_ref.network import Network

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
}
LATER = {"AveragePool": ("padding", "count_include_pad"), "MaxPool": ("padding",)}  # left out where older versions did
OLDER = (
    "it is of an older version, which numbered the stages of networks with skips otherwise: use that version of "
    "pmp_ref, or train again"
)
_LARGEST = 2**26  # entries of a state, or of the patches of one, for one image: 0.25 GiB in float32
_STAGES = 10_000


def describe(network: Network) -> dict[str, Any]:
    """``{"input_shape": […], "stages": [{"kind": "Dense", "neurons": 10, "bias": true}, …], "reads": [[0], …]}``.

    Raises InputError for a stage of another package.
    """
    return {
        "input_shape": list(network.input_shape),
        "stages": [_describe(stage) for stage in network.stages],
        "reads": [list(states) for states in network.reads],
    }


def _describe(stage: Stage) -> dict[str, Any]:
    kind = type(stage).__name__
    if STAGES.get(kind) is not type(stage):
        raise InputError(f"the stage {stage} is not of this package; a model file holds only {', '.join(STAGES)}")
    values = {
        f.name: getattr(stage, f.name)
        for f in fields(stage)  # type: ignore[arg-type]
        if f.name not in LATER.get(kind, ()) or getattr(stage, f.name) != f.default
    }
    return {"kind": kind} | {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def network_from(description: Any) -> Network:
    """Inverse of :func:`describe`; InputError for anything that it would not have written, or that is very large.

    Descriptions of format 1 have no ``reads``; those of chains are read.
    """
    if not isinstance(description, dict) or set(description) | {"reads"} != {"input_shape", "stages", "reads"}:
        raise InputError("the network is no object with input_shape, stages and reads")
    shape, stages, reads = description["input_shape"], description["stages"], description.get("reads")
    if not isinstance(shape, list) or not shape or not all(_whole(n, 1) for n in shape):
        raise InputError(f"input_shape is {str(shape)[:80]}; expected a list of positive integers")
    if not isinstance(stages, list) or not 0 < len(stages) <= _STAGES:
        raise InputError(f"the network has no list of 1 to {_STAGES} stages")
    if reads is not None and not (isinstance(reads, list) and all(map(_states, reads))):
        raise InputError(f"reads is {str(reads)[:80]}; expected a list of the numbers of states for each stage")
    network = Network([_stage(s) for s in stages], tuple(shape), reads)
    for l in range(len(network.stages)):
        check_size(network, l)
    return network


def _states(value: Any) -> bool:
    return isinstance(value, list) and all(_whole(n, 0) for n in value)


def _whole(n: Any, least: int) -> bool:
    return type(n) is int and least <= n <= 2**31


def _stage(value: Any) -> Stage:
    if not isinstance(value, dict):
        raise InputError("a stage is no object")
    kind = value.get("kind")
    if kind in ("Split", "OnBranch", "Merge"):
        raise InputError(OLDER)
    if not isinstance(kind, str) or kind not in STAGES:
        raise InputError(f"unknown stage {str(kind)[:40]!r}: {nearest(kind, STAGES)}")
    expected = {f.name: str(f.type) for f in fields(STAGES[kind])}  # type: ignore[arg-type]
    expected = {name: form for name, form in expected.items() if name in value or name not in LATER.get(kind, ())}
    if set(value) != {"kind", *expected}:
        raise InputError(f"the stage {kind} has the fields {sorted(map(str, value))[:12]}; expected {sorted(expected)}")
    return STAGES[kind](**{name: _field(kind, name, form, value[name]) for name, form in expected.items()})


def _field(kind: str, name: str, form: str, v: Any) -> Any:
    """The value of a field by its annotation: bool, float, floats, int, a pair of ints, or None."""
    if form == "bool" and type(v) is bool:
        return v
    if form == "float" and _finite(v):
        return float(v)
    if form == "tuple[float, ...]" and isinstance(v, list) and all(map(_finite, v)):
        return tuple(map(float, v))
    if form.startswith("int") and _whole(v, 0):
        return v
    if "tuple" in form and isinstance(v, list) and len(v) == 2 and all(_whole(n, 0) for n in v):
        return v[0], v[1]
    if "None" in form and v is None:
        return None
    raise InputError(f"the stage {kind} has {name} {str(v)[:40]!r}; expected {form}")


def _finite(v: Any) -> bool:
    return type(v) in (int, float) and math.isfinite(v)


def check_size(network: Network, l: int) -> None:
    """InputError if one image would need very large arrays; controls are held to the file's own size elsewhere."""
    stage, enters, leaves = network.stages[l], network.entering(l, network.shapes), network.shapes[l + 1]
    largest = max(math.prod(network.shapes[i]) for i in (*network.reads[l], l + 1))
    if isinstance(stage, Convolution | AveragePool | MaxPool):
        w = stage.windows
        padded = enters[0] * math.prod(n + 2 * p for n, p in zip(enters[1:], w.padding, strict=True))
        largest = max(largest, padded, enters[0] * math.prod(w.size) * math.prod(leaves[1:]))
    if largest > _LARGEST:
        raise InputError(f"stage {l} ({stage}) needs {largest} numbers for one image; expected at most {_LARGEST}")
