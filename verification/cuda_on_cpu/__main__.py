"""``python -m verification.cuda_on_cpu``: run a command with CuPy on the CPU."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from pmp_ref.errors import InputError
from verification.cuda_on_cpu.build import environment
from verification.entry import enter

CHECKOUT = Path(__file__).parents[2]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m verification.cuda_on_cpu",
        description="Run a command with CuPy over a CUDA that computes on the CPU. It checks results, counts launches "
        "and transfers, and says nothing about time.",
        epilog="example: python -m verification.cuda_on_cpu -- python -m pytest -n 2 --backend cupy",
    )
    made.add_argument(
        "--folder",
        type=Path,
        default=CHECKOUT / ".venv" / "cuda-on-cpu",
        help="where it is built, once (default: .venv/cuda-on-cpu)",
    )
    made.add_argument("--step", action="store_true", help="count what one step of LeNet-5 calls")
    made.add_argument("command", nargs="*", help="the command and its arguments, after --")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    return enter(parser(), run, arguments)


def run(options: argparse.Namespace) -> int:
    """Exit code of the command. Raises InputError if the library cannot be built or there is no such command."""
    command = ["python", "-m", "verification.cuda_on_cpu.step"] if options.step else options.command
    if not command:
        parser().error("no command was given; write it after --, or ask for --step")
    variables = environment(options.folder, CHECKOUT)
    if command[0] == "python":
        command[0] = str(options.folder.absolute() / "venv" / "bin" / "python")
    if not shutil.which(command[0], path=variables["PATH"]):
        raise InputError(f"there is no command {command[0]!r}; begin with python")
    return subprocess.run(command, env=variables, cwd=CHECKOUT if options.step else None).returncode


if __name__ == "__main__":
    sys.exit(main())
