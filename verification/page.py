"""``python -m verification.page PAGE``: run what a page of the documentation shows, in its order.

A notebook (``docs/notebooks/*.ipynb``) is run in a kernel of its own and keeps what its cells then show. Of any other
page the Python blocks and the ``pmp-ref`` lines of its console blocks become one program, which runs in an empty
directory. With ``--figures`` the figures that it makes go to that folder, as drawings for light and for dark paper.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from pmp_ref.errors import InputError
from verification.entry import enter

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^( *)```(\S*)(?: needs ([\w ]+))?[^\n]*\n(.*?)^\1```", re.M | re.S)
COMMAND = 'subprocess.run([sys.executable, "-m", "pmp_ref", *{words}], check=True)'


def program(page: Path, needs: str = "") -> str:
    """The page as one program: its Python blocks that need nothing or just ``needs``, and the console blocks that are
    marked with ``needs``."""
    parts = ["import subprocess", "import sys"]
    for _, language, needed, body in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "python" and needed in ("", needs):
            parts.append(body)
        elif language == "console" and needed and needed == needs:
            lines = [shlex.split(line, comments=True) for line in body.splitlines()]
            parts += [COMMAND.format(words=words[1:]) for words in lines if words[:1] == ["pmp-ref"]]
    return "\n\n".join(parts)


def run(text: str, directory: Path, *options: str, quiet: bool = False) -> subprocess.CompletedProcess[str]:
    """The program in that directory, with these options of Python, without a window."""
    file = directory / "page.py"
    file.write_text(text, encoding="utf-8")
    ours = {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8", "MPLBACKEND": "agg"}
    return subprocess.run(
        [sys.executable, *options, str(file)],
        cwd=directory,
        capture_output=quiet,
        text=True,
        timeout=300 if quiet else None,
        env={**os.environ, **ours},
    )


def themed(drawing: str) -> str:
    """A figure of Matplotlib, drawn on no paper, with its black as the colour of the text around it."""
    dark = "<style>@media (prefers-color-scheme: dark) { svg.drawing:root { color: #d9dce1; } }</style>"
    _, tag, rest = drawing.partition("<svg ")
    opening, close, rest = rest.partition(">")
    coloured = re.sub(r"#000000\b", "currentColor", rest)
    return f'{tag}class="drawing" fill="currentColor" {opening}{close}{dark}{coloured}'


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(prog="python -m verification.page", description=__doc__)
    p.add_argument("page", type=Path, help="a Markdown file or a notebook")
    p.add_argument("--needs", default="torch", help="run the blocks that are marked with this too (default: torch)")
    p.add_argument("--figures", type=Path, metavar="DIR", help="write the figures of the page there")
    return p


def notebook(file: Path, directory: Path) -> Any:
    """The notebook, run in that directory. Raises InputError where nbclient is missing, CellExecutionError where a cell
    fails."""
    try:
        import nbformat
        from nbclient import NotebookClient
    except ImportError:
        raise InputError("a notebook needs the packages nbclient and ipykernel: pip install '.[docs]'") from None
    book = nbformat.read(file, as_version=4)
    settings = {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    with mock.patch.dict(os.environ, settings):
        NotebookClient(book, timeout=300, resources={"metadata": {"path": str(directory)}}).execute()
    for cell in book.cells:
        cell.metadata.pop("execution", None)  # when it ran
    return book


def main(options: argparse.Namespace) -> int:
    """Exit code of the program. Raises InputError if there is no such page."""
    if not options.page.is_file():
        raise InputError(f"no page {str(options.page)!r}; expected a file such as docs/users/pytorch.md")
    if options.page.suffix == ".ipynb":
        import nbformat

        with tempfile.TemporaryDirectory() as place:
            nbformat.write(notebook(options.page, Path(place)), options.page)
        return 0
    with tempfile.TemporaryDirectory() as place:
        done = run(program(options.page, options.needs), Path(place))
        for figure in sorted(Path(place).glob("*.svg")) if options.figures and not done.returncode else ():
            (options.figures / figure.name).write_text(themed(figure.read_text(encoding="utf-8")), encoding="utf-8")
            print(f"written: {options.figures / figure.name}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(enter(parser(), main, None))
