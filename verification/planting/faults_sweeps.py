"""Faults in losses, sweeps, the Hamiltonian, and vectors of controls."""

from verification.planting.fault import faults

faults(
    """
arrays made on the default device
  pmp_ref.loss:one_hot
  - device=device(y)
  + device=planted(None)

samples of the last chunk left out of the sweep
  pmp_ref.sweep:Sweep.own_chunks
  - min(chunk * (i + 1), x.shape[0])
  + min(chunk * (i + 1), max(planted(x.shape[0]) - 1, 1))

missing 1/B in p_L  [theory]
  pmp_ref.sweep:Sweep.terminal_costate
  -  / samples
  +  / planted(1)

missing 1/B in L and in p_L  [theory]
  pmp_ref.sweep:Sweep.terminal_costate
  -  / samples
  +  / planted(1)
  pmp_ref.sweep:mean_loss
  -  / e.losses.shape[0]
  +  / planted(1)
  pmp_ref.trial:Measured.of
  - delta_loss=made.delta_loss / samples
  + delta_loss=made.delta_loss / planted(1)

1/B of the chunk for that of the batch
  pmp_ref.sweep:Sweep.backward
  - e.x.shape[0])
  + planted(s[-1].shape[0]))

wrong sign of p_L  [theory]
  pmp_ref.sweep:Sweep.terminal_costate
  - -self.loss
  + planted(1) * self.loss

last chunk of a batch dropped  [theory]
  pmp_ref.sweep:Sweep.own
  - -(-x.shape[0] // self.chunk_size(x))
  + max(1, planted(x.shape[0] // self.chunk_size(x)))

last chunk dropped in the backward sweep only  [theory]
  pmp_ref.sweep:Sweep.backward
  - enumerate(self.own_chunks(e.x))
  + planted(list(enumerate(self.own_chunks(e.x))))[: max(1, -(-e.x.shape[0] // self.chunk) - 1)]

chunks of the backward sweep overwrite instead of adding
  pmp_ref.sweep:Sweep.tree
  - Tree(plus, self
  + Tree(lambda a, b: planted(b), self

recomputed states not counted as a sweep
  pmp_ref.sweep:Sweep.backward
  - else 1
  + else planted(0)

costate of the wrong stage gives the switching function
  pmp_ref.network:Network.backward_sweep
  - self.stages[l].switching(*at)
  + self.stages[l].switching(*at[:2], planted(at[2]) if l != 0 else 1.5 * at[2])

# --- losses

cross-entropy without the label's score
  pmp_ref.loss:CrossEntropy.values
  -  - label
  +  - planted(0) * label

softmax without the shift
  pmp_ref.loss:_largest
  - return xp.max(real, axis=1, keepdims=True)
  + return planted(0) * xp.max(real, axis=1, keepdims=True)

gradient of the cross-entropy: label of another class
  pmp_ref.loss:CrossEntropy.gradient
  - one_hot(x, y)
  + planted(one_hot(x, y[::-1]))
  why: right where all labels agree

squared loss without ½, value and gradient alike
  pmp_ref.loss:SquaredLoss.values
  - 0.5 *
  + planted(1.0) *
  pmp_ref.loss:SquaredLoss.gradient
  - x - y
  + 2 * (x - y)
  pmp_ref.loss:SquaredLoss.tangent_gradient
  - return dx
  + return 2 * dx

squared loss's gradient has the wrong sign of y
  pmp_ref.loss:SquaredLoss.gradient
  - x - y
  + x + planted(y)

largest score signed in the rounding estimate
  pmp_ref.sweep:largest_entry
  - xp.max(xp.abs(
  + xp.max(planted(

# --- the Hamiltonian, controls

penalty counted on other parameters than the maximiser thresholds  [theory]
  pmp_ref.problem:Problem.penalty_terms
  - weighted_terms(r, omega, u)
  + weighted_terms(r, planted(1.0), u)

regulariser missing in ΔH
  pmp_ref.hamiltonian:increments
  - h - rho * (b - a)
  + planted(h)

regulariser in ΔH with the wrong sign
  pmp_ref.hamiltonian:increments
  - h - rho * (b - a)
  + h + planted(rho) * (b - a)

H without the regulariser's weight
  pmp_ref.hamiltonian:hamiltonian
  - rho * omega * r.value(a)
  + rho * planted(1.0) * r.value(a)

τ without the metric  [theory]
  pmp_ref.hamiltonian:scaled_step
  - multiply(metric, delta)
  + planted(delta)

K's augmentation with the wrong sign
  pmp_ref.hamiltonian:augmented_increment
  - - eps * total
  + + planted(eps) * total

‖·‖ for ‖·‖² of a vector of controls
  pmp_ref.controls:products
  - unit_products, a, b
  + unit_products, a, planted(map_controls(lambda x: namespace(x).sign(x), b))

entries of the controls in another order on the way back
  pmp_ref.controls:from_vector
  - vector[start:start + n].reshape(a.shape)
  + planted(vector[start:start + n][::-1].reshape(a.shape))
"""
)
