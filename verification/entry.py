"""The way into every room: options parsed, bad input told in one line with exit code 2, Ctrl-C with 130."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from pmp_ref.app.main import any_encoding
from pmp_ref.errors import InputError


def enter(
    parser: argparse.ArgumentParser,
    command: Callable[[argparse.Namespace], int],
    arguments: Sequence[str] | None,
    interrupted: str = "interrupted",
) -> int:
    """Do what the options ask for; the exit code. ``interrupted`` is said after Ctrl-C."""
    any_encoding()
    options = parser.parse_args(arguments)
    try:
        return command(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
