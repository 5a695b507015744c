"""An iterate on disk: plain arrays and exact numbers, from which the run goes on bit for bit.

The order of the batches follows from (seed, epoch, position), so the seed is the generator's whole state. States and
switching functions are not stored: a restart sweeps once more, and that sweep is counted apart (``repeated``).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import Field, asdict, dataclass, fields, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from pmp_ref.app.build import Setup, mover
from pmp_ref.app.descent import Tally
from pmp_ref.app.files import CHECKPOINT
from pmp_ref.app.options import to_json
from pmp_ref.errors import InputError
from pmp_ref.files import decode, from_arrays, pack, to_arrays, unpack, write_atomically
from pmp_ref.iterate import Counts, Current, Iterate, Memory, Place, Steering
from pmp_ref.result import Status

FORMAT = 3
PARTS = {  # of the iterate, stored by name
    "current": Current,
    "memory": Memory,
    "place": Place,
    "counts": Counts,
    "steering": Steering,
}
ARRAYS = {
    "controls": ("controls",),
    "metric": ("current", "metric"),
    "metric_memory": ("memory", "metric"),
    "average_memory": ("memory", "average"),
}  # archive's name: where it stands in the iterate
NOT_STORED = {"evaluation", "metric", "average"}  # swept anew, or among the arrays


@dataclass(frozen=True)
class State:
    """A run between two trials: the iterate and what the application counts."""

    iterate: Iterate
    lengths: dict[str, int]  # bytes of the tables
    tally: Tally
    seconds: float
    restarts: int = 0
    repeated: tuple[int, int] = (0, 0)  # forward and backward sweeps made again after restarts
    status: Status | None = None  # None: the run has not ended


def settings_hash(setup: Setup) -> str:
    """SHA-256 of options and training data: a checkpoint fits one run only, on any backend."""
    options = {name: value for name, value in to_json(setup.options).items() if name != "backend"}
    for name, before in (("start", None), ("keep", None), ("test_images", "look")):
        if options[name] == before:
            del options[name]  # as in the versions that did not have it
    return hashlib.sha256(json.dumps([options, setup.fingerprint]).encode()).hexdigest()


def write(directory: Path, setup: Setup, state: State) -> None:
    """Save the state atomically. Raises OutputError; the checkpoint before it is intact then."""
    it = state.iterate
    arrays: dict[str, np.ndarray] = {}
    for name, path in ARRAYS.items():
        nested = reduce(getattr, path, it)
        if nested is not None:
            arrays |= to_arrays(setup.network, nested, f"{name}/")
    e = it.current.evaluation
    numbers = {
        part: {f.name: getattr(getattr(it, part), f.name) for f in fields(kind) if f.name not in NOT_STORED}
        for part, kind in PARTS.items()
    }
    note = {
        "format": FORMAT,
        "settings": settings_hash(setup),
        "iterate": {"eps": it.eps, "smoothed": it.smoothed, **numbers},
        "evaluation": "none" if e is None else "forward" if e.switching is None else "backward",
        "groups": [name for name, path in ARRAYS.items() if reduce(getattr, path, it) is not None],
        "lengths": state.lengths,
        "tally": asdict(state.tally),
        "seconds": state.seconds,
        "restarts": state.restarts,
        "repeated": list(state.repeated),
        "status": None if state.status is None else state.status.value,
    }
    write_atomically(directory / CHECKPOINT, pack(arrays, {"state": note}))


def content(directory: Path) -> bytes:
    """A byte and what the file of the saved state holds; nothing if there is no such file."""
    path = directory / CHECKPOINT
    try:
        return b"+" + path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r} ({error.strerror}): restore it from a copy") from None


def read(directory: Path, setup: Setup, content: bytes | None = None) -> State:
    """The saved state; InputError if it is damaged or belongs to another run. ``content`` of the file, where known."""
    path = directory / CHECKPOINT
    arrays = unpack(path, content)
    try:
        note = decode(arrays["state"])
        if note["format"] != FORMAT:
            raise InputError(
                f"{str(path)!r} has format {note['format']!r}, expected {FORMAT}: it is of another version of pmp_ref; "
                "go on with that version, or start a new run"
            )
        move = mover(setup.options.backend)
        nested = {
            name: from_arrays(setup.network, arrays, f"{name}/", str(path), move) if name in note["groups"] else None
            for name in ARRAYS
        }
        if note["settings"] != settings_hash(setup):
            raise InputError(
                f"{str(path)!r} belongs to a run with other settings or data than its config.json "
                "names: restore both from one copy, or start a new run"
            )
        state = State(
            _iterate(note["iterate"], nested),
            {str(k): int(v) for k, v in note["lengths"].items()},
            Tally(**note["tally"]),
            float(note["seconds"]),
            int(note["restarts"]),
            (int(note["repeated"][0]), int(note["repeated"][1])),
            None if note["status"] is None else Status(note["status"]),
        )
        setup.problem.check(state.iterate.controls, setup.x, setup.y)
        return restore(setup, state, note["evaluation"])
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise InputError(
            f"{str(path)!r} is damaged ({type(error).__name__}: {' '.join(str(error).split())[:100]}): "
            "restore it from a copy, or start a new run"
        ) from None


def restore(setup: Setup, state: State, evaluation: str) -> State:
    """The sweeps that the iterate had when it was saved, made again and counted apart."""
    it = state.iterate
    if evaluation == "none" or state.status is not None:
        return state
    e = setup.problem.sweeper.forward(it.controls, *setup.batch(it.place.epoch, it.place.position))
    if evaluation == "backward":
        e = setup.problem.sweeper.backward(it.controls, e)
    forward, backward = state.repeated
    repeated = (forward + e.forward_sweeps, backward + e.backward_sweeps)
    it = replace(it, current=replace(it.current, evaluation=e))
    return replace(state, iterate=it, repeated=repeated)


def _iterate(stored: dict[str, Any], nested: dict[str, Any]) -> Iterate:
    """An Iterate whose numbers have their types."""
    parts: dict[str, Any] = {}
    stored = {"steering": asdict(Steering())} | stored  # the versions before it had none
    for part, kind in PARTS.items():
        arrays = {path[1]: nested[name] for name, path in ARRAYS.items() if path[0] == part}
        parts[part] = kind(
            **{f.name: _typed(stored[part], f) for f in fields(kind) if f.name not in NOT_STORED}, **arrays
        )
    eps, smoothed = stored["eps"], stored["smoothed"]
    if type(eps) is not float:
        raise TypeError(f"eps is {eps!r}")
    return Iterate(nested["controls"], eps, None if smoothed is None else float(smoothed), **parts)


def _typed(stored: dict[str, Any], f: Field[Any]) -> Any:
    """A stored number, of the type that its field has by default; TypeError for another."""
    value = stored[f.name]
    if type(value) is not type(f.default):
        raise TypeError(f"{f.name} is {value!r}")
    return value
