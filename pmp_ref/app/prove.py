"""Proofs of a run: while it trains (``train --prove``), or of a finished one, replayed bit for bit (``prove RUN``).

A replay runs the method again from the run's settings and compares every trial with the tables of the run and the last
control with its model, digit by digit. What it proves is then proven of the run itself; if something differs the replay
ends and says where.
"""

from __future__ import annotations

import csv
import math
import shutil
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pmp_ref.admissible import FiniteSet
from pmp_ref.app import checkpoint
from pmp_ref.app.build import Setup, build
from pmp_ref.app.checkpoint import State
from pmp_ref.app.conclude import CERTIFICATE, REPORT, model
from pmp_ref.app.descent import Tally
from pmp_ref.app.files import (
    CHECKPOINT,
    CONFIG,
    MODEL,
    SUMMARY,
    locked,
    read_json,
    remove,
)
from pmp_ref.app.history import FILES, cell
from pmp_ref.app.interrupt import stopping_on_signals
from pmp_ref.app.progress import Progress
from pmp_ref.app.proof_file import (
    DIRECTORY,
    PROOF,
    SAMPLES,
    Lines,
    constants,
    counts,
    evidence,
    final_entry,
    line,
    read_lines,
    rules_of,
    write_proof,
)
from pmp_ref.app.ranks import World
from pmp_ref.app.summary import versions
from pmp_ref.arrays import Controls
from pmp_ref.controls import arrays_of
from pmp_ref.errors import InputError, ScaleWarning
from pmp_ref.files import write_atomically
from pmp_ref.iterate import Iterate
from pmp_ref.kernels.blas import one_thread
from pmp_ref.proofs import Enclosed, IntervalSweep, Step, StepProof, prove_final, prove_step
from pmp_ref.proofs.maximiser import examine_control, inside
from pmp_ref.result import Record, Status

CHECKPOINT_EVERY = 10.0  # seconds; what a killed replay repeats
EXIT_REFUTED = 3


class Prover:
    """Proves accepted steps, one after the other, and writes a line for each."""

    def __init__(
        self, setup: Setup, directory: Path, every: int, length: int | None, threads: int | None = None
    ) -> None:
        self.setup, self.directory, self.every = setup, directory, every
        self.sweep = IntervalSweep(setup.network, setup.problem.loss, threads or 0)
        self.lines = Lines(directory, length)
        self.known: tuple[Controls, Enclosed] | None = None
        self.tally = {"proven": 0, "undecided": 0, "refuted": 0}
        self.seconds = 0.0
        if length:
            self.tally = counts(read_lines(directory))

    def submit(self, u: Controls, it: Iterate, record: Record) -> None:
        """Prove the step from u to the controls of ``it``, if its number is due."""
        if it.step % self.every:
            self.known = None
            return
        began = time.perf_counter()
        step = self.step_of(u, it, record)
        full = self.setup.batch_size is None
        before = self.known[1] if self.known is not None and self.known[0] is u else None
        chosen = it.step & (it.step - 1) == 0  # 1, 2, 4, 8, …
        proof = prove_step(
            self.setup.problem,
            self.setup.method.acceptance,
            self.sweep,
            step,
            before=before,
            backward=full,
            identity=SAMPLES if chosen else 0,
        )
        self.known = (it.controls, proof.after) if full else None
        name = self.keep(it.step, step, proof) if chosen else None
        entry = line(it.step, record.epoch, record.position, proof, name)
        self.lines.append(entry)
        self.tally[entry["verdict"]] += 1
        self.seconds += time.perf_counter() - began

    def step_of(self, u: Controls, it: Iterate, record: Record) -> Step:
        """The step as it was made; the switching function by the run's own sweep, once more and bit for bit."""
        setup = self.setup
        x, y = setup.batch(record.epoch, record.position)
        g = setup.problem.sweeper.forward_backward(u, x, y).switching
        assert g is not None
        direction = g
        if record.averaged:
            assert setup.method.averaging is not None and it.memory.average is not None
            direction = setup.method.averaging.mean(it.memory.average, it.memory.averaged)
        return Step(u, it.controls, direction, g, it.current.metric, record.eps, record.rho, x, y)

    def keep(self, number: int, step: Step, proof: StepProof) -> str:
        """Write the file of a step; its name."""
        samples = min(SAMPLES, step.x.shape[0])
        before, after = proof.before, proof.after
        if samples < step.x.shape[0]:
            x, y = step.x[:samples, ...], step.y[:samples, ...]
            before, after = self.sweep.switching(step.u, x, y), self.sweep.losses(step.w, x, y)
        note = {
            "step": number,
            "loss": type(self.setup.problem.loss).__name__,
            "samples": samples,
            "batch": int(step.x.shape[0]),
            "rho": step.rho.hex(),
            "eps": float(step.eps).hex(),
            "controls": rules_of(self.setup.problem),
            "test": constants(self.setup.method.acceptance),
        }
        name = f"{DIRECTORY}/step-{number:06}.npz"
        write_atomically(self.directory / name, evidence(self.setup.network, step, before, after, note, samples))
        return name

    def close(self) -> None:
        """Close the file of lines."""
        self.lines.close()


def check_provable(setup: Setup, world: World) -> None:
    """Raise InputError for a run with ``--prove`` of which nothing could be proven, before anything is written.

    Several ranks, for a proof is made by one process and can be made afterwards, of the same numbers.
    """
    if setup.options.prove == "none":
        return
    if world.size > 1:
        raise InputError(
            f"--prove {setup.options.prove} on {world.size} ranks: one process makes a proof; train with --prove none, "
            "then pmp-ref prove RUN, which repeats the run bit for bit on one process"
        )
    check_enclosed(setup)


def check_enclosed(setup: Setup) -> None:
    """Raise InputError for a run of which nothing can be proven.

    A stage, a loss or a regulariser without enclosure; a bound or value of an admissible set that the run's dtype
    rounds to a number outside the set, so that its controls would leave the set.
    """
    IntervalSweep(setup.network, setup.problem.loss)
    dtype = np.dtype(setup.options.dtype)
    for r, admissible in zip(arrays_of(setup.problem.regulariser), arrays_of(setup.problem.admissible), strict=True):
        ends = admissible.values if isinstance(admissible, FiniteSet) else (admissible.lo, admissible.hi)
        numbers = np.array([v for v in ends if math.isfinite(v)] or [0.0])
        inside(admissible, numbers.astype(dtype).astype(np.float64))
        one = admissible.project(np.zeros(1, dtype))
        examine_control(r, 1.0, admissible, one, one, np.zeros(1, dtype), 1.0, 1.0)


def prover(setup: Setup, directory: Path, lengths: dict[str, int] | None, threads: int | None) -> Prover | None:
    """The prover of a run that asks for one, at a checkpoint's place; None where ``--prove none``."""
    asked = setup.options.prove
    if asked == "none":
        return None
    length = None if lengths is None else lengths.get("proof")
    return Prover(setup, directory, 1 if asked == "all" else int(asked), length, threads)


def conclude_proof(setup: Setup, directory: Path, state: State, replay: dict[str, Any] | None) -> dict[str, Any]:
    """Prove the last control, write ``proof.json``; its content."""
    lines = read_lines(directory)
    rho = setup.last_rho(state.iterate)
    sweep = IntervalSweep(setup.network, setup.problem.loss)
    final: dict[str, Any]
    try:
        final = final_entry(prove_final(setup.problem, sweep, state.iterate.controls, setup.x, setup.y, rho))
    except InputError as error:
        final = {"reason": str(error)}
    content = {
        "format": 1,
        "versions": versions(setup.options.backend),
        "test": constants(setup.method.acceptance),
        "replay": replay,
        "accepted_steps": state.iterate.step,
        "counts": counts(lines),
        "final": final,
        "steps": lines,
    }
    write_proof(directory, content)
    return content


def sentence(content: dict[str, Any]) -> str:
    """The result in one line."""
    c, made = content["counts"], len(content["steps"])
    text = f"steps proven: {c['proven']} of {made}"
    if made < content["accepted_steps"]:
        text += f" examined, {content['accepted_steps']} accepted"
    return text + "".join(f", {c[name]} {name}" for name in ("undecided", "refuted") if c[name])


# --- prove RUN --------------------------------------------------------------------------------------------------------


class Differs(Exception):
    """The replay has left the run's path; the message says where."""


class Replay:
    """The callback of a replay: compares each trial with the run's tables and has the accepted steps proven."""

    def __init__(self, setup: Setup, directory: Path, state: State | None, every: int, manner: Any) -> None:
        self.setup, self.directory, self.stopping = setup, directory, False
        self.rows = {name: table(directory / name) for name in ("history.csv", "trials.csv")}
        lengths = {"steps": None, "trials": 0} if state is None else state.lengths
        self.trials = int(lengths["trials"] or 0)
        self.began = self.saved = time.perf_counter()
        self.state = (
            State(Iterate(setup.controls, setup.method.rule.eps0), {}, Tally(), 0.0) if state is None else state
        )
        self.iterate = self.state.iterate
        self.prover = Prover(setup, directory, every, lengths["steps"], manner.threads)
        total = len(self.rows["history.csv"]) - 1
        self.progress = Progress(total, self.iterate.step, manner.quiet, setup.options.notice)

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *_: Any) -> None:
        self.progress.close()
        self.prover.close()

    def __call__(self, it: Iterate, record: Record) -> bool:
        name = "history.csv" if record.accepted else "trials.csv"
        index = it.step if record.accepted else self.trials
        self.compare(name, index, record)
        self.trials += not record.accepted
        if record.accepted:
            self.prover.submit(self.iterate.controls, it, record)
        self.iterate = it
        if time.perf_counter() - self.saved >= CHECKPOINT_EVERY:
            self.save()
        t = self.prover.tally
        self.progress.show(
            it.step,
            True,
            epoch=str(it.epoch),
            proven=str(t["proven"]),
            undecided=str(t["undecided"]),
            refuted=str(t["refuted"]),
        )
        return self.stopping

    def compare(self, name: str, index: int, record: Record) -> None:
        """Raise Differs unless the trial is the run's own, digit by digit."""
        rows = self.rows[name]
        place = f"{'step' if record.accepted else 'trial'} {index}"
        if index >= len(rows):
            raise Differs(f"{place} is not in {name}")
        values = {**vars(record), "averaged": int(record.averaged)}
        for column in FILES[name]:
            if column != "seconds" and str(cell(values[column])) != rows[index][column]:
                raise Differs(f"{column} of {place} is {cell(values[column])}; {name} has {rows[index][column]}")

    def save(self) -> None:
        """A checkpoint of the replay, in the directory of the proof."""
        lengths = {"steps": self.prover.lines.sync(), "trials": self.trials}
        self.state = replace(self.state, iterate=self.iterate, lengths=lengths)
        checkpoint.write(self.directory / DIRECTORY, self.setup, self.state)
        self.saved = time.perf_counter()


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a run's table as texts; InputError if it is missing or damaged."""
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            f"cannot read the table {str(path)!r} ({' '.join(str(error).split())[:100]}): restore it from a copy"
        ) from None


def prove(directory: Path, every: int, manner: Any) -> int:
    """``pmp-ref prove RUN``; the exit code: 3 if a step is refuted or the replay differs."""
    from pmp_ref.app.run import ended, note_versions, read_config, start_of

    if not (directory / CONFIG).is_file():
        raise InputError(f"{str(directory)!r} holds no run (no {CONFIG}); give a run's directory like runs/001")
    with one_thread(), locked(directory):
        options, data_sha256, began_with = read_config(directory)
        now = versions(options.backend)
        if began_with.get("pmp_ref") != now["pmp_ref"]:
            raise InputError(
                f"the run in {str(directory)!r} was made by pmp_ref {began_with.get('pmp_ref')}, this is "
                f"{now['pmp_ref']}: only the version that made it can replay it"
            )
        if (status := ended(directory)) is None:
            raise InputError(
                f"the run in {str(directory)!r} is not finished: go on with pmp-ref train --resume {directory}"
            )
        if (directory / PROOF).exists():
            raise InputError(f"{str(directory / PROOF)!r} is there already: remove it to prove the run anew")
        for name in (MODEL, SUMMARY, CERTIFICATE, "history.csv", "trials.csv"):
            if not (directory / name).is_file():
                raise InputError(f"no file {str(directory / name)!r}, which a proof needs: restore it from a copy")
        setup = build(options, manner.threads, start=start_of(options, directory))
        if setup.fingerprint != data_sha256:
            raise InputError(f"the training data {options.data!r} are not those of the run; restore them")
        note_versions(began_with, now)
        check_enclosed(setup)
        place = directory / DIRECTORY
        place.mkdir(exist_ok=True)
        state = checkpoint.read(place, setup) if (place / CHECKPOINT).is_file() else None
        return replay(setup, directory, state, status, every, manner)


def replay(setup: Setup, directory: Path, state: State | None, status: Status, every: int, manner: Any) -> int:
    """Replay, prove, write; the exit code."""
    unwarned = warnings.catch_warnings(action="ignore", category=ScaleWarning)
    differs = None
    began = time.perf_counter()
    with Replay(setup, directory, state, every, manner) as run, stopping_on_signals(run), unwarned:
        try:
            solution = setup.solve(run, run.iterate)
            if solution.status is Status.INTERRUPTED:
                if run.stopping:
                    run.save()
                print(f"go on with: pmp-ref prove {directory}")
                return 130
            run.iterate = solution.iterate
            differs = different_end(setup, directory, solution.controls, solution.status, status)
        except Differs as difference:
            differs = str(difference)
        run.prover.lines.sync()
        proving = run.prover.seconds
    if differs is not None:
        print(f"the replay differs from the run: {differs}; nothing is proven of the run")
        shutil.rmtree(directory / DIRECTORY)
        return EXIT_REFUTED
    made = {"identical": True, "trials": run.trials + run.iterate.step}
    content = conclude_proof(setup, directory, replace(run.state, iterate=run.iterate), made)
    remove(directory / DIRECTORY / CHECKPOINT)
    rewrite_report(setup, directory, run.iterate.controls, content, manner.figures)
    seconds = time.perf_counter() - began
    print(
        f"{sentence(content)} (the replay repeats the run bit for bit; {seconds:.0f} s, of them {proving:.0f} s proofs)"
    )
    print(f"proof: {directory / PROOF}")
    return EXIT_REFUTED if content["counts"]["refuted"] else 0


def different_end(setup: Setup, directory: Path, controls: Any, status: Status, expected: Status) -> str | None:
    """In words, how the end of a replay differs from that of the run; None if it does not."""
    if status is not expected:
        return f"it ends as {status}, the run as {expected}"
    if model(setup, controls) != (directory / MODEL).read_bytes():
        return f"its last control is not that of {MODEL}"
    return None


def rewrite_report(setup: Setup, directory: Path, controls: Any, content: dict[str, Any], figures: bool) -> None:
    """``report.html`` with a section on the proof."""
    from pmp_ref.app.report import report

    summary, certificate = read_json(directory / SUMMARY), read_json(directory / CERTIFICATE)
    drawn = {}
    if figures:
        from pmp_ref.app.figures import draw

        drawn = draw(directory, setup, controls, summary)
    page = report(directory, setup.options, summary, certificate, drawn, proof_section(directory, content, figures))
    write_atomically(directory / REPORT, page.encode())


def proof_section(directory: Path, content: dict[str, Any], figures: bool) -> str:
    """The part of the report on the proof, with a picture if figures are drawn."""
    from pmp_ref.app.proof_report import proof_part, proof_picture

    picture = proof_picture(directory, content) if figures and content["steps"] else None
    return proof_part(content, picture)
