"""Proven, undecided or refuted."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum


class Verdict(Enum):
    """What an enclosure says of an inequality: it holds for all its numbers, for some, or for none."""

    PROVEN = "proven"
    UNDECIDED = "undecided"
    REFUTED = "refuted"

    def __str__(self) -> str:
        return self.value


def joint(verdicts: Iterable[Verdict]) -> Verdict:
    """Of several statements together: refuted if one is, proven if all are."""
    every = list(verdicts)
    if Verdict.REFUTED in every:
        return Verdict.REFUTED
    return Verdict.PROVEN if all(v is Verdict.PROVEN for v in every) else Verdict.UNDECIDED
