"""VAD over real speech as plain sbatch jobs on a real Slurm: arrays from nothing, and their repair."""

from __future__ import annotations

import signal

import pytest
from processes import send


def test_array_from_nothing(scene):
    job = scene.sbatch("whole", "--array=0-15")
    assert set(scene.cluster.wait_for_jobs(job).values()) == {"COMPLETED"}
    run = scene.prove("whole")
    assert [launch["tasks"] for launch in run.launches()] == [16]
    assert set(run.done().values()) == {1}
    assert len(list((scene.home / "logs").glob(f"vad_{job}_*.out"))) == 16


def test_same_array_again_does_nothing(scene):
    for _ in range(2):
        job = scene.sbatch("again", "--array=0-3")
        assert set(scene.cluster.wait_for_jobs(job).values()) == {"COMPLETED"}
    run = scene.prove("again")
    assert set(run.done().values()) == {1}
    assert not run.done(1)


def test_repair_of_named_tasks(scene):
    """`--array=5` and `--array=0,5,12` redo what these tasks lack: no more, no less."""
    job = scene.sbatch("repair", "--array=0-15")
    run = scene.run("repair")
    with scene.held(repair=(0, 5, 12)):
        scene.cluster.scancel("--signal=KILL", "--full", f"{job}_0", f"{job}_12")
        for pid in scene.pids(job, 5, "pipelines.vad"):
            send(pid, signal.SIGKILL)
    states = scene.cluster.wait_for_jobs(job)
    assert {name for name, state in states.items() if state != "COMPLETED"} == {f"{job}_{task}" for task in (0, 5, 12)}
    lacking = {index for index in range(len(run.listing())) if index % 16 in (0, 5, 12)} - run.places()
    assert lacking and {index % 16 for index in lacking} == {0, 5, 12}
    said = scene.voxarray("merge", str(scene.stem("repair")), statuses=[1])
    assert "--array=0,5,12" in said and not run.receipt()

    five = scene.sbatch("repair", "--array=5")
    scene.cluster.wait_for_jobs(five)
    assert not run.receipt()

    three = scene.sbatch("repair", "--array=0,5,12")
    assert set(scene.cluster.wait_for_jobs(three).values()) == {"COMPLETED"}
    scene.prove("repair")
    lacking &= run.places()  # without the files that are no recordings
    assert run.places(1) == {index for index in lacking if index % 16 == 5}
    assert run.places(2) == {index for index in lacking if index % 16 != 5}
    assert set(run.done().values()) == {1}, "nothing was done twice"


def test_sixteen_tasks_then_four(scene):
    job = scene.sbatch("fewer", "--array=0-15")
    run = scene.run("fewer")
    with scene.held(fewer=range(16)):
        scene.cluster.scancel(job)
        scene.cluster.wait_for_jobs(job)
    kept = run.done()
    assert 16 <= len(kept) < len(run.listing())
    job = scene.sbatch("fewer", "--array=0-3", after="4")
    assert set(scene.cluster.wait_for_jobs(job).values()) == {"COMPLETED"}
    assert [launch["tasks"] for launch in run.launches()] == [16, 4]
    scene.prove("fewer")
    assert set(run.done().values()) == {1}
    assert not set(kept) & set(run.done(1))


@pytest.mark.parametrize("options", [["--array=5"], ["--array=3-7"]])
def test_first_array_with_gaps_is_refused(scene, options):
    job = scene.sbatch("gaps", *options)
    assert set(scene.cluster.wait_for_jobs(job).values()) == {"FAILED"}
    log = next((scene.home / "logs").glob(f"vad_{job}_*.out")).read_text()
    assert "Give their number as the last argument" in log
