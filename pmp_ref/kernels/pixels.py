"""Images as they are, standardised with the batch innermost."""

from __future__ import annotations

from typing import Any

import numpy as np

from pmp_ref.kernels.dense import channel_view
from pmp_ref.kernels.stagemap import Place, StageMap, fast_shape
from pmp_ref.kernels.workspace import Workspace
from pmp_ref.layers import Pixels


class PixelsMap(StageMap):
    """y = (x/255 − mean)/std by channel."""

    free = True
    stage: Pixels

    def __init__(self, stage: Pixels, place: Place) -> None:
        super().__init__(stage, place)
        self.view = channel_view(self.shape)

    def forward(self, w: Workspace, u: Any, x: np.ndarray) -> np.ndarray:
        y = w.array((self.key, "y"), fast_shape(self.shape))
        np.divide(x, 255, out=y)
        for c, channel in enumerate(np.moveaxis(y.reshape(*self.view[:2], -1), 1, 0)):
            channel -= self.stage.mean[c]
            channel /= self.stage.std[c]
        return y

    def backward(self, w: Workspace, u: Any, x: Any, y: np.ndarray, p: np.ndarray, costate: bool) -> Any:
        if not costate:
            return (), None
        std = np.asarray(self.stage.std, p.dtype).reshape(1, -1, 1)
        out = p.reshape(*self.view[:2], -1) / (255 * std)
        return (), out.reshape(p.shape)
