"""The sweep: merge, launch what is missing, or give up; once, whoever calls it how often."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pipelines.core import launches, parts, registry
from pipelines.core.errors import ClusterNotFit, StorageError
from pipelines.core.pipeline import Resources
from pipelines.core.run import Run, Wish
from pipelines.core.task import TaskLoop
from slurm import request, sweep
from slurm.request import Request


@pytest.fixture
def run(place):
    return Run.create(registry.find("tone"), place.manifest(12), None, {"factor": 1.0})


def launched(run, tasks=3, done=(), wanted=None, **wish):
    """A launch that was submitted, with the tasks in `done` through."""
    record = run.new_launch(Wish(tasks, cluster="slurm", **wish))
    noted(run, record, wanted or Request(python="python"))
    for task in done:
        assert TaskLoop(run, record.number, task, Resources()).work() == 0
    return record.number


def noted(run, record, wanted):
    jobs = request.begin(run, record.number, "slurm", wanted)
    jobs.jobs.append(request.Job(str(100 + record.number), 0, record.tasks, request.ARRAY))
    jobs.state = request.SUBMITTED
    request.write(run, record.number, jobs)


def refuse(*_):
    raise AssertionError("nothing was to be submitted")


def test_everything_done_is_merged(run):
    verdict = sweep.settle(run, launched(run, done=(0, 1, 2)), refuse)
    assert (verdict.outcome, verdict.exit_status) == (sweep.MERGED, 0)
    assert "12 items = 12 merged + 0 quarantined + 0 missing" in verdict.message
    assert sweep.read(run, 0) == verdict


def test_again_says_the_same(run):
    launch = launched(run, done=(0, 1, 2))
    first, second = (sweep.settle(run, launch, refuse) for _ in range(2))
    assert (first.outcome, first.message) == (second.outcome, second.message)


def test_what_is_missing_is_launched_with_the_same_request(run):
    wanted = Request(python="python", cpus=3, partition="p")
    made = []
    verdict = sweep.settle(run, launched(run, done=(0, 2), wanted=wanted), lambda *told: made.append(told))
    assert (verdict.outcome, verdict.next) == (sweep.RESUBMITTED, 1)
    ((_, record, asked),) = made
    assert (record.number, record.items, record.sweep_round, asked) == (1, 4, 1, wanted)


def test_a_manifest_that_grew_during_a_launch_is_named_where_the_rest_is_launched(run, place):
    launch = launched(run, done=(0, 1, 2))
    place.manifest(14)
    verdict = sweep.settle(run, launch, lambda *_: None)
    assert verdict.outcome == sweep.RESUBMITTED
    assert "The manifest changed since launch 0 was dealt (12 items then, 14 now). 2 items are" in verdict.message


def test_rounds_come_to_an_end(run):
    launch = launched(run, done=(0,))
    seen = []
    for _ in range(10):
        # One item more in every round: never barren, never through.
        verdict = sweep.settle(run, launch, noted)
        seen.append(verdict.outcome)
        if verdict.outcome != sweep.RESUBMITTED:
            break
        launch = verdict.next
        one(run, launch)
    assert seen == [sweep.RESUBMITTED] * request.ROUNDS + [sweep.GAVE_UP]
    assert "voxarray logs" in verdict.message
    assert "voxarray retry" in verdict.message
    assert verdict.exit_status == 1


def one(run, launch):
    """One item of a launch done by hand."""
    item = next(iter(run.deal(launch).items(0)))
    writer = parts.PartWriter(run.parts_folder(launch), run.id, launch, 0)
    writer.done(item, {"tone": "x", "loud": 1}, 1.0)
    writer.publish()


def test_two_launches_without_a_single_item_are_enough(run):
    first = sweep.settle(run, launched(run), noted)
    second = sweep.settle(run, first.next, refuse)
    assert (first.outcome, second.outcome) == (sweep.RESUBMITTED, sweep.GAVE_UP)
    assert "Two launches in a row" in second.message


def test_cancelled_is_not_brought_back(run):
    launch = launched(run, done=(0,))
    request.cancel(run, launch)
    verdict = sweep.settle(run, launch, refuse)
    assert verdict.outcome == sweep.CANCELLED
    assert "voxarray retry" in verdict.message
    assert run.launch_numbers() == [0]


def test_cancelled_but_through_is_merged(run):
    launch = launched(run, done=(0, 1, 2))
    request.cancel(run, launch)
    assert sweep.settle(run, launch, refuse).outcome == sweep.MERGED


def test_limit_is_not_exceeded(run):
    launch = launched(run, tasks=2, done=(0, 1), wanted=Request(limit=5), limit=5)
    verdict = sweep.settle(run, launch, refuse)
    assert verdict.outcome == sweep.LIMITED
    assert "The 5 items that --limit asked for are done" in verdict.message


def test_what_is_missing_of_a_limit_is_launched(run):
    launch = launched(run, tasks=2, done=(0,), wanted=Request(limit=5), limit=5)
    verdict = sweep.settle(run, launch, noted)
    assert verdict.outcome == sweep.RESUBMITTED
    assert run.record(verdict.next).items == 2


def test_later_launch_is_left_alone(run):
    launched(run, done=(0,))
    later = launched(run)
    verdict = sweep.settle(run, 0, refuse)
    assert (verdict.outcome, verdict.next) == (sweep.LEFT, later)
    assert sweep.read(run, 0) is None


def test_sweep_that_died_before_submitting_is_finished_by_the_next(run):
    launch = launched(run, done=(0,))

    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    with pytest.raises(Killed):
        sweep.settle(run, launch, die)
    made = []
    verdict = sweep.settle(run, launch, lambda *told: made.append(told[1].number))
    assert (verdict.outcome, verdict.next, made) == (sweep.RESUBMITTED, 1, [1])
    assert run.launch_numbers() == [0, 1]


def test_refused_submission_is_told(run):
    def refused(*_):
        raise ClusterNotFit("Slurm refused it.")

    verdict = sweep.settle(run, launched(run, done=(0,)), refused)
    assert verdict.outcome == sweep.GAVE_UP
    assert "Slurm refused it." in verdict.message
    assert verdict.exit_status == 1


def test_two_sweeps_at_once_launch_once(run):
    launch = launched(run, done=(0,))
    made, verdicts = [], []

    def submit(run, record, wanted):
        made.append(record.number)
        noted(run, record, wanted)

    threads = [threading.Thread(target=lambda: verdicts.append(sweep.settle(run, launch, submit))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
    assert sorted(verdict.outcome for verdict in verdicts) == [sweep.LEFT] * 3 + [sweep.RESUBMITTED]


def test_grown_manifest_is_done_too(run, place):
    launch = launched(run, done=(0, 1, 2))
    place.manifest(20)
    verdict = sweep.settle(run, launch, noted)
    assert verdict.outcome == sweep.RESUBMITTED
    assert run.record(1).items == 8


def test_damaged_jobs_file_does_not_stop_the_sweep(run):
    launch = launched(run, done=(0, 1, 2))
    Path(launches.jobs_path(run.folder, launch)).write_text("{")
    assert sweep.settle(run, launch, refuse).outcome == sweep.MERGED


@pytest.mark.parametrize(
    ("error", "told"), [(KeyError("x"), "KeyError"), (StorageError("The disk is full."), "disk is full")]
)
def test_merge_that_fails_is_heard_of(run, monkeypatch, error, told):
    def fail(*_, **__):
        raise error

    launch = launched(run, done=(0, 1, 2))
    monkeypatch.setattr(sweep.merge, "merge", fail)
    verdict = sweep.settle(run, launch, refuse)
    assert verdict.outcome == sweep.GAVE_UP
    assert told in verdict.message
    assert sweep.read(run, launch) == verdict


def test_command_names_an_unknown_run(place, caplog):
    assert sweep.main(["nothing"]) == 2


def test_command_without_a_launch(run):
    assert sweep.main([run.id]) == 2
