"""Readers of option values: text to a Python value, or an InputError that says what was expected.

The same readers check the values of a ``config.json``, so a run's directory is trusted no more than a command line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from pmp_ref.admissible import WHOLE_LINE, Admissible, Box, FiniteSet
from pmp_ref.errors import InputError, nearest
from pmp_ref.regulariser import REGULARISERS, Polynomial, Regulariser

Parse = Callable[[str], Any]


def text(given: str) -> str:
    """Any text but the empty one."""
    if not given:
        raise InputError("is empty; expected a name or a path")
    return given


def number(given: str) -> float:
    """A finite number."""
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"is {given!r}; expected a finite number")
    return value


def whole(low: int) -> Parse:
    """A whole number, at least ``low``."""

    def parse(given: str) -> int:
        try:
            value = int(given)
        except ValueError:
            value = low - 1
        if value < low:
            raise InputError(f"is {given!r}; expected a whole number, at least {low}")
        return value

    return parse


def within(low: float, high: float) -> Parse:
    """A number in [low, high)."""

    def parse(given: str) -> float:
        value = number(given)
        if not low <= value < high:
            raise InputError(f"is {given!r}; expected a number, at least {low} and below {high}")
        return value

    return parse


def positive(given: str) -> float:
    """A finite number > 0."""
    value = number(given)
    if value <= 0:
        raise InputError(f"is {given!r}; expected a number > 0")
    return value


def choice(names: Iterable[str]) -> Parse:
    """One of the names."""
    known = tuple(names)

    def parse(given: str) -> str:
        if given not in known:
            raise InputError(f"is {given!r}; {nearest(given, known)}")
        return given

    return parse


def either(word: str, parse: Parse, value: Any = None) -> Parse:
    """The word, which stands for ``value``, or what ``parse`` reads."""

    def read(given: str) -> Any:
        if given == word:
            return value
        try:
            return parse(given)
        except InputError as error:
            raise InputError(f"{error}, or {word!r}") from None

    return read


def or_none(parse: Parse) -> Parse:
    """``none`` or what ``parse`` reads."""
    return either("none", parse)


def kept_as_text(parse: Parse) -> Parse:
    """The text itself, once ``parse`` has read it."""

    def read(given: str) -> str:
        parse(given)
        return given

    return read


def size(given: str) -> tuple[int, int]:
    """``32`` or ``24x32``: rows and columns."""
    parts = given.lower().replace("×", "x").split("x")
    if len(parts) > 2 or not all(p.isascii() and p.isdigit() and 0 < int(p) < 2**15 for p in parts):
        raise InputError(f"{given!r} is no size; expected a number like 32, or rows x columns like 24x32")
    return int(parts[0]), int(parts[-1])


def pair(given: str) -> tuple[float, float]:
    """``start:stop``, two numbers with 0 ≤ start < stop ≤ 1."""
    parts = given.split(":")
    try:
        start, stop = (number(part) for part in parts)
    except ValueError:
        start, stop = 1.0, 0.0
    if not 0 <= start < stop <= 1:
        raise InputError(f"is {given!r}; expected start:stop, parts of the run with 0 ≤ start < stop ≤ 1, e.g. 0:0.5")
    return start, stop


def wish(given: str) -> float:
    """``1%``, a part of all weights, or ``5000``, a number of them."""
    part = given.endswith("%")
    try:
        value = number(given.removesuffix("%").strip())
    except InputError:
        value = 0.0
    if not value > 0 or (part and value >= 100) or (not part and value != int(value)):
        raise InputError(
            f"is {given!r}; expected a part such as 1%, below 100%, or a whole number of weights such as 5000"
        )
    return value / 100 if part else value


def factors(given: str) -> dict[int, float]:
    """``stage=factor,…``, factors ≥ 0."""
    result = {}
    try:
        for part in given.split(","):
            stage, factor = part.split("=")
            result[int(stage)] = number(factor)
    except ValueError:
        result = {-1: -1.0}
    if any(stage < 0 or factor < 0 for stage, factor in result.items()):
        raise InputError(f"is {given!r}; expected stage=factor,…, e.g. 0=0.5,10=2")
    return result


def regulariser(given: str) -> Regulariser:
    """A name, or a sum of multiples of l0, l1 and l2 such as ``l0+0.1*l2``."""
    if given in REGULARISERS:
        return REGULARISERS[given]()  # type: ignore[no-any-return]
    coefficients = {"l0": 0.0, "l1": 0.0, "l2": 0.0}
    for term in given.split("+"):
        factor, star, name = term.rpartition("*")
        if name not in coefficients:
            what = f"holds {name!r}" if name in REGULARISERS else f"is {given!r}; {nearest(name, REGULARISERS)}"
            raise InputError(f"{what}; expected one name, or a sum of multiples of l0, l1, l2 such as l0+0.1*l2")
        coefficients[name] += number(factor) if star else 1.0
    return Polynomial(coefficients["l0"], coefficients["l1"], coefficients["l2"])


def admissible(given: str) -> Admissible:
    """``R`` for the box [−R, R], ``lo:hi`` for a box, ``v,v,…`` for a finite set, ``line`` for the whole line."""
    if given == "line":
        return WHOLE_LINE
    if "," in given:
        return FiniteSet(tuple(number(part) for part in given.split(",")))
    if ":" in given:
        lo, _, hi = given.partition(":")
        return Box(number(lo), number(hi))
    radius = positive(given)
    return Box(-radius, radius)
