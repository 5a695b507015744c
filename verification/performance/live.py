"""``python -m verification.performance live``: time per step over a training run whose units die (T22).

The run is ``pmp-ref train`` with the options of ``RUNS``, step for step and on one thread. At points along it the next
step is made again and again from where the run is, in turn by the sweep that leaves dead units out and by the one that
sweeps them all; these steps are thrown away, so the run stays what it is. Times are processor time, since the machine
may have other work; what others used of it is stored beside them.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from pmp_ref.app.build import Setup, build
from pmp_ref.app.options import flag, resolve
from pmp_ref.files import write_atomically
from pmp_ref.iterate import Iterate
from pmp_ref.kernels import FastSweep
from pmp_ref.kernels.blas import one_thread
from pmp_ref.kernels.workers import available_cores
from pmp_ref.one_step import step
from pmp_ref.problem import Problem
from pmp_ref.result import Record
from verification.entry import enter
from verification.performance.benchmark import machine
from verification.performance.load import now, other_load
from verification.performance.pairs import BUSY, side, spread
from verification.performance.worker import blas

DOCS = Path(__file__).parents[2] / "docs"
STORED, PAGE, FIGURE = DOCS / "live.json", DOCS / "performance.md", "figures/live.svg"
MARKS = "<!-- live: written by python -m verification.performance live -->", "<!-- end of live -->"
RUNS = {  # by quick: the run's options, and of how many of its steps a median is taken
    False: (
        {
            "data": "mnist",
            "network": "lenet5-caffe",
            "keep": "1%",
            "batch_size": "128",
            "epochs": "14",
            "held_out": "0",
        },
        50,
    ),
    True: ({"keep": "1%", "batch_size": "128", "epochs": "12"}, 6),
}
POINTS = {False: 48, True: 12}  # along a run, at which both sweeps are timed
ROUNDS = 7  # at each of them
FIRST, SECOND = 0.1, 0.5  # the first epochs, in which ρ = 0, end there; the second half begins there

Say = Callable[[str], None]


class Watch:
    """The callback of a run: the times of its steps, and of those that are made at ``points`` of it by both sweeps."""

    def __init__(self, setup: Setup, points: int, rounds: int, say: Say) -> None:
        sweep = setup.problem.sweep
        assert isinstance(sweep, FastSweep)
        self.setup, self.sweep, self.rounds, self.say = setup, sweep, rounds, say
        self.problems = {"live": setup.problem, "whole": setup.problem.swept_by(replace(sweep, live=False))}
        self.every = max(1, setup.batches * (setup.stop.epochs or 1) // points)
        self.size = setup.network.kernel_size()
        self.steps: list[tuple[float, float, float]] = []  # epochs done, milliseconds, part of the weights kept
        self.points: list[dict[str, Any]] = []
        self.since = time.process_time()

    def __call__(self, it: Iterate, record: Record) -> None:
        if not record.accepted:  # its time belongs to the step that is accepted in the end
            return
        ms = 1e3 * (time.process_time() - self.since)
        epoch, kept = it.epoch + it.place.position / self.setup.batches, record.nonzeros / self.size
        self.steps.append((epoch, ms, kept))
        if it.step % self.every == 0:
            self.points.append({"epoch": epoch, "kept": kept, **self.compared(it, record.rho)})
            self.say(
                "epoch {epoch:5.2f}  kept {kept:7.2%}  live {live:6.2f} ms  whole {whole:6.2f} ms".format(
                    **self.points[-1]
                )
            )
        self.since = time.process_time()

    def compared(self, it: Iterate, rho: float) -> dict[str, Any]:
        """The next step by both sweeps in turn: milliseconds, the ratio, what is swept, and what others used."""
        x, y = self.setup.batch(it.epoch, it.place.position)
        ms: dict[str, list[float]] = {name: [] for name in self.problems}
        start, own = now(), time.process_time()
        for i in range(self.rounds + 1):
            for name, problem in self.problems.items():
                seconds = self.timed(problem, it, x, y, rho)
                if i > 0:  # in the first round arrays are made
                    ms[name].append(1e3 * seconds)
        load = other_load(start, now(), time.process_time() - own, available_cores())
        part = self.sweep.parts.at(it.controls, self.sweep.of)
        swept = self.sweep if part is None else part.sweep
        middle, low, high = spread([a / b for a, b in zip(ms["live"], ms["whole"], strict=True)])
        return {
            **{name: median(values) for name, values in ms.items()},
            **{"ratio": middle, "low": low, "high": high, "load": load},
            "multiplications": swept.work / self.sweep.work,
            "units": units(swept),
        }

    def timed(self, problem: Problem, it: Iterate, x: Any, y: Any, rho: float) -> float:
        """Seconds of one trial from ``it`` on the batch, which is thrown away."""
        start = time.process_time()
        step(problem, self.setup.method, it, x, y, rho, full=False)
        return time.process_time() - start


def units(sweep: FastSweep) -> list[int]:
    """Neurons and filters of all stages that have some, but the last."""
    return [shapes[0][0] for shapes in sweep.network.control_shapes if shapes][:-1]


def measured(options: dict[str, str], window: int, points: int, rounds: int, say: Say) -> dict[str, Any]:
    """The run of these options, in numbers: medians over ``window`` of its steps, and ``points`` with both sweeps."""
    with one_thread():
        setup = build(resolve(options), threads=1)
        watch = Watch(setup, points, rounds, say)
        setup.solve(watch)
    windows = [watch.steps[i : i + window] for i in range(0, len(watch.steps), window)]
    return {
        "date": date.today().isoformat(),
        "machine": machine(available_cores()),
        "blas": blas(),
        "command": " ".join(["pmp-ref train", *(f"{flag(name)} {value}" for name, value in options.items())]),
        "network": setup.options.network,
        "epochs": setup.stop.epochs,
        "window": window,
        "units": units(watch.sweep),
        "steps": [{"epoch": w[-1][0], "ms": round(median(s[1] for s in w), 4), "kept": w[-1][2]} for w in windows],
        "points": watch.points,
    }


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds in the first epochs and in the second half, and the ratio of both sweeps there."""
    end = result["epochs"]
    first = median(s["ms"] for s in result["steps"] if s["epoch"] <= FIRST * end)
    second = median(s["ms"] for s in result["steps"] if s["epoch"] > SECOND * end)
    late = [p for p in result["points"] if p["epoch"] > SECOND * end]
    middle, low, high = spread([p["ratio"] for p in late])
    loads = [p["load"] for p in result["points"] if p["load"] is not None]
    return {
        **{"first": first, "second": second, "over_time": second / first},
        **{"paired": middle, "low": low, "high": high, "load": median(loads) if loads else None},
    }


def text(result: dict[str, Any]) -> str:
    """The paragraph of the page."""
    found, last = summary(result), result["points"][-1]
    others = "" if found["load"] is None else f", of which others used {found['load']:.0%} meanwhile"
    busy = found["load"] is not None and found["load"] > BUSY
    note = " The machine had other work, now more and now less: the paired numbers say most." if busy else ""
    return (
        f"Measured on {result['date']}: {result['machine']}{others}; {result['blas']}; one thread, processor time; "
        f"`{result['command']}`.{note}\n\n![{alternative(result)}]({FIGURE})\n\n"
        "Against the same steps with all units, made in turn, a step of the second half takes "
        f"**{found['paired']:.2f}** of the time (quartiles {found['low']:.2f}–{found['high']:.2f}). "
        f"Against the steps of the first epochs it takes {found['over_time']:.2f}, "
        f"{found['second']:.1f} ms and {found['first']:.1f}. At the end {last['kept']:.1%} of the weights are left, "
        f"{listed(last['units'])} of {listed(result['units'])} units are swept, and a sweep has "
        f"{last['multiplications']:.2f} of the multiplications.\n"
    )


def listed(numbers: list[int]) -> str:
    """20, 50 and 500."""
    return " and ".join([", ".join(map(str, numbers[:-1])), str(numbers[-1])])


# --- the figure -------------------------------------------------------------------------------------------------------

BLUE, ORANGE, GREEN, GREY = "#3d85d1", "#d9692b", "#3c8d4f", "#8a8f98"
STYLE = """
    @media (prefers-color-scheme: dark) { svg.drawing:root { color: #d9dce1; } }
    #live-run text { fill: currentColor; font: 14px system-ui, sans-serif; text-anchor: start; }
    #live-run .tick { font-size: 13px; text-anchor: middle; }
    #live-run .left { font-size: 13px; text-anchor: end; }
    #live-run .grid { stroke: #8a8f98; stroke-width: 1; opacity: .35; }
    #live-run polyline { fill: none; stroke-width: 2; }
"""
LEFT, RIGHT = 52, 472
PANELS = (32, 170), (216, 316), (360, 460)  # upper and lower edges: milliseconds, ratios, kept weights


def drawing(result: dict[str, Any]) -> str:
    """Time per step, its ratio, and the weights kept, one below the other over the epochs."""
    steps, points, end = result["steps"], result["points"], result["epochs"]
    most = 1.1 * max([s["ms"] for s in steps] + [p["whole"] for p in points])
    least = 0.8 * min(s["kept"] for s in steps)
    parts: list[str] = []

    def up(panel: int, part: float) -> float:
        """The place of a part of a panel's height, from its lower edge."""
        upper, lower = PANELS[panel]
        return lower - (lower - upper) * min(part, 1.0)

    def share(kept: float) -> float:
        return 1 - math.log(kept) / math.log(least)

    def grid(panel: int, part: float, label: str) -> None:
        parts.append(f'<path class="grid" d="M{LEFT} {up(panel, part):.1f}H{RIGHT}"/>')
        parts.append(f'<text class="left" x="{LEFT - 6}" y="{up(panel, part) + 4:.1f}">{label}</text>')

    def line(panel: int, colour: str, rows: list[dict[str, Any]], part: Callable[[Any], float], more: str = "") -> None:
        places = [f"{LEFT + (RIGHT - LEFT) * r['epoch'] / end:.1f},{up(panel, part(r)):.1f}" for r in rows]
        parts.append(f'<polyline stroke="{colour}"{more} points="{" ".join(places)}"/>')

    def title(panel: int, *words: tuple[str, str]) -> None:
        spans = " ".join(f'<tspan style="fill: {colour}">{text}</tspan>' for text, colour in words)
        parts.append(f'<text x="{LEFT}" y="{PANELS[panel][0] - 12}">{spans}</text>')

    ink = "currentColor"
    title(0, ("ms per step:", ink), ("all units,", ORANGE), ("without dead ones", BLUE))
    title(1, ("their ratio,", BLUE), ("and that of multiplications", GREY))
    title(2, ("weights kept", GREEN))
    gap = next(g for g in (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, math.inf) if most / g <= 5)
    for n in range(int(most / gap) + 1):
        grid(0, n * gap / most, f"{n * gap:g}" if n else "0")
    for tenth in (0, 5, 10):
        grid(1, tenth / 12, f"{tenth / 10:g}")
    for percent in (100, 10, 1, 0.1):
        if percent / 100 >= least:
            grid(2, share(percent / 100), f"{percent:g} %")
    line(0, BLUE, steps, lambda s: s["ms"] / most, ' style="opacity: .4"')
    line(0, ORANGE, points, lambda p: p["whole"] / most)
    line(0, BLUE, points, lambda p: p["live"] / most)
    line(1, GREY, points, lambda p: p["multiplications"] / 1.2)
    line(1, BLUE, points, lambda p: p["ratio"] / 1.2)
    line(2, GREEN, steps, lambda s: share(s["kept"]))
    bottom = PANELS[2][1]
    for epoch in range(0, end + 1, max(1, end // 6)):
        parts.append(
            f'<text class="tick" x="{LEFT + (RIGHT - LEFT) * epoch / end:.1f}" y="{bottom + 20}">{epoch}</text>'
        )
    parts.append(f'<text class="tick" x="{(LEFT + RIGHT) / 2:g}" y="{bottom + 42}">epochs</text>')
    box = f'id="live-run" class="drawing" data-fits="" viewBox="0 0 480 {bottom + 50}"'
    body = "\n  ".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box}>\n  <style>{STYLE}  </style>\n  {body}\n</svg>\n'


def alternative(result: dict[str, Any]) -> str:
    """What the figure shows, in words."""
    points = result["points"]
    whole = [p["whole"] for p in points]
    return (
        f"Above, time per step over the epochs of a run: with all units between {min(whole):.0f} and {max(whole):.0f} "
        f"milliseconds, without the dead ones {points[0]['live']:.0f} in the beginning and {points[-1]['live']:.0f} at "
        f"the end. In the middle the ratio of both, and the ratio of multiplications, which comes down to "
        f"{points[-1]['multiplications']:.2f}. Below, the share of weights kept, on a logarithmic axis, from "
        f"{result['steps'][0]['kept']:.0%} down to {points[-1]['kept']:.1%}."
    )


# --- the command ------------------------------------------------------------------------------------------------------


def into_page(page: str, result: dict[str, Any]) -> str:
    """The page with what stands between its two marks written anew."""
    start, end = page.index(MARKS[0]) + len(MARKS[0]), page.index(MARKS[1])
    return page[:start] + "\n\n" + text(result) + "\n" + page[end:]


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(prog="python -m verification.performance live", description=__doc__)
    made.add_argument("--quick", action="store_true", help="LeNet-5 on the bundled images, under a minute")
    made.add_argument("--json", type=Path, help="write all numbers to this file")
    made.add_argument("--figure", type=Path, help="draw into this file, as SVG")
    made.add_argument("--docs", action="store_true", help="put figure and numbers into docs/performance.md")
    made.add_argument("--stored", action="store_true", help="measure nothing: take docs/live.json")
    return made


def command(options: argparse.Namespace) -> int:
    """Measure, or take what is stored; 0."""
    if options.stored:
        result = json.loads(STORED.read_text(encoding="utf-8"))
    else:  # in a process of its own, without the settings that throttle OpenBLAS
        with side("live", threads=1) as worker:
            result = worker.ask("live", quick=options.quick)
    print(text(result))
    stored = (json.dumps(result, indent=1) + "\n").encode()
    if options.json:
        write_atomically(options.json, stored)
    if options.figure:
        write_atomically(options.figure, drawing(result).encode())
    if options.docs:
        write_atomically(STORED, stored)
        write_atomically(DOCS / FIGURE, drawing(result).encode())
        write_atomically(PAGE, into_page(PAGE.read_text(encoding="utf-8"), result).encode())
    return 0


def main(arguments: list[str]) -> int:
    """Run the command line; the exit code."""
    return enter(parser(), command, arguments)


def in_worker(quick: bool) -> dict[str, Any]:
    """What ``worker.py`` does when it is asked: progress goes to stderr."""
    return measured(*RUNS[quick], POINTS[quick], ROUNDS, lambda line: print(line, file=sys.stderr, flush=True))
