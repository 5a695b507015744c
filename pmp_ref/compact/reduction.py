"""Compaction: fold constants, merge them, remove what is unread, until nothing changes; and what is said about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pmp_ref.arrays import Controls, to_numpy
from pmp_ref.compact.constants import Range, constants
from pmp_ref.compact.fold import fold_constants, merge_constants
from pmp_ref.compact.units import draft, remove_unread, spans, tied, unread_units, without_reader
from pmp_ref.controls import arrays_of, map_controls
from pmp_ref.errors import InputError
from pmp_ref.layers import (
    Activation,
    AveragePool,
    Convolution,
    Dense,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    Pixels,
    ScaleShift,
    Stage,
    Standardise,
    WeightedSum,
)
from pmp_ref.layers.windows import patches_adjoint
from pmp_ref.network import Network


def compact(network: Network, controls: Controls, input_range: Range = None) -> tuple[Network, Controls]:
    """A smaller network with the same outputs up to rounding: without dead, constant and unread units.

    ``controls`` of any library; the result is NumPy, in their dtype, computed in float64 and rounded once. A unit is
    *dead* if all its weights are zero, *unread* if all weights that read it are. The steps are
    :func:`fold_constants`, :func:`merge_constants` and :func:`remove_unread`, repeated to a fixed point, so a second
    call changes nothing. ``input_range`` (low, high) bounds the inputs and lets more ReLU units be proven zero; the
    outputs agree for inputs inside it only. Raises InputError if controls do not fit or are not finite.
    """
    dtypes = map_controls(lambda a: str(to_numpy(a).dtype), controls)
    controls = in_float64(network, controls)
    while True:
        before = (network, controls)
        for step in (fold_constants, merge_constants):
            network, controls = step(network, controls, input_range)
        network, controls = remove_unread(network, controls)
        if network == before[0] and _equal(controls, before[1]):
            break
    types = [stage[0] if stage else "" for stage in dtypes]  # a bias that a stage got has the dtype of its kernel
    return network, tuple(tuple(a.astype(t) for a in u) for u, t in zip(controls, types, strict=True))


def in_float64(network: Network, controls: Controls) -> Controls:
    """Controls as float64 NumPy arrays, checked; raises InputError."""
    host = map_controls(lambda a: np.asarray(to_numpy(a), np.float64), controls)
    network.check_controls(host, np.zeros((1, *network.input_shape)))
    for l, u in enumerate(host):
        for name, a in zip(network.stages[l].control_names, u, strict=True):
            if not np.all(np.isfinite(a)):
                raise InputError(
                    f"the {name} of stage {l} ({network.stages[l]}) holds NaN or infinity; "
                    "expected finite controls: use those of a run that did not fail"
                )
    return host


def _equal(a: Controls, b: Controls) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(arrays_of(a), arrays_of(b), strict=True))


def constant_output(network: Network, controls: Controls, input_range: Range = None) -> np.ndarray | None:
    """The output, in float64, of a *disconnected* network, whose output does not depend on the input; else None."""
    end = constants(network, in_float64(network, controls), input_range)[-1]
    return end.value[0] if end.known.all() else None


@dataclass(frozen=True)
class Kept:
    """Units of a stage that do nothing of their own and stay all the same."""

    stage: int
    units: tuple[int, ...]
    reason: str


def kept(network: Network, controls: Controls, input_range: Range = None) -> list[Kept]:
    """Dead, constant and unread units that :func:`compact` leaves, and why; for a network that it returned."""
    host = in_float64(network, controls)
    states, d, found = constants(network, host, input_range), draft(network, host), []

    def note(stage: int, units: np.ndarray, reason: str) -> None:
        if units.any():
            found.append(Kept(stage, tuple(np.flatnonzero(units).tolist()), reason))

    for span in spans(network):
        unread, alone = unread_units(d, span), without_reader(d, span)
        note(span.maker, alone & ~unread, "no weight reads them, but they are standardised together with read channels")
        note(
            span.maker,
            unread,
            "a stage has at least one unit"
            if unread.all()
            else "standardisation or a grouped convolution takes channels in equal groups",
        )
        e = network.entering(span.reader, states)
        constant = e.known.reshape(unread.size, -1).all(axis=1) & ~alone
        note(span.maker, constant, "what is constant inside changes at the border, read across zero padding")
        k = d.controls[span.maker][0]
        dead = ~np.any(k != 0, axis=tuple(range(1, k.ndim)))
        note(span.maker, dead & ~alone & ~constant, "their constant is standardised together with other channels")
    for l, reason in tied(network):
        k = d.controls[l][0]
        note(l, ~np.any(k != 0, axis=tuple(range(1, k.ndim))), reason)
    return sorted(found, key=lambda item: item.stage)


def unread_inputs(network: Network, controls: Controls) -> np.ndarray:
    """Mask of the input shape: entries on which no output depends, since no path of nonzero weights leads from them.

    From the output back: an entry is read if a stage uses it for an entry that is read. A stage of another package is
    taken to use all.
    """
    host = in_float64(network, controls)
    read: list[Any] = [np.zeros((1, *shape), bool) for shape in network.shapes]
    read[-1] = ~read[-1]
    for l in range(len(network.stages) - 1, -1, -1):
        shape = network.entering(l, network.shapes)
        parts = _reads(network.stages[l], host[l], shape, read[l + 1])
        for i, part in zip(network.reads[l], parts if isinstance(parts, tuple) else (parts,), strict=True):
            read[i] = read[i] | part
    return ~read[0]


def _reads(stage: Stage, u: Any, shape: Any, read: Any) -> Any:
    """Which entries of a state of this shape (of several, a tuple) the stage uses for the entries ``read`` of its
    result."""
    if type(stage) is WeightedSum:
        return tuple(read & (w != 0) for w in stage.weights)
    if type(stage) in (Dense, Convolution, ScaleShift):
        return stage.adjoint_state((1, *shape), (u[0] != 0) * 1.0, read * 1.0) > 0  # type: ignore[attr-defined]
    if isinstance(stage, Activation | Pixels):
        return read
    if type(stage) in (Flatten, AveragePool, GlobalAveragePool):
        return stage.adjoint(np.zeros((1, *shape)), read * 1.0) > 0  # type: ignore[attr-defined]
    if type(stage) is MaxPool:
        w = stage.windows
        window = np.broadcast_to((read * 1.0)[:, :, None, None], (*read.shape[:2], *w.size, *read.shape[2:]))
        return patches_adjoint(window, w, *shape[1:]) > 0
    if type(stage) is Standardise:
        by_group = read.reshape(1, stage.groups, -1).any(axis=2, keepdims=True)
        return np.broadcast_to(by_group, (1, stage.groups, read.size // stage.groups)).reshape(read.shape)
    return np.ones((1, *shape), bool) if stage.arity == 1 else tuple(np.ones((1, *each), bool) for each in shape)


@dataclass(frozen=True)
class Size:
    """What a stage with controls costs per sample. Biases are not among the weights; scale-and-shift has weights."""

    stage: int
    kind: str
    shape: tuple[int, ...]
    weights: int
    nonzero: int
    multiply_adds: int
    nonzero_multiply_adds: int


def sizes(network: Network, controls: Controls) -> list[Size]:
    """Weights and multiply-adds by stage: a weight is used once at each position of the output (dense: once).

    Positions in the zero padding count. The last column counts products with nonzero weights only.
    """
    result = []
    for l, u in enumerate(controls):
        if not u or network.stages[l].control_names[0] != "kernel":
            continue
        stage, k = network.stages[l], to_numpy(u[0])
        uses = int(np.prod(network.shapes[l + 1][1:])) if type(stage) in (Convolution, ScaleShift) else 1
        n = int(np.count_nonzero(k))
        result.append(Size(l, type(stage).__name__, tuple(k.shape), int(k.size), n, int(k.size) * uses, n * uses))
    return result
