"""What a sweep takes from the final state under cross-entropy, in one launch."""

from __future__ import annotations

from typing import Any

from pmp_ref.arrays import Array
from pmp_ref.kernels.cuda.source import applies, ceil, contiguous, empty, kernel, launch, real
from pmp_ref.loss import CrossEntropy, Loss

WARPS = 4  # of a block; a warp has a sample
LABELS = {
    "int8": "signed char",
    "int16": "short",
    "int32": "int",
    "int64": "long long",
    "uint8": "unsigned char",
    "uint16": "unsigned short",
    "uint32": "unsigned int",
    "uint64": "unsigned long long",
}


def terminal_applies(loss: Loss, x: Any, y: Array) -> bool:
    """Whether :func:`terminal` is that loss of states x and labels y."""
    return (
        type(loss) is CrossEntropy
        and applies(x)
        and x.ndim == 2
        and type(y).__module__ == "cupy"
        and str(y.dtype) in LABELS
        and y.shape == x.shape[:1]
    )


def terminal(x: Array, y: Array, samples: int) -> tuple[Array, Array, Array]:
    """(Φ_s, ‖x_s‖_∞, p = −(softmax(x) − e_y)/samples) of final states x, (B, classes), and integer labels y, (B,)."""
    losses, largest, p = empty(x.shape[:1], x), empty(x.shape[:1], x), empty(x.shape, x)
    function = kernel("terminal", "cross_entropy", REAL=real(x), LABEL=LABELS[str(y.dtype)], CLASSES=x.shape[1])
    launch(
        function,
        ceil(x.shape[0], WARPS),
        32 * WARPS,
        contiguous(x),
        contiguous(y),
        losses,
        largest,
        p,
        x.shape[0],
        x.dtype.type(samples),
    )
    return losses, largest, p
