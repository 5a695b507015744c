"""Faults in the proven bounds (T7, T7a, T7b, T23)."""

from verification.planting.fault import faults

faults(
    """
# --- T7

T7: mixed term 2Z dropped  [theory]
  pmp_ref.bounds.coarse:propagate
  - k * (R * Y + 2 * Z)
  + planted(k * R * Y)

T7: mixed term Z for 2Z
  pmp_ref.bounds.coarse:propagate
  - 2 * Z)
  + planted(Z))

T7: tangents without the bias
  pmp_ref.bounds.coarse:propagate
  - k * (R * Z + X) + beta
  + planted(k * (R * Z + X))

T7: σ″ without the square
  pmp_ref.bounds.coarse:propagate
  - s2 * Z ** 2
  + planted(s2 * Z)

T7: a sum forgets its weights
  pmp_ref.bounds.coarse:propagate
  - w * a for
  + planted(a) for

T7: weights of a sum without modulus
  pmp_ref.bounds.coarse:propagate
  - np.abs(stage.weights)
  + planted(np.asarray(stage.weights))

T7: saturation ignored
  pmp_ref.bounds.coarse:propagate
  - largest_value(stage) * root
  + planted(float('inf'))

T7: ‖Φ′‖ ≤ 1 for √2
  pmp_ref.bounds.coarse:global_constant
  - math.sqrt(2) * Y
  + planted(Y)

T7: C̄ for ½C̄
  pmp_ref.bounds.coarse:global_constant
  - 0.5 * float(np.mean(bound))
  + planted(float(np.mean(bound)))

T7: squared loss without its target
  pmp_ref.bounds.coarse:global_constant
  - X + np.linalg.norm(to_numpy(y).reshape(y.shape[0], -1), axis=1)
  + planted(X)

T7: radius of the box without √n
  pmp_ref.bounds.coarse:radii_of_box
  - math.sqrt(math.prod(shape))
  + planted(1.0)

T7: radius around u without u
  pmp_ref.bounds.coarse:radii_around
  - float(np.linalg.norm(to_numpy(a).astype(np.float64))) + r
  + planted(r)

T7: m for √m
  pmp_ref.bounds.constants:bilinear_norm
  - math.sqrt(overlaps(
  + planted(overlaps(

T7: stride ignored in m
  pmp_ref.bounds.constants:overlaps
  - o * windows.stride[axis]
  + planted(o)

T7: padding ignored in m
  pmp_ref.bounds.constants:overlaps
  - - windows.padding[axis]
  + - planted(0)

T7: s₁ of SiLU is 1
  pmp_ref.bounds.constants:activation_constants
  - 1.09984
  + planted(1.0)

T7: pooling norm without its windows
  pmp_ref.bounds.constants:linear_norm
  - / fewest(stage, shape[1], shape[2])
  + / planted(fewest(stage, shape[1], shape[2]) ** 2)

T7: |σ(0)| of softplus
  pmp_ref.bounds.constants:value_at_zero
  - math.log(2.0)
  + planted(0.0)

# --- T7a

T7a: χ dropped
  pmp_ref.bounds.ball:BallBound.growth
  - 2 * (layer.chi + layer.k * f[l + 1]) * A
  + planted(2 * layer.k * f[l + 1] * A)

T7a: ½ dropped in the affine term
  pmp_ref.bounds.ball:BallBound.growth
  - 2 * (layer.chi +
  + planted(1) * (layer.chi +

T7a: activation term dropped
  pmp_ref.bounds.ball:BallBound.growth
  - top = top + self.weighted(l, (q + f[l + 1][:, None]) * there, d)
  + planted(0)

T7a: final term without Φ″
  pmp_ref.bounds.ball:BallBound.growth
  - top = top + 0.5 * (a + d) ** 2
  + planted(0)

T7a: change without its Jacobians
  pmp_ref.bounds.ball:BallBound.__call__
  - self.curvature + float(np.mean(change))
  + planted(self.curvature)

T7a: λ_max for ½λ_max
  pmp_ref.bounds.ball:BallBound.__call__
  - 0.5 * min
  + planted(1.0) * min

T7a: costates do not move with the kernels
  pmp_ref.bounds.ball:BallBound._backward
  - layer.chi * r
  + planted(0.0 * r)

T7a: costates do not move with the loss
  pmp_ref.bounds.ball:BallBound._backward
  - [0.5 * e[last]]
  + [planted(0.0) * e[last]]

T7a: Jacobians do not move with the slopes
  pmp_ref.bounds.ball:BallBound._forward
  - self.scaled(l, gap)
  + planted(zero)

T7a: Jacobians do not move with the kernels
  pmp_ref.bounds.ball:BallBound._forward
  - layer.k * (r * self.a[l] + e[l])
  + planted(zero)

T7a: states move by half
  pmp_ref.bounds.ball:BallBound._forward
  - (self.a[l + 1] + d) * r
  + planted(0.5) * (self.a[l + 1] + d) * r

T7a: entries of states move by a tenth
  pmp_ref.bounds.ball:BallBound._forward
  - (self.rows[l + 1] + d[:, None]) * r
  + planted(0.1) * (self.rows[l + 1] + d[:, None]) * r

T7a: σ″ missing in the Hessian from Jacobians
  pmp_ref.bounds.ball:full_hessian
  - layer.q * layer.stage.curvature(layer.z)
  + planted(0.0 * layer.q)

T7a: one end of an interval for σ
  pmp_ref.bounds.ball:value_change
  - np.maximum(stage.sigma(z + E) - at, at - stage.sigma(z - E))
  + planted(stage.sigma(z + E) - at)

T7a: smallest weight for the largest
  pmp_ref.bounds.ball:BallBound.weighted
  - np.sqrt(np.max(weight
  + np.sqrt(planted(np.min)(weight

T7a: change of the Hessian without moving Jacobians
  pmp_ref.bounds.ball:BallBound.growth
  - np.max(q * here, axis=1) * (2 * a * d + d ** 2)
  + planted(0 * d)

T7a: certified ε for half the bound
  pmp_ref.bounds.ball:certified_eps
  - eps >= bound
  + eps >= planted(0.1) * bound

T7a: 1 − t forgotten along the segment
  pmp_ref.bounds.ball:BallBound.along
  - (2 * (PARTS - m) + 1)
  + planted(PARTS)

T7a: a part's left end for its right end
  pmp_ref.bounds.ball:BallBound.along
  - self(m / PARTS
  + self(planted(m - 1) / PARTS

T7a: weights (1 − t) without the factor 2
  pmp_ref.bounds.ball:BallBound.along
  - / PARTS ** 2
  + / planted(2 * PARTS**2)

T7a: bisection returns the failing end
  pmp_ref.bounds.ball:certified_eps
  - return high
  + return planted(0.2 * high)

# --- T7b

T7b: Δx_{k−1} dropped
  pmp_ref.bounds.segment:affine
  - add(k + 1, by_d,
  + add(k + 1, planted(0 * by_d),

T7b: Δb dropped
  pmp_ref.bounds.segment:affine
  - np.broadcast_to(db, mids[0].shape)
  + planted(np.zeros(mids[0].shape))

T7b: kernel at u for the kernel at c
  pmp_ref.bounds.segment:affine
  - by_u + column(c, by_d) * by_d
  + planted(by_u)

T7b: kernels do not move on the part
  pmp_ref.bounds.segment:affine
  - h_ * jet.top.magnitude
  + planted(0 * h_) * jet.top.magnitude

T7b: radius of the quotient lost
  pmp_ref.bounds.segment:affine
  - stage.apply(jet.top.rad, np.abs(kernel))
  + planted(0) * stage.apply(jet.top.rad, np.abs(kernel))

T7b: rounding of an affine stage without its step
  pmp_ref.bounds.segment:affine
  - slack * (length_u + length_d) * length)
  + slack * planted(length_u) * length)
  why: hidden where the controls are not small beside the step

T7b: error of the state not carried on by the step
  pmp_ref.bounds.segment:affine
  - (sum_u + c * sum_d) * err
  + planted(sum_u) * err

T7b: errors grow by twice the slope in an activation
  pmp_ref.bounds.segment:activate
  - (k + 1) * bound[k + 1] for k
  + (k + planted(2)) * bound[k + 1] for k
  why: still an enclosure, only wider than it must be

T7b: tails without what is above them
  pmp_ref.bounds.jets:tails
  - x.rad + step.rad
  + planted(x.rad)

T7b: f₂z₁² dropped
  pmp_ref.bounds.jets:compose
  - powers[2] = square_of(z[1])
  + powers[2] = planted(None)

T7b: f₃z₁³ dropped
  pmp_ref.bounds.jets:compose
  - powers[3] = times(square_of(z[1]), z[1])
  + powers[3] = planted(None)

T7b: 2z₁z₃ + z₂² without z₂²
  pmp_ref.bounds.jets:quotient
  - square_of(tail[2]))
  + planted(None))

T7b: z₁ + z_[1] halved
  pmp_ref.bounds.jets:quotient
  - plus(z[1], tail[1])
  + planted(tail[1])
  why: a half factor in a term of the third order alone

T7b: 3z₁² + 3z₁e + e² without 3z₁e
  pmp_ref.bounds.jets:quotient
  - plus(times(3.0, times(z[1], e)), square_of(e))
  + planted(square_of(e))

T7b: the part is its right half
  pmp_ref.bounds.jets:within
  - Ball(np.zeros_like(x.mid), column(h, x.mid) * x.magnitude * UP + TINY)
  + Ball(planted(0.5 * column(h, x.mid) * x.mid), 0.5 * column(h, x.mid) * x.magnitude * UP)

T7b: weights of a sum forgotten
  pmp_ref.bounds.segment:weighted_sum
  - times(w, a)
  + planted(a)

T7b: radius of pooling divided twice
  pmp_ref.bounds.segment:average
  - stage.forward(top.rad, ()) + rounding
  + planted(0.25) * stage.forward(top.rad, ())

T7b: exp without 1/k!
  pmp_ref.bounds.terminal:cross_entropy
  - 1 / factorial(k) for k
  + planted(1.0) for k

T7b: log without its signs
  pmp_ref.bounds.terminal:cross_entropy
  - (-1.0) ** (k - 1)
  + planted(1.0)

T7b: Σ exp moves by half of what it does
  pmp_ref.bounds.terminal:moves
  - h ** 2 * UP
  + planted(0.5) * h ** 2 * UP

T7b: score of the label forgotten
  pmp_ref.bounds.terminal:cross_entropy
  - Ball(b.mid[own], b.rad[own])
  + Ball(planted(0 * b.mid[own]), b.rad[own])

T7b: squared loss without ½
  pmp_ref.bounds.terminal:loss_coefficients
  - 0.5, None
  + planted(1.0), None

T7b: corners of softmax exchanged
  pmp_ref.bounds.terminal:corner_softmax
  - corner(low, high)
  + planted(corner(high, low))

T7b: sums taken as exact
  pmp_ref.bounds.intervals:gamma
  - n * U / (1 - n * U) * UP
  + planted(0.0)

T7b: products of points taken as exact
  pmp_ref.bounds.intervals:Point.__mul__
  - self.err * abs(other) + U * product.largest
  + planted(self.err * abs(other))

T7b: hull of the half width
  pmp_ref.bounds.intervals:hull
  - np.maximum(high - mid, mid - low)
  + planted(np.minimum(high - mid, mid - low) * (1 - 1e-12))

T7b: radius of a product without the product of radii
  pmp_ref.bounds.intervals:Ball.__mul__
  - (np.abs(other.mid) + other.rad)
  + planted(np.abs(other.mid))

T7b: softmax at the corners rounded inwards
  pmp_ref.bounds.terminal:corner_softmax
  - (1 - slack_low)
  + (1 + planted(slack_low))

T7b: Ĉ by the other end of τ
  pmp_ref.bounds.step:StepCertificate.c_hat
  - self.tau.upper if low >= 0
  + self.tau.upper if planted(low < 0)

T7: box of float32 controls by its float64 bound
  pmp_ref.bounds.coarse:radii_of_box
  - max(largest, float(np.float32(largest)))
  + planted(largest)

T7b: one sample too few is cut
  pmp_ref.bounds.step:widest
  - + 1
  + + planted(0)

T7b: the narrowest samples are cut first
  pmp_ref.bounds.step:widest
  - np.argsort(-width, kind='stable')
  + np.argsort(planted(width), kind='stable')

T7b: half a part
  pmp_ref.bounds.step:change
  - phi[1] * (2 * h)
  + phi[1] * planted(h)

T7b: third derivative left out of the change over a part
  pmp_ref.bounds.step:change
  - if order == 4
  + if planted(False)

T7b: the quotient is the same at both ends of a part
  pmp_ref.bounds.step:change
  - Ball(mid, phi[order].rad)
  + Ball(mid, planted(0 * phi[order].rad))

T7b: Σ exp not below by its reach
  pmp_ref.bounds.terminal:moves
  - np.maximum(low, least - 2 * U)
  + planted(low)
  why: still an enclosure, but log may end in no number

T7b: slope not taken off the remainder
  pmp_ref.bounds.step:certify_step
  - _down(low - slope.upper), _up(high - slope.lower)
  + planted(low), planted(high)

T7b: penalty with the wrong sign
  pmp_ref.bounds.step:penalty_change
  - after - before, rho * omega
  + planted(before - after), rho * omega

T7b: penalty without weights
  pmp_ref.bounds.step:penalty_change
  - rho * omega
  + planted(rho)

T7b: descent proven by the lower end
  pmp_ref.bounds.step:StepCertificate.proves_descent
  - self.delta_J.upper
  + planted(self.delta_J.lower - 1)

T7b: slope left out of the loss change
  pmp_ref.bounds.step:StepCertificate.delta_J
  - self.slope + self.remainder
  + planted(self.remainder)

T7b: ΣΔH without the penalty
  pmp_ref.bounds.step:StepCertificate.sum_dh
  - self.slope + self.penalty
  + planted(self.slope)

T7b: logistic derivatives without 2⁻ᵏ
  pmp_ref.bounds.taylor:coefficients
  - logistic[k] / 2 ** (k + 1)
  + planted(logistic[k] / 2 ** k)

# --- T23

T23: range of a quotient rounded inwards
  pmp_ref.bounds.quotients:activation_range
  - (least - slack, most + slack)
  + (least + planted(slack), most - slack)

T23: quotient near its centre by its definition
  pmp_ref.bounds.quotients:activation_range
  - reach > NEAR
  + reach > planted(0.0)
  why: still an enclosure, as wide as it can be: the quotient of two roundings

T23: quotient of exp near 0 by its definition
  pmp_ref.bounds.quotients:exp_quotient
  - np.abs(y) <= NEAR
  + np.abs(y) <= planted(0.0)
  why: as before

T23: half of the range near the centre
  pmp_ref.bounds.quotients:activation_range
  - slope = reach
  + slope = planted(0.5) * reach

T23: chords taken for the quotient
  pmp_ref.bounds.quotients:activation_range
  - 0.25 * bend[far]
  + planted(0 * bend[far])
  why: seen only where the quotient is not monotone

T23: the centre is taken as exact
  pmp_ref.bounds.quotients:activation_range
  - errors[n] + (n + 1) * bound[n + 1] * z.err
  + planted(errors[n])

T23: one side of the reach
  pmp_ref.bounds.quotients:activation_range
  - (y, -y)
  + (y, planted(y))

T23: quotient of log taken as increasing
  pmp_ref.bounds.quotients:between
  - np.minimum(one[0] - one[1], other[0] - other[1])
  + planted(one[0] - one[1])
  why: for even n it increases, for odd n it falls

T23: rounding of a quotient not divided
  pmp_ref.bounds.quotients:divided
  - U * np.abs(gap)) / size
  + U * np.abs(gap)) / planted(size ** 0)

T23: e^y cut off after 1/n!
  pmp_ref.bounds.quotients:exp_quotient
  - 1.04 * y ** 2
  + planted(0.0) * y ** 2

T7: the norm of the images for that of x_1
  pmp_ref.bounds.coarse:global_constant
  - still(known[l + 1])
  + still(planted(known[0]))

T7b: x_1 without its roundings
  pmp_ref.bounds.segment:pixels
  - 8 * U * size
  + planted(0 * size)
"""
)
