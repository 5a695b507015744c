"""Steps of a run, proven: interval sweeps at points and what follows from them (T24).

:class:`IntervalSweep` encloses losses and switching functions of a control, :func:`prove_step` proves an accepted step,
:func:`prove_final` the certificate of the last control. A :class:`Verdict` is proven, undecided or refuted.
"""

from pmp_ref.proofs.final import Final, prove_final
from pmp_ref.proofs.maximiser import Maximised
from pmp_ref.proofs.step import Step, StepProof, prove_step
from pmp_ref.proofs.sweep import Enclosed, IntervalSweep
from pmp_ref.proofs.verdict import Verdict

__all__ = [
    "Enclosed",
    "Final",
    "IntervalSweep",
    "Maximised",
    "Step",
    "StepProof",
    "Verdict",
    "prove_final",
    "prove_step",
]
