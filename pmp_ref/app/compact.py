"""``pmp-ref compact RUN``: the run's network without what does nothing, checked on data, measured, written."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pmp_ref import model as models
from pmp_ref.app import parse
from pmp_ref.app.files import COMPACT, COMPACT_REPORT, CONFIG, MODEL, locked, new_directory, write_json
from pmp_ref.app.inspect import aligned, percent
from pmp_ref.app.options import Options
from pmp_ref.app.run import read_config
from pmp_ref.app.summary import versions
from pmp_ref.arrays import Controls
from pmp_ref.compact import choose_forms, compact, constant_output, kept, paired, runner, sizes, unread_inputs
from pmp_ref.compact.reduction import in_float64
from pmp_ref.compact.sparse import CHUNK, FORMS, forms_of
from pmp_ref.controls import cast
from pmp_ref.data import load
from pmp_ref.errors import InputError
from pmp_ref.files import OutputError, unpack, write_atomically
from pmp_ref.kernels.blas import one_thread
from pmp_ref.model import Model
from pmp_ref.network import Network

CHECKED = 512  # training images the outputs are compared on, beside CHECKED // 4 of noise, black and white
EXACT = 1e-9  # of the largest output, in float64: rounding was seen at 1e-14; standardisation may enlarge it
ROUNDING = 16.0  # times the rounding error that the network as trained shows in its own dtype
FLOOR = 64.0  # units of rounding of the largest output, where that error happens to be 0


@dataclass(frozen=True)
class Wish:
    """What ``compact`` was asked for."""

    out: str | None = None
    data: str | None = None
    form: str = "auto"
    batch: int = CHUNK  # images at a time, for which the forms are chosen
    onnx: str | None = None
    json: bool = False


def main(run: Path, wish: Wish) -> int:
    """Compact the run's model, check, measure, write; the exit code. Nothing is written if a check fails."""
    if not (run / CONFIG).is_file():
        raise InputError(f"{str(run)!r} holds no run (no {CONFIG}); give a run's directory, e.g. runs/001")
    if not (run / MODEL).is_file():
        raise InputError(f"the run in {str(run)!r} has no {MODEL} yet; go on with it: pmp-ref train --resume {run}")
    if wish.form not in ("auto", *FORMS):
        raise InputError(f"--form {wish.form!r}; expected auto, dense or sparse")
    with locked(run):  # a run that goes on meanwhile would write another model
        return write(run, wish)


def write(run: Path, wish: Wish) -> int:
    """As ``main``, of a run whose model stays as it is."""
    options, _, _ = read_config(run)
    before = models.read_model(run / MODEL)
    x = images(wish.data or options.data, before, options)
    with one_thread():
        after, timings = smaller(before, x, wish.form, wish.batch)
        checked = check(before, after, x)
        content = models.to_bytes(after)
        exported = None
        if wish.onnx is not None:
            from pmp_ref.interop.onnx_out import export

            exported, checked_onnx = export(after, x[:64])
            checked |= {"onnx": checked_onnx}
        report = measure(run, before, after, x, len(content)) | {
            "checked": checked,
            "forms": timings,
            "forms_chosen_for": min(wish.batch, CHUNK),
        }
    directory = run if wish.out is None else new_directory(wish.out, run)
    try:
        if exported is not None and wish.onnx is not None:
            write_atomically(Path(wish.onnx), exported)
        write_atomically(directory / COMPACT, content)
        write_json(directory / COMPACT_REPORT, report)
    except OutputError as error:
        advice = "make room, or give another place with --out or --onnx; nothing else was changed"
        raise OutputError(error.fault, advice) from None
    if wish.json:
        print(json.dumps(report, indent=2, allow_nan=False))  # ASCII: stdout may have any encoding
    else:
        print("\n".join(lines(report)))
        print(f"model: {directory / COMPACT}" + (f"\nONNX: {wish.onnx}" if wish.onnx else ""))
    if report["disconnected"]:
        print("pmp-ref: warning: the network is disconnected: its output is the same for every image", file=sys.stderr)
    return 0


def images(data: str, model: Model, options: Options) -> np.ndarray:
    """Training images of the run, then noise, a black and a white image: (N, C, H, W), unsigned bytes."""
    try:
        of_the_run = data == options.data
        resize = None if options.resize is None or not of_the_run else parse.size(options.resize)
        found = load(data, resize=resize, colour=options.colour if of_the_run else None).train_images
    except InputError as error:
        raise InputError(f"the check needs images: {error}; or give others with --data") from None
    if found.shape[1:] != model.network.input_shape:
        raise InputError(
            f"--data {data} holds images of shape {found.shape[1:]}; the network takes "
            f"{model.network.input_shape}: give the data of the run"
        )
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (CHECKED // 4, *found.shape[1:]), np.uint8)
    ends = [np.full((1, *found.shape[1:]), v, np.uint8) for v in (0, 255)]
    return np.concatenate([found[:CHECKED], noise, *ends])


def smaller(model: Model, raw: np.ndarray, form: str, batch: int) -> tuple[Model, list[dict[str, Any]]]:
    """The compact model with the form of each stage, and the timings that decided where the form is ``auto``."""
    network, controls = compact(model.network, model.controls)
    if form == "auto":
        forms, timings = choose_forms(network, controls, raw[: min(batch, CHUNK)])
        noted = [
            {"stage": t.stage, "dense_seconds": t.dense, "sparse_seconds": t.sparse, "form": t.form} for t in timings
        ]
    else:
        forms = tuple(f and form for f in forms_of(network))
        noted = [
            {"stage": l, "dense_seconds": None, "sparse_seconds": None, "form": f} for l, f in enumerate(forms) if f
        ]
    return replace(model, network=network, controls=controls, forms=forms), noted


def forward(network: Network, controls: Controls, x: np.ndarray) -> np.ndarray:
    """The final states by the stages themselves, the reference for everything that runs; few images at a time."""
    return np.concatenate(
        [network.forward_sweep(controls, x[i : i + CHUNK], keep=False)[-1] for i in range(0, len(x), CHUNK)]
    )


def check(before: Model, after: Model, raw: np.ndarray) -> dict[str, Any]:
    """Compare the outputs on images; InputError if they differ by more than rounding.

    In float64 compaction itself, by the stages of the library. In the run's dtype what will be read back from the
    file, as it will run; it may differ from the exact outputs as the network as trained does in that dtype.
    """
    exact = forward(before.network, in_float64(before.network, before.controls), raw)
    scale = max(1.0, float(np.max(np.abs(exact))))
    pair = compact(before.network, cast(before.controls, "float64"))
    difference64 = float(np.max(np.abs(forward(*pair, raw) - exact)))
    stored = models.from_file(unpack(Path(COMPACT), models.to_bytes(after)), COMPACT)
    trained = forward(before.network, before.controls, raw)
    as_read = stored.run()(raw)
    difference = float(np.max(np.abs(as_read - exact)))
    own = float(np.max(np.abs(trained - exact)))
    allowed64 = allowed = EXACT * scale
    if before.dtype != "float64":
        allowed = ROUNDING * own + FLOOR * float(np.finfo(before.dtype).eps) * scale
    if not (difference64 <= allowed64 and difference <= allowed):
        raise InputError(
            f"the compact network gives other outputs: they differ by {difference64:.3g} in float64 (allowed "
            f"{allowed64:.3g}) and by {difference:.3g} in {before.dtype} (allowed {allowed:.3g}); nothing was written: "
            "please report this with the run"
        )
    return {
        "images": len(raw),
        "largest_output": scale,
        "float64_difference": difference64,
        "float64_allowed": allowed64,
        "difference": difference,
        "allowed": allowed,
        "difference_before": own,
        "dtype": before.dtype,
        "classes_changed": int(np.sum(as_read.argmax(axis=1) != trained.argmax(axis=1))),
    }


def measure(run: Path, before: Model, after: Model, raw: np.ndarray, size: int) -> dict[str, Any]:
    """Weights, multiply-adds, bytes and times before and after, and what was not removed."""
    old, new = sizes(before.network, before.controls), sizes(after.network, after.controls)
    x = raw[:CHUNK]
    runs = [runner(before.network, before.controls), after.run()]
    batch = [t / len(x) for t in paired(*(lambda f=f: f(x) for f in runs))]
    single = paired(*(lambda f=f: f(x[:1]) for f in runs))
    end = constant_output(after.network, after.controls)
    unread = unread_inputs(after.network, after.controls)
    stages = [
        {
            "stage": a.stage,
            "kind": a.kind,
            "before": list(b.shape),
            "after": list(a.shape),
            "weights_before": b.weights,
            "weights_after": a.weights,
            "nonzero_before": b.nonzero,
            "nonzero_after": a.nonzero,
        }
        for b, a in zip(old, new, strict=True)
    ]
    return {
        "run": str(run),
        "weights": {
            "before": sum(s.weights for s in old),
            "after": sum(s.weights for s in new),
            "nonzero_before": sum(s.nonzero for s in old),
            "nonzero_after": sum(s.nonzero for s in new),
        },
        "multiply_adds": {
            "before": sum(s.multiply_adds for s in old),
            "after": sum(s.multiply_adds for s in new),
            "nonzero_after": sum(s.nonzero_multiply_adds for s in new),
        },
        "bytes": {"before": os.path.getsize(run / MODEL), "after": size},
        "seconds_per_image": {
            "batch": len(x),
            "before": batch[0],
            "after": batch[1],
            "single_before": single[0],
            "single_after": single[1],
            "blas_threads": 1,
        },
        "disconnected": end is not None,
        "constant_output": None if end is None else end.tolist(),
        "stages": stages,
        "kept": [asdict(k) | {"units": list(k.units)} for k in kept(after.network, after.controls)],
        "unread_pixels": np.flatnonzero(unread).tolist(),
        "pixels": int(unread.size),
        "versions": versions("numpy"),
    }


def lines(r: dict[str, Any]) -> list[str]:
    """The report for a terminal."""
    w, m, b, t, c = (r[name] for name in ("weights", "multiply_adds", "bytes", "seconds_per_image", "checked"))

    def part(after: int, before: int) -> str:
        return percent(after / before) if before else "–"

    def counted(what: str, n: dict[str, int]) -> list[str]:
        nonzero = n["nonzero_after"]
        numbers = part(n["after"], n["before"]), f"{nonzero:,}", part(nonzero, n["before"])
        return [what, f"{n['before']:,}", f"{n['after']:,}", *numbers]

    def timed(images: str, before: float, after: float) -> list[str]:
        return [
            f"µs per image, {images} at a time",
            f"{1e6 * before:.1f}",
            f"{1e6 * after:.1f}",
            percent(after / before),
        ]

    rows = [
        ["", "before", "after", "", "nonzero only", ""],
        counted("weights", w),
        counted("multiply-adds per image", m),
        ["bytes on disk", f"{b['before']:,}", f"{b['after']:,}", part(b["after"], b["before"]), "", ""],
        [*timed(t["batch"], t["before"], t["after"]), "", ""],
        [*timed("one", t["single_before"], t["single_after"]), "", ""],
    ]
    us = lambda s: "–" if s is None else f"{1e6 * s:.2f}"  # noqa: E731
    chosen = {f["stage"]: [us(f["dense_seconds"]), us(f["sparse_seconds"]), f["form"]] for f in r["forms"]}
    stages = [["stage", "kind", "before", "after", "nonzero", "dense µs", "sparse µs", "runs"]] + [
        [
            str(s["stage"]),
            s["kind"],
            "×".join(map(str, s["before"])),
            "×".join(map(str, s["after"])),
            f"{s['nonzero_after']:,}",
            *chosen.get(s["stage"], ["", "", ""]),
        ]
        for s in r["stages"]
    ]
    text = [f"run {r['run']}", *aligned(rows, 1), "", *aligned(stages, 4), ""]
    for k in r["kept"]:
        text.append(f"kept: {len(k['units'])} idle in stage {k['stage']}: {k['reason']}")
    if r["unread_pixels"]:
        text.append(
            f"{len(r['unread_pixels'])} of {r['pixels']} pixels are read by no weight (listed in {COMPACT_REPORT})"
        )
    if r["disconnected"]:
        text.append("disconnected: no path of nonzero weights leads from the image to the output, which is constant")
    text.append(
        f"checked on {c['images']} images: outputs differ by {c['float64_difference']:.1e} in float64 and by "
        f"{c['difference']:.1e} in {c['dtype']} (as trained: {c['difference_before']:.1e}), outputs up to "
        f"{c['largest_output']:.3g}; {c['classes_changed']} classes changed"
    )
    if "onnx" in c:
        text.append(f"ONNX: {c['onnx']}")
    return text
