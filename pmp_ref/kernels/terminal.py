"""The end of a sweep: losses, ‖x_L‖_∞ and terminal costates of a chunk at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from pmp_ref.loss import CrossEntropy
from pmp_ref.sweep import Sweep, largest_entry


def terminal(sweep: Sweep, x: np.ndarray, y: np.ndarray, samples: int, costate: bool) -> tuple[Any, Any, Any]:
    """Φ_s, ‖x_L^s‖_∞ and p_L = −∇Φ_s/B (None unless asked for) from x_L in the clear layout.

    Cross-entropy shares the exponentials; any other loss is asked for each by itself.
    """
    if type(sweep.loss) is not CrossEntropy or type(sweep).terminal_costate is not Sweep.terminal_costate:
        p = sweep.terminal_costate(x, y, samples) if costate else None
        return sweep.loss.values(x, y), largest_entry(x), p
    top, low = x.max(axis=1), x.min(axis=1)
    largest = np.maximum(top, -low)
    shifted = x - top[:, None]
    label = (np.arange(x.shape[0]), y)
    e = np.exp(shifted)
    total = e.sum(axis=1)
    losses = np.log(total) - shifted[label]
    if not costate:
        return losses, largest, None
    e *= (-1 / total)[:, None]
    e[label] += 1
    e /= samples
    return losses, largest, e
