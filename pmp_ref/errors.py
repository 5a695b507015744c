"""The error type for bad input, the warnings, and the sentence for an unknown name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "InputError",
    "LabelWarning",
    "PenaltyWarning",
    "ScaleWarning",
    "close",
    "nearest",
]


class InputError(ValueError):
    """Bad input. The message is one line: what was given, what was expected, what to do."""


class ScaleWarning(UserWarning):
    """The data can be used but are ill-scaled. The message is one line: what was seen, what to do."""


class LabelWarning(UserWarning):
    """The labels can be used but look mistaken. The message is one line: what was seen, what to do."""


class PenaltyWarning(UserWarning):
    """A regulariser was given that changes nothing. The message is one line: what was given, what to do."""


def nearest(name: object, known: Iterable[str]) -> str:
    """The end of the sentence "unknown X 'foo': …": the nearest known name if one is near, then all of them.

    >>> nearest("minst", ["mnist", "cifar10"])
    "did you mean 'mnist'? known: mnist, cifar10"
    >>> nearest("xyz", ["mnist", "cifar10"])
    'known: mnist, cifar10'
    """
    names = list(known)
    return close(name, names) + "known: " + ", ".join(names)


def close(name: object, known: Iterable[str]) -> str:
    """The nearest known name as a question, with a space after it; nothing if none is near.

    >>> close("minst", ["mnist", "cifar10"])
    "did you mean 'mnist'? "
    """
    return "".join(f"did you mean {match!r}? " for match in difflib.get_close_matches(str(name), list(known), n=1))
