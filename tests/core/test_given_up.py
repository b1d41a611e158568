"""What a task's heartbeat says of items that were given up, and of the processor time of its children."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest

from pipelines.core import heartbeat, parts, progress, registry, task
from pipelines.core.errors import DONE, ItemError
from pipelines.core.pipeline import Resources
from pipelines.core.task import TaskLoop
from tests.core.world import launch

SECONDS = 36.0


def failing(world, count: int, bad: list[int], duration=SECONDS):
    rows = [{"audio_filepath": row["audio_filepath"]} for row in world.rows(count)]
    for n, row in enumerate(rows):
        row.update({"duration": duration} if duration else {}, **({"raise": "no audio"} if n in bad else {}))
    run = world.run(world.write(rows))
    launch(run)
    return run


@pytest.mark.parametrize("duration", [SECONDS, None])
def test_an_item_is_settled_with_its_second_strike_and_not_before(world, monkeypatch, duration):
    easy = dataclasses.replace(registry.find("tone"), requires=("audio_filepath",))
    monkeypatch.setattr(registry, "find", lambda _: easy)
    run = failing(world, 10, [2, 7], duration)
    loop = TaskLoop(run, 0, 0, Resources())
    told = []
    strike = loop._strike

    def watched(item, error):
        strike(item, error)
        told.append((loop.beat.failed, loop.beat.quarantined, loop.beat.audio_seconds_given_up))

    loop._strike = watched
    assert loop.work() == DONE
    seconds = duration or 0.0
    assert told == [(1, 0, 0.0), (2, 0, 0.0), (3, 1, seconds), (4, 2, 2 * seconds)]
    beat = heartbeat.read(run.state_folder(0), 0)
    assert (beat.done, beat.quarantined, beat.settled, beat.dealt) == (8, 2, 10, 10)
    view = progress.TaskView(0, 10, 10 * seconds, beat, None)
    assert (view.settled, view.left_s(SECONDS)) == (10, 0.0)


def test_items_that_an_earlier_attempt_gave_up_are_counted_once(world):
    """As settled before this attempt, and with their audio, which is not left."""
    run = failing(world, 10, [2])
    item = list(run.deal(0).items(0))[7]
    part = parts.PartWriter(run.parts_folder(0), run.id, 0, 0)
    for _ in range(2):
        part.failed(item, parts.error_of(ItemError("no audio")))
    part.publish()
    assert TaskLoop(run, 0, 0, Resources()).work() == DONE
    beat = heartbeat.read(run.state_folder(0), 0)
    assert (beat.settled_before, beat.done, beat.quarantined, beat.settled) == (1, 8, 1, 10)
    assert beat.audio_seconds_given_up == 2 * SECONDS
    assert heartbeat.read_end(run.state_folder(0), 0).quarantined == 2


def test_processor_time_of_children_counts_once_they_were_waited_for(world):
    run = failing(world, 2, [])
    before = sum(os.times()[:4])
    spin = "import time\nwhile time.process_time() < 1: pass\n"
    subprocess.run([sys.executable, "-c", spin], check=True)
    assert TaskLoop(run, 0, 0, Resources()).work() == DONE
    state = run.state_folder(0)
    assert min(heartbeat.read(state, 0).cpu_s, heartbeat.read_end(state, 0).cpu_s) - before >= 0.9
    assert task._processor_s() == pytest.approx(sum(os.times()[:4]), abs=0.1)
