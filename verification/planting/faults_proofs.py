"""Faults in the proofs of runs (T24): each must be caught by a claim, with or without Arb."""

from verification.planting.fault import faults

faults(
    """
# --- the four that a checker must catch by name

T24: an interval rounded inwards
  pmp_ref.proofs.arithmetic:outward
  - a = math.nextafter(a, -math.inf)
  + a = planted(math.nextafter(a, math.inf))

T24: a dropped radius: what enters an affine stage
  pmp_ref.proofs.stages:affine_radius
  - s.operator * x.rad
  + planted(0.0)

T24: a corner forgotten: the product of both radii
  pmp_ref.proofs.stages:kernel_radius
  - p.rad @ x.rad
  + planted(0.0)

T24: γ₁ for γ_n
  pmp_ref.proofs.stages:affine_radius
  - gamma(terms + 1)
  + planted(gamma(1))

# --- radii

T24: an upper end rounded inwards
  pmp_ref.proofs.arithmetic:outward
  - math.nextafter(b, math.inf)
  + planted(0.9 * b)

T24: γ₁ for γ_n in an adjoint
  pmp_ref.proofs.stages:adjoint_radius
  - gamma(terms)
  + planted(gamma(1))

T24: the radius of a costate dropped
  pmp_ref.proofs.stages:adjoint_radius
  - s.operator * p.rad
  + planted(0.0)

T24: the radius of a state left out of g
  pmp_ref.proofs.stages:kernel_radius
  - x.rad @ size_p
  + planted(0.0) * size_p[0]

T24: the radius of a costate left out of g
  pmp_ref.proofs.stages:kernel_radius
  - p.rad @ size_x
  + planted(0.0) * size_x[0]

T24: the radius of a costate left out of a bias
  pmp_ref.proofs.stages:bias_switching
  - root * p.rad.sum()
  + planted(0.0)

T24: ‖K‖ of another kernel
  pmp_ref.proofs.stages:Affine.prepare
  - operator_norm(stage, u[0], tuple(shape))
  + planted(0.1)

T24: scale-and-shift by its first entry
  pmp_ref.proofs.stages:Affine.prepare
  - float(np.max(np.abs(u[0])))
  + planted(0.01)

T24: a slope that does not turn
  pmp_ref.proofs.stages:Smooth.backward
  - largest(p.mid) * (s2 * x.rad)
  + planted(0.0)

T24: a slope bounded at the midpoint
  pmp_ref.proofs.stages:Smooth.forward
  - s2 * x.rad
  + planted(-0.5)

T24: a kink forgotten
  pmp_ref.proofs.stages:LeakyRule.backward
  - np.abs(x.mid) <= column(x.rad, x.mid)
  + planted(x.mid != x.mid)

T24: a tie of maxima forgotten
  pmp_ref.proofs.stages:MaxPoolRule.backward
  - math.sqrt(2 * m) * UP * norm(
  + planted(0.0) * norm(

T24: windows that overlap
  pmp_ref.proofs.stages:MaxPoolRule.forward
  - m * x.rad
  + planted(0.5) * x.rad

T24: mean pooling that contracts too much
  pmp_ref.proofs.stages:AveragePoolRule.prepare
  - math.sqrt(
  + planted(0.3) * math.sqrt(

T24: a mean over fewer entries at the edge contracts no less
  pmp_ref.proofs.stages:AveragePoolRule.prepare
  - fewest(stage, *shape[1:])
  + planted(prod(stage.windows.size))

T24: global pooling 1/n for 1/√n
  pmp_ref.proofs.stages:GlobalAveragePoolRule.forward
  - / math.sqrt(n)
  + / planted(n)

T24: flatten without its radius
  pmp_ref.proofs.stages:FlattenRule.forward
  - , x.rad)
  + , planted(0 * x.rad))

T24: x_1 without its roundings
  pmp_ref.proofs.stages:PixelsRule.forward
  - rounding = U * norm(part / std) + 2 * U * norm(y)
  + rounding = planted(0 * norm(y))

T24: pixels: the radius by the largest deviation
  pmp_ref.proofs.stages:PixelsRule.forward
  - x.rad / (255 * min(stage.std))
  + planted(x.rad / (255 * max(stage.std)))

T24: pixels: the costate's radius by the largest deviation
  pmp_ref.proofs.stages:PixelsRule.backward
  - p.rad / (255 * min(stage.std))
  + planted(p.rad / (255 * max(stage.std)))

T24: standardisation: s at the midpoint
  pmp_ref.proofs.stages:StandardiseRule.forward
  - x.rad / low
  + planted(0.3) * x.rad / low

T24: standardisation: the costate does not turn
  pmp_ref.proofs.stages:StandardiseRule.backward
  - 3 * x.rad
  + planted(0.0)

T24: ‖∇Φ‖ of the midpoint only
  pmp_ref.proofs.losses:cross_entropy
  - steepest * x.rad
  + planted(0.5) * steepest * x.rad

T24: ∇Φ without the radius
  pmp_ref.proofs.losses:cross_entropy
  - upward(0.5 * x.rad + miss_error, 4)
  + planted(miss_error)

T24: squared loss: radius of the state dropped
  pmp_ref.proofs.losses:squared
  - upward(x.rad + U * size, 4)
  + planted(U * size)

T24: a sum forgets a radius
  pmp_ref.proofs.arithmetic:add
  - x.rad + y.rad
  + planted(y.rad)

T24: a sum forgets its rounding
  pmp_ref.proofs.arithmetic:add
  - U * norm(mid)
  + planted(0.0)

T24: a multiple forgets its rounding
  pmp_ref.proofs.arithmetic:scale
  - U * norm(mid)
  + planted(0.0)

T24: a mean without its radii
  pmp_ref.proofs.arithmetic:mean
  - radius + 2
  + planted(0) + 2

T24: a norm that is too small
  pmp_ref.proofs.arithmetic:norm
  - np.sqrt(
  + planted(1 - 2.0 ** -40) * np.sqrt(

T24: a norm of channels that is too small
  pmp_ref.proofs.arithmetic:norms
  - np.sqrt(
  + planted(1 - 2.0 ** -40) * np.sqrt(

# --- functions and norms

T24: tanh without its last term
  pmp_ref.proofs.functions:_tanh
  - s * (-17 / 315)
  + planted(s * 0.0)

T24: exp without its last term
  pmp_ref.proofs.functions:_exp
  - r * (1 / 720)
  + planted(r * 0.0)

T24: a logarithm taken at its word
  pmp_ref.proofs.functions:log_error
  - np.abs(x * exp(-guess) - 1.0)
  + planted(0.0 * x)

T24: a root too many in ‖K‖₂
  pmp_ref.proofs.norms:spectral
  - range(SQUARINGS + 1)
  + range(planted(SQUARINGS + 2))

T24: the symbol without its factor
  pmp_ref.proofs.norms:symbol_norm
  - largest / shrink
  + planted(0.5) * largest

T24: ‖K‖_F without a row
  pmp_ref.proofs.norms:row_norms
  - k.reshape(k.shape[0], -1)
  + planted(k.reshape(k.shape[0], -1)[1:])

# --- values: the second program sees them

T24: a tap misplaced
  pmp_ref.proofs.products:meeting
  - tap * w.dilation[axis]
  + planted(tap + 1 - 1 + (tap > 0))

T24: the sum of chunks without the last
  pmp_ref.proofs.sweep:summed
  - mid = mid + part.mid
  + mid = planted(mid + 0 * part.mid)

T24: p_L without 1/B
  pmp_ref.proofs.sweep:divided
  - mid = -slope.mid / samples
  + mid = planted(-slope.mid)

T24: a sum without its weights
  pmp_ref.proofs.stages:weighted
  - weight == 1
  + planted(True)

T24: a multiple on the way back keeps its radius
  pmp_ref.proofs.stages:WeightedSumRule.backward
  - weighted(alpha, p)
  + Near(planted(alpha * p.mid), 0 * p.rad)

T24: costates of two readers: the second alone
  pmp_ref.proofs.sweep:IntervalSweep.chunk_of
  - add(a, b)
  + planted(b)

T24: an overflow that goes unseen
  pmp_ref.proofs.sweep:finite
  - x.rad, np.inf)
  + planted(0 * x.rad), 0.0)

# --- verdicts

T24: proven by the lower end
  pmp_ref.proofs.step:compare
  - left.upper <= right.lower
  + planted(left.lower) <= right.upper

T24: τ without the metric's square
  pmp_ref.proofs.step:squared_length
  - (b - a) ** 2
  + planted(np.abs(b - a))

T24: ⟨g, Δ⟩ without the radii of g
  pmp_ref.proofs.step:inner
  - np.broadcast_to(ball.rad, way.shape)
  + planted(0.0)

T24: the way back counts as descent
  pmp_ref.proofs.step:change
  - after.mid - before.mid
  + planted(before.mid - after.mid)

T24: a negative ΣΔH passes
  pmp_ref.proofs.step:positive
  - a.lower > 0
  + planted(True)

T24: a refuted maximiser is forgotten
  pmp_ref.proofs.step:StepProof.verdict
  - self.maximised.verdict]
  + planted(Verdict.PROVEN)]

T24: half the penalty in the gain
  pmp_ref.proofs.maximiser:of_polynomial
  - gain = v * (s - q * v) - l0
  + gain = planted(v * (s - q * v) - 0.5 * l0)

T24: the side of 0 is not looked at
  pmp_ref.proofs.maximiser:of_polynomial
  - behind - gain + gain_doubt
  + planted(behind)

T24: exact rationals with ε for 2ε
  pmp_ref.proofs.maximiser:rational
  - v * (2 * e * u + g)
  + v * planted(e * u + g)

T24: a finite set without its penalty
  pmp_ref.proofs.maximiser:on_finite_set
  - - rho * (other - own)
  + - planted(0 * own)

T24: a group without its price
  pmp_ref.proofs.maximiser:in_groups
  - gain = r.norms(e * c * c) - rho * r.omega
  + gain = planted(r.norms(e * c * c))

T24: powers: any threshold
  pmp_ref.proofs.maximiser:of_power
  - above = np.abs(c) - threshold
  + above = planted(np.abs(c) - 0.5 * threshold)

T24: a control outside its set
  pmp_ref.proofs.maximiser:inside
  - outside.any()
  + planted(False)

T24: ε*: g²/(2ρ) for g²/(4ρ)
  pmp_ref.proofs.final:vertex
  - beta ** 2 / (4 * a0)
  + planted(beta ** 2 / (2 * a0))

T24: ε*: the support is left out
  pmp_ref.proofs.final:of_polynomial
  - a0 / u[inner] ** 2
  + planted(0 * u[inner])

T24: ε*: groups without their size
  pmp_ref.proofs.final:of_groups
  - r.norms(u * u)
  + planted(0.5 * r.norms(u * u))

T24: ε*: values without their penalty
  pmp_ref.proofs.final:of_values
  - - (other - own)
  + - planted(0 * own)

T24: ε*: H rises from a bound
  pmp_ref.proofs.final:of_polynomial
  - np.any(rise - doubt > 0)
  + planted(False)
"""
)
