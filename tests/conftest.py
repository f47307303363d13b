"""What all tests share: where the real metadata lies, and the count of the tests that ran.

In CI (FOLEYPROOF_CI set) the central tests cannot be skipped: without the real metadata they fail,
and fewer tests than FLOOR fail the run.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("FOLEYPROOF_SHARED", REPOSITORY.parent / "shared"))
IN_CI = bool(os.environ.get("FOLEYPROOF_CI"))
# Raise these when tests are added; they may only fall together with what they tested.
FLOOR = {"all": 4850, "shared": 120}


def _shared(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        assert not IN_CI, f"{folder}: missing, CI needs it for the central tests"
        pytest.skip(f"{folder} is not there; set FOLEYPROOF_SHARED")
    return folder


@pytest.fixture(scope="session")
def shared_metadata() -> Path:
    """The folder with the real metadata, laid out as `curate fetch --from` reads it."""
    return _shared("metadata")


@pytest.fixture(scope="session")
def shared_clips() -> Path:
    """The folder with real video and sound."""
    return _shared("clips")


@pytest.fixture(scope="session")
def shared_golden() -> Path:
    """The folder with inputs and outputs that the networks must reproduce."""
    return _shared("golden")


@pytest.fixture(scope="session")
def shared_spec() -> Path:
    """The folder with the layouts of the released checkpoints."""
    return _shared("spec")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that a scan decodes from now on, in this process."""
    from curation.media.decoder import Decoder

    names: list[str] = []
    plain = Decoder.scan

    def noted(self: Any, path: str, **cut: Any) -> Any:
        names.append(Path(path).name)
        return plain(self, path, **cut)

    monkeypatch.setattr(Decoder, "scan", noted)
    return names


@pytest.fixture(autouse=True)
def _same_randomness() -> Iterator[None]:
    state = random.getstate()
    random.seed(0)
    yield
    random.setstate(state)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    passed = terminalreporter.getreports("passed")
    ran = [report for report in passed if report.when == "call"]
    counts = {"all": len(ran), "shared": sum("shared" in report.keywords for report in ran)}
    terminalreporter.write_line(f"ran and passed: {counts['all']}, on real metadata {counts['shared']}")
    for report in terminalreporter.getreports("skipped"):
        terminalreporter.write_line(f"skipped: {report.nodeid}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI, a run of everything with fewer tests than FLOOR has failed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    whole = not session.config.args or session.config.args == ["tests"]
    if not IN_CI or reporter is None or hasattr(session.config, "workerinput") or not whole:
        return
    ran = [report for report in reporter.getreports("passed") if report.when == "call"]
    shared = sum("shared" in report.keywords for report in ran)
    if len(ran) < FLOOR["all"] or shared < FLOOR["shared"]:
        reporter.write_line(f"too few tests ran: {len(ran)} and {shared}, expected {FLOOR}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
