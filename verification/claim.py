"""The contract of a claim, and the registry.

A *claim* is one statement of the theory (T0 … T19 or a part of one, "T7a"), written as one function that takes a
:class:`Context` and returns an :class:`Outcome`::

    @claim(tag="T2", title="Hamiltonian increments are exact", statement="ΔH_l = ⟨g_l, w − u_l⟩ − ρ[r_l(w) − r_l(u_l)]")
    def increments(context: Context) -> Outcome:
        '''Statement: …            (the inequality or identity, in the theory's words)
        Hypotheses: …              (which problems it is made on, and why they meet the hypotheses)
        Measured: …                (both sides: what is computed, by which independent means, and the tolerance)
        '''
        def one(case: Case) -> Check: ...
        return survey(context, one, micro=2, quick=20, full=200)

The docstring has these three paragraphs in this order; :func:`claim` refuses another. To add a claim, copy a module of
claims, change it and list its name in ``MODULES`` (``verification/claims/__init__.py``).

Rules for a claim
-----------------
* **Instances.** ``one(case)`` makes one instance from ``case.rng`` alone, and answers with a :class:`Check` or several
  (``measured ≤ bound``, or ``≥`` with ``sense=">="``). It is called with case.index = 0, 1, …; each index has a
  generator of its own, so that ``python -m verification --replay TAG:SEED:PROFILE:INDEX`` makes one instance alone.
  An outcome shows the worst check, that with the largest measured/bound; it holds iff every check holds. A NaN fails.
* **Deterministic.** Nothing but ``case.rng``, the profile, the library and the dtype decides what a claim computes: no
  clock, no global generator. The kill matrix relies on it.
* **Profiles.** "micro" ≤ 0.2 s in all, for the kill matrix, always drawn from seed 0; choose its instances so that the
  faults meant for the claim are caught by them. "quick" a few seconds. "full" as long as it is worth.
* **The real code.** The claim calls pmp_ref through its public functions and compares with an independent computation
  (``oracles.py``). Look functions up where users do; do not copy a function object into a default argument or a table
  at import time, for then a planted fault cannot reach it.
* **Formulas in ``verification/``.** A formula of the theory that a claim evaluates itself (a bound, a variance) is a
  function at module level, so that a fault can be planted in it too (``planting/fault.py``).
* **Exceptions.** An exception by which the core refuses or breaks down on an instance (``BREAKDOWNS``) counts as a
  failed instance: ``survey`` records a check with measured = ∞ and the message. Every other exception (TypeError,
  AttributeError, NameError, …) is an error of the claim or of the fault: the run is red, and under a planted fault it
  does not count as caught.
* **Precision.** Bounds follow from ``context.u``, the unit roundoff of the run's dtype, so that a float32 run states
  bounds for float32. A claim that makes sense in float64 only says ``dtypes=("float64",)``; the report then lists it
  as not applicable. Arrays go through ``context.asarray`` (library, device, dtype of the run); oracles compute on the
  host in float64.
"""

from __future__ import annotations

import inspect
import math
import traceback
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pmp_ref.errors import InputError
from verification.libraries import Library, load

PROFILES = ("micro", "quick", "full")
HEADINGS = ("Statement:", "Hypotheses:", "Measured:")

# Exceptions that count as a failed instance: the core refuses its own data, shapes do not fit, arithmetic breaks down.
BREAKDOWNS = (InputError, ValueError, ArithmeticError, IndexError, np.linalg.LinAlgError)


@dataclass(frozen=True)
class Context:
    """What a claim is run with. ``only`` is the index of the one instance to make in a replay.

    ``stop_at_failure``: a survey ends with its first failed check (the kill matrix asks no more).
    """

    seed: int = 0
    profile: str = "quick"
    library: Library = load("numpy")
    dtype: str = "float64"
    tag: str = ""
    only: int | None = None
    stop_at_failure: bool = False

    @property
    def u(self) -> float:
        """Unit roundoff of the dtype: 2⁻⁵³ or 2⁻²⁴."""
        return float(np.finfo(self.dtype).eps) / 2

    def asarray(self, host: Any) -> Any:
        """Host data as an array of the run's library and device; floating data in the run's dtype."""
        a = np.asarray(host)
        return self.library.asarray(a.astype(self.dtype) if a.dtype.kind == "f" else a)

    def count(self, micro: int, quick: int, full: int) -> int:
        """The number that belongs to the profile."""
        return {"micro": micro, "quick": quick, "full": full}[self.profile]

    def case(self, index: int) -> Case:
        """Instance ``index`` with its own generator."""
        key = (self.seed, zlib.crc32(self.tag.encode()), index)
        return Case(self, index, np.random.default_rng(key))

    def replay(self, index: int) -> str:
        """What ``--replay`` takes to make this instance alone."""
        return f"{self.tag}:{self.seed}:{self.profile}:{index}"


@dataclass(frozen=True)
class Case:
    """One instance of a claim: its number, its generator, and the run's settings."""

    context: Context
    index: int
    rng: np.random.Generator

    def asarray(self, host: Any) -> Any:
        """See :meth:`Context.asarray`."""
        return self.context.asarray(host)

    def choose(self, *options: Any) -> Any:
        """One of the options, at random."""
        return options[int(self.rng.integers(len(options)))]

    def cycle(self, *options: Any) -> Any:
        """Option number ``index``, going round: so that few instances meet all of them."""
        return options[self.index % len(options)]


@dataclass(frozen=True)
class Check:
    """One comparison: measured ≤ bound (or ≥). ``problem`` says in words on what."""

    measured: float
    bound: float
    problem: str = ""
    sense: str = "<="

    @property
    def holds(self) -> bool:
        """True iff the comparison is true; a NaN fails."""
        return bool(self.measured <= self.bound if self.sense == "<=" else self.measured >= self.bound)

    @property
    def load(self) -> float:
        """How far the bound is used: measured/bound (bound/measured for ≥), above 1 iff it fails."""
        small, large = (self.measured, self.bound) if self.sense == "<=" else (self.bound, self.measured)
        if not self.holds:
            return small / large if math.isfinite(small) and small > large > 0 else math.inf
        if large == 0:
            return 0.0
        if large < 0:
            return large / small
        return max(0.0, small / large) if math.isfinite(large) else 0.0

    @property
    def margin(self) -> float:
        """1 − load: the unused part of the bound, ≥ 0 iff the check holds."""
        return 1.0 - self.load


def holds(condition: Any, problem: str) -> Check:
    """The check that a condition is true; ``problem`` says in words on what."""
    return Check(float(not condition), 0.0, problem)


@dataclass(frozen=True)
class Table:
    """A table of the report; cells are strings or numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class Curve:
    """A curve of a figure; ``style`` "line", "points" or "steps"."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    style: str = "line"


@dataclass(frozen=True)
class Figure:
    """A figure of the report, drawn by it from these data."""

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a claim found. ``measured``, ``bound``, ``problem`` are those of the worst check, ``worst`` replays it.

    ``instances`` made ``checks`` comparisons, of which ``failed`` failed. ``margin`` = 1 − measured/bound (for ≥:
    1 − bound/measured) of the worst check. ``error`` is not empty if the claim itself broke down.
    ``applicable`` False: the claim does not speak of this dtype, and ``notes`` say why.
    """

    measured: float
    bound: float
    holds: bool
    margin: float
    instances: int
    worst: str
    problem: str = ""
    sense: str = "<="
    notes: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    checks: int = 0
    failed: int = 0
    error: str = ""
    applicable: bool = True

    def with_(self, notes: Iterable[str] = (), tables: Iterable[Table] = (), figures: Iterable[Figure] = ()) -> Outcome:
        """The outcome with more to show."""
        return replace(
            self, notes=(*self.notes, *notes), tables=(*self.tables, *tables), figures=(*self.figures, *figures)
        )


@dataclass(frozen=True)
class Claim:
    """A registered claim."""

    tag: str
    title: str
    statement: str
    function: Callable[[Context], Outcome]
    dtypes: tuple[str, ...] = ("float64", "float32")

    @property
    def module(self) -> str:
        """Where the claim is written."""
        return self.function.__module__


CLAIMS: dict[str, Claim] = {}


def claim(
    *, tag: str, title: str, statement: str, dtypes: tuple[str, ...] = ("float64", "float32")
) -> Callable[[Callable[[Context], Outcome]], Callable[[Context], Outcome]]:
    """Register the function below as the claim ``tag``. ``statement`` is one line of formula for the report.

    Raises ValueError for a second claim with that tag, or a docstring without its three paragraphs in order.
    """

    def register(function: Callable[[Context], Outcome]) -> Callable[[Context], Outcome]:
        places = [(inspect.getdoc(function) or "").find(heading) for heading in HEADINGS]
        if min(places) < 0 or places != sorted(places):
            raise ValueError(f"claim {tag}: the docstring of {function.__name__} needs the paragraphs {HEADINGS}")
        if tag in CLAIMS and CLAIMS[tag].function.__qualname__ != function.__qualname__:
            raise ValueError(f"claim {tag} is registered twice, by {CLAIMS[tag].module} and {function.__module__}")
        CLAIMS[tag] = Claim(tag, title, statement, function, dtypes)
        return function

    return register


_LISTENERS: list[list[Check]] = []


@contextmanager
def listen() -> Iterator[list[Check]]:
    """All checks that surveys make in the with-block, in order (for a replay)."""
    heard: list[Check] = []
    _LISTENERS.append(heard)
    try:
        yield heard
    finally:
        _LISTENERS.remove(heard)


def evaluate(claim: Claim, context: Context) -> Outcome:
    """The claim's outcome; an exception becomes an outcome that does not hold, with ``error``."""
    if context.dtype not in claim.dtypes:
        note = f"not applicable in {context.dtype}: the claim speaks of {' and '.join(claim.dtypes)}"
        return Outcome(0.0, 0.0, True, 0.0, 0, "", notes=(note,), applicable=False)
    try:
        return claim.function(context)
    except Exception:
        return Outcome(math.nan, 0.0, False, -math.inf, 0, context.replay(0), error=traceback.format_exc())


def survey(
    context: Context,
    one: Callable[[Case], Check | Iterable[Check]],
    *,
    micro: int,
    quick: int,
    full: int,
    notes: Iterable[str] = (),
) -> Outcome:
    """Make the profile's number of instances by ``one`` and report the worst check.

    A breakdown of the core on an instance (``BREAKDOWNS``) is a failed check with measured = ∞. A survey that made no
    check does not hold.
    """
    indices = range(context.count(micro, quick, full)) if context.only is None else [context.only]
    worst: tuple[float, int, Check] | None = None
    failed = checks = cases = 0
    for index in indices:
        cases += 1
        for check in _checks(context.case(index), one):
            for heard in _LISTENERS:
                heard.append(check)
            checks += 1
            failed += not check.holds
            if worst is None or not check.load <= worst[0]:
                worst = (check.load, index, check)
            if failed and context.stop_at_failure:
                break
        if failed and context.stop_at_failure:
            break
    _, index, check = worst or (math.inf, 0, Check(math.inf, 0.0, "no check was made"))  # else it held for no reason
    return Outcome(
        measured=float(check.measured),
        bound=float(check.bound),
        holds=worst is not None and failed == 0,
        margin=float(check.margin),
        instances=cases,
        checks=checks,
        failed=failed,
        worst=context.replay(index),
        problem=check.problem,
        sense=check.sense,
        notes=tuple(notes),
    )


def _checks(case: Case, one: Callable[[Case], Check | Iterable[Check]]) -> Iterator[Check]:
    """The checks of one instance; what it checked before a breakdown stays."""
    try:
        result = one(case)
        if isinstance(result, Check):
            yield result
        else:
            yield from result
    except BREAKDOWNS as error:
        words = str(error).strip().splitlines() or [""]
        yield Check(math.inf, 0.0, f"{type(error).__name__}: {words[0][:200]}")
