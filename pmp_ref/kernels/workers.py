"""Work on chunks by threads, the results in the order of the chunks: the sums over them are taken by the caller in that
order, so the numbers do not depend on who computed them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pmp_ref.sweep import quiet


def available_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Threads:
    """f(item) for each item on ``count`` threads, the calling one among them; results in the order of the items.

    The first exception of any thread is raised in the calling one; no thread outlives the map.
    """

    count: int

    def __call__(self, f: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        work = list(items)
        helpers = min(self.count, len(work)) - 1
        if helpers < 1:
            yield from map(f, work)
            return
        queue = _Queue(f, work)
        threads = [threading.Thread(target=queue.run, daemon=True) for _ in range(helpers)]
        for thread in threads:
            thread.start()
        try:
            for i in range(len(work)):
                yield queue.result(i)
        finally:
            queue.stop()
            for thread in threads:
                thread.join()


class _Queue:
    """Items handed out in order to whoever asks, and their results."""

    def __init__(self, f: Callable[[Any], Any], items: list[Any]) -> None:
        self.f, self.items = f, items
        self.next = 0
        self.done: dict[int, Any] = {}
        self.error: BaseException | None = None
        self.changed = threading.Condition()

    def run(self) -> None:
        """Work until nothing is left."""
        with quiet():  # NumPy's error state belongs to the thread
            while self.step():
                pass

    def step(self) -> bool:
        """Take one item and work on it; False if none is left."""
        with self.changed:
            i = self.next
            if i >= len(self.items):
                return False
            self.next += 1
        try:
            result = self.f(self.items[i])
        except BaseException as error:
            with self.changed:
                self.error = self.error or error
                self.next = len(self.items)
                self.changed.notify_all()
            return False
        with self.changed:
            self.done[i] = result
            self.changed.notify_all()
        return True

    def result(self, i: int) -> Any:
        """Result of item i; while it is not there the caller works too, and then waits."""
        while True:
            with self.changed:
                if self.error is not None:
                    raise self.error
                if i in self.done:
                    return self.done.pop(i)
            if not self.step():
                with self.changed:
                    self.changed.wait_for(lambda: i in self.done or self.error is not None)

    def stop(self) -> None:
        """Hand out nothing more."""
        with self.changed:
            self.next = len(self.items)
