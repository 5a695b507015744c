"""Faults in the loop: a trial, its acceptance, rules for ε, mini-batches, stops."""

from verification.planting.fault import faults

faults(
    """
stale costates after acceptance  [theory]
  pmp_ref.bsqh:step
  - it = replace(it, controls=by_stage(w), evaluation=trial,
  + it = replace(it, controls=by_stage(w),
  +                      evaluation=replace(trial, states=None, switching=planted(e.switching)),

state buffer of a rejected trial kept  [theory]
  pmp_ref.bsqh:step
  - grown = method.rule.rejected(it.eps, known, eta)
  + it = replace(it, evaluation=replace(e, losses=planted(trial.losses)))
  +         grown = method.rule.rejected(it.eps, known, eta)

NaN accepted  [theory]
  pmp_ref.bsqh:step
  - elif finite and method.acceptance.accepts(delta_j, m.tau, sum_dh):
  + elif planted(not delta_j > -method.acceptance.eta * m.tau):

null step counted as accepted  [theory]
  pmp_ref.bsqh:step
  - verdict = 'control unchanged'
  + verdict = planted('accepted')

acceptance reversed  [theory]
  pmp_ref.acceptance:Absolute.accepts
  - delta_j <= -self.eta * tau
  + planted(delta_j) >= -self.eta * tau

everything accepted
  pmp_ref.acceptance:Absolute.accepts
  - delta_j <= -self.eta * tau
  + planted(True)

nothing accepted
  pmp_ref.acceptance:Absolute.accepts
  - delta_j <= -self.eta * tau
  + planted(False)

accepted without sufficient decrease
  pmp_ref.acceptance:Absolute.accepts
  - -self.eta * tau
  + planted(0.0)

a trial must reduce J by half of ΣΔH too
  pmp_ref.acceptance:Absolute.accepts
  - -self.eta * tau
  + planted(-2 * self.eta) * tau - 0.5 * sum_dh

sufficient decrease with the wrong sign of η
  pmp_ref.acceptance:Absolute.accepts
  - -self.eta * tau
  + planted(self.eta) * tau

acceptance with ΔJ of another batch  [theory]
  pmp_ref.trial:measure
  - fused(_rise, e.losses, trial.losses)
  + fused(_rise, e.losses,
  +               planted(problem.sweep.forward(by_stage(w), e.x[::2, ...], e.y[::2, ...]).losses[:1]))

acceptance with two different ρ  [theory]
  pmp_ref.bsqh:step
  - delta_j = m.delta_loss + rho * (m.penalty_w - m.penalty)
  + delta_j = m.delta_loss + rho * m.penalty_w - planted(problem.rho * 0.5) * m.penalty

regulariser missing in the acceptance
  pmp_ref.bsqh:step
  - delta_j = m.delta_loss + rho * (m.penalty_w - m.penalty)
  + delta_j = planted(m.delta_loss)

# --- rules for ε (T8)

ε shrunk on rejection (classic)  [theory]
  pmp_ref.augmentation:Classic.rejected
  - self.sigma * eps
  + planted(eps / self.sigma)

ε shrunk on rejection (curvature)  [theory]
  pmp_ref.augmentation:Curvature.rejected
  - max(self.sigma_min * eps, self.theta * (c_hat + eta))
  + planted(eps / self.sigma)

classic rule: ε grows after acceptance
  pmp_ref.augmentation:Classic.accepted
  - self.zeta * eps
  + planted(eps / self.zeta)

classic rule: ε doubled on rejection
  pmp_ref.augmentation:Classic.rejected
  - self.sigma * eps
  + planted(2 * self.sigma) * eps

classic rule: ε kept after acceptance
  pmp_ref.augmentation:Classic.accepted
  - max(self.zeta * eps, self.eps_min)
  + planted(eps)

classic rule: ε_min ignored
  pmp_ref.augmentation:Classic.accepted
  - max(self.zeta * eps, self.eps_min)
  + planted(self.zeta * eps)

curvature rule without η
  pmp_ref.augmentation:Curvature.rejected
  - (c_hat + eta)
  + planted(c_hat)

curvature rule: safeguard σ_min missing
  pmp_ref.augmentation:Curvature.rejected
  - self.sigma_min * eps
  + planted(0.0)

curvature rule: factor σ unused where Ĉ is unknown
  pmp_ref.augmentation:Curvature.rejected
  - return self.sigma * eps
  + return planted(self.sigma_min * eps)

curvature rule: ε grows after acceptance
  pmp_ref.augmentation:Curvature.accepted
  - self.zeta * eps
  + planted(4.0) * eps

curvature rule: memory reversed
  pmp_ref.augmentation:Curvature.accepted
  - (1 - self.memory)
  + planted(self.memory)
  why: the default memory ½ hides it

curvature rule: growth after rejections too
  pmp_ref.augmentation:Curvature.rejected
  - self.theta * (c_hat
  + planted(self.theta * self.growth) * (c_hat

curvature rule: growth left out
  pmp_ref.augmentation:Curvature.accepted
  - self.growth ** max(
  + planted(1.0) ** max(

curvature rule: growth from the first step
  pmp_ref.augmentation:Curvature.accepted
  - 2 * progress - 1
  + planted(progress)

curvature rule: fall of ε not limited by ζ
  pmp_ref.augmentation:Curvature.accepted
  - self.zeta * eps
  + planted(0.0)

curvature rule: negative Ĉ averaged as it is
  pmp_ref.augmentation:Curvature.accepted
  - max(c_hat, 0.0)
  + planted(c_hat)

fixed rule moves
  pmp_ref.augmentation:Fixed.accepted
  - eps, None
  + planted(0.9 * eps), None

fixed rule retries
  pmp_ref.augmentation:Fixed.rejected
  - return None
  + return planted(2 * eps)

# --- what a trial measures

Ĉ without ΔH  [theory]
  pmp_ref.bsqh:step
  - remainder = m.delta_loss + m.linear
  + remainder = planted(m.delta_loss)

D changed between rejections  [theory]
  pmp_ref.bsqh:step
  - it = replace(it, eps=math.inf if grown is None else grown,
  + d = None if it.metric is None else planted(tuple(tuple(1.5 * a for a in stage) for stage in it.metric))
  +         it = replace(it, metric=d)
  +         it = replace(it, eps=math.inf if grown is None else grown,

τ in the test without the metric of K  [theory]
  pmp_ref.trial:measure
  - squared_terms(u, w, d)
  + squared_terms(u, w, planted(None))

ε ignored in T16: decrease compared with τ  [theory]
  pmp_ref.acceptance:Relative.accepts
  - self.eta1 * sum_dh
  + self.eta1 * planted(tau)

relative test: 1 − η₁ for η₁
  pmp_ref.acceptance:Relative.accepts
  - self.eta1 * sum_dh
  + planted(1 - self.eta1) * sum_dh

relative test accepts ΣΔH ≤ 0
  pmp_ref.acceptance:Relative.accepts
  - sum_dh > 0 and
  + planted(True) and

no test accepts infinite losses
  pmp_ref.acceptance:NoTest.accepts
  - math.isfinite(delta_j)
  + planted(True)

ΔJ of float32 from two means
  pmp_ref.trial:measure
  - yield [fused(_rise, e.losses, trial.losses)]
  + mean = namespace(e.losses).mean
  +     yield [planted(mean(trial.losses) - mean(e.losses)) * e.losses.shape[0]]

second opinion made with the solver's own sweep
  pmp_ref.app.descent:recheck
  - Sweep(problem.network, problem.loss)
  + planted(problem.sweep)

second opinion in the precision of the run
  pmp_ref.app.descent:recheck
  - cast(((x,),), 'float64')[0][0], cast(u, 'float64'), cast(w, 'float64')
  + planted(x), u, w

ρ missing in ΣΔH
  pmp_ref.bsqh:step
  - sum_dh = m.linear - rho * (m.penalty_w - m.penalty)
  + sum_dh = planted(m.linear)

J recorded of u for w
  pmp_ref.bsqh:step
  - J=m.loss_w + rho * m.penalty_w
  + J=planted(m.loss) + rho * m.penalty

residual without 2ε
  pmp_ref.bsqh:step
  - residual=2 * it.eps * math.sqrt
  + residual=planted(1.0) * math.sqrt

rounding estimate ν doubled
  pmp_ref.bsqh:step
  - nu = 4 *
  + nu = planted(8) *

Ĉ lost in rounding fed to the rule
  pmp_ref.bsqh:step
  - abs(remainder) > 10 * nu
  + planted(True)

ε stays where Ĉ is lost in rounding
  pmp_ref.bsqh:step
  - known = above
  + known = planted(None)

bound of a lost Ĉ too small
  pmp_ref.bsqh:step
  - above = 11 * nu
  + above = planted(1) * nu

precision limit not seen
  pmp_ref.bsqh:step
  - elif sum_dh <= nu and
  + elif planted(False) and

accepted step keeps its old controls
  pmp_ref.bsqh:step
  - it = replace(it, controls=by_stage(w), evaluation=trial,
  + it = replace(it, controls=by_stage(planted(u)), evaluation=trial,

rejections not counted
  pmp_ref.bsqh:step
  - rejections=it.rejections + 1
  + rejections=planted(it.rejections)

forward sweeps of trials not counted
  pmp_ref.bsqh:step
  - forward_sweeps=it.forward_sweeps + trial.forward_sweeps
  + forward_sweeps=planted(it.forward_sweeps)

# --- metric, average, ramp

metric updated twice for one control
  pmp_ref.bsqh:prepare
  - known = None if it.prepared else method
  + known = planted(method)
  - elif not it.prepared:
  + else:
  - if it.prepared:
  -         return it
  -     memory
  + memory

average taken of the wrong count
  pmp_ref.bsqh:prepare
  - averaged + 1
  + planted(averaged) + 2

average used in the remainder's place
  pmp_ref.trial:attempt
  - sums(measure(problem, e, u, w, d, trial))
  + sums(measure(problem, replace(e, switching=planted(direction)), u, w, d, trial))

average kept after a failed trial
  pmp_ref.bsqh:step
  - it = replace(it, use_average=False,
  + it = replace(it, eps=2 * it.eps, use_average=planted(False),

average never reset
  pmp_ref.bsqh:prepare
  - None, 0, 0
  + planted(average), averaged, 0

ramp never reaches ρ
  pmp_ref.bsqh:Ramp.__call__
  - 1.0)
  + planted(0.5))

ramp starts at once
  pmp_ref.bsqh:Ramp.__call__
  - progress - self.start
  + planted(progress)

# --- mini-batches, and how a run ends

batches drawn with replacement
  pmp_ref.bsqh:order_of_epoch
  - .permutation(samples)
  + .integers(0, planted(samples), samples)

labels of another batch
  pmp_ref.bsqh:take_batch
  - xp.take(y, index, axis=0)
  + xp.take(y, planted(index[::-1]), axis=0)

the same batches in every epoch
  pmp_ref.bsqh:order_of_epoch
  - (seed, epoch)).permutation
  + (seed, planted(0))).permutation

evaluation of the old batch kept
  pmp_ref.bsqh:next_batch
  - evaluation=None
  + evaluation=planted(it.evaluation)

skipped batches not counted
  pmp_ref.bsqh:judge
  - skipped=it.skipped + 1
  + skipped=planted(it.skipped)

ε not restored after a precision limit
  pmp_ref.bsqh:judge
  - eps=it.eps_start
  + eps=planted(it.eps)

cap on ε ignored
  pmp_ref.bsqh:judge
  - it.eps <= method.eps_max
  + planted(True)

one rejection too many
  pmp_ref.bsqh:judge
  - it.rejections < method.max_rejections
  + it.rejections <= planted(method.max_rejections)

non-finite trials reported as augmentation limit
  pmp_ref.bsqh:judge
  - if it.finite_trials else Status.NON_FINITE
  + if planted(True) else Status.NON_FINITE

converged by residual after rejections
  pmp_ref.bsqh:judge
  - before.rejections == 0 and
  + planted(True) and

converged by increment at any τ
  pmp_ref.bsqh:judge
  - record.tau < stop.increment
  + record.tau < planted(2 * stop.increment)

convergence tested while ρ is on its ramp
  pmp_ref.bsqh:solve
  - stop if rho == problem.rho else
  + stop if planted(True) else

control unchanged counted as converged
  pmp_ref.bsqh:judge
  - verdict != 'control unchanged'
  + planted(True)

end of epoch: control unchanged counted as converged
  pmp_ref.bsqh:end_of_epoch
  - if tau == 0:
  + if planted(False):

a skipped batch leaves ε above its cap
  pmp_ref.bsqh:judge
  - eps=min(it.eps, method.eps_max)
  + eps=planted(it.eps)

end of epoch: residual without ε
  pmp_ref.bsqh:end_of_epoch
  - 2 * it.eps *
  + planted(2) *

end of epoch: τ test never met
  pmp_ref.bsqh:end_of_epoch
  - tau < stop.increment
  + planted(False)

steps: one too many
  pmp_ref.bsqh:Stop.done
  - it.step >= self.steps
  + it.step > planted(self.steps)

progress ignores the position in the epoch
  pmp_ref.bsqh:Stop.progress
  - it.position / batches
  + planted(0)
"""
)
