"""Runs claims: each in its profile, and in the micro profile under every planted fault that touches it."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from typing import Any

from verification.claim import CLAIMS, Claim, Context, Outcome, evaluate
from verification.claims import MODULES
from verification.coverage import parts, watch
from verification.libraries import load
from verification.planting import TABLES
from verification.planting.fault import FAULTS, read_sources, targets
from verification.planting.kill_matrix import Cell, misfit, one_cell


def load_all() -> dict[str, Claim]:
    """Import all modules of claims and faults; the claims in the order of the report."""
    for name in MODULES:
        importlib.import_module(f"verification.claims.{name}")
    for name in TABLES:
        importlib.import_module(f"verification.planting.{name}")
    read_sources()
    return CLAIMS


@dataclass(frozen=True)
class ClaimResult:
    """A claim's outcome in the profile of the run, and what its unfaulted micro run showed."""

    tag: str
    outcome: Outcome
    seconds: float
    micro_seconds: float = 0.0
    parts: frozenset[str] = frozenset()
    faults: frozenset[str] = frozenset()  # names of the faults whose functions it calls


@dataclass(frozen=True)
class Settings:
    """What a run is made with."""

    seed: int = 0
    profile: str = "quick"
    backend: str = "numpy"
    dtype: str = "float64"
    tags: tuple[str, ...] = ()
    jobs: int = 2

    def context(self, tag: str) -> Context:
        """The context of a claim."""
        return Context(self.seed, self.profile, load(self.backend), self.dtype, tag)


@dataclass
class Results:
    """All that a run found."""

    settings: Settings
    claims: dict[str, ClaimResult] = field(default_factory=dict)
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """True if all claims ran, so that survivors and coverage can be judged."""
        return set(self.claims) == set(CLAIMS)

    def caught_by(self, name: str) -> list[str]:
        """Tags of the claims that catch the fault."""
        return [tag for tag in self.claims if self.cells[tag, name].state == "caught"]

    def catches(self, tag: str) -> list[str]:
        """Names of the faults that the claim catches."""
        return [name for name in FAULTS if self.cells[tag, name].state == "caught"]

    def covered(self) -> dict[str, list[str]]:
        """Part of the core → tags of the claims that execute it."""
        return {part.name: [tag for tag, r in self.claims.items() if part.name in r.parts] for part in parts()}

    def problems(self) -> list[str]:
        """Everything that makes the run red, one line each."""
        found = []
        for tag, result in self.claims.items():
            if result.outcome.error:
                found.append(f"{tag} broke down: {result.outcome.error.splitlines()[-1]}")
            elif not result.outcome.holds:
                found.append(f"{tag} fails, replay with: --replay {result.outcome.worst}")
        found += [
            f"{c.tag} under the fault {c.fault!r}: {c.detail.strip().splitlines()[-1]}"
            for c in self.cells.values()
            if c.state == "error"
        ]
        if self.cells:
            found += [
                f"{tag} catches no fault"
                for tag, result in self.claims.items()
                if result.outcome.applicable and not self.catches(tag)
            ]
        found += [f"a fault does not fit the code: {misfit(fault)}" for fault in FAULTS.values() if misfit(fault)]
        if self.complete:
            for name in FAULTS:
                if misfit(FAULTS[name]):
                    continue
                if not any(self.cells[tag, name].state in ("caught", "survived", "error") for tag in self.claims):
                    found.append(f"the fault {name!r} was never executed")
                elif not self.caught_by(name):
                    found.append(f"the fault {name!r} survives")
            found += [f"no claim exercises {name}" for name, tags in self.covered().items() if not tags]
        known = {part.name for part in parts()}
        seen = {name for r in self.claims.values() for name in r.parts}
        found += [f"{name} came up and is not among the parts of coverage.py" for name in sorted(seen - known)]
        return found


def run(settings: Settings) -> Iterator[tuple[Results, str]]:
    """Run everything; yields the results so far with a line about what was just done."""
    load_all()
    start = time.perf_counter()
    results = Results(settings)
    tags = settings.tags or tuple(CLAIMS)
    with ProcessPoolExecutor(settings.jobs, get_context("spawn"), initializer=_begin) as pool:
        waiting: dict[Future[Any], str] = {pool.submit(run_claim, settings, tag): tag for tag in tags}
        done: dict[str, ClaimResult] = {}
        for future in as_completed(waiting):
            result = future.result()
            done[result.tag] = result
            state = "holds" if result.outcome.holds else "FAILS"
            state = state if result.outcome.applicable else "not applicable"
            yield results, f"{result.tag}: {state} ({result.seconds:.1f} s)"
        results.claims = {tag: done[tag] for tag in tags}
        cells = {}
        for name in FAULTS:
            touched = tuple(tag for tag in tags if name in done[tag].faults)
            for tag in tags:
                results.cells[tag, name] = Cell(tag, name, "not executed")
            if touched:
                cells[pool.submit(run_fault, name, touched)] = name
        for future in as_completed(cells):
            row = future.result()
            for cell in row:
                results.cells[cell.tag, cell.fault] = cell
            caught = [cell.tag for cell in row if cell.state == "caught"]
            yield (
                results,
                f"planted {cells[future]!r}: " + (f"caught by {', '.join(caught)}" if caught else "NOT CAUGHT"),
            )
    results.seconds = time.perf_counter() - start
    yield results, ""


def run_claim(settings: Settings, tag: str) -> ClaimResult:
    """One claim in the run's profile, then in the micro profile, watched there (watching doubles the time)."""
    claim, known = load_all()[tag], parts()
    start = time.perf_counter()
    outcome = evaluate(claim, settings.context(tag))
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    with watch(known) as micro:
        small = evaluate(claim, Context(profile="micro", tag=tag))
    if outcome.holds and not small.holds:
        outcome = replace(small, notes=(*outcome.notes, "the micro profile of this claim fails without any fault"))
    took = time.perf_counter() - start
    fit = {name: fault for name, fault in FAULTS.items() if not misfit(fault)}
    faults = frozenset(name for name, fault in fit.items() if any(id(c) in micro.codes for c in targets(fault)))
    return ClaimResult(tag, outcome, seconds, took, frozenset(micro.names(known)), faults)


def run_fault(name: str, tags: tuple[str, ...]) -> list[Cell]:
    """The cells of one fault for the claims given."""
    claims = load_all()
    return [one_cell(claims[tag], name) for tag in tags]


def _begin() -> None:
    """In each worker: linear algebra in one thread, for there is one worker for each core."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
    load_all()
