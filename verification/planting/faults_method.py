"""Faults in the loop: a trial, its acceptance, rules for ε, mini-batches, stops."""

from verification.planting.fault import faults

faults(
    """
stale costates after acceptance  [theory]
  pmp_ref.one_step:move
  - evaluation=t.evaluation
  + evaluation=replace(t.evaluation, states=None, switching=planted(now.evaluation.switching))

state buffer of a rejected trial kept  [theory]
  pmp_ref.one_step:move
  - tried = replace(now,
  + tried = replace(now, evaluation=replace(now.evaluation, losses=planted(t.evaluation.losses)),

NaN accepted  [theory]
  pmp_ref.one_step:judge
  - elif t.finite and test.accepts(t.delta_J, m.tau, t.sum_dh):
  + elif planted(not t.delta_J > -test.eta * m.tau):

null step counted as accepted  [theory]
  pmp_ref.one_step:judge
  - verdict = Verdict.CONTROL_UNCHANGED
  + verdict = planted(Verdict.ACCEPTED)

acceptance reversed  [theory]
  pmp_ref.acceptance:AbsoluteTest.accepts
  - delta_j <= -self.eta * tau
  + planted(delta_j) >= -self.eta * tau

everything accepted
  pmp_ref.acceptance:AbsoluteTest.accepts
  - delta_j <= -self.eta * tau
  + planted(True)

nothing accepted
  pmp_ref.acceptance:AbsoluteTest.accepts
  - delta_j <= -self.eta * tau
  + planted(False)

accepted without sufficient decrease
  pmp_ref.acceptance:AbsoluteTest.accepts
  - -self.eta * tau
  + planted(0.0)

a trial must reduce J by half of ΣΔH too
  pmp_ref.acceptance:AbsoluteTest.accepts
  - -self.eta * tau
  + planted(-2 * self.eta) * tau - 0.5 * sum_dh

sufficient decrease with the wrong sign of η
  pmp_ref.acceptance:AbsoluteTest.accepts
  - -self.eta * tau
  + planted(self.eta) * tau

acceptance with ΔJ of another batch  [theory]
  pmp_ref.trial:attempt
  - measure_losses(e, trial)
  + measure_losses(e, replace(trial, losses=0 * trial.losses +
  +               planted(problem.sweeper.forward(by_stage(w), e.x[::2, ...], e.y[::2, ...]).losses[:1])))

acceptance with two different ρ  [theory]
  pmp_ref.one_step:Trial.delta_J
  - m.delta_loss + self.rho * (m.penalty_w - m.penalty)
  + m.delta_loss + self.rho * m.penalty_w - planted(self.rho * 0.5) * m.penalty

regulariser missing in the acceptance
  pmp_ref.one_step:Trial.delta_J
  - m.delta_loss + self.rho * (m.penalty_w - m.penalty)
  + planted(m.delta_loss)

# --- rules for ε (T8)

ε shrunk on rejection (classic)  [theory]
  pmp_ref.augmentation:ClassicRule.rejected
  - self.sigma * eps
  + planted(eps / self.sigma)

ε shrunk on rejection (curvature)  [theory]
  pmp_ref.augmentation:CurvatureRule.rejected
  - max(self.sigma_min * eps, self.theta * (c_hat + eta))
  + planted(eps / self.sigma)

classic rule: ε grows after acceptance
  pmp_ref.augmentation:ClassicRule.accepted
  - self.zeta * eps
  + planted(eps / self.zeta)

classic rule: ε doubled on rejection
  pmp_ref.augmentation:ClassicRule.rejected
  - self.sigma * eps
  + planted(2 * self.sigma) * eps

classic rule: ε kept after acceptance
  pmp_ref.augmentation:ClassicRule.accepted
  - max(self.zeta * eps, self.eps_min)
  + planted(eps)

classic rule: ε_min ignored
  pmp_ref.augmentation:ClassicRule.accepted
  - max(self.zeta * eps, self.eps_min)
  + planted(self.zeta * eps)

curvature rule without η
  pmp_ref.augmentation:CurvatureRule.rejected
  - (c_hat + eta)
  + planted(c_hat)

curvature rule: safeguard σ_min missing
  pmp_ref.augmentation:CurvatureRule.rejected
  - self.sigma_min * eps
  + planted(0.0)

curvature rule: factor σ unused where Ĉ is unknown
  pmp_ref.augmentation:CurvatureRule.rejected
  - return self.sigma * eps
  + return planted(self.sigma_min * eps)

curvature rule: ε grows after acceptance
  pmp_ref.augmentation:CurvatureRule.accepted
  - min(eps, max(self.zeta * eps, self.band * least))
  + planted(4.0) * eps

curvature rule: band left out
  pmp_ref.augmentation:CurvatureRule.accepted
  - self.band * least
  + planted(1.0) * least

curvature rule: band around θ(C̃ + η) without growth
  pmp_ref.augmentation:CurvatureRule.accepted
  - self.band * least
  + planted(self.band) * self.theta * (smoothed + eta)

curvature rule: ε goes to the top of its band
  pmp_ref.augmentation:CurvatureRule.accepted
  - min(eps, max(
  + max(planted(0.0), max(

curvature rule: band in force without a penalty
  pmp_ref.augmentation:CurvatureRule.unpenalised
  - band=1.0
  + band=planted(self.band)

curvature rule: memory reversed
  pmp_ref.augmentation:CurvatureRule.accepted
  - (1 - self.memory)
  + planted(self.memory)
  why: the default memory ½ hides it

curvature rule: growth after rejections too
  pmp_ref.augmentation:CurvatureRule.rejected
  - self.theta * (c_hat
  + planted(self.theta * self.growth) * (c_hat

curvature rule: growth left out
  pmp_ref.augmentation:CurvatureRule.accepted
  - late * (1 - 1 / self.growth)
  + planted(0.0) * (1 - 1 / self.growth)

curvature rule: θ, not its reciprocal, linear in the second half
  pmp_ref.augmentation:CurvatureRule.accepted
  - self.theta / (1 - late * (1 - 1 / self.growth))
  + planted(self.theta) * (1 + late * (self.growth - 1))

curvature rule: growth from the first step
  pmp_ref.augmentation:CurvatureRule.accepted
  - 2 * progress - 1
  + planted(progress)

curvature rule: the part of the run in which ε falls by e left out
  pmp_ref.augmentation:CurvatureRule.slowed
  - math.exp(-part / self.fall)
  + planted(0.0)

curvature rule: ε falls slowly without a penalty too
  pmp_ref.one_step:step
  - rule.slowed(part) if t.rho > 0
  + rule.slowed(part) if planted(True)

curvature rule: fall of ε not limited by ζ
  pmp_ref.augmentation:CurvatureRule.accepted
  - self.zeta * eps
  + planted(0.0)

curvature rule: negative Ĉ averaged as it is
  pmp_ref.augmentation:CurvatureRule.accepted
  - max(c_hat, 0.0)
  + planted(c_hat)

fixed rule moves
  pmp_ref.augmentation:FixedRule.accepted
  - eps, None
  + planted(0.9 * eps), None

fixed rule retries
  pmp_ref.augmentation:FixedRule.rejected
  - return None
  + return planted(2 * eps)

# --- what a trial measures

Ĉ without ΔH  [theory]
  pmp_ref.one_step:Trial.remainder
  -  + self.measured.linear
  +  + planted(0.0)

D changed between rejections  [theory]
  pmp_ref.one_step:move
  - tried = replace(now,
  + d = now.metric and planted(tuple(tuple(1.5 * a for a in stage) for stage in now.metric))
  +         tried = replace(now, metric=d,

τ in the test without the metric of K  [theory]
  pmp_ref.trial:measure_entries
  - step_terms(g, u, w, d)
  + step_terms(g, u, w, planted(None))

ε ignored in T16: decrease compared with τ  [theory]
  pmp_ref.acceptance:RelativeTest.accepts
  - self.eta1 * sum_dh
  + self.eta1 * planted(tau)

relative test: 1 − η₁ for η₁
  pmp_ref.acceptance:RelativeTest.accepts
  - self.eta1 * sum_dh
  + planted(1 - self.eta1) * sum_dh

relative test accepts ΣΔH ≤ 0
  pmp_ref.acceptance:RelativeTest.accepts
  - sum_dh > 0 and
  + planted(True) and

no test accepts infinite losses
  pmp_ref.acceptance:NoTest.accepts
  - math.isfinite(delta_j)
  + planted(True)

ΔJ of float32 from two means
  pmp_ref.trial:measure_losses
  - fused(_rise, e.losses, trial.losses)
  + planted(namespace(e.losses).mean(trial.losses) - namespace(e.losses).mean(e.losses)) + 0 * e.losses

second opinion made with the solver's own sweep
  pmp_ref.app.descent:recheck
  - Sweep(problem.network, problem.loss)
  + planted(problem.sweep)

second opinion in the precision of the run
  pmp_ref.app.descent:recheck
  - x if problem.network.takes_bytes else cast(((x,),), 'float64')[0][0]
  + planted(x)
  - (cast(u, 'float64'), cast(w, 'float64'))
  + (u, w)

ρ missing in ΣΔH
  pmp_ref.one_step:Trial.sum_dh
  - m.linear - self.rho * (m.penalty_w - m.penalty)
  + planted(m.linear)

J recorded of u for w
  pmp_ref.one_step:record_of
  - J=m.loss_w + t.rho * m.penalty_w
  + J=planted(m.loss) + t.rho * m.penalty

residual without 2ε
  pmp_ref.one_step:record_of
  - residual=2 * t.eps * math.sqrt
  + residual=planted(1.0) * math.sqrt

rounding estimate ν doubled
  pmp_ref.one_step:trial
  - rounding=4 *
  + rounding=planted(8) *

Ĉ lost in rounding fed to the rule
  pmp_ref.one_step:Trial.known
  - abs(self.remainder) > 10 * self.rounding
  + planted(True)

ε stays where Ĉ is lost in rounding
  pmp_ref.one_step:move
  - known = above
  + known = planted(None)

bound of a lost Ĉ too small
  pmp_ref.one_step:move
  - above = 11 *
  + above = planted(1) *

precision limit not seen
  pmp_ref.one_step:judge
  - elif t.sum_dh <= t.rounding and
  + elif planted(False) and

accepted step keeps its old controls
  pmp_ref.one_step:move
  - controls=t.w
  + controls=planted(it.controls)

rejections not counted
  pmp_ref.one_step:move
  - rejections=now.rejections + 1
  + rejections=planted(now.rejections)

forward sweeps of trials not counted
  pmp_ref.one_step:step
  - counts=it.counts.swept(t.evaluation)
  + counts=replace(it.counts.swept(t.evaluation), forward_sweeps=planted(it.counts.forward_sweeps))

# --- metric, average, ramp

metric updated twice for one control
  pmp_ref.one_step:prepare
  - if not new and before is not None
  + if planted(False) and before is not None
  - following = method if new else None
  + following = method
  - if not new:
  + if planted(False):

average taken of the wrong count
  pmp_ref.one_step:prepare
  - memory.averaged + 1
  + planted(memory.averaged) + 2

average used in the remainder's place
  pmp_ref.trial:attempt
  - measure_entries(problem, g, u, w, d)
  + measure_entries(problem, planted(direction), u, w, d)

average kept after a failed trial
  pmp_ref.one_step:move
  - return replace(it, current=replace(now, use_average=False)
  + return replace(it, eps=2 * it.eps, current=replace(now, use_average=planted(False))

average never reset
  pmp_ref.one_step:prepare
  - average=None, averaged=0, returns=0
  + average=planted(memory.average), averaged=memory.averaged, returns=0

ramp never reaches ρ
  pmp_ref.method:Ramp.__call__
  - 1.0)
  + planted(0.5))

ramp starts at once
  pmp_ref.method:Ramp.__call__
  - progress - self.start
  + planted(progress)

# --- mini-batches, and how a run ends

batches drawn with replacement
  pmp_ref.batches:order_of_epoch
  - .permutation(samples)
  + .integers(0, planted(samples), samples)

images moved the other way
  pmp_ref.batches:FlipsAndShifts.apply
  - columns = xp.arange(w, device=device(images)) - right
  + columns = xp.arange(w, device=device(images)) + planted(right)

images moved, then mirrored
  pmp_ref.batches:FlipsAndShifts.apply
  - w - 1 - columns
  + planted(w - 1) - columns - 2 * right

edges repeated where nothing comes in
  pmp_ref.batches:FlipsAndShifts.apply
  - xp.zeros_like(moved)
  + planted(moved)

images moved by the draws of others
  pmp_ref.batches:take_batch
  - vary.draws(x.shape[0], seed, epoch)[part]
  + planted(vary.draws(x.shape[0], seed, epoch))[:len(part)]

labels of another batch
  pmp_ref.batches:take_batch
  - xp.take(y, index, axis=0)
  + xp.take(y, planted(index[::-1]), axis=0)

the same batches in every epoch
  pmp_ref.batches:order_of_epoch
  - (seed, epoch)).permutation
  + (seed, planted(0))).permutation

evaluation of the old batch kept
  pmp_ref.bsqh:next_batch
  - evaluation=None
  + evaluation=planted(it.current.evaluation)

skipped batches not counted
  pmp_ref.bsqh:skip_batch
  - it.counts.skipped + 1
  + planted(it.counts.skipped)

ε not restored after a precision limit
  pmp_ref.bsqh:go_on
  - eps=it.current.eps_start
  + eps=planted(it.eps)

cap on ε ignored
  pmp_ref.bsqh:go_on
  - it.eps <= method.eps_max
  + planted(True)

one rejection too many
  pmp_ref.bsqh:go_on
  - current.rejections < method.max_rejections
  + current.rejections <= planted(method.max_rejections)

non-finite trials reported as augmentation limit
  pmp_ref.bsqh:go_on
  - if it.current.finite_trials else Status.NON_FINITE
  + if planted(True) else Status.NON_FINITE

converged by residual after rejections
  pmp_ref.bsqh:go_on
  - before.current.rejections == 0 and
  + planted(True) and

converged by increment at any τ
  pmp_ref.bsqh:go_on
  - record.tau < stop.increment
  + record.tau < planted(2 * stop.increment)

convergence tested while ρ is on its ramp
  pmp_ref.bsqh:loop
  - stop if rho == problem.rho else
  + stop if planted(True) else

control unchanged counted as converged
  pmp_ref.bsqh:go_on
  - verdict is not Verdict.CONTROL_UNCHANGED
  + planted(True)

end of epoch: control unchanged counted as converged
  pmp_ref.bsqh:end_of_epoch
  - if tau == 0:
  + if planted(False):

a skipped batch leaves ε above its cap
  pmp_ref.bsqh:skip_batch
  - eps=min(it.eps, eps_max)
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
  pmp_ref.stop:Stop.done
  - place.step >= self.steps
  + place.step > planted(self.steps)

part of a run that a step is: the batches of an epoch left out
  pmp_ref.stop:Stop.part
  - (self.epochs or 0) * batches
  + planted(self.epochs or 0)

progress ignores the position in the epoch
  pmp_ref.stop:Stop.progress
  - place.position / batches
  + planted(0)
"""
)
