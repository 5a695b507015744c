"""Fast sweeps on the CPU, behind the same seam as :class:`pmp_ref.sweep.Sweep`.

Nothing of the method is stated here: every map is one of ``pmp_ref.layers`` in another memory layout, and is tested to
agree with it. ``Problem(…, sweep=make_sweep(network, loss))`` switches it on.
"""

from pmp_ref.kernels.sweep import FastSweep, make_sweep

__all__ = ["FastSweep", "make_sweep"]
