"""Faults in formulas of the theory that the claims evaluate themselves."""

from verification.planting.fault import faults

faults(
    """
σ′ missing in the merged update  [theory]
  verification.claims.costates:merged_costate
  - slope * q
  + planted(q)

N for N − 1 in the variance of a batch  [theory]
  verification.claims.minibatch:variance_factor
  - (size * (samples - 1))
  + (size * planted(samples))

C_N missing in the bound of the full loss
  verification.claims.minibatch:full_loss_bound
  - + constant * tau
  + + planted(0.0) * tau

batch noise with the wrong sign
  verification.claims.minibatch:full_loss_bound
  - + noise
  + - planted(noise)

¼ missing in Young's inequality
  verification.claims.minibatch:young
  - square / (4 * delta)
  + square / (planted(16) * delta)

noise of the average left out
  verification.claims.minibatch:averaged_bound
  - + extra
  + + planted(0.0)

T11b: |Δ| missing in the bound off the support
  verification.claims.certificates:off_reach
  - 2 * math.sqrt(eps * rho) + 2 * eps * np.abs(delta)
  + planted(0 * delta)

T10c: ¼ for ½ in C_l  [theory]
  verification.claims.maximum_principle:constant
  - 0.5 *
  + planted(0.25) *

T10b: dropping an entry without its L2 part
  verification.claims.maximum_principle:drop_gain
  - r.a2 * u * u / 2
  + planted(0 * u)

T10: suprema of H without the bounds
  verification.claims.maximum_principle:largest_hamiltonian
  - for b in (lo, hi)
  + for b in planted(())

T8: rejections counted with the largest factor, growth included
  verification.claims.augmentation_rules:rejection_factor
  - rule.theta)
  + planted(rule.theta * rule.growth))
  why: growth enlarges θ after acceptances only: √(u² + 1) rejects twice where log₆₀ allows one rejection

T8: ε bounded without growth
  verification.claims.augmentation_rules:largest_factor
  - rule.theta * rule.growth
  + planted(rule.theta)

T17: δ² for d_min δ² on finite sets
  verification.claims.convergence:finite_cost
  - d_min * gap ** 2
  + planted(gap ** 2)

T5: weight 1 for 1 − t in the remainder
  verification.claims.loss_reduction:remainder_by_quadrature
  - (1 - float(t))
  + planted(1.0)

T6: −εC for −(ε − C)
  verification.claims.loss_reduction:reduction
  - -(eps - constant) * tau
  + planted(-(eps + constant) * tau)

T6b: q = 2 used for L0  [theory]
  verification.claims.loss_reduction:factor_q
  - (weight == 0 or regulariser.convex)
  + planted(True)

T15: (Ĉ + η) for (Ĉ + η)/q
  verification.claims.loss_reduction:needed
  - (c_hat + eta) / q
  + planted(c_hat + eta)

T16: C(1 − η₁) for C/(1 − η₁)
  verification.claims.loss_reduction:relative_threshold
  - constant / (1 - eta1)
  + planted(constant * (1 - eta1))

T17: C·d_min for C/d_min
  verification.claims.loss_reduction:metric_constant
  - constant / smallest
  + planted(constant * smallest ** 3)

T8: one rejection less
  verification.claims.augmentation_rules:most_rejections
  - math.log((constant + eta) / eps)
  + planted(0.5) * math.log((constant + eta) / eps)

T8: C + η for σ(C + η)
  verification.claims.augmentation_rules:largest_eps
  - factor * (constant + eta)
  + planted(0.5 * (constant + eta))

T8: accepted and rejected exchanged
  verification.claims.augmentation_rules:rejections_identity
  - rejected * math.log(sigma) - accepted
  + planted(accepted) * math.log(sigma) - rejected

T9: (J_0 − J_inf)η for (J_0 − J_inf)/η
  verification.claims.convergence:total_increment
  - fall / eta
  + planted(fall * eta)

T9: min τ ≤ (J_0 − J_inf)η/K
  verification.claims.convergence:smallest_increment
  - fall / (eta * steps)
  + planted(fall * eta / steps ** 2)

T12: 2ρa₀/ε for ρa₀/ε
  verification.claims.convergence:least_square
  - rho * a0 / (eps
  + planted(4 * rho) * a0 / (eps

T19: √τ for 2(ε + C)√τ
  verification.claims.convergence:residual_bound
  - 2 * (eps + constant)
  + planted(0.5 * eps)
"""
)
