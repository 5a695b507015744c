"""Sweeps on the live part of a network, exactly (theory, T22).

A unit (neuron, filter) is *dead* if all entries of its kernel are 0 and so are all entries that read it. It puts out a
constant c_i, its costate is 0, and all of g that concerns it is known without it: 0 on its kernel and bias, and c_i
times g of the reading stage's bias on the entries that read it. So a sweep leaves dead units out.

Which units are left out follows from the controls alone: neither threads nor ranks nor a restart change a bit.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, cast

import numpy as np

from pmp_ref.arrays import Controls
from pmp_ref.controls import Layout, arrays_of
from pmp_ref.layers import Activation, AveragePool, Convolution, Flatten, GlobalAveragePool, MaxPool, Stage
from pmp_ref.network import Network
from pmp_ref.spans import Span, spans
from pmp_ref.summation import laid_out

STEPS = 16  # live units are counted in so many steps of a stage's units, so that a run meets few networks
WORTH = 0.9  # the smaller network is swept if it has at most this part of the multiplications
NETWORKS = 3  # so many smaller networks are kept, with the arrays of their sweeps


@dataclass(frozen=True)
class Joint:
    """A span with its dead units left out: which units live, which are dead, and their constants."""

    span: Span
    live: np.ndarray
    dead: np.ndarray
    constants: np.ndarray


@dataclass(frozen=True)
class Part:
    """The live part of a network at some controls: the sweep of the smaller network, and its controls."""

    sweep: Any
    controls: Controls
    joints: tuple[Joint, ...]

    def whole(self, g: Controls, shapes: Any, layout: Layout) -> Controls:
        """All of g, from that of the live part."""
        entries = np.zeros(layout.whole.size, next(arrays_of(g)).dtype)
        views = layout.whole.views(entries)
        for full, small, (rows, columns) in zip(views, g, indices(shapes, self.joints), strict=True):
            for a, b in zip(full, small, strict=True):
                a[rows] = b if a.ndim == 1 else spread(b, columns, a.shape[1])
        for joint in self.joints:
            kernel, bias = views[joint.span.reader]
            dead = entries_of(joint.dead, kernel.shape, joint)
            c = np.repeat(joint.constants, dead.size // joint.dead.size)
            kernel[:, dead] = (bias[:, None] * c).reshape(bias.size, c.size, *(1,) * (kernel.ndim - 2))
        return laid_out(layout.whole, entries)


class LiveParts:
    """The live parts of a network at the controls that a run meets; a copy knows none yet."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.spans = [span for span in spans(network) if keeps_apart(network, span)]
        self.known: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    def __reduce__(self) -> Any:
        return LiveParts, (self.network,)

    def at(self, controls: Controls, sweep_of: Callable[[Network], Any]) -> Part | None:
        """The live part at these controls, ``sweep_of`` its network; None if it is not worth a sweep of its own."""
        joints = tuple(joint for span in self.spans if (joint := found(self.network, span, controls)) is not None)
        if not joints:
            return None
        counts = {joint.span.maker: joint.live.size for joint in joints}
        key = tuple(counts.get(span.maker, 0) for span in self.spans)
        if key not in self.known:
            stages = (
                with_units(stage, counts[l]) if l in counts else stage for l, stage in enumerate(self.network.stages)
            )
            smaller = replace(self.network, stages=tuple(stages))
            worth = multiplications(smaller) <= WORTH * multiplications(self.network)
            self.known[key] = sweep_of(smaller) if worth else None
        self.known.move_to_end(key)
        if len(self.known) > NETWORKS:
            self.known.popitem(last=False)
        if (sweep := self.known[key]) is None:
            return None
        places = indices(self.network.control_shapes, joints)
        small = tuple(
            tuple(a[rows][:, columns] if a.ndim > 1 else a[rows] for a in stage)
            for stage, (rows, columns) in zip(controls, places, strict=True)
        )
        return Part(sweep, small, joints)


def keeps_apart(network: Network, span: Span) -> bool:
    """Whether T22 holds for a span: entry by entry or by windows without padding between, and the reader's bias is
    there and meets every unit at all places alike."""
    maker, reader = network.stages[span.maker], network.stages[span.reader]
    groups = [stage.groups for stage in (maker, reader) if isinstance(stage, Convolution)]
    padded = isinstance(reader, Convolution) and reader.windows.padding != (0, 0)
    return (
        len(network.control_shapes[span.reader]) == 2
        and not padded
        and set(groups) <= {1}
        and all(passes_constants(network.stages[l]) for l in span.between)
    )


def passes_constants(stage: Stage) -> bool:
    """Whether a channel of equal entries leaves as one, by σ or as it is, whatever the others are."""
    kind = type(stage)
    if isinstance(stage, Activation):
        return kind.forward is Activation.forward and kind.costate is Activation.costate
    if isinstance(stage, AveragePool | MaxPool) and stage.windows.padding != (0, 0):
        return False
    return kind in (AveragePool, MaxPool, GlobalAveragePool, Flatten)


def found(network: Network, span: Span, controls: Controls) -> Joint | None:
    """The dead units of a span, but for a few, so that the others come in one of ``STEPS`` numbers."""
    kernel, *bias = controls[span.maker]
    units = kernel.shape[0]
    read = controls[span.reader][0]
    dead = ~kernel.reshape(units, -1).any(axis=1)
    if not dead.any():
        return None
    dead &= ~read.reshape(read.shape[0], -1).any(axis=0).reshape(units, -1).any(axis=1)
    if bias:
        dead &= np.isfinite(bias[0])
    live = units - int(dead.sum())
    step = -(-units // STEPS)
    spare = min(-live % step, units - live) if live else 1
    places = np.flatnonzero(dead)[spare:]
    if places.size == 0:
        return None
    dead[:] = False
    dead[places] = True
    start = bias[0][places] if bias else np.zeros(places.size, kernel.dtype)
    between = [stage for stage in map(network.stages.__getitem__, span.between) if isinstance(stage, Activation)]
    constants = reduce(lambda c, stage: stage.forward(c, ()), between, start[None])[0]
    return Joint(span, np.flatnonzero(~dead), places, constants)


def indices(shapes: Any, joints: tuple[Joint, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each stage: which rows of its controls live, and which columns of its kernel."""
    makers = {joint.span.maker: joint for joint in joints}
    readers = {joint.span.reader: joint for joint in joints}
    none = np.zeros(0, int)
    places = []
    for l, stage in enumerate(shapes):
        rows = makers[l].live if l in makers else np.arange(stage[0][0]) if stage else none
        if l in readers:
            columns = entries_of(readers[l].live, stage[0], readers[l])
        else:
            columns = np.arange(stage[0][1]) if stage and len(stage[0]) > 1 else none
        places.append((rows, columns))
    return places


def spread(kernel: np.ndarray, columns: np.ndarray, count: int) -> np.ndarray:
    """The kernel with ``count`` columns, of which it fills these; the others are 0."""
    full = np.zeros((kernel.shape[0], count, *kernel.shape[2:]), kernel.dtype)
    full[:, columns] = kernel
    return full


def entries_of(units: np.ndarray, shape: tuple[int, ...], joint: Joint) -> np.ndarray:
    """Places along the second axis of a reading kernel of these units: several for each where a stage flattens."""
    each = shape[1] // (joint.live.size + joint.dead.size)
    return (units[:, None] * each + np.arange(each)).reshape(-1)


def with_units(stage: Stage, count: int) -> Stage:
    """The stage with another number of units."""
    return replace(cast("Any", stage), **{"channels" if isinstance(stage, Convolution) else "neurons": count})


def multiplications(network: Network) -> int:
    """Multiplications of a forward sweep, of one sample, in dense and convolutional stages."""
    return sum(
        math.prod(shapes[0]) * math.prod(network.shapes[l + 1][1:])
        for l, shapes in enumerate(network.control_shapes)
        if shapes and len(shapes[0]) > 1
    )
