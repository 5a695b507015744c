"""Planted faults in the proofs of runs (T24): each must be caught by a claim, with or without Arb."""

from __future__ import annotations

from verification.controls import Edit, fault

PLACE = "pmp_ref.proofs"
ARITHMETIC, FUNCTIONS, NORMS, STAGES = (f"{PLACE}.{name}" for name in ("arithmetic", "functions", "norms", "stages"))
LOSSES, STEP, MAXIMISER, FINAL = (f"{PLACE}.{name}" for name in ("losses", "step", "maximiser", "final"))
SWEEP, SKIPS, PRODUCTS = (f"{PLACE}.{name}" for name in ("sweep", "skips", "products"))


def one(name: str, target: str, old: str, new: str) -> None:
    """A fault of one edit."""
    fault(f"T24: {name}", [Edit(target, old, new)])


# --- the four that a checker must catch by name -----------------------------------------------------------------------

one(
    "an interval rounded inwards",
    f"{ARITHMETIC}:outward",
    "a = math.nextafter(a, -math.inf)",
    "a = planted(math.nextafter(a, math.inf))",
)
one("a dropped radius: what enters an affine stage", f"{STAGES}:affine_radius", "s.operator * x.rad", "planted(0.0)")
one("a corner forgotten: the product of both radii", f"{STAGES}:kernel_radius", "p.rad @ x.rad", "planted(0.0)")
one("γ₁ for γ_n", f"{STAGES}:affine_radius", "gamma(terms + 1)", "planted(gamma(1))")

# --- radii ------------------------------------------------------------------------------------------------------------

one("an upper end rounded inwards", f"{ARITHMETIC}:outward", "math.nextafter(b, math.inf)", "planted(0.9 * b)")
one("γ₁ for γ_n in an adjoint", f"{STAGES}:adjoint_radius", "gamma(terms)", "planted(gamma(1))")
one("the radius of a costate dropped", f"{STAGES}:adjoint_radius", "s.operator * p.rad", "planted(0.0)")
one("the radius of a state left out of g", f"{STAGES}:kernel_radius", "x.rad @ size_p", "planted(0.0) * size_p[0]")
one("the radius of a costate left out of g", f"{STAGES}:kernel_radius", "p.rad @ size_x", "planted(0.0) * size_x[0]")
one("the radius of a costate left out of a bias", f"{STAGES}:bias_switching", "root * p.rad.sum()", "planted(0.0)")
one("‖K‖ of another kernel", f"{STAGES}:Affine.prepare", "operator_norm(stage, u[0], tuple(shape))", "planted(0.1)")
one("scale-and-shift by its first entry", f"{STAGES}:Affine.prepare", "float(np.max(np.abs(u[0])))", "planted(0.01)")
one("a slope that does not turn", f"{STAGES}:Smooth.backward", "largest(p.mid) * (s2 * x.rad)", "planted(0.0)")
one("a slope bounded at the midpoint", f"{STAGES}:Smooth.forward", "s2 * x.rad", "planted(-0.5)")
one(
    "a kink forgotten",
    f"{STAGES}:LeakyRule.backward",
    "np.abs(x.mid) <= column(x.rad, x.mid)",
    "planted(x.mid != x.mid)",
)
one(
    "a tie of maxima forgotten",
    f"{STAGES}:MaxPoolRule.backward",
    "math.sqrt(2 * m) * UP * norm(",
    "planted(0.0) * norm(",
)
one("windows that overlap", f"{STAGES}:MaxPoolRule.forward", "m * x.rad", "planted(0.5) * x.rad")
one(
    "mean pooling that contracts too much",
    f"{STAGES}:AveragePoolRule.prepare",
    "math.sqrt(",
    "planted(0.3) * math.sqrt(",
)
one("global pooling 1/n for 1/√n", f"{STAGES}:GlobalAveragePoolRule.forward", "/ math.sqrt(n)", "/ planted(n)")
one("flatten without its radius", f"{STAGES}:FlattenRule.forward", ", x.rad)", ", planted(0 * x.rad))")
one(
    "standardisation: s at the midpoint",
    f"{STAGES}:StandardiseRule.forward",
    "x.rad / low",
    "planted(0.3) * x.rad / low",
)
one("standardisation: the costate does not turn", f"{STAGES}:StandardiseRule.backward", "3 * x.rad", "planted(0.0)")
one("‖∇Φ‖ of the midpoint only", f"{LOSSES}:cross_entropy", "steepest * x.rad", "planted(0.5) * steepest * x.rad")
one("∇Φ without the radius", f"{LOSSES}:cross_entropy", "upward(0.5 * x.rad + miss_error, 4)", "planted(miss_error)")
one(
    "squared loss: radius of the state dropped", f"{LOSSES}:squared", "upward(x.rad + U * size, 4)", "planted(U * size)"
)
one("a sum forgets a radius", f"{ARITHMETIC}:add", "x.rad + y.rad", "planted(y.rad)")
one("a sum forgets its rounding", f"{ARITHMETIC}:add", "U * norm(mid)", "planted(0.0)")
one("a multiple forgets its rounding", f"{ARITHMETIC}:scale", "U * norm(mid)", "planted(0.0)")
one("a mean without its radii", f"{ARITHMETIC}:mean", "radius + 2", "planted(0) + 2")
one("a norm that is too small", f"{ARITHMETIC}:norm", "np.sqrt(", "planted(1 - 2.0 ** -40) * np.sqrt(")
one("a norm of channels that is too small", f"{ARITHMETIC}:norms", "np.sqrt(", "planted(1 - 2.0 ** -40) * np.sqrt(")

# --- functions and norms ----------------------------------------------------------------------------------------------

one("tanh without its last term", f"{FUNCTIONS}:_tanh", "s * (-17 / 315)", "planted(s * 0.0)")
one("exp without its last term", f"{FUNCTIONS}:_exp", "r * (1 / 720)", "planted(r * 0.0)")
one("a logarithm taken at its word", f"{FUNCTIONS}:log_error", "np.abs(x * exp(-guess) - 1.0)", "planted(0.0 * x)")
one("a root too many in ‖K‖₂", f"{NORMS}:spectral", "range(SQUARINGS + 1)", "range(planted(SQUARINGS + 2))")
one("the symbol without its factor", f"{NORMS}:symbol_norm", "largest / shrink", "planted(0.5) * largest")
one("‖K‖_F without a row", f"{NORMS}:row_norms", "k.reshape(k.shape[0], -1)", "planted(k.reshape(k.shape[0], -1)[1:])")

# --- values: the second program sees them -----------------------------------------------------------------------------

one("a tap misplaced", f"{PRODUCTS}:meeting", "tap * w.dilation[axis]", "planted(tap + 1 - 1 + (tap > 0))")
one(
    "the sum of chunks without the last", f"{SWEEP}:summed", "mid = mid + part.mid", "mid = planted(mid + 0 * part.mid)"
)
one("p_L without 1/B", f"{SWEEP}:divided", "mid = -slope.mid / samples", "mid = planted(-slope.mid)")
one("the skip without its step", f"{SKIPS}:MergeRule.forward", "scale(stage.step, x[0])", "scale(planted(1.5), x[0])")
one("an overflow that goes unseen", f"{SWEEP}:finite", "x.rad, np.inf)", "planted(0 * x.rad), 0.0)")

# --- verdicts ---------------------------------------------------------------------------------------------------------

one("proven by the lower end", f"{STEP}:compare", "left.upper <= right.lower", "planted(left.lower) <= right.upper")
one("τ without the metric's square", f"{STEP}:squared_length", "(b - a) ** 2", "planted(np.abs(b - a))")
one("⟨g, Δ⟩ without the radii of g", f"{STEP}:inner", "np.broadcast_to(ball.rad, way.shape)", "planted(0.0)")
one("the way back counts as descent", f"{STEP}:change", "after.mid - before.mid", "planted(before.mid - after.mid)")
one("a negative ΣΔH passes", f"{STEP}:positive", "a.lower > 0", "planted(True)")
one(
    "a refuted maximiser is forgotten",
    f"{STEP}:StepProof.verdict",
    "self.maximised.verdict]",
    "planted(Verdict.PROVEN)]",
)
one(
    "half the penalty in the gain",
    f"{MAXIMISER}:of_polynomial",
    "gain = v * (s - q * v) - l0",
    "gain = planted(v * (s - q * v) - 0.5 * l0)",
)
one("the side of 0 is not looked at", f"{MAXIMISER}:of_polynomial", "behind - gain + gain_doubt", "planted(behind)")
one("exact rationals with ε for 2ε", f"{MAXIMISER}:rational", "v * (2 * e * u + g)", "v * planted(e * u + g)")
one("a finite set without its penalty", f"{MAXIMISER}:on_finite_set", "- rho * (other - own)", "- planted(0 * own)")
one(
    "a group without its price",
    f"{MAXIMISER}:in_groups",
    "gain = r.norms(e * c * c) - rho * r.omega",
    "gain = planted(r.norms(e * c * c))",
)
one(
    "powers: any threshold",
    f"{MAXIMISER}:of_power",
    "above = np.abs(c) - threshold",
    "above = planted(np.abs(c) - 0.5 * threshold)",
)
one("a control outside its set", f"{MAXIMISER}:inside", "outside.any()", "planted(False)")
one("ε*: g²/(2ρ) for g²/(4ρ)", f"{FINAL}:vertex", "beta ** 2 / (4 * a0)", "planted(beta ** 2 / (2 * a0))")
one("ε*: the support is left out", f"{FINAL}:of_polynomial", "a0 / u[inner] ** 2", "planted(0 * u[inner])")
one("ε*: groups without their size", f"{FINAL}:of_groups", "r.norms(u * u)", "planted(0.5 * r.norms(u * u))")
one("ε*: values without their penalty", f"{FINAL}:of_values", "- (other - own)", "- planted(0 * own)")
one("ε*: H rises from a bound", f"{FINAL}:of_polynomial", "np.any(rise - doubt > 0)", "planted(False)")
