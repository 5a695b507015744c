"""Builders of networks. The name LeNet-5 means two networks in the literature; both are here under their own names."""

from __future__ import annotations

from pmp_ref.errors import InputError, nearest
from pmp_ref.layers import (
    AveragePool,
    Block,
    Convolution,
    Dense,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    ScaleShift,
    Stage,
    Standardise,
    activation,
    residual,
)
from pmp_ref.network import Network


def pooling(name: str, size: int) -> Stage:
    """Average or max pooling by name; raises InputError for another name."""
    kinds = {"average": AveragePool, "max": MaxPool}
    if name not in kinds:
        raise InputError(f"unknown pooling {name!r}: {nearest(name, kinds)}")
    return kinds[name](size)


def lenet5(
    input_shape: tuple[int, ...] = (1, 28, 28), classes: int = 10, activation_name: str = "tanh", pool: str = "average"
) -> Network:
    """Classic LeNet-5, 6-16-120-84: 61,470 kernel entries for 28×28 grey images and ten classes.

    With tanh and average pooling, the defaults, the loss is analytic and the hypotheses of T5–T9 hold.
    """
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
    return Network(stages, input_shape)


def lenet5_caffe(
    input_shape: tuple[int, ...] = (1, 28, 28), classes: int = 10, activation_name: str = "relu", pool: str = "max"
) -> Network:
    """LeNet-5-Caffe, 20-50-500: 430,500 kernel entries for 28×28 grey images and ten classes."""
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
    return Network(stages, input_shape)


def residual_net(
    input_shape: tuple[int, ...] = (3, 32, 32),
    classes: int = 10,
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
    return Network(stages, input_shape)


ARCHITECTURES = {"lenet5": lenet5, "lenet5-caffe": lenet5_caffe, "residual": residual_net}
