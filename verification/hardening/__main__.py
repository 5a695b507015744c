"""``python -m verification.hardening interruptions | fuzz | package | lowest``.

Exit code 0 if all holds, 1 if not, 2 for bad input."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from verification.entry import enter


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(prog="python -m verification.hardening", description=__doc__)
    commands = p.add_subparsers(dest="command", required=True)
    kills = commands.add_parser("interruptions", help="kill a training run at random moments, resume, compare")
    kills.add_argument("--count", type=int, default=100, help="kills (default: 100)")
    fuzz = commands.add_parser("fuzz", help="coverage-guided fuzzing of all readers")
    fuzz.add_argument("--inputs", type=int, default=1_000_000, help="inputs in all (default: 1,000,000)")
    fuzz.add_argument(
        "--each", type=int, help="the short form: the seeds and so many inputs more for each reader, the same each time"
    )
    fuzz.add_argument("--seconds", type=float, default=float("inf"), help="at most, in all (default: no limit)")
    fuzz.add_argument("--engine", choices=("atheris", "steps"), help="default: atheris if it is installed, else steps")
    fuzz.add_argument("--target", action="append", default=[], metavar="NAME", help="only this reader; may be repeated")
    fuzz.add_argument("--artefacts", type=Path, metavar="DIR", help="write the inputs of findings there")
    commands.add_parser("package", help="build, install elsewhere, run (make package)")
    commands.add_parser("lowest", help="print the lower bounds of all dependencies as exact versions (make lowest)")
    for command in (kills, fuzz):
        command.add_argument("--seed", type=int, default=0, help="of the random choices (default: 0)")
        command.add_argument("--json", type=Path, metavar="FILE", help="write the counts as JSON")
    return p


def say(line: str) -> None:
    """A line of progress, at once."""
    print(line, flush=True)


def interruptions(options: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Counts, and whether all holds."""
    from verification.hardening.interruptions import campaign

    with tempfile.TemporaryDirectory() as place:
        counts = campaign(Path(place), options.count, options.seed, say)
    say(f"kills: {counts.kills} ({dict(counts.kinds)}), of runs killed before: {counts.of_a_killed_run}")
    say(f"left in a write: {counts.in_a_write}; tables ahead of the checkpoint: {counts.behind_checkpoint}")
    say(f"found after the kill: {dict(counts.places)}; runs that ended before their kill: {counts.too_late}")
    say(f"resumed: {counts.resumes}; equal to the unbroken run, bit for bit: {counts.equal} of {counts.kills}")
    return counts.asdict(), counts.equal == counts.kills == options.count and not counts.unequal


def fuzz(options: argparse.Namespace) -> tuple[Any, bool]:
    """Reports, and whether all holds."""
    from dataclasses import asdict

    from verification.hardening.fuzz import campaign, engine_here, short
    from verification.hardening.targets import TARGETS

    for name in options.target:
        if name not in TARGETS:
            parser().error(f"unknown reader {name!r}; known: {', '.join(TARGETS)}")
    names, engine = options.target or list(TARGETS), options.engine or engine_here()
    if options.artefacts is not None:
        options.artefacts.mkdir(parents=True, exist_ok=True)
    if options.each:
        reports = short(names, options.each, options.seed, options.artefacts, say)
    else:
        say(f"{len(names)} readers, engine {engine}")
        reports = campaign(names, options.inputs, options.seconds, options.seed, engine, options.artefacts, say)
    found = sum(len(r.findings) for r in reports)
    say(
        f"in all {sum(r.inputs for r in reports):,} inputs, {sum(r.read for r in reports):,} read, "
        f"{sum(r.refused for r in reports):,} refused; findings: {found}"
    )
    return [asdict(r) for r in reports], found == 0 and all(r.inputs for r in reports)


def supply(command: str) -> int:
    """``package`` or ``lowest``; the exit code."""
    from verification.hardening.supply import ROOT, lowest, package

    if command == "lowest":
        say("\n".join(lowest((ROOT / "pyproject.toml").read_text(encoding="utf-8"))))
        return 0
    try:
        package(say)
    except RuntimeError as error:
        say(f"package: {error}")
        return 1
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["fuzz-one"]:  # a process of `fuzz`
        from verification.hardening.fuzz import one

        one(*given[1:])
        return 0
    return enter(parser(), command, given)


def command(options: argparse.Namespace) -> int:
    """What the options ask for; the exit code."""
    if options.command in ("package", "lowest"):
        return supply(options.command)
    if getattr(options, "count", 1) < 1 or getattr(options, "inputs", 1) < 1 or options.seed < 0:
        parser().error("expected at least one kill or input, and a seed ≥ 0")
    result, holds = (interruptions if options.command == "interruptions" else fuzz)(options)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0 if holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
