"""Coverage: which public parts of the core a claim executes. A part that no claim executes turns the run red.

The parts are found by looking at the package, never listed by hand: every public function of a core module, every
public method and property of every concrete class (an inherited map counts for each stage on its own), every status
and every verdict. What a claim executes is seen by ``sys.setprofile`` in its micro profile, the one that faults are
planted in: a part that only longer runs reach could hold a fault that no cell of the kill matrix sees.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import pmp_ref
from pmp_ref.result import Record, Run, Status, Verdict
from verification.planting.fault import code_of

# Not the core: the application, files, what users call (it chooses a sweep and calls the core), and what is checked
# against the core: kernels, compaction.
OUTSIDE = (
    "pmp_ref.accuracy",
    "pmp_ref.app",
    "pmp_ref.compact",
    "pmp_ref.data",
    "pmp_ref.estimator",
    "pmp_ref.kernels",
    "pmp_ref.cupy_kernels",
    "pmp_ref.files",
    "pmp_ref.interop",
    "pmp_ref.library",
    "pmp_ref.model",
    "pmp_ref.watch",
    "pmp_ref.__main__",
)
SPECIAL = ("__call__",)


@dataclass(frozen=True)
class Part:
    """A public part of the core: a function (``owner`` None) or a method of a concrete class."""

    name: str
    kind: str
    code: Any = field(repr=False, default=None, compare=False)
    owner: type | None = field(repr=False, default=None, compare=False)


def core_modules() -> list[Any]:
    """The modules of the core, imported."""
    names = ["pmp_ref", *(m.name for m in pkgutil.walk_packages(pmp_ref.__path__, "pmp_ref."))]
    inside = [n for n in names if not any(n == out or n.startswith(out + ".") for out in OUTSIDE)]
    return [importlib.import_module(name) for name in inside]


def parts() -> list[Part]:
    """All public parts of the core, by name."""
    found: dict[str, Part] = {}
    for module in core_modules():
        short = module.__name__.removeprefix("pmp_ref.")
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
                continue
            if inspect.isfunction(value):
                found[f"{short}.{name}"] = Part(f"{short}.{name}", "function", code_of(value))
            elif inspect.isclass(value) and not inspect.isabstract(value) and Protocol not in value.__bases__:
                for part in _methods(value, f"{short}.{name}"):
                    found[part.name] = part
    for status in Status:
        found[f"status: {status}"] = Part(f"status: {status}", "status")
    for verdict in Verdict:
        found[f"verdict: {verdict}"] = Part(f"verdict: {verdict}", "verdict")
    return sorted(found.values(), key=lambda part: (part.kind, part.name))


def _methods(cls: type, prefix: str) -> Iterator[Part]:
    for name in dir(cls):
        value = inspect.getattr_static(cls, name)
        if name.startswith("_") and name not in SPECIAL:
            continue
        if isinstance(value, property) or inspect.isfunction(value):
            code = code_of(value)
            if "pmp_ref" in code.co_filename:  # not what dataclasses or enum generate
                yield Part(f"{prefix}.{name}", "method", code, cls)


@dataclass
class Seen:
    """What ran: names of parts, and the code objects by identity (for the faults that touch them)."""

    codes: dict[int, Any] = field(default_factory=dict)
    owners: set[tuple[int, type]] = field(default_factory=set)
    values: set[str] = field(default_factory=set)

    def names(self, of: list[Part]) -> set[str]:
        """The names of those parts that ran."""
        found = set(self.values)
        for part in of:
            if part.code is not None and id(part.code) in self.codes:
                if part.owner is None or (id(part.code), part.owner) in self.owners:
                    found.add(part.name)
        return found


@contextmanager
def watch(of: list[Part]) -> Iterator[Seen]:
    """Record in the with-block which functions are called, in this thread."""
    seen = Seen()
    methods = {id(part.code) for part in of if part.owner is not None}
    results = {id(Run.__init__.__code__): "status", id(Record.__init__.__code__): "verdict"}
    codes, owners, values = seen.codes, seen.owners, seen.values

    def note(frame: Any, event: str, argument: Any) -> None:
        if event != "call":
            return
        code = frame.f_code
        key = id(code)
        codes[key] = code  # holds the code object, so that its identity stays its own
        if key in methods:
            owners.add((key, type(frame.f_locals.get("self"))))
        elif key in results:
            values.add(f"{results[key]}: {frame.f_locals[results[key]]}")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(before)
