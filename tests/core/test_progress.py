"""Progress: what heartbeats and end receipts say of a launch, and how it is said."""

from __future__ import annotations

import dataclasses
import io
import json

import pytest

from pipelines.core import clock, heartbeat, progress, registry, store
from pipelines.core.errors import DONE
from pipelines.core.pipeline import Resources
from pipelines.core.task import TaskLoop
from tests.core.world import launch


@pytest.fixture
def run(world):
    made = world.run(world.write({**row, "duration": 36.0} for row in world.rows(20)))
    launch(made, 2)
    return made


def beat(run, task: int, age_s: float = 0.0, **fields) -> None:
    now = clock.now()
    made = heartbeat.Heartbeat(
        task=task,
        launch=0,
        attempt="a",
        host="n1",
        pid=1,
        state="running",
        started=now - 100,
        time=now - age_s,
        dealt=10,
    )
    for name, value in fields.items():
        setattr(made, name, value)
    run.state_folder(0).mkdir(parents=True, exist_ok=True)
    store.write_json(heartbeat.heartbeat_path(run.state_folder(0), task), made)


def test_before_the_first_heartbeat_everything_is_pending(run):
    view = progress.snapshot(run, 0)
    assert [task.state for task in view.tasks] == ["pending", "pending"]
    assert (view.items, view.settled, view.speed, view.finished) == (20, 0, 0, False)
    assert "0/20 items (0%)" in progress.line(view)


def test_speed_and_time_left_go_by_seconds_of_audio_of_the_slowest(run):
    beat(run, 0, done=5, audio_seconds=180.0, audio_seconds_dealt=360.0)
    beat(run, 1, done=1, audio_seconds=36.0, audio_seconds_dealt=360.0, failed=2)
    view = progress.snapshot(run, 0)
    assert view.settled == 6
    assert view.speed == pytest.approx(2.16, rel=0.01)
    assert view.eta_s == pytest.approx((360 - 36) / 0.36, rel=0.01)
    assert view.failed == 2
    said = progress.line(view)
    assert "6/20 items (30%)" in said
    assert "2 failed tries" in said
    assert "15 min" in said


def test_a_task_that_says_nothing_for_long_is_silent(run):
    beat(run, 0, age_s=500.0, done=5)
    beat(run, 1, age_s=500.0, state="stopped")
    assert [task.state for task in progress.snapshot(run, 0).tasks] == ["silent", "stopped"]


def test_ended_tasks_are_finished_and_the_launch_is_when_all_have(run):
    assert TaskLoop(run, 0, 0, Resources()).work() == DONE
    view = progress.snapshot(run, 0)
    assert [task.state for task in view.tasks] == ["finished", "pending"]
    assert (view.settled, view.audio_seconds, view.finished) == (10, 360.0, False)
    assert TaskLoop(run, 0, 1, Resources()).work() == DONE
    view = progress.snapshot(run, 0)
    assert view.finished
    assert "20/20 items (100%), 0.20 h of audio" in progress.line(view)


def test_live_progress_ends_with_the_line_of_the_end(run):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    with progress.Live(run, 0, terminal):
        TaskLoop(run, 0, 0, Resources()).work()
    assert terminal.getvalue().endswith("\n")
    assert "10/20 items (50%)" in terminal.getvalue().split("\r")[-1]
    plain = io.StringIO()
    with progress.Live(run, 0, plain):
        pass
    assert "\r" not in plain.getvalue()


@pytest.mark.parametrize("known", ["every other item's", "those of one task"])
def test_durations_that_only_some_items_have_are_not_taken_for_all(world, monkeypatch, known):
    rows = [
        {key: row[key] for key in row if key != "duration" or (n // 2 if known == "every other item's" else n) % 2}
        for n, row in enumerate(world.rows(20))
    ]
    easy = dataclasses.replace(registry.find("tone"), requires=("audio_filepath",))
    monkeypatch.setattr(registry, "find", lambda _: easy)
    made = world.run(world.write(rows))
    number = launch(made, 2)
    shares = made.deal(number).shares
    first = sum(row.get("duration", 0.0) for row in rows[1::2])
    assert [share.audio_seconds for share in shares] == [0.0, 0.0 if known == "every other item's" else first]
    assert made.record(number).imbalance == 1.0, "ten items each"
    beat(made, 0, done=9, audio_seconds=90.0)
    beat(made, 1, done=9, audio_seconds=90.0 if known == "every other item's" else first - 1)
    view = progress.snapshot(made, 0)
    assert view.tasks[0].left_s(view.mean_item_s) == pytest.approx(view.mean_item_s)
    assert view.eta_s > 1
    assert view.audio_seconds_dealt == pytest.approx(20 * view.mean_item_s)


def test_items_that_were_given_up_are_not_left(run):
    beat(run, 0, done=5, quarantined=2, failed=5, audio_seconds=180.0, audio_seconds_given_up=72.0)
    view = progress.snapshot(run, 0)
    assert (view.settled, view.failed) == (7, 5)
    assert view.tasks[0].left_s(view.mean_item_s) == 3 * 36.0, "the one that waits for its second try included"
    assert view.tasks[0].eta_s(36.0) == pytest.approx(3 * 36 / 1.8, rel=0.01)


def test_a_heartbeat_of_an_earlier_version_is_read(run):
    beat(run, 0, done=5)
    path = heartbeat.heartbeat_path(run.state_folder(0), 0)
    kept = {name: value for name, value in json.loads(path.read_text()).items() if name not in NEW}
    assert len(kept) == len(json.loads(path.read_text())) - len(NEW)
    store.write_json(path, kept)
    assert progress.snapshot(run, 0).settled == 5


NEW = ("quarantined", "audio_seconds_given_up")


def test_durations_are_said_as_people_say_them():
    said = [clock.spoken(seconds) for seconds in (0.04, 59.94, 61, 3599.6, 3600, 86399, 172800, 1e6)]
    assert said == ["0.0 s", "59.9 s", "1 min 01 s", "1 h 00 min", "1 h 00 min", "23 h 59 min", "2 d 0 h", "11 d 13 h"]
