"""What a fast stage is, and the one that hands a chunk to the clear maps.

Layout of a chunk of b samples, the batch innermost: images (C, H, W) are arrays (H, C, W, b), everything else (…, b).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pmp_ref.kernels.workspace import Workspace
from pmp_ref.layers import Stage

Prepared = Any


@dataclass(frozen=True)
class Place:
    """Where a stage stands in its network: its number, the per-sample shape of what enters it, and its neighbours.

    ``before`` is the map of the stage before it and ``after`` the stage after it, each only if nobody else reads the
    state between the two: then the two may settle between them what becomes of it.
    """

    key: int
    shape: Any
    before: StageMap | None = None
    after: Stage | None = None


class StageMap:
    """A stage in the batch-innermost layout.

    ``forward`` reads x and returns the state y leaving. ``backward`` gets both, the costate p at y, and returns the
    switching function and the costate at x (None where ``costate`` is False). Of a stage that reads several states, x
    and the costate at x are tuples. ``backward`` may write into y, which nobody reads after it. ``free`` says that it
    does not read y, so that the next stage may have overwritten it. ``key`` names the stage's arrays in the workspace.

    Neither writes into x or p, but for

    * ``OutputMap.forward`` with ``overwrite``, which puts y into x unless it is ``deferred``: where nobody else reads
      x, the y of a stage that is ``free``;
    * ``AveragePoolMap.backward`` with ``slope`` and ``costate``, which puts the slope of the activation before it, and
      then the costate, into x, that activation's y: being ``fused``, it hands the costate on and reads no y;
    * a ``backward`` that writes into y where x or p is that very array: x of the activation that has overwritten it,
      p of the stage before such an activation, which has put the costate there. It reads x and p first.
    """

    free = False

    def __init__(self, stage: Stage, place: Place) -> None:
        self.stage, self.shape, self.key = stage, place.shape, place.key
        self.out_shape = stage.output_shape(place.shape)

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
        return to_fast(self.stage.forward(self._clear(x), u))

    def backward(self, w: Workspace, u: Prepared, x: Any, y: Any, p: Any, costate: bool) -> Any:
        x, p = self._clear(x), to_clear(p)
        g = self.stage.switching(x, u, p)
        if not costate:
            return g, None
        q = self.stage.costate(x, u, p)
        return g, to_fast(q) if self.stage.arity == 1 else tuple(map(to_fast, q))

    def _clear(self, x: Any) -> Any:
        return to_clear(x) if self.stage.arity == 1 else tuple(map(to_clear, x))


def fast_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Axes of a state of that per-sample shape, without the batch: (C, H, W) → (H, C, W)."""
    return (shape[1], shape[0], shape[2]) if len(shape) == 3 else tuple(shape)


def to_fast(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """(B, …) → batch innermost, contiguous."""
    turned = x.transpose(2, 1, 3, 0) if x.ndim == 4 else x.transpose(*range(1, x.ndim), 0)
    if out is None:
        return np.ascontiguousarray(turned)
    np.copyto(out, turned)
    return out


def to_clear(x: np.ndarray) -> np.ndarray:
    """Inverse of :func:`to_fast`."""
    turned = x.transpose(3, 1, 0, 2) if x.ndim == 4 else x.transpose(x.ndim - 1, *range(x.ndim - 1))
    return np.ascontiguousarray(turned)


def sum_rows(a: np.ndarray) -> np.ndarray:
    """Σ along the last axis, as a product with ones."""
    return np.matmul(a, np.ones((a.shape[-1], 1), a.dtype))[..., 0]
