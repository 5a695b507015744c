"""Split a Python source into rows of prose (docstrings, whole-line comments) and code, for the annotated pages.

Nothing is lost and nothing is added: every line of the source that is not blank is in exactly one row, as prose or as
code (``tests/test_docs_annotated.py`` holds this). Only the standard library is used.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field, replace

PRAGMA = re.compile(r"#\s*(fmt:|noqa|type:|ruff:|pragma)")


@dataclass
class Row:
    """One row of an annotated page: ``prose`` left, ``code`` right, with the line numbers each was taken from.

    ``name`` is the dotted name of the class or function that begins here, "" in between; ``kind`` its kind.
    """

    name: str = ""
    kind: str = ""
    prose: str = ""
    comment: str = ""
    prose_lines: list[int] = field(default_factory=list)
    code_lines: list[int] = field(default_factory=list)

    def code(self, lines: list[str]) -> str:
        """The code of the row as in the source, without blank lines at its ends."""
        shown = []
        for before, n in zip([0, *self.code_lines], self.code_lines, strict=False):
            if lines[n - 1].strip() or n == before + 1:  # no blank line where a docstring was
                shown.append(lines[n - 1])
        return "\n".join(shown).strip("\n")


def split(source: str) -> list[Row]:
    """The rows of a module in reading order."""
    lines = source.splitlines()
    tree = ast.parse(source)
    inside = _string_lines(tree)
    docstrings: dict[int, tuple[str, range]] = {}  # first line of the definition → text, lines
    starts: dict[int, tuple[str, str]] = {}  # first line of the definition → dotted name, kind
    _walk(tree, "", docstrings, starts)
    hidden = {n: start for start, (_, covered) in docstrings.items() for n in covered}

    rows = [Row(kind="module")]
    open_comment = False
    for n, line in enumerate(lines, start=1):
        if n in starts:
            name, kind = starts[n]
            carried = rows[-1] if open_comment and not rows[-1].code_lines else None
            if carried is None:
                rows.append(Row())
            rows[-1].name, rows[-1].kind = name, kind
            open_comment = False
        if n in hidden:
            row = _row_of(rows, starts, hidden[n])
            if not row.prose_lines or row.prose_lines[-1] != n - 1 or not row.prose:
                row.prose = docstrings[hidden[n]][0]
            row.prose_lines.append(n)
        elif line.lstrip().startswith("#") and not PRAGMA.match(line.lstrip()) and n not in inside:
            if not open_comment:
                rows.append(Row())
                open_comment = True
            rows[-1].comment += line.strip().lstrip("#").strip() + "\n"
            rows[-1].prose_lines.append(n)
        else:
            if line.strip():
                open_comment = False
            rows[-1].code_lines.append(n)
    return [row for row in rows if row.prose_lines or row.code(lines).strip()]


def _row_of(rows: list[Row], starts: dict[int, tuple[str, str]], start: int) -> Row:
    """The row of the definition that starts at that line (0: the module)."""
    if start == 0:
        return rows[0]
    name = starts[start][0]
    return next(row for row in reversed(rows) if row.name == name)


def _walk(
    node: ast.AST, prefix: str, docstrings: dict[int, tuple[str, range]], starts: dict[int, tuple[str, str]]
) -> None:
    """Collect definitions of a module or class body, and every docstring, with their lines."""
    body = getattr(node, "body", [])
    if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        text = body[0].value.value
        if isinstance(text, str):
            start = 0 if isinstance(node, ast.Module) else _first_line(node)
            one_liner = not isinstance(node, ast.Module) and body[0].lineno == node.lineno  # type: ignore[attr-defined]
            if not one_liner:
                docstrings[start] = (_clean(text), range(body[0].lineno, body[0].end_lineno + 1))  # type: ignore[operator]
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return  # functions inside functions stay with the code around them
    for child in body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{prefix}{child.name}"
            kind = "class" if isinstance(child, ast.ClassDef) else "method" if prefix else "function"
            dunder = kind == "method" and re.fullmatch(r"__\w+__", child.name) is not None
            if not dunder or ast.get_docstring(child):  # others stay with what stands above them
                starts[_first_line(child)] = (name, kind)
            _walk(child, f"{name}.", docstrings, starts)


def _first_line(node: ast.AST) -> int:
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(d.lineno for d in decorators)])  # type: ignore[attr-defined]


def _string_lines(tree: ast.AST) -> set[int]:
    """Lines after the first of strings over several lines: a "#" there begins no comment."""
    return {
        n
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant | ast.JoinedStr) and node.end_lineno is not None
        for n in range(node.lineno + 1, node.end_lineno + 1)
    }


def _clean(text: str) -> str:
    lines = text.expandtabs().splitlines()
    margin = min((len(s) - len(s.lstrip()) for s in lines[1:] if s.strip()), default=0)
    return "\n".join([lines[0].strip(), *(s[margin:].rstrip() for s in lines[1:])]).strip("\n") if lines else ""


@dataclass(frozen=True)
class Block:
    """A block of prose.

    ``kind`` is "paragraph", "heading", "list", "table", "formula" (indented) or "code" (indented, behind "::").
    """

    kind: str
    text: str = ""
    items: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def blocks(text: str) -> list[Block]:
    """The blocks of a docstring. No markup language is assumed: ``|w|`` and ``A*p`` are formulas here."""
    result: list[Block] = []
    lines = text.splitlines()
    i = 0
    while i < len(lines):
        line = lines[i]
        if not line.strip():
            i += 1
        elif re.fullmatch(r"=+( +=+)+\s*", line):
            i, block = _table(lines, i)
            result.append(block)
        elif i + 1 < len(lines) and re.fullmatch(r"([-=~])\1{3,}", lines[i + 1].strip()):
            result.append(Block("heading", line.strip()))
            i += 2
        elif line.startswith("    "):
            j = i
            while j < len(lines) and (lines[j].startswith("    ") or not lines[j].strip()):
                j += 1
            part = lines[i:j]
            margin = min(len(s) - len(s.lstrip()) for s in part if s.strip())
            code = result != [] and result[-1].text.endswith("::")
            if code:
                result[-1] = replace(result[-1], text=result[-1].text.removesuffix(":").rstrip())
            result.append(Block("code" if code else "formula", "\n".join(s[margin:] for s in part).rstrip()))
            i = j
        elif re.match(r"[*-] ", line):
            items: list[str] = []
            while i < len(lines) and lines[i].strip() and (re.match(r"[*-] ", lines[i]) or lines[i].startswith("  ")):
                if re.match(r"[*-] ", lines[i]):
                    items.append(lines[i][2:].strip())
                else:
                    items[-1] += " " + lines[i].strip()
                i += 1
            result.append(Block("list", items=tuple(items)))
        else:
            j = i
            while j < len(lines) and lines[j].strip() and not lines[j].startswith("    "):
                j += 1
            result.append(Block("paragraph", " ".join(s.strip() for s in lines[i:j])))
            i = j
    return result


def _table(lines: list[str], i: int) -> tuple[int, Block]:
    edges = [m.start() for m in re.finditer(r"=+", lines[i])]
    j = i + 1
    rows = []
    while j < len(lines) and not re.fullmatch(r"=+( +=+)+\s*", lines[j]):
        # A cell may stick out by a little: cut at the last run of two blanks before or at the edge.
        line = lines[j]
        cells, rest = [], line
        for _ in edges[1:]:
            head, _, rest = rest.partition("  ")
            cells.append(head.strip())
            rest = rest.lstrip()
        rows.append((*cells, rest.strip()))
        j += 1
    return j + 1, Block("table", rows=tuple(rows))
