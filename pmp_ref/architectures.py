"""Builders of networks. The name LeNet-5 means two networks in the literature; both are here under their own names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from pmp_ref.errors import InputError, nearest
from pmp_ref.layers import (
    AveragePool,
    Block,
    Convolution,
    Dense,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    Pixels,
    ScaleShift,
    Stage,
    Standardise,
    activation,
    residual,
)
from pmp_ref.network import Network, headed


class Images(Protocol):
    """What a builder asks of a data set."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) of one image."""

    @property
    def classes(self) -> int:
        """How many classes there are."""

    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation of the training images divided by 255, one for each channel."""


def size_of(images: Any, classes: int | None) -> tuple[tuple[int, ...], int]:
    """((C, H, W), classes) of a data set, or of a shape; ten classes if nobody says how many."""
    if isinstance(images, tuple | list):
        return tuple(images), 10 if classes is None else classes
    return images.input_shape, images.classes if classes is None else classes


def fitted(name: str, stages: Sequence[Stage | Block], images: Any, shape: tuple[int, ...]) -> Network:
    """The stages as a network; for a data set behind ``Pixels``, so that it takes images as they are.

    Raises InputError, saying what sizes the network takes, for images that are too small.
    """
    make = partial(Network, stages)
    try:
        network = make(shape)
        return network if isinstance(images, tuple | list) else headed(Pixels(*images.statistics), network)
    except InputError as error:
        least = smallest_side(make, shape[0]) if len(shape) == 3 else None
        if least is None or min(shape[1:]) >= least:
            raise
        raise InputError(
            f"images of {shape[1]}×{shape[2]} pixels are too small for {name}, which takes "
            f"{least}×{least} and larger ({error}); enlarge the images"
        ) from None


def smallest_side(make: Callable[[tuple[int, ...]], Network], channels: int) -> int | None:
    """The smallest side of square images from which on a network can be made, up to 64; None if 64 is too small."""
    least = None
    for side in range(64, 0, -1):
        try:
            make((channels, side, side))
        except InputError:
            break
        least = side
    return least


def pooling(name: str, size: int) -> Stage:
    """Average or max pooling by name; raises InputError for another name."""
    kinds = {"average": AveragePool, "max": MaxPool}
    if name not in kinds:
        raise InputError(f"unknown pooling {name!r}: {nearest(name, kinds)}")
    return kinds[name](size)


def lenet5(
    images: Images | tuple[int, ...] = (1, 28, 28),
    classes: int | None = None,
    activation_name: str = "tanh",
    pool: str = "average",
) -> Network:
    """Classic LeNet-5, 6-16-120-84: 61,470 kernel entries for 28×28 grey images and ten classes.

    ``images``: a data set, whose images the network takes as they are, or the shape (C, H, W) of prepared ones. With
    tanh and average pooling, the defaults, the loss is analytic and the hypotheses of T5–T9 hold.
    """
    shape, classes = size_of(images, classes)
    act = activation(activation_name)
    stages = (
        Convolution(6, 5, padding=2),
        act,
        pooling(pool, 2),
        Convolution(16, 5),
        act,
        pooling(pool, 2),
        Flatten(),
        Dense(120),
        act,
        Dense(84),
        act,
        Dense(classes),
    )
    return fitted("lenet5", stages, images, shape)


def lenet5_caffe(
    images: Images | tuple[int, ...] = (1, 28, 28),
    classes: int | None = None,
    activation_name: str = "relu",
    pool: str = "max",
) -> Network:
    """LeNet-5-Caffe, 20-50-500: 430,500 kernel entries for 28×28 grey images and ten classes."""
    shape, classes = size_of(images, classes)
    act = activation(activation_name)
    stages = (
        Convolution(20, 5),
        act,
        pooling(pool, 2),
        Convolution(50, 5),
        act,
        pooling(pool, 2),
        Flatten(),
        Dense(500),
        act,
        Dense(classes),
    )
    return fitted("lenet5_caffe", stages, images, shape)


def residual_net(
    images: Images | tuple[int, ...] = (3, 32, 32),
    classes: int | None = None,
    activation_name: str = "tanh",
    width: int = 16,
    blocks: tuple[int, ...] = (1, 1, 1),
    step: float = 1.0,
    groups: int = 4,
) -> Network:
    """Small residual net for colour images: ``blocks[i]`` residual blocks at width·2ⁱ channels, 3×3 kernels.

    A block is x + step·f(x, u) with f = convolution, standardisation over ``groups`` groups of channels, scale and
    shift, activation, convolution. Each further level begins with a block of stride 2 whose skip is a 1×1 projection.
    """
    if min(width, groups) < 1 or width % groups or not blocks or any(n < 1 for n in blocks):
        raise InputError(
            f"residual_net got width {width}, groups {groups}, blocks {blocks}; expected width a multiple "
            "of groups and at least one block on each level"
        )
    shape, classes = size_of(images, classes)
    act = activation(activation_name)
    stages: list[Stage | Block] = [Convolution(width, 3, padding=1), Standardise(groups), ScaleShift(), act]
    for level, count in enumerate(blocks):
        channels = width * 2**level
        for block in range(count):
            stride = 2 if level > 0 and block == 0 else 1
            inner = (
                Convolution(channels, 3, stride=stride, padding=1),
                Standardise(groups),
                ScaleShift(),
                act,
                Convolution(channels, 3, padding=1),
            )
            projection = Convolution(channels, 1, stride=stride) if stride > 1 else None
            stages += [residual(*inner, step=step, projection=projection), act]
    stages += [GlobalAveragePool(), Dense(classes)]
    return fitted("residual_net", stages, images, shape)


def resnet(
    images: Images | tuple[int, ...] = (3, 32, 32),
    classes: int | None = None,
    activation_name: str = "relu",
    depth: int = 20,
) -> Network:
    """A residual net like ResNet-20 (He et al. 2016, section 4.2): n blocks at 16, 32 and 64 channels, depth = 6n + 2.

    Two things differ: standardisation is per sample, over groups of channels, where theirs is over the batch, and
    there is one in a block, before its inner activation; wider levels begin with a 1×1 projection. InputError for a
    depth that is not 8, 14, 20, …
    """
    blocks, rest = divmod(depth - 2, 6)
    if blocks < 1 or rest:
        raise InputError(f"depth {depth}; expected 6n + 2 with n = 1, 2, … blocks at each width: 8, 14, 20, …")
    return residual_net(images, classes, activation_name, blocks=(blocks,) * 3)


def resnet20(
    images: Images | tuple[int, ...] = (3, 32, 32),
    classes: int | None = None,
    activation_name: str = "relu",
) -> Network:
    """:func:`resnet` of depth 20: 271,248 kernel entries for colour images and ten classes."""
    return resnet(images, classes, activation_name, 20)


ARCHITECTURES = {
    "lenet5": lenet5,
    "lenet5-caffe": lenet5_caffe,
    "residual": residual_net,
    **{f"resnet{depth}": partial(resnet, depth=depth) for depth in (8, 14, 20, 32)},
}
