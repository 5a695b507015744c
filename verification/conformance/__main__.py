"""``python -m verification.conformance export DIR`` and ``… check DIR``.

Exit 0 agreement, 1 departure or a case that is missing, 2 bad input.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from verification.conformance.cases import VERSION, chosen
from verification.conformance.files import check, export
from verification.entry import enter


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(prog="python -m verification.conformance", description=__doc__)
    commands = made.add_subparsers(dest="command", required=True)
    for name, words in (
        ("export", "write the cases into DIR"),
        ("check", "compare the files in DIR with the reference"),
    ):
        command = commands.add_parser(name, help=words)
        command.add_argument("directory", type=Path, metavar="DIR")
        command.add_argument(
            "--case", action="append", default=[], metavar="NAME", help="only this case; may be repeated"
        )
        if name == "check":
            command.add_argument("--partial", action="store_true", help="quantities that are absent are no departures")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    return enter(parser(), command, arguments)


def command(options: argparse.Namespace) -> int:
    """Export, or check. Raises InputError for bad input."""
    if options.command == "export":
        names = export(options.directory, options.case)
        sys.stdout.write(f"version {VERSION}, {len(names)} cases in {options.directory}: {', '.join(names)}\n")
        return 0
    findings = check(options.directory, options.case, options.partial)
    for f in findings:
        absent = f", {f.absent} absent" if f.absent else ""
        sys.stdout.write(f"{f.departure or f'{f.case}: agrees ({f.compared} quantities{absent})'}\n")
    compared = {f.case for f in findings}
    missing = [name for name in chosen(options.case) if name not in compared]
    if missing:
        every = len(compared) + len(missing)
        sys.stdout.write(
            f"missing: {', '.join(missing)}: {len(compared)} of {every} cases were compared; write the others into "
            f"{options.directory}, or name those that are meant with --case\n"
        )
    return 0 if not missing and all(f.departure is None for f in findings) else 1


if __name__ == "__main__":
    sys.exit(main())
