"""T22: sweeps of the live part of a network give all of J and g.

NumPy in float64, whatever the run: the fast path alone leaves units out.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from pmp_ref import layers as L
from pmp_ref.arrays import Controls
from pmp_ref.controls import to_vector
from pmp_ref.initialise import initial_controls
from pmp_ref.kernels import FastSweep
from pmp_ref.kernels.live import LiveParts
from pmp_ref.loss import CrossEntropy
from pmp_ref.network import Network
from pmp_ref.sweep import Sweep
from verification.claim import Case, Check, Context, Outcome, claim, survey
from verification.claims.fast_path import far
from verification.claims.forward_maps import switching

SHAPE, CLASSES, SAMPLES = (2, 9, 8), 3, 6
UNITS = 24  # of each stage; a third of them stays alive

# The network, and how many of its spans T22 covers.
NETWORKS: tuple[tuple[tuple[L.Stage | L.Block, ...], int], ...] = (
    ((L.Convolution(UNITS, 3), L.Tanh(), L.MaxPool(2), L.Convolution(UNITS, (2, 1)), L.Sigmoid(), L.Flatten()), 2),
    ((L.Convolution(UNITS, (3, 2), bias=False), L.SiLU(), L.AveragePool(2), L.Flatten(), L.Dense(UNITS), L.Tanh()), 2),
    ((L.Convolution(UNITS, 2), L.Convolution(UNITS, 2, stride=2), L.ReLU(), L.GlobalAveragePool()), 2),
    ((L.Convolution(UNITS, 3), L.Tanh(), L.Convolution(UNITS, 3, padding=1), L.Tanh(), L.Flatten()), 1),
    ((L.Convolution(UNITS, 3), L.Tanh(), L.Convolution(UNITS, 1, groups=2), L.Tanh(), L.Flatten()), 0),
    ((L.Convolution(UNITS, 3), L.Standardise(4), L.Convolution(UNITS, 1), L.Flatten()), 1),
    ((L.Convolution(UNITS, 3), L.ScaleShift(), L.Convolution(UNITS, 1), L.Flatten()), 1),
    ((L.Convolution(UNITS, 3), L.Tanh(), L.Convolution(UNITS, 1, bias=False), L.Flatten()), 1),
    ((L.Convolution(UNITS, 3), L.Tanh(), L.AveragePool(2, padding=1), L.Convolution(UNITS, 1), L.Flatten()), 1),
    ((L.Convolution(UNITS, 3), L.residual(L.Tanh(), L.Convolution(UNITS, 1)), L.Flatten(), L.Dense(UNITS)), 1),
)


@claim(
    tag="T22",
    title="Dead units cost nothing",
    statement="J and all of g follow from sweeps of the network without its dead units",
)
def live_part(context: Context) -> Outcome:
    """Statement: losses and all switching functions of the fast sweep, which leaves out the dead units where T22 holds,
    are those of the clear one, which computes all units; and just those are left out.

    Hypotheses: those of T22 for each span; units with weights on one side only, and spans that T22 does not cover, are
    there too.

    Measured: differences relative to 1 + the largest |Φ_s| and to 1 + the largest |g|, bound 10⁴ roundings; spans that
    are covered, units that are left out and are not dead, dead units beyond the step that are swept (bound 0).
    """

    def one(case: Case) -> Iterator[Check]:
        stages, covered = case.cycle(*NETWORKS)
        network = Network((*stages, L.Dense(CLASSES)), SHAPE)
        x = case.rng.standard_normal((SAMPLES, *SHAPE))
        y = case.rng.integers(0, CLASSES, SAMPLES)
        fast, clear = FastSweep(network, CrossEntropy(), threads=1, chunk=4), Sweep(network, CrossEntropy())
        parts = LiveParts(network)
        yield Check(abs(len(parts.spans) - covered), 0.0, f"spans that T22 covers, {stages[0]}")
        for what in ("dead", "dead but for one side", "nearly none dead"):
            u = thinned(case, network, what)
            name = f"{what}, {stages}"
            due = clear.forward_backward(u, x, y)
            for e in (fast.forward_backward(u, x, y), fast.backward(u, fast.forward(u, x, y))):
                yield Check(far(e.losses, due.losses) / (1 + float(np.max(due.losses))), 1e4 * context.u, f"Φ, {name}")
                g, exact = to_vector(switching(e)), to_vector(switching(due))
                yield Check(far(g, exact) / (1 + float(np.max(np.abs(exact)))), 1e4 * context.u, f"g, {name}")
            part = parts.at(u, lambda smaller: smaller)
            left_out = {joint.span.maker: joint.dead for joint in part.joints} if part else {}
            for span in parts.spans:
                dead = set(dead_units(u, span.maker, span.reader))
                out = set(left_out.get(span.maker, ()))
                yield Check(float(len(out - dead)), 0.0, f"units left out that are not dead, {name}")
                if what == "dead":
                    yield Check(float(len(dead - out)), 7.0, f"dead units that are swept, {name}")

    return survey(context, one, micro=10, quick=20, full=200)


def dead_units(controls: Controls, maker: int, reader: int) -> list[int]:
    """Units without an entry other than 0 on either side, found one by one."""
    kernel, read = controls[maker][0], controls[reader][0]
    each = read.shape[1] // kernel.shape[0]
    return [
        i for i in range(kernel.shape[0]) if np.all(kernel[i] == 0) and np.all(read[:, i * each : (i + 1) * each] == 0)
    ]


def thinned(case: Case, network: Network, what: str) -> Controls:
    """Drawn controls, biases too, with units that have lost their weights on both sides or on one."""
    x = np.zeros((1, *network.input_shape))
    u = [[a.copy() for a in stage] for stage in initial_controls(network, int(case.rng.integers(2**31)), x)]
    mixing = [l for l in network.layers() if not isinstance(network.stages[l], L.ScaleShift)]
    for stage in u:
        for bias in stage[1:]:
            bias[...] = case.rng.standard_normal(bias.shape)
    for maker, reader in pairwise(mixing):
        kernel, read = u[maker][0], u[reader][0]
        units = kernel.shape[0]
        each = max(1, read.shape[1] // units)
        order = case.rng.permutation(units)
        gone = order[: units // 8 if what == "nearly none dead" else 2 * units // 3]
        one_side = gone[: units // 3] if what == "dead but for one side" else gone[:0]
        for i in gone:
            if i not in one_side or i % 2:
                kernel[i] = 0
            if (i not in one_side or not i % 2) and read.shape[1] == each * units:
                read[:, i * each : (i + 1) * each] = 0
    return tuple(map(tuple, u))
