"""Live progress on stderr: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from pmp_ref.app.ranks import COLUMNS

EVERY = 10.0  # seconds between lines where stderr is no terminal


class Progress:
    """Progress of a run in steps; ``total`` None: no limit is known."""

    def __init__(self, total: int | None, done: int, quiet: bool, notice: str | None) -> None:
        self.bar: Any = None
        self.quiet, self.total, self.done, self.last = quiet, total, done, time.perf_counter()
        self.mark = "" if notice is None else f"[{notice}] "
        columns = os.environ.get(COLUMNS)  # of the terminal that shows what this process writes into a pipe
        if not quiet and (sys.stderr.isatty() or columns):
            from tqdm import tqdm

            self.bar = tqdm(
                total=total,
                initial=done,
                unit="step",
                dynamic_ncols=columns is None,
                ncols=None if columns is None else int(columns),
                file=sys.stderr,
                bar_format="{percentage:3.0f}%|{bar:20}| {elapsed} < {remaining} {postfix}",
            )

    def show(self, done: int, end_of_epoch: bool, **values: str) -> None:
        """Show the numbers of a trial."""
        if self.quiet:
            return
        text = self.mark + "  ".join(f"{name} {value}" for name, value in values.items())
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update(done - self.done)
        elif (end_of_epoch and time.perf_counter() - self.last >= EVERY) or done == self.total:
            self.last = time.perf_counter()
            self.say(f"{done}/{self.total or '?'}  {text}")
        self.done = done

    def say(self, sentence: str) -> None:
        """A line of its own."""
        if self.bar is not None:
            self.bar.clear()
        if not self.quiet:
            print(sentence, file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the bar's line."""
        if self.bar is not None:
            self.bar.close()
