"""The conformance vectors: they agree with themselves, do not change unnoticed, suffice for an independent program, and
a fault in another program is reported where it is."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pmp_ref.layers as layers
from pmp_ref.acceptance import AbsoluteTest
from pmp_ref.arrays import namespace
from pmp_ref.augmentation import ClassicRule
from pmp_ref.errors import InputError
from pmp_ref.layers import Convolution, Dense, Tanh
from pmp_ref.layers import convolution as convolution_module
from pmp_ref.network import Network
from pmp_ref.regulariser import Polynomial
from verification import plain
from verification.conformance import translate
from verification.conformance.__main__ import main
from verification.conformance.cases import VERSION, cases, numbers
from verification.conformance.files import Departure, check, export
from verification.conformance.record import run

# Objective at the start and the decisions. Whoever has to change a line here changes the vectors: raise VERSION.
A, R, U = "accepted", "rejected", "control unchanged"
PINNED = {
    "dense-l0": (1.746908, [R, R, A, R, R, R, A, R]),
    "conv-l1-box": (1.421955, [R, A, A, A, A, A]),
    "residual-relative": (1.223484, [R, R, A, A, A]),
    "relu-group": (1.327122, [A, A, A, R, A, A]),
    "finite-minibatch": (1.785947, [A, R, R, R, R, U, A, R, R, R]),
    "metric-half": (1.703434, [R, A, A, A, A, A]),
    "pixels-l0": (2.394882, [R, R, R, R, A, A]),
    "dense-float32": (1.539936, [R, A, R, R, A]),
}


def departures(directory: Path, *names: str) -> list[Departure | None]:
    return [finding.departure for finding in check(directory, list(names))]


def test_cases_are_those_of_the_version() -> None:
    assert VERSION == 2
    found = {}
    for name, case in cases().items():
        trials = [{q.key: q.value for q in trial} for trial in run(case)]
        found[name] = (round(trials[0]["J"], 6), [trial["verdict"] for trial in trials])
    assert found == PINNED


def test_numbers_are_exact_in_both_precisions() -> None:
    a = numbers(1, (200,))
    assert np.array_equal(a.astype(np.float32).astype(np.float64), a) and -1 < a.min() < -0.9 and 0.9 < a.max() < 1
    s = 1  # the generator by hand
    for _ in range(17):
        s = (1103515245 * s + 12345) % 2**31
    assert a[0] == (s // 2**15) / 2**15 - 1


def test_no_decision_hangs_on_a_rounding() -> None:
    """Another program rounds differently: noise of 1e-10 in the images must not change a decision or a support."""
    for case in cases().values():
        noise = 1e-10 if case.dtype == "float64" else 1e-6
        disturbed = run(Disturbed(case, noise))  # type: ignore[arg-type]
        for trial, other in zip(run(case), disturbed, strict=True):
            for q, p in zip(trial, other, strict=True):
                if q.key == "verdict":
                    assert q.value == p.value, case.name
                if q.key.startswith("w"):
                    assert np.array_equal(q.value != 0, p.value != 0), (case.name, q.key)


class Disturbed:
    """A case with noise in its images."""

    def __init__(self, case: Any, noise: float) -> None:
        self.case, self.noise = case, noise

    def __getattr__(self, name: str) -> Any:
        return getattr(self.case, name)

    def inputs(self) -> Any:
        x, y, controls = self.case.inputs()
        if x.dtype == np.uint8:  # the next byte is far away: controls are disturbed in place of images
            return x, y, tuple(tuple(a + self.noise * (a != 0) for a in stage) for stage in controls)
        return x + (self.noise * numbers(99, x.shape)).astype(x.dtype), y, controls


def test_export_then_check_agrees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path)]) == 0
    assert main(["check", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(cases()) and all(": agrees (" in line for line in lines[1:])


def test_missing_cases_are_named_and_are_no_agreement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A program that made one case of seven does not agree; with --case it says that one is meant."""
    export(tmp_path, ["dense-l0"])
    for extra in ([], ["--partial"]):
        assert main(["check", str(tmp_path), *extra]) == 1
        agrees, missing = capsys.readouterr().out.splitlines()
        assert agrees.startswith("dense-l0: agrees (")
        others = [name for name in cases() if name != "dense-l0"]
        assert missing.startswith(f"missing: {', '.join(others)}: 1 of {len(cases())} cases were compared; ")
        assert "--case" in missing
    assert main(["check", str(tmp_path), "--case", "dense-l0"]) == 0
    assert "missing" not in capsys.readouterr().out
    assert main(["check", str(tmp_path), "--case", "dense-l0", "--case", "relu-group"]) == 2  # named, and not there


def test_export_is_reproducible(tmp_path: Path) -> None:
    export(tmp_path / "a", ["dense-l0"])
    export(tmp_path / "b", ["dense-l0"])
    for path in sorted((tmp_path / "a").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def build(spec: Any) -> Any:
    """A stage from its description in case.json."""
    kind = getattr(layers, spec["kind"])
    known = ("kind", "stage", "reads", "enters", "leaves", "controls")
    return kind(**{n: tuple(v) if isinstance(v, list) else v for n, v in spec.items() if n not in known})


@pytest.mark.parametrize("name", list(PINNED))
def test_description_is_complete(name: str, tmp_path: Path) -> None:
    """The network can be built again from case.json, and every quantity of a trial is in the files and explained."""
    export(tmp_path, [name])
    spec = json.loads((tmp_path / name / "case.json").read_text())
    network = cases()[name].problem.network
    stages, reads = [build(stage) for stage in spec["stages"]], [stage["reads"] for stage in spec["stages"]]
    assert Network(stages, tuple(spec["input_shape"]), reads) == network
    keys = {key for key, _ in spec["order"]}
    scalars = json.loads((tmp_path / name / "trials.json").read_text())
    assert len(scalars) == spec["trials"] == len(spec["batches"])
    for k, row in enumerate(scalars):
        with np.load(tmp_path / name / f"trial-{k:03}.npz") as arrays:
            assert keys == set(row) | set(arrays)


# --- faults of another program: planted in the reference while it writes the files -----------------------------------


def untransposed(self: Dense, x_shape: Any, k: Any, p: Any) -> Any:
    xp = namespace(p)
    return xp.matmul(p, xp.matrix_transpose(k) if k.shape[0] == k.shape[1] else k)


def test_untransposed_adjoint_is_found_at_its_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Dense, "adjoint_state", untransposed)
        export(tmp_path, ["dense-l0"])
    (found,) = departures(tmp_path)
    assert found is not None and (found.trial, found.key) == (0, "p2")
    assert found.what.startswith("costate entering stage 2, Dense(neurons=4") and found.later > 0
    assert isinstance(cases()["dense-l0"].problem.network.stages[2], Dense)


def test_convolution_off_by_one_is_found_at_its_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = convolution_module.patches_adjoint
    with monkeypatch.context() as patch:
        shifted = lambda z, w, rows, columns: np.roll(honest(z, w, rows, columns), 1, axis=-1)  # noqa: E731
        patch.setattr(convolution_module, "patches_adjoint", shifted)
        export(tmp_path, ["residual-relative"])
    network = cases()["residual-relative"].problem.network
    last = max(l for l, stage in enumerate(network.stages) if isinstance(stage, Convolution))  # the projection
    (entrance,) = network.reads[last]  # of the block
    (found,) = departures(tmp_path)
    assert found is not None and (found.trial, found.key) == (0, f"p{entrance}")
    assert f" and stage {last}, Convolution" in found.what
    assert main(["check", str(tmp_path)]) == 1
    assert f"first departure in trial 0 at p{entrance} " in capsys.readouterr().out


def high_threshold(self: Polynomial, u: Any, g: Any, eps: Any, rho: float, box: Any) -> Any:
    c = u + g / (2 * eps)
    return np.where(eps * c * c > 2 * rho, c, 0.0)


FAULTS: dict[str, tuple[str, str, Any, tuple[int, str]]] = {
    "L0 threshold √(2ρ/ε)": ("Polynomial", "on_line", high_threshold, (0, "w0_kernel")),
    "σ′ at σ(z)": ("Tanh", "slope", lambda self, z: 1 - np.tanh(np.tanh(z)) ** 2, (0, "p3")),
    "acceptance without τ and sign": ("AbsoluteTest", "accepts", lambda self, dj, tau, dh: True, (0, "verdict")),
    "ε not enlarged on rejection": ("ClassicRule", "rejected", lambda self, eps, c, eta: eps, (0, "eps_next")),
}
OWNERS = {"Polynomial": Polynomial, "Tanh": Tanh, "AbsoluteTest": AbsoluteTest, "ClassicRule": ClassicRule}


@pytest.mark.parametrize("name", list(FAULTS))
def test_faults_are_found_where_they_are(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, method, wrong, place = FAULTS[name]
    with monkeypatch.context() as patch:
        patch.setattr(OWNERS[owner], method, wrong)
        export(tmp_path, ["dense-l0"])
    (found,) = departures(tmp_path)
    assert found is not None and (found.trial, found.key) == place


# --- the second program, verification/plain.py: knows the files only -------------------------------------------------

ABLE = (
    "dense-l0",
    "conv-l1-box",
    "dense-float32",
    "pixels-l0",
)  # the others have stages, penalties or sets that it leaves out


def second(folder: Path, out: Path) -> None:
    """A case by the second program, from case.json and input.npz alone; in float64 throughout."""
    spec = json.loads((folder / "case.json").read_text())
    P = translate.problem(spec)
    named = [f"{s['stage']}_{name}" for s in spec["stages"] for name in s["controls"]]
    with np.load(folder / "input.npz") as data:
        x, y = data["x"].astype(float), data["y"]
        u = np.concatenate([data[f"u{name}"].ravel() for name in named]).astype(float)

    def arrays(key: str, v: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip((key + name for name in named), (a for stage in P.by_stage(v) for a in stage), strict=True))

    out.mkdir(parents=True)
    rows, last = [], len(spec["stages"])
    for k, t in enumerate(islice(plain.bsqh(P, u, x, y, **translate.choices(spec, P)), spec["trials"])):
        states = P.forward_sweep(t.u, x)
        costates, _ = P.backward_sweep(t.u, states, y)
        found = {"batch": t.batch, "losses": t.losses_u, "losses_w": t.losses}
        found |= arrays("u", t.u) | arrays("g", t.g) | arrays("w", t.w)
        found |= {f"x{l}": states[l] for l in range(1, last + 1)} | {f"p{last - l}": costates[l] for l in range(last)}
        np.savez(out / f"trial-{k:03}.npz", **found)
        rows.append(
            {
                "eps": t.eps,
                "loss": t.losses_u.mean(),
                "penalty": t.penalty_u,
                "J": t.J_u,
                "tau": t.tau,
                "sum_dh": t.sum_dh,
                "loss_w": t.losses.mean(),
                "penalty_w": t.penalty,
                "J_w": t.J,
                "delta_J": t.delta_j,
                "c_hat": t.c_hat,
                "verdict": t.verdict,
                "eps_next": t.eps_after,
            }
        )
    (out / "trials.json").write_text(json.dumps(rows))


@pytest.mark.parametrize("name", list(PINNED))
def test_the_second_program_agrees(name: str, tmp_path: Path) -> None:
    export(tmp_path / "reference", [name])
    assert translate.able(json.loads((tmp_path / "reference" / name / "case.json").read_text())) is (name in ABLE)
    if name in ABLE:
        second(tmp_path / "reference" / name, tmp_path / "mine" / name)
        (finding,) = check(tmp_path / "mine", [])
        assert finding.departure is None and finding.absent == 0 and finding.compared > 150


def stale(honest: Any) -> Any:
    """A loss whose gradient is never made again."""
    kept: list[Any] = []

    def loss(x: Any, y: Any) -> Any:
        values, gradient = honest(x, y)
        kept.append(gradient)
        return values, kept[0]

    return loss


SECOND_FAULTS: dict[str, tuple[str, str, Any, tuple[int, str]]] = {
    "untransposed": (
        "dense-l0",
        "dense",
        lambda dense: dense._replace(costate=lambda x, u, p: p @ (u[0].T if u[0].shape[0] == u[0].shape[1] else u[0])),
        (0, "p2"),
    ),
    "stale terminal costate": ("dense-l0", "cross_entropy", stale, (3, "p5")),
    "windows of the image one row off": (
        "conv-l1-box",
        "windows",
        lambda windows: lambda x, *rest: windows(np.roll(x, 1, 2), *rest),
        (0, "x1"),
    ),
    "ε not enlarged": ("conv-l1-box", "rejected", lambda honest: lambda M, eps, c: eps, (0, "eps_next")),
}


@pytest.mark.parametrize("fault", list(SECOND_FAULTS))
def test_its_faults_are_found(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In dense-l0 the first acceptance is trial 2, so a costate that is kept shows in trial 3 and not before."""
    case, name, wrong, place = SECOND_FAULTS[fault]
    export(tmp_path / "reference", [case])
    monkeypatch.setattr(plain, name, wrong(getattr(plain, name)))
    second(tmp_path / "reference" / case, tmp_path / "wrong" / case)
    (found,) = departures(tmp_path / "wrong")
    assert found is not None and (found.trial, found.key) == place


# --- files that do not fit -------------------------------------------------------------------------------------------


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    export(tmp_path, ["dense-l0"])
    return tmp_path


def rewrite(path: Path, **changes: Any) -> None:
    with np.load(path) as data:
        arrays = {**data, **changes}
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (lambda a: a[:-1], "shape (6, 4), expected (7, 4)"),
        (lambda a: np.where(np.arange(4) == 2, np.nan, a), "nan at [0, 2]"),
        (lambda a: a + 1e-9, "over the tolerance"),
    ],
)
def test_departures_are_told_apart(exported: Path, change: Any, detail: str) -> None:
    path = exported / "dense-l0" / "trial-001.npz"
    with np.load(path) as data:
        value = data["x4"]
    rewrite(path, x4=change(value))
    (found,) = departures(exported)
    assert found is not None and (found.trial, found.key) == (1, "x4") and detail in found.detail and found.later == 0


def test_only_plain_arrays_are_read(exported: Path) -> None:
    """Texts, objects and complex numbers are refused before memory is asked for; what no array can hold departs."""
    path = exported / "dense-l0" / "trial-001.npz"
    before = path.read_bytes()
    for value in (np.array(["a"]), np.array([{}]), np.zeros(3, complex)):
        rewrite(path, x4=value)
        with pytest.raises(InputError, match="expected an array of numbers"):
            check(exported, [])
        path.write_bytes(before)
    trials = exported / "dense-l0" / "trials.json"
    rows = json.loads(trials.read_text())
    for value, words in (({}, "is no number"), ([[1], [1, 2]], "is no array"), (10**400, "is no number")):
        rows[0]["J"] = value
        trials.write_text(json.dumps(rows))
        (found,) = departures(exported)
        assert found is not None and (found.trial, found.key) == (0, "J") and words in found.detail


def test_rounding_is_no_departure(exported: Path) -> None:
    path = exported / "dense-l0" / "trial-001.npz"
    with np.load(path) as data:
        arrays = {key: a * (1 + 1e-12) if a.dtype.kind == "f" else a for key, a in data.items()}
    rewrite(path, **arrays)
    assert departures(exported) == [None]


def test_absent_quantities(exported: Path) -> None:
    rewrite(exported / "dense-l0" / "trial-002.npz", p3=None)
    (found,) = departures(exported)
    assert found is not None and (found.trial, found.key, found.detail) == (2, "p3", "absent")
    (finding,) = check(exported, [], partial=True)
    assert finding.departure is None and finding.absent == 1


def test_another_input_is_named(exported: Path) -> None:
    rewrite(exported / "dense-l0" / "input.npz", x=np.zeros((7, 4)))
    (found,) = departures(exported)
    assert found is not None and found.trial is None and "input at x" in str(found)


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("index.json", '{"version": 0}', "is of version 0; this program compares version 2"),
        ("dense-l0/trials.json", "{}", "no list of objects"),
        ("dense-l0/trials.json", "[", "cannot read"),
        ("dense-l0/trial-000.npz", "no zip", "cannot read"),
    ],
)
def test_bad_files_are_input_errors(
    exported: Path, capsys: pytest.CaptureFixture[str], path: str, content: str, words: str
) -> None:
    (exported / path).write_text(content)
    assert main(["check", str(exported)]) == 2
    assert words in capsys.readouterr().err


def test_bad_arguments_are_input_errors(tmp_path: Path) -> None:
    for arguments, words in (
        ((tmp_path / "none", []), "is no directory"),
        ((tmp_path, []), "holds no folder with the name of a case"),
        ((tmp_path, ["dense"]), "unknown case 'dense'"),
        ((tmp_path, ["dense-l0"]), "is no directory"),
    ):
        with pytest.raises(InputError, match=words):
            check(*arguments)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        export(tmp_path / "file", ["dense-l0"])


def test_nothing_to_compare_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "dense-l0").mkdir()
    (tmp_path / "dense-l0" / "trials.json").write_text("[]")
    with pytest.raises(InputError, match="holds none of the quantities"):
        check(tmp_path, [], partial=True)
