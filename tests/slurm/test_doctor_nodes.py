"""`doctor --cluster` on a real Slurm: two of its nodes probe the folders that voxarray works in."""

from __future__ import annotations

import hashlib
import json
import platform
import signal
import subprocess
import sys

import pytest
from processes import wait_until
from scene import REPOSITORY, variables


@pytest.fixture
def home(tmp_path):
    """A user's home, with one environment that is this interpreter: what is made on the machine would take minutes."""
    prefix = tmp_path / "envs" / "vad"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (prefix / "bin" / "python").chmod(0o755)
    lock = hashlib.sha256((REPOSITORY / "envs" / "vad.lock").read_bytes()).hexdigest()
    (prefix / ".voxarray-stamp").write_text(f"lock {lock}\npython {platform.python_version()}\ntool test\n")
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def doctor(cluster, home, *options):
    """`doctor OPTIONS --json`, started."""
    environment = {**cluster.environment(), **variables(home), "VOXARRAY_ENVS": str(home.parent / "envs")}
    command = [sys.executable, "-m", "slurm", "doctor", "--json", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def left(home):
    """What the probe left behind, in the home and in the repository."""
    return [*home.rglob(".doctor-*"), *REPOSITORY.glob(".doctor-*")]


@pytest.mark.deadline(360)
def test_two_nodes_probe_the_cluster(cluster, home):
    out, error = doctor(cluster, home, "--cluster").communicate()
    findings = {finding["name"]: finding for finding in json.loads(out)}
    nodes = {name.removeprefix("clock of ") for name in findings if name.startswith("clock of ")}
    assert len(nodes) == 2, (out, error)
    assert nodes < set(cluster.settings.names())
    for name in ("a new file", "a new file in a listed folder", "a rename in a listed folder", "a rename over a file",
                 "exclusive create", "link", "lock (flock)", "lock (fcntl)", "submission from a node", "arrays",
                 "time", "vad"):  # fmt: skip
        assert findings[name]["standing"] == "ok", findings[name]
    assert findings["a rename over a file"]["measured"]["torn"] == 0
    assert "KillWait" in findings["end of a job"]["seen"]
    assert "1001 tasks an array" in findings["arrays"]["seen"]
    assert not left(home)
    assert not cluster.squeue()


@pytest.mark.deadline(360)
def test_a_partition_that_gives_a_job_one_node(cluster, home):
    """Two jobs then, on different nodes."""
    cluster.scontrol("update", "partitionname=low", "maxnodes=1")
    try:
        out, error = doctor(cluster, home, "--cluster", "--partition", "low").communicate()
    finally:
        cluster.scontrol("update", "partitionname=low", "maxnodes=unlimited")
    findings = {finding["name"]: finding for finding in json.loads(out)}
    assert len([name for name in findings if name.startswith("clock of ")]) == 2, (out, error)
    assert "probe" not in findings, findings["probe"]
    for name in ("a new file", "exclusive create", "link", "lock (flock)", "vad"):
        assert findings[name]["standing"] == "ok", findings[name]
    assert not left(home)
    assert not cluster.squeue()


@pytest.mark.deadline(360)
def test_it_waits_for_its_turn_and_ctrl_c_cancels_it(cluster, home):
    cluster.drain(*cluster.settings.names())
    process = doctor(cluster, home, "--cluster", "--partition", "low")
    wait_until(lambda: [row["name"] for row in cluster.squeue()] == ["voxarray.doctor"], 90, "the job to be queued")
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "stopped" in error
    assert not cluster.squeue()
    assert not left(home)
    cluster.resume(*cluster.settings.names())
    assert not list((home / "output").iterdir())
