"""Properties that must fail under a planted fault, those of ``verification/planting``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import Phase, given, settings

from verification.planting.fault import FAULTS, plant
from verification.runner import load_all

load_all()

# Faults must be found in every run, so the examples do not depend on chance; one failure is enough, however large.
fixed_examples = settings(
    derandomize=True, max_examples=60, database=None, phases=[Phase.generate], report_multiple_bugs=False
)


def fails_under(name: str, check: Callable[..., None], *strategies: Any) -> None:
    """The property ``check`` of drawn arguments does not survive the fault of that name."""
    with plant(FAULTS[name]), pytest.raises(AssertionError):
        fixed_examples(given(*strategies)(check))()
