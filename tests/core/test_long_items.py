"""Items that take long and go on where they were: stopped, killed and vanished, they are finished and never blamed."""

from __future__ import annotations

import os
import signal
import time

import pytest

from pipelines.core import merge, registry
from pipelines.core.errors import DONE, STOPPED_BY_WARNING
from pipelines.core.pipeline import Resources
from pipelines.core.run import Run
from pipelines.core.task import TaskLoop
from tests.core.world import World, conserved, decoded, launch


@pytest.fixture
def world(tmp_path):
    with World(TOY_DESK=str(tmp_path), TOY_NAP="0.05") as made:
        yield made


def wait_for_page(folder, least):
    deadline = time.monotonic() + 180
    while not any(int(path.read_text() or 0) >= least for path in folder.iterdir() if path.is_file()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_stopped_item_goes_on_and_is_not_blamed(world, tmp_path):
    manifest = world.manifest(1)
    process = world.start(manifest, pipeline="scholar")
    wait_for_page(tmp_path, 5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=180)
    assert process.returncode == 1
    status, said = world.command(manifest, pipeline="scholar")
    assert status == 0, said
    (row,) = decoded(manifest)
    assert row["pages"] == 20
    assert row["at_last"] < 20
    receipt = conserved(merge.merge(run_of(manifest)))
    assert (receipt.merged, receipt.rows_read) == (1, 1)


def run_of(manifest):
    return Run.create(registry.find("scholar"), manifest, None, {})


def test_the_same_task_goes_on_after_its_warning(world):
    run = run_of(world.manifest(1))
    number = launch(run)
    loop = TaskLoop(run, number, 0, Resources())
    signal.signal(signal.SIGALRM, loop.warn)
    signal.setitimer(signal.ITIMER_REAL, 0.4)
    assert loop.work() == STOPPED_BY_WARNING
    assert not list(run.state_folder(number).glob("*.end.json"))
    assert TaskLoop(run, number, 0, Resources()).work() == DONE
    receipt = conserved(merge.merge(run))
    assert receipt.rows_read == 1


def test_vanished_tasks_are_no_evidence_against_the_item(world, tmp_path):
    """Four nodes die in a row: three would have given up any other item."""
    manifest = world.manifest(1)
    for least in (2, 5, 8, 11):
        process = world.start(manifest, pipeline="scholar")
        wait_for_page(tmp_path, least)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=180)
    status, said = world.command(manifest, pipeline="scholar")
    assert status == 0, said
    assert decoded(manifest)[0]["pages"] == 20
