"""Units that nobody reads: rows of one kernel and columns of the next, taken out together. Exact.

A *span* goes from a stage P that makes units (filters, neurons) to the next stage Q that mixes them. Between them are
stages that keep units apart: activation, pooling, scale-and-shift, flatten, standardisation. A unit is unread if all
weights of Q that meet it are zero. It goes if what is left still has the form of the stages:

* standardisation takes mean and variance over a group of channels, so units of a group go together or not at all;
* the groups of a convolution keep equal sizes, so from each the same number goes;
* one unit stays, since a stage has at least one.

An unread unit that must stay gets zero weights, so that units before it may become unread. Spans do not cross the ends
of the network, a stage of another package, a sum, whose states carry the same channels, or a state that several stages
read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pmp_ref.arrays import Controls
from pmp_ref.compact.fold import channels_read
from pmp_ref.layers import (
    Convolution,
    Dense,
    ScaleShift,
    Stage,
    Standardise,
    WeightedSum,
)
from pmp_ref.network import Network
from pmp_ref.spans import Span, mixing_stages, segments, spans


@dataclass
class Draft:
    """Stages and controls being rewritten."""

    stages: list[Stage]
    controls: list[tuple[np.ndarray, ...]]


def draft(network: Network, controls: Controls) -> Draft:
    """A copy to work on; arrays are replaced, never written into."""
    return Draft(list(network.stages), list(controls))


def tied(network: Network) -> list[tuple[int, str]]:
    """The last mixing stage of each segment, whose units never go, with the reason."""
    return [
        (l, reason_of_end(network, segment[-1]))
        for segment in segments(network)
        for l in mixing_stages(network, segment)[-1:]
    ]


def reason_of_end(network: Network, l: int) -> str:
    """Why the units that stage l hands on never go, l the last stage of a segment."""
    if l + 1 == len(network.stages):
        return "they are the outputs"
    readers = [network.stages[m] for m in network.readers[l + 1]]
    if any(type(stage) is WeightedSum for stage in readers):
        return "a sum ties them to the channels of other states"
    if len(readers) > 1:
        return "several stages read them"
    return f"{type(readers[0]).__name__} is not known to keep units apart"


def remove_unread(network: Network, controls: Controls) -> tuple[Network, Controls]:
    """The same map without units that no weight reads, as far as the stages allow; from the last span to the first.

    Controls are NumPy arrays.
    """
    d = draft(network, controls)
    for span in reversed(spans(network)):
        unread = unread_units(d, span)
        going = removable(d, span, unread)
        idle = unread & ~going
        if idle.any():  # they stay, without weights
            d.controls[span.maker] = tuple(_zeroed(a, idle) for a in d.controls[span.maker])
        if going.any():
            cut_rows(d, span.maker, ~going)
            cut_between(d, span, ~going)
            cut_columns(d, span.reader, ~going)
        remove_groups(d, span, network)
    return replace(network, stages=tuple(d.stages)), tuple(d.controls)


def _zeroed(a: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.where(rows.reshape(-1, *(1,) * (a.ndim - 1)), 0, a)


def units_of(d: Draft, l: int) -> int:
    """Units that stage l makes."""
    return int(d.controls[l][0].shape[0])


def unread_units(d: Draft, span: Span) -> np.ndarray:
    """Mask of the units of P that no weight reads, and that no read unit is standardised with."""
    return _whole_groups(d, span, without_reader(d, span))


def without_reader(d: Draft, span: Span) -> np.ndarray:
    """Mask of the units of P whose entries meet zero weights of Q only."""
    q, k, n = d.stages[span.reader], d.controls[span.reader][0], units_of(d, span.maker)
    if isinstance(q, Dense):
        return ~np.any((k != 0).reshape(k.shape[0], n, -1), axis=(0, 2))
    assert isinstance(q, Convolution)
    unread = np.ones(n, bool)
    unread[channels_read(q, k)[np.any(k != 0, axis=(2, 3))]] = False
    return unread


def _whole_groups(d: Draft, span: Span, going: np.ndarray) -> np.ndarray:
    """The largest part of ``going`` that consists of whole groups of every standardisation between."""
    before = None
    while before is None or not np.array_equal(before, going):
        before = going
        for l in span.between:
            stage = d.stages[l]
            if isinstance(stage, Standardise):
                n = stage.groups * going.size  # entries refined so that units and groups both consist of whole ones
                stays = np.repeat(~going, n // going.size).reshape(stage.groups, -1).any(axis=1)
                going = going & ~np.repeat(stays, n // stage.groups).reshape(going.size, -1).any(axis=1)
    return going


def removable(d: Draft, span: Span, unread: np.ndarray) -> np.ndarray:
    """The part of the unread units that can go: whole groups, equal numbers from equal groups, one unit stays."""
    going = unread.copy()
    if going.all():
        going[0] = False
    counts = [stage.groups for l in (span.maker, span.reader) if isinstance(stage := d.stages[l], Convolution)]
    before = None
    while before is None or not np.array_equal(before, going):
        before = going
        going = _whole_groups(d, span, going)
        for groups in counts:
            by_group = going.reshape(groups, -1)
            least = by_group.sum(axis=1).min()
            going = (by_group & (np.cumsum(by_group, axis=1) <= least)).reshape(-1)
    return going


def cut_rows(d: Draft, l: int, keep: np.ndarray) -> None:
    """P without the rows of units that go."""
    n, stage = int(keep.sum()), d.stages[l]
    d.controls[l] = tuple(a[keep] for a in d.controls[l])
    if isinstance(stage, Dense):
        d.stages[l] = replace(stage, neurons=n)
    else:
        assert isinstance(stage, Convolution)
        d.stages[l] = replace(stage, channels=n)


def cut_between(d: Draft, span: Span, keep: np.ndarray) -> None:
    """Scale-and-shift without the entries, standardisation without the groups, of units that go."""
    for l in span.between:
        stage = d.stages[l]
        if isinstance(stage, ScaleShift):
            d.controls[l] = tuple(a[np.repeat(keep, a.size // keep.size)] for a in d.controls[l])
        elif isinstance(stage, Standardise):
            d.stages[l] = replace(stage, groups=stage.groups * int(keep.sum()) // keep.size)


def cut_columns(d: Draft, l: int, keep: np.ndarray) -> None:
    """Q without the weights that read units that go."""
    stage, (k, *bias) = d.stages[l], d.controls[l]
    if isinstance(stage, Dense):
        d.controls[l] = (k[:, np.repeat(keep, k.shape[1] // keep.size)], *bias)
        return
    assert isinstance(stage, Convolution)
    columns = keep[channels_read(stage, k)]  # in each row the same number of them
    d.controls[l] = (k[columns].reshape(k.shape[0], -1, *k.shape[2:]), *bias)


def remove_groups(d: Draft, span: Span, network: Network) -> None:
    """Whole groups of a convolution P, such as the channels of a depthwise one, with the units that only they read.

    Where all outputs of a group are unread, its inputs are read by nobody; both go together: P has fewer groups.
    """
    p = d.stages[span.maker]
    before = next((s for s in spans(network) if s.reader == span.maker), None)
    if not isinstance(p, Convolution) or p.groups == 1 or before is None:
        return
    groups_of = [getattr(d.stages[l], "groups", 1) for l in (before.maker, span.reader)]
    if groups_of != [1, 1]:
        return
    whole = np.all(unread_units(d, span).reshape(p.groups, -1), axis=1)
    if whole.all():
        whole[0] = False
    outputs = np.repeat(whole, units_of(d, span.maker) // p.groups)
    inputs = np.repeat(whole, units_of(d, before.maker) // p.groups)
    fits = np.array_equal(_whole_groups(d, span, outputs), outputs)
    if not whole.any() or not fits or not np.array_equal(_whole_groups(d, before, inputs), inputs):
        return
    d.controls[span.maker] = tuple(a[~outputs] for a in d.controls[span.maker])
    d.stages[span.maker] = replace(p, channels=int((~outputs).sum()), groups=int((~whole).sum()))
    cut_between(d, span, ~outputs)
    cut_columns(d, span.reader, ~outputs)
    cut_rows(d, before.maker, ~inputs)
    cut_between(d, before, ~inputs)
