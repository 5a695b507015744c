"""``pmp-ref certify MODEL``: how far a model is from the maximum principle, wherever it was trained."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pmp_ref import library
from pmp_ref.accuracy import Accuracy, accuracy
from pmp_ref.app import parse
from pmp_ref.app.inspect import percent, table
from pmp_ref.app.start import note, prepared, read_start
from pmp_ref.app.summary import certificate_json, versions
from pmp_ref.certificate import Certificate, ControlCertificate
from pmp_ref.controls import cast
from pmp_ref.data import load
from pmp_ref.kernels.blas import one_thread
from pmp_ref.loss import CrossEntropy
from pmp_ref.network import Network
from pmp_ref.problem import Problem, layer_weights
from pmp_ref.sweep import quiet

ROUNDING = 1e-8  # residuals in float64 of controls trained to convergence end near 1e-12, in float32 near 1e-5


@dataclass(frozen=True)
class Wish:
    """What ``certify`` was asked for."""

    data: str
    regulariser: str
    rho: float
    eps: float | None = None
    images: int | None = None
    json: bool = False


def main(path: Path, wish: Wish) -> int:
    """Certify the model and print; the exit code."""
    given, dataset = read_start(path), load(wish.data)
    model = prepared(given, dataset)
    with one_thread(), quiet():
        controls = cast(model.controls, "float64")
        x, y = dataset.train_images[: wish.images], dataset.train_labels[: wish.images]
        problem = Problem(
            model.network,
            CrossEntropy(),
            parse.regulariser(wish.regulariser),
            rho=wish.rho,
            weights=layer_weights(model.network),
        )
        c = library.certify(problem, controls, x, y, wish.eps)
        if wish.eps is None and 0 < c.eps_star < math.inf:
            c = library.certify(problem, controls, x, y, c.eps_star)
        trained = accuracy(model.network, controls, x, y)
        tested = None
        if dataset.test_images is not None and dataset.test_labels is not None:
            tested = accuracy(model.network, controls, dataset.test_images, dataset.test_labels)
    rows = certificate_json(c, model.network, len(x))
    said = words(c, model.network)
    answer = {
        "model": str(path),
        "data": wish.data,
        "regulariser": wish.regulariser,
        "accuracy": part(trained),
        "test_accuracy": part(tested),
        "words": said,
        "certificate": rows,
        "versions": versions("numpy"),
    }
    if (unsaid := note(given)) is not None:
        print(f"pmp-ref: note: {unsaid}", file=sys.stderr)
    if wish.json:
        print(json.dumps(answer, indent=2, allow_nan=False))  # ASCII: stdout may have any encoding
        return 0
    lines = [
        f"model {path}: {model}",
        f"accuracy on {len(x)} training images of {wish.data}: {percent(trained.part)}"
        + ("" if tested is None else f"; on {tested.images} test images: {percent(tested.part)}"),
        "",
        *said,
        "",
        *(table(rows) if c.eps is not None else table(rows)[:-1]),
    ]
    print("\n".join(lines))
    return 0


def part(a: Accuracy | None) -> dict[str, Any] | None:
    """An accuracy as JSON, with its interval."""
    return None if a is None else {"part": a.part, "interval": list(a.interval()), "images": a.images}


def words(c: Certificate, network: Network) -> list[str]:
    """What the certificate means: is it a point of the maximum principle, from which ε on, which layer is farthest."""
    residual = math.hypot(c.residual_support, c.residual_unpenalised)
    farthest = max(c.controls, key=lambda r: r.eps_star)
    steepest = max(c.controls, key=lambda r: r.residual)
    if math.isinf(c.eps_star):
        first = "No augmentation makes it a maximiser: "
    elif c.eps_star == 0:
        first = f"At ρ = {c.rho:g} no weight would jump, at any augmentation: "
    else:
        first = (
            f"At ρ = {c.rho:g} weights would jump wherever ε is below ε* = {c.eps_star:.4g}; from there on none does: "
        )
    if residual <= ROUNDING:
        verdict = "the kept weights are stationary to rounding, so that it is a point of the maximum principle there."
        verdict = (
            verdict if math.isfinite(c.eps_star) else "though its kept weights are stationary, some stand at a bound."
        )
        lines = [first + verdict]
    else:
        lines = [
            first
            + f"but kept weights are not stationary (residual {residual:.4g}), so that it is no point of the maximum "
            "principle yet."
        ]
        share = percent(steepest.residual**2 / residual**2)
        lines.append(
            f"Farthest from stationary is {layer(steepest, network)}: {share} of the squared residual is there."
        )
    if c.eps_star > 0:
        lines.append(
            f"Farthest from the maximum principle is {layer(farthest, network)}, which asks for the largest ε."
        )
    if c.eps is not None and np.isfinite(c.augmented_gap) and c.augmented_gap > 0:
        gain = max(c.controls, key=lambda r: r.augmented_gap)
        lines.append(
            f"A step at ε = {c.eps:.4g} promises {c.augmented_gap:.4g}, with J = {c.J:.4g}; {layer(gain, network)} "
            f"holds {percent(gain.augmented_gap / c.augmented_gap)} of it."
        )
    if c.emptied_layers:
        lines.append(f"The kernels of stages {list(c.emptied_layers)} are all zero: the network is disconnected there.")
    return lines


def layer(r: ControlCertificate, network: Network) -> str:
    """A control in words."""
    return (
        f"the {r.name} of stage {r.stage} ({type(network.stages[r.stage]).__name__}, {r.nonzeros:,} of {r.size:,} kept)"
    )
