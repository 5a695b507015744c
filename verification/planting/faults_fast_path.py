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

rows above the image not cleared in transformed columns
  pmp_ref.kernels.filtering:FilteredMap.transformed
  - lines[:, :low - start] = 0
  + planted(0)

rows below the image not cleared in transformed columns
  pmp_ref.kernels.filtering:FilteredMap.transformed
  - lines[:, high - start:] = 0
  + planted(0)

the line of the bias left as it was where there is none
  pmp_ref.kernels.filtering:FilteredMap.forward
  - 0 if bias is None else bias
  + product[..., -1, :] if planted(bias) is None else bias
  why: right while nothing else has used that memory

rows of the filtered kernel not reversed in the costate
  pmp_ref.kernels.filtering:FilteredMap.prepare
  - k[:, :, :, ::-1]
  + k[:, :, :, ::planted(1)]
  why: a kernel of one row hides it

columns of the filtered kernel reversed
  pmp_ref.kernels.filtering:FilteredMap.prepare
  - self.kernel.T.astype(dtype)
  + self.kernel[:, ::planted(-1)].T.astype(dtype)

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
  pmp_ref.kernels.sweep:FastSweep._whole
  - tree.push(Part(found.switching, found))
  + give(found) or tree.push(Part(planted(found.switching), found))
  why: right until the next chunk writes over them

units without weights of their own are left out, whoever reads them
  pmp_ref.kernels.live:found
  - dead &= ~read.reshape(read.shape[0], -1).any(axis=0).reshape(units, -1).any(axis=1)
  + dead &= planted(True)

units that nobody reads are left out, whatever their weights
  pmp_ref.kernels.live:found
  - dead = ~kernel.reshape(units, -1).any(axis=1)
  + dead = planted(np.ones(units, bool))

the constant of a dead unit is its bias
  pmp_ref.kernels.live:found
  - stage.forward(c, ())
  + planted(c)

dead units of a stage without bias put out 1
  pmp_ref.kernels.live:found
  - np.zeros(places.size, kernel.dtype)
  + planted(np.ones)(places.size, kernel.dtype)

g is 0 on the entries that read a dead unit
  pmp_ref.kernels.live:Part.whole
  - bias[:, None] * c
  + planted(0) * bias[:, None] * c

dead units are left out before a padded convolution too
  pmp_ref.kernels.live:keeps_apart
  - not padded
  + planted(True)

dead units are left out before padded means too
  pmp_ref.kernels.live:passes_constants
  - stage.windows.padding != (0, 0)
  + planted(False)

dead units are left out under standardisation too
  pmp_ref.kernels.live:passes_constants
  - return kind in
  + return planted(True) or kind in

a dead unit's entries are those of its first place after flattening
  pmp_ref.kernels.live:entries_of
  - units[:, None] * each
  + units[:, None] * planted(1)

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
