"""The array backends the tests run on, and whether each can be used here.

A test that takes the fixture ``backend`` (see ``conftest.py``) runs once per name in ``NAMES``. ``load``
gives a backend, ``probe`` says why it cannot be had.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

NAMES = (
    "numpy",
    "numpy:readonly",
    "array_api_strict",
    "array_api_strict:device1",
    "cupy",
    "torch",
    "jax.numpy",
)

# The array API version that every backend here serves; array-api-strict follows a newer one unless told.
API_VERSION = "2024.12"


class Unavailable(Exception):
    """A backend cannot be used here; the message is the reason."""


@dataclass(frozen=True)
class Backend:
    """An array library with one of its devices.

    ``xp`` is the namespace that ``array_api_compat.array_namespace`` gives for its arrays.
    """

    name: str
    xp: Any
    device: Any
    _from_numpy: Callable[[np.ndarray], Any]
    _to_numpy: Callable[[Any], np.ndarray]

    def asarray(self, array: Any) -> Any:
        """A copy of ``array`` (NumPy array, number or nested list) on this backend's device, dtype kept."""
        return self._from_numpy(np.array(array))

    def to_numpy(self, array: Any) -> np.ndarray:
        """A writable NumPy copy of an array of this backend."""
        return np.array(self._to_numpy(array))

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
    library, _, variant = name.partition(":")
    try:
        return _LOADERS[library](name, variant)
    except Unavailable as reason:
        return str(reason)


def _first_line(error: Exception) -> str:
    """The first line with text in it of an error's message."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).strip()


def _import(module: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a library says about its own installation is no fault of ours
        try:
            return importlib.import_module(module)
        except ImportError as error:
            raise Unavailable(f"{module} cannot be imported ({_first_line(error)})") from error


def _namespace(array: Any) -> Any:
    return importlib.import_module("array_api_compat").array_namespace(array)


def _numpy(name: str, variant: str) -> Backend:
    def from_numpy(array: np.ndarray) -> np.ndarray:
        array.flags.writeable = variant != "readonly"
        return array

    return Backend(name, _namespace(np.empty(0)), "cpu", from_numpy, np.asarray)


def _strict(name: str, variant: str) -> Backend:
    strict = _import("array_api_strict")
    strict.set_array_api_strict_flags(api_version=API_VERSION)
    host = strict.Device("CPU_DEVICE")
    device = strict.Device(variant) if variant else host
    return Backend(
        name,
        strict,
        device,
        lambda array: strict.asarray(array, device=device),
        lambda array: np.asarray(array.to_device(host)),
    )


def _cupy(name: str, variant: str) -> Backend:
    cupy = _import("cupy")
    try:
        available = cupy.cuda.is_available()
    except cupy.cuda.runtime.CUDARuntimeError as error:  # raised for a missing or too old driver
        raise Unavailable(f"cupy is installed, but finds no usable GPU ({_first_line(error)})") from error
    if not available:
        raise Unavailable("cupy is installed, but finds no GPU")
    device = cupy.cuda.Device(0)
    xp = _namespace(cupy.empty(0))
    return Backend(name, xp, device, lambda array: xp.asarray(array, device=device), cupy.asnumpy)


def _torch(name: str, variant: str) -> Backend:
    torch = _import("torch")
    device = torch.device("cpu")  # CuPy stands for the GPU
    xp = _namespace(torch.empty(0))
    return Backend(
        name,
        xp,
        device,
        lambda array: torch.from_numpy(array).to(device),
        lambda array: array.numpy(force=True),
    )


def _jax(name: str, variant: str) -> Backend:
    jax = _import("jax")
    jax.config.update("jax_enable_x64", True)  # without it float64 input becomes float32
    device = jax.devices("cpu")[0]  # CuPy stands for the GPU
    xp = _namespace(jax.numpy.empty(0))
    return Backend(name, xp, device, lambda array: jax.device_put(array, device), np.asarray)


_LOADERS: dict[str, Callable[[str, str], Backend]] = {
    "numpy": _numpy,
    "array_api_strict": _strict,
    "cupy": _cupy,
    "torch": _torch,
    "jax.numpy": _jax,
}
