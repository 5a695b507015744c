"""Check the proof of a run by Arb's balls: ``python -m verification.check_proof runs/001``. Needs the extra ``proof``.

A second program: it reads ``proof.json`` and the files of the steps 1, 2, 4, 8, … that a proof leaves in the directory
``proof`` of a run, and shares no code with ``pmp_ref``. For every one of these steps it computes, with 128 bits and
rigorous error bounds, Φ_s of every sample at both controls, the switching functions, τ, the penalty and the gains of
the maximiser. Every enclosure must meet the ball found here, and every verdict must follow from these balls alone.
Exit code 0 if all is confirmed, 1 if anything is rejected, 2 for bad input.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from verification import second_program as second
from verification.second_program import Balls

LIMIT = 32  # units of rounding up to which a maximiser counts as one


class Damaged(Exception):
    """A file is missing or is not what a proof writes; one line."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    p = argparse.ArgumentParser(
        prog="python -m verification.check_proof", description=(__doc__ or "").partition("\n")[0]
    )
    p.add_argument("run", type=Path, help="the directory of a run with proof.json")
    p.add_argument("--steps", type=int, default=None, metavar="N", help="only the first N steps that have a file")
    options = p.parse_args(arguments)
    try:
        n = Balls()
        return check(n, options.run, options.steps)
    except ImportError:
        print("error: python-flint is not installed; pip install '.[proof]'", file=sys.stderr)
    except Damaged as error:
        print(f"error: {error}", file=sys.stderr)
    return 2


def check(n: Balls, run: Path, steps: int | None) -> int:
    """Check a run, print what was found."""
    try:
        proof = json.loads((run / "proof.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Damaged(f"cannot read {str(run / 'proof.json')!r} ({error})") from None
    entries = [entry for entry in proof["steps"] if entry["evidence"]][:steps]
    rejected = 0
    for entry in entries:
        began = time.perf_counter()
        problems, checks = [], 0
        for words in check_step(n, entry, read(run / entry["evidence"])):
            checks += 1
            if words:
                problems.append(words)
        rejected += bool(problems)
        state = "rejected" if problems else "confirmed"
        print(f"step {entry['step']}: {state}, {checks} checks, {time.perf_counter() - began:.0f} s", flush=True)
        for words in problems[:30]:
            print(f"  {words}")
    print(f"{len(entries) - rejected} of {len(entries)} steps confirmed by Arb")
    return 1 if rejected or not entries else 0


def read(path: Path) -> dict[str, Any]:
    """The arrays of a step's file; texts decoded."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive)
        for name in ("note", "stages", "reads"):
            arrays[name] = json.loads(arrays[name].tobytes())
    except (OSError, ValueError, KeyError) as error:
        raise Damaged(f"cannot read {str(path)!r} ({error})") from None
    return arrays


def ball(n: Balls, q: Fraction) -> Any:
    """A rational as a ball."""
    return n.arb(q.numerator) / n.arb(q.denominator)


def meets(n: Balls, exact: Any, interval: list[str], words: str) -> str:
    """Empty if the interval meets the ball; else what does not."""
    low, high = map(float.fromhex, interval)
    outside = bool(exact < n.of(low)) or bool(exact > n.of(high))
    return f"{words}: [{float(low)!r}, {float(high)!r}] does not meet {exact}" if outside else ""


def check_step(n: Balls, entry: dict[str, Any], file: dict[str, Any]) -> Iterator[str]:
    """One word for every check: empty if it is confirmed."""
    note, stages, reads = file["note"], file["stages"], file["reads"]
    yield "" if note["step"] == entry["step"] else "the file belongs to another step"
    names = [row["control"] for row in note["controls"]]
    u, w = (nested(n, file, prefix, stages, names) for prefix in ("u", "w"))
    samples = len(file["x"])
    mean_u = mean_w = n.of(0.0)
    total: list[Any] | None = None
    for s in range(samples):
        phi, g = second.sweep(n, stages, reads, note["loss"], u, file["x"][s], file["y"][s], True)
        after, _ = second.sweep(n, stages, reads, note["loss"], w, file["x"][s], file["y"][s], False)
        yield inside(n, phi, file["before_mid"][s], file["before_rad"][s], f"Φ of sample {s} at u")
        yield inside(n, after, file["after_mid"][s], file["after_rad"][s], f"Φ of sample {s} at w")
        mean_u, mean_w = mean_u + phi / samples, mean_w + after / samples
        flat = [a / samples for stage in g for a in stage]
        total = flat if total is None else [a + b for a, b in zip(total, flat, strict=True)]
    assert total is not None
    for name, a in zip(names, total, strict=True):
        mid, rad = file[f"g_mid/{name}"].ravel(), file[f"g_rad/{name}"].ravel()
        for i, v in enumerate(a.reshape(-1)):
            yield inside(n, v, mid[i], rad[i], f"switching function of {name}, entry {i}")
    yield from inequality(n, entry, file, mean_u, mean_w, total)
    yield from maximiser(n, entry, file)


def inside(n: Balls, exact: Any, mid: Any, rad: Any, words: str) -> str:
    """As :func:`meets`, for a midpoint and a radius."""
    middle, radius = n.of(mid), n.of(rad)
    outside = bool(exact < middle - radius) or bool(exact > middle + radius)
    return f"{words}: {float(mid)!r} ± {float(rad):.3g} does not meet {exact}" if outside else ""


def nested(n: Balls, file: dict[str, Any], prefix: str, stages: Any, names: list[str]) -> list[list[Any]]:
    """The controls by stage."""
    result: list[list[Any]] = [[] for _ in stages]
    for name in names:
        result[int(name[:2])].append(second.objects(n, file[f"{prefix}/{name}"]))
    return result


def penalty(n: Balls, row: dict[str, Any], a: Any) -> Any:
    """ω r(a), by its definition."""
    r, omega = row["regulariser"], n.of(float.fromhex(row["weight"]))
    kind, flat = r["kind"], np.asarray(a, dtype=np.float64)
    if kind == "GroupL0":
        axes = tuple(i for i in range(flat.ndim) if i != r["axis"])
        groups = (flat != 0).any(axis=axes) if r["axis"] < flat.ndim else flat != 0
        return omega * n.of(float.fromhex(r["omega"])) * int(np.count_nonzero(groups))
    found = n.of(0.0)
    values = [n.of(v) for v in flat.ravel() if v != 0]
    if kind == "Polynomial":
        a0, a1, a2 = (n.of(float.fromhex(r[f"a{i}"])) for i in range(3))
        found = a0 * len(values)
        for v in values:
            found += a1 * abs(v) + a2 * v * v / 2
    elif kind == "LHalf":
        found = sum((n.sqrt(abs(v)) for v in values), n.of(0.0))
    elif kind == "LTwoThirds":
        found = sum((n.exp(2 * n.log(abs(v)) / 3) for v in values), n.of(0.0))
    else:
        raise Damaged(f"the regulariser {kind} is not known to this program")
    return omega * found


def inequality(n: Balls, entry: Any, file: Any, mean_u: Any, mean_w: Any, g: list[Any]) -> Iterator[str]:
    """(a): τ, J, their difference, the bound, and the verdict."""
    note = file["note"]
    rho = n.of(float.fromhex(note["rho"]))
    tau = increment = before = after = n.of(0.0)
    for row, slope in zip(note["controls"], g, strict=True):
        name = row["control"]
        u, w = file[f"u/{name}"], file[f"w/{name}"]
        before, after = before + penalty(n, row, u), after + penalty(n, row, w)
        d = np.broadcast_to(file.get(f"metric/{name}", np.ones(())), u.shape)
        for a, b, weight, pull in zip(u.ravel(), w.ravel(), d.ravel(), slope.reshape(-1), strict=True):
            if a != b:
                way = n.of(b) - n.of(a)
                tau += n.of(weight) * way * way
                increment += pull * way
    increment -= rho * (after - before)
    yield meets(n, tau, entry["tau"], "τ")
    if note["samples"] != note["batch"]:
        return  # the rest speaks of the whole batch
    delta = mean_w - mean_u + rho * (after - before)
    top, bottom = note["test"]["eta"].split("/")
    relative = note["test"]["kind"] == "relative"
    bound = -ball(n, Fraction(int(top), int(bottom))) * (increment if relative else tau)
    for words, exact in (
        ("J_before", mean_u + rho * before),
        ("J_after", mean_w + rho * after),
        ("delta_J", delta),
        ("bound", bound),
    ):
        yield meets(n, exact, entry[words], words)
    holds = bool(delta <= bound) and (not relative or bool(increment > 0))
    fails = bool(delta > bound) or (relative and bool(increment <= 0))
    if entry["descent"] == "proven" and not holds:
        yield "descent is called proven, and Arb does not prove it"
    elif entry["descent"] == "refuted" and not fails:
        yield "descent is called refuted, and Arb does not refute it"
    else:
        yield ""


def maximiser(n: Balls, entry: Any, file: Any) -> Iterator[str]:
    """(c) for sums of L0, L1 and L2 on an interval, and for finite sets: no challenger gains more than LIMIT units."""
    note = file["note"]
    rho, eps = (n.of(float.fromhex(note[name])) for name in ("rho", "eps"))
    for row in note["controls"]:
        if row["regulariser"]["kind"] != "Polynomial":
            continue
        name = row["control"]
        u, w, g = (file[f"{part}/{name}"] for part in ("u", "w", "direction"))
        unit = float(np.finfo(w.dtype).eps) / 2
        d = np.broadcast_to(file.get(f"metric/{name}", np.ones(())), u.shape)
        price = rho * n.of(float.fromhex(row["weight"]))
        a = [price * n.of(float.fromhex(row["regulariser"][f"a{i}"])) for i in range(3)]
        worst = n.of(0.0)
        for at in np.ndindex(u.shape):
            here, there, pull = (n.of(v[at]) for v in (u, w, g))
            lacking = deficit(n, a, row["admissible"], here, there, pull, eps * n.of(d[at]))
            if lacking > worst:
                worst = lacking
        proven = entry["maximiser"]["verdict"] == "proven"
        yield f"{name}: a challenger gains {worst} of its size more" if proven and not worst <= LIMIT * unit else ""


def deficit(n: Balls, a: list[Any], admissible: Any, u: Any, w: Any, g: Any, e: Any) -> Any:
    """The most that a challenger of w gains, in units of the terms that make up the gain."""
    pull, q = 2 * e * u + g, e + a[2] / 2
    zero = n.of(0.0)

    def gain(v: Any) -> Any:
        return v * pull - a[1] * abs(v) - q * v * v - (a[0] if v != 0 else zero)

    if admissible["kind"] == "FiniteSet":
        challengers = [n.of(float.fromhex(v)) for v in admissible["values"]]
    else:
        low, high = (float.fromhex(admissible[end]) for end in ("lo", "hi"))
        challengers = [zero] if low <= 0 <= high else []
        for sign in (1, -1):
            v = (pull - sign * a[1]) / (2 * q)
            ends = (max(low, 0.0), high) if sign > 0 else (low, min(high, 0.0))
            if ends[0] > ends[1] or (ends[0] == ends[1] == 0):
                continue
            if v < n.of(ends[0]):
                v = n.of(ends[0])
            elif v > n.of(ends[1]):
                v = n.of(ends[1])
            challengers.append(v)
    own, size = gain(w), 2 * e * abs(u) + abs(g) + a[1]
    terms = max((float((abs(v) * size + q * v * v + a[0]).upper()) for v in (*challengers, w)), default=0.0)
    most = max(float((gain(v) - own).upper()) for v in challengers)
    return n.of(max(most, 0.0)) / n.of(terms) if terms > 0 else zero


if __name__ == "__main__":
    raise SystemExit(main())
