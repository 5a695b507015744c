"""The results on the terminal."""

from __future__ import annotations

from typing import Any

from verification.gpu.plan import OPPONENTS, SIDES


def benchmark(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Milliseconds by side and ratios ours/opponent, one line a row."""
    head = ["row", *SIDES, *(f"ours/{name}" for name in OPPONENTS)]
    lines = [[name, *cells(row)] for name, row in rows.items()]
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    shown = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in [head, *lines]
    ]
    for name, row in rows.items():
        shown += [f"{name}: {shortened(row['error'])}"] if "error" in row else []
        shown += [f"{name}, {side}: {shortened(error)}" for side, error in row.get("errors", {}).items()]
    return shown


def cells(row: dict[str, Any]) -> list[str]:
    """The numbers of a row; a dash where there is none."""
    ms, ratios = row.get("ms", {}), row.get("ratios", {})
    return [
        *(f"{ms[side][0]:.3f}" if side in ms else "–" for side in SIDES),
        *(f"{ratios[name]:.2f}" if name in ratios else "–" for name in OPPONENTS),
    ]


def profiles(rows: dict[str, dict[str, Any]]) -> list[str]:
    """One line for each step that was looked into."""
    return [f"{name}: {profile(row)}" for name, row in rows.items()]


def profile(row: dict[str, Any]) -> str:
    """What was found of a step."""
    if "error" in row:
        return shortened(row["error"])
    wall = row["µs without the profiler"]
    return (
        f"{'–' if wall is None else f'{wall:.0f}'} µs of the clock ({row['µs with the profiler']:.0f} with the "
        f"profiler, which slows the host), {row['device µs']:.0f} µs on the device, "
        f"{sum(k['count'] for k in row['kernels']):.0f} kernels and copies"
    )


def shortened(text: str) -> str:
    """The beginning of an error that the file has in full."""
    return text if len(text) <= 300 else text[:300] + " …"


def parts(stored: dict[str, Any]) -> list[str]:
    """One line for each part with a verdict."""
    lines = []
    for name, found in stored.items():
        verdict = "agreed" if found.get("agreed") else "did NOT agree" if found.get("finished") else "was cut off"
        lines.append(f"{name}: {verdict}{detail(name, found)}")
        lines += [f"  failed: {test}" for test in found.get("failing", [])]
    return lines


def detail(name: str, found: dict[str, Any]) -> str:
    """What a part has to say."""
    if name == "tests":
        return f", {found['passed']} passed, {found['failed']} failed, {found['skipped']} skipped, {found['seconds']} s"
    if name == "training":
        texts = []
        for dtype in ("float64", "float32"):
            one = found[dtype]
            if "failed" in one:
                texts.append(f"{dtype}: a run failed")
                continue
            other = one["first difference"]
            where = "the same decisions" if other is None else f"decisions differ first in trial {other['trial']}"
            texts.append(f"{dtype}: {where}, J within {one['largest relative difference of J']:.1e}")
        for title, timed in found.get("times", {}).items():
            ends = [
                f"{run['ms per trial, median']}, mean {run['ms per trial, mean after the first']} ({name})"
                for name, run in timed.items()
                if "status" in run
            ]
            texts.append(f"ms per trial {title}: {', '.join(ends) or 'failed'}")
        if "backend" in found["float32"]:
            texts.append(f"first trial after {found['float32']['backend']['seconds to the first trial']} s")
        return ", " + "; ".join(texts)
    return f", {found['seconds']} s" if "seconds" in found else ""
