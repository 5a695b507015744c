"""Spans: from a stage that makes units (neurons, filters) to the next that mixes them, with what keeps units apart."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from pmp_ref.layers import (
    Activation,
    AveragePool,
    Convolution,
    Dense,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    ScaleShift,
    Standardise,
)
from pmp_ref.network import Network

BETWEEN = (AveragePool, MaxPool, GlobalAveragePool, Flatten, ScaleShift, Standardise)


@dataclass(frozen=True)
class Span:
    """Positions of P and Q in the network, and of the stages between."""

    maker: int
    between: tuple[int, ...]
    reader: int


def segments(network: Network) -> list[list[int]]:
    """Positions of stages of known kinds that follow each other, each the only reader of the one before."""
    found: list[list[int]] = []
    for l, stage in enumerate(network.stages):
        if type(stage) in (Dense, Convolution, *BETWEEN) or isinstance(stage, Activation):
            before = network.reads[l][0] - 1
            mine = next((s for s in found if s[-1] == before and network.readers[before + 1] == (l,)), None)
            if mine is None:
                found.append([l])
            else:
                mine.append(l)
    return found


def spans(network: Network) -> list[Span]:
    """All spans, from the input to the output."""
    return [
        Span(a, tuple(l for l in segment if a < l < b), b)
        for segment in segments(network)
        for a, b in pairwise(mixing_stages(network, segment))
    ]


def mixing_stages(network: Network, segment: list[int]) -> list[int]:
    """Positions of the dense and convolutional stages of a segment."""
    return [l for l in segment if type(network.stages[l]) in (Dense, Convolution)]
