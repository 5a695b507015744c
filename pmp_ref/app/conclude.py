"""The end of a run: certificate, the one look at the test images, model, figures, report, and last the summary."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pmp_ref.accuracy import Accuracy
from pmp_ref.app import diagnosis, inspect
from pmp_ref.app.build import Setup
from pmp_ref.app.checkpoint import State
from pmp_ref.app.files import COMPACT, COMPACT_REPORT, MODEL, SUMMARY, remove, write_json
from pmp_ref.app.history import numbers, read_columns
from pmp_ref.app.ranks import World, shared_accuracy
from pmp_ref.app.summary import certificate_json, summarise
from pmp_ref.certificate import Certificate, certify
from pmp_ref.compact.description import describe
from pmp_ref.files import pack, to_arrays, write_atomically
from pmp_ref.model import FORMAT
from pmp_ref.sweep import quiet

REPORT, CERTIFICATE = "report.html", "certificate.json"


def conclude(setup: Setup, directory: Path, state: State, figures: bool, world: World | None = None) -> None:
    """Write the results of a run. It may be repeated: a run is finished once ``summary.json`` is there.

    Ranks that share a run compute certificate and accuracies together; rank 0 writes.
    """
    world = world or World()
    finished = state.status is not None
    controls = state.iterate.controls
    if world.first:
        write_model(directory, model(setup, controls))
    held: Accuracy | str = "no image is held out"
    if setup.held_out is not None:
        held = shared_accuracy(world, setup.network, controls, *setup.held_out)
    certificate, table = None, None
    trained: Accuracy | str = "the run was interrupted"
    test: Accuracy | str = "the run was interrupted; test images are looked at once, at its end"
    if finished:
        certificate = final_certificate(setup, state)
        table = certificate_json(certificate, setup.network, int(setup.x.shape[0]))
        if world.first:
            write_json(directory / CERTIFICATE, table)
        test = "the test images were left: --test-images leave"
        if setup.options.test_images == "look":
            test = test_accuracy(setup, controls, world)
        trained = shared_accuracy(world, setup.network, controls, setup.x, setup.y)
    if not world.first:
        return
    summary = summarise(setup, state, certificate, test, held, trained)
    if finished:
        summary["diagnosis"] = diagnosis.to_json(findings(setup, directory, summary))
        drawn = {}
        if figures:
            from pmp_ref.app.figures import draw  # not above: loads matplotlib

            drawn = draw(directory, setup, controls, summary)
        from pmp_ref.app.report import report

        section = ""
        if setup.options.prove != "none":
            from pmp_ref.app.prove import conclude_proof, proof_section, sentence

            content = conclude_proof(setup, directory, state, None)
            print(sentence(content))
            section = proof_section(directory, content, figures)
        page = report(directory, setup.options, summary, table, drawn, section)
        write_atomically(directory / REPORT, page.encode())
    write_json(directory / SUMMARY, summary)
    print(inspect.headline(summary), flush=True)
    if finished:
        print(f"report: {directory / REPORT}")


def findings(setup: Setup, directory: Path, summary: dict[str, Any]) -> list[diagnosis.Finding]:
    """What the tables of the run and its summary say in words."""
    steps = read_columns(directory / "history.csv", ("nonzeros", "eps", "tau", "loss"))
    held = read_columns(directory / "accuracy.csv", ("nonzeros", "images", "accuracy"))
    verdicts = Counter(read_columns(directory / "trials.csv", ("verdict",))["verdict"])
    return diagnosis.diagnose(setup.options, summary, numbers(steps), numbers(held), verdicts)


def write_model(directory: Path, content: bytes) -> None:
    """``model.npz``. Another content than before takes ``compact.npz`` with it, which ``predict`` would prefer.

    That one goes first: a kill between the two leaves the old model alone, and a resumed run writes the new one.
    """
    path = directory / MODEL
    if not path.is_file() or path.read_bytes() != content:
        remove(directory / COMPACT, directory / COMPACT_REPORT)
    write_atomically(path, content)


def model(setup: Setup, controls: Any) -> bytes:
    """``model.npz``: controls by stage and name, and the network, which standardises its images; plain arrays."""
    arrays = to_arrays(setup.network, controls)
    names = setup.dataset.class_names if setup.start is None else setup.start.class_names
    note = {
        "format": FORMAT,
        "name": setup.options.network,
        "network": describe(setup.network),
        "class_names": list(names),
    }
    return pack(arrays | {"classes": np.asarray(setup.dataset.classes)}, {"network": note})


def final_certificate(setup: Setup, state: State) -> Certificate:
    """In float64 on all images trained on, at the ρ the run has come to and its last ε."""
    rho = setup.last_rho(state.iterate)
    with quiet():
        return certify(replace(setup.problem, rho=rho), state.iterate.controls, setup.x, setup.y, state.iterate.eps)


def test_accuracy(setup: Setup, controls: Any, world: World) -> Accuracy | str:
    """Accuracy on the test images; the only place where they are used."""
    if setup.dataset.test_images is None or setup.dataset.test_labels is None:
        return "the data set has no test images"
    x, y = setup.move(setup.dataset.test_images), setup.move(setup.dataset.test_labels)
    return shared_accuracy(world, setup.network, controls, x, y)
