"""Ctrl-C and SIGTERM end a run between two trials, so that its checkpoint and tables agree."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Protocol


class Stoppable(Protocol):
    """Something that ends soon once ``stopping`` is true."""

    stopping: bool


@contextlib.contextmanager
def stopping_on_signals(run: Stoppable, speak: bool = True) -> Iterator[None]:
    """Ctrl-C or SIGTERM ends the run after the trial in hand, with a checkpoint; a second Ctrl-C ends it at once.

    Of several processes that get the signal one is to ``speak``.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if run.stopping and number == signal.SIGINT:
            run.stopping = False
            raise KeyboardInterrupt
        run.stopping = True
        if speak:
            os.write(2, b"\nstopping after this trial; Ctrl-C again stops at once\n")  # print may not be entered twice

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
