"""Before any test: Triton reads where to run when it is imported, and other libraries import it too; no test fails for
being slow on a machine with other work.
"""

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

if settings.default.deadline is not None:  # a profile that is loaded before has its own
    settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("unhurried")

HOST = os.environ.get("REQUIRE_HOST")
"""The host trainer that is installed for its tests: with it, a test that is skipped fails the run."""

skipped: list[str] = []


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what the tests would keep for their user, such as the secret of random tests, out of the user's home."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if HOST and report.skipped:
        skipped.append(f"{report.nodeid}: {report.longrepr}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if HOST and report.skipped:
        skipped.append(f"{report.nodeid}: {report.longrepr}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if skipped:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if skipped:
        terminalreporter.section(f"skipped, although {HOST} is installed")
        for line in skipped:
            terminalreporter.write_line(line)
