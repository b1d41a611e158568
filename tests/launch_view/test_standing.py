"""How a run stands: every state, and numbers that are right for runs made by hand."""

from __future__ import annotations

import os

import pytest
from made_runs import Made, Maker, look_at, make

from pipelines.core import heartbeat, launches, provenance
from pipelines.core.run import Run
from slurm import request
from slurm.view.standing import Looker


def test_a_merged_run_has_the_numbers_of_its_receipt(moment):
    maker = make(Made(items=300, tasks=4, bad=0.05), moment)
    view = look_at(maker)
    lost = view.failures.quarantined
    assert (view.state, view.exact, view.items, view.left) == ("merged", True, 300, 0)
    assert 0 < lost == view.quarantined == 300 - view.done
    assert view.audio_seconds == pytest.approx(sum(maker.audio) - _lost_seconds(maker), abs=0.01)
    assert view.eta_s is None
    assert {task.state for task in view.tasks} == {"finished"}


def _lost_seconds(maker: Maker) -> float:
    return sum(maker.audio) - sum(end.audio_seconds for end in _ends(maker))


def _ends(maker: Maker):
    state = maker.folder / "state" / "launch-000"
    return [heartbeat.read_end(state, task) for task in range(maker.made.tasks)]


def test_a_run_in_progress_counts_what_is_published_and_said(moment):
    maker = make(Made(items=2000, tasks=4, speed=20, until=200), moment)
    view = look_at(maker)
    beats = [heartbeat.read(maker.folder / "state" / "launch-000", task) for task in range(4)]
    assert view.state == "running"
    assert not view.exact
    assert view.done == sum(beat.done for beat in beats)
    assert view.audio_seconds == pytest.approx(sum(beat.audio_seconds for beat in beats), abs=0.1)
    assert view.speed == pytest.approx(
        sum(beat.audio_seconds / (beat.time - beat.started) for beat in beats), rel=1e-6
    )
    slowest = max(
        (beat.audio_seconds_dealt - beat.audio_seconds) / (beat.audio_seconds / (beat.time - beat.started))
        for beat in beats
    )
    assert view.eta_s == pytest.approx(slowest, rel=1e-6)
    assert view.left == 2000 - view.done


def test_unknown_durations_give_an_estimate_that_is_near(moment):
    known = look_at(make(Made(items=3000, tasks=4, speed=20, until=200, name="known"), moment))
    moment.now = 1_795_000_000.0
    guessed = look_at(make(Made(items=3000, tasks=4, speed=20, until=200, name="guessed", known=False), moment))
    assert guessed.records[0].manifest.audio_seconds is None
    assert guessed.eta_s == pytest.approx(known.eta_s, rel=0.25)
    assert guessed.audio_seconds_expected == pytest.approx(known.audio_seconds_expected, rel=0.1)


def test_a_restart_loses_nothing_from_the_count(moment):
    view = look_at(make(Made(items=1000, tasks=2, speed=20, until=200, breaks={0: [(100, 20)]}, known=False), moment))
    task = view.tasks[0]
    state = view.run.state_folder(0)
    beat = heartbeat.read(state, 0)
    assert beat.settled_before > 0
    assert task.settled == beat.settled_before + beat.done
    assert task.audio_seconds > beat.audio_seconds
    assert task.restarts == 1


def test_a_stale_heartbeat_is_silence_and_alone_a_stall(moment):
    maker = make(Made(items=1000, tasks=2, speed=20, until=200), moment)
    assert look_at(maker).state == "running"
    moment.now += 31
    assert look_at(maker).state == "running"
    moment.now += 2
    view = look_at(maker)
    assert view.state == "stalled"
    assert {task.state for task in view.tasks} == {"silent"}
    assert view.speed is not None
    assert view.eta_s is None


def test_one_silent_task_among_others_is_marked(moment):
    view = look_at(make(Made(items=2000, tasks=4, speed=20, until=200, silent={2: 60}), moment))
    assert view.state == "running"
    assert [task.state for task in view.tasks] == ["running", "running", "silent", "running"]
    assert view.tasks[2].unwell


def test_a_dead_process_of_this_machine_is_told_from_a_silent_one(moment):
    maker = make(Made(items=2000, tasks=2, speed=20, until=200), moment)
    state = maker.folder / "state" / "launch-000"
    for task, pid in ((0, 2**22 + 5), (1, os.getpid())):
        beat = heartbeat.read(state, task)
        beat.host, beat.pid = provenance.host(), pid
        heartbeat.write(state, beat)
    moment.now += 60
    assert [task.state for task in look_at(maker).tasks] == ["died", "silent"]


def test_a_slow_task_is_marked_once_it_is_warm(moment):
    view = look_at(make(Made(items=4000, tasks=8, speed=20, until=200, slow={5: 0.3}), moment))
    assert [task.task for task in view.tasks if task.slow] == [5]
    moment.now = 1_795_000_000.0
    young = look_at(make(Made(items=4000, tasks=8, speed=20, until=20, slow={5: 0.3}, name="young"), moment))
    assert not any(task.slow for task in young.tasks)


def test_waiting_tasks_count_towards_the_time_left(moment):
    made = Made(items=2000, tasks=8, speed=20, until=100, delays=lambda task: 3.0 if task < 2 else 10_000.0)
    view = look_at(make(made, moment))
    at_work = [task for task in view.tasks if task.alive]
    assert len(at_work) == 2
    assert {task.state for task in view.tasks} == {"running", "pending"}
    assert view.eta_s > 3 * max(task.eta_s for task in at_work)


def test_nothing_launched_nothing_begun_and_all_done_but_not_merged(moment):
    maker = Maker(Made(items=20, tasks=2), moment)
    maker.plan()
    assert look_at(maker).state == "planned"
    maker.launch()
    assert look_at(maker).state == "queued"
    maker.work()
    moment.now += 100
    assert look_at(maker).state == "finished"
    maker.merge()
    assert look_at(maker).state == "merged"


def test_a_cancelled_run_says_so(moment):
    maker = make(Made(items=2000, tasks=2, speed=20, until=200), moment)
    moment.now += 100
    request.cancel(Run.open(maker.made.run_id()), 0)
    assert look_at(maker).state == "cancelled"


def test_stopped_tasks_leave_a_run_incomplete(moment):
    maker = make(Made(items=2000, tasks=2, speed=20, until=200), moment)
    state = maker.folder / "state" / "launch-000"
    for task in range(2):
        beat = heartbeat.read(state, task)
        beat.state, beat.signal = "stopped", "SIGTERM"
        heartbeat.write(state, beat)
    view = look_at(maker)
    assert view.state == "incomplete"
    assert view.tasks[0].note == "SIGTERM"


def test_a_retry_after_a_merge_is_a_new_matter(moment):
    maker = make(Made(items=200, tasks=2, bad=0.2), moment)
    assert look_at(maker).state == "merged"
    moment.now += 3600
    maker.launch(1, {1, 2, 3}, pardon=True)
    view = look_at(maker)
    assert view.state == "queued"
    assert not view.exact
    assert view.failures.items == 0, "strikes from before the pardon are void"


def test_a_part_published_after_the_merge_makes_the_receipt_old(moment):
    maker = make(Made(items=200, tasks=2), moment)
    part = next((maker.folder / "parts").rglob("*.jsonl"))
    part.with_name("task_0000.099.jsonl").write_bytes(part.read_bytes())
    assert not look_at(maker).exact


def test_the_last_launch_and_those_still_at_work_are_shown(moment):
    maker = Maker(Made(items=400, tasks=4, speed=20, until=60), moment)
    maker.plan()
    maker.launch()
    maker.work(skip=(3,))
    maker.launch(1, {3, 7, 11})
    view = look_at(maker)
    assert {task.launch for task in view.tasks} == {0, 1}
    moment.now += 500
    assert {task.launch for task in look_at(maker).tasks} == {1}


def test_a_repair_array_shows_its_own_tasks_only(moment):
    maker = Maker(Made(items=800, tasks=4, speed=20, until=60, cluster="sbatch"), moment)
    maker.plan()
    maker.launch(deal=launches.POSITION, job="77", submitted_tasks=1)
    maker.work(skip=(0, 1, 3))
    view = look_at(maker)
    assert [task.task for task in view.tasks] == [2]


def test_looking_again_reads_only_what_is_new(moment, monkeypatch):
    maker = make(Made(items=2000, tasks=4, speed=20, until=200, bad=0.05), moment)
    looker = Looker()
    first = looker.look(Run.open(maker.made.run_id()))
    from pipelines.core import parts

    monkeypatch.setattr(parts, "read_header", lambda path: pytest.fail(f"{path} was read again"))
    assert looker.look(Run.open(maker.made.run_id())).done == first.done


def test_a_damaged_part_is_named_and_stops_nothing(moment):
    maker = make(Made(items=400, tasks=4), moment, merged=False)
    part = min((maker.folder / "parts").rglob("*.jsonl"))
    part.write_bytes(b"\0" * 100)
    view = look_at(maker)
    assert view.done < 400
    assert str(part) in view.damaged[0]
