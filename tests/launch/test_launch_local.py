"""Runs on this machine, to the end and not: bounded, stopped, killed, resumed."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from pipelines.core.run import Run
from slurm import cli, local
from slurm.request import Request
from tests.launch.place import wait_until


def tones(path):
    return [json.loads(line).get("tone") for line in path.read_text().splitlines()]


def started(place, run=None):
    """Items done so far, by all launches, as heartbeats say."""
    beats = place.home.glob("output/runs/*/state/*/*.heartbeat.json")
    return sum(json.loads(beat.read_text())["done"] for beat in beats)


def test_to_the_end(place):
    manifest = place.manifest(20)
    status, out, error = place.run("tone", manifest, "--cluster", "local", "--tasks", 3)
    assert status == 0, error
    assert "20 items = 20 merged + 0 quarantined + 0 missing" in out
    assert all(tones(manifest))
    assert "launch 0: 20 items over 3 tasks (this machine)" in error
    jobs = place.json("launch-000.jobs.json")
    assert (jobs["cluster"], [job["kind"] for job in jobs["jobs"]]) == ("local", ["pump"])
    assert len(list(place.home.glob("logs/*/launch-000/task_*.log"))) == 3


def test_same_command_again_does_nothing_twice(place, capsys):
    manifest = place.manifest(5)
    assert cli.main(["tone", str(manifest), "--cluster", "debug"]) == 0
    assert cli.main(["tone", str(manifest), "--cluster", "local"]) == 0
    assert "Every item of" in capsys.readouterr().out
    assert not (place.folder() / "launch-001.json").exists()


def test_failures_show_in_the_exit_status(place):
    manifest = place.manifest(5, **{"raise": lambda number: "broken" if number == 1 else None})
    status, out, _ = place.run("tone", manifest, "--cluster", "local")
    assert status == 1
    assert "5 items = 4 merged + 1 quarantined" in out
    assert "broken" in out


def test_quarantined_items_get_another_chance(place, tmp_path):
    flag = tmp_path / "mended"
    once = lambda number: str(flag) if number == 1 else None  # noqa: E731
    manifest = place.manifest(5, **{"raise": lambda number: "broken" if number == 1 else None, "once": once})
    (tmp_path / "home").mkdir(exist_ok=True)
    status, _, _ = place.run("tone", manifest, "--cluster", "local")
    assert status == 0, "the second try of the same launch succeeds"
    manifest = place.manifest(5, "n.json", **{"raise": lambda number: "broken" if number == 1 else None})
    assert place.run("tone", manifest, "--cluster", "local")[0] == 1
    run = next(name for name in place.runs() if name.startswith("n-"))
    assert place.run("retry", run, "--cluster", "local")[0] == 1, "without the flag nothing is tried again"
    assert not (place.folder(run) / "launch-001.json").exists()
    assert place.run("retry", run, "--cluster", "local", "--quarantined")[0] == 1
    assert place.json("launch-001.json", run=run)["items"] == 1


def test_never_more_at_once_than_fit(place, monkeypatch):
    monkeypatch.setattr(local, "cores", lambda: 6)
    monkeypatch.setattr(local, "memory_mb", lambda: 16384)
    assert local.slots(Request(cpus=1, mem_mb=8192)) == 2
    assert local.slots(Request(cpus=2)) == 3
    assert local.slots(Request(cpus=8)) == 1
    assert local.slots(Request(cpus=1, max_parallel=2)) == 2
    monkeypatch.setattr(local, "gpus", lambda: [0, 1])
    assert local.slots(Request(cpus=1, gpus="1")) == 2
    assert local.slots(Request(cpus=1, gpus="2")) == 1


def test_max_parallel_bounds_what_runs(place):
    process = place.start("tone", place.manifest(12, nap=0.3), "--cluster", "local", "--tasks", 4, "--max-parallel", 1)
    most = 0
    while process.poll() is None:
        most = max(most, len(place.processes("pipelines.core.worker")))
    process.communicate()
    assert process.returncode == 0
    assert most == 1


def test_ctrl_c_publishes_and_the_same_command_goes_on(place):
    manifest = place.manifest(60, nap=0.1)
    process = place.start("tone", manifest, "--cluster", "local", "--tasks", 2)
    wait_until(lambda: started(place) >= 4)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "Stopping: tasks publish what they have" in error
    assert "was stopped" in error
    assert not place.processes("pipelines.core.worker")
    status, out, error = place.run("tone", manifest, "--cluster", "local", TOY_NAP="0")
    assert status == 0
    assert "60 merged" in out
    assert place.json("launch-001.json")["items"] <= 56, "what was done before Ctrl-C was not done again"


def test_killed_launcher_does_not_end_the_run(place):
    process = place.start("tone", place.manifest(30, nap=0.1), "--cluster", "local", "--tasks", 2)
    wait_until(lambda: started(place) >= 1)
    process.kill()
    process.communicate()
    wait_until((place.folder() / "merged.json").exists)
    assert place.json("merged.json")["merged"] == 30


def test_second_terminal_joins_instead_of_launching_twice(place):
    process = place.start("tone", place.manifest(30, nap=0.1), "--cluster", "local", "--tasks", 2)
    wait_until(lambda: started(place) >= 1)
    status, out, error = place.run("tone", place.root / "m.json", "--cluster", "local")
    assert status == 0
    assert "is at work already" in error
    assert "30 merged" in out
    process.communicate(timeout=180)
    assert not (place.folder() / "launch-001.json").exists()


def test_leaving_a_second_terminal_does_not_end_the_run(place):
    process = place.start("tone", place.manifest(40, nap=0.1), "--cluster", "local", "--tasks", 2)
    wait_until(lambda: started(place) >= 1)
    second = place.start("tone", place.root / "m.json", "--cluster", "local")
    assert "is at work already" in second.stderr.readline()
    time.sleep(0.5)
    os.killpg(second.pid, signal.SIGINT)
    _, error = second.communicate(timeout=180)
    assert second.returncode == 0
    assert "The run goes on" in error
    out, _ = process.communicate(timeout=180)
    assert (process.returncode, "40 merged" in out) == (0, True)


def test_killed_pump_is_told_and_its_tasks_are_stopped_before_going_on(place):
    manifest = place.manifest(80, nap=0.1)
    process = place.start("tone", manifest, "--cluster", "local", "--tasks", 2)
    wait_until(lambda: started(place) >= 2)
    (pump,) = place.processes("slurm.local")
    os.kill(pump, signal.SIGKILL)
    _, error = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "ended before its work did" in error
    status, out, error = place.run("tone", manifest, "--cluster", "local")
    assert status == 0, error
    assert "had outlived the process that ran them" in error
    assert "80 merged" in out
    assert place.json("merged.json")["spare"] == 0, "nothing was done twice"


def test_no_wait_returns_and_cancel_ends_it(place):
    manifest = place.manifest(100, nap=0.2)
    status, _, error = place.run("tone", manifest, "--cluster", "local", "--no-wait")
    assert status == 0
    assert "It runs on by itself" in error
    wait_until(lambda: started(place) >= 1)
    status, out, error = place.run("cancel", "last")
    assert (status, "Cancelled process" in out) == (0, True), error
    assert not place.processes("slurm.local")
    assert not place.processes("pipelines.core.worker")
    assert place.json("state", "launch-000", "sweep.json")["outcome"] == "cancelled"
    assert "nothing to cancel" in place.run("cancel", "last")[1]


def test_item_that_kills_its_worker_is_quarantined(place):
    manifest = place.manifest(10, kill=lambda number: 9 if number == 3 else None)
    status, out, _ = place.run("tone", manifest, "--cluster", "local", "--tasks", 2)
    assert status == 1
    assert "9 merged + 1 quarantined" in out


def test_limit(place):
    manifest = place.manifest(10)
    status, _, error = place.run("tone", manifest, "--cluster", "local", "--limit", 4)
    assert status == 1
    assert "The 4 items that --limit asked for are done" in error
    assert tones(manifest) == [None] * 10
    status, out, _ = place.run("tone", manifest, "--cluster", "local")
    assert (status, "10 merged" in out) == (0, True)


def test_task_sees_only_the_gpus_it_asked_for(place, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert local.gpus() == [0, 1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert local.gpus() == []


def test_inside_a_job_tasks_do_not_take_themselves_for_it(place):
    status, _, error = place.run(
        "tone", place.manifest(4), "--cluster", "local", SLURM_JOB_ID="77", SLURM_ARRAY_TASK_ID="3"
    )
    assert status == 0, error
    beat = place.json("state", "launch-000", "task_0000.heartbeat.json")
    assert beat["job"] is None


def test_debug_runs_in_one_process_and_shows_tracebacks(place):
    assert place.run("tone", place.manifest(4), "--cluster", "debug", TOY_DIE_LOADING="1")[0] != 0
    status, out, error = place.run("tone", place.root / "m.json", "--cluster", "debug")
    assert status == 0, error
    assert "4 merged" in out
    assert not list(place.home.glob("logs/*/*/submitit*"))


def test_environment_that_cannot_be_made_is_told(place, monkeypatch, capsys):
    (place.root / "envs" / "vad" / ".voxarray-stamp").unlink()
    assert cli.main(["tone", str(place.manifest(3)), "--cluster", "local"]) == 3
    assert "something else is there" in capsys.readouterr().err
    assert place.runs() == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--tasks", "0"], "--tasks must be a whole number of 1 or more"),
        (["--cpus", "many"], "--cpus must be"),
        (["--mem", "lots"], "is not a memory size"),
        (["--time", "soon"], "is not a time"),
        (["--limit", "-3"], "--limit must be"),
        (["--gpus", "x"], "is not a number of GPUs"),
        (["--profile", "nope"], "no profile named 'nope'"),
    ],
)
def test_wrong_values_are_refused_before_anything_is_made(place, capsys, words, told):
    assert cli.main(["tone", str(place.manifest(3)), "--cluster", "local", *words]) == 2
    assert told in capsys.readouterr().err
    assert place.runs() == []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"audio_filepath": "/a.wav", "duration": NaN}', "NaN"),
        ('{"audio_filepath": "/a.wav"', "line 1"),
        ('{"duration": 1.0}', "audio_filepath"),
        ('{"audio_filepath": "a.wav", "duration": 1.0}', "not absolute"),
    ],
)
def test_manifest_at_fault_leaves_no_run_behind(place, capsys, line, told):
    (place.root / "bad.json").write_text(line + "\n")
    assert cli.main(["tone", "bad.json", "--cluster", "local"]) == 2
    assert told in capsys.readouterr().err
    assert place.runs() == []


def test_directory_without_recordings_leaves_no_run_behind(place, capsys):
    (place.root / "empty").mkdir()
    assert cli.main(["chime", "empty", "--cluster", "local"]) == 2
    assert "No recordings were found" in capsys.readouterr().err
    assert place.runs() == []


def test_fresh_starts_anew_and_keeps_the_old(place):
    manifest = place.manifest(4)
    assert cli.main(["tone", str(manifest), "--cluster", "local"]) == 0
    assert cli.main(["tone", str(manifest), "--cluster", "local", "--fresh"]) == 0
    kept = sorted(path.name.split(".until-")[0] for path in (place.home / "output" / "runs").iterdir())
    assert len(kept) == 2 and kept[0] == kept[1]
    assert sorted(path.name for path in (place.home / "logs").iterdir()) == sorted(
        path.name for path in (place.home / "output" / "runs").iterdir()
    )


def test_missing_source(place, capsys):
    assert cli.main(["tone", "nowhere.json", "--cluster", "local"]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_unwritable_home(place, monkeypatch, capsys):
    (place.root / "file").write_text("")
    monkeypatch.setenv("VOXARRAY_HOME", str(place.root / "file"))
    assert cli.main(["tone", str(place.manifest(3)), "--cluster", "local"]) != 0
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert str(place.root / "file") in error


def test_plan_says_what_was_typed(place):
    place.run("tone", place.manifest(2), "--cluster", "debug", "--factor", "2")
    plan = Run.open(place.runs()[0]).plan
    assert plan.argv == ["voxarray", "tone", str(place.root / "m.json"), "--cluster", "debug", "--factor", "2"]
