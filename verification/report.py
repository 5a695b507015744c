"""The report on the terminal and as JSON. The page with formulas and figures is made by ``html.py``."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from verification.claim import CLAIMS
from verification.coverage import parts
from verification.planting.fault import FAULTS
from verification.runner import Results

SCHEMA = 1
MARKS = {"caught": "●", "survived": "○", "not executed": "·", "error": "!"}


class Terminal:
    """Progress in one line where the stream is a terminal, and the tables at the end."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.live = stream.isatty()
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without Unicode shows "?" instead of failing

    def progress(self, line: str) -> None:
        """What was just done."""
        if not line:
            return
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            self.stream.write("\r" + line[:width].ljust(width))
        else:
            self.stream.write(line + "\n")
        self.stream.flush()

    def show(self, results: Results) -> None:
        """The tables and the verdict."""
        if self.live:
            self.stream.write("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r")
        write = lambda text="": self.stream.write(text + "\n")  # noqa: E731
        s = results.settings
        write()
        write(f"Verification of the theory of bSQH: {s.profile}, {s.backend}, {s.dtype}, seed {s.seed}")
        write()
        write(
            f"{'tag':6}{'':14}{'measured':>11}    {'bound':>10}  {'margin':>7} "
            f"{'inst.':>6} {'faults':>6} {'sec.':>6}  claim"
        )
        for tag, result in results.claims.items():
            o = result.outcome
            if not o.applicable:
                write(f"{tag:6}{'not applicable':14}{'':44}  {CLAIMS[tag].title}")
                continue
            state = "error" if o.error else "holds" if o.holds else "FAILS"
            write(
                f"{tag:6}{state:14}{o.measured:11.3g} {o.sense} {o.bound:10.3g}  {o.margin:7.3f} {o.instances:6d} "
                f"{len(results.catches(tag)):6d} {result.seconds:6.1f}  {CLAIMS[tag].title}"
            )
        write()
        self._faults(results, write)
        self._coverage(results, write)
        found = results.problems()
        for line in found:
            write(f"RED: {line}")
        write(
            f"{'RED' if found else 'GREEN'}: {len(results.claims)} claims, {len(FAULTS)} planted faults, "
            f"{results.seconds:.0f} s"
        )

    def _faults(self, results: Results, write: Any) -> None:
        caught = [name for name in FAULTS if results.caught_by(name)]
        write(
            f"Planted faults: {len(caught)} of {len(FAULTS)} caught"
            + ("" if results.complete else " (only the claims asked for ran: survivors are not judged)")
        )
        width = max((len(name) for name in FAULTS), default=0)
        for name in FAULTS:
            who = results.caught_by(name)
            if who or results.complete:
                write(f"  {name.ljust(width)}  {', '.join(who) if who else 'SURVIVES'}")
        write()

    def _coverage(self, results: Results, write: Any) -> None:
        covered = results.covered()
        missing = [name for name, tags in covered.items() if not tags]
        write(
            f"Public parts of the core exercised: {len(covered) - len(missing)} of {len(covered)}"
            + ("" if results.complete else " (not judged)")
        )
        write()


def as_json(results: Results) -> dict[str, Any]:
    """The results as the documented object (docs/verification.md)."""
    s = results.settings
    kinds = {part.name: part.kind for part in parts()}
    about = {"profile": s.profile, "seed": s.seed, "backend": s.backend, "dtype": s.dtype}
    claims = [
        {"tag": tag, "title": CLAIMS[tag].title, "statement": CLAIMS[tag].statement}
        | asdict(r.outcome)
        | {"seconds": r.seconds, "micro_seconds": r.micro_seconds, "backend": s.backend, "dtype": s.dtype}
        | {"catches": results.catches(tag)}
        for tag, r in results.claims.items()
    ]
    faults = [asdict(fault) | {"caught_by": results.caught_by(name)} for name, fault in FAULTS.items()]
    matrix = {
        "claims": list(results.claims),
        "faults": list(FAULTS),
        "cells": [[results.cells[tag, name].state for name in FAULTS] for tag in results.claims],
    }
    coverage = [{"name": name, "kind": kinds[name], "exercised_by": tags} for name, tags in results.covered().items()]
    problems = results.problems()
    found = {"schema": SCHEMA, "ok": not problems, "problems": problems, **about, "seconds": results.seconds}
    return _plain(found | {"claims": claims, "faults": faults, "kill_matrix": matrix, "coverage": coverage})


def write_json(results: Results, path: Path) -> None:
    """Write :func:`as_json` to a file; numbers that are not finite become the strings "inf", "-inf", "nan"."""
    path.write_text(
        json.dumps(as_json(results), ensure_ascii=False, indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )


def write_faults(results: Results, path: Path) -> None:
    """Write the table of faults and the claims that catch them as Markdown (docs/verification-faults.md)."""
    lines = [
        "# Which fault is caught by which claim",
        "",
        "Written by `python -m verification --faults docs/verification-faults.md`.",
        "Faults in bold are those of [the list in the theory](theory/limits.md#planted-faults).",
        "",
        "| fault | where | caught by |",
        "|---|---|---|",
    ]
    for name, fault in FAULTS.items():
        where = ", ".join(f"`{target}`" for target in dict.fromkeys(e.target for e in fault.edits))
        words = name.replace("*", "\\*").replace("|", "\\|")  # a bare bar would end the cell
        label = f"**{words}**" if fault.section6 else words
        lines.append(f"| {label} | {where} | {', '.join(results.caught_by(name)) or 'none'} |")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
