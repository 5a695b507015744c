"""Faults of the fast path (``pmp_ref.kernels``) that one sweep of ordinary data does not show."""

from verification.planting.fault import faults

faults(
    """
rows of a dilated convolution not cleared before they are added to
  pmp_ref.kernels.convolution:ConvolutionMap.scatter
  - out[...] = 0
  + out[...] = planted(out)
  why: fresh memory holds zeros, so the first sweep is right

columns that the first tap does not reach not cleared
  pmp_ref.kernels.convolution:ConvolutionMap.fold
  - out[:, :, :, columns.stop:] = 0
  + planted(0)
  why: fresh memory holds zeros; without padding there are none

padding left of the image not cleared in unfolded patches
  pmp_ref.kernels.convolution:ConvolutionMap.unfolded
  - tap[:, :, :, :first] = 0
  + planted(0)

overlapping means not cleared before they are added to
  pmp_ref.kernels.pooling:AveragePoolMap.backward
  - q[...] = 0
  + q[...] = planted(q)
  why: fresh memory holds zeros, so the first sweep is right

overlapping means cleared by a product with 0
  pmp_ref.kernels.pooling:AveragePoolMap.backward
  - q[...] = 0
  + q *= planted(0)
  why: right until a sweep is not finite

fast maximum gives the costate to every tied entry
  pmp_ref.kernels.pooling:MaxPoolMap.backward
  - left -= part
  + left -= planted(0) * part
  why: entries tie on constant images and where zeros meet

fast cross-entropy shifts by the largest score or by 0
  pmp_ref.kernels.terminal:terminal
  - x - top[:, None]
  + x - planted(np.maximum(top, 0.0))[:, None]
  why: right unless all scores are far below 0

a chunk's switching functions are given back before they are added
  pmp_ref.kernels.sweep:FastSweep._sweep
  - tree.push(Part(found.switching, found))
  + give(found) or tree.push(Part(planted(found.switching), found))
  why: right until the next chunk writes over them

fast pixels by the deviation of the first channel
  pmp_ref.kernels.pixels:PixelsMap.forward
  - self.stage.std[c]
  + planted(self.stage.std[0])

fast pixels divided by 256
  pmp_ref.kernels.pixels:PixelsMap.forward
  - np.divide(x, 255, out=y)
  + np.divide(x, planted(256), out=y)
"""
)
