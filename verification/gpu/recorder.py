"""A plugin of pytest that writes each result as it comes: a run that is cut off leaves what it had.

Named to pytest by ``-p verification.gpu.recorder``; the file is in the variable ``RECORDER_FILE``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

LINES = 25  # kept of a traceback


def pytest_configure(config: Any) -> None:
    """Only the process that the others report to writes."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(Path(os.environ["RECORDER_FILE"])), "recorder")


class Recorder:
    """One line of JSON for each test, and for each file that cannot be collected."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, **what: Any) -> None:
        """Append a line."""
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(what) + "\n")

    def pytest_collectreport(self, report: Any) -> None:
        """A file that cannot be collected."""
        if report.failed:
            self.note(test=report.nodeid, outcome="failed", seconds=0.0, text=last_lines(report))

    def pytest_runtest_logreport(self, report: Any) -> None:
        """The test itself; what goes before and after only where it decides the outcome."""
        if report.when == "call" or not report.passed:
            text = last_lines(report) if report.failed else ""
            self.note(test=report.nodeid, outcome=report.outcome, seconds=round(report.duration, 3), text=text)


def last_lines(report: Any) -> str:
    """The end of a traceback."""
    return "\n".join(str(report.longreprtext).splitlines()[-LINES:])
