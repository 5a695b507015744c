"""What varies in bSQH, in one object, with the defaults of full batch and of mini-batches by name."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from pmp_ref.acceptance import AbsoluteTest, Acceptance
from pmp_ref.arrays import as_floats
from pmp_ref.augmentation import CurvatureRule, Rule
from pmp_ref.averaging import Averaging
from pmp_ref.cardinality import AtMost
from pmp_ref.errors import InputError
from pmp_ref.iterate import Iterate
from pmp_ref.metric import GradientMetric, IdentityMetric, Metric


def _brief(policy: Any) -> str:
    """The policy as one would write it: without the fields that have their default."""
    if not is_dataclass(policy) or isinstance(policy, type):
        return repr(policy)
    usual = type(policy)()
    values = {f.name: getattr(policy, f.name) for f in fields(policy)}
    given = [f"{name}={_brief(value)}" for name, value in values.items() if value != getattr(usual, name)]
    return f"{type(policy).__name__}({', '.join(given)})"


@dataclass(frozen=True)
class Ramp:
    """ρ rises linearly from 0 to its full value while the run's progress goes from ``start`` to ``stop``."""

    start: float = 0.0
    stop: float = 0.5

    def __post_init__(self) -> None:
        as_floats(self, "start", "stop")
        if not 0 <= self.start < self.stop <= 1:
            raise InputError(f"ramp from {self.start} to {self.stop}; expected 0 ≤ start < stop ≤ 1")

    def __call__(self, rho: float, progress: float) -> float:
        return rho * min(max((progress - self.start) / (self.stop - self.start), 0.0), 1.0)


@dataclass(frozen=True, repr=False)
class Method:
    """What varies in bSQH: the rule for ε, the acceptance test, the metric, averaging, how ρ moves, the caps.

    ρ rises by the ``ramp``, is steered to a wished size (``wish``, in place of the ramp), or is constant.
    :meth:`full_batch` and :meth:`minibatch` are the defaults of ``solve`` and of ``pmp-ref train``. ``max_rejections``
    bounds the rejections of one control, ``eps_max`` bounds ε. A cap below C + η voids the
    guarantee that the line search ends by acceptance (T8); the default is far above any curvature in floating point.
    """

    rule: Rule = field(default_factory=CurvatureRule)
    acceptance: Acceptance = field(default_factory=AbsoluteTest)
    metric: Metric = field(default_factory=IdentityMetric)
    averaging: Averaging | None = None
    ramp: Ramp | None = None
    wish: AtMost | None = None
    max_rejections: int = 200
    eps_max: float = 1e15

    def __post_init__(self) -> None:
        as_floats(self, "eps_max")
        if not isinstance(self.max_rejections, int) or self.max_rejections < 1 or not self.eps_max > self.rule.eps0:
            raise InputError(
                f"max_rejections {self.max_rejections}, eps_max {self.eps_max}; expected an "
                f"integer ≥ 1 and a cap above ε₀ = {self.rule.eps0}"
            )
        if self.wish is not None and self.ramp is not None:
            raise InputError("a ramp and a wished size were given, and both say how ρ moves; expected one of the two")

    def __repr__(self) -> str:
        return _brief(self)

    @classmethod
    def full_batch(cls, **changes: Any) -> Method:
        """The defaults of full batch, and of ``Method()``: the curvature rule, no metric, no average, constant ρ."""
        return cls(**changes)

    @classmethod
    def minibatch(cls, **changes: Any) -> Method:
        """The defaults of mini-batches: a rule that looks further back, holds ε while weights vanish and lets θ grow in
        the second half of the run, the gradient metric, averaged switching functions, and a ramp of ρ over the first
        half.

        A ramp needs a run of known length: ``ramp=None`` for a run that stops by its residual alone.
        """
        usual = cls(
            rule=CurvatureRule(theta=0.7, memory=0.9, growth=20.0, band=20.0, fall=0.05),
            metric=GradientMetric(),
            averaging=Averaging(0.9),
            ramp=Ramp(0.1, 0.5),
        )
        return replace(usual, **changes)

    def rule_at(self, rho: float) -> Rule:
        """The rule for ε of a run whose largest ρ is this."""
        return self.rule if rho > 0 or self.wish is not None else self.rule.unpenalised()

    def rho_at(self, rho: float, progress: float) -> float:
        """The ρ of a step at this progress of the run, where it is not steered."""
        return rho if self.ramp is None else self.ramp(rho, progress)

    def last_rho(self, rho: float, it: Iterate, progress: float) -> float:
        """The ρ that a run has come to."""
        return self.rho_at(rho, progress) if self.wish is None else it.steering.rho

    def wishing(self, keep: float | None) -> Method:
        """This method with a wished size, if one is given, in place of its ramp."""
        return self if keep is None else replace(self, ramp=None, wish=AtMost(keep))
