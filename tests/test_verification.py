"""The verification's own tests: contract of claims, planting of faults, runner, report, command line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmp_ref import maximise as maximise_module
from pmp_ref.errors import InputError
from pmp_ref.layers import Dense
from verification import __main__ as command
from verification import html, oracles, report, runner
from verification.claim import CLAIMS, Case, Check, Context, Figure, Outcome, Table, claim, evaluate, listen, survey
from verification.claims import problems
from verification.claims.array_libraries import residual_floor
from verification.coverage import parts, watch
from verification.libraries import NAMES, load
from verification.planting import kill_matrix, mutate
from verification.planting.fault import FAULTS, Edit, Executed, Fault, NotPlantable, faults, plant, targets

runner.load_all()
MICRO = ("T0", "T0b", "T1a", "T1d", "T4c", "T14b", "S5d")  # a few claims that take some milliseconds each


def micro(tag: str) -> Outcome:
    """The claim in its micro profile."""
    return evaluate(CLAIMS[tag], Context(profile="micro", tag=tag))


# --- checks and surveys -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "holds"),
    [
        (Check(1.0, 2.0), True),
        (Check(2.0, 2.0), True),
        (Check(2.1, 2.0), False),
        (Check(math.nan, 2.0), False),
        (Check(math.inf, 2.0), False),
        (Check(0.0, 0.0), True),
        (Check(1e-300, 0.0), False),
        (Check(-3.0, -2.0), True),
        (Check(-1.0, -2.0), False),
        (Check(3.0, 2.0, sense=">="), True),
        (Check(1.0, 2.0, sense=">="), False),
        (Check(math.nan, 2.0, sense=">="), False),
        (Check(math.inf, 2.0, sense=">="), True),
    ],
)
def test_a_check_holds_iff_its_inequality_is_true_and_its_margin_agrees(check: Check, holds: bool) -> None:
    assert check.holds is holds
    assert (check.margin >= 0) is holds
    assert not check.margin > 1  # a bound that is far away is unused, no more


def test_a_survey_reports_the_worst_check_and_how_to_make_it_again() -> None:
    context = Context(seed=3, profile="quick", tag="X")
    outcome = survey(context, lambda case: Check([0.1, 0.7, 0.3][case.index], 1.0), micro=1, quick=3, full=9)
    assert (outcome.measured, outcome.holds, outcome.instances, outcome.worst) == (0.7, True, 3, "X:3:quick:1")


def test_one_failed_check_among_many_fails_the_survey() -> None:
    outcome = survey(Context(tag="X"), lambda case: [Check(0.1, 1.0), Check(1.5, 1.0)], micro=1, quick=2, full=2)
    assert not outcome.holds
    assert (outcome.checks, outcome.failed, outcome.margin) == (4, 2, -0.5)


def test_a_breakdown_of_the_core_is_a_failed_check_and_keeps_the_checks_before_it() -> None:
    def one(case: Case) -> Iterator[Check]:
        yield Check(0.0, 1.0)
        raise InputError("shapes do not chain")

    outcome = survey(Context(tag="X"), one, micro=1, quick=1, full=1)
    assert not outcome.holds
    assert (outcome.checks, outcome.failed) == (2, 1)
    assert outcome.problem == "InputError: shapes do not chain"


def test_any_other_exception_is_an_error_of_the_claim() -> None:
    def broken(context: Context) -> Outcome:
        return survey(context, lambda case: case.nothing, micro=1, quick=1, full=1)  # type: ignore[attr-defined]

    outcome = evaluate(runner.Claim("X", "", "", broken), Context(tag="X"))
    assert not outcome.holds
    assert "AttributeError" in outcome.error


def test_a_survey_without_a_check_does_not_hold_for_no_reason() -> None:
    outcome = survey(Context(tag="X"), lambda case: [], micro=1, quick=1, full=1)
    assert not outcome.holds
    assert outcome.problem == "no check was made"


def test_instances_are_drawn_alike_alone_and_in_a_row() -> None:
    drawn = lambda context: Check(float(context.rng.random()), 2.0)  # noqa: E731
    with listen() as row:
        survey(Context(tag="X"), drawn, micro=1, quick=4, full=4)
    with listen() as alone:
        survey(Context(tag="X", only=2), drawn, micro=1, quick=4, full=4)
    assert [c.measured for c in alone] == [row[2].measured]
    assert len({c.measured for c in row}) == 4


def test_a_claim_needs_its_three_paragraphs_in_order() -> None:
    with pytest.raises(ValueError, match="paragraphs"):

        @claim(tag="X", title="", statement="")
        def no_hypotheses(context: Context) -> Outcome:
            """Statement: a.

            Measured: b.
            """
            raise NotImplementedError

    assert "X" not in CLAIMS


def test_a_claim_says_where_it_is_not_applicable() -> None:
    single = runner.Claim("X", "", "", lambda context: pytest.fail("must not run"), ("float64",))
    outcome = evaluate(single, Context(dtype="float32"))
    assert not outcome.applicable
    assert "float64" in outcome.notes[0]


# --- faults -----------------------------------------------------------------------------------------------------------

TRANSPOSED = Fault("t", (Edit("pmp_ref.layers.dense:Dense.adjoint_state", "matmul(p, k)", "matmul(p, planted(k.T))"),))


def test_a_planted_fault_runs_in_the_real_code_counts_and_leaves_no_trace() -> None:
    before = vars(Dense)["adjoint_state"]
    k, p = np.arange(4.0).reshape(2, 2), np.ones((1, 2))
    with plant(TRANSPOSED) as executed:
        assert executed.count == 0
        np.testing.assert_array_equal(Dense(2).adjoint_state((1, 2), k, p), p @ k.T)
        assert executed.count == 1
    assert vars(Dense)["adjoint_state"] is before
    np.testing.assert_array_equal(Dense(2).adjoint_state((1, 2), k, p), p @ k)


def test_a_fault_is_taken_out_after_an_exception() -> None:
    before = vars(Dense)["adjoint_state"]
    with pytest.raises(RuntimeError, match="inside"), plant(TRANSPOSED):
        raise RuntimeError("inside")
    assert vars(Dense)["adjoint_state"] is before


def test_a_fault_in_a_function_reaches_every_module_that_imported_it_by_name() -> None:
    from pmp_ref import trial

    one = Fault("f", (Edit("pmp_ref.maximise:candidate", "if metric is None:", "planted(0)\n    if metric is None:"),))
    with plant(one):
        assert trial.candidate is maximise_module.candidate
        inside = trial.candidate
    assert trial.candidate is not inside
    assert trial.candidate is maximise_module.candidate


def test_a_fault_in_an_inherited_method_changes_one_class_only() -> None:
    from pmp_ref.layers import Convolution

    one = Fault(
        "f", (Edit("pmp_ref.layers.dense:Dense.tangent", "self.apply(dx, u[0])", "planted(self.apply(dx, u[0]))"),)
    )
    with plant(one):
        assert "tangent" in vars(Dense)
        assert "tangent" not in vars(Convolution)
    assert "tangent" not in vars(Dense)


@pytest.mark.parametrize(
    "edit",
    [
        Edit("pmp_ref.layers.dense:Dense.adjoint_state", "no such text", "planted(1)"),
        Edit("pmp_ref.layers.dense:Dense.no_such_method", "a", "planted(1)"),
        Edit("pmp_ref.no_such_module:f", "a", "planted(1)"),
        Edit("pmp_ref.layers.dense:Dense.adjoint_state", "p", "planted(p)"),  # more than once
    ],
)
def test_a_fault_that_does_not_fit_the_code_is_an_error(edit: Edit) -> None:
    with pytest.raises(NotPlantable), plant(Fault("f", (edit,))):
        pass


def test_a_fault_must_be_able_to_prove_its_execution() -> None:
    with pytest.raises(ValueError, match="planted"):
        faults("x\n  pmp_ref.maximise:maximise\n  - metric\n  + metric")
    assert "x" not in FAULTS
    executed = Executed()
    assert executed.planted("v") == "v"
    assert executed.count == 1


def test_every_fault_fits_the_code() -> None:
    assert [kill_matrix.misfit(one) for one in FAULTS.values() if kill_matrix.misfit(one)] == []


def test_there_are_at_least_thirty_faults_and_all_of_section_6() -> None:
    assert len(FAULTS) >= 30
    assert sum(one.section6 for one in FAULTS.values()) >= 40  # the section's items, some in several variants


def test_a_cell_is_caught_survived_not_executed_or_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def cell(tag: str, edits: tuple[Edit, ...]) -> kill_matrix.Cell:
        monkeypatch.setitem(FAULTS, "f", Fault("f", edits))
        return kill_matrix.one_cell(CLAIMS[tag], "f")

    assert cell("T1a", TRANSPOSED.edits).state == "caught"
    harmless = Edit("pmp_ref.layers.dense:Dense.adjoint_state", "matmul(p, k)", "matmul(p, planted(k))")
    assert cell("T1a", (harmless,)).state == "survived"
    assert cell("T4c", TRANSPOSED.edits).state == "not executed"
    broken = Edit("pmp_ref.layers.dense:Dense.adjoint_state", "matmul(p, k)", "matmul(p, planted(k).no_such_name)")
    assert cell("T1a", (broken,)).state == "error"
    missing = Edit("pmp_ref.layers.dense:Dense.adjoint_state", "nothing like it", "planted(k)")
    assert cell("T1a", (missing,)).state == "error"


def test_a_cell_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kill_matrix, "CELL_LIMIT", 1)
    endless = Edit("pmp_ref.layers.dense:Dense.adjoint_state", "return", "while planted(True): pass\n    return")
    monkeypatch.setitem(FAULTS, "f", Fault("f", (endless,)))
    cell = kill_matrix.one_cell(CLAIMS["T1a"], "f")
    assert cell.state == "error"
    assert "within 1 s" in cell.detail


# --- mutations --------------------------------------------------------------------------------------------------------

SOURCE = '''
def f(a, b: int = 3) -> int:
    """Text."""
    if a < b:
        raise ValueError("a", 1)
    a += 2
    return g(a, b) if not a else -b
'''


def test_mutations_are_single_changes_of_what_computes() -> None:
    found = mutate.sites("x.py", SOURCE.encode())
    assert [(m.kind, m.line, m.after) for m in found] == [
        ("constant", 2, "(4)"),
        ("statement", 4, "pass"),
        ("comparison", 4, "(a <= b)"),
        ("operator", 6, "a -= 2"),
        ("statement", 6, "pass"),
        ("constant", 6, "(3)"),
        ("exchange", 7, "(-b if not a else g(a, b))"),
        ("operator", 7, "(a)"),
        ("exchange", 7, "(g(b, a))"),
        ("operator", 7, "(+b)"),
    ]
    for mutation in found:
        changed = mutation.applied(SOURCE.encode())
        compile(changed, "x.py", "exec")
        assert changed != SOURCE.encode()
        assert changed.startswith(SOURCE.encode()[: mutation.start]) and changed.endswith(
            SOURCE.encode()[mutation.end :]
        )


def test_mutations_are_drawn_alike_from_one_seed_and_not_twice() -> None:
    drawn = mutate.draw(50, 3)
    assert drawn == mutate.draw(60, 3)[:50] and len(set(drawn)) == 50
    assert drawn != mutate.draw(50, 4)
    assert {m.kind for m in drawn} == {"operator", "comparison", "constant", "exchange", "statement"}


def test_a_mutation_is_judged_by_tests_that_pass_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One test sees the change, one fails in any case: the first is the killer, the second kills nothing."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "m.py").write_text("def f(a):\n    return a + 1\n", encoding="utf-8")
    (tmp_path / "tests" / "test_m.py").write_text(
        "from m import f\ndef test_ill():\n    assert False\ndef test_good():\n    assert f(1) == 2\n", encoding="utf-8"
    )
    monkeypatch.setattr(mutate, "NO_CLAIMS", ("m.py",))
    monkeypatch.setattr(mutate, "tests_for", lambda path: ["tests/test_m.py"])
    first, *_ = mutate.sites("m.py", (tmp_path / "m.py").read_bytes())
    assert first.after == "(a - 1)" and mutate.judge(first, tmp_path) == "FAILED tests/test_m.py::test_good"
    harmless = mutate.Mutation("operator", "m.py", 2, first.start, first.end, first.before, "(1 + a)")
    assert mutate.judge(harmless, tmp_path) == ""
    assert (tmp_path / "m.py").read_text(encoding="utf-8") == "def f(a):\n    return a + 1\n"


# --- coverage ---------------------------------------------------------------------------------------------------------


def test_coverage_sees_each_stage_on_its_own_and_statuses() -> None:
    known = parts()
    names = {part.name for part in known}
    assert {
        "maximise.maximise",
        "layers.dense.Dense.costate",
        "layers.convolution.Convolution.costate",
        "status: precision limit",
        "verdict: average dropped",
    } <= names
    assert not [name for name in names if name.startswith(("app.", "data.", "kernels."))]
    with watch(known) as seen:
        Dense(2).costate(np.ones((1, 2)), (np.ones((2, 2)), np.ones(2)), np.ones((1, 2)))
    found = seen.names(known)
    assert "layers.dense.Dense.costate" in found
    assert "layers.convolution.Convolution.costate" not in found


def test_a_claim_touches_the_faults_whose_functions_it_calls() -> None:
    with watch(parts()) as seen:
        micro("T4c")
    touched = {name for name, one in FAULTS.items() if any(id(code) in seen.codes for code in targets(one))}
    assert "group ties kept" in touched
    assert "missing 1/B in p_L" not in touched


# --- claims -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", MICRO)
def test_a_claim_holds_in_its_micro_profile_and_repeats_exactly(tag: str) -> None:
    first, second = micro(tag), micro(tag)
    assert first.holds, first.error or first.problem
    assert first == second


@pytest.mark.parametrize(
    ("tag", "name"),
    [*((tag, "array_api_strict:device1") for tag in CLAIMS), *((tag, "numpy:readonly") for tag in MICRO)],
)
def test_claims_run_on_other_libraries(tag: str, name: str) -> None:
    """A device whose arrays ``np.asarray`` refuses: what a claim computes on the host it must take there first."""
    outcome = evaluate(CLAIMS[tag], Context(profile="micro", tag=tag, library=load(name)))
    assert outcome.holds, outcome.error or outcome.problem


@pytest.mark.parametrize("tag", ["T0", "T1a", "T4"])
def test_bounds_follow_from_the_precision(tag: str) -> None:
    double, single = (evaluate(CLAIMS[tag], Context(profile="micro", tag=tag, dtype=d)) for d in ("float64", "float32"))
    assert double.holds
    assert single.holds, single.error or single.problem


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("T1a", "W for Wᵀ in the costate of square dense stages"),
        ("T0", "average pooling not divided in both maps"),
        ("T4c", "group ties kept"),
        ("S5d", "ε shrunk on rejection (classic)"),
        ("T13", "N for N − 1 in the variance of a batch"),
        ("T3", "σ′ missing in the merged update"),
    ],
)
def test_a_fault_is_caught_by_the_claim_meant_for_it(tag: str, name: str) -> None:
    assert kill_matrix.one_cell(CLAIMS[tag], name).state == "caught"


# --- oracles ----------------------------------------------------------------------------------------------------------


def test_complex_step_and_differences_agree_with_a_derivative_by_hand() -> None:
    assert oracles.central_difference(math.sin, 1e-2) == pytest.approx(1.0, abs=1e-9)
    case = Context(tag="X").case(0)
    s = problems.host(problems.quadratic(case))
    residual = s.x @ s.controls[0][0].T - s.y + (s.controls[0][1] if len(s.controls[0]) > 1 else 0)
    due = (residual.T @ s.x / len(s.x)).ravel()
    np.testing.assert_allclose(oracles.complex_gradient(s)[: due.size], due, rtol=1e-12, atol=1e-14)


def test_exact_maximiser_on_cases_worked_by_hand() -> None:
    from pmp_ref.admissible import WHOLE_LINE, Box, FiniteSet
    from pmp_ref.regulariser import L0, L1

    assert oracles.exact_argmax(0, 4, 1, 4, L0(), WHOLE_LINE) == 0  # εc² = ρ: a tie, which goes to 0
    assert oracles.exact_argmax(0, 4.5, 1, 4, L0(), WHOLE_LINE) == 2.25
    assert oracles.exact_argmax(0, 4, 1, 1, L1(), WHOLE_LINE) == 1.5
    assert oracles.exact_argmax(0, 4, 1, 1, L1(), Box(-1.0, 1.0)) == 1
    assert oracles.exact_argmax(1, 0, 1, 0, L0(), FiniteSet((0.0, 2.0))) == 0  # both at distance 1: the smaller |v|


def test_every_batch_is_enumerated() -> None:
    assert len(oracles.all_batches(5, 2)) == 10


# --- command line and report ------------------------------------------------------------------------------------------


def test_a_run_of_one_claim_writes_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(tmp_path / "r.json"), str(tmp_path / "r.html")]
    code = command.main(["--claims", "T4c", "--json", files[0], "--html", files[1], "--jobs", "1"])
    shown = capsys.readouterr().out
    assert code == 0, shown
    assert "GREEN" in shown
    data = json.loads(Path(files[0]).read_text(encoding="utf-8"))
    assert data["schema"] == 1
    (one,) = data["claims"]
    keys = {
        "tag",
        "statement",
        "holds",
        "measured",
        "bound",
        "margin",
        "instances",
        "worst",
        "seconds",
        "backend",
        "dtype",
    }
    assert keys <= set(one)
    assert one["holds"] is True
    caught = {f["name"] for f in data["faults"] if f["caught_by"] == ["T4c"]}
    assert "group ties kept" in caught
    assert len(data["kill_matrix"]["cells"][0]) == len(data["faults"])
    text = Path(files[1]).read_text(encoding="utf-8")
    assert "<svg" in text or "class='matrix'" in text
    assert "http" not in text.replace("http-equiv", "")


def results_with(outcome: Outcome) -> runner.Results:
    """Results of all claims, that one outcome for each."""
    results = runner.Results(runner.Settings())
    results.claims = {tag: runner.ClaimResult(tag, outcome, 0.0) for tag in CLAIMS}
    results.cells = {(tag, name): kill_matrix.Cell(tag, name, "caught") for tag in CLAIMS for name in FAULTS}
    everything = frozenset(part.name for part in parts())
    results.claims = {tag: runner.ClaimResult(tag, outcome, 0.0, parts=everything) for tag in CLAIMS}
    return results


GOOD = Outcome(0.5, 1.0, True, 0.5, 3, "T0:0:quick:0")


def test_a_run_is_green_only_if_nothing_is_wrong() -> None:
    assert results_with(GOOD).problems() == []


def test_a_failing_claim_turns_the_run_red() -> None:
    problems = results_with(Outcome(2.0, 1.0, False, -1.0, 3, "T0:0:quick:0")).problems()
    assert any(line.startswith("T0 fails") for line in problems)


def test_a_surviving_or_never_executed_fault_turns_the_run_red() -> None:
    results, name = results_with(GOOD), next(iter(FAULTS))
    for tag in CLAIMS:
        results.cells[tag, name] = kill_matrix.Cell(tag, name, "survived")
    assert results.problems() == [f"the fault {name!r} survives"]
    for tag in CLAIMS:
        results.cells[tag, name] = kill_matrix.Cell(tag, name, "not executed")
    assert results.problems() == [f"the fault {name!r} was never executed"]


def test_a_claim_that_catches_nothing_turns_the_run_red() -> None:
    results = results_with(GOOD)
    for name in FAULTS:
        results.cells["T0", name] = kill_matrix.Cell("T0", name, "survived")
    assert results.problems() == ["T0 catches no fault"]


def test_an_error_under_a_fault_does_not_count_as_caught() -> None:
    results, name = results_with(GOOD), next(iter(FAULTS))
    for tag in CLAIMS:
        results.cells[tag, name] = kill_matrix.Cell(tag, name, "error", "TypeError: x")
    assert f"the fault {name!r} survives" in results.problems()
    assert any("TypeError" in line for line in results.problems())


def test_an_unexercised_part_turns_the_run_red() -> None:
    results = results_with(GOOD)
    results.claims = {tag: runner.ClaimResult(tag, GOOD, 0.0) for tag in CLAIMS}
    assert any(line == "no claim exercises maximise.maximise" for line in results.problems())


def test_survivors_are_not_judged_where_only_some_claims_ran() -> None:
    results = results_with(GOOD)
    del results.claims["T0"]
    assert not results.complete
    assert results.problems() == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--claims", "T99"], "unknown claim 'T99'"),
        (["--claims", ","], "names no claim"),
        (["--backend", "numpi"], "did you mean 'numpy'"),
        (["--dtype", "float16"], "unknown dtype"),
        (["--seed", "-1"], "seed"),
        (["--jobs", "0"], "process"),
        (["--replay", "T0:1"], "TAG:SEED:PROFILE:INDEX"),
        (["--claims", "T0", "--json", "/no/such/place/r.json"], "no directory"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(arguments) == 2
    shown = capsys.readouterr()
    assert words in shown.err
    assert len(shown.err.strip().splitlines()) == 1


def test_a_backend_that_is_not_present_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    absent = []
    for name in NAMES:
        try:
            load(name)
        except InputError:
            absent.append(name)
    for name in absent:  # may be none where every library is installed
        assert command.main(["--backend", name]) == 2
        assert name.split(":")[0] in capsys.readouterr().err


def test_a_replay_makes_one_instance(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--replay", "T4c:0:quick:3"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("holds") == shown.count("\n")


def test_a_replay_of_a_failing_instance_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with plant(FAULTS["group ties kept"]):
        outcome = micro("T4c")
        assert not outcome.holds
        assert command.main(["--replay", outcome.worst]) == 1
    assert "FAILS" in capsys.readouterr().out
    assert command.main(["--replay", outcome.worst]) == 0


def test_the_list_names_every_claim(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    assert len(capsys.readouterr().out.strip().splitlines()) == len(CLAIMS)


def test_json_has_no_number_that_json_does_not_know(tmp_path: Path) -> None:
    results = results_with(
        Outcome(math.inf, math.nan, False, -math.inf, 1, "x", tables=(Table("t", ("a",), ((np.float64(1),),)),))
    )
    report.write_json(results, tmp_path / "r.json")
    data: Any = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert data["claims"][0]["measured"] == "inf"
    assert data["claims"][0]["tables"][0]["rows"] == [[1.0]]


def test_every_row_of_the_faults_has_three_cells(tmp_path: Path) -> None:
    """Names hold bars, as in |Δ|: in the written page and in the stored one. The link of its head leads somewhere."""
    report.write_faults(results_with(GOOD), tmp_path / "faults.md")
    docs = Path(__file__).resolve().parents[1] / "docs"
    assert any("|" in name for name in FAULTS)
    for page in (tmp_path / "faults.md", docs / "verification-faults.md"):
        text = page.read_text(encoding="utf-8")
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert len(rows) > 30 and all(len(re.split(r"(?<!\\)\|", row)) == 5 for row in rows)
        assert "(theory/limits.md#planted-faults)" in text
    assert "\n## Planted faults\n" in (docs / "theory" / "limits.md").read_text(encoding="utf-8")


def test_the_page_draws_figures_and_escapes_text() -> None:
    from verification.claim import Curve

    figure = Figure(
        "a < b",
        "k",
        "ε",
        (Curve("ε", (1.0, 2.0), (1.0, 0.1)), Curve("Ĉ", (1.0, 2.0), (1.0, 2.0), "points")),
        log_y=True,
    )
    text = html.page(results_with(GOOD.with_(figures=[figure], notes=["x < y"])))
    assert "a &lt; b" in text
    assert "x &lt; y" in text
    assert "<svg" in text


@pytest.mark.parametrize(
    ("value", "text"), [(math.inf, "∞"), (-math.inf, "−∞"), (0.25, "0.25"), (1e-12, "1·10<sup>−12</sup>"), (0.0, "0")]
)
def test_numbers_of_the_page(value: float, text: str) -> None:
    assert html.number(value) == text


@pytest.mark.parametrize(
    ("formula", "shown"),
    [
        ("½λ_max(D²L_B)", "½λ<sub>max</sub>(D²L<sub>B</sub>)"),
        ("Σε_kτ_k, J(u^k)", "Σε<sub>k</sub>τ<sub>k</sub>, J(u<sup>k</sup>)"),
        ("argmax_w K_ε(w; u*_l)", "argmax<sub>w</sub> K<sub>ε</sub>(w; u*<sub>l</sub>)"),
        ("min_{k<K} τ_k", "min<sub>k&lt;K</sub> τ<sub>k</sub>"),
        ("eps_min, max_pool_net, numpy.float64", "eps_min, max_pool_net, numpy.float64"),
    ],
)
def test_subscripts_of_formulas(formula: str, shown: str) -> None:
    assert html.typeset(formula) == shown


def test_the_residual_of_two_runs_is_known_to_the_rounding_of_w() -> None:
    """Two candidates that differ by a unit in the last place, at a large ε: nothing else may be taken off."""
    u, eps, roundoff = np.full(50, 1.25), 1e11, 2.0**-53
    w = u + 1e-10
    other = np.nextafter(w, 2.0)
    residuals = [2 * eps * float(np.linalg.norm(a - u)) for a in (w, other)]
    floor = residual_floor(roundoff, eps, 1.0, float(np.linalg.norm(w)))
    assert abs(residuals[0] - residuals[1]) <= floor <= 100 * abs(residuals[0] - residuals[1])
    assert residual_floor(roundoff, 1.0, 1.0, 10.0) < 1e-12
