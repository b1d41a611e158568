"""`doctor --cluster` from its command line to its findings, on a Slurm that starts each job's programs right here."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from slurm import cli, doctor_cluster
from slurm.probing import job, script
from tests.launch.place import wait_until

SLURM = """\
import json, os, re, signal, subprocess, sys
from pathlib import Path
root = Path(os.environ["SMALL_SLURM"])
name, words = sys.argv[1], sys.argv[2:]
settings = json.loads((root / "settings.json").read_text())
with (root / "calls").open("a") as file:
    file.write(" ".join([name, *words]) + "\\n")

def options(text):
    return dict(re.findall(r"^#SBATCH --([\\w-]+)(?:=(.*))?$", text, re.MULTILINE))

def alive():
    try:
        os.kill(int((root / "pid").read_text()), 0)
    except (OSError, ValueError):
        return False
    return True

if name == "sbatch" and "--test-only" in words:
    sys.exit(settings.get("refused_there", 0))
elif name == "sbatch":
    if settings.get("refused"):
        sys.exit(settings["refused"])
    text = Path(words[-1]).read_text()
    (root / "options.json").write_text(json.dumps(options(text)))
    if not settings.get("waits"):
        started = subprocess.Popen(
            ["bash", "-c", text + "\\n"], start_new_session=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "SLURM_NNODES": options(text)["nodes"], "SLURM_JOB_ID": "7"},
        )
        (root / "pid").write_text(str(started.pid))
    print("Submitted batch job 7")
elif name == "srun":
    count = int(next(word for word in words if word.startswith("--ntasks=")).split("=")[1])
    words = words[next(n for n, word in enumerate(words) if not word.startswith("-")):]
    hidden = settings.get("hidden", [])
    started = [
        subprocess.Popen(words if rank not in hidden else ["bash", "-c", "exit 41"],
                         env={**os.environ, "SLURM_PROCID": str(rank), "SLURMD_NODENAME": f"n{rank + 1}"})
        for rank in range(count)
    ]
    status = max(process.wait() for process in started)
    (root / "status").write_text(str(status))
    sys.exit(status)
elif name == "squeue":
    if settings.get("waits") and not (root / "cancelled").exists():
        print("PENDING|Priority")
    elif alive():
        print("RUNNING|None")
elif name == "scancel":
    (root / "cancelled").touch()
    try:
        os.killpg(int((root / "pid").read_text()), signal.SIGKILL)
    except (OSError, ValueError):
        pass
elif name == "scontrol" and words[:2] == ["show", "config"]:
    print("MaxArraySize = 1001\\nMaxJobCount = 10000\\nKillWait = 30 sec\\nClusterName = small")
elif name == "scontrol" and "partition" in words:
    if words[-1] not in ("partition", "main"):
        sys.exit("Partition nowhere not found")
    print(f"PartitionName=main Default=YES MaxTime=UNLIMITED DefaultTime=NONE MaxNodes={settings.get('nodes', 2)} "
          f"TotalNodes={settings.get('nodes', 2)} State=UP PreemptMode=OFF GraceTime=0")
elif name == "scontrol":
    print(f"JobId=7 JobState=FAILED ExitCode={(root / 'status').read_text()}:0")
elif name == "sinfo":
    print("main*|up|infinite|2")
"""


class Small:
    """A Slurm of two nodes that are this machine."""

    def __init__(self, place, monkeypatch):
        self.place, self.root = place, place.root / "small"
        (self.root / "bin").mkdir(parents=True)
        (self.root / "slurm.py").write_text(SLURM)
        for name in ("sbatch", "squeue", "scontrol", "scancel", "srun", "sinfo"):
            command = self.root / "bin" / name
            command.write_text(f'#!/bin/sh\nexec {sys.executable} {self.root}/slurm.py {name} "$@"\n')
            command.chmod(0o755)
        monkeypatch.setenv("SMALL_SLURM", str(self.root))
        monkeypatch.setenv("PATH", f"{self.root / 'bin'}{os.pathsep}{os.environ['PATH']}")
        self.set()

    def set(self, **settings):
        (self.root / "settings.json").write_text(json.dumps(settings))

    def calls(self, name):
        return [line for line in (self.root / "calls").read_text().splitlines() if line.split()[0] == name]

    def left(self):
        """What the probe left in the user's folders."""
        return list(self.place.root.rglob(".doctor-*"))


@pytest.fixture
def small(place, monkeypatch):
    monkeypatch.setattr(job, "_LATE_S", 1.0)
    monkeypatch.setattr(job, "_RUNNING_EVERY_S", 0.5)
    monkeypatch.setattr(doctor_cluster, "PATIENCE_S", 5.0)
    made = Small(place, monkeypatch)
    yield made
    if (made.root / "pid").exists():
        with suppress(ProcessLookupError):
            os.killpg(int((made.root / "pid").read_text()), signal.SIGKILL)


def found(capsys):
    return {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)}


def test_two_nodes_tell_all(small, capsys):
    status = cli.main(["doctor", "--cluster", "--json"])
    findings = found(capsys)
    assert status == 0, [finding for finding in findings.values() if finding["standing"] != "ok"]
    for name in ("a new file", "a new file in a listed folder", "a rename in a listed folder", "a rename over a file",
                 "exclusive create", "lock (flock)", "lock (fcntl)", "submission from a node", "clock of n1",
                 "clock of n2", "vad"):  # fmt: skip
        assert findings[name]["standing"] == "ok", findings[name]
    assert findings["a new file"]["measured"]["rounds"] == 15
    assert abs(findings["clock of n2"]["measured"]["offset_s"]) < 1
    assert not small.left()
    assert any("--test-only" in call for call in small.calls("sbatch"))


def test_the_job_is_placed_as_asked_for(place):
    profiles = place.root / "config" / "voxarray" / "profiles"
    profiles.mkdir(parents=True)
    (profiles / "site.toml").write_text('account = "group"\nqos = "fast"\n[sbatch]\nreservation = "r1"\n')
    wish = doctor_cluster.Wish(profile="site", qos="slow", gpus="1", partition="main")
    text = script.script(Path("/place"), 2, doctor_cluster.request(wish), ["/python"])
    for line in ("account=group", "qos=slow", "partition=main", "reservation=r1", "gpus-per-node=1", "nodes=2"):
        assert f"#SBATCH --{line}\n" in text


def test_one_node_says_what_was_not_probed(small, capsys):
    small.set(nodes=1)
    assert cli.main(["doctor", "--nodes", "3", "--json"]) == 0
    findings = found(capsys)
    assert "not probed" in findings["nodes"]["seen"]
    assert findings["vad"]["standing"] == "ok"
    assert "lock (flock)" not in findings


def test_a_refused_job(small, capsys):
    small.set(refused="sbatch: error: Batch job submission failed: Invalid account or account/partition combination")
    assert cli.main(["doctor", "--cluster", "--json"]) == 3
    finding = found(capsys)["probe"]
    assert "Invalid account" in finding["seen"]
    assert "--account" in finding["remedy"]
    assert not small.left()


def test_jobs_that_may_not_submit(small, capsys):
    small.set(refused_there="sbatch: error: Access/permission denied")
    assert cli.main(["doctor", "--cluster", "--json"]) == 3
    assert "Access/permission denied" in found(capsys)["submission from a node"]["seen"]


def test_a_job_that_does_not_start_in_time(small, capsys, monkeypatch):
    small.set(waits=True)
    monkeypatch.setattr(doctor_cluster, "_MINUTE_S", 1.0)
    assert cli.main(["doctor", "--cluster", "--patience", "2", "--json"]) == 1
    finding = found(capsys)["probe"]
    assert finding["standing"] == "not seen"
    assert "jobs of higher priority come first" in finding["seen"]
    assert small.calls("scancel")
    assert not small.left()


def test_a_node_that_does_not_see_the_folder(small, capsys):
    small.set(hidden=[1])
    assert cli.main(["doctor", "--cluster", "--json"]) == 3
    findings = found(capsys)
    assert "a node does not see" in findings["probe"]["seen"]
    assert "VOXARRAY_HOME" in findings["probe"]["remedy"]
    assert not small.left()


def test_a_home_that_cannot_be_written(small, place, monkeypatch, capsys):
    (place.root / "file").write_text("")
    monkeypatch.setenv("VOXARRAY_HOME", str(place.root / "file"))
    assert cli.main(["doctor", "--cluster", "--json"]) == 3
    assert "VOXARRAY_HOME" in found(capsys)["folders"]["remedy"]


def test_no_such_partition_and_nonsense(small, capsys):
    assert cli.main(["doctor", "--cluster", "--partition", "nowhere", "--json"]) == 3
    assert "no partition nowhere" in found(capsys)["partition"]["seen"]
    assert cli.main(["doctor", "--nodes", "0"]) == 2
    assert cli.main(["doctor", "--cluster", "--patience", "x"]) == 2


def test_ctrl_c_cancels_and_removes(small, place):
    small.set(waits=True)
    process = place.start("doctor", "--cluster")
    wait_until((small.root / "options.json").exists)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "stopped" in error
    assert small.calls("scancel") == ["scancel 7"]
    assert not small.left()


def test_a_cluster_is_needed(place, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(place.root))
    assert cli.main(["doctor", "--cluster"]) == 3
    assert "--cluster needs a cluster" in capsys.readouterr().out
