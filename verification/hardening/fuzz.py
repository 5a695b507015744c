"""Coverage-guided fuzzing of all readers: by atheris where it is installed, else by a small engine of our own.

Long form (`campaign`): each reader has a process of its own, for coverage, the guard and the limit of memory belong to
a process. atheris is no dependency: ``pip install atheris`` into an environment that has pmp_ref's own, and run this
module there. The other engine keeps an input if it takes a step from line to line that no input before it took, and
mutates what it keeps.

Short form (`short`): so many inputs for each reader, the same ones each time, by the engine of our own in one process.
"""

from __future__ import annotations

import contextlib
import encodings
import hashlib
import importlib
import json
import os
import pkgutil
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

INSTRUMENTED = ("pmp_ref.data", "pmp_ref.app", "zipfile", "tarfile", "pickletools", "csv", "json.decoder")
HANG = 120  # seconds for one input, where the guard does not end it
MEMORY_DISK = "/dev/shm"  # a disk would take most of the time
MEMORY = 3072  # MiB of the whole process
LARGEST = 2**14  # bytes of an input that atheris makes; the seeds may be larger
TOKENS = (
    b"\x93NUMPY\x01\x00",
    b"PK\x01\x02",
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"PK\x06\x06",
    b"\x1f\x8b",
    b"ustar",
    b"{'descr': '<f8', ",
    b"'shape': (999999999999,), ",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x00",
    b"NaN",
    b"Infinity",
    b"1e999",
    b"-1",
    b'"status"',
    b"null",
    b"[[[[[[[[",
    b"cos\nsystem\n",
    b"cnumpy\ndtype\n",
    b"\x93",
    b"R",
    b"b",
    b"\x00",
    b"\n",
    b"\r",
    b"0/0",
)


@dataclass
class Report:
    """What became of the inputs of one reader."""

    target: str
    engine: str
    inputs: int = 0
    read: int = 0
    refused: int = 0
    kept: int = 0  # inputs that reached something new
    seconds: float = 0.0
    digest: str = ""  # of all inputs, in their order
    findings: list[str] = field(default_factory=list)


class Trial:
    """Runs inputs, counts them, keeps each finding once for each kind and place."""

    def __init__(self, name: str, engine: str, place: Path, artefacts: Path | None, guard: Any = None) -> None:
        from verification.hardening.guard import Guard
        from verification.hardening.targets import TARGETS

        self.reader, self.seeds = TARGETS[name].make(place)
        self.report, self.artefacts, self.seen = Report(name, engine), artefacts, set[str]()
        self.guard, self.digest = guard or Guard(), hashlib.sha256()
        for module in pkgutil.iter_modules(encodings.__path__):  # imported late otherwise, under the guard
            with contextlib.suppress(ImportError, LookupError):  # those of other platforms
                importlib.import_module(f"encodings.{module.name}")
        for seed in self.seeds:
            with contextlib.suppress(Exception):  # a seed that is refused
                self.reader(seed)()

    def __call__(self, content: bytes) -> None:
        from verification.hardening.guard import outcome

        self.report.inputs += 1
        self.digest.update(hashlib.sha256(content).digest())
        kind, error = outcome(self.reader(content), self.guard)
        if error is None:
            self.report.read += kind == "read"
            self.report.refused += kind == "refused"
            return
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
        if where not in self.seen:
            self.seen.add(where)
            text = f"{where}: {' '.join(str(error).split())[:200]}; input {content[:120]!r}"
            self.report.findings.append(text)
            print(f"FINDING in {self.report.target}: {text}", flush=True)
            if self.artefacts is not None:
                name = f"{self.report.target.replace(' ', '-')}-{hashlib.sha256(content).hexdigest()[:12]}"
                (self.artefacts / name).write_bytes(content)


class Stopped(BaseException):
    """The inputs or seconds asked for are done."""


def by_atheris(
    name: str, inputs: int, seconds: float, seed: int, place: Path, artefacts: Path | None, output: Path
) -> None:
    """One reader under atheris. Does not return: libFuzzer ends the process."""
    import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

    with atheris.instrument_imports(include=list(INSTRUMENTED), enable_loader_override=False):
        from verification.hardening.guard import little_memory
        from verification.hardening.targets import without_checksums

    corpus = place / "corpus"
    corpus.mkdir()
    escaped = ["".join(rf"\x{byte:02x}" for byte in token) for token in TOKENS]
    (place / "tokens").write_text("".join(f'"{token}"\n' for token in escaped))
    trial = Trial(name, "atheris", place, artefacts)
    with little_memory(2**31), without_checksums():
        for i, content in enumerate(trial.seeds):
            (corpus / f"seed-{i}").write_bytes(content)
        began = time.monotonic()

        def one(content: bytes) -> None:
            trial(content)
            if trial.report.inputs >= inputs or (trial.report.inputs % 64 == 0 and time.monotonic() - began > seconds):
                trial.report.seconds = time.monotonic() - began
                trial.report.kept = sum(1 for _ in corpus.iterdir())
                trial.report.digest = trial.digest.hexdigest()
                output.write_text(json.dumps(asdict(trial.report)))
                sys.stdout.flush()
                os._exit(0)

        largest = max(LARGEST, *(len(s) for s in trial.seeds))
        atheris.Setup(
            [
                "fuzz",
                f"-seed={seed + 1}",
                f"-max_len={largest}",
                f"-timeout={HANG}",
                f"-rss_limit_mb={MEMORY}",
                f"-dict={place / 'tokens'}",
                f"-artifact_prefix={place}/",
                "-verbosity=0",
                str(corpus),
            ],
            one,
        )
        atheris.Fuzz()


def mutated(content: bytes, other: bytes, generator: random.Random) -> bytes:
    """One to four changes: bytes set, tokens put in, parts cut out, repeated or taken from another input."""
    data = bytearray(content)
    for _ in range(generator.randint(1, 4)):
        at = (
            generator.randrange(len(data) + 1)
            if generator.random() < 0.5
            else generator.randrange(min(200, len(data) + 1))
        )
        length = generator.choice((1, 1, 2, 4, 8, 64, 1000))
        match generator.randrange(7):
            case 0:
                data[at : at + 1] = bytes([generator.randrange(256)])
            case 1:
                data[at : at + length] = generator.randbytes(length)
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = data[at : at + length]
            case 4:
                token = generator.choice(TOKENS)
                data[at : at + (len(token) if generator.random() < 0.5 else 0)] = token
            case 5:
                start = generator.randrange(len(other) + 1)
                data[at : at + length] = other[start : start + length]
            case _:
                if at < len(data):
                    data[at] ^= 1 << generator.randrange(8)
    return bytes(data[:LARGEST]) if len(content) <= LARGEST else bytes(data)


class Steps:
    """Steps from line to line in the readers, as the interpreter's trace function sees them."""

    def __init__(self) -> None:
        self.known: set[tuple[str, int, int]] = set()
        self.new = 0
        self.last = 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if event == "call" and not (
            "/pmp_ref/" in name or name.endswith(("zipfile.py", "tarfile.py", "pickletools.py"))
        ):
            return None
        step = (name, self.last, frame.f_lineno)
        self.last = frame.f_lineno
        if step not in self.known:
            self.known.add(step)
            self.new += 1
        return self


def by_steps(
    name: str,
    inputs: int,
    seconds: float,
    seed: int,
    place: Path,
    artefacts: Path | None,
    guard: Any = None,
    beyond: int = 0,
) -> Report:
    """One reader under the engine of our own: its seeds, then mutated inputs, ``beyond`` of them if it is given."""
    from verification.hardening.guard import little_memory
    from verification.hardening.targets import without_checksums

    generator, steps = random.Random(f"{seed} {name}"), Steps()
    trial = Trial(name, "steps", place, artefacts, guard)
    with little_memory(), without_checksums():
        pool, began = list(trial.seeds), time.monotonic()
        inputs = max(inputs, len(pool) + beyond) if beyond else inputs
        while trial.report.inputs < inputs and time.monotonic() - began < seconds:
            fresh = trial.report.inputs < len(trial.seeds)
            content = (
                pool[trial.report.inputs]
                if fresh
                else mutated(generator.choice(pool), generator.choice(pool), generator)
            )
            steps.new, steps.last = 0, 0
            sys.settrace(steps)
            try:
                trial(content)
            finally:
                sys.settrace(None)
            if steps.new and not fresh:
                pool.append(content)
    trial.report.kept, trial.report.seconds = len(pool), time.monotonic() - began
    trial.report.digest = trial.digest.hexdigest()
    return trial.report


def engine_here() -> str:
    """``atheris`` if it can be imported, else ``steps``."""
    try:
        import atheris  # noqa: F401
    except ImportError:
        return "steps"
    return "atheris"


def campaign(
    names: list[str],
    inputs: int,
    seconds: float,
    seed: int,
    engine: str,
    artefacts: Path | None,
    say: Callable[[str], None],
) -> list[Report]:
    """``inputs`` and ``seconds`` in all, shared out by the readers' weights, one reader after the other."""
    from verification.hardening.targets import TARGETS

    reports = []
    weights = [TARGETS[name].weight for name in names]
    for name, weight in zip(names, weights, strict=True):
        share, each = -(-inputs * weight // sum(weights)), seconds * weight / sum(weights)
        with temporary() as directory:
            output = Path(directory) / "report.json"
            arguments = [
                sys.executable,
                "-m",
                "verification.hardening",
                "fuzz-one",
                name,
                str(share),
                str(each),
                str(seed),
                engine,
                directory,
                "" if artefacts is None else str(artefacts),
                str(output),
            ]
            done = subprocess.run(
                arguments, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2], errors="replace"
            )
            if output.exists():
                report = Report(**json.loads(output.read_text()))
            else:
                last = " ".join(done.stderr.split())[-600:]
                report = Report(name, engine, findings=[f"the process ended with {done.returncode}: {last}"])
        reports.append(report)
        told(report, say)
    return reports


def temporary() -> tempfile.TemporaryDirectory[str]:
    """A directory in memory where there is such a place."""
    return tempfile.TemporaryDirectory(dir=MEMORY_DISK if os.path.isdir(MEMORY_DISK) else None)


def one(name: str, inputs: str, seconds: str, seed: str, engine: str, place: str, artefacts: str, output: str) -> None:
    """What a process of `campaign` does."""
    kept = Path(artefacts) if artefacts else None
    if engine == "atheris":
        by_atheris(name, int(inputs), float(seconds), int(seed), Path(place), kept, Path(output))
    report = by_steps(name, int(inputs), float(seconds), int(seed), Path(place), kept)
    Path(output).write_text(json.dumps(asdict(report)))


def short(names: list[str], each: int, seed: int, artefacts: Path | None, say: Callable[[str], None]) -> list[Report]:
    """The seeds and ``each`` mutated inputs for every reader, in this process, which keeps the hook of the guard."""
    from verification.hardening.guard import Guard

    guard, reports = Guard(), []
    for name in names:
        with temporary() as directory:
            reports.append(by_steps(name, 0, float("inf"), seed, Path(directory), artefacts, guard, each))
        told(reports[-1], say)
    return reports


def told(report: Report, say: Callable[[str], None]) -> None:
    """A line for a reader, and one for each finding."""
    say(
        f"{report.target:20} {report.inputs:8,} inputs  {report.read:8,} read  {report.refused:8,} refused  "
        f"{report.kept:5,} kept  {report.seconds:6.1f} s  findings: {len(report.findings)}"
    )
    for text in report.findings:
        say(f"  {text}")
