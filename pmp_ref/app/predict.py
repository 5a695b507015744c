"""``pmp-ref predict MODEL IMAGES…``: class and probability of images in files, by a compact model or a run's model.

Nothing is done to an image in silence: it is not resized, cropped, converted or inverted. A picture of another size,
with other channels or another depth is an error that says what to do; ``--fit`` brings it to what the model takes.
"""

from __future__ import annotations

import io
import json
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from pmp_ref.data import idx, pictures
from pmp_ref.data.files import opened, read_all
from pmp_ref.data.npz import array_of, names_of, parse_array
from pmp_ref.errors import InputError
from pmp_ref.kernels.blas import one_thread
from pmp_ref.layers import Pixels
from pmp_ref.loss import softmax
from pmp_ref.model import Model, read_model

PICTURES = {".png": "PNG", ".pgm": "PPM", ".ppm": "PPM", ".jpg": "JPEG", ".jpeg": "JPEG"}
MODES = {1: ("L", "1"), 3: ("RGB",)}  # Pillow's names: 8 bits grey, black and white, red-green-blue
MAX_PICTURE = 2**26  # bytes of a picture's file: one of a few thousand pixels, with whatever notes it carries
AT_ONCE = 256  # images at a time: bounds the memory
NEARER = 0.2  # how much nearer to the inverted training images the mean brightness must be for the note


def main(model: Path, files: list[str], array: str | None, invert: bool, fit: bool, as_json: bool) -> int:
    """Classify the images and print; the exit code."""
    m = read_model(model)
    if not m.network.takes_bytes:
        raise InputError(
            f"{str(model)!r} takes floats and does not say how they are made of pixels: save it from Python with mean "
            'and deviation, as in pr.from_onnx(path, mean=…, std=…).save("model.npz")'
        )
    rows, notes = [], []
    with one_thread():
        run = m.run()
        for name in files:
            raw = images(Path(name), m.network.input_shape, array, fit)
            raw = 255 - raw if invert else raw
            if note := looks_inverted(m, raw):
                notes.append(f"{name}: {note}")
            rows += [
                {"file": name, "index": i if len(raw) > 1 else None} | result
                for i, result in enumerate(classify(m, run, raw, name))
            ]
    for note in notes:
        print(f"pmp-ref: note: {note}", file=sys.stderr)
    if as_json:
        answer = {"model": str(model), "inverted": invert, "notes": notes, "images": rows}
        print(json.dumps(answer, indent=2, allow_nan=False))  # ASCII: stdout may have any encoding
    else:
        for r in rows:
            place = r["file"] if r["index"] is None else f"{r['file']}[{r['index']}]"
            print(f"{place}: class {r['name']}, probability {r['probability']:.4f}")
    return 0


def classify(model: Model, run: Any, raw: np.ndarray, source: str) -> list[dict[str, Any]]:
    """Class, its probability, and the probabilities of all classes: softmax of the final state, in float64."""
    results = []
    for start in range(0, len(raw), AT_ONCE):
        z = run(raw[start : start + AT_ONCE]).astype(np.float64)
        if not np.all(np.isfinite(z)):
            raise InputError(f"the model gives NaN or infinity on an image of {source!r}: use another")
        for p in softmax(z):
            k = int(p.argmax())
            name = model.class_names[k]
            results.append({"class": k, "name": name, "probability": float(p[k]), "probabilities": p.tolist()})
    return results


def looks_inverted(model: Model, raw: np.ndarray) -> str | None:
    """A note if the mean brightness is much nearer to that of inverted training images."""
    head = model.network.stages[0]
    assert isinstance(head, Pixels)
    mean, expected = float(raw.mean()) / 255, float(np.mean(head.mean))
    if abs(mean - expected) - abs(mean - (1 - expected)) < NEARER:
        return None
    return (
        f"the mean brightness is {mean:.2f}, that of the training images {expected:.2f}: dark and bright may be "
        "exchanged; --invert exchanges them"
    )


def images(path: Path, shape: tuple[int, ...], array: str | None = None, fit: bool = False) -> np.ndarray:
    """The images of a file, unsigned bytes (N, C, H, W) of that shape (C, H, W); InputError for anything else.

    Pictures (PNG, PGM, PPM, JPEG), arrays (``.npy``, ``.npz``), IDX files, told apart by the ending of their name. With
    ``fit`` a picture is brought to the size and the channels asked for.
    """
    name, kind = str(path), path.suffix.lower()
    if kind in PICTURES:
        found = fitted(path, shape) if fit else picture(path, shape)
    elif kind == ".npy":
        with opened(path) as stream:
            found = stacked(parse_array(stream, path.stat().st_size, name), name)
    elif kind == ".npz":
        with opened(path) as stream:
            found = from_archive(stream, name, array)
    elif "idx3-ubyte" in path.name or ".idx" in path.name:
        found = idx.read(path, 3)[:, np.newaxis]
    else:
        raise InputError(
            f"{name!r} has no known ending; expected .png, .pgm, .ppm, .jpg, .npy, .npz, or an IDX file "
            "with idx3-ubyte in its name"
        )
    if array is not None and kind != ".npz":
        raise InputError(f"--array {array} names an array of a .npz file; {name!r} is none: leave --array out")
    if found.shape[1:] != shape:
        raise InputError(
            f"{name!r} holds {_size(found.shape[1:])}, the model takes {_size(shape)}: resize or convert "
            "the images as those that it was trained on"
        )
    return found


def _size(shape: tuple[int, ...]) -> str:
    channels = {1: "1 channel (grey)", 3: "3 channels (colour)"}.get(shape[0], f"{shape[0]} channels")
    return f"{shape[1]} rows × {shape[2]} columns with {channels}"


def picture(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """One picture; its size and mode are compared with the model's before its pixels are unpacked.

    Pillow gets the bytes in memory: from a file it reads what a damaged chunk claims, gigabytes at once.
    """
    from PIL import Image

    if shape[0] not in MODES:
        raise InputError(f"the model takes {_size(shape)}; pictures have 1 or 3: give arrays (.npy, .npz)")
    with opened(path) as stream:
        content = io.BytesIO(read_all(stream, str(path), MAX_PICTURE))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with Image.open(content, formats=[PICTURES[path.suffix.lower()]]) as opened_picture:
                _check_picture(opened_picture, path, shape)
                pixels = np.asarray(opened_picture.convert(MODES[shape[0]][0]))  # from "1" to 0 and 255
    except InputError:
        raise
    except Exception as error:  # Pillow answers broken files with many types; all of them mean the same here
        raise InputError(
            f"{str(path)!r} is no readable {PICTURES[path.suffix.lower()]} picture "
            f"({type(error).__name__}): save it anew"
        ) from None
    return (pixels[np.newaxis] if shape[0] == 1 else pixels.transpose(2, 0, 1))[np.newaxis]


def fitted(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """One picture brought to that shape, as ``pmp-ref train --resize`` does."""
    if shape[0] not in MODES:
        raise InputError(f"the model takes {_size(shape)}; pictures have 1 or 3: give arrays (.npy, .npz)")
    return pictures.picture(path, (shape[1], shape[2]), {1: "grey", 3: "rgb"}[shape[0]])


def _check_picture(opened_picture: Any, path: Path, shape: tuple[int, ...]) -> None:
    size, mode = opened_picture.size, opened_picture.mode
    if size != (shape[2], shape[1]):
        raise InputError(
            f"{str(path)!r} has {size[1]} rows × {size[0]} columns, the model takes {_size(shape)}: "
            "resize or crop the picture as those that it was trained on, or give --fit"
        )
    if mode not in MODES[shape[0]]:
        raise InputError(
            f"{str(path)!r} has the mode {mode!r}, expected {MODES[shape[0]][0]!r} ({_size(shape)}, "
            "8 bits each, without transparency or palette): convert the picture"
        )


def from_archive(stream: Any, name: str, array: str | None) -> np.ndarray:
    """One array of an ``.npz`` archive: the one named, else the only one."""
    try:
        with zipfile.ZipFile(stream) as archive:
            held = names_of(archive)
            if array is None and len(held) != 1:
                raise InputError(f"{name!r} holds {len(held)} arrays ({', '.join(held[:8])}); name one with --array")
            wanted = held[0] if array is None else array
            if wanted not in held:
                raise InputError(f"{name!r} holds no {wanted!r} (it holds {', '.join(held[:8])}): check --array")
            return stacked(array_of(archive, f"{wanted}.npy", name), f"{name}:{wanted}")
    except InputError:
        raise
    except Exception as error:  # as in pmp_ref.data.npz
        raise InputError(f"{name!r} is not a readable .npz archive ({type(error).__name__}): write it again") from None


def stacked(a: np.ndarray, source: str) -> np.ndarray:
    """Unsigned bytes (H, W), (N, H, W) or (N, H, W, C) as (N, C, H, W)."""
    if a.dtype != np.uint8 or a.ndim not in (2, 3, 4) or a.size == 0:
        raise InputError(
            f"{source!r} is {a.dtype} of shape {a.shape}; expected unsigned bytes (0 to 255) of shape "
            "(H, W), (N, H, W) or (N, H, W, C): convert the array"
        )
    a = a[np.newaxis] if a.ndim == 2 else a
    return np.ascontiguousarray(a[:, np.newaxis] if a.ndim == 3 else a.transpose(0, 3, 1, 2))
