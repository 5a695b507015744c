"""Kernels written by hand for CuPy arrays: a sweep of few launches, without cuBLAS, synchronisation or copies.

Every stage is the one of ``pmp_ref.layers`` with its maps as CUDA kernels; what a kernel computes is said at the head
of its source. Importing this package does not import CuPy.
"""

from pmp_ref.kernels.cuda.sweep import CudaSweep

__all__ = ["CudaSweep"]
