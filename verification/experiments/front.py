"""The figure of the first page: accuracy over kept weights, from the stored rows of ``tradeoff``, as an SVG drawing.

Lines and letters are those of the page, so the drawing is legible on light and on dark paper and on a phone.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from pathlib import Path
from statistics import fmean

from pmp_ref.files import write_atomically
from verification.experiments.tradeoff import EPOCHS

Points = list[tuple[float, float]]
SERIES = {  # kind of row: colour, marker, where its name stands, its name
    "bsqh": ("#3d85d1", "circle", (1.15, 99.29), "bSQH: one run, nothing retrained"),
    "gradual": ("#d9692b", "square", (0.47, 97.75), "Adam, pruned gradually"),
    "projected": ("#c08a00", "square", (1.12, 98.8), "Adam, projected"),
    "linbreg": ("#b5519b", "square", (2.15, 98.36), "LinBreg, AdaBreg"),
    "adabreg": ("#b5519b", "square", (2.15, 98.36), ""),
    "l0": ("#3c8d4f", "square", (15.0, 98.76), "proximal L0"),
    "retrain": ("#a5722f", "square", (1.25, 96.45), "Adam, pruned once, retrained"),
    "prune": ("#8a8f98", "square", (26.0, 99.02), "Adam, dense"),
}
LEFT, RIGHT, LOW, HIGH = 0.4, 130.0, 96.0, 99.6  # per cent
STYLE = """
    @media (prefers-color-scheme: dark) { svg.drawing:root { color: #d9dce1; } }
    #front text { fill: currentColor; font: 15px system-ui, sans-serif; text-anchor: start; }
    #front .tick { font-size: 13px; text-anchor: middle; }
    #front .left { font-size: 13px; text-anchor: end; }
    #front .grid { stroke: #8a8f98; stroke-width: 1; opacity: .35; }
"""


def series(table: Path) -> dict[str, Points]:
    """(kept weights, test accuracy) in per cent by kind after EPOCHS, means over the seeds of each setting, sorted."""
    groups: dict[tuple[str, str], Points] = defaultdict(list)
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            point = 100 * float(row["kept_fraction"]), 100 * float(row["test_accuracy"])
            if int(row["epochs"]) == EPOCHS:
                groups[row["kind"], row["strength"]].append(point)
    found: dict[str, Points] = {kind: [] for kind in SERIES}
    for (kind, _), points in groups.items():
        if kind in found:
            found[kind].append((fmean(p[0] for p in points), fmean(p[1] for p in points)))
    return {kind: sorted(points) for kind, points in found.items()}


def across(kept: float) -> float:
    """Place on the logarithmic axis."""
    return 48 + 424 * math.log(kept / LEFT) / math.log(RIGHT / LEFT)


def up(accuracy: float) -> float:
    """Place on the other axis."""
    return 268 - 254 * (accuracy - LOW) / (HIGH - LOW)


def drawing(found: dict[str, Points]) -> str:
    """The figure as SVG."""
    parts = []
    for tick in (0.5, 1, 2, 5, 10, 20, 50, 100):
        parts.append(f'<text class="tick" x="{across(tick):.1f}" y="288">{tick:g}</text>')
    for percent in (96, 97, 98, 99):
        parts.append(f'<path class="grid" d="M48 {up(percent):.1f}H472"/>')
        parts.append(f'<text class="left" x="42" y="{up(percent) + 4:.1f}">{percent} %</text>')
    parts.append('<text class="tick" x="260" y="310">kept weights, % of 430,500</text>')
    for kind, (colour, marker, (x, y), name) in SERIES.items():
        places = [(across(a), up(b)) for a, b in found[kind]]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for a, b in places:
            if marker == "circle":
                parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="5.5" fill="{colour}"/>')
            else:
                parts.append(f'<rect x="{a - 4:.1f}" y="{b - 4:.1f}" width="8" height="8" fill="{colour}"/>')
        parts.append(f'<text x="{across(x):.1f}" y="{up(y):.1f}" style="fill: {colour}">{name}</text>')
    head = '<svg xmlns="http://www.w3.org/2000/svg" id="front" class="drawing" data-fits="" viewBox="0 0 480 316">'
    body = "\n  ".join(parts)
    return f"{head}\n  <style>{STYLE}  </style>\n  {body}\n</svg>\n"


def publish(docs: Path) -> str:
    """Draw it from what is stored in ``docs``; a line that says so."""
    file = docs / "figures" / "front.svg"
    write_atomically(file, drawing(series(docs / "results" / "tradeoff.csv")).encode())
    return f"{file}: drawn"
