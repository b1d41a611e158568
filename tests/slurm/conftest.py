"""Fixtures of the tests on a real Slurm: one cluster a session, a clean one for each test, a deadline on each test."""

from __future__ import annotations

import os
import signal
from typing import Any, Iterator

import packages
import pytest
from cluster import Cluster
from slurm_conf import Settings

DEADLINE_S = 120  # of one test; `@pytest.mark.deadline(seconds)` sets another


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "deadline(seconds): the test fails when it takes longer")


class DeadlineError(Exception):
    """The test took longer than it may."""


@pytest.fixture(autouse=True)
def deadline(request: pytest.FixtureRequest) -> Iterator[None]:
    """End a test that hangs, with a traceback of where."""
    marker = request.node.get_closest_marker("deadline")
    seconds = marker.args[0] if marker else DEADLINE_S

    def too_late(*_: Any) -> None:
        raise DeadlineError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, too_late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def slurm_here() -> None:
    """Skip, with the reason, where no Slurm can be started; in CI (CI=true) that is a failure."""
    reason = packages.why_no_slurm()
    if reason and os.environ.get("CI", "").lower() in {"true", "1"}:
        pytest.fail(f"no real Slurm in CI: {reason}")
    if reason:
        pytest.skip(f"no real Slurm here: {reason}")


@pytest.fixture(scope="session")
def session_cluster(slurm_here: None) -> Iterator[Cluster]:
    """The cluster that the tests share, with accounting where its programs are installed."""
    cluster = Cluster(Settings(accounting=packages.accounting_available())).up()
    yield cluster
    cluster.down()


@pytest.fixture
def cluster(session_cluster: Cluster) -> Iterator[Cluster]:
    """The shared cluster, clean before and after the test: no jobs, every node idle."""
    session_cluster.clean()
    yield session_cluster
    session_cluster.clean()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[Any]:
    """Show the cluster's state beside the traceback of a test that failed on it."""
    report = yield
    shared = getattr(item, "funcargs", {}).get("session_cluster") or getattr(item, "funcargs", {}).get("cluster")
    if report.failed and report.when == "call" and shared:
        report.sections.append(("Slurm", shared.describe()))
    return report
