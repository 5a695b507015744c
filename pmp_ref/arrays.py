"""The seam to the array library: the only module that imports ``array_api_compat``.

Every public function finds its namespace, dtype and device in the arrays it is given, so NumPy, CuPy and any
library of the array API standard take the same path. Values cross to the host in two places only,
:func:`to_floats` (scalars, all of a trial in one transfer) and :func:`to_numpy` (whole arrays, for files).
"""

from __future__ import annotations

import functools
import importlib
import math
import numbers
import operator
import warnings
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

import array_api_compat
import array_api_compat.numpy
import numpy as np

from pmp_ref.errors import InputError

Array: TypeAlias = Any  # of any library of the array API standard
Controls: TypeAlias = Sequence[tuple[Array, ...]]  # u_l is (kernel, bias), (kernel,) or (); so are g, w, d, memories
Scalar: TypeAlias = float | Array  # a number of the host, or 0-d on the device
UNIT = 4096  # entries of an array that are summed as one term of the tree (T21); a power of two


def namespace(*arrays: Array) -> ModuleType:
    """Array-API namespace shared by ``arrays``.

    Raises InputError if they come from different libraries.
    """
    if set(map(type, arrays)) <= {np.ndarray}:
        return array_api_compat.numpy
    if any(type(a).__module__.startswith("cupy._core.") for a in arrays):  # ``fused`` is making a kernel
        return importlib.import_module("array_api_compat.cupy")
    try:
        return array_api_compat.array_namespace(*arrays)
    except TypeError as error:
        kinds = sorted({library(a) for a in arrays})
        raise InputError(
            f"arrays of {' and '.join(kinds)} were mixed; expected one array library: "
            "convert all of them with that library's asarray"
        ) from error


def library(a: Any) -> str:
    """Name of the library and type of ``a``, e.g. ``numpy.ndarray``."""
    return f"{type(a).__module__.split('.')[0]}.{type(a).__name__}"


def device(a: Array) -> Any:
    """Device of ``a``, as ``device=`` of creation functions takes it."""
    return array_api_compat.device(a)


def is_array(a: Any) -> bool:
    """True if ``a`` belongs to a library of the array API standard (a NumPy scalar does not)."""
    return isinstance(a, np.ndarray) or (not isinstance(a, np.generic) and array_api_compat.is_array_api_obj(a))


def is_floating(a: Array) -> bool:
    """True for real floating point numbers."""
    return bool(namespace(a).isdtype(a.dtype, "real floating"))


def item_size(a: Array, other: int) -> int:
    """Bytes of a number in ``a``; ``other`` unless these are real floating point numbers."""
    return int(namespace(a).finfo(a.dtype).bits) // 8 if is_floating(a) else other


def check_together(**named: Array) -> None:
    """Raise InputError, naming both arguments, unless all arrays share one library and one device."""
    items = list(named.items())
    for name, a in items:
        if not is_array(a):
            raise InputError(f"{name} is a {library(a)}; expected an array: convert it with asarray first")
    first, a = items[0]
    for name, b in items[1:]:
        if array_api_compat.array_namespace(a) is not array_api_compat.array_namespace(b):
            raise InputError(
                f"{first} is a {library(a)} but {name} is a {library(b)}; expected one array library: "
                f"convert {name} with the library of {first}"
            )
        if device(a) != device(b):
            raise InputError(
                f"{first} is on device {device(a)} but {name} is on {device(b)}; expected one device: move {name}"
            )


def check_float64(a: Array) -> None:
    """Raise InputError if the library of ``a`` has no float64, in which J is summed: JAX, unless it is switched on."""
    if "float64" not in namespace(a).__array_namespace_info__().dtypes(kind="real floating"):
        raise InputError(
            f"images are a {library(a)} of a library without float64, in which losses are summed; "
            "switch it on first: jax.config.update('jax_enable_x64', True)"
        )


def as_floats(record: Any, *names: str) -> None:
    """Store the named fields of a frozen dataclass as Python floats; raises InputError for what is not a number.

    A NumPy float64 scalar among the hyper-parameters would silently turn a float32 run into a float64 run.
    """
    for name in names:
        object.__setattr__(record, name, number(name, getattr(record, name)))


def number(name: str, value: Any) -> float:
    """``value`` as a Python float; raises InputError, calling it ``name``, for what is not a number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InputError(f"{name} is {value!r}; expected a number")
    return float(value)


def like(host: Any, a: Array, dtype: Any = None) -> Array:
    """Host data (NumPy) as an array of the library and device of ``a``; dtype of ``a`` unless given."""
    xp = namespace(a)
    return xp.asarray(np.asarray(host), dtype=a.dtype if dtype is None else dtype, device=device(a))


def zeros(shape: tuple[int, ...], a: Array) -> Array:
    """Zeros of the given shape with library, dtype and device of ``a``."""
    return namespace(a).zeros(shape, dtype=a.dtype, device=device(a))


def fused(f: Callable[..., Any], *args: Any, **constants: Any) -> Any:
    """f(*args, **constants), for CuPy arrays in one kernel (``cupy.fuse``) made of f the first time.

    f acts entry by entry on arrays and numbers, broadcast together. It is a named function, or
    a method of an object that does not change, and decides nothing by the values of ``args``; ``constants`` are
    hashable. What a kernel can do is in ``tests/test_backend_fused.py``. Where f is of another kind it is called as it
    is, and a RuntimeWarning says so once.
    """
    dtype = next((a.dtype for a in args if type(a).__module__ == "cupy"), None)
    if dtype is None:
        return f(*args, **constants)
    # A Python number has no dtype in cupy.fuse, and the product of two of them would be formed in half precision.
    return compiled(f, tuple(constants.items()))(*(dtype.type(a) if isinstance(a, float | int) else a for a in args))


@functools.lru_cache(maxsize=1024)
def compiled(f: Callable[..., Any], constants: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
    """f as a kernel; it is compiled once for each combination of dtypes and numbers of axes."""
    fuse = importlib.import_module("cupy").fuse
    plain = lambda *args: f(*args, **dict(constants))  # noqa: E731
    kernel = fuse(kernel_name=f"pmp_ref_{f.__name__.strip('_')}")(plain)

    def call(*args: Any) -> Any:
        nonlocal kernel
        try:
            return kernel(*args)
        except Exception as error:
            result = plain(*args)  # what f itself raises goes on from here
            warnings.warn(
                f"cupy.fuse makes no kernel of {f.__qualname__} ({type(error).__name__}: {error}); it is "
                "computed operation by operation",
                RuntimeWarning,
                stacklevel=4,
            )
            kernel = plain
            return result

    return call


def clip(a: Array, lo: Scalar, hi: Scalar) -> Array:
    """min(max(a, lo), hi). ``xp.clip`` for NumPy alone: for CuPy array_api_compat makes it of Boolean masks, which wait
    for it; and NumPy's maximum with a number takes three times as long."""
    if type(a) is np.ndarray:
        return np.clip(a, lo, hi)
    xp = namespace(a)
    return xp.minimum(xp.maximum(a, lo), hi)


def joined(arrays: Sequence[Array]) -> Array:
    """The entries of all arrays, which have one dtype, in one vector; for CuPy arrays by one kernel."""
    if len(arrays) == 1:
        return namespace(arrays[0]).reshape(arrays[0], (-1,))
    if type(arrays[0]).__module__ == "cupy":
        return importlib.import_module("pmp_ref.cupy_kernels").joined(arrays)
    xp = namespace(*arrays)
    return xp.concat([xp.reshape(a, (-1,)) for a in arrays])


def sums(groups: Iterable[Iterable[Array]]) -> Array:
    """Σ of all entries of the arrays of each group, accumulated in float64: one vector, on the arrays' device.

    In a Boolean array the true entries are counted. CuPy arrays are collected, and two kernels form all sums; others
    are summed one after the other (:func:`sum64`), so that no two groups need be in memory at once.
    """
    found, lists = [], []
    for group in groups:
        arrays = list(group)
        if type(arrays[0]).__module__ == "cupy":
            lists.append(arrays)
        else:
            found.append(functools.reduce(operator.add, map(sum64, arrays)))
            del arrays
    return importlib.import_module("pmp_ref.cupy_kernels").sums(lists) if lists else stacked(*found)


class Units(NamedTuple):
    """What :func:`sum64` needs of an array: the sums of its units (:func:`unit_sums`)."""

    sums: Array


def sum64(a: Array | Units) -> Array:
    """Σ of all entries in float64, runs of ``UNIT`` entries along the tree of T21, or how many are true.

    A 0-d array on the device of ``a``. For CuPy arrays the order is that of two kernels (``cupy_kernels``).
    """
    if isinstance(a, Units):
        return tree_sum(a.sums)
    if type(a).__module__ == "cupy":
        return sums([[a]])[0]
    xp = namespace(a)
    if a.dtype == xp.bool:
        return xp.astype(xp.count_nonzero(a), xp.float64)
    return tree_sum(unit_sums(a))


def wide(a: Array) -> Array:
    """The array in float64, made so once for several :func:`unit_products`; CuPy's as it is, for its kernels do it."""
    return a if type(a).__module__ == "cupy" else namespace(a).astype(a, namespace(a).float64, copy=False)


def unit_products(a: Array, b: Array) -> Units:
    """Σ a_i b_i over each unit, in float64, each by one product of BLAS."""
    return Units(by_unit(namespace(a, b).vecdot, wide(a), wide(b)))


def product64(a: Array, b: Array) -> Array:
    """a_i b_i of two arrays, in float64."""
    xp = namespace(a, b)
    return xp.astype(a, xp.float64) * xp.astype(b, xp.float64)


def unit_sums(a: Array | Units) -> Array:
    """Σ in float64 of each run of ``UNIT`` entries, the last one shorter: one vector, empty for an empty array.

    Of a Boolean array the true entries are counted. Whole numbers add exactly, so all of them may stand in one place.
    """
    if isinstance(a, Units):
        return a.sums
    xp = namespace(a)
    if a.dtype != xp.bool:
        return by_unit(lambda rows: xp.sum(rows, axis=-1, dtype=xp.float64), a)
    units = -(-math.prod(a.shape) // UNIT)
    count = xp.reshape(xp.astype(xp.count_nonzero(a), xp.float64), (1,))
    return xp.concat([count, xp.zeros(units, dtype=xp.float64, device=device(a))])[:units]


def by_unit(f: Callable[..., Array], *arrays: Array) -> Array:
    """f of the units of arrays of one shape, which are rows, and of what is left over, a shorter row: one vector."""
    xp = namespace(*arrays)
    flat = [xp.reshape(a, (-1,)) for a in arrays]
    size = flat[0].shape[0]
    whole = size // UNIT * UNIT
    parts = [f(*(xp.reshape(a[:whole], (-1, UNIT)) for a in flat))] if whole or not size else []
    if whole < size:
        parts.append(f(*(xp.reshape(a[whole:], (1, -1)) for a in flat)))
    return parts[0] if len(parts) == 1 else xp.concat(parts)


def tree_sum(rows: Array) -> Array:
    """Σ of the rows of an array along the tree of T21, entry by entry: neighbours are added, an odd last one waits."""
    xp = namespace(rows)
    while (n := rows.shape[0]) > 1:
        pairs = rows[0 : n - 1 : 2, ...] + rows[1:n:2, ...]
        rows = pairs if n % 2 == 0 else xp.concat([pairs, rows[n - 1 :, ...]])
    return rows[0, ...] if n else xp.sum(rows, axis=0)


def unit_roundoff(a: Array) -> float:
    """Half the spacing of floating point numbers at one, for the dtype of ``a``."""
    return float(namespace(a).finfo(a.dtype).eps) / 2


def stacked(*scalars: Array) -> Array:
    """0-d arrays as one vector in float64, on their device."""
    xp = namespace(*scalars)
    return joined([xp.astype(s, xp.float64, copy=False) for s in scalars])


def to_floats(*scalars: Array) -> list[float]:
    """0-d arrays as Python floats, in one device-to-host transfer."""
    return to_numpy(stacked(*scalars)).tolist()


def to_numpy(a: Array) -> np.ndarray:
    """``a`` copied to a NumPy array on the host."""
    if isinstance(a, np.ndarray):
        return a
    if array_api_compat.is_cupy_array(a):
        return a.get()
    if array_api_compat.is_torch_array(a):
        return a.detach().cpu().numpy()
    if not array_api_compat.is_jax_array(a):
        xp = array_api_compat.array_namespace(a)
        if device(a) != xp.__array_namespace_info__().default_device():
            a = array_api_compat.to_device(a, xp.__array_namespace_info__().default_device())
    return np.asarray(a)
