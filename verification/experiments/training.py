"""A row that is a training run: ``pmp-ref train`` in the row's scratch directory, resumed if it was interrupted.

History, exact resume, second opinion on descent, certificate and the one look at the test images are those of the
application. Where its options cannot express a row, ``change`` takes the run's setup and returns another.
"""

from __future__ import annotations

import contextlib
import io
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pmp_ref.app import checkpoint, run
from pmp_ref.app.build import Setup, build
from pmp_ref.app.files import CHECKPOINT, CONFIG, MODEL, SUMMARY, locked, read_json
from pmp_ref.app.history import read
from pmp_ref.app.options import Options, flag, resolve
from pmp_ref.arrays import Controls
from pmp_ref.files import unpack
from pmp_ref.kernels.blas import one_thread
from verification.experiments.experiment import Context

Change = Callable[[Setup], Setup]


@dataclass(frozen=True)
class Trained:
    """A finished run: its options, its summary, its directory with history.csv, model.npz and the rest."""

    options: Options
    given: dict[str, str]
    directory: Path
    summary: dict[str, Any]

    @property
    def command(self) -> str:
        """The equivalent command line."""
        return command_line(self.given)

    @property
    def result(self) -> dict[str, Any]:
        """The numbers of a row, flat."""
        s = self.summary
        low, high = s["test_accuracy_interval"] or (None, None)
        names = (
            "status test_accuracy held_out_accuracy kept_fraction kept_weights total_weights train_loss "
            "train_objective accepted_steps epochs rejections skipped_batches forward_sweeps backward_sweeps restarts "
            "epsilon epsilon_star residual_support descent_violations descent_checked training_images test_images "
            "seconds"
        ).split()
        emptied = s["emptied_layers"]
        return {name: s[name] for name in names} | {
            "test_low": low,
            "test_high": high,
            "disconnected": bool(emptied),
            "emptied_layers": str(emptied or []),
            "command": self.command,
        }

    def history(self, columns: Sequence[str], points: int = 200) -> dict[str, list[float]]:
        """Columns of history.csv at up to ``points`` steps, the first and the last among them."""
        table = read(self.directory / "history.csv")
        index = sparse(len(table["step"]), points)
        return {name: [table[name][i] for i in index] for name in columns}

    def accuracy(self) -> dict[str, list[float]]:
        """accuracy.csv: held-out accuracy after the epochs."""
        return read(self.directory / "accuracy.csv")

    def controls(self, setup: Setup) -> Controls:
        """The final controls, from model.npz."""
        path = self.directory / MODEL
        return checkpoint.from_arrays(setup.network, unpack(path), "", str(path), np.asarray)


def train(given: Mapping[str, str], context: Context, change: Change | None = None, name: str = "run") -> Trained:
    """Train with the options ``given`` (texts, as on the command line) in ``context.directory / name``.

    A run that is there goes on from its checkpoint; a finished one is only read. ``change`` must depend on the row's
    settings alone. Raises InputError for options that do not fit, KeyboardInterrupt if the run is interrupted.
    """
    given = dict(given)
    directory, options = context.directory / name, resolve(given)
    manner = run.Manner(quiet=False, figures=False, threads=context.threads)
    lines = Lines(context.progress)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(lines):
        if not finished(directory):
            if change is not None:
                code = train_changed(options, directory, manner, change)
            elif (directory / CONFIG).is_file():
                code = run.resume(directory, manner)
            else:
                shutil.rmtree(directory, ignore_errors=True)  # left before its configuration was written
                code = run.train(options, str(directory), manner)
            if code == 130:
                raise KeyboardInterrupt
    return Trained(options, given, directory, read_json(directory / SUMMARY))


def train_changed(options: Options, directory: Path, manner: run.Manner, change: Change) -> int:
    """Start or resume a run whose setup no command line can express; it has no config.json. The exit code."""
    directory.mkdir(exist_ok=True)
    with one_thread(), locked(directory):
        setup = change(build(options, manner.threads))
        setup.problem.check(setup.controls, setup.x, setup.y)
        state = checkpoint.read(directory, setup) if (directory / CHECKPOINT).exists() else None
        return run.carry_on(setup, directory, state, manner)


def train_or_reuse(given: Mapping[str, str], context: Context, key: str, name: str = "run") -> Trained:
    """The finished run of the row ``key`` of the same table if its options are these, else such a run of this row,
    under ``name``.

    Both are the same bit for bit: a run is decided by its options.
    """
    theirs = context.directory.parent.parent / key / context.directory.name / "run"
    if finished(theirs) and (theirs / CONFIG).is_file() and run.read_config(theirs)[0] == resolve(dict(given)):
        return Trained(resolve(dict(given)), dict(given), theirs, read_json(theirs / SUMMARY))
    context.progress(f"row {key} has not been run: training it here first")
    return train(given, context, name=name)


def finished(directory: Path) -> bool:
    """True if the run in the directory has come to its end."""
    return run.ended(directory) is not None


def command_line(given: Mapping[str, str]) -> str:
    """``pmp-ref train`` with these options, as it is typed."""
    parts = (f"{flag(k)}={v}" if v.startswith("-") else f"{flag(k)} {shlex.quote(v)}" for k, v in given.items())
    return " ".join(("pmp-ref train", *parts))


def sparse(length: int, points: int) -> list[int]:
    """At most ``points`` indices below ``length``, evenly spaced, ends included."""
    if length <= points:
        return list(range(length))
    return sorted({round(i * (length - 1) / (points - 1)) for i in range(points)})


class Lines(io.TextIOBase):
    """A stream that hands each line on; ``show`` sees stdout and stderr as they were when the stream was made."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self.show, self.streams, self.rest = show, (sys.stdout, sys.stderr), ""

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            if line.strip():
                with contextlib.redirect_stdout(self.streams[0]), contextlib.redirect_stderr(self.streams[1]):
                    self.show(line.strip())
        return len(text)
