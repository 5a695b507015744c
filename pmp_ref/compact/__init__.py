"""Compaction: the same outputs from a smaller network. Pure functions (Network, controls) → (Network, controls).

``compact`` does it all. Its steps, the formulas beside their code: ``fold_constants`` and ``merge_constants``
(``fold.py``), ``remove_unread`` (``units.py``), both resting on ``constants`` (``constants.py``). ``kept`` says what
stays and why, ``constant_output`` finds disconnected networks, ``unread_inputs`` pixels that nobody reads, ``sizes``
counts. ``runner`` and ``choose_forms`` (``sparse.py``) run kernels as sparse matrices where that is faster.
"""

from pmp_ref.compact.constants import Entries, constants
from pmp_ref.compact.fold import fold_constants, merge_constants
from pmp_ref.compact.reduction import Kept, Size, compact, constant_output, kept, sizes, unread_inputs
from pmp_ref.compact.sparse import choose_forms, paired, runner
from pmp_ref.compact.units import remove_unread

__all__ = [
    "Entries",
    "Kept",
    "Size",
    "choose_forms",
    "compact",
    "constant_output",
    "constants",
    "fold_constants",
    "kept",
    "merge_constants",
    "paired",
    "remove_unread",
    "runner",
    "sizes",
    "unread_inputs",
]
