"""``python -m verification.gpu``: tests, claims, training, benchmark and profile on a GPU, in seven minutes.

Exit code 0 if tests, claims and training agreed, 1 if one did not or was cut off, 2 if nothing could be done.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from verification.gpu import table
from verification.gpu.needs import how_to_bring, missing
from verification.gpu.plan import SIDES, Row, profile_name, profiles, rows, tiny, warm_jobs
from verification.gpu.process import ROOT, Command, Worker, WorkerError
from verification.gpu.sides import Sides
from verification.gpu.store import Store, commit, now
from verification.gpu.training import Training
from verification.gpu.warming import Warming

PARTS = ("smoke", "tests", "claims", "training", "benchmark", "profile")
JUDGED = ("tests", "claims", "training")
SMOKE, TESTS, CHECKS, PROFILE = 90.0, 150.0, 90.0, 60.0  # seconds at most
LEAST = 10.0  # seconds without which nothing is begun
PROFILED_AFTER = 6  # rows of the benchmark


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m verification.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--json",
        type=Path,
        default=Path("reports/gpu.json"),
        metavar="FILE",
        help="results, read again by a later call (default: reports/gpu.json)",
    )
    made.add_argument("--backend", default="cupy", help="array library of our side (default: cupy)")
    made.add_argument("--device", default="cuda", help="PyTorch's device (default: cuda; cpu to try the script)")
    made.add_argument("--seconds", type=float, default=420.0, help="what does not fit is left out (default: 420)")
    made.add_argument("--only", metavar="PART,PART", help=f"of {', '.join(PARTS)}")
    made.add_argument("--rows", metavar="TEXT", help="only rows of benchmark and profile whose name begins so")
    made.add_argument("--tiny", action="store_true", help="eight images at most in a row, to try the script")
    made.add_argument("--fresh", action="store_true", help="do not go on where an earlier call stopped")
    return made


class Run:
    """One call of the script."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.end = time.monotonic() + options.seconds
        self.parts = PARTS if options.only is None else tuple(options.only.split(","))
        if unknown := [part for part in self.parts if part not in PARTS]:
            raise ValueError(f"unknown part {unknown[0]!r}; known: {', '.join(PARTS)}")
        self.side = {"backend": options.backend, "device": options.device}
        make = tiny if options.tiny else list
        begins = options.rows or ""
        self.rows: list[Row] = [row for row in make(rows()) if row.name.startswith(begins)]
        self.profiles: list[Row] = [row for row in make(profiles()) if row.name.startswith(begins)]
        self.store: Store
        self.torch = False
        self.groups: list[list[tuple[str, Row, str]]] = []  # what is measured in turn: part, row, name
        self.sides = Sides(self.side)
        self.training: Training | None = None
        self.warming: Warming | None = None
        self.profiler: Worker | None = None

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.end - time.monotonic()

    def say(self, text: str) -> None:
        """A line of progress, with the seconds that have passed."""
        print(f"[{self.options.seconds - self.left:5.0f} s] {text}", flush=True)

    def go(self) -> int:
        """Everything; the exit code."""
        try:
            if not self.begin():
                return 2
            if self.wanted("training"):
                self.training = Training(self.options.backend)  # its runs go on while tests run
            self.sides.begin(next((row.sides for group in self.groups for _, row, _ in group), ()))
            if self.wanted("tests"):
                self.tests()
            self.checks()
            self.measure()
        finally:
            self.sides.close()
            if self.training is not None:
                self.training.close()
            if self.warming is not None:
                self.warming.stop()
            if self.profiler is not None:
                self.profiler.close()
        return self.close()

    def begin(self) -> bool:
        """What the machine is, and the smoke test; False if it is not worth going on."""
        worker = Worker()
        try:
            about = worker.ask(SMOKE, do="about", **self.side)
            if "error" in about:
                print(f"error: {about['error']}", file=sys.stderr)
                return False
            about = about["answer"]
            self.torch = about["torch"] is not None
            device = "CUDA on the CPU" if about["CUDA on the CPU"] else about["device"]
            self.store = Store(self.options.json, device, self.options.fresh)
            self.store.about(**about, **driver(), commit=commit(), begun=now(), command=sys.argv[1:])
            self.say(f"{device}, cupy {about['cupy']}, torch {about['torch']}, numpy {about['numpy']}")
            self.choose()
            if "smoke" not in self.parts or self.store.known("smoke"):
                return True
            found = worker.ask(SMOKE, do="smoke", **self.side)
            self.store.put("smoke", found.get("answer", {**found, "finished": False}))
            if "error" in found:
                print(f"error: the smoke test failed: {found['error']}", file=sys.stderr)
                return False
            self.say("smoke test passed")
            return True
        except WorkerError as error:
            print(f"error: the smoke test failed: {error}", file=sys.stderr)
            return False
        finally:
            worker.close()

    def choose(self) -> None:
        """Keep the rows and sides that are to be measured and can be, and begin to compile what they need compiled."""
        cannot = [side for side in SIDES if side != "ours" and not self.torch]
        cannot = cannot or ["graph"] * (self.options.device == "cpu")
        if cannot:
            self.store.leave_out(", ".join(cannot), "CUDA graphs need CUDA" if self.torch else "there is no PyTorch")
        rows = [replace(row, sides=tuple(s for s in row.sides if s not in cannot)) for row in self.rows]
        wanted = [("benchmark", row, row.name) for row in rows]
        looked = [("profile", row, profile_name(row)) for row in self.profiles]
        for group in (wanted[:PROFILED_AFTER], looked, wanted[PROFILED_AFTER:]):
            self.groups.append([o for o in group if o[0] in self.parts and self.store.known(o[0], o[2]) is None])
        if jobs := warm_jobs([row for group in self.groups for part, row, _ in group if part == "benchmark"]):
            self.warming = Warming(jobs, self.side, min(90.0, 0.35 * self.left))

    def wanted(self, part: str) -> bool:
        """Whether a part is asked for, not known yet, and there is time for it."""
        return part in self.parts and self.store.known(part) is None and self.fits(part, 2 * LEAST)

    def fits(self, name: str, least: float) -> bool:
        """Whether there is time for it; if not, that is noted."""
        if self.left >= least:
            return True
        self.store.leave_out(name, f"{max(0.0, self.left):.0f} s of {self.options.seconds:.0f} were left")
        self.say(f"{name}: left out, no time")
        return False

    def tests(self) -> None:
        """The suite's part."""
        from verification.gpu import suite

        self.say(f"tests: {len(suite.files())} files")
        found = suite.run(self.options.backend, min(TESTS, self.left - LEAST))
        self.store.put("tests", found)
        self.say(
            f"tests: {found['passed']} passed, {found['failed']} failed, {found['skipped']} skipped"
            + ("" if found["finished"] else ", cut off")
        )

    def checks(self) -> None:
        """Claims and training, side by side."""
        until = time.monotonic() + min(CHECKS, self.left - LEAST)
        claims = None
        if self.wanted("claims"):
            self.say("claims begin")
            jobs = str(max(2, min(8, (os.cpu_count() or 2) - 6)))
            words = [
                sys.executable,
                "-m",
                "verification",
                "--quick",
                "--claims",
                "A1,A2",
                "--backend",
                self.options.backend,
                "--jobs",
                jobs,
            ]
            claims = Command(words, OPENBLAS_NUM_THREADS="1")
        found: dict[str, Any] = {}
        if self.training is not None:
            found = self.training.result(until - time.monotonic())
            self.store.put("training", found)
            self.say(f"training: agreed {found['agreed']}")
        if claims is not None:
            ended = claims.result(until - time.monotonic())
            agreed, finished = ended["exit code"] == 0, ended["exit code"] is not None
            self.store.put("claims", {"finished": finished, "agreed": agreed, **ended})
            self.say(f"claims: exit code {ended['exit code']}")
        if self.training is not None and self.left > 3 * LEAST:
            if self.warming is not None:
                self.warming.go_on(False)
            found["times"] = self.training.times(min(CHECKS, self.left - 2 * LEAST))
            self.store.put("training", found)
            self.say("training: timed")
            if self.warming is not None:
                self.warming.go_on(True)

    def measure(self) -> None:
        """Benchmark and profiles, the most important first; in a group first what is compiled."""
        for group in self.groups:
            while group:
                first = 0 if self.warming is None else self.warming.first([row for _, row, _ in group])
                part, row, name = group.pop(first)
                if part == "profile" and not self.torch:
                    self.store.leave_out(f"profile: {name}", "PyTorch, whose profiler is used, is not installed")
                elif self.fits(f"{part}: {name}", LEAST):
                    found = self.sides.measure(row, self.left) if part == "benchmark" else self.profile(row)
                    self.store.put(part, found, name)
                    self.say(f"{name}: {short(found)}")
        if self.warming is not None:
            self.store.about(compiling=self.warming.done)

    def profile(self, row: Row) -> dict[str, Any]:
        """A step timed by the side's process, then looked into in another: a profiler leaves its hooks behind."""
        found = self.sides.measure(row, self.left, seconds=0.5)
        timed = found.get("ms", {}).get(row.sides[0])
        self.profiler = self.profiler or Worker()
        try:
            reply = self.profiler.ask(min(PROFILE, self.left), do="profile", row=row.question(), **self.side)
        except WorkerError as error:
            reply = {"error": str(error)}
        if "error" in reply:
            self.profiler.close()
            self.profiler = None
            return {**reply, "finished": self.left > 0}
        return {"µs without the profiler": timed and 1e3 * timed[0], "errors": found["errors"], **reply["answer"]}

    def close(self) -> int:
        """The table; the exit code."""
        self.store.about(ended=now(), **{"seconds used": round(self.options.seconds - self.left, 1)})
        found = {part: self.store.data["parts"].get(part) for part in JUDGED if part in self.parts}
        found = {part: result for part, result in found.items() if result is not None}
        lines = [
            "",
            *table.benchmark(self.store.rows("benchmark")),
            "",
            *table.profiles(self.store.rows("profile")),
            "",
            *table.parts(found),
            *(f"left out: {name}: {why}" for name, why in self.store.data["left out"].items()),
            f"results: {self.options.json}",
        ]
        print("\n".join(lines), flush=True)
        agreed = [self.store.known(part) for part in JUDGED if part in self.parts]
        return 0 if all(result is not None and result.get("agreed") for result in agreed) else 1


def short(found: dict[str, Any]) -> str:
    """A result in a line of progress."""
    if "device µs" in found or "error" in found:
        return table.profile(found)
    ratios = "".join(f"; ours/{name} {value:.2f}" for name, value in found.get("ratios", {}).items())
    times = ", ".join(f"{side} {values[0]:.3f}" for side, values in found.get("ms", {}).items())
    return f"{times} ms{ratios}" + "".join(f"; {side}: {table.shortened(e)}" for side, e in found["errors"].items())


def driver() -> dict[str, Any]:
    """What nvidia-smi says of driver and clocks; nothing where it is not there."""
    asked = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,memory.total,power.limit"
    words = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"]
    try:
        found = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True, cwd=ROOT).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    first = (found.splitlines() or [""])[0]
    return {"nvidia-smi": dict(zip(asked.split(","), (cell.strip() for cell in first.split(",")), strict=False))}


def stop(*_: Any) -> None:
    """Leave in order when asked to: what was begun is ended."""
    raise SystemExit(143)


def main(arguments: list[str] | None = None) -> int:
    """The exit code."""
    options = parser().parse_args(arguments)
    if names := missing():
        print(f"error: {how_to_bring(names)}", file=sys.stderr)
        return 2
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    signal.signal(signal.SIGTERM, stop)
    os.environ.setdefault("PYTHONFAULTHANDLER", "1")  # a process that crashes says where
    # Where the compiler keeps what it made, so that the processes that compile beforehand do it for the benchmark.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(tempfile.gettempdir()) / "pmp_ref_compiled"))
    os.environ.setdefault("TORCHINDUCTOR_FX_GRAPH_CACHE", "1")
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "4")
    try:
        return Run(options).go()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
