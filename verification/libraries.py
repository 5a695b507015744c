"""The array libraries that claims and tests run on, and whether each can be used here."""

from __future__ import annotations

import importlib
import warnings
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
    device: Any = field(repr=False, compare=False)
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
        return Library(name, "cpu", _readonly if variant else np.asarray)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a library says about its own installation is no fault of ours
        try:
            library = importlib.import_module(module)
        except ImportError as error:
            raise InputError(
                f"backend {name}: {module} cannot be imported ({_first_line(error)}); install it or choose another"
            ) from None
    found = {"array_api_strict": _strict, "cupy": _cupy, "torch": _torch, "jax.numpy": _jax}[module](library, variant)
    if isinstance(found, str):
        raise InputError(f"backend {name}: {found}; choose another backend")
    return Library(name, *found)


Found = tuple[Any, Callable[[np.ndarray], Any]] | str  # (device, converter), or why the library cannot be used


def _readonly(host: np.ndarray) -> np.ndarray:
    host.flags.writeable = False
    return host


def _strict(strict: Any, variant: str) -> Found:
    strict.set_array_api_strict_flags(api_version=API_VERSION)
    device = strict.Device(variant or "CPU_DEVICE")
    return device, lambda host: strict.asarray(host, device=device)


def _cupy(cupy: Any, variant: str) -> Found:
    try:
        available = cupy.cuda.is_available()
    except cupy.cuda.runtime.CUDARuntimeError as error:  # a missing or too old driver
        return f"cupy is installed, but finds no usable GPU ({_first_line(error)})"
    if not available:
        return "cupy is installed, but finds no GPU"
    return cupy.cuda.Device(0), cupy.asarray


def _torch(torch: Any, variant: str) -> Found:
    return torch.device("cpu"), torch.from_numpy  # CuPy stands for the GPU


def _jax(jnp: Any, variant: str) -> Found:
    jax = importlib.import_module("jax")
    jax.config.update("jax_enable_x64", True)  # else float64 input becomes float32
    device = jax.devices("cpu")[0]  # CuPy stands for the GPU
    return device, lambda host: jax.device_put(host, device)


def _first_line(error: Exception) -> str:
    """The first line with text in it of an error's message."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).strip()
