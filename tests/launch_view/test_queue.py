"""What squeue says of tasks without a sign of life: believed when it answers, not needed when it does not."""

from __future__ import annotations

import pytest
from made_runs import Made, Maker, look_at

from pipelines.core import store
from pipelines.core.run import Run
from slurm import request, sweep
from slurm.request import Job, Request
from slurm.view import run_text
from slurm.view.queue import expanded
from slurm.view.standing import Looker
from slurm.view.text import Terminal


@pytest.fixture
def squeue(home, monkeypatch):
    """Make a stand-in for squeue that prints `text`, with that exit status."""
    folder = home / "bin"
    folder.mkdir()

    def make(text: str, status: int = 0) -> None:
        script = folder / "squeue"
        lines = text.replace("NAME", "tone.corpus-00000001.000")
        script.write_text(f"#!/bin/sh\necho x >>{home}/asked\ncat <<'END'\n{lines}\nEND\nexit {status}\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    return make


def launched(moment, name: str = "corpus") -> Maker:
    """A run on Slurm of six tasks in two arrays, none of which has begun."""
    maker = Maker(Made(items=60, tasks=6, name=name), moment)
    maker.plan()
    maker.launch()
    run = Run.open(maker.made.run_id())
    jobs = request.begin(run, 0, "slurm", Request())
    jobs.jobs += [Job("100", 0, 4, request.ARRAY), Job("200", 4, 2, request.ARRAY), Job("201", 0, 0, request.SWEEP)]
    request.write(run, 0, jobs)
    return maker


@pytest.mark.parametrize(
    ("text", "indexes"),
    [("3", [3]), ("0-2", [0, 1, 2]), ("1,3,5-6%2", [1, 3, 5, 6]), ("N/A", [0]), ("0-3%1", [0, 1, 2, 3])],
)
def test_array_indexes(text, indexes):
    assert expanded(text) == indexes


def test_tasks_in_the_queue_and_tasks_that_nobody_will_begin(moment, squeue):
    maker = launched(moment)
    squeue("100|0-2|PENDING|Priority|NAME\n200|1|RUNNING|None|NAME\n200|0|RUNNING|None|another")
    view = look_at(maker)
    assert [task.state for task in view.tasks] == ["queued", "queued", "queued", "absent", "absent", "starting"]
    assert view.state == "running"
    assert any("priority" in note for note in view.notes)


def test_an_empty_queue_means_that_nothing_will_come(moment, squeue):
    maker = launched(moment)
    squeue("")
    assert look_at(maker).state == "incomplete"


@pytest.mark.parametrize(("text", "status"), [("slurm_load_jobs error: Unable to contact", 1), ("", 1)])
def test_no_answer_leaves_the_question_open(moment, squeue, text, status):
    maker = launched(moment)
    squeue(text, status)
    assert {task.state for task in look_at(maker).tasks} == {"pending"}


def test_the_sweep_is_still_to_come(moment, squeue):
    maker = launched(moment)
    squeue("201|N/A|PENDING|Dependency|NAME.sweep")
    view = look_at(maker)
    assert view.sweep
    assert {task.state for task in view.tasks} == {"absent"}
    assert view.state == "queued"
    assert "sweep is about to launch what is missing" in run_text.sentence(view)


def test_what_the_sweep_said_is_told(moment):
    maker = launched(moment)
    run = Run.open(maker.made.run_id())
    verdict = sweep.Verdict(0, sweep.GAVE_UP, "After 3 more rounds items are still missing.", "2026-11-21T00:00:00Z")
    store.write_json(sweep.verdict_path(run, 0), verdict)
    maker.work(skip=(1,))
    moment.now += 100
    request.cancel(run, 0)
    assert "The sweep said: After 3 more rounds" in "\n".join(run_text.render(look_at(maker), Terminal(100)))


def test_a_silent_controller_is_asked_once_for_a_table_of_runs(moment, squeue, home):
    makers = [launched(moment, name=f"corpus{number}") for number in range(3)]
    squeue("", 1)
    looker = Looker()
    for maker in makers:
        looker.look(Run.open(maker.made.run_id()))
    assert (home / "asked").read_text().count("x") == 1


def test_without_squeue_the_files_have_to_do(moment):
    view = look_at(launched(moment))
    assert {task.state for task in view.tasks} == {"pending"}
    assert view.state == "queued"


def test_it_is_not_asked_when_all_are_at_work_or_done(moment, squeue, home):
    squeue("")
    maker = Maker(Made(items=60, tasks=2), moment)
    maker.plan()
    maker.launch()
    maker.work()
    look_at(maker)
    assert not (home / "asked").exists()


def test_a_run_on_this_machine_whose_process_is_gone(moment):
    maker = Maker(Made(items=60, tasks=2, cluster="process"), moment)
    maker.plan()
    maker.launch()
    assert look_at(maker).state == "queued"
    moment.now += 60
    view = look_at(maker)
    assert view.state == "incomplete"
    assert {task.state for task in view.tasks} == {"absent"}


def test_a_launch_that_slurm_refused_does_not_wait_to_start(moment, squeue):
    maker = launched(moment)
    squeue("")
    run = Run.open(maker.made.run_id())
    jobs = request.read(run, 0)
    jobs.jobs, jobs.state = [], request.FAILED
    request.write(run, 0, jobs)
    view = look_at(maker)
    assert (view.state, {task.state for task in view.tasks}) == ("incomplete", {"absent"})
    assert "Slurm refused this launch" in view.notes[0]


def test_a_launch_whose_launcher_died_before_it_submitted(moment, squeue):
    maker = launched(moment)
    squeue("")
    request.begin(run := Run.open(maker.made.run_id()), 0, "slurm", Request())
    jobs = request.read(run, 0)
    jobs.jobs = []
    request.write(run, 0, jobs)
    assert look_at(maker).state == "queued", "it may be at it"
    moment.now += 1000
    view = look_at(maker)
    assert view.state == "incomplete"
    assert "its launcher died" in view.notes[0]


def test_what_another_machine_did_is_not_waited_for(moment, squeue):
    maker = Maker(Made(items=60, tasks=4, cluster="local", speed=5, until=60, silent={0: 10, 1: 10}), moment)
    maker.plan()
    maker.launch()
    run = Run.open(maker.made.run_id())
    jobs = request.begin(run, 0, "local", Request())
    jobs.host = "another"
    request.write(run, 0, jobs)
    view = look_at(maker)
    assert "It runs on another" in view.notes[0]
