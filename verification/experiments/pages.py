"""The results page: committed results in ``docs/results``, figures, and the generated parts of ``docs/results.md``."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pmp_ref.app.files import read_json
from pmp_ref.errors import InputError
from pmp_ref.files import write_atomically
from verification.experiments import EXPERIMENTS, front, make
from verification.experiments.experiment import Experiment, draw
from verification.experiments.training import sparse

POINTS = 100  # of each curve that are committed, and drawn
DIGITS = 6
LIMIT = 4 * 2**20  # bytes: what all committed results, and figures in both colours, may take
MISSING = "No results of the full version are stored yet; the command above makes them."
PNG, SVG = ".png", ".svg"


def publish(out: Path, docs: Path) -> list[str]:
    """Take the full results found below ``out`` into ``docs``, write the page anew; what was done, line by line."""
    page = docs / "results.md"
    if not page.is_file():
        raise InputError(f"no page {str(page)!r}; run this in the root of the repository")
    lines = []
    for name in EXPERIMENTS:
        if (out / name / "results.json").is_file():
            lines.append(take(out / name, name, docs))
    for name in EXPERIMENTS:
        if (file := docs / "results" / f"{name}.json").is_file():
            write_atomically(docs / "results" / f"{name}-table.csv", whole_table(name, read_json(file)).encode())
    lines.append(redraw(docs))
    write_atomically(page, generate(page.read_text(encoding="utf-8"), docs).encode())
    if (docs / "results" / "tradeoff.csv").is_file():
        lines.append(front.publish(docs))
    size = committed(docs)
    if size > LIMIT:
        lines.append(f"warning: results and figures take {size / 2**20:.2f} MiB; expected at most {LIMIT / 2**20} MiB")
    return [*lines, f"{page} written; results and figures take {size / 2**20:.2f} MiB"]


# The columns that the page has room for; a table without an entry is shown whole. NAME-table.csv has all of them.
SHOWN: dict[str, tuple[str, ...]] = {
    "full-batch": (
        "rule",
        "ρ",
        "trials per step",
        "J",
        "kept weights (%)",
        "test accuracy (%)",
        "ε*",
        "descent violations",
    ),
    "mini-batch": (
        "rule",
        "test",
        "batch",
        "ρ",
        "steps with ΔJ > 0 (%)",
        "mean loss, last epoch",
        "kept weights (%)",
        "test accuracy (%)",
    ),
    "tradeoff": (
        "method",
        "strength",
        "epochs",
        "seeds",
        "kept, mean (min–max), %",
        "test accuracy, mean (min–max), %",
    ),
    "ternary": (
        "network",
        "start",
        "seeds",
        "test accuracy there, %",
        "kept, mean (min–max), %",
        "test accuracy, mean (min–max), %",
    ),
    "groups": (
        "penalty",
        "ρ",
        "test accuracy (%)",
        "filters 2 (of 16)",
        "neurons 1 (of 120)",
        "nonzero weights (%)",
        "of all (%)",
        "multiply-adds (%)",
    ),
    "depth": (
        "metric",
        "layers with kernels",
        "ρ",
        "median Ĉ",
        "Ĉ, 90 % over 10 % quantile",
        "batch sweeps to the target loss",
        "kept weights (%)",
        "test accuracy (%)",
    ),
    "non-smooth": (
        "network",
        "rule",
        "trials per step",
        "median ε",
        "median factor between successive Ĉ",
        "missed by T5 (%, median)",
        "kept weights (%)",
        "test accuracy (%)",
    ),
}


def narrow(name: str, headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> tuple[list[str], list[list[Any]]]:
    """The table with the columns that the page shows, in the order of the whole table."""
    chosen = [i for i, heading in enumerate(headings) if heading in SHOWN.get(name, headings)]
    return [headings[i] for i in chosen], [[row[i] for i in chosen] for row in rows]


def whole_table(name: str, found: dict[str, Any]) -> str:
    """All columns of the table, as CSV."""
    headings, rows = make(name).table(found["rows"])
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([headings, *([cell(value) for value in row] for row in rows)])
    return file.getvalue()


def take(source: Path, name: str, docs: Path) -> str:
    """Copy one experiment's results into ``docs``; a line that says so."""
    found = read_json(source / "results.json")
    if found["quick"] or not found["rows"]:
        return f"{name}: left out ({'quick results' if found['quick'] else 'no finished rows'})"
    results = docs / "results"
    results.mkdir(parents=True, exist_ok=True)
    for stored in found["rows"]:
        if "curves" in stored["result"]:
            stored["result"]["curves"] = thinned(stored["result"]["curves"])
    store(found, results / f"{name}.json")
    shutil.copyfile(source / "results.csv", results / f"{name}.csv")
    return f"{name}: {len(found['rows'])} of {found['asked']} rows"


def store(found: dict[str, Any], file: Path) -> None:
    """Write the committed results of an experiment, one row a line, so that a change shows where it is."""
    text = json.dumps(found, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text = text.replace('{"experiment":', '\n{"experiment":')
    write_atomically(file, f"{text.lstrip()}\n".encode())


def redraw(docs: Path) -> str:
    """Draw the figures of all committed results, and nothing else, into an empty folder; a line that says so."""
    figures, count = docs / "figures" / "experiments", 0
    shutil.rmtree(figures, ignore_errors=True)
    for name in EXPERIMENTS:
        if (file := docs / "results" / f"{name}.json").is_file():
            paths = draw(make(name), read_json(file)["rows"], figures)
            store(read_json(file) | {"figures": sorted(path.stem for path in paths if path.suffix == SVG)}, file)
            count += len(paths)
    return f"{figures}: {count} files drawn from the committed results"


def thinned(curves: Any) -> Any:
    """Curves with at most POINTS points each, floats with DIGITS digits."""
    if isinstance(curves, dict):
        return {k: thinned(v) for k, v in curves.items()}
    if isinstance(curves, list):
        return [thinned(curves[i]) for i in sparse(len(curves), POINTS)]
    return float(f"{curves:.{DIGITS}g}") if isinstance(curves, float) else curves


def committed(docs: Path) -> int:
    """Bytes of all results and figures in ``docs``."""
    parts = (docs / "results", docs / "figures" / "experiments")
    return sum(path.stat().st_size for part in parts if part.is_dir() for path in part.iterdir())


def generate(page: str, docs: Path) -> str:
    """The page with the text between ``<!-- NAME -->`` and ``<!-- /NAME -->`` made from the committed results."""
    for name in EXPERIMENTS:
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
            raise InputError(f"docs/results.md; expected {begin.strip()} and after it {end}, each once")
        page = f"{page.partition(begin)[0]}{begin}\n{section(name, docs)}\n{end}{page.partition(end)[2]}"
    return page


def section(name: str, docs: Path) -> str:
    """Command, conditions, table and figures of one experiment, as Markdown."""
    command = f"```bash\npython -m verification.experiments {name}\n```\n"
    file = docs / "results" / f"{name}.json"
    if not file.is_file():
        return f"{command}\n{MISSING}\n"
    found, experiment = read_json(file), make(name)
    parts = [command, conditions(found), markdown(*narrow(name, *experiment.table(found["rows"])))]
    parts += [picture(experiment, stem) for stem in found["figures"]]
    parts.append(
        f"The table with all its columns: [CSV](results/{name}-table.csv). All rows: [CSV](results/{name}.csv), "
        f"[JSON](results/{name}.json).\n"
    )
    return "\n".join(parts)


def conditions(found: dict[str, Any]) -> str:
    """How many rows, when, with which versions, on which machine, how long."""
    rows = found["rows"]
    dates = sorted({row["date"] for row in rows})
    versions = sorted({", ".join(f"{k} {v}" for k, v in row["versions"].items()) for row in rows})
    machines = sorted(
        {
            f"{row['machine']['cores']} cores, {row['machine']['memory_GiB']} GiB, {row['machine']['processor']}"
            for row in rows
        }
    )
    seconds = [row["seconds"] for row in rows]
    count = f"{len(rows)} rows" if len(rows) == found["asked"] else f"{len(rows)} of {found['asked']} rows so far"
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return (
        f"{count}, {when}; {'; '.join(versions)}; {'; '.join(machines)}; {duration(sum(seconds))} in all, "
        f"{duration(max(seconds))} for the longest row.\n"
    )


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, two digits."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def markdown(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; columns of numbers stand to the right."""
    cells = [[cell(value) for value in row] for row in rows]
    right = [all(re.match(r"[–\d−-]", row[i]) for row in cells) for i in range(len(headings))]
    lines = [headings, ["---:" if r else "---" for r in right], *cells]
    return "".join(f"| {' | '.join(map(cell, line))} |\n" for line in lines)


def cell(value: Any) -> str:
    """A value as it stands in a table."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def picture(experiment: Experiment, stem: str) -> str:
    """A figure with its alternative text and its vector form."""
    alt = experiment.alt(stem).replace("[", "(").replace("]", ")")
    place = f"figures/experiments/{stem}"
    return f"![{alt}]({place}{PNG})\n\n[The figure as vector graphics]({place}{SVG}).\n"
