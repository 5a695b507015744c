"""An iterate on disk: plain arrays and exact numbers, from which the run goes on bit for bit.

The order of the batches follows from (seed, epoch, position), so the seed is the generator's whole state. States and
switching functions are not stored: a restart sweeps once more, and that sweep is counted apart (``repeated``).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from pmp_ref.app.build import Setup, mover
from pmp_ref.app.descent import Tally
from pmp_ref.app.files import CHECKPOINT, decode, pack, unpack, write_atomically
from pmp_ref.app.options import to_json
from pmp_ref.arrays import Controls, to_numpy
from pmp_ref.compact.description import OLDER
from pmp_ref.errors import InputError
from pmp_ref.network import Network
from pmp_ref.result import Iterate, Status

FORMAT = 2  # in 1, the stages of networks with skips had other numbers
NESTED = ("controls", "metric", "metric_memory", "average_memory")


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


def to_arrays(network: Network, nested: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """A nesting like the controls as named host arrays, e.g. ``03.kernel``."""
    return {
        f"{prefix}{l:02}.{name}": np.asarray(to_numpy(a))
        for l, (names, arrays) in enumerate(zip(network.names(), nested, strict=True))
        for name, a in zip(names, arrays, strict=True)
    }


def from_arrays(network: Network, arrays: dict[str, np.ndarray], prefix: str, source: str, move: Any) -> Controls:
    """Inverse of :func:`to_arrays`; InputError for missing arrays or shapes of another network."""
    result = []
    for l, (names, shapes) in enumerate(zip(network.names(), network.control_shapes, strict=True)):
        stage = []
        for name, shape in zip(names, shapes, strict=True):
            a = arrays.get(f"{prefix}{l:02}.{name}")
            if a is None or a.shape not in ((shape, ()) if prefix.startswith("metric") else (shape,)):
                raise InputError(
                    f"{source!r} belongs to another network: {prefix}{l:02}.{name} "
                    f"{'is missing' if a is None else f'has shape {a.shape}'}, expected {shape}; restore a copy"
                )
            stage.append(move(a))
        result.append(tuple(stage))
    return tuple(result)


def check_format(found: Any, source: str, network: Network) -> None:
    """InputError unless files of the format ``found`` are read, which hold controls of this network."""
    if found == 1 and not network.is_chain:
        raise InputError(f"{source!r} cannot be used: {OLDER}")
    if found not in (1, FORMAT):
        raise InputError(
            f"{source!r} has format {found!r}, expected {FORMAT}: use the version of pmp_ref that wrote it"
        )


def settings_hash(setup: Setup) -> str:
    """SHA-256 of options and training data: a checkpoint fits one run only, on any backend."""
    options = {name: value for name, value in to_json(setup.options).items() if name != "backend"}
    return hashlib.sha256(json.dumps([options, setup.fingerprint]).encode()).hexdigest()


def write(directory: Path, setup: Setup, state: State) -> None:
    """Save the state atomically. Raises OutputError; the checkpoint before it is intact then."""
    it = state.iterate
    arrays: dict[str, np.ndarray] = {}
    for name in NESTED:
        if getattr(it, name) is not None:
            arrays |= to_arrays(setup.network, getattr(it, name), f"{name}/")
    e = it.evaluation
    note = {
        "format": FORMAT,
        "settings": settings_hash(setup),
        "iterate": {f.name: getattr(it, f.name) for f in fields(Iterate) if f.name not in (*NESTED, "evaluation")},
        "evaluation": "none" if e is None else "forward" if e.switching is None else "backward",
        "groups": [name for name in NESTED if getattr(it, name) is not None],
        "lengths": state.lengths,
        "tally": asdict(state.tally),
        "seconds": state.seconds,
        "restarts": state.restarts,
        "repeated": list(state.repeated),
        "status": None if state.status is None else state.status.value,
    }
    write_atomically(directory / CHECKPOINT, pack(arrays, {"state": note}))


def read(directory: Path, setup: Setup) -> State:
    """The saved state; InputError if it is damaged or belongs to another run."""
    path = directory / CHECKPOINT
    arrays = unpack(path)
    try:
        note = decode(arrays["state"])
        check_format(note["format"], str(path), setup.network)
        move = mover(setup.options.backend)
        nested = {
            name: from_arrays(setup.network, arrays, f"{name}/", str(path), move) if name in note["groups"] else None
            for name in NESTED
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
    e = setup.problem.sweep.forward(it.controls, *setup.batch(it.epoch, it.position))
    if evaluation == "backward":
        e = setup.problem.sweep.backward(it.controls, e)
    forward, backward = state.repeated
    repeated = (forward + e.forward_sweeps, backward + e.backward_sweeps)
    return replace(state, iterate=replace(it, evaluation=e), repeated=repeated)


def _iterate(stored: dict[str, Any], nested: dict[str, Any]) -> Iterate:
    """An Iterate whose numbers have their types."""
    template = Iterate((), 1.0)
    values: dict[str, Any] = {}
    for f in fields(Iterate):
        if f.name in (*NESTED, "evaluation"):
            continue
        value, default = stored[f.name], getattr(template, f.name)
        if f.name == "smoothed":
            values[f.name] = None if value is None else float(value)
        elif type(value) is not type(default):
            raise TypeError(f"{f.name} is {value!r}")
        else:
            values[f.name] = value
    return Iterate(**nested, **values)
