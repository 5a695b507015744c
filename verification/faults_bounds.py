"""Planted faults in the bounds (T7, T7a, T7b) and in the formulas that the claims T5 – T19 evaluate themselves."""

from __future__ import annotations

from verification.controls import Edit, fault

COARSE, BALL, CONST = "pmp_ref.bounds.coarse", "pmp_ref.bounds.ball", "pmp_ref.bounds.constants"
SEGMENT, STEP, TERMINAL = "pmp_ref.bounds.segment", "pmp_ref.bounds.step", "pmp_ref.bounds.terminal"
BALLS, TAYLOR = "pmp_ref.bounds.intervals", "pmp_ref.bounds.taylor"
LOSS, RULES, LIMIT = "verification.loss_reduction", "verification.augmentation", "verification.convergence"


def one(name: str, target: str, old: str, new: str, section6: bool = False) -> None:
    """A fault of one edit."""
    fault(name, [Edit(target, old, new)], section6=section6)


# --- T7 ---------------------------------------------------------------------------------------------------------------

one("T7: mixed term 2Z dropped", f"{COARSE}:propagate", "k * (R * Y + 2 * Z)", "planted(k * R * Y)", section6=True)
one("T7: mixed term Z for 2Z", f"{COARSE}:propagate", "2 * Z)", "planted(Z))")
one("T7: tangents without the bias", f"{COARSE}:propagate", "k * (R * Z + X) + beta", "planted(k * (R * Z + X))")
one("T7: σ″ without the square", f"{COARSE}:propagate", "s2 * Z ** 2", "planted(s2 * Z)")
one("T7: a sum forgets its weights", f"{COARSE}:propagate", "w * a for", "planted(a) for")
one(
    "T7: weights of a sum without modulus",
    f"{COARSE}:propagate",
    "np.abs(stage.weights)",
    "planted(np.asarray(stage.weights))",
)
one("T7: saturation ignored", f"{COARSE}:propagate", "largest_value(stage) * root", "planted(float('inf'))")
one("T7: ‖Φ′‖ ≤ 1 for √2", f"{COARSE}:global_constant", "math.sqrt(2) * Y", "planted(Y)")
one("T7: C̄ for ½C̄", f"{COARSE}:global_constant", "0.5 * float(np.mean(bound))", "planted(float(np.mean(bound)))")
one(
    "T7: squared loss without its target",
    f"{COARSE}:global_constant",
    "X + np.linalg.norm(to_numpy(y).reshape(y.shape[0], -1), axis=1)",
    "planted(X)",
)
one("T7: radius of the box without √n", f"{COARSE}:radii_of_box", "math.sqrt(math.prod(shape))", "planted(1.0)")
one(
    "T7: radius around u without u",
    f"{COARSE}:radii_around",
    "float(np.linalg.norm(to_numpy(a).astype(np.float64))) + r",
    "planted(r)",
)
one("T7: m for √m", f"{CONST}:bilinear_norm", "math.sqrt(overlaps(", "planted(overlaps(")
one("T7: stride ignored in m", f"{CONST}:overlaps", "o * windows.stride[axis]", "planted(o)")
one("T7: padding ignored in m", f"{CONST}:overlaps", "- windows.padding[axis]", "- planted(0)")
one("T7: s₁ of SiLU is 1", f"{CONST}:activation_constants", "1.09984", "planted(1.0)")
one(
    "T7: pooling norm without its windows",
    f"{CONST}:linear_norm",
    "/ math.prod(stage.windows.size)",
    "/ planted(math.prod(stage.windows.size) ** 2)",
)
one("T7: |σ(0)| of softplus", f"{CONST}:value_at_zero", "math.log(2.0)", "planted(0.0)")

# --- T7a --------------------------------------------------------------------------------------------------------------

one(
    "T7a: χ dropped",
    f"{BALL}:BallBound.growth",
    "2 * (layer.chi + layer.k * f[l + 1]) * A",
    "planted(2 * layer.k * f[l + 1] * A)",
)
one("T7a: ½ dropped in the affine term", f"{BALL}:BallBound.growth", "2 * (layer.chi +", "planted(1) * (layer.chi +")
one(
    "T7a: activation term dropped",
    f"{BALL}:BallBound.growth",
    "top = top + self.weighted(l, (q + f[l + 1][:, None]) * there, d)",
    "planted(0)",
)
one("T7a: final term without Φ″", f"{BALL}:BallBound.growth", "top = top + 0.5 * (a + d) ** 2", "planted(0)")
one(
    "T7a: change without its Jacobians",
    f"{BALL}:BallBound.__call__",
    "self.curvature + float(np.mean(change))",
    "planted(self.curvature)",
)
one("T7a: λ_max for ½λ_max", f"{BALL}:BallBound.__call__", "0.5 * min", "planted(1.0) * min")
one("T7a: costates do not move with the kernels", f"{BALL}:BallBound._backward", "layer.chi * r", "planted(0.0 * r)")
one(
    "T7a: costates do not move with the loss",
    f"{BALL}:BallBound._backward",
    "[0.5 * e[last]]",
    "[planted(0.0) * e[last]]",
)
one("T7a: Jacobians do not move with the slopes", f"{BALL}:BallBound._forward", "self.scaled(l, gap)", "planted(zero)")
one(
    "T7a: Jacobians do not move with the kernels",
    f"{BALL}:BallBound._forward",
    "layer.k * (r * self.a[l] + e[l])",
    "planted(zero)",
)
one(
    "T7a: states move by half",
    f"{BALL}:BallBound._forward",
    "(self.a[l + 1] + d) * r",
    "planted(0.5) * (self.a[l + 1] + d) * r",
)
one(
    "T7a: entries of states move by a tenth",
    f"{BALL}:BallBound._forward",
    "(self.rows[l + 1] + d[:, None]) * r",
    "planted(0.1) * (self.rows[l + 1] + d[:, None]) * r",
)
one(
    "T7a: σ″ missing in the Hessian from Jacobians",
    f"{BALL}:full_hessian",
    "layer.q * layer.stage.curvature(layer.z)",
    "planted(0.0 * layer.q)",
)
one(
    "T7a: one end of an interval for σ",
    f"{BALL}:value_change",
    "np.maximum(stage.sigma(z + E) - at, at - stage.sigma(z - E))",
    "planted(stage.sigma(z + E) - at)",
)
one(
    "T7a: smallest weight for the largest",
    f"{BALL}:BallBound.weighted",
    "np.sqrt(np.max(weight",
    "np.sqrt(planted(np.min)(weight",
)
one(
    "T7a: change of the Hessian without moving Jacobians",
    f"{BALL}:BallBound.growth",
    "np.max(q * here, axis=1) * (2 * a * d + d ** 2)",
    "planted(0 * d)",
)
one("T7a: certified ε for half the bound", f"{BALL}:certified_eps", "eps >= bound", "eps >= planted(0.1) * bound")
one("T7a: 1 − t forgotten along the segment", f"{BALL}:BallBound.along", "(2 * (PARTS - m) + 1)", "planted(PARTS)")
one(
    "T7a: a part's left end for its right end",
    f"{BALL}:BallBound.along",
    "self(m / PARTS",
    "self(planted(m - 1) / PARTS",
)
one("T7a: weights (1 − t) without the factor 2", f"{BALL}:BallBound.along", "/ PARTS ** 2", "/ planted(2 * PARTS**2)")
one("T7a: bisection returns the failing end", f"{BALL}:certified_eps", "return high", "return planted(0.2 * high)")

# --- T7b --------------------------------------------------------------------------------------------------------------

one("T7b: Δx_{k−1} dropped", f"{SEGMENT}:affine", "add(k + 1, by_d,", "add(k + 1, planted(0 * by_d),")
one("T7b: Δb dropped", f"{SEGMENT}:affine", "np.broadcast_to(db, mids[0].shape)", "planted(np.zeros(mids[0].shape))")
one("T7b: kernel at u for the kernel at c", f"{SEGMENT}:affine", "by_u + column(c, by_d) * by_d", "planted(by_u)")
one("T7b: kernels do not move on the part", f"{SEGMENT}:affine", "(n + 1) * rows.h", "planted(0 * rows.h)")
one(
    "T7b: radius of the top coefficient lost",
    f"{SEGMENT}:affine",
    "inner + (column(c",
    "planted(0 * inner) + (column(c",
)
one("T7b: no mean value form", f"{SEGMENT}:Jet.over", "comb(n, k) * rows.h ** (n - k)", "planted(0.0) * rows.h")
one(
    "T7b: σ of the part taken at its centre",
    f"{SEGMENT}:activate",
    "np.minimum(radius * UP,",
    "np.minimum(planted(0 * radius),",
)
one("T7b: f₂z₁² dropped", f"{SEGMENT}:compose", "powers[2] = square", "powers[2] = planted(None)")
one("T7b: f₃z₁³ dropped", f"{SEGMENT}:compose", "powers[3] = times(square, z[1])", "powers[3] = planted(None)")
one("T7b: 2z₁z₃ + z₂² without z₂²", f"{SEGMENT}:compose", "square_of(z[2]))", "planted(None))")
one("T7b: weights of a sum forgotten", f"{SEGMENT}:weighted_sum", "times(w, a)", "planted(a)")
one(
    "T7b: radius of pooling divided twice",
    f"{SEGMENT}:average",
    "stage.forward(top.rad, ()) + rounding",
    "planted(0.25) * stage.forward(top.rad, ())",
)
one(
    "T7b: variance not halved",
    f"{TERMINAL}:loss_coefficients",
    "- mean.square()) * 0.5",
    "- mean.square()) * planted(1.0)",
)
one(
    "T7b: (p − e_y) without e_y",
    f"{TERMINAL}:loss_coefficients",
    "Ball(label, np.zeros_like(label))",
    "Ball(planted(0 * label), np.zeros_like(label))",
)
one("T7b: squared loss without ½", f"{TERMINAL}:loss_coefficients", "_sum(terms) * 0.5", "_sum(terms) * planted(1.0)")
one(
    "T7b: corners of softmax exchanged", f"{TERMINAL}:corner_softmax", "corner(low, high)", "planted(corner(high, low))"
)
one("T7b: sums taken as exact", f"{BALLS}:gamma", "n * U / (1 - n * U) * UP", "planted(0.0)")
one(
    "T7b: products of points taken as exact",
    f"{BALLS}:Point.__mul__",
    "self.err * abs(other) + U * product.largest",
    "planted(self.err * abs(other))",
)
one(
    "T7b: hull of the half width",
    f"{BALLS}:hull",
    "np.maximum(high - mid, mid - low)",
    "planted(np.minimum(high - mid, mid - low) * (1 - 1e-12))",
)
one(
    "T7b: radius of a product without the product of radii",
    f"{BALLS}:Ball.__mul__",
    "(np.abs(other.mid) + other.rad)",
    "planted(np.abs(other.mid))",
)
one(
    "T7b: softmax at the corners rounded inwards",
    f"{TERMINAL}:corner_softmax",
    "(1 - slack_low)",
    "(1 + planted(slack_low))",
)
one(
    "T7b: Ĉ by the other end of τ",
    f"{STEP}:StepCertificate.c_hat",
    "self.tau.upper if low >= 0",
    "self.tau.upper if planted(low < 0)",
)
one(
    "T7: box of float32 controls by its float64 bound",
    f"{COARSE}:radii_of_box",
    "max(largest, float(np.float32(largest)))",
    "planted(largest)",
)
one("T7b: ∫φ″ for ∫(1 − t)φ″", f"{STEP}:moment", "2 * (1 - c) * h", "planted(2) * h")
one("T7b: k(k − 1) dropped", f"{STEP}:integral", "float(k * (k - 1))", "planted(1.0)")
one(
    "T7b: penalty with the wrong sign",
    f"{STEP}:penalty_change",
    "after - before, rho * omega",
    "planted(before - after), rho * omega",
)
one("T7b: penalty without weights", f"{STEP}:penalty_change", "rho * omega", "planted(rho)")
one(
    "T7b: descent proven by the lower end",
    f"{STEP}:StepCertificate.proves_descent",
    "self.delta_J.upper",
    "planted(self.delta_J.lower - 1)",
)
one(
    "T7b: slope left out of the loss change",
    f"{STEP}:StepCertificate.delta_J",
    "self.slope + self.remainder",
    "planted(self.remainder)",
)
one(
    "T7b: ΣΔH without the penalty", f"{STEP}:StepCertificate.sum_dh", "self.slope + self.penalty", "planted(self.slope)"
)
one(
    "T7b: logistic derivatives without 2⁻ᵏ",
    f"{TAYLOR}:coefficients",
    "logistic[k] / 2 ** (k + 1)",
    "planted(logistic[k] / 2 ** k)",
)

# --- formulas in the claims -------------------------------------------------------------------------------------------

one("T5: weight 1 for 1 − t in the remainder", f"{LOSS}:remainder_by_quadrature", "(1 - float(t))", "planted(1.0)")
one("T6: −εC for −(ε − C)", f"{LOSS}:reduction", "-(eps - constant) * tau", "planted(-(eps + constant) * tau)")
one("T6b: q = 2 used for L0", f"{LOSS}:factor_q", "(weight == 0 or regulariser.convex)", "planted(True)", section6=True)
one("T15: (Ĉ + η) for (Ĉ + η)/q", f"{LOSS}:needed", "(c_hat + eta) / q", "planted(c_hat + eta)")
one(
    "T16: C(1 − η₁) for C/(1 − η₁)",
    f"{LOSS}:relative_threshold",
    "constant / (1 - eta1)",
    "planted(constant * (1 - eta1))",
)
one("T17: C·d_min for C/d_min", f"{LOSS}:metric_constant", "constant / smallest", "planted(constant * smallest ** 3)")
one(
    "T8: one rejection less",
    f"{RULES}:most_rejections",
    "math.log((constant + eta) / eps)",
    "planted(0.5) * math.log((constant + eta) / eps)",
)
one("T8: C + η for σ(C + η)", f"{RULES}:largest_eps", "factor * (constant + eta)", "planted(0.5 * (constant + eta))")
one(
    "T8: accepted and rejected exchanged",
    f"{RULES}:rejections_identity",
    "rejected * math.log(sigma) - accepted",
    "planted(accepted) * math.log(sigma) - rejected",
)
one("T9: (J_0 − J_inf)η for (J_0 − J_inf)/η", f"{LIMIT}:total_increment", "fall / eta", "planted(fall * eta)")
one(
    "T9: min τ ≤ (J_0 − J_inf)η/K",
    f"{LIMIT}:smallest_increment",
    "fall / (eta * steps)",
    "planted(fall * eta / steps ** 2)",
)
one("T12: 2ρa₀/ε for ρa₀/ε", f"{LIMIT}:least_square", "rho * a0 / (eps", "planted(4 * rho) * a0 / (eps")
one("T19: √τ for 2(ε + C)√τ", f"{LIMIT}:residual_bound", "2 * (eps + constant)", "planted(0.5 * eps)")
