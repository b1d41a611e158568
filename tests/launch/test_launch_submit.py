"""Launches on a make-believe Slurm: what sbatch is given, what a broken submission leaves, and how it goes on."""

from __future__ import annotations

import json
import re
import signal
import time
from types import SimpleNamespace

import pytest

from slurm import cli, find, waiting
from tests.launch import fake_slurm
from tests.launch.place import wait_until


@pytest.fixture
def slurm(cluster):
    """The make-believe cluster's folder, its scripts and its jobs' ends."""
    return Cluster(cluster)


class Cluster:
    def __init__(self, place):
        self.place, self.root = place, place.root / "cluster"
        self.root.mkdir()

    def set(self, name, text):
        (self.root / name).write_text(text)

    def script(self, number):
        return (self.root / f"{number}.sh").read_text()

    def option(self, number, name):
        found = re.search(rf"^#SBATCH --{name}=(.*)$", self.script(number), re.MULTILINE)
        return found and found[1].strip("'")

    def scripts(self):
        return sorted(int(path.stem) for path in self.root.glob("*.sh"))

    def calls(self, name):
        return [line for line in (self.root / "calls").read_text().splitlines() if line.startswith(name + " ")]

    def empty(self):
        self.set("queue.json", "[]")

    def execute(self, number, *tasks):
        """Run tasks of a job (or the job itself), one after the other, as its script says."""
        return max(fake_slurm.execute(number, task) for task in tasks or (None,))


def launch(place, *words):
    return cli.main(["tone", str(place.manifest(30)), *map(str, words)])


def test_one_array_and_its_sweep(slurm, cluster, capsys):
    assert (
        launch(
            cluster, "--tasks", 4, "--max-parallel", 3, "--cpus", 2, "--mem", "1G", "--time", "1:00:00", "--qos", "q"
        )
        == 0
    )
    assert slurm.scripts() == [100, 101]
    wanted = {"array": "0-3%3", "cpus-per-task": "2", "mem": "1024M", "time": "60", "qos": "q", "signal": "USR2@120"}
    assert {name: slurm.option(100, name) for name in wanted} == wanted
    assert "#SBATCH --requeue" in slurm.script(100)
    assert "--cpus-per-task=2 " in slurm.script(100), "srun does not inherit it by itself"
    assert str(cluster.root / "envs" / "vad" / "bin" / "python") in slurm.script(100)
    assert f"export VOXARRAY_HOME={cluster.home}" in slurm.script(100)
    assert "wckey" not in slurm.script(100)
    assert slurm.option(101, "dependency") == "afterany:100"
    assert slurm.option(101, "cpus-per-task") == "1"
    jobs = cluster.json("launch-000.jobs.json")
    assert [(job["job_id"], job["first_task"], job["tasks"], job["kind"]) for job in jobs["jobs"]] == [
        ("100", 0, 4, "array"),
        ("101", 0, 0, "sweep"),
    ]
    assert (jobs["cluster"], jobs["state"]) == ("slurm", "submitted")
    assert "array 100 (4 tasks), sweep 101" in capsys.readouterr().err


def test_tasks_and_sweep_by_their_scripts(slurm, cluster):
    launch(cluster, "--tasks", 3)
    assert slurm.execute(100, 0, 1, 2) == 0
    slurm.empty()
    assert slurm.execute(101) == 0
    assert cluster.json("merged.json")["merged"] == 30
    assert cluster.json("state", "launch-000", "sweep.json")["outcome"] == "merged"
    assert not list(cluster.home.rglob("*result.pkl*")), "how a task ended stands on disk once, and not in a pickle"


def test_what_a_lost_task_leaves_is_resubmitted_by_the_sweep_job(slurm, cluster):
    launch(cluster, "--tasks", 3, "--partition", "p")
    slurm.execute(100, 0, 2)
    slurm.empty()
    assert slurm.execute(101) == 1
    assert slurm.scripts() == [100, 101, 102, 103]
    assert slurm.option(102, "partition") == "p"
    assert slurm.option(103, "dependency") == "afterany:102"
    leaked = json.loads((slurm.root / "102.json").read_text())["slurm"]
    assert not {"SLURM_JOB_ID", "SLURM_CPUS_PER_TASK", "SLURM_ARRAY_TASK_ID"} & set(leaked)
    assert cluster.json("launch-001.json")["items"] == 10
    slurm.execute(102, 0, 1, 2)
    slurm.empty()
    assert slurm.execute(103) == 0
    assert cluster.json("merged.json")["merged"] == 30


def test_arrays_beyond_the_clusters_limit(slurm, cluster):
    slurm.set("max_array_size", "4")
    launch(cluster, "--tasks", 10, "--max-parallel", 5)
    assert [slurm.option(number, "array") for number in (100, 101, 102)] == ["0-3%2", "0-3%2", "0-1%1"]
    assert slurm.option(103, "dependency") == "afterany:100:101:102"
    assert slurm.execute(102, 1) == 0
    assert (cluster.folder() / "state" / "launch-000" / "task_0009.end.json").exists()


def test_single_task_is_a_job_of_its_own(slurm, cluster):
    launch(cluster, "--tasks", 1)
    assert slurm.option(100, "array") is None
    assert cluster.json("launch-000.jobs.json")["jobs"][0]["kind"] == "job"
    assert slurm.execute(100) == 0


def test_no_more_tasks_than_items(slurm, cluster):
    cli.main(["tone", str(cluster.manifest(3)), "--tasks", "16"])
    assert slurm.option(100, "array").startswith("0-2")


def test_second_command_does_not_launch_twice(slurm, cluster, capsys):
    launch(cluster)
    assert launch(cluster) == 0
    assert "is at work already: launch 0, array 100" in capsys.readouterr().err
    assert slurm.scripts() == [100, 101]


def test_fresh_is_refused_while_at_work(slurm, cluster, capsys):
    launch(cluster)
    assert launch(cluster, "--fresh") == 2
    assert "--fresh cannot move a run aside that is at work" in capsys.readouterr().err


def test_job_ids_that_came_again_are_not_ours(slurm, cluster):
    launch(cluster, "--tasks", 2)
    slurm.set("queue.json", json.dumps(["100|0-1|RUNNING|None|someone-elses"]))
    launch(cluster)
    assert len(slurm.scripts()) == 4
    assert cli.main(["cancel", "last"]) == 0
    assert not any(call.endswith(" 100") for call in slurm.calls("scancel"))


def test_refusal_in_the_middle_tells_what_stands_and_how_to_go_on(slurm, cluster, capsys):
    slurm.set("max_array_size", "4")
    slurm.set(
        "refuse",
        "2\nsbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates",
    )
    assert launch(cluster, "--tasks", 12) == 3
    told = capsys.readouterr().err
    assert "QOSMaxSubmitJobPerUserLimit" in told
    assert "going on: 100, 101" in told
    assert "fewer tasks (--tasks)" in told
    assert "voxarray retry" in told
    assert cluster.json("launch-000.jobs.json")["state"] == "failed"
    (slurm.root / "refuse").unlink()
    assert launch(cluster, "--tasks", 12) == 0
    assert cluster.json("launch-000.jobs.json")["state"] == "submitted"
    assert slurm.option(102, "array") == "0-3%4"
    assert slurm.option(103, "dependency") == "afterany:100:101:102"
    assert not (cluster.folder() / "launch-001.json").exists(), "the same launch was finished"


def test_launcher_killed_while_submitting(slurm, cluster):
    """The id of the last array was never noted; it is found by its name."""
    slurm.set("max_array_size", "20")
    launch(cluster, "--tasks", 25)
    path = cluster.folder() / "launch-000.jobs.json"
    jobs = json.loads(path.read_text())
    jobs["jobs"], jobs["state"] = [], "submitting"
    path.write_text(json.dumps(jobs))
    assert cli.main(["cancel", "last"]) == 0
    assert "scancel 100 101 102" in slurm.calls("scancel")


def test_everything_refused_leaves_a_run_that_can_be_launched(slurm, cluster, capsys):
    slurm.set("refuse", "0\nsbatch: error: invalid partition specified: x")
    assert launch(cluster, "--partition", "x") == 3
    assert "--partition" in capsys.readouterr().err
    (slurm.root / "refuse").unlink()
    assert launch(cluster) == 0
    assert slurm.option(100, "partition") is None


def test_cancel_keeps_the_sweep_from_bringing_it_back(slurm, cluster):
    launch(cluster, "--tasks", 2)
    assert cli.main(["cancel", "last"]) == 0
    assert slurm.calls("scancel") == ["scancel 100 101"]
    assert slurm.execute(101) == 1
    assert slurm.scripts() == [100, 101]
    assert cluster.json("state", "launch-000", "sweep.json")["outcome"] == "cancelled"
    assert cli.main(["cancel", "last"]) == 0


def test_retry_launches_what_is_missing_with_the_runs_parameters(slurm, cluster):
    launch(cluster, "--tasks", 3, "--factor", "2")
    slurm.execute(100, 1)
    slurm.empty()
    assert cli.main(["retry", "last", "--cpus", "4"]) == 0
    assert cluster.json("launch-001.json")["items"] == 20
    assert slurm.option(102, "cpus-per-task") == "4"
    assert len(cluster.runs()) == 1


def test_retry_asks_for_what_the_last_launch_did(slurm, cluster, monkeypatch, capsys):
    launch(cluster, "--tasks", 3, "--partition", "big", "--mem", "3G", "--gpus", "a100:1", "--time", "90")
    slurm.execute(100, 1)
    slurm.empty()
    monkeypatch.setenv("SBATCH_PARTITION", "variable")
    capsys.readouterr()
    assert cli.main(["retry", "last", "--dry-run"]) == 0
    assert "partition big (as launch-000)" in capsys.readouterr().out
    assert cli.main(["retry", "last", "--mem", "5G"]) == 0
    asked = [slurm.option(102, name) for name in ("partition", "mem", "gpus-per-node", "time")]
    assert asked == ["big", "5120M", "a100:1", "90"]
    assert slurm.option(103, "partition") == "big", "the sweep, too"


def test_sweep_does_nothing_while_tasks_are_in_the_queue(slurm, cluster):
    launch(cluster, "--tasks", 2)
    assert slurm.execute(101) == 1
    assert slurm.scripts() == [100, 101]
    assert not (cluster.folder() / "state" / "launch-000" / "sweep.json").exists()


def test_sbatch_variables_reach_the_sweep_too(slurm, cluster, monkeypatch):
    monkeypatch.setenv("SBATCH_ACCOUNT", "speech")
    monkeypatch.setenv("SBATCH_PARTITION", "hidden")
    launch(cluster, "--partition", "shown")
    for number in (100, 101):
        assert slurm.option(number, "account") == "speech"
        assert slurm.option(number, "partition") == "shown"
        leaked = json.loads((slurm.root / f"{number}.json").read_text())["slurm"]
        assert "SBATCH_PARTITION" not in leaked, "sbatch would let it win over the script"


def test_profile_reaches_tasks_and_sweep(slurm, cluster):
    folder = cluster.root / "config" / "voxarray" / "profiles"
    folder.mkdir(parents=True)
    (folder / "c.toml").write_text('partition = "gpu"\n[sbatch]\nnice = 7\n[sweep]\npartition = "cpu"\ntime = "9"\n')
    launch(cluster, "--profile", "c", "--gpus", "a100:1")
    assert [slurm.option(100, name) for name in ("partition", "nice", "gpus-per-node")] == ["gpu", "7", "a100:1"]
    assert [slurm.option(101, name) for name in ("partition", "nice", "time", "gpus-per-node")] == [
        "cpu",
        "7",
        "9",
        None,
    ]


def test_wait_shows_why_it_waits_and_ends_with_the_verdict(slurm, cluster):
    slurm.set("queue.json", "[]")
    process = cluster.start("tone", cluster.manifest(9), "--tasks", "1", "--wait")
    wait_until((slurm.root / "101.sh").exists)
    assert process.poll() is None
    slurm.execute(100)
    slurm.empty()
    slurm.execute(101)
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 0
    assert "9 items = 9 merged" in out


def test_interrupted_wait_leaves_the_run_alone(slurm, cluster):
    process = cluster.start("tone", cluster.manifest(9), "--wait")
    wait_until((slurm.root / "101.sh").exists)
    wait_until(lambda: len(slurm.calls("squeue")) > 0)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=180)
    assert process.returncode == 0
    assert "The run goes on" in error
    assert not slurm.calls("scancel")


def test_wait_goes_on_when_the_sweep_is_lost(slurm, cluster, monkeypatch, capsys):
    monkeypatch.setattr(waiting, "_QUEUE_EVERY_S", 0.1)
    launch(cluster, "--tasks", 1)
    run = find.run("last")
    slurm.empty()
    assert waiting.wait(run, 0) == 1
    assert "its sweep left no word" in capsys.readouterr().err
    slurm.execute(100)
    slurm.empty()
    assert waiting.wait(run, 0) == 0
    assert "30 merged" in capsys.readouterr().out


def test_silent_controller_is_waited_for(slurm, cluster, monkeypatch):
    from slurm import cluster as commands

    assert commands.max_array_size() == 1001
    slurm.set("down", "")
    naps = []

    def nap(seconds):
        naps.append(seconds)
        if len(naps) == 3:
            (slurm.root / "down").unlink()

    monkeypatch.setattr(commands, "time", SimpleNamespace(sleep=nap, monotonic=time.monotonic))
    assert commands.max_array_size() == 1001
    assert naps == [1.0, 2.0, 4.0]


def test_controller_that_stays_silent_is_told(slurm, cluster, monkeypatch):
    from slurm import cluster as commands

    slurm.set("down", "")
    with pytest.raises(commands.CommandError, match="Unable to contact slurm controller"):
        commands.patiently("squeue", patience_s=0.5)


def test_slurm_asked_for_where_there_is_none(place, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(place.root))
    assert launch(place, "--cluster", "slurm") == 3
    error = capsys.readouterr().err
    assert "there is no sbatch on PATH" in error
    assert "--cluster local" in error
    assert place.runs() == []
