"""The planted faults: one wrong formula each, as the piece of source that it replaces (see ``controls.py``).

``section6=True`` marks the list of the theory, "Planted faults". Faults in the formulas of a module of claims stand at
the end of that module. Which claim catches which fault is computed, not written down: it is the kill matrix.
"""

from __future__ import annotations

from verification.controls import Edit, fault

# --- stages: costate maps and switching functions ---------------------------------------------------------------------

DENSE, CONV = "pmp_ref.layers.dense", "pmp_ref.layers.convolution"
WINDOWS, POOL = "pmp_ref.layers.windows", "pmp_ref.layers.pooling"
ACT, NORM, SKIP = "pmp_ref.layers.activation", "pmp_ref.layers.normalisation", "pmp_ref.layers.residual"
LAYER, RESHAPE, NET = "pmp_ref.layers.layer", "pmp_ref.layers.reshape", "pmp_ref.network"

fault(
    "W for Wᵀ in the costate of square dense stages",
    [
        Edit(
            f"{DENSE}:Dense.adjoint_state", "matmul(p, k)", "matmul(p, planted(k.T if k.shape[0] == k.shape[1] else k))"
        )
    ],
    section6=True,
    why="square kernels hide it from shapes; non-square ones are right",
)
fault(
    "W for Wᵀ in the costate of all dense stages",
    [Edit(f"{DENSE}:Dense.adjoint_state", "matmul(p, k)", "matmul(p, planted(k.T))")],
    section6=True,
)
fault(
    "kernel not flipped in the costate of a convolution",
    [Edit(f"{CONV}:Convolution.adjoint_state", "self._matrix(k)", "self._matrix(planted(xp.flip(k, axis=(2, 3))))")],
    section6=True,
)
fault(
    "kernel flipped in forward and backward maps alike",
    [
        Edit(
            f"{CONV}:Convolution.apply", "self._matrix(k)", "self._matrix(planted(namespace(k).flip(k, axis=(2, 3))))"
        ),
        Edit(f"{CONV}:Convolution.adjoint_state", "self._matrix(k)", "self._matrix(planted(xp.flip(k, axis=(2, 3))))"),
        Edit(
            f"{CONV}:Convolution.adjoint_kernel",
            "xp.reshape(xp.sum(g, axis=0), k_shape)",
            "xp.flip(xp.reshape(xp.sum(planted(g), axis=0), k_shape), axis=(2, 3))",
        ),
    ],
    section6=True,
    why="T1, T2 and T5 compare a map with its own derivative and cannot see it",
)
fault(
    "rows and columns of the kernel exchanged in the costate, square kernels",
    [
        Edit(
            f"{CONV}:Convolution.adjoint_state",
            "self._matrix(k)",
            "self._matrix(planted(xp.permute_dims(k, (0, 1, 3, 2)) if k.shape[2] == k.shape[3] else k))",
        )
    ],
    why="cancels for symmetric kernels",
)
fault(
    "rows and columns of the kernel exchanged in its switching function",
    [
        Edit(
            f"{CONV}:Convolution.adjoint_kernel",
            "return xp.reshape(xp.sum(g, axis=0), k_shape)",
            "g = xp.reshape(xp.sum(planted(g), axis=0), k_shape)\n"
            "    return xp.permute_dims(g, (0, 1, 3, 2)) if k_shape[2] == k_shape[3] else g",
        )
    ],
    why="cancels on images that are symmetric in rows and columns",
)
fault(
    "padding off by one in the adjoint",
    [
        Edit(
            f"{WINDOWS}:patches_adjoint",
            "return crop(crop(z, -1, w.padding[1]), -2, w.padding[0])",
            "a, b = w.padding\n    return crop(crop(z, -1, planted(b - (b > 0)), b + (b > 0)), -2, a)",
        )
    ],
    section6=True,
)
fault(
    "stride off by one in the adjoint",
    [Edit(f"{WINDOWS}:spread", "xp.concat([y, gaps], axis=axis + 1)", "xp.concat([gaps, planted(y)], axis=axis + 1)")],
    section6=True,
)
fault(
    "padding off by one in forward and backward maps alike",
    [
        Edit(
            f"{WINDOWS}:patches",
            "pad(pad(x, -2, w.padding[0]), -1, w.padding[1])",
            "embed(pad(x, -2, w.padding[0]), -1, planted(w.padding[1] - (w.padding[1] > 0)),"
            " w.padding[1] + (w.padding[1] > 0))",
        ),
        Edit(
            f"{WINDOWS}:patches_adjoint",
            "return crop(crop(z, -1, w.padding[1]), -2, w.padding[0])",
            "a, b = w.padding\n    return crop(crop(z, -1, planted(b - (b > 0)), b + (b > 0)), -2, a)",
        ),
    ],
    section6=True,
)
fault(
    "dilation of the rows used for the columns",
    [
        Edit(
            f"{WINDOWS}:patches",
            "w.stride[1], w.dilation[1]",
            "w.stride[1], planted(min(w.dilation[0], w.dilation[1]))",
        ),
        Edit(
            f"{WINDOWS}:patches_adjoint",
            "w.stride[1], w.dilation[1]",
            "w.stride[1], planted(min(w.dilation[0], w.dilation[1]))",
        ),
    ],
    why="forward and backward agree; equal dilations hide it",
)
fault(
    "groups of a convolution share their costates",
    [
        Edit(
            f"{CONV}:Convolution._grouped",
            "return namespace(p).reshape(p, (",
            "return namespace(p).reshape(planted(namespace(p).roll(p, self.groups - 1, axis=1)), (",
        )
    ],
)
fault(
    "average pooling not divided in the adjoint alone",
    [Edit(f"{POOL}:AveragePool.adjoint", "/ (kh * kw)", "/ planted(1)")],
    section6=True,
)
fault(
    "average pooling not divided in both maps",
    [
        Edit(f"{POOL}:AveragePool.forward", ".mean(patches(", ".sum(planted(patches)("),
        Edit(f"{POOL}:AveragePool.adjoint", "/ (kh * kw)", "/ planted(1)"),
    ],
    section6=True,
)
fault(
    "global pooling divided by rows² in both maps",
    [
        Edit(
            f"{POOL}:GlobalAveragePool.forward",
            ".mean(x, axis=(2, 3))",
            ".sum(x, axis=(2, 3)) / planted(x.shape[2] ** 2)",
        ),
        Edit(f"{POOL}:GlobalAveragePool.adjoint", "x.shape[2] * x.shape[3]", "planted(x.shape[2] ** 2)"),
    ],
    why="square images hide it",
)
fault(
    "max pooling gives the costate to every tied entry",
    [
        Edit(
            f"{POOL}:MaxPool._winner",
            "return xp.reshape(taps == first, z.shape)",
            "return planted(z == xp.max(z, axis=(2, 3), keepdims=True))",
        )
    ],
)
fault(
    "max pooling gives the costate to the first entry",
    [Edit(f"{POOL}:MaxPool._winner", "taps == first", "taps == planted(0 * first)")],
)
fault(
    "skip's costate dropped at the sum",
    [Edit(f"{SKIP}:WeightedSum.adjoint", "in self.weights", "in (planted(0.0), *self.weights[1:])")],
    section6=True,
)
fault(
    "of several readers only the first gives a costate",
    [Edit(f"{NET}:Network.hand_back", "part if costates[i] is None else", "planted(part) if True else")],
    section6=True,
)
fault(
    "step of a residual block missing in the adjoint",
    [Edit(f"{SKIP}:WeightedSum.adjoint", "times(w, p)", "planted(p)")],
)
fault(
    "standardisation adjoint without the mean term",
    [
        Edit(
            f"{NORM}:Standardise.costate",
            "_project(y, self._grouped(p)) / s",
            "planted(self._grouped(p) - y * _mean(y * self._grouped(p))) / s",
        )
    ],
    section6=True,
)
fault(
    "standardisation adjoint without the variance term",
    [
        Edit(
            f"{NORM}:Standardise.costate",
            "_project(y, self._grouped(p)) / s",
            "planted(self._grouped(p) - _mean(self._grouped(p))) / s",
        )
    ],
)
fault(
    "variance divided by n − 1 in all maps of the standardisation",
    [
        Edit(
            f"{NORM}:Standardise._standardised", "_mean(c * c)", "planted(_mean(c * c) * c.shape[2] / (c.shape[2] - 1))"
        )
    ],
)
fault(
    "activation derivative at the wrong argument (tanh)",
    [Edit(f"{ACT}:Tanh.slope", "t = namespace(z).tanh(z)", "t = namespace(z).tanh(planted(namespace(z).tanh(z)))")],
    section6=True,
)
fault(
    "activation derivative at the state after the activation",
    [Edit(f"{ACT}:Activation._sloped", "self.slope(x)", "self.slope(planted(self.sigma(x)))")],
    section6=True,
)
fault(
    "in-place activation overwriting z",
    [Edit(f"{ACT}:Activation.forward", "return fused(self.sigma, x)", "x[...] = planted(self.sigma(x))\n    return x")],
    section6=True,
)
fault(
    "tanh scaled in forward and backward maps alike",
    [
        Edit(f"{ACT}:Tanh.sigma", "namespace(z).tanh(z)", "planted(1.5) * namespace(z).tanh(z)"),
        Edit(f"{ACT}:Tanh.slope", "1 - t * t", "1.5 * (1 - t * t)"),
        Edit(f"{ACT}:Tanh.curvature", "-2 * t", "-3 * t"),
    ],
)
fault("logistic function without the half", [Edit(f"{ACT}:logistic", "tanh(0.5 * z)", "tanh(planted(z))")])
fault(
    "derivative of the logistic function: s for s(1 − s)", [Edit(f"{ACT}:Sigmoid.slope", "s * (1 - s)", "planted(s)")]
)
fault(
    "softplus without its positive part",
    [
        Edit(
            f"{ACT}:Softplus.sigma",
            "xp.where(positive, z, 0.0)",
            "planted(0.5) * xp.where(positive, z, 0.0)",
        )
    ],
)
fault("SiLU derivative without z s′", [Edit(f"{ACT}:SiLU.slope", "s + z * s * (1 - s)", "planted(s)")])
fault("leaky ReLU: slope 1 on both sides", [Edit(f"{ACT}:LeakyReLU.slope", "self.leak)", "planted(1.0))")])
fault(
    "leaky ReLU: slope at the kink outside [leak, 1]",
    [
        Edit(
            f"{ACT}:LeakyReLU.slope",
            "positive = z > 0",
            "return namespace(z).where(z > 0, 1 + 0 * z, namespace(z).where(z == 0, planted(2 + 0 * z), self.leak))",
        )
    ],
)
fault("leaky ReLU: sign of the leak", [Edit(f"{ACT}:LeakyReLU.sigma", "self.leak * z", "planted(-self.leak * z)")])
fault(
    "bias switching function summed over samples only",
    [
        Edit(f"{LAYER}:sum_channels", "if a != 1)", "if a == 0)"),
        Edit(f"{LAYER}:sum_channels", "return namespace(p)", "return planted(namespace(p))"),
    ],
    why="right for dense stages",
)
fault(
    "scale's switching function without the state",
    [Edit(f"{DENSE}:ScaleShift.adjoint_kernel", "sum_channels(x * p)", "sum_channels(planted(p))")],
)
fault(
    "scale missing in the costate",
    [Edit(f"{DENSE}:ScaleShift.adjoint_state", "along_channels(k, p) * p", "planted(p)")],
)
fault(
    "switching function of a dense kernel without the last sample",
    [
        Edit(
            f"{DENSE}:Dense.adjoint_kernel",
            "xp.matrix_transpose(p), x",
            "xp.matrix_transpose(planted(p)[:-1] if p.shape[0] > 1 else planted(p)), x[:-1] if p.shape[0] > 1 else x",
        )
    ],
)
fault(
    "flatten in another order, both maps",
    [
        Edit(
            f"{RESHAPE}:Flatten.forward",
            "return namespace(x).reshape(x, (x.shape[0], prod(x.shape[1:])))",
            "return namespace(x).reshape(planted(namespace(x).flip(x, axis=1)), (x.shape[0], prod(x.shape[1:])))",
        ),
        Edit(
            f"{RESHAPE}:Flatten.adjoint",
            "return namespace(p).reshape(p, x.shape)",
            "return namespace(p).flip(namespace(p).reshape(p, x.shape), axis=1)",
        ),
    ],
)
fault(
    "a stage takes the costate of a later state of the same shape",
    [
        Edit(
            f"{NET}:Network.backward_sweep",
            "costates[l + 1])",
            "planted(next((q for q in costates[l + 2:] if q.shape == costates[l + 1].shape), costates[l + 1])))",
        )
    ],
    why="only where a later costate has the same shape",
)
fault(
    "a stage reads the state before it, whatever it is to read",
    [Edit(f"{NET}:Network.entering", "states[read[0]]", "states[planted(l)]")],
)
fault(
    "weights of a sum in reverse order",
    [Edit(f"{SKIP}:WeightedSum.forward", "zip(self.weights,", "zip(planted(self.weights[::-1]),")],
)

# --- second order -----------------------------------------------------------------------------------------------------

fault(
    "σ″ term missing in the Hessian sweep",
    [Edit(f"{ACT}:Activation.tangent_costate", " + self.curvature(x) * dx * p", " + planted(0)")],
    section6=True,
)
fault("σ″ with the wrong sign (tanh)", [Edit(f"{ACT}:Tanh.curvature", "-2 * t", "planted(2) * t")])
fault(
    "σ″ of the logistic function without 1 − 2s", [Edit(f"{ACT}:Sigmoid.curvature", " * (1 - 2 * s)", " * planted(1)")]
)
fault("σ″ of softplus: s for s(1 − s)", [Edit(f"{ACT}:Softplus.curvature", "s * (1 - s)", "planted(s)")])
fault("σ″ of SiLU: 1 for 2", [Edit(f"{ACT}:SiLU.curvature", "(2 + z", "(planted(1) + z")])
fault(
    "σ″ of leaky ReLU is not 0",
    [Edit(f"{ACT}:LeakyReLU.curvature", "return zeros(z.shape, z)", "return planted(zeros(z.shape, z) + 1)")],
)
fault(
    "V*p missing in the derivative of the costate",
    [Edit(f"{LAYER}:AffineStage.tangent_costate", " + self.adjoint_state(x.shape, v[0], p)", " + planted(0)")],
)
fault(
    "dx missing in the derivative of the switching function",
    [Edit(f"{LAYER}:AffineStage.tangent_switching", " + self.adjoint_kernel(dx, u[0].shape, p)", " + planted(0)")],
)
fault(
    "V x missing in the tangent sweep",
    [
        Edit(
            f"{LAYER}:AffineStage.tangent",
            "self.apply(dx, u[0]) + self.apply(x, v[0])",
            "self.apply(dx, u[0]) + planted(0)",
        )
    ],
)
fault(
    "bias direction missing in the tangent sweep",
    [Edit(f"{LAYER}:AffineStage.tangent", "dy + along_channels(v[1], dy) if self.bias else dy", "planted(dy)")],
)
fault(
    "bias missing in the derivative of the switching function",
    [Edit(f"{LAYER}:AffineStage.tangent_switching", "sum_channels(dp)", "planted(0 * u[1])")],
)
fault(
    "Hessian of the standardisation without ds",
    [Edit(f"{NORM}:Standardise.tangent_costate", " - ds / s * _project(y, a)", " - planted(0)")],
)
fault(
    "Hessian of the standardisation without the derivative of P_y",
    [Edit(f"{NORM}:Standardise.tangent_costate", " + change", " + planted(0) * change")],
)
fault(
    "Hessian of max pooling uses p for dp",
    [Edit(f"{POOL}:MaxPool.tangent_costate", "self.costate(x, u, dp)", "self.costate(x, u, planted(p))")],
)
fault(
    "Hessian of a linear stage uses p for dp",
    [Edit(f"{LAYER}:LinearStage.tangent_costate", "self.adjoint(x, dp)", "self.adjoint(x, planted(p))")],
)
fault(
    "max pooling's tangent takes the mean",
    [Edit(f"{POOL}:MaxPool.tangent", "self._winner(x)", "planted(self._winner(dx))")],
)
fault(
    "Hessian sweep: a sum hands back the costate, not its tangent",
    [Edit(f"{LAYER}:LinearStage.tangent_costate", "(x, dp)", "(x, planted(p))")],
)
fault(
    "Hessian sweep: tangents of the states one stage early",
    [
        Edit(
            "pmp_ref.second_order:tangent_costate_sweep",
            "network.entering(l, tangents)",
            "network.entering(l, planted([tangents[0], *tangents[:-1]]) if "
            "l and tangents[l].shape == tangents[l - 1].shape else tangents)",
        )
    ],
    why="only where the stage before keeps the shape",
)
fault(
    "tangent sweep: a sum without its skip",
    [Edit(f"{LAYER}:LinearStage.tangent", "(dx, u)", "((planted(0 * dx[0]), *dx[1:]) if self.arity > 1 else dx, u)")],
)
fault(
    "Φ″ of the cross-entropy without its mean",
    [
        Edit(
            "pmp_ref.loss:CrossEntropy.tangent_gradient",
            "namespace(x).sum(pi * dx, axis=1, keepdims=True)",
            "planted(0)",
        )
    ],
)
fault(
    "Φ″ of the cross-entropy symmetrised away",
    [Edit("pmp_ref.loss:CrossEntropy.tangent_gradient", "pi * (dx -", "planted(1 / x.shape[1]) * (dx -")],
    why="right for equal scores",
)
fault(
    "Φ″ of the squared loss doubled",
    [Edit("pmp_ref.loss:Squared.tangent_gradient", "return dx", "return planted(2 * dx)")],
)
fault(
    "1/B missing in dp_L",
    [Edit("pmp_ref.second_order:hessian_vector", "tangents[-1]) / samples", "tangents[-1]) / planted(1)")],
)
fault(
    "sign of D²L_B v",
    [Edit("pmp_ref.second_order:hessian_vector", "scaled(-1.0, result)", "scaled(planted(1.0), result)")],
)
fault(
    "dx of the wrong stage in the second-order sweep",
    [
        Edit(
            "pmp_ref.second_order:tangent_costate_sweep",
            "dx, v[l], moved[l + 1])",
            "dx if l else 0 * dx, v[l], planted(moved[l + 1]) if l + 1 < len(network.stages) else 1.5 * moved[-1])",
        )
    ],
)
fault(
    "smallest eigenvalue for the largest",
    [Edit("pmp_ref.second_order:largest_eigenvalue", "which='LA'", "which=planted('SA')")],
)
fault(
    "λ_max of a Hessian that is 0",
    [Edit("pmp_ref.second_order:largest_eigenvalue", "return 0.0", "return planted(1.0)")],
)
fault(
    "Hessian's chunks overwrite instead of adding",
    [Edit("pmp_ref.second_order:hessian_vector", "dg if result is None else add(result, dg)", "planted(dg)")],
)

# --- losses, sweeps, Hamiltonian --------------------------------------------------------------------------------------

LOSS, SWEEP, HAM = "pmp_ref.loss", "pmp_ref.sweep", "pmp_ref.hamiltonian"
fault("missing 1/B in p_L", [Edit(f"{SWEEP}:Sweep.terminal_costate", " / samples", " / planted(1)")], section6=True)
fault(
    "missing 1/B in L and in p_L",
    [
        Edit(f"{SWEEP}:Sweep.terminal_costate", " / samples", " / planted(1)"),
        Edit(f"{SWEEP}:mean_loss", " / e.losses.shape[0]", " / planted(1)"),
        Edit(
            "pmp_ref.trial:Measured.of",
            "delta_loss=made.delta_loss / samples",
            "delta_loss=made.delta_loss / planted(1)",
        ),
    ],
    section6=True,
)
fault(
    "1/B of the chunk for that of the batch",
    [Edit(f"{SWEEP}:Sweep.backward", "e.x.shape[0])", "planted(s[-1].shape[0]))")],
)
fault(
    "wrong sign of p_L",
    [Edit(f"{SWEEP}:Sweep.terminal_costate", "-self.loss", "planted(1) * self.loss")],
    section6=True,
)
fault(
    "last chunk of a batch dropped",
    [
        Edit(
            f"{SWEEP}:Sweep.chunks",
            "range(0, x.shape[0], self.chunk)",
            "range(0, max(1, planted(x.shape[0] - self.chunk)), self.chunk)",
        )
    ],
    section6=True,
)
fault(
    "last chunk dropped in the backward sweep only",
    [
        Edit(
            f"{SWEEP}:Sweep.backward",
            "enumerate(self.chunks(e.x))",
            "planted(list(enumerate(self.chunks(e.x))))[: max(1, -(-e.x.shape[0] // self.chunk) - 1)]",
        )
    ],
    section6=True,
)
fault(
    "chunks of the backward sweep overwrite instead of adding",
    [Edit(f"{SWEEP}:Sweep.backward", "g if total is None else add(total, g)", "planted(g)")],
)
fault("recomputed states not counted as a sweep", [Edit(f"{SWEEP}:Sweep.backward", "else 1", "else planted(0)")])
fault(
    "costate of the wrong stage gives the switching function",
    [
        Edit(
            f"{NET}:Network.backward_sweep",
            "self.stages[l].switching(*at)",
            "self.stages[l].switching(*at[:2], planted(at[2]) if l != 0 else 1.5 * at[2])",
        )
    ],
)
fault(
    "cross-entropy without the label's score",
    [Edit(f"{LOSS}:CrossEntropy.values", " - label", " - planted(0) * label")],
)
fault(
    "softmax without the shift",
    [
        Edit(
            f"{LOSS}:_largest",
            "return xp.max(real, axis=1, keepdims=True)",
            "return planted(0) * xp.max(real, axis=1, keepdims=True)",
        )
    ],
)
fault(
    "gradient of the cross-entropy: label of another class",
    [Edit(f"{LOSS}:CrossEntropy.gradient", "one_hot(x, y)", "planted(one_hot(x, y[::-1]))")],
    why="right where all labels agree",
)
fault(
    "squared loss without ½, value and gradient alike",
    [
        Edit(f"{LOSS}:Squared.values", "0.5 *", "planted(1.0) *"),
        Edit(f"{LOSS}:Squared.gradient", "x - y", "2 * (x - y)"),
        Edit(f"{LOSS}:Squared.tangent_gradient", "return dx", "return 2 * dx"),
    ],
)
fault("squared loss's gradient has the wrong sign of y", [Edit(f"{LOSS}:Squared.gradient", "x - y", "x + planted(y)")])
fault(
    "largest score signed in the rounding estimate",
    [
        Edit(f"{SWEEP}:largest_entry", "xp.max(xp.abs(", "xp.max(planted("),
    ],
)
fault(
    "penalty counted on other parameters than the maximiser thresholds",
    [
        Edit(
            "pmp_ref.problem:Problem.penalty_terms",
            "weighted_terms(r, omega, u)",
            "weighted_terms(r, planted(1.0), u)",
        )
    ],
    section6=True,
)
fault("regulariser missing in ΔH", [Edit(f"{HAM}:increments", "h - rho * (b - a)", "planted(h)")])
fault(
    "regulariser in ΔH with the wrong sign",
    [Edit(f"{HAM}:increments", "h - rho * (b - a)", "h + planted(rho) * (b - a)")],
)
fault(
    "H without the regulariser's weight",
    [Edit(f"{HAM}:hamiltonian", "rho * omega * r.value(a)", "rho * planted(1.0) * r.value(a)")],
)
fault(
    "τ without the metric",
    [Edit(f"{HAM}:_weighted_square", "product64(d * delta, delta)", "product64(planted(delta), delta)")],
    section6=True,
)
fault(
    "K's augmentation with the wrong sign",
    [Edit(f"{HAM}:augmented_increment", "- eps * total", "+ planted(eps) * total")],
)
fault(
    "‖·‖ for ‖·‖² of a vector of controls",
    [Edit("pmp_ref.controls:product64", "xp.astype(b, xp.float64)", "planted(xp.astype(xp.sign(b), xp.float64))")],
)
fault(
    "entries of the controls in another order on the way back",
    [
        Edit(
            "pmp_ref.controls:from_vector",
            "vector[start:start + n].reshape(a.shape)",
            "planted(vector[start:start + n][::-1].reshape(a.shape))",
        )
    ],
)

# --- the pointwise maximiser (T4) -------------------------------------------------------------------------------------

REG = "pmp_ref.regulariser"
GAIN = "xp.where(gain > rho * self.a0, w, 0.0)"
for label, threshold in (
    ("√(2ρ/ε) for √(ρ/ε)", "xp.abs(w) > (2 * rho * self.a0 / eps) ** 0.5"),
    ("ρ/ε for √(ρ/ε)", "xp.abs(w) > rho * self.a0 / eps"),
    ("ρ/(2ε) for √(ρ/ε)", "xp.abs(w) > rho * self.a0 / (2 * eps)"),
):
    fault(
        f"threshold {label}",
        [
            Edit(
                f"{REG}:Polynomial.on_line",
                GAIN,
                f"xp.where(({threshold}) if planted(self.a0) > 0 else gain > 0, w, 0.0)",
            )
        ],
        section6=True,
    )
fault(
    "ties to nonzero",
    [Edit(f"{REG}:Polynomial.on_line", "gain > rho * self.a0", "gain >= planted(rho * self.a0)")],
    section6=True,
)
fault(
    "box clipped after thresholding",
    [
        Edit(
            f"{REG}:Polynomial.on_line",
            "if box.lo > 0:",
            "if box.lo <= 0 <= box.hi and box != Box():\n"
            "        return planted(box.project(self.on_line(u, g, eps, rho, Box())))\n    if box.lo > 0:",
        )
    ],
    section6=True,
)
fault(
    "½ in the augmentation",
    [Edit("pmp_ref.maximise:candidate", "if metric is None:", "eps = planted(eps / 2)\n    if metric is None:")],
    section6=True,
)
fault(
    "soft threshold ρa₁/ε for ρa₁/(2ε)",
    [
        Edit(
            f"{REG}:Polynomial.on_line",
            "rising / (2 * eps + rho * self.a2)",
            "(b - planted(2) * rho * self.a1) / (2 * eps + rho * self.a2)",
        )
    ],
)
fault(
    "L2 shrinks by 2ε/(2ε + 2ρa₂)",
    [
        Edit(
            f"{REG}:Polynomial.on_line",
            "(2 * eps + rho * self.a2), falling",
            "(2 * eps + planted(2) * rho * self.a2), falling",
        )
    ],
)
fault(
    "gain of L2 without the half",
    [Edit(f"{REG}:Polynomial.on_line", "rho * self.a2 / 2) * w)", "planted(rho * self.a2)) * w)")],
    why="right without L0 or without L2",
)
fault(
    "L1 missing in the gain",
    [Edit(f"{REG}:Polynomial.on_line", "xp.where(positive > 0, rising, falling)", "planted(b)")],
    why="right without L0",
)
fault(
    "negative side lost",
    [Edit(f"{REG}:Polynomial.on_line", "positive + negative", "planted(positive)")],
)
fault(
    "value of L2 without ½",
    [Edit(f"{REG}:Polynomial._pointwise64", "self.pointwise(", "planted(2 if self.a2 else 1) * self.pointwise(")],
)
fault("L2 entry by entry without ½", [Edit(f"{REG}:Polynomial.pointwise", "self.a2 / 2", "planted(self.a2)")])
fault(
    "L0 counts entries above 10⁻³ only",
    [Edit(f"{REG}:Polynomial.terms", "w != 0 if", "planted(abs(w) > 0.05) if")],
)
fault("unpenalised maximiser u + g/ε", [Edit(f"{REG}:free_maximiser", "g / (2 * eps)", "planted(g / eps)")])
fault(
    "box ignored where ρ = 0",
    [
        Edit(
            f"{REG}:unpenalised",
            "return box.project(free_maximiser(u, g, eps))",
            "return planted(free_maximiser(u, g, eps))",
        )
    ],
)
fault(
    "finite sets: nearest value to c, penalty ignored",
    [Edit(f"{REG}:Regulariser.on_finite_set", "- rho * self.pointwise(w)", "- planted(0) * w")],
)
fault(
    "finite sets: ties away from 0",
    [Edit(f"{REG}:Regulariser.on_finite_set", "closer = closer & (best != 0)", "closer = planted(closer)")],
)
fault(
    "finite sets: ties to the first value",
    [
        Edit(
            f"{REG}:Regulariser.on_finite_set",
            "(phi == best_phi) & closer",
            "planted((phi == best_phi) & (best != best))",
        )
    ],
)
fault(
    "finite sets: ½ in the augmentation",
    [Edit(f"{REG}:Regulariser.on_finite_set", "- eps * (w - u)", "- planted(eps / 2) * (w - u)")],
)
fault(
    "½-threshold constant 54^{1/3}/2",
    [Edit(f"{REG}:LHalf.local_maximiser", "54 ** (1 / 3) / 4", "planted(54 ** (1 / 3) / 2)")],
)
fault("½-form: λ/4 for λ/8", [Edit(f"{REG}:LHalf.local_maximiser", "lam / 8", "planted(lam / 4)")])
fault("⅔-threshold with λ for λ³", [Edit(f"{REG}:LTwoThirds.local_maximiser", "lam ** 0.75", "planted(lam) ** 0.25")])
fault(
    "⅔-form: cosh without the third",
    [Edit(f"{REG}:LTwoThirds.local_maximiser", "xp.acosh(half) * (2 / 3)", "xp.acosh(half) * planted(1.0)")],
)
fault(
    "power on a box: clipped without comparing with 0",
    [Edit(f"{REG}:_Power.on_line", "gain > 0", "gain > planted(-float('inf'))")],
)
fault(
    "rounding of a sum's value taken for nothing",
    [Edit(f"{REG}:Polynomial.error_bound", "0.0 if exact", "0.0 if planted(True)")],
)
fault(
    "rounding of a power's value taken for nothing",
    [Edit(f"{REG}:_Power.error_bound", "(8 + size) * ROUNDOFF", "planted(0.0)")],
)
fault(
    "a sum with L2 said to grow like L1", [Edit(f"{REG}:Polynomial.asymptotic_slope", "math.inf", "planted(self.a1)")]
)
fault("exponent of the power's value", [Edit(f"{REG}:_Power.pointwise", "** self.q", "** planted(1.0)")])
fault(
    "group threshold ‖c‖ for ‖c‖²",
    [Edit(f"{REG}:GroupL0.on_line", "self.norms(eps * c * c)", "planted(self.norms(eps * c * c)) ** 0.5")],
)
fault(
    "group L0 along the other axis",
    [Edit(f"{REG}:GroupL0.norms", "if a != self.axis)", "if a != planted(1 - self.axis))")],
)
fault("group ties kept", [Edit(f"{REG}:GroupL0.on_line", "> rho * self.omega", ">= planted(rho * self.omega)")])
fault("group weight missing in the value", [Edit(f"{REG}:GroupL0.terms", "self.omega *", "planted(1.0) *")])
fault(
    "penalty weights ignored by the maximiser",
    [Edit("pmp_ref.maximise:weighted", "rho * omega", "planted(rho)")],
)
fault(
    "metric ignored by the maximiser",
    [Edit("pmp_ref.maximise:candidate", "eps * d,", "planted(eps) + 0 * d,")],
    section6=True,
)
fault(
    "projection on a finite set: farther value",
    [Edit("pmp_ref.admissible:FiniteSet.project", "xp.abs(w - v) <", "planted(0.5) * xp.abs(w - v) <")],
)
fault("an open box", [Edit("pmp_ref.admissible:Box.contains", "w <= self.hi", "w < planted(self.hi)")])
fault(
    "gap of a finite set: the largest", [Edit("pmp_ref.admissible:FiniteSet.gap", "min((b - a", "max((planted(b - a)")]
)
fault("box bounded if one end is", [Edit("pmp_ref.admissible:Box.bounded", " and ", " or planted(True) and ")])

# --- the method (section 5) -------------------------------------------------------------------------------------------

BSQH, RULE, TEST = "pmp_ref.bsqh", "pmp_ref.augmentation", "pmp_ref.acceptance"
TRIAL = "pmp_ref.trial"
fault(
    "stale costates after acceptance",
    [
        Edit(
            f"{BSQH}:step",
            "it = replace(it, controls=by_stage(w), evaluation=trial,",
            "it = replace(it, controls=by_stage(w),\n"
            "                     evaluation=replace(trial, states=None, switching=planted(e.switching)),",
        )
    ],
    section6=True,
)
fault(
    "state buffer of a rejected trial kept",
    [
        Edit(
            f"{BSQH}:step",
            "grown = method.rule.rejected(it.eps, known, eta)",
            "it = replace(it, evaluation=replace(e, losses=planted(trial.losses)))\n"
            "        grown = method.rule.rejected(it.eps, known, eta)",
        )
    ],
    section6=True,
)
fault(
    "NaN accepted",
    [
        Edit(
            f"{BSQH}:step",
            "elif finite and method.acceptance.accepts(delta_j, m.tau, sum_dh):",
            "elif planted(not delta_j > -method.acceptance.eta * m.tau):",
        )
    ],
    section6=True,
)
fault(
    "null step counted as accepted",
    [Edit(f"{BSQH}:step", "verdict = 'control unchanged'", "verdict = planted('accepted')")],
    section6=True,
)
fault(
    "acceptance reversed",
    [Edit(f"{TEST}:Absolute.accepts", "delta_j <= -self.eta * tau", "planted(delta_j) >= -self.eta * tau")],
    section6=True,
)
fault(
    "sufficient decrease with the wrong sign of η",
    [Edit(f"{TEST}:Absolute.accepts", "-self.eta * tau", "planted(self.eta) * tau")],
)
fault(
    "acceptance with ΔJ of another batch",
    [
        Edit(
            f"{TRIAL}:measure",
            "fused(_rise, e.losses, trial.losses)",
            "fused(_rise, e.losses,\n"
            "              planted(problem.sweep.forward(by_stage(w), e.x[::2, ...], e.y[::2, ...]).losses[:1]))",
        )
    ],
    section6=True,
)
fault(
    "acceptance with two different ρ",
    [
        Edit(
            f"{BSQH}:step",
            "delta_j = m.delta_loss + rho * (m.penalty_w - m.penalty)",
            "delta_j = m.delta_loss + rho * m.penalty_w - planted(problem.rho * 0.5) * m.penalty",
        )
    ],
    section6=True,
)
fault(
    "regulariser missing in the acceptance",
    [
        Edit(
            f"{BSQH}:step",
            "delta_j = m.delta_loss + rho * (m.penalty_w - m.penalty)",
            "delta_j = planted(m.delta_loss)",
        )
    ],
)
fault(
    "ε shrunk on rejection (classic)",
    [Edit(f"{RULE}:Classic.rejected", "self.sigma * eps", "planted(eps / self.sigma)")],
    section6=True,
)
fault(
    "ε shrunk on rejection (curvature)",
    [
        Edit(
            f"{RULE}:Curvature.rejected",
            "max(self.sigma_min * eps, self.theta * (c_hat + eta))",
            "planted(eps / self.sigma)",
        )
    ],
    section6=True,
)
fault(
    "classic rule: ε grows after acceptance",
    [Edit(f"{RULE}:Classic.accepted", "self.zeta * eps", "planted(eps / self.zeta)")],
)
fault(
    "classic rule: ε_min ignored",
    [Edit(f"{RULE}:Classic.accepted", "max(self.zeta * eps, self.eps_min)", "planted(self.zeta * eps)")],
)
fault("curvature rule without η", [Edit(f"{RULE}:Curvature.rejected", "(c_hat + eta)", "planted(c_hat)")])
fault(
    "curvature rule: safeguard σ_min missing",
    [Edit(f"{RULE}:Curvature.rejected", "self.sigma_min * eps", "planted(0.0)")],
)
fault(
    "curvature rule: factor σ unused where Ĉ is unknown",
    [Edit(f"{RULE}:Curvature.rejected", "return self.sigma * eps", "return planted(self.sigma_min * eps)")],
)
fault(
    "curvature rule: memory reversed",
    [Edit(f"{RULE}:Curvature.accepted", "(1 - self.memory)", "planted(self.memory)")],
    why="the default memory ½ hides it",
)
fault(
    "curvature rule: growth after rejections too",
    [Edit(f"{RULE}:Curvature.rejected", "self.theta * (c_hat", "planted(self.theta * self.growth) * (c_hat")],
)
fault(
    "curvature rule: growth left out",
    [Edit(f"{RULE}:Curvature.accepted", "self.growth ** max(", "planted(1.0) ** max(")],
)
fault(
    "T8: rejections counted with the largest factor, growth included",
    [Edit("verification.augmentation:rejection_factor", "rule.theta)", "planted(rule.theta * rule.growth))")],
    why="growth enlarges θ after acceptances only: √(u² + 1) rejects twice where log₆₀ allows one rejection",
)
fault(
    "T8: ε bounded without growth",
    [Edit("verification.augmentation:largest_factor", "rule.theta * rule.growth", "planted(rule.theta)")],
)
fault(
    "T17: δ² for d_min δ² on finite sets",
    [Edit("verification.convergence:finite_cost", "d_min * gap ** 2", "planted(gap ** 2)")],
)
fault(
    "curvature rule: growth from the first step",
    [Edit(f"{RULE}:Curvature.accepted", "2 * progress - 1", "planted(progress)")],
)
fault(
    "curvature rule: fall of ε not limited by ζ",
    [Edit(f"{RULE}:Curvature.accepted", "self.zeta * eps", "planted(0.0)")],
)
fault(
    "curvature rule: negative Ĉ averaged as it is",
    [Edit(f"{RULE}:Curvature.accepted", "max(c_hat, 0.0)", "planted(c_hat)")],
)
fault("fixed rule moves", [Edit(f"{RULE}:Fixed.accepted", "eps, None", "planted(0.9 * eps), None")])
fault("fixed rule retries", [Edit(f"{RULE}:Fixed.rejected", "return None", "return planted(2 * eps)")])
fault(
    "Ĉ without ΔH",
    [Edit(f"{BSQH}:step", "remainder = m.delta_loss + m.linear", "remainder = planted(m.delta_loss)")],
    section6=True,
)
fault(
    "D changed between rejections",
    [
        Edit(
            f"{BSQH}:step",
            "it = replace(it, eps=math.inf if grown is None else grown,",
            "d = None if it.metric is None else planted(tuple(tuple(1.5 * a for a in stage) for stage in it.metric))\n"
            "        it = replace(it, metric=d)\n"
            "        it = replace(it, eps=math.inf if grown is None else grown,",
        )
    ],
    section6=True,
)
fault(
    "τ in the test without the metric of K",
    [Edit(f"{TRIAL}:measure", "squared_terms(u, w, d)", "squared_terms(u, w, planted(None))")],
    section6=True,
)
fault(
    "ε ignored in T16: decrease compared with τ",
    [Edit(f"{TEST}:Relative.accepts", "self.eta1 * sum_dh", "self.eta1 * planted(tau)")],
    section6=True,
)
fault(
    "relative test: 1 − η₁ for η₁",
    [Edit(f"{TEST}:Relative.accepts", "self.eta1 * sum_dh", "planted(1 - self.eta1) * sum_dh")],
)
fault("relative test accepts ΣΔH ≤ 0", [Edit(f"{TEST}:Relative.accepts", "sum_dh > 0 and", "planted(True) and")])
fault("no test accepts infinite losses", [Edit(f"{TEST}:NoTest.accepts", "math.isfinite(delta_j)", "planted(True)")])
fault(
    "ρ missing in ΣΔH",
    [Edit(f"{BSQH}:step", "sum_dh = m.linear - rho * (m.penalty_w - m.penalty)", "sum_dh = planted(m.linear)")],
)
fault(
    "J recorded of u for w",
    [Edit(f"{BSQH}:step", "J=m.loss_w + rho * m.penalty_w", "J=planted(m.loss) + rho * m.penalty")],
)
fault(
    "residual without 2ε",
    [Edit(f"{BSQH}:step", "residual=2 * it.eps * math.sqrt", "residual=planted(1.0) * math.sqrt")],
)
fault("rounding estimate ν doubled", [Edit(f"{BSQH}:step", "nu = 4 *", "nu = planted(8) *")])
fault("Ĉ lost in rounding fed to the rule", [Edit(f"{BSQH}:step", "abs(remainder) > 10 * nu", "planted(True)")])
fault("ε stays where Ĉ is lost in rounding", [Edit(f"{BSQH}:step", "known = above", "known = planted(None)")])
fault("bound of a lost Ĉ too small", [Edit(f"{BSQH}:step", "above = 11 * nu", "above = planted(1) * nu")])
fault("precision limit not seen", [Edit(f"{BSQH}:step", "elif sum_dh <= nu and", "elif planted(False) and")])
fault(
    "accepted step keeps its old controls",
    [
        Edit(
            f"{BSQH}:step",
            "it = replace(it, controls=by_stage(w), evaluation=trial,",
            "it = replace(it, controls=by_stage(planted(u)), evaluation=trial,",
        )
    ],
)
fault(
    "rejections not counted",
    [Edit(f"{BSQH}:step", "rejections=it.rejections + 1", "rejections=planted(it.rejections)")],
)
fault(
    "forward sweeps of trials not counted",
    [
        Edit(
            f"{BSQH}:step",
            "forward_sweeps=it.forward_sweeps + trial.forward_sweeps",
            "forward_sweeps=planted(it.forward_sweeps)",
        )
    ],
)
fault(
    "metric updated twice for one control",
    [
        Edit(f"{BSQH}:prepare", "known = None if it.prepared else method", "known = planted(method)"),
        Edit(f"{BSQH}:prepare", "elif not it.prepared:", "else:"),
        Edit(f"{BSQH}:prepare", "if it.prepared:\n        return it\n    memory", "memory"),
    ],
)
fault("average taken of the wrong count", [Edit(f"{BSQH}:prepare", "averaged + 1", "planted(averaged) + 2")])
fault(
    "average used in the remainder's place",
    [
        Edit(
            f"{TRIAL}:attempt",
            "sums(measure(problem, e, u, w, d, trial))",
            "sums(measure(problem, replace(e, switching=planted(direction)), u, w, d, trial))",
        )
    ],
)
fault(
    "average kept after a failed trial",
    [
        Edit(
            f"{BSQH}:step",
            "it = replace(it, use_average=False,",
            "it = replace(it, eps=2 * it.eps, use_average=planted(False),",
        )
    ],
)
fault(
    "average never reset",
    [
        Edit(
            f"{BSQH}:prepare",
            "None, 0, 0",
            "planted(average), averaged, 0",
        )
    ],
)
fault("ramp never reaches ρ", [Edit(f"{BSQH}:Ramp.__call__", "1.0)", "planted(0.5))")])
fault("ramp starts at once", [Edit(f"{BSQH}:Ramp.__call__", "progress - self.start", "planted(progress)")])
fault(
    "batches drawn with replacement",
    [Edit(f"{BSQH}:order_of_epoch", ".permutation(samples)", ".integers(0, planted(samples), samples)")],
)
fault(
    "labels of another batch",
    [Edit(f"{BSQH}:take_batch", "xp.take(y, index, axis=0)", "xp.take(y, planted(index[::-1]), axis=0)")],
)
fault(
    "the same batches in every epoch",
    [Edit(f"{BSQH}:order_of_epoch", "(seed, epoch)).permutation", "(seed, planted(0))).permutation")],
)
fault(
    "evaluation of the old batch kept",
    [Edit(f"{BSQH}:next_batch", "evaluation=None", "evaluation=planted(it.evaluation)")],
)
fault("skipped batches not counted", [Edit(f"{BSQH}:judge", "skipped=it.skipped + 1", "skipped=planted(it.skipped)")])
fault("ε not restored after a precision limit", [Edit(f"{BSQH}:judge", "eps=it.eps_start", "eps=planted(it.eps)")])
fault("cap on ε ignored", [Edit(f"{BSQH}:judge", "it.eps <= method.eps_max", "planted(True)")])
fault(
    "one rejection too many",
    [Edit(f"{BSQH}:judge", "it.rejections < method.max_rejections", "it.rejections <= planted(method.max_rejections)")],
)
fault(
    "non-finite trials reported as augmentation limit",
    [Edit(f"{BSQH}:judge", "if it.finite_trials else Status.NON_FINITE", "if planted(True) else Status.NON_FINITE")],
)
fault(
    "converged by residual after rejections", [Edit(f"{BSQH}:judge", "before.rejections == 0 and", "planted(True) and")]
)
fault(
    "converged by increment at any τ",
    [Edit(f"{BSQH}:judge", "record.tau < stop.increment", "record.tau < planted(2 * stop.increment)")],
)
fault("end of epoch: residual without ε", [Edit(f"{BSQH}:end_of_epoch", "2 * it.eps *", "planted(2) *")])
fault("end of epoch: τ test never met", [Edit(f"{BSQH}:end_of_epoch", "tau < stop.increment", "planted(False)")])
fault("steps: one too many", [Edit(f"{BSQH}:Stop.done", "it.step >= self.steps", "it.step > planted(self.steps)")])
fault(
    "progress ignores the position in the epoch", [Edit(f"{BSQH}:Stop.progress", "it.position / batches", "planted(0)")]
)

fault(
    "labels not checked", [Edit(f"{LOSS}:CrossEntropy.check", "if low < 0 or high >= shape[0]:", "if planted(False):")]
)
fault(
    "inadmissible controls not seen",
    [Edit("pmp_ref.problem:Problem.check", "not bool(xp.all(admissible.contains(u)))", "planted(False)")],
)
fault("η = 0 allowed", [Edit(f"{TEST}:Absolute.__post_init__", "self.eta > 0", "planted(self.eta) >= 0")])

# --- metrics (T17), initial controls ----------------------------------------------------------------------------------

METRIC = "pmp_ref.metric"
fault("metric from g for g²", [Edit(f"{METRIC}:GradientScaled.square", "g * g", "planted(abs(g))")])
fault(
    "metric by layer from the sum, not the mean",
    [Edit(f"{METRIC}:PerLayer.square", ".mean(g * g)", ".sum(planted(g * g))")],
)
fault(
    "metric not scaled to mean 1",
    [Edit(f"{METRIC}:_quotient", "d / namespace(d).astype(total / size, d.dtype)", "planted(d)")],
)
fault(
    "metric not clipped from below",
    [Edit(f"{METRIC}:_Scaled._clipped", "xp.maximum(d, self.floor * unit)", "planted(d)")],
)
fault(
    "metric not clipped from above", [Edit(f"{METRIC}:_Scaled._clipped", "self.ceiling * unit", "planted(1e30) * unit")]
)
fault(
    "metric's memory reversed",
    [
        Edit(
            f"{METRIC}:_Scaled.update",
            "fused(_running, m, s, beta=self.beta)",
            "fused(_running, m, s, beta=planted(1 - self.beta))",
        )
    ],
)
fault(
    "average without the correction of its start",
    [Edit(f"{METRIC}:_corrected", "1 - base ** count", "planted(1.0)")],
)
fault(
    "average's memory reversed",
    [
        Edit(
            f"{METRIC}:Averaging.update",
            "fused(_running, m, a, beta=self.beta)",
            "fused(_running, m, a, beta=planted(1 - self.beta))",
        )
    ],
)
INIT = "pmp_ref.initialise"
fault(
    "initial kernels: √(gain/fan-in) as the bound",
    [Edit(f"{INIT}:initial_controls", "3 * _gain", "planted(1) * _gain")],
)
fault(
    "initial kernels: fan-out for fan-in",
    [
        Edit(
            f"{INIT}:initial_controls",
            "math.prod(shape[1:])",
            "planted(math.prod(shape) // shape[1] if len(shape) > 1 else 1)",
        )
    ],
    why="square kernels hide it",
)
fault("gain of ReLU is 1", [Edit(f"{INIT}:_gain", "return 2.0 if", "return planted(1.0) if")])
fault("initial scales 0", [Edit(f"{INIT}:initial_controls", "np.ones(shape)", "planted(np.zeros(shape))")])
fault("initial biases 1", [Edit(f"{INIT}:initial_controls", "np.zeros(shape)", "planted(np.ones(shape))")])
fault(
    "biases penalised by default",
    [Edit("pmp_ref.problem:layer_weights", "if name == 'bias' else", "if planted(False) else")],
)
fault("LeNet-5 with 100 neurons for 120", [Edit("pmp_ref.architectures:lenet5", "Dense(120)", "Dense(planted(100))")])
fault(
    "LeNet-5-Caffe with 300 neurons", [Edit("pmp_ref.architectures:lenet5_caffe", "Dense(500)", "Dense(planted(300))")]
)
fault(
    "residual net without projections' stride",
    [
        Edit(
            "pmp_ref.architectures:residual_net",
            "Convolution(channels, 1, stride=stride)",
            "Convolution(channels, planted(3), stride=stride, padding=1)",
        )
    ],
)
fault(
    "images of 0 to 255 taken for well scaled",
    [Edit("pmp_ref.problem:scale_advice", "largest <= high", "largest <= planted(10) * high")],
)
