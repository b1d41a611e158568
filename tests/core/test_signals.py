"""Warning signals: a task publishes, stops with status 75, and puts itself, and only itself, back into the queue."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.core import heartbeat, lock, merge, parts
from pipelines.core.pipeline import Resources
from pipelines.core.task import TaskLoop
from tests.core.world import REPOSITORY, World, conserved, launch, slurm_task

ALL = [f"{n:05d}.wav" for n in range(60)]


def wait_for(what, process, seconds: float = 180.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)


def at_work(world: World, process) -> None:
    seen = world.root / "seen"
    wait_for(lambda: seen.exists() and seen.stat().st_size > 80, process)


def fake_scontrol(world: World, script: str) -> dict[str, str]:
    """A `scontrol` on PATH that notes its arguments and then does `script`."""
    path = world.root / "bin" / "scontrol"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\necho "$@" >> {world.root}/scontrol\n{script}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {"PATH": f"{path.parent}:{os.environ['PATH']}"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGUSR1, signal.SIGINT])
def test_a_warned_task_publishes_and_returns_75_and_the_next_one_does_the_rest(world, number):
    path = world.manifest(60)
    slurm = slurm_task("77", [0], 0)
    process = world.start(path, TOY_NAP="0.02", **slurm)
    at_work(world, process)
    process.send_signal(number)
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 75, said
    run = world.run(path)
    done = [row.index for _, row in run.rows() if row.status == parts.DONE]
    before = world.seen()
    assert sorted(done) == sorted(int(name[:5]) for name in before), "what was in flight was finished and published"
    assert 0 < len(done) < 60
    beat = heartbeat.read(run.state_folder(0), 0)
    assert (beat.state, beat.done) == ("stopped", len(done))
    assert beat.signal == ("SIGINT" if number == signal.SIGINT else "SIGTERM")
    assert heartbeat.read_end(run.state_folder(0), 0) is None
    status, said = world.command(path, **slurm, SLURM_RESTART_COUNT="1")
    assert status == 0, said
    assert sorted(before + world.seen()) == ALL
    assert heartbeat.read(run.state_folder(0), 0).restarts == 1
    assert run.launch_numbers() == [0], "a requeued job is the same launch"
    assert conserved(merge.last_receipt(run)).merged == 60


def test_a_signal_to_the_whole_group_as_a_scheduler_sends_it(world):
    path = world.manifest(60)
    process = world.start(path, TOY_NAP="0.02", **slurm_task("77", [0], 0))
    at_work(world, process)
    os.killpg(process.pid, signal.SIGTERM)
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 75, said
    assert not [row for _, row in world.run(path).rows() if row.status != parts.DONE]


def test_a_shower_of_signals_stops_the_task_and_hangs_nothing(world):
    """Every process of a step is signalled, the supervisor passes its own on, and an impatient user presses Ctrl-C."""
    path = world.manifest(60)
    process = world.start(path, TOY_NAP="0.02", **slurm_task("77", [0], 0))
    at_work(world, process)
    for number in [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGUSR1] * 100:
        if process.poll() is None:
            os.killpg(process.pid, number)
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 75, said
    assert not [row for _, row in world.run(path).rows() if row.status != parts.DONE]


def bombarded(run) -> None:
    """Take a signal every 50 microseconds, so that handlers interrupt handlers."""
    task = TaskLoop(run, 0, 0, Resources())
    signal.signal(signal.SIGALRM, task.warn)
    signal.setitimer(signal.ITIMER_REAL, 5e-5, 5e-5)
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        pass
    signal.setitimer(signal.ITIMER_REAL, 0)
    os._exit(0 if task.stopping else 1)


def test_a_handler_that_is_interrupted_by_itself_does_not_wait_for_itself(world):
    run = world.run(world.manifest(1))
    launch(run)
    process = multiprocessing.get_context("fork").Process(target=bombarded, args=(run,))
    process.start()
    process.join(20)
    alive = process.is_alive()
    process.kill()
    process.join()
    assert not alive
    assert process.exitcode == 0


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.1, 0.15, 0.2, 0.3])
def test_a_signal_at_any_moment_of_the_start_loses_and_blames_nothing(world, moment):
    path = world.manifest(12)
    process = world.start(path, TOY_LOAD_S="0.2", **slurm_task("77", [0], 0))
    wait_for(lambda: list((world.home / "output").rglob("launch-000.json")), process)
    time.sleep(moment)
    os.killpg(process.pid, signal.SIGTERM)
    said, _ = process.communicate(timeout=180)
    assert process.returncode in (75, -15), said
    status, said = world.command(path, **slurm_task("77", [0], 0))
    assert status == 0, said
    assert "12 merged + 0 quarantined" in said


def test_on_the_schedulers_warning_a_task_requeues_itself_and_waits_to_be_ended(world):
    path = world.manifest(60)
    # As Slurm does it: the process that asked is ended while it waits.
    variables = fake_scontrol(world, "(sleep 0.5; kill -TERM $PPID) >/dev/null 2>&1 &")
    process = world.start(path, "6", TOY_NAP="0.05", **slurm_task("4100", [0, 5], 5), **variables)
    at_work(world, process)
    process.send_signal(signal.SIGUSR2)
    said, _ = process.communicate(timeout=180)
    assert process.returncode == -signal.SIGTERM, said
    assert (world.root / "scontrol").read_text() == "requeue 4100_5\n"
    assert "back in the queue" in said


@pytest.mark.parametrize("numbers", [[signal.SIGUSR2], [signal.SIGUSR1, signal.SIGUSR2]])
def test_a_warning_while_the_set_up_is_waited_for_is_a_requeue_too(world, numbers):
    """One, however many signals come."""
    path = world.manifest(60)
    run = world.run(path)
    variables = fake_scontrol(world, "(sleep 0.5; kill -TERM $PPID) >/dev/null 2>&1 &")
    with lock.held(run.folder / "setup.lock", 0, "The set-up"):
        process = world.start(path, "6", **slurm_task("4100", [0, 5], 5), **variables)
        assert "The set-up of" in process.stdout.readline()
        for number in (signal.SIGSTOP, *numbers, signal.SIGCONT):
            process.send_signal(number)
        said, _ = process.communicate(timeout=180)
    assert process.returncode == -signal.SIGTERM, said
    assert (world.root / "scontrol").read_text() == "requeue 4100_5\n"
    assert re.search("The job of tone was warned by SIGUSR[12] and is back in the queue.", said)


def test_a_fresh_start_that_is_requeued_goes_on(world):
    path = world.manifest(60)
    assert world.command(path)[0] == 0
    world.seen()
    slurm = slurm_task("77", [0], 0)
    process = world.start(path, "--fresh", TOY_NAP="0.05", **slurm)
    at_work(world, process)
    process.send_signal(signal.SIGUSR2)
    assert process.communicate(timeout=180)[0]
    assert process.returncode == 75
    before = world.seen()
    assert 0 < len(before) < 60
    status, said = world.command(path, "--fresh", SLURM_RESTART_COUNT="1", **slurm)
    assert status == 0, said
    assert sorted(before + world.seen()) == ALL
    status, said = world.command(path, "--fresh", **slurm_task("78", [0], 0))
    assert (status, world.seen()) == (0, ALL), f"another job starts anew: {said}"


def test_an_array_starts_anew_once(world):
    path = world.manifest(60)
    assert world.command(path)[0] == 0
    world.seen()
    for task in (0, 1, 2):
        status, said = world.command(path, "3", "--fresh", **slurm_task("77", [0, 1, 2], task))
        assert status == 0, said
    assert world.seen() == ALL
    assert len(list((world.home / "output" / "runs").glob("*.until-*"))) == 1


def test_a_run_at_work_is_not_moved_aside(world):
    path = world.manifest(60)
    process = world.start(path, TOY_NAP="0.05", **slurm_task("77", [0], 0))
    at_work(world, process)
    for job in ({}, slurm_task("78", [0], 0)):
        status, said = world.command(path, "--fresh", **job)
        assert status == 1
        assert "is at work" in said
    process.kill()
    process.communicate()


def test_a_warning_blames_no_item_where_there_is_no_worker_process(world):
    path = world.manifest(60)
    variables = fake_scontrol(world, '[ "$1" != requeue ]')
    process = world.start(path, "--debug", TOY_NAP="0.05", TOY_BATCH="1", **slurm_task("77", [0], 0), **variables)
    at_work(world, process)
    process.send_signal(signal.SIGUSR2)
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 75, said
    assert "requeue 77_0" in (world.root / "scontrol").read_text()
    assert all(row.status == parts.DONE for _, row in world.run(path).rows())
    status, said = world.command(path, **slurm_task("77", [0], 0))
    assert status == 0, said
    assert "60 merged + 0 quarantined" in said


def test_what_must_not_be_broken_off_is_not(world):
    program = (
        "import os, signal\n"
        "from pipelines.core import requeue\n"
        "with requeue.heeded('The job'):\n"
        "    with requeue.deferred():\n"
        "        os.kill(os.getpid(), signal.SIGUSR2)\n"
        "        print('on record', flush=True)\n"
        "    print('never')\n"
    )
    variables = {**world.variables, **fake_scontrol(world, "exit 1"), "SLURM_JOB_ID": "77"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (75, "on record\n")
    assert "requeue 77" in (world.root / "scontrol").read_text()


def test_a_warning_while_python_starts_is_not_lost(world):
    """As `slurm/common.sh` starts it; a shell that sleeps stands for a Python that is slow to start."""
    program = "import time\nfrom pipelines.core import requeue\nwith requeue.heeded('The job'): time.sleep(60)"
    slow = world.root / "slow"
    slow.write_text(f'#!/bin/bash\necho begun\nsleep 1\nexec {sys.executable} -c "{program}"\n')
    slow.chmod(0o755)
    text = f"source {REPOSITORY}/slurm/common.sh; _open_log() {{ :; }}; _find_python() {{ python={slow}; }}\n"
    text += f"repository={REPOSITORY}; run_pipeline vad"
    variables = {**world.variables, **fake_scontrol(world, "exit 1"), "SLURM_JOB_ID": "77"}
    process = subprocess.Popen(["bash", "-c", text], env=variables, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGUSR2)
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert "requeue 77" in (world.root / "scontrol").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_no_requeue(world, number):
    path = world.manifest(60)
    process = world.start(path, TOY_NAP="0.02", **slurm_task("77", [0], 0), **fake_scontrol(world, ""))
    at_work(world, process)
    process.send_signal(number)
    process.communicate(timeout=180)
    assert process.returncode == 75
    asked = world.root / "scontrol"
    assert not asked.exists() or "requeue" not in asked.read_text()


@pytest.mark.parametrize(
    ("record", "asks"),
    [
        ("JobState=RUNNING Reason=None PreemptTime=2026-01-31T12:00:00", True),
        ("JobState=RUNNING Reason=None PreemptTime=None", False),
        ("JobState=CANCELLED Reason=None PreemptTime=2026-01-31T12:00:00", False),
    ],
)
def test_a_stop_that_is_a_preemption_asks_for_a_requeue(world, record, asks):
    path = world.manifest(60)
    # The requeue is refused, so that the task ends by itself.
    script = f'if [ "$1" = requeue ]; then exit 1; fi; echo "JobId=77 {record} Requeue=1"'
    process = world.start(path, TOY_NAP="0.02", **slurm_task("77", [0], 0), **fake_scontrol(world, script))
    at_work(world, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=180)
    assert process.returncode == 75
    assert ("requeue 77_0" in (world.root / "scontrol").read_text()) is asks


def test_where_slurm_does_not_requeue_it_is_told_what_does_the_rest(world):
    path = world.manifest(60)
    variables = fake_scontrol(
        world, "echo 'slurm_requeue error: Requested operation is presently disabled' >&2; exit 1"
    )
    process = world.start(path, TOY_NAP="0.02", **slurm_task("77", [0], 0), **variables)
    at_work(world, process)
    process.send_signal(signal.SIGUSR1)
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 75
    assert "presently disabled" in said
    assert "the same command again" in said


def test_outside_of_slurm_a_stop_is_said_and_resumes(world):
    path = world.manifest(60)
    process = world.start(path, TOY_NAP="0.02")
    at_work(world, process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "Traceback" not in said
    before = world.seen()
    status, said = world.command(path)
    assert status == 0, said
    assert sorted(before + world.seen()) == ALL


def test_a_batch_longer_than_the_grace_time_is_left_to_the_next_attempt(world):
    rows = world.rows(6)
    rows[4]["nap"] = 120
    path = world.write(rows)
    process = world.start(path, TOY_BATCH="1", VOXARRAY_GRACE_S="0.2", **slurm_task("77", [0], 0))
    wait_for(
        lambda: "00004" in (Path(world.root, "seen").read_text() if (world.root / "seen").exists() else ""), process
    )
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=180)
    assert time.monotonic() - begun < 100, "not as long as the batch"
    assert process.returncode == 75, said
    run = world.run(path)
    assert sorted(row.index for _, row in run.rows()) == [0, 1, 2, 3]
    assert not list(run.state_folder(0).glob("*.inflight"))
