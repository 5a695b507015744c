"""A run's directory: its files by name, JSON, the lock that dies with its process."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pmp_ref.errors import InputError
from pmp_ref.files import OutputError, sync_directory, write_atomically

try:
    import fcntl
except ImportError:  # not on Windows; there a second process is not refused
    fcntl = None  # type: ignore[assignment]

CONFIG, CHECKPOINT, SUMMARY, MODEL = "config.json", "checkpoint.npz", "summary.json", "model.npz"
COMPACT, COMPACT_REPORT = "compact.npz", "compact.json"  # made from MODEL
MAX_JSON = 2**24  # bytes; a configuration or summary takes some kilobytes


def remove(*paths: Path) -> None:
    """Remove files that may be there, for good before anything else is written. Raises OutputError."""
    for path in paths:
        try:
            path.unlink()
            sync_directory(path.parent)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise OutputError(
                f"cannot remove {str(path)!r} ({error.strerror}), which is out of date", "remove it first"
            ) from None


def write_json(path: Path, value: Any) -> None:
    """Strict JSON: no NaN, no infinity."""
    write_atomically(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The value in a JSON file; InputError if it is missing, too large or damaged."""
    try:
        with open(path, "rb") as stream:
            content = stream.read(MAX_JSON + 1)
        if len(content) > MAX_JSON:
            raise InputError(f"{str(path)!r} holds more than {MAX_JSON} bytes; expected a small JSON file")
        return json.loads(content)
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r} ({error.strerror}): check the path") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{str(path)!r} is no valid JSON ({' '.join(str(error).split())[:120]}): restore it from a copy"
        ) from None


def new_directory(out: str | None, root: Path) -> Path:
    """The directory of a new run: ``out``, or the next free number below ``root``. InputError if it is not free."""
    try:
        if out is None:
            root.mkdir(parents=True, exist_ok=True)
            number = max((int(e.name) for e in root.iterdir() if e.name.isdecimal()), default=0) + 1
            while True:
                with contextlib.suppress(FileExistsError):  # another run took the number meanwhile
                    (root / f"{number:03}").mkdir()
                    return root / f"{number:03}"
                number += 1
        directory = Path(out)
        directory.mkdir(parents=True, exist_ok=True)
        return directory
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"cannot make the directory {out or str(root)!r} ({reason}): give another one with --out, "
            "in a place with write permission"
        ) from None


def check_free(directory: Path) -> None:
    """InputError unless a new run may begin in the directory: it is empty and can be written to."""
    try:
        held = sorted(e.name for e in directory.iterdir() if not e.name.endswith(".part"))
    except OSError as error:
        raise InputError(f"cannot read {str(directory)!r} ({error.strerror}): give another directory") from None
    if CONFIG in held:
        raise InputError(
            f"--out {str(directory)!r} already holds a run; give another directory, or go on with it: "
            f"--resume {str(directory)!r}"
        )
    if held:
        raise InputError(f"--out {str(directory)!r} is not empty (it holds {held[0]!r}); give a new directory")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise InputError(f"no write permission in {str(directory)!r}; give another directory with --out")


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """A kernel lock on the directory itself: no file is left behind, and it ends with its process.

    Raises InputError if another process holds it.
    """
    if fcntl is None:
        yield
        return
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"cannot open the run {str(directory)!r} ({error.strerror}): check the path") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another process is working on {str(directory)!r}; wait for it or stop it") from None
        except OSError as error:
            raise InputError(
                f"cannot lock {str(directory)!r} ({error.strerror}): give a directory on a file system with locks"
            ) from None
        yield
    finally:
        os.close(descriptor)
