"""Rows of the benchmark: each side in a process of its own, so that one that fails takes no other along.

The processes live on from row to row. Only one is active at a time: they are made ready one after the other, since
PyTorch chooses algorithms by measuring them, and then measured in turn, again and again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from verification.gpu.plan import OPPONENTS, Row
from verification.gpu.process import Worker, WorkerError, first_assertion
from verification.performance.pairs import spread

AGREE = {"float32": 1e-4, "float64": 1e-10}  # relative difference of the losses that the sides end with
SECONDS = 2.0  # of measuring for a row
FEWEST, MOST = 5, 60  # rounds
LIMIT = 60.0  # seconds for an answer


class Sides:
    """The processes by side; one that has failed is replaced by a new one for the next row."""

    def __init__(self, common: dict[str, str]) -> None:
        self.common = common  # array library and device
        self.workers: dict[str, Worker] = {}
        self.starting: set[str] = set()

    def begin(self, sides: Sequence[str]) -> None:
        """Have the processes that are not there start, all together, without waiting for them."""
        for side in sides:
            if side not in self.workers:
                self.workers[side] = Worker()
                self.workers[side].send(do="start", side=side, **self.common)
                self.starting.add(side)

    def ask(self, side: str, until: float, errors: dict[str, str], **question: Any) -> Any:
        """The side's answer, without a question to the one asked before. None where it has failed: then its process is
        gone and ``errors`` says why."""
        worker = self.workers.get(side)
        if worker is None:
            return None
        limit = max(0.0, min(LIMIT, until - time.monotonic()))
        try:
            reply = worker.ask(limit, **question, **self.common) if question else worker.answer(limit)
        except WorkerError as error:
            errors[side] = str(error)
        else:
            if "error" not in reply:
                return reply["answer"]
            errors[side] = first_assertion(worker.close()) + reply["error"]
        del self.workers[side]
        return None

    def measure(self, row: Row, limit: float, seconds: float = SECONDS) -> dict[str, Any]:
        """The result of a row, within ``limit`` seconds: what each side says of its preparation, why sides failed, and
        the summary of the rounds. ``finished`` is false if the time was over before."""
        until = time.monotonic() + limit
        prepared: dict[str, dict[str, Any]] = {}
        errors: dict[str, str] = {}
        found: dict[str, Any] = {"prepared": prepared, "errors": errors}
        self.begin(row.sides)
        for side in row.sides:
            if side in self.starting:
                self.ask(side, until, errors)
                self.starting.discard(side)
        for side in row.sides:
            question = replace(row, sides=(side,)).question()
            if answer := self.ask(side, until, errors, do="prepare", row=question):
                prepared[side] = answer
        disagree(row, found)
        if "error" not in found:
            working = {side: answer["repeats"] for side, answer in prepared.items() if side not in errors}
            done = self.rounds(working, until, errors, seconds)
            if done and working:
                found |= summary([{side: one[side] for side in working} for one in done])
        return {**found, "finished": time.monotonic() < until}

    def rounds(
        self, working: dict[str, int], until: float, errors: dict[str, str], seconds: float
    ) -> list[dict[str, float]]:
        """Milliseconds of each side in turn, until the seconds are over. A side that fails is taken out of ``working``:
        a mapping from sides to calls in a turn."""
        done: list[dict[str, float]] = []
        start = time.monotonic()
        while working and len(done) < MOST and time.monotonic() < until:
            allowed = seconds if len(done) >= FEWEST else 4 * seconds
            if len(done) >= 2 and time.monotonic() - start > allowed:
                break
            done.append({})
            for side, repeats in list(working.items()):
                if answer := self.ask(side, until, errors, do="turn", repeats=repeats):
                    done[-1][side] = answer
                else:
                    del working[side]
        return done

    def close(self) -> None:
        """End all processes."""
        for worker in self.workers.values():
            worker.close()
        self.workers.clear()


def disagree(row: Row, found: dict[str, Any]) -> None:
    """Note as errors the sides whose loss is not that of PyTorch, eager; an error of the row if ours is among them."""
    losses = {side: answer["loss"] for side, answer in found["prepared"].items()}
    wanted = losses.get("eager")
    for side, loss in losses.items():
        if loss != loss or (wanted is not None and not abs(loss - wanted) <= AGREE[row.dtype] * abs(wanted)):
            found["errors"][side] = f"ends with the loss {loss}, PyTorch, eager, with {wanted}; expected the same"
            if side == "ours":
                found["error"] = f"ours {found['errors'][side]}"


def summary(done: list[dict[str, float]]) -> dict[str, Any]:
    """Median and quartiles of milliseconds by side; ratios ours/opponent as medians over the rounds, the opponent in
    the layout whose median is lower."""
    ms = {side: spread([r[side] for r in done]) for side in done[0]}
    ratios: dict[str, Any] = {}
    for opponent in OPPONENTS:
        variants = [side for side in ms if side.partition(", ")[0] == opponent]
        if variants and "ours" in ms:
            best = min(variants, key=lambda side: ms[side][0])
            ratios[opponent] = median(r["ours"] / r[best] for r in done)
    return {"ms": ms, "ratios": ratios, "rounds": len(done)}
