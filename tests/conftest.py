"""Hypothesis profiles, the fixture ``backend``, the option ``--backend``, the closing lines on backends."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator
from typing import Any

import hypothesis
import pytest

from tests.backends import NAMES, Backend, load, probe

# No deadline and no `too_slow`: how long a draw takes says how busy the machine is, not if the code is right.
_UNTIMED: dict[str, Any] = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("ci", max_examples=25, derandomize=True, **_UNTIMED)
hypothesis.settings.register_profile("dev", max_examples=25, derandomize=False, **_UNTIMED)
hypothesis.settings.register_profile("thorough", max_examples=300, derandomize=False, **_UNTIMED)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backend", choices=NAMES, help="run the backend tests on this backend only")


def pytest_configure(config: pytest.Config) -> None:
    only = config.getoption("--backend")
    if only and (reason := probe(only)):
        raise pytest.UsageError(f"--backend {only}: this backend cannot be used here: {reason}")
    if only == "jax.numpy":  # every operation is compiled for every new shape: seconds an example
        hypothesis.settings.register_profile("jax", max_examples=3, derandomize=bool(os.environ.get("CI")), **_UNTIMED)
        hypothesis.settings.load_profile("jax")
    if not hasattr(config, "workerinput"):  # worker processes of pytest-xdist print no summary
        config.pluginmanager.register(BackendSummary(only), "backend-summary")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        only = metafunc.config.getoption("--backend")
        metafunc.parametrize("backend", [only] if only else NAMES, indirect=True, scope="session")


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> Backend:
    """An array backend, see ``tests.backends.Backend``."""
    return load(request.param)


def backend_of(item: pytest.Item) -> str | None:
    """Name of the backend that a test is to run on; None for a test that does not take the fixture."""
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get("backend")


def pytest_runtest_setup(item: pytest.Item) -> None:
    name = backend_of(item)
    if name and (reason := probe(name)):
        pytest.skip(f"backend {name}: {reason}")  # here, not in the fixture: so it is one line in the summary


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    if name := backend_of(item):
        item.user_properties.append(("backend", name))


class BackendSummary:
    """Counts the tests executed per backend and closes the run with what ran and what did not."""

    def __init__(self, only: str | None) -> None:
        self.only = only
        self.executed: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # Worker processes send their reports here, user properties included.
        if report.when == "call" and not report.skipped:
            self.executed.update(str(value) for key, value in report.user_properties if key == "backend")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Generator[None]:
        yield  # first what the others have to say
        ran = [f"{name} ({self.executed[name]} tests)" for name in NAMES if self.executed[name]]
        terminalreporter.line(f"backends run: {', '.join(ran) or 'none'}")
        for name in [self.only] if self.only else NAMES:
            if not self.executed[name]:
                reason = probe(name) or "no test that ran takes it"
                terminalreporter.line(f"backend not run: {name}: {reason}")
        if self.only:
            terminalreporter.line(f"other backends not run: --backend {self.only} was given")
