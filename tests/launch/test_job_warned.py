"""Sweeps and conductors as jobs that are warned: put back into the queue, but for those that nothing comes of."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys

import pytest

from tests.launch.conftest import REPOSITORY

PROGRAM = """
import json, sys, time
from slurm import job, sweep
from slurm.chain import conductor
def work(arguments):
    print("at work", *arguments, flush=True)
    time.sleep(60)
sweep.main = conductor.main = work
kind, text = sys.argv[1:]
{"sweep": job.run_sweep, "chain": job.run_chain}[kind](text)
"""
ORDERS = {"sweep": '{"run": "a-1", "launch": 3}', "chain": '{"chain": "b-2"}'}
RUNNING, PREEMPTED, CANCELLED = (
    "JobState=RUNNING PreemptTime=None",
    "JobState=RUNNING PreemptTime=2026-01-31T12:00:00",
    "JobState=CANCELLED PreemptTime=None",
)


@pytest.fixture
def warned(tmp_path):
    """Sends a job a signal while it is at work; its exit status, what it said, and whether Slurm was asked."""

    def warned(kind, number, record, restarts=0):
        scontrol = tmp_path / "bin" / "scontrol"
        scontrol.parent.mkdir()
        text = f'echo "$@" >> {tmp_path}/asked\n[ "$1" = requeue ] && kill -TERM $PPID\necho " {record} "\n'
        scontrol.write_text(f"#!/bin/sh\n{text}")
        scontrol.chmod(scontrol.stat().st_mode | stat.S_IXUSR)
        environment = {**os.environ, "PATH": f"{scontrol.parent}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}
        environment.update(SLURM_JOB_ID="500", SLURM_RESTART_COUNT=str(restarts), VOXARRAY_HOME=str(tmp_path))
        command = [sys.executable, "-c", PROGRAM, kind, ORDERS[kind]]
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout.readline().startswith("at work")
            process.send_signal(number)
            said = process.communicate(timeout=120)[0]
        asked = tmp_path / "asked"
        return process.returncode, said, asked.exists() and "requeue 500" in asked.read_text()

    return warned


@pytest.mark.parametrize("kind", ["sweep", "chain"])
@pytest.mark.parametrize(
    ("number", "record", "restarts"),
    [
        (signal.SIGUSR2, RUNNING, 0),
        (signal.SIGUSR2, RUNNING, 1),
        (signal.SIGUSR2, PREEMPTED, 7),
        (signal.SIGTERM, PREEMPTED, 7),
    ],
)
def test_is_put_back(warned, kind, number, record, restarts):
    status, _, asked = warned(kind, number, record, restarts)
    assert asked
    assert status == -signal.SIGTERM, "as Slurm ends what it has requeued"


@pytest.mark.parametrize("kind", ["sweep", "chain"])
def test_is_left_once_its_time_was_up_three_times(warned, kind):
    status, said, asked = warned(kind, signal.SIGUSR2, RUNNING, restarts=2)
    assert (status, asked) == (75, False), said


@pytest.mark.parametrize("kind", ["sweep", "chain"])
def test_a_cancelled_one_does_not_come_back(warned, kind):
    status, said, asked = warned(kind, signal.SIGTERM, CANCELLED)
    assert (status, asked) == (75, False), said
