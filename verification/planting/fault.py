"""Planted faults (negative controls): wrong formulas in the real code path, each of which a claim must catch.

They stand in one table, ``faults_*.py`` beside this file, by subject. An entry reads like a change to the source: name,
place, the piece that goes, the piece that comes, and why shapes or special cases may hide it. ``[theory]`` marks the
list of the theory, "Planted faults". ::

    W for Wᵀ in the costate of square dense stages  [theory]
      pmp_ref.layers.dense:Dense.adjoint_state
      - matmul(p, k)
      + matmul(p, planted(k.T if k.shape[0] == k.shape[1] else k))
      why: square kernels hide it from shapes; non-square ones are right

The place is one function, "module:function" or "module:Class.method". It is taken in the normal form of its syntax tree
(``ast.unparse``: no comments, line breaks between statements only, single quotes), the piece is replaced, and the
result, compiled in the function's own module, stands in its place for the time of a with-block. No file changes, and a
function may move in its file or be formatted anew. A piece must occur exactly once, so that a fault cannot silently
miss when the code is rewritten. The new text calls ``planted(value)``, which returns the value and counts: a fault that
was never executed proves nothing, and counts as not caught and as an error.

Which claim catches which fault is computed, not written down (``kill_matrix.py``).
"""

from __future__ import annotations
import __future__

import ast
import builtins
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from pmp_ref.arrays import compiled

PACKAGES = ("pmp_ref", "verification")


@dataclass(frozen=True)
class Edit:
    """One replaced piece of source: ``target`` is "module:function" or "module:Class.method"."""

    target: str
    old: str
    new: str


@dataclass(frozen=True)
class Fault:
    """A named fault. ``section6``: it is on the list of the theory, "Planted faults"; ``why`` it may hide."""

    name: str
    edits: tuple[Edit, ...]
    section6: bool = False
    why: str = ""


@dataclass
class Executed:
    """How often planted code ran."""

    count: int = 0

    def planted(self, value: Any) -> Any:
        """The value; counts."""
        self.count += 1
        return value


FAULTS: dict[str, Fault] = {}
MARK = "  [theory]"


def faults(table: str) -> list[Fault]:
    """Register the faults of a table. Raises ValueError for a name given twice, an entry without a change, and a fault
    that could not prove its execution."""
    found = []
    for entry in re.split(r"\n\s*\n", table.strip()):
        lines = [line for line in entry.split("\n") if not line.startswith("#")]
        if lines:
            found.append(_read(lines))
    for one in found:
        if FAULTS.get(one.name, one) != one:
            raise ValueError(f"fault {one.name!r} is registered twice")
        FAULTS[one.name] = one
    return found


def _read(lines: list[str]) -> Fault:
    """One entry of a table."""
    name, *rest = lines
    place, why = "", ""
    changes: list[tuple[str, list[str], list[str]]] = []  # place, the lines that go, the lines that come
    for line in rest:
        if line.startswith("  why: "):
            why = line[7:]
        elif line.startswith("  - "):
            if not changes or changes[-1][2]:
                changes.append((place, [], []))
            changes[-1][1].append(line[4:])
        elif line.startswith("  + ") and changes:
            changes[-1][2].append(line[4:])
        else:
            place = line.strip()
    edits = tuple(Edit(place, "\n".join(old), "\n".join(new)) for place, old, new in changes)
    if not any("planted(" in edit.new for edit in edits):
        raise ValueError(f"fault {name!r}: the new text calls planted(…) nowhere, so its execution could not be seen")
    return Fault(name.removesuffix(MARK), edits, name.endswith(MARK), why)


class NotPlantable(Exception):
    """A fault does not fit the code: its target or its text is not there. Always an error of the run."""


@contextmanager
def plant(one: Fault) -> Iterator[Executed]:
    """The fault is switched on inside the with-block. Raises NotPlantable if it does not fit the code."""
    executed = Executed()
    undo: list[tuple[Any, str, bool, Any]] = []
    builtins.planted = executed.planted  # type: ignore[attr-defined]  # the only names planted code sees everywhere
    try:
        for target, pieces in _by_target(one).items():
            owner, name = locate(target)
            original = inspect.getattr_static(owner, name)
            new = _compile(one, original, pieces)
            places = [(owner, name)] if isinstance(owner, type) else _importers(original)
            for place, attribute in places:
                own = attribute in vars(place)
                undo.append((place, attribute, own, vars(place).get(attribute)))
                setattr(place, attribute, new)
        compiled.cache_clear()  # kernels made before the fault, and below those made with it
        yield executed
    finally:
        compiled.cache_clear()
        for place, attribute, own, before in reversed(undo):
            if own:
                setattr(place, attribute, before)
            else:
                delattr(place, attribute)
        del builtins.planted  # type: ignore[attr-defined]


def locate(target: str) -> tuple[Any, str]:
    """(owner, attribute) of a target; raises NotPlantable if it is not there."""
    path, _, qualified = target.partition(":")
    try:
        module = importlib.import_module(path)
        owner: Any = module
        *parents, name = qualified.split(".")
        for parent in parents:
            owner = getattr(owner, parent)
        inspect.getattr_static(owner, name)
    except (ImportError, AttributeError) as error:
        raise NotPlantable(f"{target} is not there: {error}") from None
    return owner, name


def code_of(function: Any) -> Any:
    """The code object of a function, method or property."""
    if isinstance(function, property):
        function = function.fget
    if isinstance(function, staticmethod | classmethod):
        function = function.__func__
    return inspect.unwrap(function).__code__


def targets(one: Fault) -> set[Any]:
    """Code objects of the functions that the fault replaces."""
    found = set()
    for edit in one.edits:
        owner, name = locate(edit.target)
        found.add(code_of(inspect.getattr_static(owner, name)))
    return found


def _by_target(one: Fault) -> dict[str, list[Edit]]:
    pieces: dict[str, list[Edit]] = {}
    for edit in one.edits:
        pieces.setdefault(edit.target, []).append(edit)
    return pieces


def _compile(one: Fault, original: Any, pieces: list[Edit]) -> Any:
    """The function compiled anew with its pieces replaced, with the globals of its own module."""
    function: Any = original.fget if isinstance(original, property) else inspect.unwrap(original)
    home = sys.modules[function.__module__]  # an inherited method lives in the module of its class
    source = source_of(function)
    for edit in pieces:
        if source.count(edit.old) != 1:
            raise NotPlantable(
                f"fault {one.name!r}: {edit.old!r} occurs {source.count(edit.old)} times in {edit.target}, not once; "
                f"its normal form is\n{source}"
            )
        source = source.replace(edit.old, edit.new)
    local: dict[str, Any] = {}
    code = compile(source, f"<planted: {one.name}>", "exec", flags=__future__.annotations.compiler_flag)
    # In the globals of the module itself, not a copy: planted code must see what other edits put there.
    exec(code, vars(home), local)
    return local[function.__name__]


@cache
def source_of(function: Any) -> str:
    """The normal form of a function, read once: a file changed during a run must not be mistaken for what runs."""
    return ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(function))))


@cache
def read_sources() -> None:
    """Read the sources of all targets now, once. Those that are not there are reported when the fault is planted."""
    for one in FAULTS.values():
        for edit in one.edits:
            try:
                owner, name = locate(edit.target)
            except NotPlantable:
                continue
            original = inspect.getattr_static(owner, name)
            source_of(original.fget if isinstance(original, property) else inspect.unwrap(original))


def _importers(original: Any) -> list[tuple[ModuleType, str]]:
    """Every (module, name) of the packages under which the function is looked up."""
    found = []
    for path, module in list(sys.modules.items()):
        if module is not None and path.split(".")[0] in PACKAGES:
            found += [(module, name) for name, value in list(vars(module).items()) if value is original]
    return found
