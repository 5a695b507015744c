"""Compiling beforehand: what ``torch.compile`` keeps on the disk is made while tests run."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

from verification.gpu.plan import Row
from verification.gpu.process import Worker, WorkerError, end, tell

AT_ONCE = max(2, min(12, (os.cpu_count() or 2) - 4))  # processes
LIMIT = 240.0  # seconds for a row


class Warming:
    """Some processes that go through the jobs, the first of each before the others."""

    def __init__(self, jobs: list[list[Row]], side: dict[str, str], patience: float = 90.0) -> None:
        """``patience``: seconds that are waited for them at most, all in all."""
        self.side, self.jobs, self.patience = side, list(jobs), patience
        self.done: dict[str, dict[str, Any]] = {}
        self.lock, self.stopped = threading.Lock(), False
        self.going = threading.Event()
        self.going.set()
        self.workers: list[Worker] = []
        self.threads = [threading.Thread(target=self._work, daemon=True) for _ in range(min(AT_ONCE, len(jobs)))]
        for thread in self.threads:
            thread.start()

    def _work(self) -> None:
        """One job after the other."""
        while True:
            self.going.wait()
            with self.lock:
                if self.stopped or not self.jobs:
                    return
                if not self.going.is_set():
                    continue
                job = self.jobs.pop(0)
                worker = Worker(nice=10)
                self.workers.append(worker)
            failure = ""
            for row in job:
                name = f"{row.name}, {row.sides[0]}"
                try:
                    if not failure:
                        reply = worker.ask(LIMIT, do="warm", row=row.question(), **self.side)
                except WorkerError as error:
                    failure = "stopped" if self.stopped else str(error)
                if failure:
                    self.done[name] = {"error": failure}
                else:
                    self.done[name] = {"error": reply["error"]} if "error" in reply else {"seconds": reply["answer"]}
            worker.close()

    def ready(self, row: Row) -> bool:
        """Whether nothing of the row is still to be compiled."""
        return all(f"{row.name}, {side}" in self.done for side in row.sides if side.startswith("compiled"))

    def first(self, rows: list[Row]) -> int:
        """Which of the rows is the first that is ready. Where none is, compiling goes on until one is or the patience
        ends; it stands still when this returns, so that it disturbs no measurement."""
        while True:
            ready = [i for i, row in enumerate(rows) if self.ready(row)]
            if ready or self.patience <= 0.0:
                break
            self.go_on(True)
            time.sleep(0.1)
            self.patience -= 0.1
        if ready:
            self.go_on(False)
            return ready[0]
        self.stop()
        return 0

    def go_on(self, on: bool) -> None:
        """Have the processes go on or stand still."""
        with self.lock:
            (self.going.set if on else self.going.clear)()
            for worker in self.workers:
                if worker.process.poll() is None:
                    tell(worker.process, signal.SIGCONT if on else signal.SIGSTOP)

    def stop(self) -> None:
        """End what still runs."""
        with self.lock:
            self.stopped = True
            self.going.set()
            workers, self.workers = self.workers, []
        for worker in workers:
            if worker.process.poll() is None:
                end(worker.process)  # its thread finds it gone
        for thread in self.threads:
            thread.join(5.0)
