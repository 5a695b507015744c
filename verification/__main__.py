"""Command line: ``python -m verification``. Exit code 0 if all holds, 1 if anything is red, 2 for bad input."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pmp_ref.errors import InputError, nearest
from verification import report
from verification.claim import CLAIMS, PROFILES, Context, evaluate, listen
from verification.entry import enter
from verification.libraries import NAMES, load
from verification.runner import Results, Settings, load_all, run


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(
        prog="python -m verification",
        description="Check the theory of bSQH numerically, and check the checks by planted faults.",
    )
    p.add_argument("action", nargs="?", choices=("mutate",), help="try mutations that nobody chose, instead of a run")
    p.add_argument("--draw", type=int, default=200, metavar="N", help="mutate: so many mutations (default: 200)")
    length = p.add_mutually_exclusive_group()
    length.add_argument(
        "--quick", action="store_true", help="a few instances of each claim, within three minutes (default)"
    )
    length.add_argument("--full", action="store_true", help="many instances and long runs")
    p.add_argument("--claims", metavar="TAG,TAG", help="only these claims; survivors and coverage are then not judged")
    p.add_argument("--backend", default="numpy", help=f"array library: {', '.join(NAMES)} (default: numpy)")
    p.add_argument("--dtype", default="float64", help="float64 (default) or float32; bounds follow from its precision")
    p.add_argument("--seed", type=int, default=0, help="seed of the instances (default: 0)")
    p.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")
    p.add_argument("--html", type=Path, metavar="FILE", help="write a self-contained report")
    p.add_argument("--faults", type=Path, metavar="FILE", help="write which claim catches which fault, as Markdown")
    p.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    p.add_argument("--replay", metavar="TAG:SEED:PROFILE:INDEX", help="make one instance again and show its checks")
    p.add_argument("--list", action="store_true", help="list the claims and leave")
    return p


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    return enter(parser(), command, arguments)


def command(options: argparse.Namespace) -> int:
    """What the options ask for. Raises InputError for bad input."""
    if options.dtype not in ("float64", "float32"):
        raise InputError(f"unknown dtype {options.dtype!r}: {nearest(options.dtype, ('float64', 'float32'))}")
    if options.seed < 0 or options.jobs < 1:
        raise InputError(f"seed {options.seed}, jobs {options.jobs}; expected a seed ≥ 0 and at least one process")
    if options.action == "mutate":
        from verification.planting import mutate

        return 1 if mutate.run(options.draw, options.seed, options.jobs) else 0
    load(options.backend)
    load_all()
    if options.list:
        for claim in CLAIMS.values():
            print(f"{claim.tag:5} {claim.title}: {claim.statement}")
        return 0
    if options.replay:
        return replay(options)
    for path in (options.json, options.html, options.faults):
        if path is not None and not path.absolute().parent.is_dir():
            raise InputError(f"{path}: there is no directory {path.absolute().parent}; make it first")
    settings = Settings(
        options.seed,
        "full" if options.full else "quick",
        options.backend,
        options.dtype,
        tags(options.claims),
        options.jobs,
    )
    terminal = report.Terminal(sys.stdout)
    results = Results(settings)
    for results, line in run(settings):  # noqa: B007  the last results are those of the whole run
        terminal.progress(line)
    terminal.show(results)
    if options.json is not None:
        report.write_json(results, options.json)
    if options.faults is not None:
        report.write_faults(results, options.faults)
    if options.html is not None:
        from verification import html

        html.write(results, options.html)
    return 1 if results.problems() else 0


def tags(text: str | None) -> tuple[str, ...]:
    """The tags of ``--claims``, in the order of the report; all where it is not given."""
    if text is None:
        return ()
    asked = [part.strip() for part in text.split(",") if part.strip()]
    for tag in asked:
        if tag not in CLAIMS:
            raise InputError(f"unknown claim {tag!r}: {nearest(tag, CLAIMS)}")
    if not asked:
        raise InputError("--claims names no claim; give tags such as T5,T6")
    return tuple(tag for tag in CLAIMS if tag in asked)


def replay(options: argparse.Namespace) -> int:
    """One instance again: all its checks."""
    parts = options.replay.split(":")
    if len(parts) != 4 or parts[0] not in CLAIMS or parts[2] not in PROFILES or not (parts[1] + parts[3]).isdigit():
        raise InputError(
            f"--replay {options.replay!r}; expected TAG:SEED:PROFILE:INDEX as the report prints it, "
            "such as T5:0:quick:3"
        )
    tag, seed, profile, index = parts[0], int(parts[1]), parts[2], int(parts[3])
    context = Context(seed, profile, load(options.backend), options.dtype, tag, only=index)
    with listen() as checks:
        outcome = evaluate(CLAIMS[tag], context)
    for check in checks:
        state = "holds" if check.holds else "FAILS"
        print(f"{state}  {check.measured:.6g} {check.sense} {check.bound:.6g}  {check.problem}")
    print(outcome.error or f"{tag}: {'holds' if outcome.holds else 'FAILS'} on instance {index}")
    return 0 if outcome.holds else 1


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    raise SystemExit(main())
