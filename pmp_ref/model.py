"""A trained network: scores, classes, accuracy, and a file that holds it. Plain arrays only.

In a file a sparse kernel of R rows is three arrays: ``NN.kernel.count`` (R, nonzero entries of each row),
``NN.kernel.index`` (their columns, ascending, rows behind one another) and ``NN.kernel.value``. A row is the kernel of
one filter or neuron. Each kernel is stored in the form that takes fewer bytes, whatever the form it runs in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pmp_ref.architectures import ARCHITECTURES
from pmp_ref.arrays import Array, Controls, namespace, to_numpy
from pmp_ref.controls import arrays_of, kernel_entries
from pmp_ref.errors import InputError
from pmp_ref.files import decode, from_arrays, pack, to_arrays, unpack, write_atomically
from pmp_ref.layers import Pixels
from pmp_ref.network import Network, headed
from pmp_ref.sweep import quiet

FORMAT = 3  # up to 2, mean and deviation stood beside the network; in 1, stages behind skips had other numbers
COMPACT, MODEL = "compact.npz", "model.npz"  # what a run's directory holds
AT_ONCE = 1024  # images at a time: bounds the memory
_EXPAND = 2**27  # entries of all kernels together when sparse ones are filled up: 0.5 GiB in float32


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A network with its controls and the names of the classes ("0", "1", … unless given).

    ``forms``: how each stage runs, as ``pmp_ref.compact.runner`` takes it; empty for all dense.
    """

    network: Network
    controls: Controls
    class_names: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        end = self.network.output_shape
        names = tuple(map(str, self.class_names)) or tuple(map(str, range(end[0] if len(end) == 1 else 0)))
        if len(end) == 1 and len(names) != end[0]:
            raise InputError(f"{len(names)} class names for {end[0]} scores; expected one name for each class")
        object.__setattr__(self, "class_names", names)

    @property
    def dtype(self) -> str:
        """float32 or float64."""
        return next((str(np.dtype(to_numpy(a[:0]).dtype)) for a in arrays_of(self.controls)), "float32")

    def run(self) -> Callable[[np.ndarray], np.ndarray]:
        """The map from images as the network takes them, NumPy (N, …), to final states x_L."""
        from pmp_ref.compact import runner  # not above: loads SciPy

        return runner(self.network, self.controls, self.forms or None)

    def outputs(self, images: Array) -> Array:
        """The scores x_L (N, classes), a few images at a time; of library and device of the controls.

        A network that begins with ``Pixels``, such as ``lenet5(data)``, takes images as they are, uint8 (N, C, H, W)
        or, of one channel, (N, H, W), and standardises them as in training; another takes floats, prepared as those
        that it was trained on. Raises InputError for the other kind, and for shapes that do not fit.
        """
        x = self._taken(images)
        parts = [x[i : i + AT_ONCE, ...] for i in range(0, x.shape[0], AT_ONCE)] or [x]
        if isinstance(x, np.ndarray):
            return np.concatenate([run(part) for run in [self.run()] for part in parts])
        with quiet():
            states = (self.network.forward_sweep(self.controls, part, keep=False) for part in parts)
            return namespace(x).concat([each[-1] for each in states])

    def _taken(self, images: Array) -> Array:
        """The images in the shape and dtype that the network takes, or InputError."""
        shape = self.network.input_shape
        if self.network.takes_bytes and len(images.shape) == 3 and shape[0] == 1:
            images = images[:, None, ...]
        if tuple(images.shape[1:]) != shape:
            raise InputError(f"images have shape {tuple(images.shape)}; expected (N, *{shape})")
        self.network.check_dtype(images)
        if self.network.takes_bytes:
            return images
        return namespace(images).astype(images, getattr(namespace(images), self.dtype))

    def predict(self, images: Array) -> Array:
        """The class of each image, from 0, as :meth:`outputs` takes them; its name is ``class_names[k]``."""
        scores = self.outputs(images)
        return namespace(scores).argmax(scores, axis=1)

    def accuracy(self, images: Array, labels: Array) -> float:
        """The share of images that are given their label. Raises InputError unless there is a label for each."""
        if len(labels) != len(images) or len(images) == 0:
            raise InputError(f"{len(labels)} labels for {len(images)} images; expected one for each, at least one")
        return float(np.mean(to_numpy(self.predict(images)) == to_numpy(labels)))

    def save(self, path: str | Path) -> None:
        """Write the model to a file, from which :func:`read_model` reads it. Raises OutputError; and InputError for a
        network with stages of another package."""
        write_atomically(Path(path), to_bytes(self))

    def to_onnx(self, path: str | Path, images: np.ndarray | None = None, sparse: bool = False) -> str:
        """Write the model as an ONNX file (extra ``onnx``): input ``images``, as :meth:`outputs` takes them, outputs
        ``states``, the scores, and ``probabilities``. In float32. With ``sparse``, weights are stored sparse where that
        is smaller: onnxruntime and ``from_onnx`` read them, some other programs do not.

        A sentence says what onnxruntime gave on ``images``, or on drawn ones, where it is installed. Raises
        InputError if onnx is missing, for stages without a counterpart, and if the outputs differ; OutputError.
        """
        from pmp_ref.interop.onnx_out import export  # not above: what is optional is loaded when asked for

        if images is None:
            generator, shape = np.random.default_rng(0), (16, *self.network.input_shape)
            drawn = generator.integers(0, 256, shape, np.uint8), generator.standard_normal(shape, np.float32)
            images = drawn[0] if self.network.takes_bytes else drawn[1]
        content, sentence = export(self, images, sparse)
        write_atomically(Path(path), content)
        return sentence

    def to_torch(self) -> Any:
        """The model as a ``torch.nn.Module`` (extra ``torch``) that takes what :meth:`outputs` takes, as tensors.

        Its parameters have the bits and the dtype of the controls and names by stage, ``00_Convolution.weight``; its
        method ``model()`` gives the model with the parameters as they are then. Raises InputError if PyTorch is
        missing and for stages of another package.
        """
        try:
            from pmp_ref.interop.torch_out import Network as Module
        except ImportError:
            raise InputError("to_torch needs PyTorch, which is missing: pip install torch") from None
        return Module(self)

    def __repr__(self) -> str:
        kept, entries = kernel_entries(self.network.names(), self.controls)
        shape = "×".join(map(str, self.network.input_shape))
        return f"<Model: {shape} to {len(self.class_names)} classes, {kept:,} of {entries:,} weights, {self.dtype}>"


def behind_pixels(model: Model, mean: Sequence[float], std: Sequence[float]) -> Model:
    """The model of images as they are, x, that ``model`` is of (x/255 − mean)/std."""
    network = headed(Pixels(tuple(mean), tuple(std)), model.network)
    return replace(model, network=network, controls=((), *model.controls), forms=model.forms and ("", *model.forms))


def to_bytes(model: Model) -> bytes:
    """The content of a model's file."""
    from pmp_ref.compact.description import describe
    from pmp_ref.compact.sparse import forms_of

    arrays: dict[str, np.ndarray] = {}
    for name, a in to_arrays(model.network, model.controls).items():
        arrays |= _smallest(name, a) if name.endswith(".kernel") and a.ndim > 1 else {name: a}
    note = {
        "format": FORMAT,
        "network": describe(model.network),
        "forms": list(model.forms or forms_of(model.network)),
        "class_names": list(model.class_names),
    }
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


def read_model(path: str | Path) -> Model:
    """The model in a file, ``model.npz``, ``compact.npz`` or from :meth:`Model.save`, or in a run's directory, where
    ``compact.npz`` goes first.

    Raises InputError for anything else; no code runs from a file, and no array is made that the file does not pay for.
    """
    path = Path(path)
    if path.is_dir():
        path = path / COMPACT if (path / COMPACT).is_file() else path / MODEL
    return from_file(unpack(path), str(path))


def from_file(arrays: dict[str, np.ndarray], source: str) -> Model:
    """The model that these arrays of a file hold."""
    from pmp_ref.compact import runner

    try:
        if "compact" in arrays:
            model = _compact(arrays, decode(arrays["compact"]), source)
        elif "network" in arrays:
            model = _ordinary(arrays, decode(arrays["network"]), source)
        else:
            raise InputError(f"{source!r} holds no model; give a run's model.npz, or what pmp-ref compact wrote")
        _check(model, source)
        runner(model.network, model.controls, model.forms or None)  # raises where forms and stages do not fit
        return model
    except InputError as error:
        text = str(error)
        raise InputError(text if source in text else f"{source!r} is no model that can be used: {text}") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError, OverflowError) as error:
        raise InputError(
            f"{source!r} is damaged ({type(error).__name__}: {' '.join(str(error).split())[:100]}): "
            "restore it from a copy"
        ) from None


def check_format(found: Any, source: str, network: Network) -> None:
    """InputError unless files of the format ``found`` are read, which hold controls of this network."""
    from pmp_ref.compact.description import OLDER

    if found == 1 and not network.is_chain:
        raise InputError(f"{source!r} cannot be used: {OLDER}")
    if found not in range(1, FORMAT + 1):
        raise InputError(
            f"{source!r} has format {found!r}, expected {FORMAT}: use the version of pmp_ref that wrote it"
        )


def _compact(arrays: dict[str, np.ndarray], note: Any, source: str) -> Model:
    from pmp_ref.compact.description import network_from

    network, filled = network_from(note["network"]), dict(arrays)
    check_format(note["format"], source, network)
    if sum(math.prod(s) for shapes in network.control_shapes for s in shapes) > _EXPAND:
        raise InputError(f"{source!r} has more than {_EXPAND} weights when filled up; expected a smaller model")
    for l, (names, shapes) in enumerate(zip(network.names(), network.control_shapes, strict=True)):
        for name, shape in zip(names, shapes, strict=True):
            if f"{l:02}.{name}.count" in arrays:
                filled[f"{l:02}.{name}"] = _filled(arrays, f"{l:02}.{name}", shape, source)
    return _model(network, filled, tuple(note["forms"]), note.get("class_names", []), source)


def _ordinary(arrays: dict[str, np.ndarray], note: Any, source: str) -> Model:
    network = _network_of(note, source)
    check_format(note.get("format", 1), source, network)
    return _model(network, arrays, (), note.get("class_names", []), source)


def _network_of(note: Any, source: str) -> Network:
    """The network that a run's ``model.npz`` names: in full, or up to format 2 by architecture."""
    from pmp_ref.compact.description import network_from

    if "network" in note:
        return network_from(note["network"])
    make: Any = ARCHITECTURES[note["name"]]
    pool = {} if note["pooling"] is None else {"pool": note["pooling"]}
    shape, classes = note["input_shape"], note["classes"]
    if not all(type(n) is int and 0 < n < 2**16 for n in (*shape, classes)):
        raise InputError(f"{source!r} has the input shape {shape} and {classes} classes: restore a copy")
    return make(tuple(shape), classes, note["activation"], **pool)  # type: ignore[no-any-return]


def _model(
    network: Network, arrays: dict[str, np.ndarray], forms: tuple[str, ...], class_names: Any, source: str
) -> Model:
    if not isinstance(class_names, list) or not all(isinstance(name, str) for name in class_names):
        raise InputError(f"{source!r} has class names that are no texts: restore a copy")
    controls = from_arrays(network, arrays, "", source, np.asarray)
    if "mean" not in arrays or not arrays["mean"].size:
        return Model(network, controls, tuple(class_names), forms)
    mean, std = (tuple(map(float, arrays[name].ravel())) for name in ("mean", "std"))  # up to format 2
    return behind_pixels(Model(network, controls, tuple(class_names), forms), mean, std)


def _check(model: Model, source: str) -> None:
    """One floating dtype, finite numbers, a vector of classes at the end."""
    everything = [a for u in model.controls for a in u]
    if len({a.dtype for a in everything}) > 1 or any(a.dtype.name not in ("float32", "float64") for a in everything):
        raise InputError(f"{source!r} mixes dtypes, or has other numbers than floats: restore a copy")
    if not all(np.all(np.isfinite(a)) for a in everything):
        raise InputError(f"{source!r} holds NaN or infinity: restore a copy")
    end = model.network.output_shape
    if len(end) != 1:
        raise InputError(f"{source!r} leads to states of shape {end}; expected a vector, a score for each class")
