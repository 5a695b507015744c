"""The fast path, ``pmp_ref.kernels``, against the clear one, where a workspace, a tie or an overflow may deceive it.

NumPy in float64, whatever the run: these kernels are written for NumPy. The claim is A2 (``array_libraries.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pmp_ref import layers as L
from pmp_ref.arrays import Controls
from pmp_ref.controls import to_vector
from pmp_ref.initialise import initial_controls
from pmp_ref.kernels import FastSweep
from pmp_ref.loss import CrossEntropy
from pmp_ref.network import Network
from pmp_ref.sweep import Sweep
from verification.claim import Case, Check
from verification.claims.forward_maps import switching

# One for each way in which a kernel writes: scattered rows, rows and columns outside all windows, minimal filters with
# a bias and without, added windows, ties.
KERNELS: tuple[tuple[L.Stage | L.Block, ...], ...] = (
    (L.Convolution(3, (3, 2), stride=(2, 1), dilation=(2, 1), padding=(2, 1)), L.Tanh()),
    (L.Convolution(3, (2, 3), stride=(2, 2), padding=(0, 1)), L.ReLU()),
    (L.Tanh(), L.Convolution(3, (1, 2), stride=(3, 1))),
    (L.Convolution(4, (3, 3), stride=(3, 2), padding=(1, 2), groups=2), L.SiLU()),
    (L.Convolution(4, 5, padding=2), L.ReLU()),
    (L.Tanh(), L.Convolution(8, (3, 5), padding=(2, 1), bias=False), L.Tanh()),
    (L.Tanh(), L.AveragePool((3, 2), (2, 1))),
    (L.Tanh(), L.MaxPool((3, 2), (3, 2))),
    (L.MaxPool((3, 2), (2, 1)),),
    (L.ReLU(), L.MaxPool((3, 2), (3, 2), (1, 0))),
    (L.Tanh(), L.AveragePool((3, 2), (2, 1), (1, 1), False)),
    (L.residual(L.Convolution(2, 3, padding=1), L.Standardise(2), L.ScaleShift()), L.MaxPool(2)),
)
SHAPE, CLASSES = (2, 9, 8), 3
SWEEPS = (
    (6, "images"),
    (6, "other images"),
    (4, "fewer images"),
    (6, "undefined images"),
    (6, "constant images"),
    (6, "scores near −10⁴"),
)


def fast_path_checks(case: Case, networks: tuple[tuple[L.Stage | L.Block, ...], ...]) -> Iterator[Check]:
    """Losses and g of the fast sweep against the clear one, and whether an older evaluation changes.

    One workspace is used six times: after other controls and images, in batches of other sizes, after images that are
    NaN, on constant images, where all entries of a window tie, and with all scores moved to −10⁴. A stage with a
    control stands in front, so that costates are asked for. Differences are relative to 1 + the largest |score| and to
    1 + the largest |g|; bound 10⁴ roundings, for sums of a few hundred terms in another order.
    """
    bound = 1e4 * case.context.u
    for stages in networks:
        network = Network((L.ScaleShift(), *stages, L.Flatten(), L.Dense(CLASSES)), SHAPE)
        fast, clear = FastSweep(network, CrossEntropy(), threads=1, chunk=6), Sweep(network, CrossEntropy())
        older = []
        for samples, what in SWEEPS:
            x, y, u = drawn(case, network, samples, what)
            e = fast.forward_backward(u, x, y)
            if what == "undefined images":
                continue  # what they leave in the workspace must not show
            due = clear.forward_backward(u, x, y)
            name = f"fast path, {what}, {stages[0]}"
            yield Check(far(e.losses, due.losses) / (1 + float(np.max(due.largest))), bound, f"losses, {name}")
            g, exact = to_vector(switching(e)), to_vector(switching(due))
            yield Check(far(g, exact) / (1 + float(np.max(np.abs(exact)))), bound, f"g, {name}")
            older.append((switching(e), g.copy()))
        changed = sum(float(np.sum(to_vector(now) != before)) for now, before in older)
        yield Check(changed, 0.0, f"entries of older g that change, {stages[0]}")


def drawn(case: Case, network: Network, samples: int, what: str) -> tuple[np.ndarray, np.ndarray, Controls]:
    """Images, labels and controls for one sweep."""
    x = case.rng.standard_normal((samples, *SHAPE))
    if what == "constant images":
        x = np.ascontiguousarray(np.broadcast_to(x[:, :1, :1, :1], x.shape))
    if what == "undefined images":
        x = np.full_like(x, np.nan)
    u = initial_controls(network, int(case.rng.integers(2**31)), x)
    if what == "scores near −10⁴":
        *rest, (kernel, bias) = u
        u = (*rest, (kernel, bias - np.asarray(1e4, bias.dtype)))
    return x, case.rng.integers(0, CLASSES, samples), u


def far(a: Any, b: Any) -> float:
    """The largest |a − b|; infinite where that is not a number."""
    gap = float(np.max(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64))))
    return gap if gap == gap else float("inf")
