"""Models on disk: ``compact.npz``, whose kernels may be sparse, and the ``model.npz`` of a run. Plain arrays only.

A sparse kernel of R rows is three arrays: ``NN.kernel.count`` (R, nonzero entries of each row), ``NN.kernel.index``
(their columns, ascending, rows behind one another) and ``NN.kernel.value``. A row is the kernel of one filter or
neuron. Each kernel is stored in the form that takes fewer bytes, whatever the form it runs in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pmp_ref.app.checkpoint import FORMAT, check_format, from_arrays, to_arrays
from pmp_ref.app.files import COMPACT, MODEL, decode, pack, unpack
from pmp_ref.architectures import ARCHITECTURES
from pmp_ref.arrays import Controls
from pmp_ref.compact.description import describe, network_from
from pmp_ref.compact.sparse import forms_of, runner
from pmp_ref.data import standardise
from pmp_ref.errors import InputError
from pmp_ref.network import Network

AT_ONCE = 1024  # images standardised at a time: bounds the memory
_EXPAND = 2**27  # entries of all kernels together when sparse ones are filled up: 0.5 GiB in float32


@dataclass(frozen=True, eq=False)
class Model:
    """A network with its controls, the form in which each stage runs, and the standardisation of its images."""

    network: Network
    controls: Controls
    forms: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def dtype(self) -> str:
        """float32 or float64."""
        return next((a.dtype.name for u in self.controls for a in u), "float32")

    def run(self) -> Callable[[np.ndarray], np.ndarray]:
        """The map from standardised images (N, C, H, W) to final states x_L.

        It raises InputError for images as they are (bytes), which would give wrong classes in silence.
        """
        through = runner(self.network, self.controls, self.forms)

        def run(x: np.ndarray) -> np.ndarray:
            if x.dtype.kind != "f":
                raise InputError(
                    f"the images are {x.dtype}; this map takes standardised ones: give bytes to "
                    "model.outputs, which standardises them as in training"
                )
            return through(x)

        return run

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """x_L (N, classes) of images as they are, uint8 (N, C, H, W) or, of one channel, (N, H, W).

        They are standardised by the mean and deviation of the training images, a few at a time. Raises InputError for
        other dtypes and shapes.
        """
        x = np.asarray(images)
        x = x[:, np.newaxis] if x.ndim == 3 and self.network.input_shape[0] == 1 else x
        if x.dtype != np.uint8 or x.shape[1:] != self.network.input_shape:
            raise InputError(
                f"images are {x.dtype} {x.shape}; expected bytes, uint8 (N, *{self.network.input_shape}), "
                "0 to 255 as in the files: standardised images go to model.run()"
            )
        run = self.run()
        parts = [x[i : i + AT_ONCE] for i in range(0, len(x), AT_ONCE)] or [x]
        return np.concatenate([run(standardise(part, self.mean, self.std, self.dtype)) for part in parts])

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The class of each image, as :meth:`outputs` takes them."""
        return np.argmax(self.outputs(images), axis=1)

    def accuracy(self, images: np.ndarray, labels: np.ndarray) -> float:
        """The share of images that are given their label. Raises InputError unless there is a label for each."""
        if len(labels) != len(images) or len(images) == 0:
            raise InputError(f"{len(labels)} labels for {len(images)} images; expected one for each, at least one")
        return float(np.mean(self.predict(images) == labels))


def to_bytes(model: Model) -> bytes:
    """The content of ``compact.npz``."""
    arrays: dict[str, np.ndarray] = {"mean": np.asarray(model.mean), "std": np.asarray(model.std)}
    for name, a in to_arrays(model.network, model.controls).items():
        arrays |= _smallest(name, a) if name.endswith(".kernel") and a.ndim > 1 else {name: a}
    note = {"format": FORMAT, "network": describe(model.network), "forms": list(model.forms)}
    return pack(arrays, {"compact": note})


def _smallest(name: str, a: np.ndarray) -> dict[str, np.ndarray]:
    rows = a.reshape(a.shape[0], -1)
    where = rows != 0
    index = np.nonzero(where)[1]
    thin = {
        f"{name}.count": where.sum(axis=1).astype(np.int32),
        f"{name}.index": index.astype(np.uint16 if rows.shape[1] <= 2**16 else np.int32),
        f"{name}.value": rows[where],
    }
    return thin if sum(part.nbytes for part in thin.values()) < a.nbytes else {name: a}


def _filled(arrays: dict[str, np.ndarray], name: str, shape: tuple[int, ...], source: str) -> np.ndarray:
    """The kernel of which ``_smallest`` made three arrays; InputError unless they fit it and each other."""
    count, index, value = (arrays[f"{name}.{part}"] for part in ("count", "index", "value"))
    columns = math.prod(shape[1:])
    row = np.repeat(np.arange(shape[0]), count) if _counts(count, shape[0], columns, value.size) else None
    if (
        row is None
        or index.ndim != 1
        or index.shape != value.shape
        or index.dtype.kind not in "iu"
        or (value.dtype.kind != "f")
    ):
        raise InputError(f"{source!r}: the parts of {name} do not fit each other and the shape {shape}: restore a copy")
    place = row * columns + index.astype(np.int64)
    if index.size and (index.min() < 0 or index.max() >= columns or np.any(np.diff(place) <= 0)):
        raise InputError(
            f"{source!r}: {name} has columns that are not ascending from 0 to {columns - 1}: restore a copy"
        )
    full = np.zeros(math.prod(shape), value.dtype)
    full[place] = value
    return full.reshape(shape)


def _counts(count: np.ndarray, rows: int, columns: int, total: int) -> bool:
    return (
        count.shape == (rows,)
        and count.dtype.kind in "iu"
        and bool(np.all((count >= 0) & (count <= columns)))
        and int(count.sum(dtype=np.int64)) == total
    )


def read(path: str | Path) -> Model:
    """The model in ``compact.npz`` or ``model.npz``, or in a run's directory, where ``compact.npz`` goes first.

    Raises InputError for anything else; no code runs from a file, and no array is made that the file does not pay for.
    """
    path = Path(path)
    if path.is_dir():
        path = path / COMPACT if (path / COMPACT).is_file() else path / MODEL
    return from_file(unpack(path), str(path))


def from_file(arrays: dict[str, np.ndarray], source: str) -> Model:
    """The model that these arrays of a file hold."""
    try:
        if "compact" in arrays:
            model = _compact(arrays, decode(arrays["compact"]), source)
        elif "network" in arrays:
            model = _ordinary(arrays, decode(arrays["network"]), source)
        else:
            raise InputError(f"{source!r} holds no model; give a run's model.npz, or what pmp-ref compact wrote")
        _check(model, source)
        return model
    except InputError as error:
        text = str(error)
        raise InputError(text if source in text else f"{source!r} is no model that can be used: {text}") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError, OverflowError) as error:
        raise InputError(
            f"{source!r} is damaged ({type(error).__name__}: {' '.join(str(error).split())[:100]}): "
            "restore it from a copy"
        ) from None


def _compact(arrays: dict[str, np.ndarray], note: Any, source: str) -> Model:
    network, filled = network_from(note["network"]), dict(arrays)
    check_format(note["format"], source, network)
    if sum(math.prod(s) for shapes in network.control_shapes for s in shapes) > _EXPAND:
        raise InputError(f"{source!r} has more than {_EXPAND} weights when filled up; expected a smaller model")
    for l, (names, shapes) in enumerate(zip(network.names(), network.control_shapes, strict=True)):
        for name, shape in zip(names, shapes, strict=True):
            if f"{l:02}.{name}.count" in arrays:
                filled[f"{l:02}.{name}"] = _filled(arrays, f"{l:02}.{name}", shape, source)
    return _model(network, filled, tuple(note["forms"]), source)


def _ordinary(arrays: dict[str, np.ndarray], note: Any, source: str) -> Model:
    make: Any = ARCHITECTURES[note["name"]]
    pool = {} if note["pooling"] is None else {"pool": note["pooling"]}
    shape, classes = note["input_shape"], note["classes"]
    if not all(type(n) is int and 0 < n < 2**16 for n in (*shape, classes)):
        raise InputError(f"{source!r} has the input shape {shape} and {classes} classes: restore a copy")
    network = make(tuple(shape), classes, note["activation"], **pool)
    check_format(note.get("format", 1), source, network)
    return _model(network, arrays, forms_of(network), source)


def _model(network: Network, arrays: dict[str, np.ndarray], forms: tuple[str, ...], source: str) -> Model:
    controls = from_arrays(network, arrays, "", source, np.asarray)
    mean, std = (tuple(map(float, arrays[name].ravel())) for name in ("mean", "std"))
    return Model(network, controls, forms, mean, std)


def _check(model: Model, source: str) -> None:
    """One floating dtype, finite numbers, one mean and deviation per channel, a vector of classes at the end."""
    everything = [a for u in model.controls for a in u]
    if len({a.dtype for a in everything}) > 1 or any(a.dtype.name not in ("float32", "float64") for a in everything):
        raise InputError(f"{source!r} mixes dtypes, or has other numbers than floats: restore a copy")
    statistics = np.asarray([*model.mean, *model.std])
    if not all(np.all(np.isfinite(a)) for a in (*everything, statistics)) or min(model.std) <= 0:
        raise InputError(f"{source!r} holds NaN or infinity, or a deviation that is not positive: restore a copy")
    shape, end = model.network.input_shape, model.network.output_shape
    if len(shape) != 3 or not len(model.mean) == len(model.std) == shape[0] or len(end) != 1:
        raise InputError(
            f"{source!r} takes states of shape {shape} with {len(model.mean)} means to {end}; expected "
            "images (channels, rows, columns), one mean per channel, and a vector"
        )
    runner(model.network, model.controls, model.forms)
