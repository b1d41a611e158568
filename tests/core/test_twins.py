"""The same work begun twice: refused or told, and never silently done a second time."""

from __future__ import annotations

import time

from pipelines.core import lock, merge
from tests.core.world import World, conserved, slurm_task


def at_work(world: World, process) -> None:
    """Wait until the process has begun with its items."""
    while not (world.root / "seen").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_a_second_process_refuses_and_says_who_is_at_work(world: World) -> None:
    path = world.manifest(8)
    first = world.start(path, TOY_NAP="0.5", TOY_BATCH="1")
    at_work(world, first)
    status, said = world.command(path)
    assert status == 1
    assert "is at work already: task 0 (" in said
    assert f"process {first.pid}" in said
    assert "the same command does what is left" in said
    assert first.wait(timeout=180) == 0
    run = world.run(path)
    receipt = merge.last_receipt(run)
    assert (conserved(receipt).merged, receipt.spare) == (8, 0)
    assert lock.at_work(map(run.state_folder, run.launch_numbers())) == ""


def test_a_second_array_is_told(world: World) -> None:
    path = world.manifest(8)
    first = world.start(path, TOY_NAP="0.5", TOY_BATCH="1", **slurm_task("100", [0], 0))
    at_work(world, first)
    status, said = world.command(path, **slurm_task("101", [0], 0))
    assert "is at work in another job, too: task 0 (" in said
    assert status == 0, said
    assert first.wait(timeout=180) == 0
    assert conserved(merge.last_receipt(world.run(path))).merged == 8
