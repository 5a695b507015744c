"""BLAS held to one thread while sweeps run, for the whole process and also when sweeps overlap."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import ThreadpoolController


class OneThread:
    """The limit of a process: the first sweep to enter sets it, the last one to leave restores what was before.

    The number of BLAS threads belongs to the process, so sweeps of different threads share one count. It is kept
    under a lock; an exception inside a sweep leaves through the same door.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._controller: ThreadpoolController | None = None
        self._limit: Any = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._inside == 0:
                if self._controller is None:  # looks through the loaded libraries: a millisecond, once
                    self._controller = ThreadpoolController().select(user_api="blas")
                self._limit = self._controller.limit(limits=1)
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._limit.restore_original_limits()


one_thread = OneThread()
