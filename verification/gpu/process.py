"""Processes with limits: each in a group of its own, so that what it started ends with it."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROGRAM = ("-m", "verification.gpu.worker")
TAIL = 2000  # characters kept of what a process said


class WorkerError(RuntimeError):
    """A worker gave no answer; the message is the reason. The worker is gone."""


def end(process: subprocess.Popen[Any]) -> None:
    """End a process and all that it started."""
    tell(process, signal.SIGKILL)
    process.wait()


def tell(process: subprocess.Popen[Any], number: signal.Signals) -> None:
    """Send a signal to a process and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def worth_reading(text: str) -> str:
    """The text without the list of modules with which a report of a crash ends."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("Extension modules:"))


def first_assertion(text: str) -> str:
    """The first line that tells of an assertion that failed, ready to be put before something else."""
    found = re.search(r"^.*Assertion .*fail.*$", text, re.MULTILINE)
    return f"{found[0].strip()[:500]}; " if found else ""


def last_words(text: str) -> str:
    """The first assertion that failed, and the last lines."""
    said = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{first_assertion(text)}its last words: {' / '.join(said[-12:])[-TAIL:]}" if said else "it said nothing"


class Command:
    """A command that runs beside others, its output in a file."""

    def __init__(self, words: list[str], **environment: str) -> None:
        self.output = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self.start = time.monotonic()
        self.process = subprocess.Popen(
            words,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        atexit.register(self.stop)

    def stop(self) -> None:
        """End it if it still runs."""
        if self.process.returncode is None:
            end(self.process)

    def result(self, limit: float) -> dict[str, Any]:
        """Exit code (None: cut off after ``limit`` seconds from now), seconds since the start, end of the output."""
        try:
            exit_code: int | None = self.process.wait(max(0.0, limit))
        except subprocess.TimeoutExpired:
            exit_code = None
        seconds = time.monotonic() - self.start
        end(self.process)
        self.output.seek(0)
        tail = worth_reading(self.output.read())[-TAIL:]
        self.output.close()
        return {"exit code": exit_code, "seconds": round(seconds, 1), "tail": tail}


class Worker:
    """A process of ``worker.py`` that answers one question after the other."""

    def __init__(self, *, nice: int = 0, **environment: str) -> None:
        self.log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self.process = subprocess.Popen(
            [sys.executable, *PROGRAM, str(nice)],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            start_new_session=True,
        )
        self.lines: queue.Queue[str] = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def ask(self, limit: float, **question: Any) -> Any:
        """The answer. Raises WorkerError, after ending the process, if there is none within ``limit`` seconds."""
        self.send(**question)
        return self.answer(limit)

    def send(self, **question: Any) -> None:
        """Ask without waiting."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the answer will say so
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()

    def answer(self, limit: float) -> Any:
        """The answer to the question sent last."""
        try:
            line = self.lines.get(timeout=max(0.0, limit))
        except queue.Empty:
            raise WorkerError(f"no answer within {limit:.0f} s; {last_words(self.close())}") from None
        if not line:
            self.process.wait()
            said = last_words(self.close())
            raise WorkerError(f"the process ended with code {self.process.returncode}; {said}")
        return json.loads(line)

    def close(self) -> str:
        """End the process; what it said."""
        end(self.process)
        if self.log.closed:
            return ""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # a question that was never read
            self.process.stdin.close()
        self.reader.join(10.0)
        self.process.stdout.close()
        self.log.seek(0)
        said = worth_reading(self.log.read())
        self.log.close()
        return said
