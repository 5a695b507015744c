"""``summary.json`` and ``certificate.json``: strict JSON; an undefined value is null, and ``reasons`` says why."""

from __future__ import annotations

import math
import platform
from dataclasses import asdict
from typing import Any

import numpy as np

import pmp_ref
from pmp_ref.accuracy import Accuracy
from pmp_ref.app.build import Setup
from pmp_ref.app.checkpoint import State
from pmp_ref.certificate import Certificate
from pmp_ref.controls import arrays_of, kernel_entries
from pmp_ref.network import Network
from pmp_ref.result import Status


def summarise(
    setup: Setup,
    state: State,
    certificate: Certificate | None,
    test: Accuracy | str,
    held_out: Accuracy | str,
    trained: Accuracy | str,
) -> dict[str, Any]:
    """All numbers of a run; a text in place of an accuracy is the reason why there is none."""
    it, options = state.iterate, setup.options
    status = Status.INTERRUPTED if state.status is None else state.status
    kernels, entries = kernel_entries(setup.network.names(), it.controls)
    controls = sum(math.prod(a.shape) for a in arrays_of(it.controls))
    reasons: dict[str, str] = {}
    unfinished = "the run was interrupted"

    def certified(name: str, attribute: str) -> float | None:
        value = None if certificate is None else float(getattr(certificate, attribute))
        if value is not None and math.isfinite(value):
            return value
        reasons[name] = unfinished if value is None else "infinite" if math.isinf(value) else "not a number"
        return None

    def measured(name: str, value: Accuracy | str) -> dict[str, Any]:
        if isinstance(value, str):
            reasons[name] = value
            return {name: None, f"{name}_interval": None}
        return {name: value.part, f"{name}_interval": list(value.interval())}

    counted, tally = options.check_descent != "none", state.tally
    if not counted:
        reasons["descent_violations"] = "not checked: --check-descent none"
    values = {
        "status": status.value,
        "message": status.message,
        **({"notice": options.notice} if options.notice else {}),
        **measured("test_accuracy", test),
        **measured("held_out_accuracy", held_out),
        **measured("train_accuracy", trained),
        "train_loss": certified("train_loss", "loss"),
        "train_objective": certified("train_objective", "J"),
        "kept_fraction": kernels / entries,
        "kept_weights": kernels,
        "total_weights": entries,
        "wished_weights": None if setup.method.wish is None else setup.method.wish.at_end(entries),
        "projected_weights": it.steering.cut,
        "rho": setup.last_rho(it),
        "other_controls": controls - entries,
        "accepted_steps": it.step,
        "epochs": it.epoch,
        "rejections": it.counts.rejections,
        "skipped_batches": it.counts.skipped,
        "forward_sweeps": it.counts.forward_sweeps,
        "backward_sweeps": it.counts.backward_sweeps,
        "restarts": state.restarts,
        "sweeps_repeated_after_restarts": list(state.repeated),
        "seconds": round(state.seconds, 3),
        "epsilon": it.eps,
        "epsilon_star": certified("epsilon_star", "eps_star"),
        "residual_support": certified("residual_support", "residual_support"),
        "residual_unpenalised": certified("residual_unpenalised", "residual_unpenalised"),
        "emptied_layers": None if certificate is None else list(certificate.emptied_layers),
        "descent_violations": tally.violations if counted else None,
        "descent_checked": tally.checked,
        "descent_slack": tally.slack if counted else None,
        "descent_violations_without_slack": tally.without_slack if counted else None,
        "data": options.data,
        "classes": setup.dataset.classes,
        "training_images": int(setup.x.shape[0]),
        "held_out_images": 0 if setup.held_out is None else int(setup.held_out[0].shape[0]),
        "test_images": 0 if setup.dataset.test_images is None else len(setup.dataset.test_images),
        "seed": options.seed,
        "versions": versions(options.backend),
    }
    if certificate is None:
        reasons["emptied_layers"] = unfinished
    if not counted:
        reasons["descent_slack"] = reasons["descent_violations_without_slack"] = reasons["descent_violations"]
    return values | {"reasons": reasons}


def versions(backend: str) -> dict[str, str]:
    """Versions of what made the numbers."""
    found = {"pmp_ref": pmp_ref.__version__, "python": platform.python_version(), "numpy": np.__version__}
    if backend == "cupy":
        import cupy

        found["cupy"] = cupy.__version__
    return found | {"platform": f"{platform.system()} {platform.machine()}"}


def certificate_json(certificate: Certificate, network: Network, images: int) -> dict[str, Any]:
    """The certificate on so many images, with stage names; values that are not finite are null, with ``reasons``."""
    reasons: dict[str, str] = {}

    def clean(value: Any, place: str) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            reasons[place] = "infinite" if math.isinf(value) else "not a number"
            return None
        if isinstance(value, dict):
            return {k: clean(v, f"{place}.{k}" if place else k) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [clean(v, f"{place}[{i}]") for i, v in enumerate(value)]
        return value

    values = clean(asdict(certificate), "")
    for row in values["controls"]:
        stage = network.stages[row["stage"]]
        row["kind"] = type(stage).__name__
        position = network.names()[row["stage"]].index(row["name"])
        row["shape"] = list(network.control_shapes[row["stage"]][position])
    return values | {
        "images": images,
        "emptied_layers": list(certificate.emptied_layers),
        "reasons": reasons,
    }
