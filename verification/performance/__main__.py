"""``python -m verification.performance [--quick] [--json FILE] [--figure FILE] [--table FILE] [--docs]``.

``python -m verification.performance ranks``: MPI ranks and threads, see ``ranks.py``.
``python -m verification.performance remainders``: T7b beside AutoBound, see ``remainders.py``.
``python -m verification.performance live``: time per step while units die, see ``live.py``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from verification.entry import enter
from verification.performance import live, ranks, remainders
from verification.performance.benchmark import Benchmark, plan
from verification.performance.figure import draw, into_page, table

PAGE, FIGURE = Path(__file__).parents[2] / "docs" / "performance.md", "figures/performance.png"


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(prog="python -m verification.performance", description=__doc__)
    made.add_argument("--quick", action="store_true", help="a few rows, about three minutes")
    made.add_argument("--json", type=Path, help="write all rows to this file")
    made.add_argument("--figure", type=Path, help="draw ratios and scaling into this file")
    made.add_argument("--table", type=Path, help="write the table, as Markdown, to this file")
    made.add_argument("--docs", action="store_true", help="put figure and table into docs/performance.md")
    made.add_argument("--threads", type=int, help="threads of both sides (default: all cores)")
    made.add_argument("--only", help="rows whose text 'operation config batch dtype' contains this")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["ranks"]:
        return ranks.main(given[1:])
    if given[:1] == ["remainders"]:
        return remainders.main(given[1:])
    if given[:1] == ["live"]:
        return live.main(given[1:])
    return enter(parser(), command, given)


def command(options: argparse.Namespace) -> int:
    """Run the benchmark; 0."""
    rows = plan(options.quick)
    if options.only:
        rows = [r for r in rows if options.only in " ".join(map(str, r))]
    result = Benchmark(options.quick, lambda text: print(text, flush=True), options.threads).run(rows)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.figure:
        draw(result, options.figure)
    if options.table:
        options.table.write_text(table(result))
    if options.docs:
        draw(result, PAGE.parent / FIGURE)
        PAGE.write_text(into_page(PAGE.read_text(), result, FIGURE))
    return 0


if __name__ == "__main__":
    sys.exit(main())
