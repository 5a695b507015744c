"""A further phase on a fixed support: entries that are zero stay zero, the others move freely."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pmp_ref.admissible import WHOLE_LINE, Box
from pmp_ref.app.build import Setup
from pmp_ref.arrays import Array, Controls, namespace
from pmp_ref.errors import InputError


@dataclass(frozen=True, eq=False)
class Support(Box):
    """U = ×U_i with U_i = ℝ where ``free`` is true and {0} elsewhere; ``free`` has the shape of the control.

    ``lo`` and ``hi`` are the ends entry by entry. The product is convex, and without penalty the maximiser of K_ε is
    the projection of c = u + g/(2ε), as on any box.
    """

    lo: Any = None
    hi: Any = None
    free: Any = None

    def __post_init__(self) -> None:
        if self.free is None or self.free.dtype != bool:
            raise InputError("a support needs a boolean array, true where an entry is free")
        object.__setattr__(self, "lo", np.where(self.free, -np.inf, 0.0))
        object.__setattr__(self, "hi", np.where(self.free, np.inf, 0.0))

    @property
    def bounded(self) -> bool:
        return not bool(np.any(self.free))

    def project(self, w: Array) -> Array:
        xp = namespace(w)
        return xp.where(self.free, w, xp.zeros_like(w))

    def contains(self, w: Array) -> Array:
        return self.free | (w == 0)


def on_support(setup: Setup, controls: Controls) -> Setup:
    """The setup that starts from the controls and holds every kernel entry at zero that is zero there."""
    sets = tuple(
        tuple(
            Support(free=np.asarray(u) != 0) if name == "kernel" else WHOLE_LINE
            for name, u in zip(names, arrays, strict=True)
        )
        for names, arrays in zip(setup.network.names(), controls, strict=True)
    )
    if setup.problem.rho != 0:
        raise InputError(f"rho is {setup.problem.rho} on a fixed support; expected 0, for no entry may leave it")
    return replace(setup, problem=replace(setup.problem, admissible=sets), controls=controls)
