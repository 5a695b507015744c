"""Faults in tangent sweeps, Hessian-vector products and the largest eigenvalue (T14)."""

from verification.planting.fault import faults

faults(
    """
σ″ term missing in the Hessian sweep  [theory]
  pmp_ref.layers.activation:Activation.tangent_costate
  -  + self.curvature(x) * dx * p
  +  + planted(0)

σ″ with the wrong sign (tanh)
  pmp_ref.layers.activation:Tanh.curvature
  - -2 * t
  + planted(2) * t

σ″ of the logistic function without 1 − 2s
  pmp_ref.layers.activation:Sigmoid.curvature
  -  * (1 - 2 * s)
  +  * planted(1)

σ″ of softplus: s for s(1 − s)
  pmp_ref.layers.activation:Softplus.curvature
  - s * (1 - s)
  + planted(s)

σ″ of SiLU: 1 for 2
  pmp_ref.layers.activation:SiLU.curvature
  - (2 + z
  + (planted(1) + z

σ″ of leaky ReLU is not 0
  pmp_ref.layers.activation:LeakyReLU.curvature
  - return zeros(z.shape, z)
  + return planted(zeros(z.shape, z) + 1)

V*p missing in the derivative of the costate
  pmp_ref.layers.layer:AffineStage.tangent_costate
  -  + self.adjoint_state(x.shape, v[0], p)
  +  + planted(0)

dx missing in the derivative of the switching function
  pmp_ref.layers.layer:AffineStage.tangent_switching
  -  + self.adjoint_kernel(dx, u[0].shape, p)
  +  + planted(0)

V x missing in the tangent sweep
  pmp_ref.layers.layer:AffineStage.tangent
  - self.apply(dx, u[0]) + self.apply(x, v[0])
  + self.apply(dx, u[0]) + planted(0)

bias direction missing in the tangent sweep
  pmp_ref.layers.layer:AffineStage.tangent
  - dy + along_channels(v[1], dy) if self.bias else dy
  + planted(dy)

bias missing in the derivative of the switching function
  pmp_ref.layers.layer:AffineStage.tangent_switching
  - sum_channels(dp)
  + planted(0 * u[1])

Hessian of the standardisation without ds
  pmp_ref.layers.normalisation:Standardise.tangent_costate
  -  - ds / s * _project(y, a)
  +  - planted(0)

Hessian of the standardisation without the derivative of P_y
  pmp_ref.layers.normalisation:Standardise.tangent_costate
  -  + change
  +  + planted(0) * change

Hessian of max pooling uses p for dp
  pmp_ref.layers.pooling:MaxPool.tangent_costate
  - self.costate(x, u, dp)
  + self.costate(x, u, planted(p))

Hessian of a linear stage uses p for dp
  pmp_ref.layers.layer:LinearStage.tangent_costate
  - self.adjoint(x, dp)
  + self.adjoint(x, planted(p))

max pooling's tangent takes the mean
  pmp_ref.layers.pooling:MaxPool.tangent
  - self._winner(x)
  + planted(self._winner(dx))

Hessian sweep: a sum hands back the costate, not its tangent
  pmp_ref.layers.layer:LinearStage.tangent_costate
  - (x, dp)
  + (x, planted(p))

Hessian sweep: tangents of the states one stage early
  pmp_ref.second_order:tangent_costate_sweep
  - network.entering(l, tangents)
  + network.entering(
  +     l, planted([tangents[0], *tangents[:-1]]) if l and tangents[l].shape == tangents[l - 1].shape else tangents)
  why: only where the stage before keeps the shape

tangent sweep: a sum without its skip
  pmp_ref.layers.layer:LinearStage.tangent
  - (dx, u)
  + ((planted(0 * dx[0]), *dx[1:]) if self.arity > 1 else dx, u)

Φ″ of the cross-entropy without its mean
  pmp_ref.loss:CrossEntropy.tangent_gradient
  - namespace(x).sum(pi * dx, axis=1, keepdims=True)
  + planted(0)

Φ″ of the cross-entropy symmetrised away
  pmp_ref.loss:CrossEntropy.tangent_gradient
  - pi * (dx -
  + planted(1 / x.shape[1]) * (dx -
  why: right for equal scores

Φ″ of the squared loss doubled
  pmp_ref.loss:SquaredLoss.tangent_gradient
  - return dx
  + return planted(2 * dx)

1/B missing in dp_L
  pmp_ref.second_order:hessian_vector
  - tangents[-1]) / samples
  + tangents[-1]) / planted(1)

sign of D²L_B v
  pmp_ref.second_order:hessian_vector
  - scaled(-1.0, result)
  + scaled(planted(1.0), result)

dx of the wrong stage in the second-order sweep
  pmp_ref.second_order:tangent_costate_sweep
  - dx, v[l], moved[l + 1])
  + dx if l else 0 * dx, v[l], planted(moved[l + 1]) if l + 1 < len(network.stages) else 1.5 * moved[-1])

smallest eigenvalue for the largest
  pmp_ref.second_order:largest_eigenvalue
  - which='LA'
  + which=planted('SA')

largest eigenvalue by modulus
  pmp_ref.second_order:largest_eigenvalue
  - which='LA'
  + which=planted('LM')
  why: right for a Hessian that is mostly positive

λ_max of a Hessian that is 0
  pmp_ref.second_order:largest_eigenvalue
  - return 0.0
  + return planted(1.0)

Hessian's chunks overwrite instead of adding
  pmp_ref.second_order:hessian_vector
  - dg if result is None else add(result, dg)
  + planted(dg)
"""
)
