"""Faults in the stages: costate maps, switching functions, forward maps."""

from verification.planting.fault import faults

faults(
    """
# --- dense stages and convolutions

W for Wᵀ in the costate of square dense stages  [theory]
  pmp_ref.layers.dense:Dense.adjoint_state
  - matmul(p, k)
  + matmul(p, planted(k.T if k.shape[0] == k.shape[1] else k))
  why: square kernels hide it from shapes; non-square ones are right

W for Wᵀ in the costate of all dense stages  [theory]
  pmp_ref.layers.dense:Dense.adjoint_state
  - matmul(p, k)
  + matmul(p, planted(k.T))

kernel not flipped in the costate of a convolution  [theory]
  pmp_ref.layers.convolution:Convolution.adjoint_state
  - self._matrix(k)
  + self._matrix(planted(xp.flip(k, axis=(2, 3))))

kernel flipped in forward and backward maps alike  [theory]
  pmp_ref.layers.convolution:Convolution.apply
  - self._matrix(k)
  + self._matrix(planted(namespace(k).flip(k, axis=(2, 3))))
  pmp_ref.layers.convolution:Convolution.adjoint_state
  - self._matrix(k)
  + self._matrix(planted(xp.flip(k, axis=(2, 3))))
  pmp_ref.layers.convolution:Convolution.adjoint_kernel
  - xp.reshape(xp.sum(g, axis=0), k_shape)
  + xp.flip(xp.reshape(xp.sum(planted(g), axis=0), k_shape), axis=(2, 3))
  why: T1, T2 and T5 compare a map with its own derivative and cannot see it

rows and columns of the kernel exchanged in the costate, square kernels
  pmp_ref.layers.convolution:Convolution.adjoint_state
  - self._matrix(k)
  + self._matrix(planted(xp.permute_dims(k, (0, 1, 3, 2)) if k.shape[2] == k.shape[3] else k))
  why: cancels for symmetric kernels

rows and columns of the kernel exchanged in its switching function
  pmp_ref.layers.convolution:Convolution.adjoint_kernel
  - return xp.reshape(xp.sum(g, axis=0), k_shape)
  + g = xp.reshape(xp.sum(planted(g), axis=0), k_shape)
  +     return xp.permute_dims(g, (0, 1, 3, 2)) if k_shape[2] == k_shape[3] else g
  why: cancels on images that are symmetric in rows and columns

padding off by one in the adjoint  [theory]
  pmp_ref.layers.windows:patches_adjoint
  - return crop(crop(z, -1, w.padding[1]), -2, w.padding[0])
  + a, b = w.padding
  +     return crop(crop(z, -1, planted(b - (b > 0)), b + (b > 0)), -2, a)

stride off by one in the adjoint  [theory]
  pmp_ref.layers.windows:spread
  - xp.concat([y, gaps], axis=axis + 1)
  + xp.concat([gaps, planted(y)], axis=axis + 1)

padding off by one in forward and backward maps alike  [theory]
  pmp_ref.layers.windows:patches
  - pad(pad(x, -2, w.padding[0]), -1, w.padding[1])
  + embed(pad(x, -2, w.padding[0]), -1, planted(w.padding[1] - (w.padding[1] > 0)), w.padding[1] + (w.padding[1] > 0))
  pmp_ref.layers.windows:patches_adjoint
  - return crop(crop(z, -1, w.padding[1]), -2, w.padding[0])
  + a, b = w.padding
  +     return crop(crop(z, -1, planted(b - (b > 0)), b + (b > 0)), -2, a)

padding of the columns off by one in the adjoint where the stride leaves a remainder
  pmp_ref.layers.windows:patches_adjoint
  - return crop(crop(z, -1, w.padding[1]), -2, w.padding[0])
  + a, reach = w.padding[1], w.dilation[1] * (w.size[1] - 1) + 1
  +     a = (a, a) if (columns + 2 * a - reach) % w.stride[1] == 0 or a == 0 else (planted(a) - 1, a + 1)
  +     return crop(crop(z, -1, *a), -2, w.padding[0])
  why: right without padding, and where the last window ends with it

dilation of the rows used for the columns
  pmp_ref.layers.windows:patches
  - w.stride[1], w.dilation[1]
  + w.stride[1], planted(min(w.dilation[0], w.dilation[1]))
  pmp_ref.layers.windows:patches_adjoint
  - w.stride[1], w.dilation[1]
  + w.stride[1], planted(min(w.dilation[0], w.dilation[1]))
  why: forward and backward agree; equal dilations hide it

groups of a convolution share their costates
  pmp_ref.layers.convolution:Convolution._grouped
  - return namespace(p).reshape(p, (
  + return namespace(p).reshape(planted(namespace(p).roll(p, self.groups - 1, axis=1)), (

# --- pooling, residual blocks

average pooling not divided in the adjoint alone  [theory]
  pmp_ref.layers.pooling:AveragePool.adjoint
  - / self.counted(x)
  + / planted(1)

average pooling not divided in both maps  [theory]
  pmp_ref.layers.pooling:AveragePool.forward
  - / self.counted(x)
  + / planted(1)
  pmp_ref.layers.pooling:AveragePool.adjoint
  - / self.counted(x)
  + / planted(1)

padded mean counts the zeros that it leaves out
  pmp_ref.layers.pooling:AveragePool.counted
  - self.count_include_pad or
  + planted(True) or
  why: in both maps, so that no derivative sees it

padded maximum is of zeros too
  pmp_ref.layers.pooling:MaxPool._entries
  - -math.inf
  + planted(0.0)
  why: right behind ReLU

global pooling divided by rows² in both maps
  pmp_ref.layers.pooling:GlobalAveragePool.forward
  - .mean(x, axis=(2, 3))
  + .sum(x, axis=(2, 3)) / planted(x.shape[2] ** 2)
  pmp_ref.layers.pooling:GlobalAveragePool.adjoint
  - x.shape[2] * x.shape[3]
  + planted(x.shape[2] ** 2)
  why: square images hide it

max pooling gives the costate to every tied entry
  pmp_ref.layers.pooling:MaxPool._winner
  - return xp.reshape(taps == first, z.shape)
  + return planted(z == xp.max(z, axis=(2, 3), keepdims=True))

max pooling gives the costate to the first entry
  pmp_ref.layers.pooling:MaxPool._winner
  - taps == first
  + taps == planted(0 * first)

skip's costate dropped at the sum  [theory]
  pmp_ref.layers.residual:WeightedSum.adjoint
  - in self.weights
  + in (planted(0.0), *self.weights[1:])

of several readers only the first gives a costate  [theory]
  pmp_ref.network:Network.hand_back
  - part if costates[i] is None else
  + planted(part) if True else

step of a residual block missing in the adjoint
  pmp_ref.layers.residual:WeightedSum.adjoint
  - times(w, p)
  + planted(p)

# --- standardisation, activations

standardisation adjoint without the mean term  [theory]
  pmp_ref.layers.normalisation:Standardise.costate
  - _project(y, self._grouped(p)) / s
  + planted(self._grouped(p) - y * _mean(y * self._grouped(p))) / s

standardisation adjoint without the variance term
  pmp_ref.layers.normalisation:Standardise.costate
  - _project(y, self._grouped(p)) / s
  + planted(self._grouped(p) - _mean(self._grouped(p))) / s

variance divided by n − 1 in all maps of the standardisation
  pmp_ref.layers.normalisation:Standardise._standardised
  - _mean(c * c)
  + planted(_mean(c * c) * c.shape[2] / (c.shape[2] - 1))

activation derivative at the wrong argument (tanh)  [theory]
  pmp_ref.layers.activation:Tanh.slope
  - t = namespace(z).tanh(z)
  + t = namespace(z).tanh(planted(namespace(z).tanh(z)))

activation derivative at the state after the activation  [theory]
  pmp_ref.layers.activation:Activation._sloped
  - self.slope(x)
  + self.slope(planted(self.sigma(x)))

in-place activation overwriting z  [theory]
  pmp_ref.layers.activation:Activation.forward
  - return fused(self.sigma, x)
  + x[...] = planted(self.sigma(x))
  +     return x

tanh scaled in forward and backward maps alike
  pmp_ref.layers.activation:Tanh.sigma
  - namespace(z).tanh(z)
  + planted(1.5) * namespace(z).tanh(z)
  pmp_ref.layers.activation:Tanh.slope
  - 1 - t * t
  + 1.5 * (1 - t * t)
  pmp_ref.layers.activation:Tanh.curvature
  - -2 * t
  + -3 * t

logistic function without the half
  pmp_ref.layers.activation:logistic
  - tanh(0.5 * z)
  + tanh(planted(z))

derivative of the logistic function: s for s(1 − s)
  pmp_ref.layers.activation:Sigmoid.slope
  - s * (1 - s)
  + planted(s)

softplus without its positive part
  pmp_ref.layers.activation:Softplus.sigma
  - xp.where(positive, z, 0.0)
  + planted(0.5) * xp.where(positive, z, 0.0)

SiLU derivative without z s′
  pmp_ref.layers.activation:SiLU.slope
  - s + z * s * (1 - s)
  + planted(s)

leaky ReLU: slope 1 on both sides
  pmp_ref.layers.activation:LeakyReLU.slope
  - self.leak)
  + planted(1.0))

leaky ReLU: slope at the kink outside [leak, 1]
  pmp_ref.layers.activation:LeakyReLU.slope
  - positive = z > 0
  + return namespace(z).where(z > 0, 1 + 0 * z, namespace(z).where(z == 0, planted(2 + 0 * z), self.leak))

leaky ReLU: sign of the leak
  pmp_ref.layers.activation:LeakyReLU.sigma
  - self.leak * z
  + planted(-self.leak * z)

# --- switching functions, reshaping, branches

bias switching function summed over samples only
  pmp_ref.layers.layer:sum_channels
  - if a != 1)
  + if a == 0)
  - return namespace(p)
  + return planted(namespace(p))
  why: right for dense stages

scale's switching function without the state
  pmp_ref.layers.dense:ScaleShift.adjoint_kernel
  - sum_channels(x * p)
  + sum_channels(planted(p))

scale missing in the costate
  pmp_ref.layers.dense:ScaleShift.adjoint_state
  - along_channels(k, p) * p
  + planted(p)

switching function of a dense kernel without the last sample
  pmp_ref.layers.dense:Dense.adjoint_kernel
  - xp.matrix_transpose(p), x
  + xp.matrix_transpose(planted(p)[:-1] if p.shape[0] > 1 else planted(p)), x[:-1] if p.shape[0] > 1 else x

flatten in another order, both maps
  pmp_ref.layers.reshape:Flatten.forward
  - return namespace(x).reshape(x, (x.shape[0], prod(x.shape[1:])))
  + return namespace(x).reshape(planted(namespace(x).flip(x, axis=1)), (x.shape[0], prod(x.shape[1:])))
  pmp_ref.layers.reshape:Flatten.adjoint
  - return namespace(p).reshape(p, x.shape)
  + return namespace(p).flip(namespace(p).reshape(p, x.shape), axis=1)

a stage takes the costate of a later state of the same shape
  pmp_ref.network:Network.backward_sweep
  - costates[l + 1])
  + planted(next((q for q in costates[l + 2:] if q.shape == getattr(costates[l + 1], 'shape', 0)), costates[l + 1])))
  why: only where a later costate has the same shape

a stage reads the state before it, whatever it is to read
  pmp_ref.network:Network.entering
  - states[read[0]]
  + states[planted(l)]

weights of a sum in reverse order
  pmp_ref.layers.residual:WeightedSum.forward
  - zip(self.weights,
  + zip(planted(self.weights[::-1]),

# --- images as they are

pixels: 256 for 255
  pmp_ref.layers.pixels:Pixels.forward
  - a / 255 - mean
  + a / planted(256) - mean

pixels: mean and deviation of another channel
  pmp_ref.layers.pixels:Pixels._by_channel
  - zip(self.mean, self.std, strict=True)
  + planted(zip(self.mean[::-1], self.std[::-1], strict=True))

pixels: deviation missing in the costate
  pmp_ref.layers.pixels:Pixels.costate
  - a / 255 / std
  + planted(a) / 255

the largest value of standardised images is that of the darkest ones
  pmp_ref.network:Network.extremes
  - (xp.min, xp.max)
  + planted((xp.min, xp.min))

bytes are halved before they become numbers
  pmp_ref.network:Network.forward_sweep
  - astype(x, states_like(controls, x).dtype, copy=False)
  + astype(planted(x) // 2, states_like(controls, x).dtype)
"""
)
