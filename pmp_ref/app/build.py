"""From options to what ``solve`` takes: data split and moved, network, problem, method, stop. Nothing is written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from pmp_ref.acceptance import ACCEPTANCES
from pmp_ref.admissible import WHOLE_LINE, Box
from pmp_ref.app import parse
from pmp_ref.app.options import RULE_OPTIONS, Options
from pmp_ref.app.ranks import World
from pmp_ref.app.start import prepared
from pmp_ref.architectures import ARCHITECTURES
from pmp_ref.arrays import Array, Controls
from pmp_ref.augmentation import RULES
from pmp_ref.averaging import Averaging
from pmp_ref.batches import FlipsAndShifts, batches_in, take_batch
from pmp_ref.bsqh import Callback, bsqh
from pmp_ref.cardinality import check_wish
from pmp_ref.controls import cast, map_controls
from pmp_ref.data import Dataset, load, statistics
from pmp_ref.errors import InputError
from pmp_ref.initialise import initial_controls
from pmp_ref.iterate import Iterate
from pmp_ref.kernels import make_sweep
from pmp_ref.layers import Pixels
from pmp_ref.loss import CrossEntropy, Loss
from pmp_ref.method import Method, Ramp
from pmp_ref.metric import METRICS
from pmp_ref.model import Model
from pmp_ref.network import Network, headed
from pmp_ref.problem import Problem, layer_weights, scale_advice
from pmp_ref.result import Run
from pmp_ref.stop import Stop
from pmp_ref.summation import ALONE, Alone
from pmp_ref.sweep import Sweep


@dataclass(frozen=True)
class Setup:
    """A run ready to start. ``x``, ``y`` is the part of the training images that is trained on."""

    options: Options
    dataset: Dataset
    fingerprint: str  # SHA-256 of the training images and labels
    network: Network
    problem: Problem
    method: Method
    stop: Stop
    x: Array
    y: Array
    held_out: tuple[Array, Array] | None
    controls: Controls
    advice: str | None = None  # on ill-scaled images
    start: Model | None = None  # what the run began with, where it is no network by name
    vary: FlipsAndShifts | None = None  # how the images of a batch are moved and mirrored

    @property
    def batch_size(self) -> int | None:
        """As ``solve`` takes it."""
        return None if self.options.full_batch else int(self.options.batch_size)

    @property
    def batches(self) -> int:
        """Batches in an epoch."""
        return batches_in(self.x.shape[0], self.batch_size)

    def last_rho(self, it: Iterate) -> float:
        """The ρ that the run has come to."""
        return self.method.last_rho(self.problem.rho, it, self.stop.progress(it.place, self.batches))

    def batch(self, epoch: int, position: int) -> tuple[Array, Array]:
        """The images and labels of a step."""
        if self.batch_size is None:
            return self.x, self.y
        return take_batch(self.x, self.y, self.batches, position, self.options.seed, epoch, vary=self.vary)

    def solve(self, callback: Callback, resume: Iterate | None = None) -> Run:
        """The run, from its first controls or from where an earlier one has come to."""
        return bsqh(
            self.problem,
            self.controls if resume is None else None,
            self.x,
            self.y,
            stop=self.stop,
            method=self.method,
            batch_size=self.batch_size,
            seed=self.options.seed,
            callback=callback,
            resume=resume,
            vary=self.vary,
        )

    def move(self, raw: np.ndarray) -> Array:
        """Images, as they are, or labels on the run's device."""
        return mover(self.options.backend)(raw)


def build(
    options: Options, threads: int | None = None, world: World | None = None, start: Model | None = None
) -> Setup:
    """Read the data and build all objects of a run, which begins with ``start`` where ``--start`` says so. Raises
    InputError for anything that does not fit."""
    world = world or World()
    move = mover(options.backend)
    world.take_device(options.backend)
    resize = None if options.resize is None else parse.size(options.resize)
    dataset = load(options.data, resize=resize, colour=options.colour)
    train, held = split(dataset, options.held_out)
    images, labels = dataset.train_images, dataset.train_labels
    if held is not None:  # else all of them, which need no copy
        images, labels = images[train], labels[train]
    x, y = move(images), move(labels)
    aside = None if held is None else (move(held[0]), move(held[1]))
    start = None if start is None else prepared(start, dataset)
    network = build_network(options, dataset, images) if start is None else start.network
    problem = build_problem(options, network, x, threads or world.threads, world.ranks)
    n = x.shape[0]
    if not options.full_batch and int(options.batch_size) > n:
        raise InputError(f"--batch-size {options.batch_size} for {n} images to train on; expected 1 to {n}, or full")
    if start is None:
        first = initial_controls(network, options.seed, x, options.dtype)
    else:
        first = map_controls(move, cast(start.controls, options.dtype))
    controls = problem.project(first)
    advice = unlike_images(problem.check(controls, x, y))
    if options.keep is not None:
        check_wish(problem)
    if options.full_batch and options.averaging is not None:
        raise InputError(
            f"--averaging {options.averaging} with --batch-size full; averaged switching functions need "
            "mini-batches: leave --averaging out"
        )
    return Setup(
        options=options,
        dataset=dataset,
        fingerprint=fingerprint(dataset),
        network=network,
        problem=problem,
        method=build_method(options),
        stop=Stop(options.steps, options.epochs, options.increment, options.residual),
        x=x,
        y=y,
        held_out=aside,
        controls=controls,
        advice=advice,
        start=start,
        vary=build_vary(options, dataset.input_shape),
    )


def unlike_images(largest: float) -> str | None:
    """One line where even the standardised training images hold a value far from 1; None if they do not."""
    if scale_advice(largest) is None:
        return None
    return (
        f"the standardised training images reach {largest:.3g} standard deviations, expected a few: nearly all "
        "pixels of a channel are equal; look at the images, crop them or leave that channel out"
    )


def split(dataset: Dataset, part: float) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    """Indices to train on, and the images and labels held out.

    Held out are the validation images where the data set has them, else the images of each class, in the order of
    the file, at which the count ⌊part·k⌋ rises: every tenth for 0.1. A class keeps at least one image to train on.
    """
    labels = dataset.train_labels
    everything = np.arange(labels.size)
    if dataset.val_images is not None and dataset.val_labels is not None:
        return everything, (dataset.val_images, dataset.val_labels)
    if part == 0:
        return everything, None
    out = np.zeros(labels.size, bool)
    for k in range(dataset.classes):
        members = np.flatnonzero(labels == k)
        counts = np.floor(np.arange(members.size + 1) * part + 1e-9)  # 1e-9: 0.29·100 is 28.999…, meant is 29
        out[members[np.diff(counts) > 0]] = True
    if not out.any():
        return everything, None
    return np.flatnonzero(~out), (dataset.train_images[out], labels[out])


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 of shape, training images and labels, so that a run is never resumed on other data."""
    digest = hashlib.sha256(repr((dataset.train_images.shape, dataset.classes)).encode())
    digest.update(np.ascontiguousarray(dataset.train_images).data)
    digest.update(dataset.train_labels.astype("<i8").tobytes())
    return digest.hexdigest()


def mover(backend: str) -> Callable[[np.ndarray], Array]:
    """Function that takes a host array to the backend's device. InputError if the backend cannot be used."""
    if backend == "numpy":
        return np.asarray
    try:
        import cupy
    except ImportError as error:
        raise InputError(
            f"--backend cupy: CuPy cannot be imported ({' '.join(str(error).split())[:200]}); "
            "install '.[cuda12]' or '.[cuda13]' here, or use --backend numpy"
        ) from None
    try:
        usable = bool(cupy.cuda.is_available())
    except Exception as error:  # a broken driver answers with types of CuPy's own
        raise InputError(
            f"--backend cupy: CUDA does not answer ({' '.join(str(error).split())[:200]}); use --backend numpy"
        ) from None
    if not usable:
        raise InputError("--backend cupy: CuPy is installed, but there is no CUDA device; use --backend numpy")
    return cupy.asarray  # type: ignore[no-any-return]


def build_network(options: Options, dataset: Dataset, images: np.ndarray) -> Network:
    """The named network, its input shape and classes those of the data, behind the statistics of these images."""
    pool = {} if options.pooling is None else {"pool": options.pooling}
    make: Any = ARCHITECTURES[str(options.network)]
    network = make(dataset.input_shape, dataset.classes, activation_name=options.activation, **pool)
    return headed(Pixels(*statistics(images)), network)


def build_vary(options: Options, shape: tuple[int, ...]) -> FlipsAndShifts | None:
    """How the images (C, H, W) of a mini-batch are moved and mirrored; None: they stay as they are."""
    vary = FlipsAndShifts(options.shift, options.flip == "horizontal")
    if vary == FlipsAndShifts():
        return None
    if options.full_batch:
        raise InputError("--shift or --flip with --batch-size full; they need mini-batches: leave them out")
    vary.check(shape)
    return vary


def build_problem(
    options: Options, network: Network, x: Array, threads: int | None = None, ranks: Alone = ALONE
) -> Problem:
    """J with its regulariser, weights and admissible sets, and the sweep that suits images like x."""
    loss = CrossEntropy()
    by_stage = None if options.layer_weights is None else parse.factors(options.layer_weights)
    kernels, others = parse.admissible(options.admissible), WHOLE_LINE
    if options.box is not None:
        others = Box(-options.box, options.box)
        kernels = others if kernels == WHOLE_LINE else kernels
    sets: Any = tuple(tuple(kernels if name == "kernel" else others for name in stage) for stage in network.names())
    return Problem(
        network,
        loss,
        parse.regulariser(options.regulariser),
        rho=options.rho,
        admissible=sets,
        weights=layer_weights(network, 1.0, 1.0 if options.penalise == "all" else 0.0, by_stage),
        sweep=build_sweep(options.sweep, network, loss, x, threads, ranks),
    )


def build_sweep(name: str, network: Network, loss: Loss, x: Array, threads: int | None, ranks: Alone = ALONE) -> Sweep:
    """The sweep behind ``Problem``: the one place where fast kernels are chosen, or the clear path."""
    return make_sweep(network, loss, False if name == "clear" else None, threads=threads, example=x, ranks=ranks)


def build_method(options: Options) -> Method:
    """What varies in bSQH."""
    rule: Any = RULES[options.rule]
    own = {f.name for f in fields(rule)} & set(RULE_OPTIONS)
    test: Any = ACCEPTANCES[options.acceptance]
    return Method(
        rule=rule(eps0=options.eps0, **{name: getattr(options, name) for name in own}),
        acceptance=test() if options.acceptance == "none" else test(options.eta),
        metric=METRICS[options.metric](),
        averaging=None if options.averaging is None else Averaging(options.averaging),
        ramp=None if options.ramp is None else Ramp(*parse.pair(options.ramp)),
        max_rejections=options.max_rejections,
    ).wishing(None if options.keep is None else parse.wish(options.keep))
