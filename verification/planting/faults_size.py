"""Faults in runs to a wished size (T20)."""

from verification.planting.fault import faults

faults(
    """
the smallest entries stay, the largest go
  pmp_ref.cardinality:nearest
  - np.argsort(-gains, kind='stable')
  + np.argsort(planted(gains), kind='stable')

nearest in another norm than that of the metric
  pmp_ref.cardinality:nearest
  - to_numpy(b) * a
  + to_numpy(b) * planted(0.0) + a

one entry too many stays
  pmp_ref.cardinality:nearest
  - [:k]
  + [:planted(k + 1)]

biases are cut off with the kernels
  pmp_ref.cardinality:nearest
  - return map_controls(part, names, u)
  + return map_controls(lambda name, a: part(name, a) if name == 'kernel' else planted(0 * a), names, u)

the last of those that tie stays
  pmp_ref.cardinality:nearest
  - np.argsort(-gains, kind='stable')
  + planted(gains.size - 1) - np.argsort(-gains[::-1], kind='stable')

ρ falls where there are too many weights
  pmp_ref.cardinality:AtMost.steer
  - math.exp(self.gain * e)
  + math.exp(planted(-self.gain) * e)

κ does not follow
  pmp_ref.cardinality:AtMost.steer
  - (progress - steering.progress) * e
  + (progress - steering.progress) * planted(0.0)

ρ moves between the rejections of a control
  pmp_ref.cardinality:AtMost.steer
  - (progress - steering.progress) * e
  + planted(progress - steering.progress + 0.01) * e

ρ is steered on after it should be held
  pmp_ref.cardinality:AtMost.steer
  - progress >= self.hold and
  + planted(False) and

no projection at the end of a run
  pmp_ref.cardinality:AtMost.above
  - ends or
  + planted(False) or

rejected trials are counted as the control
  pmp_ref.bsqh:loop
  - if record.accepted:
  + if planted(True):

a wish of another size
  pmp_ref.method:Method.wishing
  - wish=AtMost(keep)
  + wish=AtMost(planted(keep + 1 if keep >= 1 else keep / 2))

the ρ told at the end is the guess at the beginning
  pmp_ref.method:Method.last_rho
  - it.steering.rho
  + planted(rho)
"""
)
