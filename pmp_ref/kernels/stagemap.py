"""What a fast stage is, and the one that hands a chunk to the clear maps.

Layout of a chunk of b samples, the batch innermost: images (C, H, W) are arrays (H, C, W, b), everything else (…, b). A
state inside a residual block is a pair of such arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pmp_ref.kernels.workspace import Workspace
from pmp_ref.layers import Stage

Prepared = Any


class StageMap:
    """A stage in the batch-innermost layout.

    ``forward`` reads x and returns the state y leaving. ``backward`` gets both, the costate p at y, and returns the
    switching function and the costate at x (None where ``costate`` is False). ``backward`` may write into y, which
    nobody reads after it. ``free`` says that it does not read y, so that the next stage may have overwritten it.
    ``key`` names the stage's arrays in the workspace.

    Neither writes into x or p, but for

    * ``OutputMap.forward`` with ``overwrite``, which puts y into x unless it is ``deferred``: the plan sets it where
      the stage before is ``free`` and x is its y;
    * ``AveragePoolMap.backward`` with ``before`` and ``costate``, which puts the slope of the activation before it,
      and then the costate, into x, that activation's y: being ``fused``, it hands the costate on and reads no y;
    * a ``backward`` that writes into y where x or p is that very array: x of the activation that has overwritten it,
      p of the stage before such an activation, which has put the costate there. It reads x and p first.
    """

    free = False

    def __init__(self, stage: Stage, shape: Any, key: int) -> None:
        self.stage, self.shape, self.key = stage, shape, key
        self.out_shape = stage.output_shape(shape)

    def prepare(self, u: tuple[np.ndarray, ...]) -> Prepared:
        """The controls as the maps want them, once per sweep."""
        return u

    def forward(self, w: Workspace, u: Prepared, x: Any) -> Any:
        raise NotImplementedError

    def backward(self, w: Workspace, u: Prepared, x: Any, y: Any, p: Any, costate: bool) -> Any:
        raise NotImplementedError


class ClearMap(StageMap):
    """Any stage, by its clear maps: the chunk is brought into the clear layout and back."""

    def forward(self, w: Workspace, u: Prepared, x: Any) -> Any:
        return to_fast(self.stage.forward(to_clear(x, self.shape), u), self.out_shape)

    def backward(self, w: Workspace, u: Prepared, x: Any, y: Any, p: Any, costate: bool) -> Any:
        x, p = to_clear(x, self.shape), to_clear(p, self.out_shape)
        g = self.stage.switching(x, u, p)
        return g, to_fast(self.stage.costate(x, u, p), self.shape) if costate else None


def is_pair(shape: Any) -> bool:
    """True for the shape of a pair."""
    return len(shape) == 2 and not isinstance(shape[0], int)


def fast_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Axes of a state of that per-sample shape, without the batch: (C, H, W) → (H, C, W)."""
    return (shape[1], shape[0], shape[2]) if len(shape) == 3 else tuple(shape)


def to_fast(x: Any, shape: Any, out: np.ndarray | None = None) -> Any:
    """(B, *shape) → batch innermost, contiguous; pairs component by component."""
    if is_pair(shape):
        return tuple(to_fast(a, s) for a, s in zip(x, shape, strict=True))
    turned = x.transpose(2, 1, 3, 0) if len(shape) == 3 else x.transpose(*range(1, x.ndim), 0)
    if out is None:
        return np.ascontiguousarray(turned)
    np.copyto(out, turned)
    return out


def to_clear(x: Any, shape: Any) -> Any:
    """Inverse of :func:`to_fast`."""
    if is_pair(shape):
        return tuple(to_clear(a, s) for a, s in zip(x, shape, strict=True))
    turned = x.transpose(3, 1, 0, 2) if len(shape) == 3 else x.transpose(x.ndim - 1, *range(x.ndim - 1))
    return np.ascontiguousarray(turned)


def sum_rows(a: np.ndarray) -> np.ndarray:
    """Σ along the last axis, as a product with ones."""
    return np.matmul(a, np.ones((a.shape[-1], 1), a.dtype))[..., 0]
