"""The array backends the tests run on, and whether each can be used here.

A test that takes the fixture ``backend`` (see ``conftest.py``) runs once per name in ``NAMES``. ``load``
gives a backend, ``probe`` says why it cannot be had. The libraries are those of ``verification.libraries``.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from pmp_ref.errors import InputError
from verification import libraries
from verification.libraries import NAMES, Library

__all__ = ["NAMES", "Backend", "Unavailable", "load", "probe"]


class Unavailable(Exception):
    """A backend cannot be used here; the message is the reason."""


@dataclass(frozen=True)
class Backend:
    """An array library with one of its devices.

    ``xp`` is the namespace that ``array_api_compat.array_namespace`` gives for its arrays.
    """

    library: Library
    xp: Any

    @property
    def name(self) -> str:
        """One of ``NAMES``."""
        return self.library.name

    @property
    def device(self) -> Any:
        """The device of its arrays."""
        return self.library.device

    def asarray(self, array: Any) -> Any:
        """A copy of ``array`` (NumPy array, number or nested list) on this backend's device, dtype kept."""
        return self.library.asarray(array)

    def to_numpy(self, array: Any) -> np.ndarray:
        """A writable NumPy copy of an array of this backend."""
        if self.name == "cupy":
            array = array.get()
        elif self.name.startswith("array_api_strict"):
            array = array.to_device(self.xp.Device("CPU_DEVICE"))
        elif self.name == "torch":
            array = array.numpy(force=True)
        return np.array(array)

    def __repr__(self) -> str:
        return f"<backend {self.name}>"


def load(name: str) -> Backend:
    """The backend called ``name``; raises ``Unavailable`` with the reason where it cannot be used."""
    found = _load_or_reason(name)
    if isinstance(found, str):
        raise Unavailable(found)
    return found


def probe(name: str) -> str | None:
    """Why the backend called ``name`` cannot be used here; None if it can."""
    found = _load_or_reason(name)
    return found if isinstance(found, str) else None


@cache
def _load_or_reason(name: str) -> Backend | str:
    try:
        library = libraries.load(name)
    except InputError as error:
        return str(error).removeprefix(f"backend {name}: ").partition(";")[0]
    namespace = importlib.import_module("array_api_compat").array_namespace(library.asarray(0.0))
    return Backend(library, namespace)
