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
from pathlib import Path
from typing import Any

from verification.gpu.needs import how_to_bring, missing
from verification.gpu.plan import WITHOUT_COMPILED, Row, profile_name, profiles, rows, tiny, warm_jobs
from verification.gpu.process import ROOT, Command, Worker, WorkerError
from verification.gpu.store import Store, commit, now
from verification.gpu.warming import Warming

PARTS = ("smoke", "tests", "claims", "training", "benchmark", "profile")
JUDGED = ("tests", "claims", "training")
SMOKE, TESTS, CHECKS, ROW = 90.0, 150.0, 90.0, 75.0  # seconds at most
LEAST = 10.0  # seconds without which nothing is begun
PROFILED_AFTER = 6  # rows of the benchmark


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m verification.gpu", description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    made.add_argument("--json", type=Path, default=Path("reports/gpu.json"), metavar="FILE",
                      help="results, read again by a later call (default: reports/gpu.json)")  # fmt: skip
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
        self.warming: Warming | None = None
        self.worker: Worker | None = None

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
            if "tests" in self.parts:
                self.tests()
            self.checks()
            self.measure()
        finally:
            if self.warming is not None:
                self.warming.stop()
            if self.worker is not None:
                self.worker.close()
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
            if "benchmark" in self.parts and self.torch:
                self.warm()
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

    def warm(self) -> None:
        """Begin to compile what rows to come need compiled."""
        to_come = [row for row in self.rows if self.store.known("benchmark", row.name) is None]
        if jobs := warm_jobs(to_come):
            self.warming = Warming(jobs, self.side)

    def fits(self, name: str, least: float) -> bool:
        """Whether there is time for it; if not, that is noted."""
        if self.left >= least:
            return True
        self.store.leave_out(name, f"{self.left:.0f} s of {self.options.seconds:.0f} were left")
        self.say(f"{name}: left out, no time")
        return False

    def tests(self) -> None:
        """The suite's part."""
        from verification.gpu import suite

        if self.store.known("tests") or not self.fits("tests", 2 * LEAST):
            return
        self.say(f"tests: {len(suite.files())} files")
        found = suite.run(self.options.backend, min(TESTS, self.left - LEAST))
        self.store.put("tests", found)
        self.say(f"tests: {found['passed']} passed, {found['failed']} failed, {found['skipped']} skipped"
                 + ("" if found["finished"] else ", cut off"))  # fmt: skip

    def checks(self) -> None:
        """Claims and training, side by side."""
        from verification.gpu.training import Training

        asked = [p for p in ("claims", "training") if p in self.parts and self.store.known(p) is None]
        asked = [part for part in asked if self.fits(part, 2 * LEAST)]
        until = time.monotonic() + min(CHECKS, self.left - LEAST)
        if asked:
            self.say(f"{' and '.join(asked)} begin")
        claims = training = None
        if "claims" in asked:
            jobs = str(max(2, min(8, (os.cpu_count() or 2) - 6)))
            words = [sys.executable, "-m", "verification", "--quick", "--claims", "A1,A2", "--backend",
                     self.options.backend, "--jobs", jobs]  # fmt: skip
            claims = Command(words, OPENBLAS_NUM_THREADS="1")
        if "training" in asked:
            training = Training(self.options.backend)
        if training is not None:
            found = training.result(until - time.monotonic())
            self.store.put("training", found)
            self.say(f"training: agreed {found['agreed']}")
        if claims is not None:
            found = claims.result(until - time.monotonic())
            ended = found["exit code"] is not None
            self.store.put("claims", {"finished": ended, "agreed": found["exit code"] == 0, **found})
            self.say(f"claims: exit code {found['exit code']}")

    def measure(self) -> None:
        """Benchmark and profiles, the most important first."""
        wanted = [("benchmark", row, row.name) for row in self.rows]
        looked = [("profile", row, profile_name(row)) for row in self.profiles]
        order = wanted[:PROFILED_AFTER] + looked + wanted[PROFILED_AFTER:]
        order = [o for o in order if o[0] in self.parts and self.store.known(o[0], o[2]) is None]
        if not order:
            return
        if self.warming is not None:
            self.say("the benchmark waits until its rivals are compiled")
            compiled = self.warming.wait(min(0.35 * self.left, 90.0))
            self.store.about(compiling=compiled)
            self.say(f"compiled beforehand: {sum('seconds' in c for c in compiled.values())} of {len(compiled)}")
        before = ""
        for part, row, name in order:
            if not self.fits(f"{part}: {name}", LEAST):
                continue
            if part == "profile" and not self.torch:
                self.store.leave_out(f"profile: {name}", "PyTorch, whose profiler is used, is not installed")
                continue
            if part != before and self.worker is not None:  # a profiler leaves its hooks behind
                self.worker.close()
                self.worker = None
            before = part
            self.one(part, row, name)

    def one(self, part: str, row: Row, name: str, left_out: tuple[str, ...] = ()) -> None:
        """A row; where it hangs or takes its process along, once more without what is compiled."""
        do = "measure" if part == "benchmark" else "profile"
        self.worker = self.worker or Worker()
        limit = min(ROW, self.left)
        try:
            reply = self.worker.ask(limit, do=do, row=row.question(), **self.side)
        except WorkerError as error:
            self.worker = None
            whole = limit >= ROW or "no answer" not in str(error)  # else it was only too late for it
            self.store.put(part, {"error": str(error), "finished": whole}, name)
            self.say(f"{name}: {error}")
            others = tuple(side for side in row.sides if side in WITHOUT_COMPILED)
            if 0 < len(others) < len(row.sides) and self.left > 2 * LEAST:
                again = Row(row.operation, row.config, row.batch, row.dtype, others, row.memory)
                self.one(part, again, name, tuple(side for side in row.sides if side not in others))
            return
        found = reply.get("answer", reply)
        for side in left_out:
            found.setdefault("errors", {})[side] = "left out: with it the row hung or ended its process"
        self.store.put(part, found, name)
        self.say(f"{name}: {short(found)}")

    def close(self) -> int:
        """The table; the exit code."""
        from verification.gpu import table

        self.store.about(ended=now(), **{"seconds used": round(self.options.seconds - self.left, 1)})
        found = {part: self.store.data["parts"].get(part) for part in JUDGED if part in self.parts}
        found = {part: result for part, result in found.items() if result is not None}
        lines = [
            "", *table.benchmark(self.store.rows("benchmark")), "", *table.profiles(self.store.rows("profile")), "",
            *table.parts(found), *(f"left out: {name}: {why}" for name, why in self.store.data["left out"].items()),
            f"results: {self.options.json}",
        ]  # fmt: skip
        print("\n".join(lines), flush=True)
        agreed = [self.store.known(part) for part in JUDGED if part in self.parts]
        return 0 if all(result is not None and result.get("agreed") for result in agreed) else 1


def short(found: dict[str, Any]) -> str:
    """A result in a line of progress."""
    if "error" in found:
        return str(found["error"])
    if "ms" in found:
        ratios = "".join(f"; ours/{name} {value:.2f}" for name, value in found["ratios"].items())
        times = ", ".join(f"{side} {values[0]:.3f}" for side, values in found["ms"].items())
        return f"{times} ms{ratios}" + (f"; not {' / '.join(found['errors'])}" if found["errors"] else "")
    return f"{found['wall µs']:.0f} µs, on the device {found['device µs']:.0f} µs" if "wall µs" in found else "done"


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
