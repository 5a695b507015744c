"""What mutations drawn at random (``python -m verification mutate``) showed that nothing looked at."""

from __future__ import annotations

import signal
import threading
from types import SimpleNamespace

from pmp_ref.app.inspect import number
from pmp_ref.app.interrupt import stopping_on_signals


def test_a_run_in_a_thread_of_its_own_leaves_signals_alone() -> None:
    """Only the main thread may set handlers; elsewhere the run goes on without them."""
    before, found = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with stopping_on_signals(SimpleNamespace(stopping=False)):
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]


def test_a_number_that_is_none_shows_why() -> None:
    shown = [number(0.125), number(None, "infinite"), number(None, "no test images"), number(None)]
    assert shown == ["0.125", "∞", "no test images", "–"]
