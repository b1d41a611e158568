"""What finished runs cost on a real Slurm: by sacct, and without it by what the tasks left."""

from __future__ import annotations

import json
import re

import pytest
from processes import wait_until

TASKS = 4


def account_of(scene, run, sacct=True):
    said = scene.voxarray("account", run.id, "--json", sacct=sacct)
    (found,) = json.loads(said[said.index("{") :])["runs"]
    return found


def test_with_sacct_and_without(scene):
    if not scene.cluster.settings.accounting:
        pytest.skip("MariaDB or slurmdbd is not installed")
    scene.launch("cost", "--tasks", str(TASKS), "--cpus", "2", "--mem", "600M", "--time", "0:20:00")
    scene.wait_for_merge("cost")
    run = scene.run("cost")
    scene.cluster.wait_for_jobs(*(job["job_id"] for job in run.jobs(0)))
    wait_until(lambda: account_of(scene, run)["states"] == {"COMPLETED": TASKS}, 60, "sacct to catch up", 0.5)

    told, alone = account_of(scene, run), account_of(scene, run, sacct=False)
    assert told["sources"]["times"] == {"sacct": TASKS, "heartbeats": 0}
    assert alone["sources"]["times"] == {"sacct": 0, "heartbeats": TASKS}
    assert (alone["sources"]["cpu_hours_used"], alone["sources"]["no_sacct"]) == (
        "heartbeats",
        "there is no sacct here",
    )
    for found in (told, alone):
        assert found["requested"] == {"cpus": 2, "gpus": 0, "mem_mb": 600, "time_limit_s": 1200}
        assert found["cpu_hours"] == pytest.approx(2 * found["task_hours"], rel=0.01)
        assert found["items"] == scene.prove("cost").receipt()["merged"]
        assert found["audio_hours"] == told["audio_hours"] > 0
        assert 0 < found["cpu_hours_used"] < 2 * found["cpu_hours"]
        assert found["waste"]["cut_short"] == 0
        assert found["waste"]["failed_tries"] >= 2 * scene.reference.bad
    # Jobs are held in whole seconds, and longer than their workers live.
    assert told["task_hours"] * 3600 > alone["task_hours"] * 3600 - TASKS
    assert told["waste"]["around_s"] >= 0
    text = scene.voxarray("account", "cost")
    assert "are from sacct" in text
    assert re.search(r"An hour of audio cost [\d.]+ processor hours", text)


def test_a_plain_array_whose_request_only_sacct_knows(scene):
    job = scene.sbatch("plain", "--array=0-1", cpus=3)
    scene.cluster.wait_for_jobs(job)
    run = scene.run("plain")
    without = account_of(scene, run, sacct=False)
    assert (without["cpu_hours"], without["requested"]["cpus"]) == (None, None)
    assert without["cpu_hours_used"] > 0
    if not scene.cluster.settings.accounting:
        return
    wait_until(lambda: account_of(scene, run)["states"] == {"COMPLETED": 2}, 60, "sacct to catch up", 0.5)
    found = account_of(scene, run)
    assert found["requested"]["cpus"] == 3
    assert found["tasks"] == 2
