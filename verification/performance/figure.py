"""The figure and the table of a benchmark's result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from verification.performance.benchmark import slope

COLOURS = {"float32": "#0072B2", "float64": "#E69F00"}


def draw(result: dict[str, Any], path: Path) -> None:
    """Above: ratios as bars, quartiles as whiskers, the products alone as black strokes. Below: time per image."""
    from matplotlib.figure import Figure

    rows = [r for r in result["rows"] if r["ratio"] is not None]
    figure = Figure(figsize=(11, 8.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=(1.3, 1))
    groups = list(dict.fromkeys((r["operation"], r["config"], r["batch"]) for r in rows))
    for r in rows:
        at = groups.index((r["operation"], r["config"], r["batch"])) + (-0.2 if r["dtype"] == "float32" else 0.2)
        upper.bar(at, r["ratio"], 0.36, color=COLOURS[r["dtype"]], hatch="///" if r["busy"] else None)
        upper.plot([at, at], [r["ratio_low"], r["ratio_high"]], color="0.35", linewidth=1)
        if r["floor_ms"]:
            upper.plot([at - 0.18, at + 0.18], [r["floor_ms"] / r["other_ms"]] * 2, color="black", linewidth=2)
    for dtype, colour in COLOURS.items():
        upper.bar(0, 0, color=colour, label=dtype)
    upper.plot([], [], color="black", linewidth=2, label="matrix products alone")
    if any(r["busy"] for r in rows):
        upper.bar(0, 0, color="white", edgecolor="black", hatch="///", label="no quiet round: says little")
    upper.axhline(1, color="0.5", linewidth=0.8)
    labels = [f"{o.replace('_', ' ')} · {c} · {b}" for o, c, b in groups]
    upper.set_xticks(range(len(groups)), labels, rotation=90, fontsize=7)
    upper.set_xlim(-0.6, max(len(groups), 1) - 0.4)
    upper.set_ylabel("time, ours / the best opponent")
    upper.set_title(f"{result['machine']}, {result['threads']} threads, {result['date']}", fontsize=10)
    if rows:
        upper.legend(fontsize=8)
    for name, marker in (("batch", "o"), ("depth", "s"), ("width", "^")):
        points = result["scaling"][name]
        words = {
            "batch": "batch size (lenet5)",
            "depth": "residual blocks (width 8)",
            "width": "width (3 residual blocks)",
        }
        lower.loglog(*zip(*points, strict=True), marker=marker, label=f"{words[name]}: slope {slope(points):.2f}")
    lower.grid(which="major", color="0.9")
    lower.set_xlabel("batch size, number of residual blocks, width")
    lower.set_ylabel("microseconds per image, float32")
    lower.legend(fontsize=8)
    figure.savefig(path, dpi=130)


def table(result: dict[str, Any]) -> str:
    """All rows as a Markdown table."""
    text = [
        "| operation | network | batch | dtype | ours, ms | best opponent, ms | which | ratio | quartiles "
        "| ratio to PyTorch's default | products alone, ms | rounds (discarded) |",
        "|---|---|---:|---|---:|---:|---|---:|---|---:|---:|---|",
    ]
    for r in result["rows"]:
        if r["operation"] == "peak_memory":
            continue
        number = lambda key, form=".2f", r=r: "" if r[key] is None else format(r[key], form)  # noqa: E731
        mark = " busy" if r["busy"] else ""
        text.append(
            f"| {r['operation']} | {r['config']} | {r['batch']} | {r['dtype']} "
            f"| {number('ours_ms')} | {number('other_ms')} "
            f"| {r['other_variant'] or ''} | {number('ratio')} | {number('ratio_low')}–{number('ratio_high')} "
            f"| {number('ratio_default')} | {number('floor_ms')} | {r['rounds']} ({r['discarded']}){mark} |"
        )
    text += [
        "",
        "| operation | network | batch | dtype | ours, MiB above the data | PyTorch, MiB above the data |",
        "|---|---|---:|---|---:|---:|",
    ]
    for r in result["rows"]:
        if r["operation"] == "peak_memory":
            other = "" if r["other_peak_mib"] is None else f"{r['other_peak_mib']:.0f}"
            ours = f"{r['ours_peak_mib']:.0f}"
            text.append(f"| full_batch_step | {r['config']} | {r['batch']} | {r['dtype']} | {ours} | {other} |")
    return "\n".join(text) + "\n"


BEGIN, END = "<!-- results: written by the benchmark -->", "<!-- end of results -->"


def into_page(page: str, result: dict[str, Any], figure: str) -> str:
    """The page with everything between the two marks replaced by this result."""
    head, rest = page.split(BEGIN)
    tail = rest.split(END)[1]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(result["versions"].items()))
    busy = sum(bool(r.get("busy")) for r in result["rows"])
    note = f" In {busy} rows every round was disturbed by other load; they are marked." if busy else ""
    slopes = "; ".join(f"{name} {slope(points):.2f}" for name, points in result["scaling"].items())
    where = f"{result['machine']}, {result['threads']} threads on both sides; {versions}"
    alt = (
        "Bars: our time over that of the best opponent, row by row, with the matrix products alone as lines. "
        "Below, time per image over batch size, depth and width, on logarithmic axes."
    )
    text = (
        f"Measured on {result['date']}: {where}.{note}\n\n![{alt}]({figure})\n\n"
        f"Slopes of log time per image: {slopes}.\n\n{table(result)}"
    )
    return f"{head}{BEGIN}\n\n{text}\n{END}{tail}"
