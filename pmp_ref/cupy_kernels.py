"""Kernels behind ``arrays.joined`` and ``arrays.sums`` for CuPy arrays.

CuPy's own concatenation makes a launch for each array, or sends a table of addresses to the device, which a CUDA graph
cannot repeat; its sums take a launch each, of one block. Here all arrays are handed to one kernel.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from pmp_ref.arrays import Array

THREADS = 256
SHARE = 4096  # entries of an array for each block that sums it
BLOCKS = 64  # at most, for an array
TYPES = {"float32": "float", "float64": "double", "bool": "bool"}


def cupy() -> Any:
    """CuPy; imported when the first kernel is asked for."""
    return importlib.import_module("cupy")


def joined(arrays: Sequence[Array]) -> Array:
    """See :func:`pmp_ref.arrays.joined`."""
    sizes = tuple(a.size for a in arrays)
    return _joining(sizes)(*arrays, size=sum(sizes))


@lru_cache(maxsize=256)
def _joining(sizes: tuple[int, ...]) -> Any:
    branches, start = [], 0
    for k, size in enumerate(sizes):
        branches.append(f"if (i < {start + size}) z = a{k}[i - {start}];")
        start += size
    parameters = ", ".join(f"raw T a{k}" for k in range(len(sizes)))
    return cupy().ElementwiseKernel(parameters, "T z", " else ".join(branches), "pmp_ref_joined")


def sums(groups: Sequence[Sequence[Array]]) -> Array:
    """See :func:`pmp_ref.arrays.sums`. Each block sums a part of one array, then one block adds the parts of each
    group in their order; how they are cut follows from the sizes alone."""
    xp = cupy()
    full = [[xp.ascontiguousarray(a) for a in group if a.size] for group in groups]
    arrays = [a for group in full for a in group]
    if not arrays:
        return xp.zeros(len(groups))
    form = tuple((a.size, a.dtype.name) for a in arrays)
    partial, total, blocks = _summing(form, tuple(map(len, full)))
    parts, result = xp.empty(blocks, xp.float64), xp.empty(len(groups), xp.float64)
    partial((blocks,), (THREADS,), (parts, *arrays))
    total((len(groups),), (THREADS,), (parts, result))
    return result


TREE = f"""
  __shared__ double held[{THREADS}];
  held[threadIdx.x] = sum;
  __syncthreads();
  for (int half = {THREADS // 2}; half > 0; half /= 2) {{
    if (threadIdx.x < half) held[threadIdx.x] += held[threadIdx.x + half];
    __syncthreads();
  }}
"""


@lru_cache(maxsize=256)
def _summing(form: tuple[tuple[int, str], ...], lengths: tuple[int, ...]) -> tuple[Any, Any, int]:
    """(kernel of the parts, kernel that adds them, number of parts)."""
    branches, starts, first = [], [0], 0
    for k, (size, _) in enumerate(form):
        count = min(BLOCKS, -(-size // SHARE))
        branches.append(
            f"if (blockIdx.x < {first + count})\n"
            f"    for (int j = (blockIdx.x - {first}) * {THREADS} + threadIdx.x; j < {size}; j += {count * THREADS}) "
            f"sum += a{k}[j];"
        )
        first += count
        starts.append(first)
    parameters = ", ".join(["double* parts", *(f"const {TYPES[dtype]}* a{k}" for k, (_, dtype) in enumerate(form))])
    partial = (
        f'extern "C" __global__ void pmp_ref_parts({parameters}) {{\n  double sum = 0;\n  '
        + "\n  else ".join(branches)
        + TREE
        + "  if (threadIdx.x == 0) parts[blockIdx.x] = held[0];\n}"
    )
    bounds, at = [0], 0
    for length in lengths:
        at += length
        bounds.append(starts[at])
    chosen = " ".join(
        f"if (blockIdx.x == {j}) {{ from = {a}; to = {b}; }}" for j, (a, b) in enumerate(pairwise(bounds))
    )
    total = (
        'extern "C" __global__ void pmp_ref_sums(const double* parts, double* result) {\n'
        f"  int from = 0, to = 0;\n  {chosen}\n  double sum = 0;\n"
        f"  for (int j = from + threadIdx.x; j < to; j += {THREADS}) sum += parts[j];"
        + TREE
        + "  if (threadIdx.x == 0) result[blockIdx.x] = held[0];\n}"
    )
    raw = cupy().RawKernel
    return raw(partial, "pmp_ref_parts"), raw(total, "pmp_ref_sums"), first
