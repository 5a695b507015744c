"""``proof.json`` and the files it is made of: one line for each step, and for a few steps all that a checker needs.

Numbers are hexadecimal floats, so that a file holds exactly what was proven; an interval is a pair of them. The
directory ``proof`` of a run holds ``steps.jsonl``, to which every step examined adds a line, and for the steps 1, 2, 4,
8, … a file such as ``step-000001.npz`` with both controls, the batch and every enclosure: enough for another
program to check it.
"""

from __future__ import annotations

import json
import os
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pmp_ref.acceptance import AbsoluteTest, Acceptance, RelativeTest
from pmp_ref.arrays import to_numpy
from pmp_ref.bounds.step import Interval
from pmp_ref.controls import map_controls
from pmp_ref.errors import InputError
from pmp_ref.files import OutputError, pack, to_arrays, write_atomically
from pmp_ref.layers import Stage
from pmp_ref.network import Network
from pmp_ref.problem import Problem
from pmp_ref.proofs import Enclosed, Final, Step, StepProof

PROOF, DIRECTORY, STEPS = "proof.json", "proof", "steps.jsonl"
SAMPLES = 64  # of a batch go into the file of a step, and into the identity of T5


def interval(a: Interval) -> list[str]:
    """Both ends as hexadecimal floats."""
    return [float(a.lower).hex(), float(a.upper).hex()]


def number(text: str) -> float:
    """Inverse of ``float.hex``."""
    return float.fromhex(text)


def line(step: int, epoch: int, position: int, proof: StepProof, evidence: str | None) -> dict[str, Any]:
    """What ``proof.json`` says of one step."""
    d, c, m, i = proof.descent, proof.closeness, proof.maximised, proof.identity
    return {
        "step": step,
        "epoch": epoch,
        "position": position,
        "verdict": str(proof.verdict),
        "descent": str(d.verdict),
        "J_before": interval(d.J_before),
        "J_after": interval(d.J_after),
        "delta_J": interval(d.delta_J),
        "bound": interval(d.bound),
        "tau": interval(d.tau),
        "missing": float(d.missing).hex(),
        "switching": {"inside": c.inside, "distance": float(c.distance).hex(), "width": float(c.width).hex()},
        "maximiser": {
            "verdict": str(m.verdict),
            "deficit": float(m.deficit).hex(),
            "distance": float(m.distance).hex(),
            "ties": m.ties,
            "entries": m.entries,
            "exactly": m.exactly,
        },
        "identity": None
        if i is None
        else {
            "verdict": str(i.verdict),
            "left": interval(i.left),
            "remainder": interval(i.remainder),
            "samples": i.samples,
        },
        "evidence": evidence,
    }


def final_entry(final: Final) -> dict[str, Any]:
    """What ``proof.json`` says of the last control."""
    return {
        "eps_star": interval(final.eps_star),
        "residual": interval(final.residual),
        "loss": interval(final.loss),
        "J": interval(final.J),
        "samples": final.samples,
    }


def constants(test: Acceptance) -> dict[str, str]:
    """The acceptance test with its constant as a quotient of integers."""
    eta = (
        test.eta1
        if isinstance(test, RelativeTest)
        else test.eta
        if isinstance(test, AbsoluteTest)
        else AbsoluteTest().eta
    )
    top, bottom = float(eta).as_integer_ratio()
    return {"kind": "relative" if isinstance(test, RelativeTest) else "absolute", "eta": f"{top}/{bottom}"}


def described(value: Any) -> Any:
    """A stage as plain JSON: its class and its fields."""
    if isinstance(value, Stage) and is_dataclass(value):
        return {"kind": type(value).__name__} | {f.name: described(getattr(value, f.name)) for f in fields(value)}
    return list(value) if isinstance(value, tuple) else value


def rules_of(problem: Problem) -> list[dict[str, Any]]:
    """What each control is maximised under: its name, the weight of its penalty, regulariser and admissible set."""
    rows = zip(problem.network.names(), problem.weights, problem.regulariser, problem.admissible, strict=True)
    return [
        {"control": f"{l:02}.{name}", "weight": float(omega).hex(), "regulariser": plain(r), "admissible": plain(a)}
        for l, (names, *nested) in enumerate(rows)
        for name, omega, r, a in zip(names, *nested, strict=True)
    ]


def plain(value: Any) -> dict[str, Any]:
    """A regulariser or an admissible set: its class and its fields, floating point numbers in hexadecimal."""
    return {"kind": type(value).__name__} | {f.name: hexadecimal(getattr(value, f.name)) for f in fields(value)}


def hexadecimal(x: Any) -> Any:
    """A floating point number as text that holds it exactly; anything else as it is."""
    return [hexadecimal(a) for a in x] if isinstance(x, tuple) else x.hex() if isinstance(x, float) else x


def description(network: Network) -> list[Any]:
    """The stages of a network as plain JSON."""
    return [described(stage) for stage in network.stages]


def evidence(
    network: Network, step: Step, before: Enclosed, after: Enclosed, note: dict[str, Any], samples: int
) -> bytes:
    """The file of one step: u, w, direction, metric, batch, and the enclosures on its first samples."""
    arrays: dict[str, np.ndarray] = {}
    groups = {"u": step.u, "w": step.w, "direction": step.direction, "switching": step.switching}
    for name, nested in groups.items():
        arrays |= to_arrays(network, nested, f"{name}/")
    if step.metric is not None:
        arrays |= to_arrays(network, step.metric, "metric/")
    g = before.switching
    arrays |= to_arrays(network, map_controls(lambda b: b.mid, g), "g_mid/")
    arrays |= to_arrays(network, map_controls(lambda b: np.broadcast_to(b.rad, b.mid.shape), g), "g_rad/")
    for name, found in (("before", before), ("after", after)):
        arrays |= {f"{name}_mid": found.losses.mid, f"{name}_rad": found.losses.rad}
    arrays["x"] = to_numpy(step.x)[:samples]
    labels = to_numpy(step.y)[:samples]
    arrays["y"] = labels.astype(np.int64) if labels.dtype.kind in "iu" else labels
    return pack(arrays, {"stages": description(network), "reads": network.reads, "note": note})


class Lines:
    """``steps.jsonl``: one line for each proven step, appended as they come, cut back by a restart."""

    def __init__(self, directory: Path, length: int | None) -> None:
        """A new file, or with ``length`` an old one cut to that many bytes."""
        self.path = directory / DIRECTORY / STEPS
        try:
            self.path.parent.mkdir(exist_ok=True)
            if length is not None and (not self.path.is_file() or self.path.stat().st_size < length):
                raise InputError(
                    f"{str(self.path)!r} is shorter than the checkpoint says: restore it from a copy, or remove "
                    f"{str(self.path.parent)!r} and prove the run anew"
                )
            self.stream = open(self.path, "wb" if length is None else "r+b", buffering=0)
            self.stream.truncate(length or 0)
            self.stream.seek(length or 0)
        except OSError as error:
            raise InputError(f"cannot write {str(self.path)!r} ({error.strerror}): give write permission") from None

    def append(self, entry: dict[str, Any]) -> None:
        """One line."""
        try:
            self.stream.write((json.dumps(entry, allow_nan=False) + "\n").encode())
        except OSError as error:
            raise OutputError(f"cannot write {str(self.path)!r} ({error.strerror})") from None

    def sync(self) -> int:
        """Make the lines durable; the file's length."""
        os.fsync(self.stream.fileno())
        return self.stream.tell()

    def close(self) -> None:
        """Close the file."""
        self.stream.close()


def read_lines(directory: Path) -> list[dict[str, Any]]:
    """All lines of a run; InputError if they are missing or damaged."""
    path = directory / DIRECTORY / STEPS
    try:
        return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read {str(path)!r} ({type(error).__name__}): remove {DIRECTORY}/ and prove anew"
        ) from None


def counts(lines: list[dict[str, Any]]) -> dict[str, int]:
    """How many steps are proven, undecided, refuted."""
    verdicts = [entry["verdict"] for entry in lines]
    return {name: verdicts.count(name) for name in ("proven", "undecided", "refuted")}


def write_proof(directory: Path, content: dict[str, Any]) -> None:
    """``proof.json``: strict JSON, a step a line."""
    head = json.dumps({k: v for k, v in content.items() if k != "steps"}, indent=2, allow_nan=False, ensure_ascii=False)
    steps = ",\n".join("    " + json.dumps(entry, allow_nan=False) for entry in content["steps"])
    text = head[:-2] + ',\n  "steps": [\n' + steps + "\n  ]\n}\n"
    write_atomically(directory / PROOF, text.encode())
