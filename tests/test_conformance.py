"""The conformance vectors: they agree with themselves, do not change unnoticed, suffice for an independent program, and
a fault in another program is reported where it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pmp_ref.layers as layers
from pmp_ref.acceptance import Absolute
from pmp_ref.arrays import namespace
from pmp_ref.augmentation import Classic
from pmp_ref.errors import InputError
from pmp_ref.layers import Convolution, Dense, OnBranch, Tanh
from pmp_ref.layers import convolution as convolution_module
from pmp_ref.network import Network
from pmp_ref.regulariser import Polynomial
from verification.conformance.__main__ import main
from verification.conformance.cases import VERSION, cases, numbers
from verification.conformance.files import Departure, check, export
from verification.conformance.record import run

# Objective at the start and the decisions. Whoever has to change a line here changes the vectors: raise VERSION.
A, R, U = "accepted", "rejected", "control unchanged"
PINNED = {
    "dense-l0": (1.746908, [R, R, A, R, R, R, A, R]),
    "conv-l1-box": (1.421955, [R, A, A, A, A, A]),
    "residual-relative": (1.161516, [R, A, R, A, A]),
    "relu-group": (1.327122, [A, A, A, R, A, A]),
    "finite-minibatch": (1.785947, [A, R, R, R, R, U, A, R, R, R]),
    "metric-half": (1.703434, [R, A, A, A, A, A]),
    "dense-float32": (1.539936, [R, A, R, R, A]),
}


def departures(directory: Path, *names: str) -> list[Departure | None]:
    return [finding.departure for finding in check(directory, list(names))]


def test_cases_are_those_of_the_version() -> None:
    assert VERSION == 1
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
        return x + (self.noise * numbers(99, x.shape)).astype(x.dtype), y, controls


def test_export_then_check_agrees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path)]) == 0
    assert main(["check", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(cases()) and all(": agrees (" in line for line in lines[1:])


def test_export_is_reproducible(tmp_path: Path) -> None:
    export(tmp_path / "a", ["dense-l0"])
    export(tmp_path / "b", ["dense-l0"])
    for path in sorted((tmp_path / "a").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def build(spec: Any) -> Any:
    """A stage from its description in case.json."""
    kind = getattr(layers, spec["kind"])
    names = [f for f in spec if f not in ("kind", "stage", "enters", "leaves", "controls")] + (
        ["stage"] if kind is OnBranch else []
    )
    values = {n: build(spec[n]) if isinstance(spec[n], dict) else spec[n] for n in names}
    return kind(**{n: tuple(v) if isinstance(v, list) else v for n, v in values.items()})


@pytest.mark.parametrize("name", list(PINNED))
def test_description_is_complete(name: str, tmp_path: Path) -> None:
    """The network can be built again from case.json, and every quantity of a trial is in the files and explained."""
    export(tmp_path, [name])
    spec = json.loads((tmp_path / name / "case.json").read_text())
    network = cases()[name].problem.network
    assert Network(tuple(build(stage) for stage in spec["stages"]), tuple(spec["input_shape"])) == network
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
    stages = cases()["residual-relative"].problem.network.stages
    last = max(l for l, s in enumerate(stages) if isinstance(s, OnBranch) and isinstance(s.stage, Convolution))
    (found,) = departures(tmp_path)
    assert found is not None and (found.trial, found.key) == (0, f"p{last}_s")  # the projection on the skip
    assert "Convolution" in found.what and "skip s" in found.what
    assert main(["check", str(tmp_path)]) == 1
    assert f"first departure in trial 0 at p{last}_s" in capsys.readouterr().out


def high_threshold(self: Polynomial, u: Any, g: Any, eps: Any, rho: float, box: Any) -> Any:
    c = u + g / (2 * eps)
    return np.where(eps * c * c > 2 * rho, c, 0.0)


FAULTS: dict[str, tuple[str, str, Any, tuple[int, str]]] = {
    "L0 threshold √(2ρ/ε)": ("Polynomial", "on_line", high_threshold, (0, "w0_kernel")),
    "σ′ at σ(z)": ("Tanh", "slope", lambda self, z: 1 - np.tanh(np.tanh(z)) ** 2, (0, "p3")),
    "acceptance without τ and sign": ("Absolute", "accepts", lambda self, dj, tau, dh: True, (0, "verdict")),
    "ε not enlarged on rejection": ("Classic", "rejected", lambda self, eps, c, eta: eps, (0, "eps_next")),
}
OWNERS = {"Polynomial": Polynomial, "Tanh": Tanh, "Absolute": Absolute, "Classic": Classic}


@pytest.mark.parametrize("name", list(FAULTS))
def test_faults_are_found_where_they_are(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, method, wrong, place = FAULTS[name]
    with monkeypatch.context() as patch:
        patch.setattr(OWNERS[owner], method, wrong)
        export(tmp_path, ["dense-l0"])
    (found,) = departures(tmp_path)
    assert found is not None and (found.trial, found.key) == place


# --- an independent program: knows the files only --------------------------------------------------------------------


def independent(folder: Path, out: Path, fault: str = "") -> None:
    """bSQH for the case dense-l0 in plain NumPy, from case.json and input.npz alone."""
    spec = json.loads((folder / "case.json").read_text())
    data = np.load(folder / "input.npz")
    dense = [s["stage"] for s in spec["stages"] if s["kind"] == "Dense"]
    u = {f"u{l}_{n}": data[f"u{l}_{n}"] for l in dense for n in ("kernel", "bias")}
    weight = {f"u{l}_{n}": spec["weights"][l][i] for l in dense for i, n in enumerate(("kernel", "bias"))}
    rule, eta = spec["method"]["rule"], spec["method"]["acceptance"]["eta"]
    x, y, rho, eps = data["x"], data["y"], spec["rho"], rule["eps0"]
    rows, samples, old = [], len(data["x"]), None

    def forward(u: dict[str, Any]) -> tuple[list[Any], Any]:
        states = [x]
        for s in spec["stages"]:
            l, z = s["stage"], states[-1]
            states.append(z @ u[f"u{l}_kernel"].T + u[f"u{l}_bias"] if s["kind"] == "Dense" else np.tanh(z))
        scores = states[-1]
        return states, np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(samples), y]

    def penalty(u: dict[str, Any]) -> float:
        return float(sum(weight[k] * np.count_nonzero(a) for k, a in u.items()))

    out.mkdir()
    for k in range(spec["trials"]):
        states, losses = forward(u)
        arrays = {"batch": np.arange(samples), **u, "losses": losses}
        arrays |= {f"x{l}": a for l, a in enumerate(states) if l > 0}
        pi = np.exp(states[-1]) / np.exp(states[-1]).sum(axis=1, keepdims=True)
        p, g = -(pi - np.eye(pi.shape[1])[y]) / samples, {}
        if fault == "stale terminal costate":
            p = old = p if k == 0 else old  # never made again
        for s in reversed(spec["stages"]):
            l = s["stage"]
            arrays[f"p{l + 1}"] = p
            if s["kind"] == "Dense":
                g[f"u{l}_kernel"], g[f"u{l}_bias"] = p.T @ states[l], p.sum(axis=0)
                kernel = u[f"u{l}_kernel"]
                p = p @ (kernel.T if fault == "untransposed" and kernel.shape[0] == kernel.shape[1] else kernel)
            else:
                p = (1 - states[l + 1] ** 2) * p
        arrays |= {"g" + key[1:]: a for key, a in g.items()}
        c = {key: a + g[key] / (2 * eps) for key, a in u.items()}
        w = {key: np.where(eps * a**2 > rho * weight[key], a, 0.0) for key, a in c.items()}
        arrays |= {"w" + key[1:]: a for key, a in w.items()}
        tau = float(sum(np.sum((w[key] - u[key]) ** 2) for key in u))
        linear = float(sum(np.sum(g[key] * (w[key] - u[key])) for key in u))
        _, arrays["losses_w"] = forward(w)
        loss, loss_w = float(losses.mean()), float(arrays["losses_w"].mean())
        delta, change = loss_w - loss, rho * (penalty(w) - penalty(u))
        accepted = delta + change <= -eta * tau
        following = max(rule["zeta"] * eps, rule["eps_min"]) if accepted else rule["sigma"] * eps
        rows.append({
            "eps": eps, "loss": loss, "penalty": penalty(u), "J": loss + rho * penalty(u), "tau": tau,
            "sum_dh": linear - change, "loss_w": loss_w, "penalty_w": penalty(w), "J_w": loss_w + rho * penalty(w),
            "delta_J": delta + change, "c_hat": (delta + linear) / tau, "eps_next": following,
            "verdict": "accepted" if accepted else "rejected",
        })  # fmt: skip
        np.savez(out / f"trial-{k:03}.npz", **arrays)
        u, eps = (w if accepted else u), following
    (out / "trials.json").write_text(json.dumps(rows))


def test_an_independent_program_agrees(tmp_path: Path) -> None:
    export(tmp_path / "reference", ["dense-l0"])
    (tmp_path / "right").mkdir()
    independent(tmp_path / "reference" / "dense-l0", tmp_path / "right" / "dense-l0")
    (finding,) = check(tmp_path / "right", [])
    assert finding.departure is None and finding.absent == 0 and finding.compared > 300


@pytest.mark.parametrize(("fault", "place"), [("untransposed", (0, "p2")), ("stale terminal costate", (3, "p5"))])
def test_its_faults_are_found(tmp_path: Path, fault: str, place: tuple[int, str]) -> None:
    """The first acceptance is trial 2, so a costate that is kept shows in trial 3 and not before."""
    export(tmp_path / "reference", ["dense-l0"])
    (tmp_path / "wrong").mkdir()
    independent(tmp_path / "reference" / "dense-l0", tmp_path / "wrong" / "dense-l0", fault)
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
        ("index.json", '{"version": 0}', "is of version 0; this program compares version 1"),
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
