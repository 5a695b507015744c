"""A row that calls ``pmp_ref.solve`` itself, for networks and data that no option of ``pmp-ref train`` names."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pmp_ref.app.descent import Tally, recheck
from pmp_ref.arrays import Controls
from pmp_ref.batches import take_batch
from pmp_ref.bsqh import bsqh
from pmp_ref.data import Dataset, standardise, statistics
from pmp_ref.initialise import initial_controls
from pmp_ref.iterate import Iterate
from pmp_ref.kernels import make_sweep
from pmp_ref.loss import CrossEntropy
from pmp_ref.method import Method
from pmp_ref.network import Network
from pmp_ref.problem import Problem
from pmp_ref.result import Record, Run
from pmp_ref.stop import Stop
from verification.experiments.drawing import first_of_each_class
from verification.experiments.experiment import Context

Look = Callable[[Controls, Iterate, Record], Any]


@dataclass(frozen=True)
class Images:
    """Standardised images (float32) and labels, trained on and kept for the test."""

    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    classes: int


@dataclass(frozen=True)
class Followed:
    """A run: its solution, the verdict of the second opinion, seconds without it."""

    solution: Run
    tally: Tally
    seconds: float


def images(data: Dataset, per_class: int, test_per_class: int, halved: bool = False) -> Images:
    """The first images of each class; ``halved``: both sides halved, a pixel the mean of 2×2."""
    assert data.test_images is not None and data.test_labels is not None
    parts = []
    for raw, labels, count in (
        (data.train_images, data.train_labels, per_class),
        (data.test_images, data.test_labels, test_per_class),
    ):
        index = first_of_each_class(labels, count, data.classes)
        chosen = raw[index]
        if halved:
            n, c, h, w = chosen.shape
            cells = chosen.reshape(n, c, h // 2, 2, w // 2, 2).mean(axis=(3, 5))
            chosen = np.round(cells).astype(np.uint8)
        parts.append((chosen, labels[index]))
    mean, std = statistics(parts[0][0])
    (x, y), (test_x, test_y) = ((standardise(a, mean, std, "float32"), b) for a, b in parts)
    return Images(x, y, test_x, test_y, data.classes)


def problem(network: Network, rho: float, x: np.ndarray, threads: int | None) -> Problem:
    """L0 on kernels, mean cross-entropy, fast sweeps."""
    loss = CrossEntropy()
    return Problem(network, loss, rho=rho, sweep=make_sweep(network, loss, threads=threads, example=x))


def follow(
    p: Problem,
    data: Images,
    method: Method,
    stop: Stop,
    batch_size: int | None,
    seed: int,
    check_every: int,
    context: Context,
    look: Look = lambda before, it, record: None,
) -> Followed:
    """Solve from the initial controls of ``seed``; every ``check_every``-th accepted step is evaluated anew in float64.

    ``look(u, iterate, record)`` is called after each trial with the control u before it.
    """
    x, y = data.x, data.y
    controls = initial_controls(p.network, seed, x)
    batches = 1 if batch_size is None else -(-x.shape[0] // batch_size)
    slow = replace(p, sweep=None)  # the clear path
    at: dict[str, Any] = {"u": controls, "tally": Tally(), "epoch": 0}
    aside = 0.0

    def see(it: Iterate, record: Record) -> None:
        nonlocal aside
        began, u = time.perf_counter(), at["u"]
        if record.accepted and record.step % check_every == 0:
            bx, by = (x, y) if batch_size is None else take_batch(x, y, batches, record.position, seed, record.epoch)
            reading = recheck(slow, method.acceptance, u, it.controls, it.current.metric, bx, by, record.rho)
            at["tally"] = at["tally"].plus(reading)
        look(u, it, record)
        if it.epoch // 5 > at["epoch"] // 5 or (batch_size is not None and it.epoch > at["epoch"]):
            context.progress(f"epoch {it.epoch}  J {record.J:.4f}  loss {record.loss:.4f}  eps {it.eps:.3g}")
        at["u"], at["epoch"] = it.controls, it.epoch
        aside += time.perf_counter() - began

    began = time.perf_counter()
    solution = bsqh(p, controls, x, y, stop=stop, method=method, batch_size=batch_size, seed=seed, callback=see)
    return Followed(solution, at["tally"], time.perf_counter() - began - aside)
