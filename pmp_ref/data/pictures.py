"""A folder of pictures: one folder for each class, the pictures of the class in it.

    pictures/cat/*.png, pictures/dog/*.jpg, …    or    pictures/train/cat/*.png, …, pictures/test/cat/*.png, …

The classes are the names of the folders, in alphabetical order. All pictures have one size and are all grey or all in
colour; nothing is done to a picture in silence. ``resize`` and ``colour`` say what may be done.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pmp_ref.data.dataset import MAX_CLASSES, PARTS, Part
from pmp_ref.data.files import MAX_BYTES, opened, read_all
from pmp_ref.errors import InputError

__all__ = ["COLOURS", "ENDINGS", "is_directory", "picture", "read_directory"]

ENDINGS = {".png": "PNG", ".pgm": "PPM", ".ppm": "PPM", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP"}
COLOURS = {"grey": "L", "rgb": "RGB"}
"""What ``colour`` may be, and Pillow's name for it."""

MAX_PICTURE = 2**26  # bytes of a picture's file: one of a few thousand pixels, with whatever notes it carries
MAX_PIXELS = 2**26  # pixels of a picture before it is resized; checked before they are unpacked
_PLAIN = {"L": "grey", "1": "grey", "RGB": "rgb"}  # the modes that are read as they are
_VALIDATION = {"val", "valid", "validation"}


def is_directory(directory: Path) -> bool:
    """Whether the directory holds folders, and no picture beside them."""
    entries = _entries(directory)
    return any(e.is_dir() for e in entries) and not any(_is_picture(e) for e in entries)


def read_directory(
    directory: Path, resize: tuple[int, int] | None = None, colour: str | None = None
) -> tuple[dict[str, Part], tuple[str, ...]]:
    """(parts, class names) of a folder of pictures; images are uint8 (N, C, H, W), a label is the place of its name.

    ``resize`` (rows, columns): every picture is brought to that size, its sides stretched as needed (Pillow's box
    filter downwards, bilinear upwards). ``colour`` "grey" or "rgb": every picture is brought to it.

    Raises InputError, naming the picture, for one that differs in size or colour from the first, is no picture, or lies
    where it belongs to no class; for fewer than two classes; and for parts whose classes differ.
    """
    folders = {_part_name(e.name): Path(e.path) for e in _entries(directory) if e.is_dir()}
    parts = {part: folders[part] for part in PARTS if part in folders}
    if "train" not in parts or len(parts) < len(folders):
        parts = {"train": directory}
    names = _class_names(parts["train"])
    if not 2 <= len(names) <= MAX_CLASSES:
        raise InputError(
            f"{str(parts['train'])!r} holds {len(names)} folders; expected one for each class, at least two, with its "
            "pictures"
        )
    for part, folder in parts.items():
        if part != "train" and (unknown := set(_class_names(folder)) - set(names)):
            raise InputError(
                f"{str(folder)!r} has the class {min(unknown)!r}, which the training part has not; expected classes "
                f"of {', '.join(names[:8])}: rename or remove that folder"
            )
    sides = _Sides(resize, colour)
    return {part: _read_part(folder, names, sides) for part, folder in parts.items()}, names


def picture(path: Path, resize: tuple[int, int] | None = None, colour: str | None = None) -> NDArray[Any]:
    """One picture, uint8 (1, C, H, W), C = 1 for grey, 3 for colour.

    Pillow gets the bytes in memory: from a file it reads what a damaged chunk claims, gigabytes at once. The number of
    pixels is looked at before they are unpacked. Raises InputError for what is no such picture.
    """
    from PIL import Image

    kind = ENDINGS[path.suffix.lower()]
    with opened(path) as stream:
        content = io.BytesIO(read_all(stream, str(path), MAX_PICTURE))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with Image.open(content, formats=[kind]) as found:
                _check(found, path, colour)
                plain: Any = found
                if colour is not None or found.mode == "1":  # black and white are 0 and 255
                    plain = found.convert(COLOURS[colour or "grey"])
                if resize is not None and found.size != resize[::-1]:
                    smaller = resize[0] * resize[1] < found.size[0] * found.size[1]
                    plain = plain.resize(resize[::-1], Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR)
                pixels = np.asarray(plain)
    except InputError:
        raise
    except Exception as error:  # Pillow answers broken files with many types; all of them mean the same here
        raise InputError(
            f"{str(path)!r} is no readable {kind} picture ({type(error).__name__}): save it anew"
        ) from None
    return (pixels[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))[np.newaxis]


def _check(found: Any, path: Path, colour: str | None) -> None:
    """Size and mode, before the pixels are unpacked."""
    columns, rows = found.size
    if rows * columns > MAX_PIXELS:
        raise InputError(
            f"{str(path)!r} has {rows} rows × {columns} columns, more than {MAX_PIXELS} pixels: make it smaller"
        )
    if colour is None and found.mode not in _PLAIN:
        raise InputError(
            f"{str(path)!r} has the mode {found.mode!r}; expected 'L' (grey) or 'RGB', 8 bits each, without "
            "transparency or palette: convert the picture, or have all of them converted (colour grey or rgb)"
        )


class _Sides:
    """What every picture must agree on: the size and the channels of the first."""

    def __init__(self, resize: tuple[int, int] | None, colour: str | None) -> None:
        if colour is not None and colour not in COLOURS:
            raise InputError(f"colour is {colour!r}; expected grey or rgb")
        if resize is not None and not (len(resize) == 2 and all(type(n) is int and 0 < n < 2**15 for n in resize)):
            raise InputError(f"resize is {resize}; expected (rows, columns), positive integers")
        self.resize, self.colour = resize, colour
        self.shape: tuple[int, ...] | None = None
        self.first: Path | None = None

    def read(self, path: Path) -> NDArray[Any]:
        """The picture; InputError if it differs from the first."""
        pixels = picture(path, self.resize, self.colour)
        if self.shape is None:
            self.shape, self.first = pixels.shape, path
        if pixels.shape != self.shape:
            raise InputError(
                f"{str(path)!r} has {_words(pixels.shape)}, {str(self.first)!r} has {_words(self.shape)}; expected "
                "pictures of one kind: bring all of them to one size (resize) and colour (grey or rgb)"
            )
        return pixels


def _words(shape: tuple[int, ...]) -> str:
    return f"{shape[2]} rows × {shape[3]} columns, {'grey' if shape[1] == 1 else 'colour'}"


def _read_part(folder: Path, names: tuple[str, ...], sides: _Sides) -> Part:
    """All pictures below the folder; the images fill one array, whose size is known after the first."""
    found = [(path, label) for label, name in enumerate(names) for path in _pictures(folder / name)]
    if not found:
        raise InputError(f"{str(folder)!r} holds no picture; expected some in each folder: {_endings()}")
    first = sides.read(found[0][0])
    if first.nbytes * len(found) > MAX_BYTES:
        raise InputError(
            f"{str(folder)!r} holds {len(found)} pictures of {first.nbytes} bytes, more than {MAX_BYTES} together: "
            "bring them to a smaller size (resize)"
        )
    images = np.empty((len(found), *first.shape[1:]), np.uint8)
    for i, (path, _) in enumerate(found):
        images[i] = sides.read(path)[0]
    return Part(images, np.array([label for _, label in found], np.int64))


def _class_names(folder: Path) -> tuple[str, ...]:
    """The names of the folders in it, in order."""
    entries = _entries(folder)
    stray = [e.name for e in entries if _is_picture(e)]
    names = sorted(e.name for e in entries if e.is_dir())
    if stray:
        raise InputError(
            f"{str(folder)!r} holds the picture {min(stray)!r} beside the folders of the classes: move it into one"
        )
    return tuple(names)


def _pictures(folder: Path) -> list[Path]:
    """The pictures of a class, in the order of their names; InputError for other files and for folders."""
    if not folder.is_dir():
        return []
    entries = _entries(folder)
    for e in entries:
        if not _is_picture(e):
            raise InputError(f"{e.path!r} is no picture; expected {_endings()}: move it out of the class's folder")
    return sorted(Path(e.path) for e in entries)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What the folder holds, but for hidden files and those that file managers leave behind."""
    with os.scandir(folder) as found:
        return [e for e in found if not e.name.startswith(".") and e.name.lower() not in ("thumbs.db", "desktop.ini")]


def _is_picture(entry: os.DirEntry[str]) -> bool:
    return entry.is_file() and Path(entry.name).suffix.lower() in ENDINGS


def _part_name(name: str) -> str:
    return "val" if name.lower() in _VALIDATION else name.lower()


def _endings() -> str:
    return "files that end in " + ", ".join(ENDINGS)
