"""The data set: raw images and labels, checked in one place, and their standardisation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pmp_ref.errors import InputError

__all__ = [
    "MAX_CLASSES",
    "PARTS",
    "Dataset",
    "Part",
    "Prepared",
    "assemble",
    "prepare",
    "standardise",
    "statistics",
]

PARTS = ("train", "val", "test")
MAX_CLASSES = 2**16
"""Most classes. The output layer is as wide as the largest label; a label beyond this is a damaged file."""

_INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_IMAGES_AT_ONCE = 1024  # bounds the 64-bit temporaries of a pass over all images


class Part(NamedTuple):
    """Images, uint8 (N, C, H, W), and labels, integers (N,), as a reader returns them."""

    images: NDArray[Any]
    labels: NDArray[Any]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images and labels of a classification problem with labels 0, …, classes − 1, named ``class_names``.

    Images are uint8 of shape (N, C, H, W), labels integers of shape (N,). The test and validation parts may
    be None. ``x``, ``y``, ``x_test``, ``y_test`` are what a network of ``pmp_ref.lenet5(data)`` takes. Raises
    `InputError` for empty data, other dtypes or shapes, parts whose images differ in shape, images and labels of
    different number, labels out of range.
    """

    name: str
    train_images: NDArray[Any]
    train_labels: NDArray[Any]
    test_images: NDArray[Any] | None
    test_labels: NDArray[Any] | None
    classes: int
    val_images: NDArray[Any] | None = None
    val_labels: NDArray[Any] | None = None
    class_names: tuple[str, ...] = ()  # by default the labels themselves

    def __post_init__(self) -> None:
        if not 2 <= self.classes <= MAX_CLASSES:
            raise InputError(
                f"data set {self.name!r} has {self.classes} classes, expected 2 to {MAX_CLASSES}: check the labels"
            )
        object.__setattr__(self, "class_names", tuple(self.class_names) or tuple(map(str, range(self.classes))))
        if len(self.class_names) != self.classes:
            raise InputError(
                f"data set {self.name!r} has {self.classes} classes and {len(self.class_names)} names, expected one "
                "name for each class"
            )
        for part in PARTS:
            images, labels = getattr(self, f"{part}_images"), getattr(self, f"{part}_labels")
            if part == "train" or images is not None or labels is not None:
                self._check(f"{part} part of data set {self.name!r}", images, labels)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W), the shape of one image."""
        return tuple(int(n) for n in self.train_images.shape[1:])

    @property
    def x(self) -> NDArray[Any]:
        """The training images as they are, uint8 (N, C, H, W): ``lenet5(data)`` and the like standardise them."""
        return self.train_images

    @property
    def y(self) -> NDArray[Any]:
        """The training labels."""
        return self.train_labels

    @property
    def x_test(self) -> NDArray[Any]:
        """The test images as they are. InputError if there are none."""
        if self.test_images is None:
            raise InputError(f"data set {self.name!r} has no test images; keep some of x for that")
        return self.test_images

    @property
    def y_test(self) -> NDArray[Any]:
        """The test labels. InputError if there are none."""
        if self.test_labels is None:
            raise InputError(f"data set {self.name!r} has no test images; keep some of x for that")
        return self.test_labels

    @cached_property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation of the training images divided by 255, one for each channel."""
        return statistics(self.train_images)

    def __repr__(self) -> str:
        shape, tests = "×".join(map(str, self.input_shape)), 0 if self.test_images is None else len(self.test_images)
        return (
            f"<Dataset {self.name!r}: {len(self.train_images)} and {tests} test images {shape}, {self.classes} classes>"
        )

    def _check(self, part: str, images: NDArray[Any], labels: NDArray[Any]) -> None:
        for kind, array, dimensions, dtypes, expected in (
            ("images", images, 4, ("uint8",), "uint8 (N, C, H, W)"),
            ("labels", labels, 1, _INTEGERS, "integers (N,)"),
        ):
            if not isinstance(array, np.ndarray):
                raise InputError(f"{part}: {kind} are {type(array).__name__}, expected {expected}: give a NumPy array")
            if array.dtype.name not in dtypes or array.ndim != dimensions:
                given = f"{array.dtype} {array.shape}"
                raise InputError(f"{part}: {kind} are {given}, expected {expected}: convert the array")
        if not images.size:
            raise InputError(f"{part}: images have the shape {images.shape}, expected at least one: give data")
        if len(images) != len(labels):
            raise InputError(f"{part}: {len(images)} images and {len(labels)} labels, expected one label per image")
        if images.shape[1:] != self.train_images.shape[1:]:
            raise InputError(
                f"{part}: images of shape {images.shape[1:]}, expected {self.train_images.shape[1:]} as in "
                f"the training part (C, H, W): give parts of one kind"
            )
        wrong = np.flatnonzero((labels < 0) | (labels >= self.classes))
        if wrong.size:
            raise InputError(
                f"{part}: label {labels[wrong[0]]} at position {wrong[0]}, expected 0 to {self.classes - 1} "
                f"({self.classes} classes): correct the labels"
            )


def assemble(
    name: str, parts: Mapping[str, Part], classes: int | None = None, class_names: tuple[str, ...] = ()
) -> Dataset:
    """A checked data set, read-only, labels int64; `classes` defaults to the number of names, or to the largest
    training label + 1."""
    arrays: dict[str, NDArray[Any]] = {}
    for part, (images, labels) in parts.items():
        arrays |= {f"{part}_images": images, f"{part}_labels": labels.astype(np.int64)}
    for array in arrays.values():
        array.flags.writeable = False
    if classes is None:
        classes = int(arrays["train_labels"].max(initial=0)) + 1 if not class_names else len(class_names)
    absent = {"test_images": None, "test_labels": None}
    return Dataset(name, classes=classes, class_names=class_names, **(absent | arrays))  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False, repr=False)
class Prepared:
    """Standardised images (N, C, H, W), labels (N,), and the mean and std used, one per channel."""

    train_images: NDArray[Any]
    train_labels: NDArray[Any]
    test_images: NDArray[Any] | None
    test_labels: NDArray[Any] | None
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    val_images: NDArray[Any] | None = None
    val_labels: NDArray[Any] | None = None

    def __repr__(self) -> str:
        x = self.train_images
        return f"<Prepared: {x.shape[0]} images {'×'.join(map(str, x.shape[1:]))}, {x.dtype}, {self.classes} classes>"


def prepare(dataset: Dataset, dtype: DTypeLike = np.float64) -> Prepared:
    """All parts standardised with mean and standard deviation of the training images, see `standardise`."""
    mean, std = statistics(dataset.train_images)
    images: dict[str, Any] = {
        f"{part}_images": None if raw is None else standardise(raw, mean, std, dtype)
        for part in PARTS
        for raw in [getattr(dataset, f"{part}_images")]
    }
    labels = {f"{part}_labels": getattr(dataset, f"{part}_labels") for part in PARTS}
    return Prepared(classes=dataset.classes, mean=mean, std=std, **images, **labels)


def statistics(images: NDArray[Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images (N, C, H, W) divided by 255.

    From exact integer sums over the n pixels of a channel:
    mean = Σx / (255 n), std = √(n Σx² − (Σx)²) / (255 n).
    A constant channel gets std 1, so that standardisation maps it to 0. Raises `InputError` if all channels
    are constant.
    """
    mean, std = [], []
    for channel in range(images.shape[1]):
        counts = np.zeros(256, np.int64)
        for start in range(0, len(images), _IMAGES_AT_ONCE):
            counts += np.bincount(images[start : start + _IMAGES_AT_ONCE, channel].ravel(), minlength=256)
        n, total, squares = (sum(x**power * k for x, k in enumerate(counts.tolist())) for power in (0, 1, 2))
        mean.append(total / (255 * n))
        std.append(math.sqrt(n * squares - total**2) / (255 * n))
    if not any(std):
        raise InputError("all training images are the same constant, expected images that differ: check the data")
    return tuple(mean), tuple(value or 1.0 for value in std)


def standardise(
    images: NDArray[Any], mean: Sequence[float], std: Sequence[float], dtype: DTypeLike = np.float64
) -> NDArray[Any]:
    """(x/255 − mean) / std per channel, for uint8 images (N, C, H, W).

    Computed in float64 and rounded once to `dtype`. Raises `InputError` if the images are not of that kind,
    if `mean` and `std` are not one number per channel, or if `dtype` is neither float32 nor float64.
    """
    kind = np.dtype(dtype)
    if kind not in (np.float32, np.float64):
        raise InputError(f"dtype {kind} given, expected float32 or float64: choose one of them")
    if images.dtype != np.uint8 or images.ndim != 4 or not images.shape[1] == len(mean) == len(std):
        raise InputError(
            f"images: {images.dtype} {images.shape} with {len(mean)} means and {len(std)} deviations given, "
            f"expected uint8 (N, C, H, W) and one of each per channel: use those of the training images"
        )
    result = np.empty(images.shape, kind)
    for channel in range(images.shape[1]):
        table = ((np.arange(256) / 255.0 - mean[channel]) / std[channel]).astype(kind)
        for start in range(0, len(images), _IMAGES_AT_ONCE):
            block = slice(start, start + _IMAGES_AT_ONCE)
            result[block, channel] = table[images[block, channel]]
    return result
