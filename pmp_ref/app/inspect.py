"""``pmp-ref inspect RUN``: result, settings that matter, layer table and certificate of a run, on stdout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pmp_ref.app.diagnosis import BAD, GOOD, NOTE, from_json
from pmp_ref.app.files import CONFIG, SUMMARY, read_json
from pmp_ref.certificate import DECADES
from pmp_ref.errors import InputError

HEAD = ["stage", "kind", "control", "shape", "kept", "of", "%", "dead", "ε*", "residual", "largest gap"]
GAP_HEAD = ["stage", "kind", "control"]  # and the decades


def show(directory: Path) -> str:
    """The text that ``inspect`` prints. Raises InputError where there is no run or it has not ended."""
    if not (directory / CONFIG).is_file():
        raise InputError(f"{str(directory)!r} holds no run (no {CONFIG}); give a run's directory, e.g. runs/001")
    if not (directory / SUMMARY).is_file():
        raise InputError(
            f"the run in {str(directory)!r} has not ended; go on with it first: pmp-ref train --resume {directory}"
        )
    summary = read_json(directory / SUMMARY)
    try:
        lines = [f"run {directory}", headline(summary), ""]
        if summary["status"] == "interrupted":
            return "\n".join([*lines, f"no certificate yet; go on with: pmp-ref train --resume {directory}"])
        return "\n".join(lines + table(read_json(directory / "certificate.json")))
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, ArithmeticError) as error:
        raise InputError(
            f"the results in {str(directory)!r} are damaged ({type(error).__name__}: {error}); restore them from a copy"
        ) from None


def headline(summary: dict[str, Any]) -> str:
    """The result in a few lines."""
    lines = [f"status: {summary['status']}: {summary['message']}"]
    if "notice" in summary:
        lines.insert(0, summary["notice"])
    low_high = summary["test_accuracy_interval"]
    accuracy = percent(summary["test_accuracy"])
    if low_high:
        low, high = (100 * bound for bound in low_high)
        accuracy += f" (95 %: {low:.2f} to {high:.2f}) on {summary['test_images']} test images"
    else:
        accuracy += f" ({summary['reasons']['test_accuracy']})"
    lines += [
        f"test accuracy: {accuracy}; held out: {percent(summary['held_out_accuracy'])}",
        f"kept weights: {summary['kept_weights']:,} of {summary['total_weights']:,} "
        f"({percent(summary['kept_fraction'])}){wished(summary)}",
        f"steps: {summary['accepted_steps']} accepted (rejected trials: {summary['rejections']}, "
        f"skipped batches: {summary['skipped_batches']}); {summary['forward_sweeps']} forward and "
        f"{summary['backward_sweeps']} backward sweeps, {summary['seconds']:.1f} s",
    ]
    if summary["descent_violations"] is None:
        lines.append(f"descent: {summary['reasons']['descent_violations']}")
    else:
        lines.append(
            f"descent: {summary['descent_violations']} violations in {summary['descent_checked']} steps "
            f"checked in float64 (allowance at most {summary['descent_slack']:.1e})"
        )
    marks = {GOOD: "well", NOTE: "note", BAD: "look"}
    lines += [f"{marks[f.level]}: {f.sentence}" for f in from_json(summary.get("diagnosis"))]
    return "\n".join(lines)


def wished(summary: dict[str, Any]) -> str:
    """What became of ``--keep``; nothing without it."""
    if summary.get("wished_weights") is None:
        return ""
    cut = summary["projected_weights"]
    how = f"ρ steered to {summary['rho']:.3g}" + (f", {cut:,} weights cut off" if cut else "")
    return f"; wished: at most {summary['wished_weights']:,} ({how})"


def percent(value: float | None) -> str:
    """0.9812 as 98.12 %."""
    return "–" if value is None else f"{100 * value:.2f} %"


def number(value: float | None, reason: str | None = None) -> str:
    """Four digits; for null what the reason says."""
    return f"{value:.4g}" if value is not None else "∞" if reason == "infinite" else reason or "–"


def entry(c: dict[str, Any], name: str, row: int | None = None) -> str:
    """A number of ``certificate.json``, of the whole or of one control, or why it is none."""
    place = name if row is None else f"controls[{row}].{name}"
    return number((c if row is None else c["controls"][row])[name], c["reasons"].get(place))


def control_rows(c: dict[str, Any]) -> list[list[str]]:
    """The certificate by control, as text under ``HEAD``."""
    return [
        [
            str(r["stage"]),
            r["kind"],
            r["name"] + ("" if r["penalised"] else " (free)"),
            "×".join(map(str, r["shape"])),
            f"{r['nonzeros']:,}",
            f"{r['size']:,}",
            f"{100 * r['nonzeros'] / r['size']:.2f}",
            f"{r['dead']} of {r['rows']}" if r["rows"] else "–",
            entry(c, "eps_star", i),
            entry(c, "residual", i),
            entry(c, "largest_gap", i),
        ]
        for i, r in enumerate(c["controls"])
    ]


def gap_rows(c: dict[str, Any]) -> list[list[str]]:
    """Entries (%) by control whose augmented gap is at most 10⁻ᵏ, as text under ``GAP_HEAD`` and ``DECADES``."""
    return [
        [str(r["stage"]), r["kind"], r["name"], *(f"{100 * f:.1f}" for f in r["gap_fractions"])] for r in c["controls"]
    ]


def table(certificate: dict[str, Any]) -> list[str]:
    """Certificate and layers as lines of text."""
    c = certificate

    def shown(name: str) -> str:
        return entry(c, name)

    lines = [
        f"certificate (float64, {c['images']} training images, ρ = {shown('rho')}, gaps at ε = {shown('eps')})",
        f"  J {shown('J')}, loss {shown('loss')}",
        f"  smallest augmentation ε* = {shown('eps_star')}: the control satisfies the maximum principle from there on",
        f"  residual on the support {shown('residual_support')}, "
        f"on unpenalised controls {shown('residual_unpenalised')}",
        f"  gap of the augmented principle {shown('augmented_gap')}, of the plain one {shown('plain_gap')}",
        "",
    ]
    gaps = [[*GAP_HEAD, *(f"1e-{k}" for k in DECADES)], *gap_rows(c)]
    return [
        *lines,
        *aligned([HEAD, *control_rows(c)], 4),
        "",
        "entries (%) whose augmented gap is at most",
        *aligned(gaps, 3),
    ]


def aligned(rows: list[list[str]], left: int) -> list[str]:
    """Columns of equal width; the first ``left`` to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
