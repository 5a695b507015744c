"""The notebooks run from top to bottom and show what is stored in them, up to numbers."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))
NEEDS = {"own-pictures": ("onnx", "onnxruntime")}
JUPYTER = ("nbformat", "nbclient", "ipykernel")


def need(*packages: str) -> None:
    """Skip where a package is missing."""
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")


def read(file: Path) -> Any:
    import nbformat

    return nbformat.read(file, as_version=4)


def shown(book: Any) -> list[tuple[str, str]]:
    """(kind, text) of what the code cells show, every number as #; figures by their kind alone."""
    found = []
    for cell in book.cells:
        for output in cell.get("outputs", ()):
            assert output.output_type != "error" and output.get("name") != "stderr", output
            text = output.text if output.output_type == "stream" else output.data["text/plain"]
            kind = "text" if output.output_type == "stream" else " ".join(sorted(output.data))
            plain = re.sub(r"\s+", " ", re.sub(r"[-−]?\d[\d.,]*(e[-+]?\d+)?", "#", text))
            plain = re.sub(r" ?([][]) ?", r"\1", plain)  # how wide a column is follows from its numbers
            found.append((kind, re.sub(r"Solution: [\w ]+ after", "Solution: # after", plain)))
    return found


def test_there_are_three() -> None:
    assert [file.stem for file in NOTEBOOKS] == ["first-run", "own-pictures", "reading-a-certificate"]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_what_is_stored_is_of_one_run(file: Path) -> None:
    """Cells are numbered in their order, and no path of the machine is shown."""
    need("nbformat")
    book = read(file)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert len(shown(book)) >= 4 and not re.search(r"/(tmp|home|root|work)/", str(book))


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_notebooks_run_and_show_what_is_stored(file: Path, tmp_path: Path) -> None:
    from verification.page import notebook

    need(*JUPYTER, *NEEDS.get(file.stem, ()))
    assert shown(notebook(file, tmp_path)) == shown(read(file))


def test_a_cell_that_fails_is_told(tmp_path: Path) -> None:
    from verification.page import notebook

    need(*JUPYTER)
    import nbformat
    from nbclient.exceptions import CellExecutionError

    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    nbformat.write(book, tmp_path / "wrong.ipynb")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        notebook(tmp_path / "wrong.ipynb", tmp_path)
