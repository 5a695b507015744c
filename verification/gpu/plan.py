"""What is measured, the most important first."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

SIDES = ("ours", "eager", "eager, channels last", "compiled", "compiled, channels last", "graph")
OPPONENTS = ("eager", "compiled", "graph")
WITHOUT_COMPILED = tuple(side for side in SIDES if not side.startswith("compiled"))
FIRST = (
    ("lenet5", 64),
    ("lenet5-caffe", 64),
    ("lenet5", 1024),
    ("lenet5-caffe", 1024),
    ("residual", 64),
    ("residual", 256),
)


@dataclass(frozen=True)
class Row:
    """An operation on a case, and the sides that do it; with ``memory`` the device memory they hold as well."""

    operation: str
    config: str
    batch: int
    dtype: str
    sides: tuple[str, ...] = SIDES
    memory: bool = False

    @property
    def name(self) -> str:
        """The name that its result is stored under."""
        return f"{self.operation} {self.config} {self.batch} {self.dtype}"

    def question(self) -> dict[str, Any]:
        """The row as a worker is asked for it."""
        return asdict(self)


def rows() -> list[Row]:
    """The rows of the benchmark. Compiled for channels last only where it matters most: compiling takes long."""
    contiguous = tuple(side for side in SIDES if side != "compiled, channels last")
    result = [Row("mini_batch_step", *case, "float32") for case in FIRST]
    result += [Row("full_batch_step", *case, "float32", contiguous) for case in FIRST]
    result += [Row("full_batch_step", "lenet5", 60_000, "float32", ("ours", "eager", "eager, channels last"), True)]
    result += [Row("forward_backward", *case, "float32", contiguous) for case in FIRST]
    result += [
        Row("mini_batch_step", config, batch, "float64", WITHOUT_COMPILED)
        for batch in (64, 1024)
        for config in ("lenet5", "lenet5-caffe", "residual")
    ]
    result += [Row("mini_batch_step", "lenet5", batch, "float32", WITHOUT_COMPILED) for batch in (256, 5000)]
    return result


def profiles() -> list[Row]:
    """The steps that are looked into, after the first rows of the benchmark; by one side each."""
    cases = (("lenet5", 64), ("lenet5", 1024), ("lenet5-caffe", 64), ("residual", 64))
    return [Row("mini_batch_step", *case, "float32", (side,)) for case in cases for side in ("ours", "eager")]


def profile_name(row: Row) -> str:
    """The name that a profile is stored under."""
    return f"{row.name}, {row.sides[0]}"


def tiny(planned: list[Row]) -> list[Row]:
    """The rows with eight images at most, to try the script where there is no GPU."""
    small = [Row(r.operation, r.config, min(8, r.batch), r.dtype, r.sides, r.memory) for r in planned]
    first: dict[str, Row] = {}
    for row in small:
        first.setdefault(profile_name(row) if len(row.sides) == 1 else row.name, row)
    return list(first.values())


def warm_jobs(planned: list[Row]) -> list[list[Row]]:
    """Rows with compiled sides in the groups in which they are compiled beforehand, one process each; a row holds the
    one compiled side that is meant."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in planned:
        for side in row.sides:
            if side.startswith("compiled"):
                key = (side, row.config, str(row.batch), row.dtype)
                groups.setdefault(key, []).append(Row(row.operation, row.config, row.batch, row.dtype, (side,)))
    return [groups[key] for key in sorted(groups, key=lambda key: SIDES.index(key[0]))]
