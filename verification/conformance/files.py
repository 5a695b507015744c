"""Writing the vectors, and comparing another program's files with the reference."""

from __future__ import annotations

import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pmp_ref.app.files import read_json
from pmp_ref.data.files import opened
from pmp_ref.data.npz import array_of, names_of
from pmp_ref.errors import InputError
from verification.conformance.cases import VERSION, Conformance, chosen, described
from verification.conformance.record import TOLERANCE, Quantity, Trial, run

FORMAT = "pmp_ref conformance"


# --- export -----------------------------------------------------------------------------------------------------------


def export(directory: Path, names: list[str]) -> list[str]:
    """Write the cases of those names (all if none) into ``directory``; returns the names."""
    cases = chosen(names)
    try:
        for name, case in cases.items():
            (directory / name).mkdir(parents=True, exist_ok=True)
            write(directory / name, case, run(case))
        index = {"format": FORMAT, "version": VERSION, "cases": list(cases)}
        _write_json(directory / "index.json", index)
    except OSError as error:
        raise InputError(
            f"cannot write to {directory} ({error.strerror}); give a directory that can be written"
        ) from None
    return list(cases)


def write(folder: Path, case: Conformance, trials: list[Trial]) -> None:
    """One case: ``case.json``, ``input.npz``, ``trials.json`` and one ``trial-NNN.npz`` for each trial."""
    _write_json(folder / "case.json", description(case, trials))
    x, y, controls = case.inputs()
    names = case.problem.network.names()
    start = {f"u{l}_{n}": a for l, stage in enumerate(controls) for n, a in zip(names[l], stage, strict=True)}
    np.savez(folder / "input.npz", x=x, y=y, **start)
    _write_json(folder / "trials.json", [{q.key: _plain(q.value) for q in trial if q.scalar} for trial in trials])
    for k, trial in enumerate(trials):
        np.savez(folder / f"trial-{k:03}.npz", **{q.key: q.value for q in trial if not q.scalar})


def description(case: Conformance, trials: list[Trial]) -> dict[str, Any]:
    """All that another program needs to run the case, beside ``input.npz``."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": case.name,
        "purpose": case.purpose,
        "dtype": case.dtype,
        "samples": case.samples,
        "input_shape": list(case.problem.network.input_shape),
        **described(case.problem, case.method),
        "batch_size": case.batch_size,
        "trials": len(trials),
        "batches": [np.asarray(trial[0].value).tolist() for trial in trials],
        "tolerance": TOLERANCE[case.dtype],
        "order": [[q.key, q.what] for q in trials[0]],
    }


# --- check ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Departure:
    """The first quantity of a case that departs from the reference, and how many of that trial depart after it."""

    case: str
    trial: int | None
    key: str
    what: str
    detail: str
    later: int = 0

    def __str__(self) -> str:
        place = "input" if self.trial is None else f"trial {self.trial}"
        after = f"; {self.later} later quantities of this trial depart too" if self.later else ""
        return f"{self.case}: first departure in {place} at {self.key} ({self.what}): {self.detail}{after}"


@dataclass(frozen=True)
class Finding:
    """Result for one case: how many quantities were compared, how many are absent, the first departure or None."""

    case: str
    compared: int
    absent: int
    departure: Departure | None


def check(directory: Path, names: list[str], partial: bool = False) -> list[Finding]:
    """Compare the files of another program with the reference, case by case, each in the order of the algorithm.

    Without names: all cases that have a folder. ``partial``: quantities that are absent are counted, not departures.
    Raises InputError if there is nothing to compare, or files cannot be read.
    """
    if not directory.is_dir():
        raise InputError(f"{directory} is no directory; expected one with a folder for each case")
    _check_version(directory / "index.json")
    cases = {n: c for n, c in chosen(names).items() if names or (directory / n).is_dir()}
    if not cases:
        raise InputError(f"{directory} holds no folder with the name of a case; expected {', '.join(chosen([]))}")
    return [compare(directory / name, case, partial) for name, case in cases.items()]


def compare(folder: Path, case: Conformance, partial: bool = False) -> Finding:
    """One case."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no directory; expected the files of the case {case.name}")
    _check_version(folder / "case.json")
    compared, absent = 0, 0
    departure = _input_departure(folder, case)
    if departure is not None:
        return Finding(case.name, 0, 0, departure)
    scalars = _read_json(folder / "trials.json")
    if not isinstance(scalars, list) or not all(isinstance(row, dict) for row in scalars):
        raise InputError(f"{folder / 'trials.json'} holds no list of objects; expected one object for each trial")
    for k, trial in enumerate(run(case)):
        path = folder / f"trial-{k:03}.npz"
        given = {**(_read_npz(path) if path.exists() else {}), **(scalars[k] if k < len(scalars) else {})}
        wrong: list[tuple[Quantity, str]] = []
        for quantity in trial:
            if quantity.key not in given:
                absent += 1
                if not partial:
                    wrong.append((quantity, "absent"))
                continue
            compared += 1
            detail = difference(quantity, given[quantity.key], TOLERANCE[case.dtype])
            if detail:
                wrong.append((quantity, detail))
        if wrong:
            (q, detail), *rest = wrong
            return Finding(case.name, compared, absent, Departure(case.name, k, q.key, q.what, detail, len(rest)))
    if compared == 0:
        raise InputError(f"{folder} holds none of the quantities of the case {case.name}; see its case.json, 'order'")
    return Finding(case.name, compared, absent, None)


def difference(quantity: Quantity, given: Any, tolerance: float) -> str:
    """Empty if the value agrees, else how it departs."""
    expected = quantity.value
    if isinstance(expected, str):
        return "" if given == expected else f"{given!r}, expected {expected!r}"
    if given is None:
        given = math.nan
    try:
        a, b = np.asarray(given), np.asarray(expected)
    except ValueError:  # lists of different lengths
        return f"{str(given)[:40]!r} is no array"
    if a.dtype.kind not in "iufb":
        return f"{str(given)[:40]!r} is no number"
    if a.shape != b.shape:
        return f"shape {a.shape}, expected {b.shape}"
    if quantity.exact:
        return "" if np.array_equal(a, b) else f"{a.tolist()}, expected {b.tolist()}"
    a, b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(all="ignore"):  # a may hold anything
        gap = np.where(np.isnan(a) & np.isnan(b), 0.0, np.abs(a - b))
    agrees = gap <= tolerance * quantity.scale  # a NaN on one side alone does not
    if np.all(agrees):
        return ""
    at = np.unravel_index(int(np.argmax(np.where(np.isnan(gap), np.inf, gap))), gap.shape)
    place = f" at [{', '.join(str(int(i)) for i in at)}]" if gap.shape else ""
    count = f" in {np.count_nonzero(~agrees)} of {gap.size} entries" if gap.shape else ""
    return (
        f"{float(a[at]):.9g}{place}, expected {float(b[at]):.9g}; difference {float(gap[at]):.2e} over the tolerance "
        f"{tolerance * quantity.scale:.2e}{count}"
    )


def _input_departure(folder: Path, case: Conformance) -> Departure | None:
    """The files may leave the input out; if it is there it must be the reference's, or nothing can be compared."""
    path = folder / "input.npz"
    if not path.exists():
        return None
    given = _read_npz(path)
    x, y, controls = case.inputs()
    names = case.problem.network.names()
    expected = {"x": x, "y": y} | {
        f"u{l}_{n}": a for l, stage in enumerate(controls) for n, a in zip(names[l], stage, strict=True)
    }
    for key, value in expected.items():
        if key not in given or not np.array_equal(given[key], value):
            detail = "absent" if key not in given else "differs from the exported input"
            return Departure(case.name, None, key, "input", detail)
    return None


def _check_version(path: Path) -> None:
    if path.exists():
        data = _read_json(path)
        version = data.get("version") if isinstance(data, dict) else None
        if version != VERSION:
            raise InputError(f"{path} is of version {version!r}; this program compares version {VERSION}: export again")


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _read_json(path: Path) -> Any:
    try:
        return read_json(path)
    except InputError as error:
        raise InputError(f"cannot read {path} ({error}); expected a JSON file, see docs/conformance.md") from None


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an archive, by the reader of the data sets: no pickle, no memory that a header alone asks for."""
    try:
        with opened(path) as stream, zipfile.ZipFile(stream) as archive:
            return {name: array_of(archive, f"{name}.npy", str(path), "uifb") for name in names_of(archive)}
    except InputError:
        raise
    except Exception as error:  # as in pmp_ref.data.npz: a broken archive gives many types
        raise InputError(
            f"cannot read {path} ({type(error).__name__}); expected an .npz file of plain arrays"
        ) from None
