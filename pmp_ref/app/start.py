"""A model that a command begins with: ``--start`` of training, the model of ``certify``."""

from __future__ import annotations

from pathlib import Path

from pmp_ref.data import Dataset
from pmp_ref.errors import InputError
from pmp_ref.interop import from_onnx
from pmp_ref.model import Model, behind_pixels, read_model

START = "start.npz"  # the copy in the run's directory


def read_start(path: Path) -> Model:
    """The model in an ONNX file, by its ending, else in a file of this package or a run's directory."""
    return from_onnx(path) if path.suffix.lower() == ".onnx" else read_model(path)


def prepared(model: Model, dataset: Dataset) -> Model:
    """The model, which takes images as they are: behind x/255 where it does not say how it standardises them.

    Raises InputError if the data have other images or another number of classes than the model.
    """
    shape, classes = dataset.train_images.shape[1:], len(model.class_names)
    if model.network.input_shape != shape or classes != dataset.classes:
        raise InputError(
            f"the model takes {model.network.input_shape} to {classes} classes; the data have images of shape "
            f"{shape} and {dataset.classes} classes: give the data that it was trained on"
        )
    return model if model.network.takes_bytes else behind_pixels(model, (0.0,) * shape[0], (1.0,) * shape[0])


def note(model: Model) -> str | None:
    """A sentence where the model does not say how images are prepared."""
    if model.network.takes_bytes:
        return None
    return (
        "the model states no mean and deviation: it gets pixel/255; for others save it from Python, "
        'pr.from_onnx(path, mean=…, std=…).save("start.npz"), and give that file'
    )
