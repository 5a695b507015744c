"""Faults in certificates and gaps (T10, T11)."""

from verification.planting.fault import faults

faults(
    """
T11: g²/(2ρ) for g²/(4ρ) in ε*  [theory]
  pmp_ref.regulariser:Polynomial.eps_star
  - beta ** 2 / (4 * rho * self.a0)
  + planted(beta ** 2 / (2 * rho * self.a0))

T11: float32 controls at a bound taken for interior ones
  pmp_ref.admissible:Box.widened
  - w == end
  + planted(w != w)

T11: unpenalised entries inside ε*  [theory]
  pmp_ref.certificate:eps_star
  -         return 0.0
  +         return planted(float(np.max(np.abs(to_numpy(g)))))

T11: residual of kept entries inside ε*
  pmp_ref.certificate:_stationary
  - g - stationarity_residual(u, g, r, rho, admissible)
  + planted(g)

T11: bisection keeps the residual
  pmp_ref.certificate:by_bisection
  - _bisected(*cleaned, r,
  + _bisected(cleaned[0], planted(to_numpy(g)), r,

T11: ε* of zeros without the bounds
  pmp_ref.regulariser:Polynomial.eps_star
  - 2 * rho * self.a0 <= beta * room
  + planted(beta > 0)

T11: a bound counts like the interior
  pmp_ref.certificate:_falls_towards_bound
  - (rise < 0)
  + planted(rise > 0)

T11: slope of the penalty forgotten at a bound
  pmp_ref.certificate:_falls_towards_bound
  - rise = g - slope
  + rise = g - planted(0) * slope
  why: right under pure L0, whose slope is 0

T11: bound on the other side of a zero
  pmp_ref.regulariser:Polynomial.eps_star
  - np.where(g > 0, box.hi, -box.lo)
  + np.where(planted(g < 0), box.hi, -box.lo)

T11: unpenalised entries at a bound count like inner ones
  pmp_ref.certificate:stationarity_residual
  - ~(low & (residual < 0) | high & (residual > 0))
  + planted(low == low)

T10: plain gap under L1/2 finite for small g
  pmp_ref.certificate:plain_gap
  - slope = rho * r.asymptotic_slope()
  + slope = rho * max(r.asymptotic_slope(), planted(1.0))

T11: quotient by the distance, not its square
  pmp_ref.certificate:_rise
  - np.where(d == 0, 1.0, d) ** 2
  + planted(np.abs(np.where(d == 0, 1.0, d)))

T11: penalty left out on finite sets
  pmp_ref.certificate:_rise
  - rho * change
  + planted(0.0) * change

T11: slope of L1 without the sign
  pmp_ref.regulariser:Polynomial.derivative
  - xp.where(w > 0, self.a1, -self.a1)
  + planted(self.a1)

T11: exponent q for q − 1 in the slope
  pmp_ref.regulariser:_Power.derivative
  - ** (self.q - 1)
  + ** planted(self.q)

T11: group counted entry by entry in the gap
  pmp_ref.certificate:_gaps_and_terms
  - shaped(penalty(a))
  + shaped(penalty(a) if r.separable else planted(r.omega * r.group_sums((a != 0) * 1.0)))

T11: augmented gap without the augmentation
  pmp_ref.certificate:_gaps_and_terms
  - linear - square -
  + linear - planted(0 * square) -

T11: certificate without the layers' weights
  pmp_ref.certificate:certify
  - problem.rho * problem.weights[l][i]
  + planted(problem.rho)

T11: smallest ε* of the controls, not the largest
  pmp_ref.certificate:certify
  - eps_star=max(
  + eps_star=planted(min)(

T11: one residual for penalised and unpenalised
  pmp_ref.certificate:certify
  - for c in rows if c.penalised
  + for c in planted(rows)

T11: gap table off by one decade
  pmp_ref.certificate:certify_control
  - 10.0 ** (-k)
  + planted(10.0 ** (1 - k))

T11: living rows counted as dead
  pmp_ref.certificate:certify_control
  - np.count_nonzero(~nonzero_rows)
  + planted(np.count_nonzero(nonzero_rows))

T10: plain gap finite where H is unbounded
  pmp_ref.certificate:plain_gap
  - return math.inf
  + return planted(0.0)

T10: L2 not seen as coercive in the plain gap
  pmp_ref.regulariser:Polynomial.asymptotic_slope
  - self.a2 > 0
  + planted(False)
"""
)
