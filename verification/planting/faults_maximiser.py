"""Faults in the pointwise maximiser (T4), in admissible sets, in metrics and averages (T13, T17)."""

from verification.planting.fault import faults

faults(
    """
candidate written into the control
  pmp_ref.regulariser:free_maximiser
  - u + g / (2 * eps)
  + planted(u.__iadd__(g / (2 * eps)))

a NumPy number in place of a Python float
  pmp_ref.regulariser:free_maximiser
  - u + g / (2 * eps)
  + u + g / (planted(__import__("numpy").float64(2.0)) * eps)
  why: float32 arrays of NumPy become float64, those of other libraries do not

# --- L0, L1, L2 and their sums (T4)

threshold √(2ρ/ε) for √(ρ/ε)  [theory]
  pmp_ref.regulariser:Polynomial.on_line
  - gain > rho * self.a0
  + ((xp.abs(w) > (2 * rho * self.a0 / eps) ** 0.5) if planted(self.a0) > 0 else gain > 0)

threshold ρ/ε for √(ρ/ε)  [theory]
  pmp_ref.regulariser:Polynomial.on_line
  - gain > rho * self.a0
  + ((xp.abs(w) > rho * self.a0 / eps) if planted(self.a0) > 0 else gain > 0)

threshold ρ/(2ε) for √(ρ/ε)  [theory]
  pmp_ref.regulariser:Polynomial.on_line
  - gain > rho * self.a0
  + ((xp.abs(w) > rho * self.a0 / (2 * eps)) if planted(self.a0) > 0 else gain > 0)

threshold of half the size
  pmp_ref.regulariser:Polynomial.on_line
  - gain > rho * self.a0
  + gain > planted(rho * self.a0 / 4)

ties to nonzero  [theory]
  pmp_ref.regulariser:Polynomial.on_line
  - gain > rho * self.a0
  + gain >= planted(rho * self.a0)

box clipped after thresholding  [theory]
  pmp_ref.regulariser:Polynomial.on_line
  - if box.lo > 0 or
  + if box.lo <= 0 <= box.hi and box != Box():
  +         return planted(box.project(self.on_line(u, g, eps, rho, Box())))
  +     if box.lo > 0 or

½ in the augmentation  [theory]
  pmp_ref.maximise:candidate
  - if metric is None:
  + eps = planted(eps / 2)
  +     if metric is None:

soft threshold ρa₁/ε for ρa₁/(2ε)
  pmp_ref.regulariser:Polynomial.on_line
  - rising / (2 * eps + rho * self.a2)
  + (b - planted(2) * rho * self.a1) / (2 * eps + rho * self.a2)

L2 shrinks by 2ε/(2ε + 2ρa₂)
  pmp_ref.regulariser:Polynomial.on_line
  - b / (2 * eps + rho * self.a2)
  + b / (2 * eps + planted(2) * rho * self.a2)

gain of L2 without the half
  pmp_ref.regulariser:Polynomial.on_line
  - eps + rho * self.a2 / 2
  + eps + planted(rho * self.a2)
  why: right without L0 or without L2

L1 missing in the gain
  pmp_ref.regulariser:Polynomial.on_line
  - xp.where(positive > 0, rising, falling)
  + planted(b)
  why: right without L0

negative side lost
  pmp_ref.regulariser:Polynomial.on_line
  - positive + negative
  + planted(positive)

value of L2 without ½
  pmp_ref.regulariser:Polynomial._pointwise64
  - self.pointwise(
  + planted(2 if self.a2 else 1) * self.pointwise(

L2 entry by entry without ½
  pmp_ref.regulariser:Polynomial.pointwise
  - self.a2 / 2
  + planted(self.a2)

L0 counts entries above 10⁻³ only
  pmp_ref.regulariser:Polynomial.terms
  - w != 0 if
  + planted(abs(w) > 0.05) if

unpenalised maximiser u + g/ε
  pmp_ref.regulariser:free_maximiser
  - g / (2 * eps)
  + planted(g / eps)

box ignored where ρ = 0
  pmp_ref.regulariser:unpenalised
  - return box.project(free_maximiser(u, g, eps))
  + return planted(free_maximiser(u, g, eps))

# --- finite sets

finite sets: nearest value to c, penalty ignored
  pmp_ref.regulariser:Regulariser.on_finite_set
  - - rho * self.pointwise(w)
  + - planted(0) * w

finite sets: ties away from 0
  pmp_ref.regulariser:Regulariser.on_finite_set
  - closer = closer & (best != 0)
  + closer = planted(closer)

finite sets: ties to the first value
  pmp_ref.regulariser:Regulariser.on_finite_set
  - (phi == best_phi) & closer
  + planted((phi == best_phi) & (best != best))

finite sets: ½ in the augmentation
  pmp_ref.regulariser:Regulariser.on_finite_set
  - - eps * (w - u)
  + - planted(eps / 2) * (w - u)

# --- powers |w|^q

½-threshold constant 54^{1/3}/2
  pmp_ref.regulariser:LHalf.local_maximiser
  - 54 ** (1 / 3) / 4
  + planted(54 ** (1 / 3) / 2)

½-form: λ/4 for λ/8
  pmp_ref.regulariser:LHalf.local_maximiser
  - lam / 8
  + planted(lam / 4)

⅔-threshold with λ for λ³
  pmp_ref.regulariser:LTwoThirds.local_maximiser
  - lam ** 0.75
  + planted(lam) ** 0.25

⅔-form: cosh without the third
  pmp_ref.regulariser:LTwoThirds.local_maximiser
  - xp.acosh(half) * (2 / 3)
  + xp.acosh(half) * planted(1.0)

power on a box: clipped without comparing with 0
  pmp_ref.regulariser:_Power.on_line
  - gain > 0
  + gain > planted(-float('inf'))

rounding of a sum's value taken for nothing
  pmp_ref.regulariser:Polynomial.error_bound
  - 0.0 if exact
  + 0.0 if planted(True)

rounding of a power's value taken for nothing
  pmp_ref.regulariser:_Power.error_bound
  - (8 + size) * ROUNDOFF
  + planted(0.0)

a sum with L2 said to grow like L1
  pmp_ref.regulariser:Polynomial.asymptotic_slope
  - math.inf
  + planted(self.a1)

exponent of the power's value
  pmp_ref.regulariser:_Power.pointwise
  - ** self.q
  + ** planted(1.0)

# --- groups, weights, sets

group threshold ‖c‖ for ‖c‖²
  pmp_ref.regulariser:GroupL0.on_line
  - self.norms(eps * c * c)
  + planted(self.norms(eps * c * c)) ** 0.5

group L0 along the other axis
  pmp_ref.regulariser:GroupL0.norms
  - if a != self.axis)
  + if a != planted(1 - self.axis))

group ties kept
  pmp_ref.regulariser:GroupL0.on_line
  - > rho * self.omega
  + >= planted(rho * self.omega)

group weight missing in the value
  pmp_ref.regulariser:GroupL0.terms
  - self.omega *
  + planted(1.0) *

penalty weights ignored by the maximiser
  pmp_ref.maximise:weighted
  - rho * omega
  + planted(rho)

penalty ignored by the maximiser
  pmp_ref.maximise:weighted
  - rho * omega
  + planted(0.0) * rho * omega

metric ignored by the maximiser  [theory]
  pmp_ref.maximise:candidate
  - eps * d,
  + planted(eps) + 0 * d,

projection on a finite set: farther value
  pmp_ref.admissible:FiniteSet.project
  - xp.abs(w - v) <
  + planted(0.5) * xp.abs(w - v) <

an open box
  pmp_ref.admissible:Box.contains
  - w <= self.hi
  + w < planted(self.hi)

gap of a finite set: the largest
  pmp_ref.admissible:FiniteSet.gap
  - min((b - a
  + max((planted(b - a)

box bounded if one end is
  pmp_ref.admissible:Box.bounded
  - isfinite(self.lo) and
  + isfinite(self.lo) or planted(True) and

# --- metrics (T17), averages

metric from g for g²
  pmp_ref.metric:GradientMetric.square
  - g * g
  + planted(abs(g))

metric by layer from the sum, not the mean
  pmp_ref.metric:LayerMetric.square
  - .mean(g * g)
  + .sum(planted(g * g))

metric not scaled to mean 1
  pmp_ref.metric:_quotient
  - d / namespace(d).astype(total / size, d.dtype)
  + planted(d)

metric not clipped from below
  pmp_ref.metric:_Scaled._clipped
  - clip(d, least, most)
  + clip(d, planted(0.0) * least, most)

metric not clipped from above
  pmp_ref.metric:_Scaled._clipped
  - self.ceiling * unit
  + planted(1e30) * unit

metric's memory reversed
  pmp_ref.metric:_Scaled.update
  - fused(running, m, s, beta=self.beta)
  + fused(running, m, s, beta=planted(1 - self.beta))

average without the correction of its start
  pmp_ref.averaging:corrected
  - 1 - base ** count
  + planted(1.0)

average's memory reversed
  pmp_ref.averaging:Averaging.update
  - fused(running, m, a, beta=self.beta)
  + fused(running, m, a, beta=planted(1 - self.beta))
"""
)
