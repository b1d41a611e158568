"""Fixtures of the tests on a real Slurm: one cluster a session, a clean one for each test, a deadline on each test."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator, NoReturn

import packages
import pytest
from cluster import Cluster
from proof import Reference
from scene import REPOSITORY, Scene, variables
from slurm_conf import Settings

sys.path.insert(0, str(REPOSITORY))

from ordeal.chain import Prepared, prepare

from tests import corpus as recordings

SPEECH = 160
"""Prompts in the corpus of each of two languages."""
DEADLINE_S = 400  # of one test; `@pytest.mark.deadline(seconds)` sets another


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
    if reason:
        _refuse(f"no real Slurm: {reason}")


def _refuse(reason: str) -> NoReturn:
    if os.environ.get("CI", "").lower() in {"true", "1"}:
        pytest.fail(f"in CI this is a failure, not a skip: {reason}")
    pytest.skip(reason)


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


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of real speech, two folders deep, with a few files that are no recordings."""
    folder = tmp_path_factory.mktemp("corpus")
    try:
        prompts = {name: recordings.speech(name, SPEECH, longest=12.0) for name in ("en", "fr")}
    except recordings.Missing as reason:
        _refuse(f"no real speech: {reason}")
    for language, files in prompts.items():
        for number, path in enumerate(files):
            target = folder / language / f"session_{number % 5}" / f"{number:04d}_{path.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    (folder / "en" / "session_1" / "empty.wav").touch()
    (folder / "fr" / "session_3" / "cut.wav").write_bytes(prompts["fr"][0].read_bytes()[:3000])
    (folder / "fr" / "session_2" / "gone.wav").symlink_to("nowhere.wav")
    return folder


@pytest.fixture(scope="session")
def reference(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """The outputs of one undisturbed process."""
    home = tmp_path_factory.mktemp("reference")
    stem = home / "metadata" / "reference"
    env = {**os.environ, **variables(home)}
    argv = [sys.executable, "-m", "pipelines.vad", str(corpus), str(stem), "--cpus", "2"]
    done = subprocess.run(argv, env=env, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 1, f"some files are bad, so 1 is right: {done.returncode}\n{done.stderr}"
    with (stem.with_name(stem.name + ".csv")).open(newline="") as file:
        bad = sum(bool(row["error"]) for row in csv.DictReader(file))
    assert bad == 3
    return Reference(stem, bad)


@pytest.fixture(scope="session")
def undisturbed(slurm_here: None, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A chain's recordings, recipe and codebook, and what it makes where nothing happens to it."""
    return prepare(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def scene(cluster: Cluster, tmp_path: Path, corpus: Path, reference: Reference) -> Scene:
    """A fresh home on the shared cluster, clean of jobs."""
    return Scene(cluster, tmp_path / "home", corpus, reference)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[Any]:
    """Show the cluster's state beside the traceback of a test that failed on it."""
    report = yield
    used = getattr(item, "funcargs", {})
    if report.failed and report.when == "call":
        for name in {"cluster", "scene"} & set(used):
            report.sections.append((name, used[name].describe()))
    return report
