"""A training run: start or restart, the loop with its callback, the end."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import time
import warnings
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from pmp_ref.accuracy import Accuracy
from pmp_ref.app import checkpoint
from pmp_ref.app.build import Setup, build
from pmp_ref.app.checkpoint import State
from pmp_ref.app.conclude import conclude
from pmp_ref.app.descent import Checker, Tally
from pmp_ref.app.files import CONFIG, SUMMARY, check_free, locked, new_directory, read_json, write_json
from pmp_ref.app.history import History, NoHistory
from pmp_ref.app.interrupt import stopping_on_signals
from pmp_ref.app.options import Options, from_json, to_json
from pmp_ref.app.progress import Progress
from pmp_ref.app.prove import check_provable, prover
from pmp_ref.app.ranks import World, shared_accuracy
from pmp_ref.app.start import START, read_start
from pmp_ref.app.summary import versions
from pmp_ref.arrays import to_floats, to_numpy
from pmp_ref.controls import Packed, arrays_of, kernel_entries
from pmp_ref.data.files import opened, read_all
from pmp_ref.errors import InputError, ScaleWarning
from pmp_ref.files import OutputError, unpack, write_atomically
from pmp_ref.iterate import Iterate
from pmp_ref.kernels.blas import one_thread
from pmp_ref.kernels.workers import available_cores
from pmp_ref.model import Model, from_file, to_bytes
from pmp_ref.one_step import prepare
from pmp_ref.result import Record, Status, Verdict

CHECKPOINT_EVERY = 4.0  # seconds; the promise is five, and a step may end a little late
EPOCH_EVERY = 2.0  # full batch, where every step is an epoch: not more often than that
ACCURACY_EVERY = 10  # steps between held-out accuracies in full batch; with mini-batches every epoch
RUNS = Path("runs")

EXIT = {Status.AUGMENTATION_LIMIT: 3, Status.NON_FINITE: 3, Status.INTERRUPTED: 130}  # all others: 0


@dataclass(frozen=True)
class Manner:
    """What does not change the numbers of a run."""

    quiet: bool = False
    figures: bool = True
    threads: int | None = None
    world: World = field(default_factory=World)

    def say(self, sentence: str) -> None:
        """A line on stderr, unless quiet."""
        if not self.quiet:
            print(sentence, file=sys.stderr, flush=True)


def train(options: Options, out: str | None, manner: Manner) -> int:
    """A new run; the exit code. Nothing is written unless options and data fit."""
    world = manner.world

    def start() -> Model | None:
        return None if options.start is None else read_start(Path(options.start))

    with one_thread(), contextlib.ExitStack() as held:
        setup = world.alike(lambda: build(options, manner.threads, world, start()), describe)
        check_provable(setup, world)

        def begin() -> bytes:
            directory = new_directory(out, RUNS)
            held.enter_context(locked(directory))
            check_free(directory)
            config = {
                "format": 1,
                "options": to_json(options),
                "data_sha256": setup.fingerprint,
                "versions": versions(options.backend),
            }
            if options.notice:
                config["notice"] = options.notice
            try:
                if setup.start is not None:
                    content = to_bytes(setup.start)
                    config["start_sha256"] = hashlib.sha256(content).hexdigest()
                    write_atomically(directory / START, content)
                write_json(directory / CONFIG, config)
            except OutputError as error:
                raise InputError(str(error)) from None
            print(f"run directory: {directory}", flush=True)
            return str(directory).encode()

        directory = Path(world.by_first(begin).decode())
        return carry_on(setup, directory, None, manner)


def resume(directory: Path, manner: Manner, backend: str | None = None) -> int:
    """Go on with a run in its directory, on another backend if one is given; the exit code."""
    world = manner.world
    with one_thread(), contextlib.ExitStack() as held:

        def look() -> bytes:
            if not (directory / CONFIG).is_file():
                raise InputError(
                    f"--resume {str(directory)!r}: no run there (no {CONFIG}); give a run's directory like runs/001"
                )
            held.enter_context(locked(directory))
            options, data_sha256, began_with = read_config(directory)
            found = ended(directory)
            status = None if found is None else found.value
            return json.dumps([to_json(options), data_sha256, began_with, status]).encode()

        stored, data_sha256, began_with, status = json.loads(world.by_first(look))
        options = replace(from_json(stored), backend=backend or stored["backend"])
        if status is not None:
            if world.first:
                print(f"run directory: {directory}\nthe run is finished ({status}): nothing is left to do")
            return 0
        setup = world.alike(lambda: build(options, manner.threads, world, start_of(options, directory)), describe)
        check_provable(setup, world)
        if setup.fingerprint != data_sha256:
            raise InputError(
                f"the training data {options.data!r} are not those that the run in {str(directory)!r} "
                "began with; restore the data, or start a new run"
            )
        if world.first:
            note_versions(began_with, versions(options.backend))
        there = world.by_first(lambda: checkpoint.content(directory))
        state = checkpoint.read(directory, setup, there[1:]) if there else None
        if world.first:
            print(f"run directory: {directory}", flush=True)
        return carry_on(setup, directory, state, manner)


def describe(setup: Setup) -> dict[str, Any]:
    """What must be alike on all ranks."""
    controls = hashlib.sha256(b"".join(np.ascontiguousarray(to_numpy(a)).data for a in arrays_of(setup.controls)))
    return {
        "versions": versions(setup.options.backend),
        "options": to_json(setup.options),
        "data": setup.fingerprint,
        "controls": controls.hexdigest(),
    }


def start_of(options: Options, directory: Path) -> Model | None:
    """The copy of the model that the run began with, None without ``--start``; InputError unless it is that one."""
    if options.start is None:
        return None
    path, stored = directory / START, read_json(directory / CONFIG)
    with opened(path) as stream:
        content = bytes(read_all(stream, str(path)))
    if stored.get("start_sha256") != hashlib.sha256(content).hexdigest():
        raise InputError(f"{str(path)!r} is not the model that the run began with: restore it, or start a new run")
    return from_file(unpack(path, content), str(path))


def ended(directory: Path) -> Status | None:
    """The status of a finished run; None if the run goes on. InputError if ``summary.json`` is damaged."""
    path = directory / SUMMARY
    if not path.is_file():
        return None
    try:
        status = Status(read_json(path)["status"])
    except (KeyError, TypeError, IndexError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{str(path)!r} holds no status of a run: restore it from a copy, or delete it and resume; "
            "it is then written anew"
        ) from None
    return None if status is Status.INTERRUPTED else status


def read_config(directory: Path) -> tuple[Options, str, dict[str, str]]:
    """Options, data fingerprint and versions from ``config.json``; InputError if it is damaged."""
    path = directory / CONFIG
    stored = read_json(path)
    try:
        if stored["format"] != 1:
            raise InputError(f"format {stored['format']!r}, expected 1")
        return from_json(stored["options"]), str(stored["data_sha256"]), dict(stored["versions"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{str(path)!r} does not fit this version of pmp_ref ({error}): restore it from a copy, or "
            "use the version that wrote it"
        ) from None


def note_versions(before: dict[str, str], now: dict[str, str]) -> None:
    """Say on stderr what is another version than the run began with: then it may not repeat bit for bit."""
    changed = [f"{name} {before.get(name)} → {version}" for name, version in now.items() if before.get(name) != version]
    if changed:
        print(
            f"note: the run began with other versions ({', '.join(changed)}): the same numbers are not promised",
            file=sys.stderr,
        )


def carry_on(setup: Setup, directory: Path, state: State | None, manner: Manner) -> int:
    """Train from the state (None: from step 0) to the end, write the results, return the exit code."""
    try:
        return to_the_end(setup, directory, state, manner)
    except OutputError as error:
        raise OutputError(error.fault, f"{error.advice}, then go on with --resume {str(directory)!r}") from None


def to_the_end(setup: Setup, directory: Path, state: State | None, manner: Manner) -> int:
    """As :func:`carry_on`."""
    world = manner.world
    if setup.options.notice and world.first:
        print(setup.options.notice, flush=True)
    if setup.advice and world.first:
        print(f"warning: {setup.advice}", file=sys.stderr, flush=True)
    if state is None or state.status is None:
        unwarned = warnings.catch_warnings(action="ignore", category=ScaleWarning)  # said above, in words of our own
        with (
            Recorder(setup, directory, state, manner) as recorder,
            stopping_on_signals(recorder, world.first),
            unwarned,
        ):
            solution = setup.solve(recorder, recorder.iterate)
            if solution.status is Status.INTERRUPTED and not recorder.stopping:
                if world.first:
                    print(f"stopped at once; the last checkpoint stands\nrun directory: {directory}", flush=True)
                world.abort(EXIT[Status.INTERRUPTED])
                return EXIT[Status.INTERRUPTED]
            interrupted = solution.status is Status.INTERRUPTED
            state = recorder.save(solution.iterate, None if interrupted else solution.status)
    conclude(setup, directory, state, manner.figures and state.status is not None, world)
    if world.first:
        if state.status is None:
            print(f"go on with: pmp-ref train --resume {directory}")
        print(f"run directory: {directory}", flush=True)
    world.wait()
    return EXIT.get(state.status or Status.INTERRUPTED, 0)


def together(nested: Any) -> Any:
    """Controls stage by stage; those that lie in slices on several ranks are gathered, and all ranks must ask."""
    return nested.views if isinstance(nested, Packed) else nested


class Recorder:
    """The callback of ``solve``: history, second opinion, held-out accuracy, checkpoints, progress."""

    def __init__(self, setup: Setup, directory: Path, state: State | None, manner: Manner) -> None:
        self.setup, self.directory, self.stopping, self.world = setup, directory, False, manner.world
        self.began = self.saved = time.perf_counter()
        self.held: Accuracy | None = None
        self.history: History = NoHistory()
        self.world.by_first(lambda: self.open(None if state is None else state.lengths))
        if state is None:
            try:
                self.iterate = self.first()
            except BaseException:
                self.history.close()
                raise
            self.state = State(self.iterate, {}, Tally(), 0.0)
        else:
            self.iterate = state.iterate
            self.state = replace(state, restarts=state.restarts + 1)
        self.kernels = kernel_entries(setup.network.names(), self.iterate.controls)[1]
        self.epoch = self.iterate.epoch
        self.prover = prover(setup, directory, None if state is None else state.lengths, manner.threads)
        tally = self.state.tally if self.world.first else Tally()
        self.checker = Checker(setup, tally, self.world.threads or available_cores(), self.world.rank, self.world.size)
        stop, batches = setup.stop, setup.batches
        limits = [n for n in (stop.steps, None if stop.epochs is None else stop.epochs * batches) if n is not None]
        quiet = manner.quiet or not self.world.first
        self.progress = Progress(min(limits, default=None), self.iterate.step, quiet, setup.options.notice)

    def open(self, lengths: dict[str, int] | None) -> bytes:
        """Take the run's tables in hand."""
        self.history = History(self.directory, lengths)
        return b""

    def first(self) -> Iterate:
        """The initial controls, prepared on the first batch, and row 0 of the history."""
        setup = self.setup
        it = Iterate(setup.controls, setup.method.rule.eps0)
        it = prepare(setup.problem, setup.method, it, *setup.batch(0, 0))
        rho = setup.method.last_rho(setup.problem.rho, it, 0.0)
        assert it.current.evaluation is not None
        loss, penalty = to_floats(
            setup.problem.sweeper.mean_loss(it.current.evaluation), setup.problem.penalty(it.controls)
        )
        self.history.start(
            {
                "step": 0,
                "epoch": 0,
                "position": 0,
                "J": loss + rho * penalty,
                "loss": loss,
                "rho": rho,
                "nonzeros": kernel_entries(setup.network.names(), it.controls)[0],
                "eps": it.eps,
                "rejections": 0,
                "seconds": 0.0,
                "forward_sweeps": it.counts.forward_sweeps,
                "backward_sweeps": it.counts.backward_sweeps,
            }
        )
        return it

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: Any) -> None:
        self.progress.close()
        self.checker.close()
        self.history.close()
        if self.prover is not None:
            self.prover.close()

    @property
    def seconds(self) -> float:
        """Training time so far, restarts not counted twice."""
        return self.state.seconds + time.perf_counter() - self.began

    def __call__(self, it: Iterate, record: Record) -> bool:
        if record.accepted and self.checker.due(it.step):
            u, w, d = (together(nested) for nested in (self.iterate.controls, it.controls, it.current.metric))
            self.checker.submit(it.step, u, w, d, record.epoch, record.position, record.rho)
        if record.accepted and self.prover is not None:
            self.prover.submit(self.iterate.controls, it, record)
        self.history.record(record, record.accepted, self.seconds)
        end_of_epoch = it.epoch > self.epoch
        self.iterate, self.epoch = it, it.epoch
        full = self.setup.batch_size is None
        if self.setup.held_out is not None and end_of_epoch and not (full and it.step % ACCURACY_EVERY):
            self.held = shared_accuracy(self.world, self.setup.network, it.controls, *self.setup.held_out)
            self.history.accuracy(it.step, it.epoch, record.nonzeros, *self.held, self.held.part)
        waited = time.perf_counter() - self.saved
        due = waited >= CHECKPOINT_EVERY or (end_of_epoch and (not full or waited >= EPOCH_EVERY))
        due, stop = self.world.agreed(due and self.world.first, self.stopping)
        if due:
            self.save(it, None)
        done = it.step if self.setup.stop.epochs is None else it.epoch * self.setup.batches + it.place.position
        if record.verdict is Verdict.PROJECTED:
            return stop
        self.progress.show(
            done,
            end_of_epoch,
            epoch=str(it.epoch),
            J=f"{record.J:.4f}",
            loss=f"{record.loss:.4f}",
            kept=f"{100 * record.nonzeros / self.kernels:.2f}%",
            eps=f"{it.eps:.3g}",
            held_out="–" if self.held is None else f"{100 * self.held.part:.2f}%",
        )
        self.stopping = self.stopping or stop
        return stop  # what is agreed; a signal that comes now is for the next trial

    def save(self, it: Iterate, status: Status | None) -> State:
        """Write a checkpoint in which the tables and the second opinion are complete."""
        for path in checkpoint.ARRAYS.values():
            together(reduce(getattr, path, it))
        tally = self.checker.drain()
        checked, violations, without = self.world.total(tally.checked, tally.violations, tally.without_slack)
        tally = Tally(int(checked), int(violations), int(without), self.world.largest(tally.slack))
        state = replace(
            self.state,
            iterate=it,
            lengths=self.history.sync() | ({} if self.prover is None else {"proof": self.prover.lines.sync()}),
            tally=tally,
            seconds=self.seconds,
            status=status,
        )
        if self.world.first:
            checkpoint.write(self.directory, self.setup, state)
        self.saved = time.perf_counter()
        return state
