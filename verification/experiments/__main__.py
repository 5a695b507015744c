"""Command line of the experiments. Exit codes: 0, 1 if a row failed, 2 for bad input, 130 if interrupted."""

from __future__ import annotations

import argparse
import fnmatch
import sys
import time
import traceback
from pathlib import Path

from pmp_ref.errors import InputError
from pmp_ref.kernels.blas import one_thread
from verification.entry import enter
from verification.experiments import EXPERIMENTS, make
from verification.experiments.experiment import Experiment, Row
from verification.experiments.store import OutputError, Store

OUT = {False: Path("runs/experiments"), True: Path("runs/experiments-quick")}

EXAMPLES = """examples:
  python -m verification.experiments --list                        the experiments
  python -m verification.experiments full-batch --quick            a minute, on bundled images
  python -m verification.experiments tradeoff --rows 'bsqh-*'      some rows; rows that are there are not run again
  python -m verification.experiments tradeoff --figures-only       draw and collect what is there
  python -m verification.experiments --docs                        take finished results into docs/ and draw them

full versions need  pmp-ref fetch mnist  or  pmp-ref fetch cifar10  once
"""


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(
        prog="python -m verification.experiments",
        description="Numerical experiments with bSQH on real data.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument("name", nargs="?", metavar="NAME", help=", ".join(EXPERIMENTS))
    p.add_argument("--quick", action="store_true", help="small version on bundled images, at most a minute")
    p.add_argument("--out", type=Path, metavar="DIR", help=f"results (default: {OUT[False]}; with --quick {OUT[True]})")
    p.add_argument(
        "--rows",
        metavar="PATTERN",
        help="only rows whose name matches, such as 'bsqh-*-seed0'; several patterns with commas between",
    )
    p.add_argument("--threads", type=int, metavar="N", help="threads of the kernels; the numbers do not depend on it")
    p.add_argument(
        "--list", action="store_true", help="list the experiments, or the rows of NAME and whether they are done"
    )
    p.add_argument("--figures-only", action="store_true", help="run nothing; collect and draw the rows that are there")
    p.add_argument(
        "--docs",
        action="store_true",
        help="copy finished results below --out into docs/, draw the figures of all results there and write "
        "docs/results.md anew between its markers",
    )
    return p


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    try:
        return enter(parser(), command, arguments, "interrupted; the same command goes on where it stopped")
    except OutputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def command(options: argparse.Namespace) -> int:
    """What the options ask for. Raises InputError for bad input."""
    if options.threads is not None and options.threads < 1:
        raise InputError(f"--threads {options.threads}; expected a whole number, at least 1")
    out = options.out or OUT[options.quick]
    if options.docs:
        from verification.experiments.pages import publish

        for line in publish(out, Path("docs")):
            print(line)
        return 0
    if options.name is None:
        if options.list:
            for name in EXPERIMENTS:
                print(f"{name:12}{make(name).title}")
            return 0
        raise InputError(f"no experiment given; one of {', '.join(EXPERIMENTS)}, or --list")
    experiment = make(options.name)
    rows = experiment.rows(options.quick)
    chosen = select(rows, options.rows)
    store = Store(out, options.name)
    if options.list:
        for row in chosen:
            print(f"{'done' if store.stored(row) else '    '}  {row.key}")
        return 0
    failed = 0 if options.figures_only else run_rows(experiment, store, chosen, options.threads)
    for path in store.collect(experiment, rows, options.quick):
        print(path)
    return 1 if failed else 0


def select(rows: list[Row], pattern: str | None) -> list[Row]:
    """The rows whose key matches one of the patterns; InputError if a key is there twice or nothing matches."""
    keys = [row.key for row in rows]
    if len(set(keys)) != len(keys):
        raise InputError(f"rows {sorted({k for k in keys if keys.count(k) > 1})} are there more than once")
    if pattern is None:
        return rows
    chosen = [row for row in rows if any(fnmatch.fnmatchcase(row.key, p.strip()) for p in pattern.split(","))]
    if not chosen:
        raise InputError(f"--rows {pattern!r} matches none of {', '.join(keys[:8])}{' …' if len(keys) > 8 else ''}")
    return chosen


def run_rows(experiment: Experiment, store: Store, rows: list[Row], threads: int | None) -> int:
    """Run what is not there yet, one line for each row; the number of rows that failed."""
    failed, stream = 0, sys.stderr

    def progress(line: str) -> None:
        print(f"    {line}", file=stream, flush=True)

    for i, row in enumerate(rows, 1):
        head = f"[{i}/{len(rows)}] {row.key}"
        if store.stored(row) is not None:
            print(f"{head}: there already", flush=True)
            continue
        print(f"{head} …", flush=True)
        began = time.perf_counter()
        try:
            with one_thread():
                store.run(experiment, row, threads, progress)
        except OutputError:  # the disk: the rows after this one would fail alike
            raise
        except Exception as error:
            failed += 1
            if not isinstance(error, InputError):
                traceback.print_exc()
            print(f"{head}: FAILED: {' '.join(str(error).split()) or type(error).__name__}", flush=True)
        else:
            print(f"{head}: done in {time.perf_counter() - began:.1f} s", flush=True)
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
