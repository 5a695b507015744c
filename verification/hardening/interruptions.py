"""Training killed by SIGKILL at random moments, again and again; what `--resume` makes of it must be the unbroken run.

Two kinds of kill take turns. "moment": after a time drawn uniformly from the length of the unbroken run, import and
results included. "write": the same wait, and then the first moment at which the temporary file of an atomic write is in
the directory. Every other kill strikes a run that has been killed before. After each kill a copy of the directory is
resumed to the end and compared with the unbroken run: model, certificate, summary and the three tables.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
RUN = (
    "--epochs",
    "60",
    "--batch-size",
    "18",
    "--no-figures",
    "--quiet",
    "--threads",
    "1",
    "--check-descent",
    "20",
)
SECONDS = 900.0  # a run takes some three; one that takes this long hangs, however busy the machine: reported as unequal


@dataclass
class Counts:
    """What happened."""

    kills: int = 0
    kinds: Counter[str] = field(default_factory=Counter)  # kills by kind
    places: Counter[str] = field(default_factory=Counter)  # what the directory held after the kill
    in_a_write: int = 0  # the temporary file of a write was left behind
    behind_checkpoint: int = 0  # a table was longer than the checkpoint notes
    of_a_killed_run: int = 0
    too_late: int = 0  # the run ended before its kill: not counted as one
    resumes: int = 0
    equal: int = 0
    unequal: list[str] = field(default_factory=list)

    def asdict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))  # asdict cannot copy a Counter


def write_images(path: Path, train: int = 60, test: int = 21, size: int = 12, seed: int = 0, **extra: Any) -> Path:
    """An ``.npz`` file with MedMNIST naming: three classes, a bright stripe at a place of its own on noise."""
    generator = np.random.default_rng(seed)
    arrays: dict[str, Any] = {}
    for part, n in (("train", train), ("test", test)):
        if n:
            labels = np.arange(n) % 3
            images = generator.integers(0, 90, (n, size, size))
            for i, k in enumerate(labels):
                images[i, 4 * k : 4 * k + 3] += 150
            arrays |= {f"{part}_images": images.astype(np.uint8), f"{part}_labels": labels.astype(np.uint8)}
    np.savez(path, **(arrays | extra))
    return path


def command(*arguments: str) -> list[str]:
    """``pmp-ref train`` as a process of its own."""
    return [sys.executable, "-m", "pmp_ref", "train", *arguments]


def environment() -> dict[str, str]:
    """That of this process, with the package of this checkout."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}


def complete(*arguments: str) -> float:
    """Run to the end; seconds. Raises RuntimeError if it fails."""
    began = time.monotonic()
    done = subprocess.run(
        command(*arguments), env=environment(), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr.strip()}")
    return time.monotonic() - began


def rows(path: Path) -> list[list[str]]:
    """A table without the column of the seconds."""
    with open(path, newline="", encoding="utf-8") as stream:
        return [[v for k, v in row.items() if k != "seconds"] for row in csv.DictReader(stream)]


def results(directory: Path) -> dict[str, Any]:
    """All that must agree between a broken and an unbroken run: everything but times and restarts."""
    summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    for name in ("seconds", "restarts", "sweeps_repeated_after_restarts"):
        summary.pop(name, None)
    tables = {name: rows(directory / name) for name in ("history.csv", "trials.csv", "accuracy.csv")}
    files = {name: (directory / name).read_bytes() for name in ("model.npz", "certificate.json")}
    return {"summary": summary, **tables, **files}


def differences(directory: Path, whole: dict[str, Any]) -> list[str]:
    """What differs from the unbroken run, and temporary files that are left."""
    mine = results(directory)
    parts = [p.name for p in directory.iterdir() if p.name.endswith(".part")]
    return [name for name in whole if mine[name] != whole[name]] + parts


def parts(directory: Path) -> list[str]:
    """Temporary files in the directory."""
    try:
        return [name for name in os.listdir(directory) if name.endswith(".part")]
    except FileNotFoundError:
        return []


def strike(process: subprocess.Popen[bytes], directory: Path, wait: float, in_a_write: bool) -> bool:
    """SIGKILL after the wait, or in the first write after it; False if the process had ended well before.

    RuntimeError if it had ended with an error, or if it neither writes nor ends.
    """
    with process:
        try:
            end = time.monotonic() + wait
            while time.monotonic() < end and process.poll() is None:
                time.sleep(0.0005)
            while in_a_write and process.poll() is None and not parts(directory):
                if time.monotonic() > end + SECONDS:  # else: a write takes a millisecond or so, so no sleep
                    raise RuntimeError(f"neither a write nor an end in {SECONDS:g} s")
        finally:
            process.kill()
        code = process.wait()
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(f"a run that was to be killed ended by itself with exit code {code}")
    return code != 0


def state(directory: Path) -> str:
    """How far the run had come."""
    for name, words in (
        ("summary.json", "all results"),
        ("model.npz", "the model, not all results"),
        ("checkpoint.npz", "a checkpoint"),
        ("history.csv", "tables, no checkpoint"),
        ("config.json", "the configuration alone"),
    ):
        if (directory / name).exists():
            return words
    return "no configuration"


def behind(directory: Path) -> bool:
    """Whether a table holds rows that the checkpoint does not know yet."""
    from pmp_ref.app.files import CHECKPOINT
    from pmp_ref.files import decode, unpack

    if not (directory / CHECKPOINT).exists():
        return False
    lengths = decode(unpack(directory / CHECKPOINT)["state"])["lengths"]
    return any((directory / name).stat().st_size > length for name, length in lengths.items())


def campaign(place: Path, count: int, seed: int, say: Callable[[str], None]) -> Counts:
    """``count`` kills; what came of them."""
    generator, counts = np.random.default_rng(seed), Counts()
    data = write_images(place / "data.npz")
    whole_directory = place / "whole"
    seconds = complete("--data", str(data), "--out", str(whole_directory), *RUN)
    whole = results(whole_directory)
    say(f"unbroken run: {seconds:.1f} s, {len(whole['history.csv']) - 1} accepted steps")
    broken, copy, before = place / "broken", place / "copy", place / "before"
    while counts.kills < count:
        again = broken.exists() and state(broken) != "no configuration" and counts.kills % 2 == 1
        shutil.rmtree(before, ignore_errors=True)
        if again:
            shutil.copytree(broken, before)
        else:
            shutil.rmtree(broken, ignore_errors=True)
        arguments = (
            ("--resume", str(broken), "--quiet", "--no-figures")
            if again
            else ("--data", str(data), "--out", str(broken), *RUN)
        )
        in_a_write = counts.kills // 2 % 2 == 1
        process = subprocess.Popen(
            command(*arguments), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            struck = strike(process, broken, float(generator.uniform(0, seconds)), in_a_write)
        except RuntimeError as error:
            counts.unequal.append(f"before kill {counts.kills + 1}: {error}")
            say(f"UNEQUAL: {counts.unequal[-1]}")
            return counts  # the next kills would meet the same
        if not struck:
            counts.too_late += 1
            shutil.rmtree(broken, ignore_errors=True)
            if again:  # once more from where the kill before had left it
                before.rename(broken)
            continue
        counts.kills += 1
        counts.kinds["in a write" if in_a_write else "any moment"] += 1
        counts.places[state(broken)] += 1
        counts.of_a_killed_run += again
        counts.in_a_write += bool(parts(broken))
        counts.behind_checkpoint += behind(broken)
        shutil.rmtree(copy, ignore_errors=True)
        if broken.exists():
            shutil.copytree(broken, copy)
        try:
            if state(copy) == "no configuration":  # nothing had begun: the same command must work again
                complete("--data", str(data), "--out", str(copy), *RUN)
            else:
                counts.resumes += 1
                complete("--resume", str(copy), "--quiet", "--no-figures")
            wrong = differences(copy, whole)
        except (RuntimeError, OSError, ValueError, subprocess.TimeoutExpired) as error:
            wrong = [" ".join(str(error).split())]
        if wrong:
            counts.unequal.append(f"kill {counts.kills} ({state(broken)}): {', '.join(wrong)}")
            say(f"UNEQUAL: {counts.unequal[-1]}")
        else:
            counts.equal += 1
        if counts.kills % 10 == 0:
            say(f"{counts.kills} kills, {counts.in_a_write} in a write, {counts.equal} ended like the unbroken run")
    return counts
