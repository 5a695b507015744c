"""The training problem: minimise J_B(u) = L_B(u) + ρ Σ_l ω_l r_l(u_l) over u ∈ U_ad."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, TypeAlias, TypeVar

import numpy as np

from pmp_ref.admissible import WHOLE_LINE, Admissible, FiniteSet
from pmp_ref.arrays import Array, Controls, as_floats, check_float64, check_together, device, namespace, sum64
from pmp_ref.controls import Layout, Vectors, map_controls, total
from pmp_ref.errors import InputError, PenaltyWarning
from pmp_ref.loss import CrossEntropy, Loss
from pmp_ref.network import Network
from pmp_ref.regulariser import L0, Regulariser
from pmp_ref.sweep import Sweep, Sweeper

T = TypeVar("T")
Nested: TypeAlias = T | Sequence[Sequence[T]]  # one for all controls, or nested like them


@dataclass(frozen=True, init=False, repr=False)
class Problem:
    """Network, loss, regulariser, admissible set and the weight ρ (relative to the *mean* loss), which must be given.

    ``regulariser``, ``admissible`` and ``weights`` (ω ≥ 0; 0: not penalised) are given once for all controls or
    nested like the controls. The default weights penalise every kernel and no bias, see :func:`layer_weights`.
    ``sweep`` makes the forward and backward sweeps. None: ``solve``, ``step`` and ``certify`` of ``pmp_ref`` choose it
    from the arrays (``pmp_ref.library``); ``sweeper``, which the method uses, is then the clear one.

    Raises InputError for ρ < 0, nestings that do not fit, a regulariser that has no maximiser on its admissible set, or
    a sweep of another network or loss. Warns with PenaltyWarning of a finite set on which r is one constant.

    ``together`` lays controls of one name, regulariser, weight and admissible set side by side, ``apart`` each control
    on its own (see ``controls``).
    """

    network: Network
    loss: Loss
    regulariser: Sequence[Sequence[Regulariser]]
    rho: float
    admissible: Sequence[Sequence[Admissible]]
    weights: Sequence[Sequence[float]]
    sweep: Sweeper | None
    sweeper: Sweeper = field(init=False, compare=False)
    names: Sequence[Sequence[str]] = field(init=False, compare=False)  # of the controls
    together: Layout = field(init=False, compare=False)
    apart: Layout = field(init=False, compare=False)
    suited: dict[Any, Problem] = field(init=False, compare=False)  # with the sweeps that ``library.suited`` has chosen

    def __init__(
        self,
        network: Network,
        loss: Loss = CrossEntropy(),
        regulariser: Nested[Regulariser] = L0(),
        *,
        rho: float,
        admissible: Nested[Admissible] = WHOLE_LINE,
        weights: Nested[float] | None = None,
        sweep: Sweeper | None = None,
    ) -> None:
        given = {
            "network": network,
            "loss": loss,
            "regulariser": regulariser,
            "rho": rho,
            "admissible": admissible,
            "weights": layer_weights(network) if weights is None else weights,
            "sweep": sweep,
        }
        for name, value in given.items():
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        """Bring constants into the nesting of the controls, and refuse what does not fit."""
        as_floats(self, "rho")
        if not (math.isfinite(self.rho) and self.rho >= 0):
            raise InputError(f"rho is {self.rho}; expected a number ≥ 0")
        if not self.network.layers():
            raise InputError("the network has no controls; expected at least one stage with a kernel")
        for name, value, kind in (
            ("regulariser", self.regulariser, Regulariser),
            ("admissible", self.admissible, Admissible),
            ("weights", self.weights, Real),
        ):
            nested = everywhere(self.network, value) if isinstance(value, kind) else value
            if not isinstance(nested, tuple | list) or len(nested) != len(self.network.stages):
                raise InputError(
                    f"{name} is {nested!r}; expected one for all controls, or one tuple for each of the "
                    f"{len(self.network.stages)} stages"
                )
            for l, (part, shapes) in enumerate(zip(nested, self.network.control_shapes, strict=True)):
                if (
                    not isinstance(part, tuple | list)
                    or len(part) != len(shapes)
                    or not all(isinstance(v, kind) for v in part)
                ):
                    raise InputError(
                        f"{name} of stage {l} is {part}; expected a tuple with one for each of its "
                        f"{len(shapes)} controls"
                    )
            object.__setattr__(self, name, tuple(map(tuple, nested)))
        if any(w < 0 or not math.isfinite(w) for stage in self.weights for w in stage):
            raise InputError(f"weights {self.weights}; expected finite numbers ≥ 0")
        object.__setattr__(self, "weights", map_controls(float, self.weights))
        names = self.network.names()
        object.__setattr__(self, "names", names)
        self._check_sets()
        kinds = map_controls(
            lambda *kind: kind if kind[1].separable else None, names, self.regulariser, self.weights, self.admissible
        )
        object.__setattr__(self, "together", Layout(self.network.control_shapes, kinds))
        object.__setattr__(self, "apart", Layout(self.network.control_shapes, map_controls(lambda name: None, names)))
        self._take(self.sweep)

    def _take(self, sweep: Sweeper | None) -> None:
        if sweep is not None and not sweep.belongs(self.network, self.loss):
            raise InputError(
                "the sweep is that of another network or loss; give sweep=None or make_sweep(network, loss)"
            )
        object.__setattr__(self, "suited", {})
        object.__setattr__(self, "sweep", sweep)
        object.__setattr__(self, "sweeper", Sweep(self.network, self.loss) if sweep is None else sweep)

    def swept_by(self, sweep: Sweeper) -> Problem:
        """The same problem with that sweep; controls that lie as this problem lays them need not be moved."""
        result = copy(self)
        result._take(sweep)
        return result

    def _check_sets(self) -> None:
        """Each penalised control's regulariser against its admissible set: InputError, or one PenaltyWarning."""
        constant = None
        for l, name, r, u, omega in self._each_control():
            if omega == 0:
                continue
            try:
                r.check(u)
            except InputError as error:
                raise InputError(
                    f"the {name} of stage {l} has the regulariser {r} on {u}, which do not go together: "
                    f"{error}; choose another regulariser or another set"
                ) from None
            if isinstance(u, FiniteSet) and 0 not in u.values and self.rho > 0 and constant is None:
                values = r.pointwise(np.array(u.values))
                if np.ptp(values) == 0 and values[0] > 0:
                    constant = f"the {name} of stage {l}", r, u
        if constant is not None:
            place, r, u = constant
            warnings.warn(
                f"{r} is the same for all values of {u} ({place}), so the penalty changes nothing there; put "
                "0 among the values, or leave rho at 0",
                PenaltyWarning,
                stacklevel=4,
            )

    def _each_control(self) -> list[tuple[int, str, Regulariser, Admissible, float]]:
        """(stage, name, regulariser, admissible set, weight) of each control."""
        return [
            (l, *each)
            for l, stage in enumerate(
                zip(self.network.names(), self.regulariser, self.admissible, self.weights, strict=True)
            )
            for each in zip(*stage, strict=True)
        ]

    def __repr__(self) -> str:
        kinds = sorted({f"{r} on {u}" for _, _, r, u, omega in self._each_control() if omega > 0})
        return f"<Problem: {self.network}, {self.loss}, ρ = {self.rho:g}, {' and '.join(kinds[:2]) or 'no penalty'}>"

    def penalty(self, controls: Controls) -> Array:
        """R(u) = Σ_l ω_l r_l(u_l) in float64, without ρ; 0-d."""
        return total(self.penalties(controls))

    def penalties(self, controls: Controls) -> Controls:
        """ω_l r_l(u_l) of each control, 0-d in float64, nested like the controls."""
        return map_controls(sum64, self.penalty_terms(controls))

    def penalty_terms(self, controls: Controls) -> Controls:
        """What :meth:`penalties` adds, an array for each control: ω_l r_l entry by entry where r_l separates."""
        regulariser, weights = self.fitting(controls, self.regulariser), self.fitting(controls, self.weights)
        return map_controls(lambda r, omega, u: weighted_terms(r, omega, u), regulariser, weights, controls)

    def fitting(self, controls: Controls, constants: Any) -> Any:
        """``constants``, nested by stage, in the form of the controls: by stage, or one for each kind."""
        return controls.layout.first(constants) if isinstance(controls, Vectors) else constants

    def check(self, controls: Controls, x: Array, y: Array) -> float:
        """Raise InputError unless controls, images and labels fit this problem, are finite and admissible.

        Returns the largest absolute value of the images, standardised ones if they are bytes: see
        :func:`scale_advice`.
        """
        self.network.check_images(x)
        check_together(images=x, labels=y)
        check_float64(x)
        if y.ndim == 0 or y.shape[0] != x.shape[0]:
            raise InputError(f"labels of shape {tuple(y.shape)} for {x.shape[0]} images; expected one label per image")
        self.loss.check(self.network.output_shape, y)
        self.network.check_controls(controls, x)
        xp = namespace(x)
        targets = {} if xp.isdtype(y.dtype, "integral") else {"targets": y}
        images, largest = self.network.extremes(controls, x), {}
        for name, a in {"images": images, **targets}.items():
            if a.dtype != images.dtype:
                raise InputError(f"images are {images.dtype} but {name} are {a.dtype}; expected one dtype: convert one")
            largest[name] = float(xp.max(xp.abs(a)))  # NaN if there is one
            if not math.isfinite(largest[name]):
                raise InputError(f"the {name} hold NaN or infinite values; remove or replace them")
        for l, (names, us, sets) in enumerate(zip(self.network.names(), controls, self.admissible, strict=True)):
            for name, u, admissible in zip(names, us, sets, strict=True):
                if not bool(xp.all(xp.isfinite(u))):
                    raise InputError(
                        f"the {name} of stage {l} holds NaN or infinite values; start from finite controls"
                    )
                if not bool(xp.all(admissible.contains(u))):
                    raise InputError(
                        f"the {name} of stage {l} leaves {admissible}; start from problem.project(controls)"
                    )
        return largest["images"]

    def project(self, controls: Controls) -> Controls:
        """The closest admissible controls."""
        return map_controls(lambda a, u: a.project(u), self.admissible, controls)


def weighted_terms(r: Regulariser, omega: float, u: Array) -> Array:
    """ω r(u) entry by entry; where ω is 0 an array without entries."""
    xp = namespace(u)
    if omega == 0:
        return xp.zeros((0,), dtype=xp.float64, device=device(u))
    return r.terms(u) if omega == 1 else omega * xp.astype(r.terms(u), xp.float64)


SCALE = (1e-2, 1e2)  # of max |x|: holds pixels in [0, 1], standardised images, outliers; not bytes, not other units


def scale_advice(largest: float) -> str | None:
    """One line on images whose largest absolute value is far from 1; None if it is not.

    Such images are no error, but ΣΔH falls below the rounding of J early, or states overflow and ε grows.
    """
    low, high = SCALE
    if low <= largest <= high:
        return None
    return (
        f"the largest absolute value in the images is {largest:.3g}; expected about 1 (from {low:g} to {high:g}): "
        "standardise them, (x − mean)/std for each channel, as Pixels at the head of a network does with bytes"
    )


def everywhere(network: Network, value: T) -> tuple[tuple[T, ...], ...]:
    """The same value for each control, nested like the controls."""
    return tuple(tuple(value for _ in shapes) for shapes in network.control_shapes)


def layer_weights(
    network: Network, kernels: float = 1.0, biases: float = 0.0, by_stage: dict[int, float] | None = None
) -> tuple[tuple[float, ...], ...]:
    """Penalty weights ω nested like the controls: ``kernels`` for each kernel, ``biases`` for each bias, and
    ``by_stage[l]`` times that for stage l. A weight of 0 leaves the control unpenalised."""
    factors = by_stage or {}
    unknown = set(factors) - set(network.layers())
    if unknown:
        raise InputError(f"weights for stages {sorted(unknown)}; the stages with controls are {network.layers()}")
    return tuple(
        tuple(factors.get(l, 1.0) * (biases if name == "bias" else kernels) for name in names)
        for l, names in enumerate(network.names())
    )
