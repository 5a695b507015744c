"""Standardisation, one launch each way: a block for each sample and group of channels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pmp_ref.arrays import Array
from pmp_ref.kernels.cuda.source import applies, contiguous, empty, kernel, launch, power_of_two, real
from pmp_ref.layers import Standardise
from pmp_ref.layers.layer import Control


class CudaStandardise(Standardise):
    """Zero mean and unit variance over each group; other arrays than CuPy's take the superclass' maps."""

    def forward(self, x: Array, u: Control) -> Array:
        if not applies(x):
            return super().forward(x, u)
        y = empty(x.shape, x)
        self._launch("standardise", x, contiguous(x), y)
        return y

    def costate(self, x: Array, u: Control, p: Array) -> Array:
        if not applies(x, p):
            return super().costate(x, u, p)
        result = empty(x.shape, x)
        self._launch("standardise_costate", x, contiguous(x), contiguous(p), result)
        return result

    def _launch(self, name: str, x: Array, *arrays: Any) -> None:
        entries = math.prod(x.shape[1:]) // self.groups
        threads = min(512, max(32, power_of_two(entries) // 8))  # eight entries each, up to 512 threads
        function = kernel("normalisation", name, REAL=real(x), ENTRIES=entries, THREADS=threads)
        launch(function, x.shape[0] * self.groups, threads, *arrays, np.float64(self.delta))
