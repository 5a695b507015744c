"""Accuracy of controls on a set of images, with its confidence interval."""

from __future__ import annotations

import math
from typing import NamedTuple

from pmp_ref.arrays import Array, Controls, namespace
from pmp_ref.network import Network
from pmp_ref.sweep import quiet

CHUNK = 128  # images at a time: bounds the memory for states


class Accuracy(NamedTuple):
    """Correctly classified images, of how many."""

    correct: int
    images: int

    @property
    def part(self) -> float:
        """correct / images."""
        return self.correct / self.images

    def interval(self, z: float = 1.959963984540054) -> tuple[float, float]:
        """Wilson's score interval; the default z gives 95 %."""
        n, p = self.images, self.part
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return (0.0 if self.correct == 0 else centre - half), (1.0 if self.correct == n else centre + half)


def accuracy(network: Network, controls: Controls, x: Array, y: Array) -> Accuracy:
    """Images whose largest final state is at their label. A state with NaN counts as wrong."""
    correct = 0
    with quiet():
        for start in range(0, x.shape[0], CHUNK):
            cut = slice(start, min(start + CHUNK, x.shape[0]))
            xp, final = namespace(x), network.forward_sweep(controls, x[cut, ...], keep=False)[-1]
            right = (xp.argmax(final, axis=1) == y[cut]) & xp.all(xp.isfinite(final), axis=1)
            correct += int(xp.count_nonzero(right))
    return Accuracy(correct, int(x.shape[0]))
