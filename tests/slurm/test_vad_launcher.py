"""VAD over real speech through the launcher on a real Slurm: the array and its sweep need no live launcher."""

from __future__ import annotations

import signal
import threading

from processes import send


def job_of(run, launch=0, kind="array"):
    return next(job["job_id"] for job in run.jobs(launch) if job["kind"] == kind)


def test_launcher_returns_and_the_sweep_merges(scene):
    said = scene.launch("sweep", "--tasks", "16")
    run = scene.run("sweep")
    assert job_of(run) in said
    assert not run.receipt(), "the launcher did not wait"
    scene.wait_for_merge("sweep")
    scene.prove("sweep")
    assert set(run.done().values()) == {1}
    assert len(run.launches()) == 1
    assert "Every item" in scene.launch("sweep", "--tasks", "16", statuses=[1]), "nothing is left to do"


def test_killed_tasks_are_swept_up(scene):
    """scancel of a task, kill -9 of a task's supervisor and of a worker: the sweep launches what they lost."""
    with scene.cluster.paused():
        scene.launch("swept", "--tasks", "16")
    run = scene.run("swept")
    job = job_of(run)
    with scene.held(swept=(1, 4, 9)) as [brake]:
        scene.cluster.scancel(f"{job}_1")
        for pid in scene.pids(job, 4, "submitit.core._submit"):
            send(pid, signal.SIGKILL)
        send(brake.held[9].pid, signal.SIGKILL)
    scene.wait_for_merge("swept")
    scene.prove("swept")
    assert [launch["sweep_round"] for launch in run.launches()] == [0, 1]
    assert {index % 16 for index in run.places(1)} == {1, 4}, "the worker's own task went on without it"
    assert set(run.done().values()) == {1}


def test_array_beyond_the_clusters_limit_is_split(scene):
    scene.cluster.reconfigure(max_array_size=5)
    scene.launch("split", "--tasks", "12")
    run = scene.run("split")
    arrays = [job for job in run.jobs(0) if job["kind"] == "array"]
    assert [(job["first_task"], job["tasks"]) for job in arrays] == [(0, 5), (5, 5), (10, 2)]
    assert len(run.jobs(0)) == 4
    scene.wait_for_merge("split")
    scene.prove("split")
    assert {row["task"] for row in run.rows()} == set(range(12))


def test_without_sacct(scene):
    """Neither the launcher, nor the jobs, nor the sweep need sacct; `--wait` follows a killed task to the end."""
    with scene.cluster.paused():
        scene.launch("nosacct", "--tasks", "4", sacct=False)
    run = scene.run("nosacct")
    with scene.held(nosacct=(2,)):
        for pid in scene.pids(job_of(run), 2, "submitit.core._submit"):
            send(pid, signal.SIGKILL)
    said = scene.launch("nosacct", "--tasks", "4", "--wait", sacct=False, statuses=[1])
    assert "3 quarantined" in said
    scene.prove("nosacct")
    assert len(run.launches()) == 2
    assert run.id in scene.voxarray("status", run.id, sacct=False, statuses=[0, 1])


def test_retry_after_a_plain_array(scene):
    """The two ways of launching share a run: what a plain array left is done by the launcher."""
    job = scene.sbatch("both", "--array=0-15")
    run = scene.run("both")
    with scene.held(both=range(16)):
        scene.cluster.scancel(job)
        scene.cluster.wait_for_jobs(job)
    kept = run.done()
    scene.voxarray("retry", run.id, "--cluster", "slurm", "--tasks", "4", "--cpus", "1")
    scene.wait_for_merge("both")
    scene.prove("both")
    assert set(run.done().values()) == {1}
    assert not set(kept) & set(run.done(1))


def test_cancel_is_final_until_retried(scene):
    with scene.cluster.paused():
        scene.launch("cancelled", "--tasks", "4", "--max-parallel", "3")
    run = scene.run("cancelled")
    job = job_of(run)
    assert {record.get("ArrayTaskThrottle") for record in scene.cluster.job(job)} == {"3"}
    with scene.held(cancelled=(0, 1, 2)):
        assert "at work already" in scene.launch("cancelled", "--tasks", "4")
        scene.voxarray("cancel", run.id)
        scene.cluster.wait_for_jobs(*(entry["job_id"] for entry in run.jobs(0)))
    assert len(run.launches()) == 1 and not run.receipt()
    kept = run.done()
    assert kept, "what was published stays"
    scene.voxarray("retry", run.id, "--cluster", "slurm", "--tasks", "4", "--cpus", "1")
    scene.wait_for_merge("cancelled")
    scene.prove("cancelled")
    assert not set(kept) & set(run.done(1))


def test_without_a_sweep_the_same_command_goes_on(scene):
    """The sweep is cancelled, and so are two tasks: nothing is merged until the command is given again."""
    with scene.cluster.paused():
        scene.launch("orphan", "--tasks", "4")
    run = scene.run("orphan")
    job = job_of(run)
    with scene.held(orphan=(1, 3)):
        scene.cluster.scancel(job_of(run, kind="sweep"), f"{job}_1", f"{job}_3")
    scene.cluster.wait_for_jobs(job)
    assert not run.receipt()
    scene.launch("orphan", "--tasks", "2")
    scene.wait_for_merge("orphan")
    scene.prove("orphan")
    assert [launch["tasks"] for launch in run.launches()] == [4, 2]
    assert set(run.done().values()) == {1}


def test_submission_while_the_controller_is_away(scene):
    """It either waits for the controller or fails in a paragraph; given again, it does everything."""
    scene.cluster.controller_kill(signal.SIGTERM)
    restart = threading.Timer(4, scene.cluster.controller_up)
    restart.start()
    said = scene.launch("away", "--tasks", "2", statuses=[0, 3])
    restart.join()
    assert "Traceback" not in said
    run = scene.run("away")
    if "Submitted" not in said:
        scene.launch("away", "--tasks", "2")
    scene.wait_for_merge("away")
    scene.prove("away")
    assert set(run.done().values()) == {1}
