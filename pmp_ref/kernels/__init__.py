"""Fast sweeps on CPU and GPU, behind the same seam as :class:`pmp_ref.sweep.Sweep`.

Nothing of the method is stated here: every map is one of ``pmp_ref.layers`` in another memory layout, and is tested to
agree with it. ``Problem(…, sweep=make_sweep(network, loss, example=x))`` switches on the one that suits x.
"""

from pmp_ref.kernels.cuda import CudaSweep
from pmp_ref.kernels.gpu import GpuSweep
from pmp_ref.kernels.sweep import FastSweep, make_sweep

__all__ = ["CudaSweep", "FastSweep", "GpuSweep", "make_sweep"]
