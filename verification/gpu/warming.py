"""Compiling beforehand: what ``torch.compile`` keeps on the disk is made while tests run."""

from __future__ import annotations

import threading
import time
from typing import Any

from verification.gpu.plan import Row
from verification.gpu.process import Worker, WorkerError, end

AT_ONCE = 6  # processes
LIMIT = 240.0  # seconds for a row


class Warming:
    """Some processes that go through the jobs, the first of each before the others."""

    def __init__(self, jobs: list[list[Row]], side: dict[str, str], at_once: int = AT_ONCE) -> None:
        self.side, self.jobs = side, list(jobs)
        self.done: dict[str, dict[str, Any]] = {}
        self.lock, self.stopped = threading.Lock(), False
        self.workers: list[Worker] = []
        self.threads = [threading.Thread(target=self._work, daemon=True) for _ in range(min(at_once, len(jobs)))]
        for thread in self.threads:
            thread.start()

    def _work(self) -> None:
        """One job after the other."""
        while True:
            with self.lock:
                if self.stopped or not self.jobs:
                    return
                job = self.jobs.pop(0)
                worker = Worker(nice=10)
                self.workers.append(worker)
            for row in job:
                name = f"{row.name}, {row.sides[0]}"
                try:
                    reply = worker.ask(LIMIT, do="warm", row=row.question(), **self.side)
                except WorkerError as error:
                    self.done[name] = {"error": "stopped" if self.stopped else str(error)}
                    break
                self.done[name] = {"error": reply["error"]} if "error" in reply else {"seconds": reply["answer"]}
            worker.close()

    def wait(self, seconds: float) -> dict[str, dict[str, Any]]:
        """Wait for all of them, at most that long; then end what still runs. What was done, by row and side."""
        until = time.monotonic() + seconds
        for thread in self.threads:
            thread.join(max(0.0, until - time.monotonic()))
        self.stop()
        return dict(self.done)

    def stop(self) -> None:
        """End what still runs."""
        with self.lock:
            self.stopped = True
            workers, self.workers = self.workers, []
        for worker in workers:
            if worker.process.poll() is None:
                end(worker.process)  # its thread finds it gone
        for thread in self.threads:
            thread.join(5.0)
