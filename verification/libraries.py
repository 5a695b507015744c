"""The array libraries that claims run on, and whether each can be used here."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from pmp_ref.errors import InputError, nearest

NAMES = ("numpy", "numpy:readonly", "array_api_strict", "array_api_strict:device1", "cupy", "torch", "jax.numpy")
API_VERSION = "2024.12"  # array-api-strict follows a newer one unless told


@dataclass(frozen=True)
class Library:
    """An array library with one of its devices; ``asarray`` moves a NumPy array there, dtype kept."""

    name: str
    convert: Callable[[np.ndarray], Any] = field(repr=False, compare=False)

    def asarray(self, host: Any) -> Any:
        """A copy of the host array in this library."""
        return self.convert(np.array(host))

    def __reduce__(self) -> Any:
        return load, (self.name,)


@cache
def load(name: str) -> Library:
    """The library of that name. Raises InputError if the name is unknown or the library cannot be used here."""
    if name not in NAMES:
        raise InputError(f"unknown backend {name!r}: {nearest(name, NAMES)}")
    module, _, variant = name.partition(":")
    if module == "numpy":
        return Library(name, _readonly if variant else np.asarray)
    try:
        library = importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"backend {name}: {module} cannot be imported ({error}); install it or choose another") from None
    return Library(name, {"array_api_strict": _strict, "cupy": _cupy, "torch": _torch, "jax.numpy": _jax}[module](
        library, variant, name))  # fmt: skip


def _readonly(host: np.ndarray) -> np.ndarray:
    host.flags.writeable = False
    return host


def _strict(strict: Any, variant: str, name: str) -> Callable[[np.ndarray], Any]:
    strict.set_array_api_strict_flags(api_version=API_VERSION)
    device = strict.Device(variant) if variant else strict.Device("CPU_DEVICE")
    return lambda host: strict.asarray(host, device=device)


def _cupy(cupy: Any, variant: str, name: str) -> Callable[[np.ndarray], Any]:
    try:
        found = cupy.cuda.is_available()
    except cupy.cuda.runtime.CUDARuntimeError:
        found = False
    if not found:
        raise InputError(f"backend {name}: cupy is installed but finds no GPU; choose another backend")
    return cupy.asarray


def _torch(torch: Any, variant: str, name: str) -> Callable[[np.ndarray], Any]:
    return torch.from_numpy


def _jax(jnp: Any, variant: str, name: str) -> Callable[[np.ndarray], Any]:
    importlib.import_module("jax").config.update("jax_enable_x64", True)  # else float64 input becomes float32
    return jnp.asarray
