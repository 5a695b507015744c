"""``python -m verification.performance ranks``: MPI ranks and threads against one process, and a model of more ranks.

Every variant is a group of processes that stays; in a round each of them works for some tenths of a second, one group
after the other, and ratios are taken within a round (``pairs.py``). Groups whose turn it is not sleep.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import shutil
import sys
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from pmp_ref.controls import plain_layout
from pmp_ref.kernels.sweep import chunk_size
from pmp_ref.kernels.workers import available_cores
from verification.performance.benchmark import machine
from verification.performance.configurations import network
from verification.performance.pairs import kept, rounds, side, spread
from verification.performance.scaling import NETWORK, Cost, Wire, exchange, fit, wire

DOCS = Path(__file__).parents[2] / "docs"
STORED, PAGE, FIGURE = DOCS / "scaling.json", DOCS / "scaling.md", "figures/scaling.png"
MARKS = "<!-- results: written by the benchmark -->", "<!-- end of results -->"
VARIANTS = ((1, 1), (2, 1), (1, 2))  # ranks, threads; the first is what the others are compared with
CONFIGS = ("lenet5", "lenet5-caffe")
STRONG = tuple(
    (operation, config, batch)
    for operation in ("forward_backward", "mini_batch_step", "full_batch_step")
    for config in CONFIGS
    for batch in (64, 256, 1024)
)
PREDICTED = tuple(2**k for k in range(11))
FULL = (10**6, 10**7, 10**8)


def controls_of(config: str) -> int:
    """Entries of all controls of a network."""
    return plain_layout(network(config).control_shapes).size


class RanksBenchmark:
    """Groups of processes and settings of one run."""

    def __init__(self, quick: bool, say: Any) -> None:
        self.quick, self.say, self.cores = quick, say, available_cores()
        self.wanted, self.budget, self.seconds = (3, 10.0, 0.2) if quick else (9, 90.0, 0.4)
        mpiexec = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or shutil.which("mpiexec")
        if mpiexec is None or importlib.util.find_spec("mpi4py") is None:
            raise SystemExit("error: no mpi4py or no mpiexec here: pip install mpi4py mpich")
        self.command = (mpiexec, "-n", "{}", sys.executable, "-m", "verification.performance.ranks_worker")

    def run(self) -> dict[str, Any]:
        """All rows, and the constants fitted to them."""
        with contextlib.ExitStack() as stack:
            sides = {
                v: stack.enter_context(side("ranks", v[1], None, tuple(a.format(v[0]) for a in self.command)))
                for v in VARIANTS
            }
            strong = [self.row(sides, *case) for case in STRONG if not self.quick or case[2] < 1024]
            weak = [
                self.weak(sides, config, batch)
                for config in CONFIGS
                for batch in ((256,) if self.quick else (64, 256, 1024))
            ]
            sliced = [self.sliced(sides[2, 1], batch) for batch in ((64,) if self.quick else (64, 256))]
            exchanges = [
                self.exchange(sides[2, 1], operation, config)
                for operation in ("latency", "exchange")
                for config in CONFIGS
            ]
        return {
            "date": date.today().isoformat(),
            "machine": machine(self.cores),
            "quick": self.quick,
            "strong": strong,
            "weak": weak,
            "sliced": sliced,
            "exchanges": exchanges,
        }

    def row(self, sides: Any, operation: str, config: str, batch: int) -> dict[str, Any]:
        """Strong scaling: the same batch on each variant."""
        about = {"operation": operation, "config": config, "batch": batch, "dtype": "float32"}
        found = {v: s.ask("setup", key="x", threads=v[1], **about) for v, s in sides.items()}
        if len(set(found.values())) > 1:
            raise SystemExit(f"error: {about}: the losses are {found}, and should be one number")
        row = {**about, "controls": controls_of(config), **self.compared({v: (s, "x") for v, s in sides.items()})}
        self.say(f"{operation:17s} {config:13s} {batch:5d}  {told(row)}")
        return row

    def weak(self, sides: Any, config: str, batch: int) -> dict[str, Any]:
        """Weak scaling: twice the batch on two ranks or two threads."""
        about = {"operation": "mini_batch_step", "config": config, "dtype": "float32"}
        for v, s in sides.items():
            s.ask("setup", key="x", threads=v[1], batch=batch * v[0] * v[1], **about)
        row = {**about, "batch": batch, **self.compared({v: (s, "x") for v, s in sides.items()})}
        self.say(f"weak, {batch} a core  {config:13s}  {told(row)}")
        return row

    def sliced(self, two: Any, batch: int) -> dict[str, Any]:
        """A step of LeNet-5-Caffe on two ranks, its arithmetic sliced or made twice."""
        about = {
            "operation": "mini_batch_step",
            "config": "lenet5-caffe",
            "batch": batch,
            "dtype": "float32",
            "threads": 1,
        }
        for name, sliced in (("replicated", False), ("sliced", True)):
            two.ask("setup", key=name, sliced=sliced, **about)
        done = kept(
            rounds({n: (two, n) for n in ("replicated", "sliced")}, self.wanted, self.budget, self.seconds, self.cores),
            self.wanted,
        )
        row = {
            "batch": batch,
            **{n: median(r.ms[n] for r in done) for n in ("replicated", "sliced")},
            "busy": not all(r.quiet for r in done),
        }
        row["ratio"], row["low"], row["high"] = spread([r.ms["replicated"] / r.ms["sliced"] for r in done])
        self.say(f"LeNet-5-Caffe at {batch} on two ranks: replicated over sliced {row['ratio']:.2f}")
        two.ask("drop")
        return row

    def exchange(self, two: Any, operation: str, config: str) -> dict[str, Any]:
        """What two ranks tell each other in a step, without the step."""
        two.ask("setup", key="x", operation=operation, config=config, batch=2, dtype="float32", threads=1)
        done = kept(rounds({"x": (two, "x")}, self.wanted, self.budget / 3, self.seconds, self.cores), self.wanted)
        return {
            "operation": operation,
            "config": config,
            "controls": controls_of(config),
            "ms": median(r.ms["x"] for r in done),
        }

    def compared(self, variants: dict[tuple[int, int], Any]) -> dict[str, Any]:
        """Times of all variants, and how many times faster than one process with one thread."""
        named = {f"{p}x{t}": where for (p, t), where in variants.items()}
        done = rounds(named, self.wanted, self.budget, self.seconds, self.cores)
        use = kept(done, self.wanted)
        result: dict[str, Any] = {"ms": median(r.ms["1x1"] for r in use), "busy": not any(r.quiet for r in done)}
        for name in named:
            result[name] = spread([r.ms["1x1"] / r.ms[name] for r in use])
        for s, _ in variants.values():
            s.ask("drop")
        return result


def told(row: dict[str, Any]) -> str:
    """A row in words."""
    speeds = ", ".join(f"{n} {row[n][0]:.2f}×" for n in ("2x1", "1x2"))
    return f"{row['ms']:8.2f} ms, ranks x threads {speeds}{'  BUSY: says little' if row['busy'] else ''}"


def fitted(result: dict[str, Any]) -> tuple[Cost, Wire]:
    """The model's constants."""
    return fit([r for r in result["strong"] if r["operation"] == "mini_batch_step"]), wire(result["exchanges"])


ALT = (
    "Left: measured speed-ups of two ranks and of two threads over one. Right: computed times of a full-batch step on "
    "1 to 1,024 ranks."
)
HEAD = """
*Measured*, float32: how many times faster than one process with one thread, median and quartiles. In the rows *weak*
each core has so many images, and 1.00 would be perfect.

| operation | network | batch | 1 rank, 1 thread, ms | 2 ranks | 1 rank, 2 threads |
|---|---|---:|---:|---:|---:|"""
BUSY = " **The machine was busy with other work: these figures say little and are to be measured anew.**"


def table(result: dict[str, Any]) -> str:
    """Measured speed-ups, fitted constants and predictions, as Markdown."""
    cost, node = fitted(result)
    busy = any(r["busy"] for r in result["strong"] + result["weak"] + result["sliced"])
    lines = [
        f"Measured on {result['date']}: {result['machine']}.{BUSY if busy else ''}",
        "",
        f"![{ALT}]({FIGURE})",
        HEAD,
    ]
    for kind, rows in (("", result["strong"]), ("weak: ", result["weak"])):
        for r in rows:
            cells = kind + r["operation"], r["config"], r["batch"], f"{r['ms']:.2f}", speed(r["2x1"]), speed(r["1x2"])
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines.append("")
    for r in result["sliced"]:
        lines.append(
            f"* A mini-batch step of lenet5-caffe at {r['batch']} on two ranks: {r['replicated']:.2f} ms if each rank "
            f"does all of the method's arithmetic, {r['sliced']:.2f} ms if each does its slice; ratio "
            f"{r['ratio']:.2f} ({r['low']:.2f}–{r['high']:.2f})."
        )
    images = ", ".join(f"{1e6 * c:.1f} µs ({name})" for name, c in cost.image.items())
    lines += [
        "",
        f"*Fitted*: an image {images}; a control {1e9 * cost.control:.1f} ns; a step {1e6 * cost.fixed:.0f} µs. "
        f"Between two ranks of this machine a small exchange takes {1e6 * node.latency:.0f} µs, and "
        f"{node.bandwidth / 1e9:.1f} GB/s pass.",
        "",
        "*Computed*, not measured: seconds of a step of lenet5-caffe, one thread a rank, with these constants and a "
        f"network of {1e6 * NETWORK.latency:.0f} µs and {NETWORK.bandwidth / 1e9:.0f} GB/s, which is an assumption. In "
        "brackets the part that is exchange.",
        "",
        "| ranks | " + " | ".join(f"{batch:,} images" for batch in FULL) + " | mini-batch of 4,096 |",
        "|---:|" + "---:|" * (len(FULL) + 1),
    ]
    for ranks in (1, 16, 64, 256, 1024):
        times = [f"{predicted(cost, ranks, b):.3g} ({share(cost, ranks, b):.1%})" for b in (*FULL, 4096)]
        lines.append(f"| {ranks:,} | " + " | ".join(times) + " |")
    return "\n".join(lines) + "\n"


def speed(value: Any) -> str:
    """Median and quartiles."""
    middle, low, high = value
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"


def predicted(cost: Cost, ranks: int, batch: int) -> float:
    """Seconds of a step of LeNet-5-Caffe."""
    return cost.step("lenet5-caffe", controls_of("lenet5-caffe"), ranks, batch, chunk_size(batch, 4), NETWORK)


def share(cost: Cost, ranks: int, batch: int) -> float:
    """Part of a step that is exchange."""
    return exchange(ranks, controls_of("lenet5-caffe"), NETWORK) / predicted(cost, ranks, batch)


def draw(result: dict[str, Any], path: Path) -> None:
    """Left, measured: speed-ups. Right, computed: time of a step over ranks."""
    from matplotlib.figure import Figure

    cost, _ = fitted(result)
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows = result["strong"]
    for name, shift, colour, label in (("2x1", -0.2, "#0072B2", "2 ranks"), ("1x2", 0.2, "#E69F00", "2 threads")):
        at = [i + shift for i in range(len(rows))]
        left.bar(
            at,
            [r[name][0] for r in rows],
            0.36,
            color=colour,
            label=label,
            hatch="///" if any(r["busy"] for r in rows) else None,
        )
        for x, r in zip(at, rows, strict=True):
            left.plot([x, x], r[name][1:], color="0.35", linewidth=1)
    left.axhline(1, color="0.5", linewidth=0.8)
    left.axhline(2, color="0.5", linewidth=0.8, linestyle=":")
    left.set_xticks(
        range(len(rows)), [f"{r['operation']}\n{r['config']} {r['batch']}" for r in rows], rotation=90, fontsize=6
    )
    left.set_ylabel("times faster than one rank with one thread")
    left.set_title("measured" + (" on a busy machine: says little" if any(r["busy"] for r in rows) else ""))
    left.legend()
    for batch, colour in zip((4096, *FULL), ("#009E73", "#0072B2", "#E69F00", "#CC79A7"), strict=True):
        times = [predicted(cost, p, batch) for p in PREDICTED]
        right.loglog(PREDICTED, times, "o-", color=colour, markersize=3, label=f"{batch:,} images")
        right.loglog(PREDICTED, [times[0] / p for p in PREDICTED], ":", color=colour, linewidth=0.8)
    right.set_xlabel("ranks")
    right.set_ylabel("seconds for a step of LeNet-5-Caffe")
    right.set_title("computed; dotted: ideal")
    right.legend(fontsize=8)
    figure.savefig(path, dpi=130)


def main(arguments: list[str]) -> int:
    """Measure, or draw anew what is stored; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m verification.performance ranks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few rows, some minutes")
    parser.add_argument("--json", type=Path, help="write all rows to this file")
    parser.add_argument("--docs", action="store_true", help="put figure and table into docs/scaling.md")
    parser.add_argument("--stored", action="store_true", help="measure nothing: take docs/scaling.json")
    options = parser.parse_args(arguments)
    if options.stored:
        result = json.loads(STORED.read_text())
    else:
        result = RanksBenchmark(options.quick, lambda text: print(text, flush=True)).run()
    text = table(result)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.docs:
        STORED.write_text(json.dumps(result, indent=1) + "\n")
        draw(result, DOCS / FIGURE)
        page = PAGE.read_text()
        start, end = page.index(MARKS[0]) + len(MARKS[0]), page.index(MARKS[1])
        PAGE.write_text(page[:start] + "\n\n" + text + "\n" + page[end:])
    return 0
