"""The test cluster is a real Slurm, its faults are real faults, and it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cluster import Cluster, ClusterError
from processes import alive, environment_of, wait_until
from slurm_conf import Settings

HERE = Path(__file__).resolve().parent
# Appends a line a tenth of a second, so that a test sees who still writes, and with which restart count.
TICK = 'while :; do echo "$SLURMD_NODENAME ${SLURM_RESTART_COUNT:-0}" >> %s; sleep 0.1; done'


def lines(path: Path) -> list:
    return path.read_text().splitlines() if path.exists() else []


def test_array_runs_on_several_nodes(cluster, tmp_path):
    job = cluster.sbatch("--array=0-7", wrap=f"echo $SLURMD_NODENAME > {tmp_path}/$SLURM_ARRAY_TASK_ID; sleep 0.3")
    states = cluster.wait_for_jobs(job)
    assert states == {f"{job}_{task}": "COMPLETED" for task in range(8)}
    assert {path.read_text().strip() for path in tmp_path.iterdir()} == {"n1", "n2", "n3", "n4"}


def test_node_death_requeues_elsewhere(cluster, tmp_path):
    ticks = tmp_path / "ticks"
    cluster.sbatch("--requeue", wrap=TICK % ticks)
    wait_until(lambda: bool(lines(ticks)), 60, "the first tick")
    node = lines(ticks)[0].split()[0]
    cluster.node_kill(node)
    before = len(lines(ticks))
    time.sleep(0.4)
    assert not [line for line in lines(ticks)[before:] if line.startswith(f"{node} ")], "they died with it"
    wait_until(lambda: lines(ticks)[-1][-1] != "0", 180, "another attempt")
    assert not lines(ticks)[-1].startswith(node)
    cluster.node_up(node)


def test_split_brain_leaves_the_ghost_writing(cluster, tmp_path):
    ticks = tmp_path / "ticks"
    cluster.sbatch("--requeue", wrap=TICK % ticks)
    wait_until(lambda: bool(lines(ticks)), 60, "the first tick")
    ghost = lines(ticks)[0]
    node = ghost.split()[0]
    cluster.node_kill(node, split_brain=True)
    wait_until(lambda: lines(ticks)[-1][-1] != "0", 180, "another attempt")
    before = len(lines(ticks))
    # a node that is given up may answer once more, and get the job again before it is lost for good: a third attempt
    wait_until(lambda: ghost in lines(ticks)[before:], 60, "ticks of the ghost")
    wait_until(lambda: {line[-1] for line in lines(ticks)[before:]} - {"0"}, 60, "ticks of the other attempt")
    cluster.ghosts_end(node)
    before = len(lines(ticks))
    wait_until(lambda: len(lines(ticks)) > before + 2, 60, "ticks of the other attempt")
    assert ghost not in lines(ticks)[before:]


def test_controller_restart_keeps_the_queue(cluster, tmp_path):
    cluster.drain("n1", "n2", "n3")
    leave = tmp_path / "leave"
    running = cluster.sbatch(wrap=f"until [ -e {leave} ]; do sleep 0.2; done")
    waiting = cluster.sbatch("--array=0-2", "--nodelist=n1", wrap="true")
    held = cluster.sbatch("--hold", wrap="true")
    cluster.wait_for_state(running, "RUNNING")
    cluster.controller_kill(signal.SIGTERM)
    cluster.controller_up()
    assert {row["id"] for row in cluster.squeue()} - {running} == {held, *(f"{waiting}_{task}" for task in range(3))}
    assert set(cluster.states(running).values()) == {"RUNNING"}
    leave.touch()
    cluster.resume("n1", "n2", "n3")
    cluster.release(held)
    assert set(cluster.wait_for_jobs(running, waiting, held).values()) == {"COMPLETED"}


def test_controller_killed_hard_comes_back(cluster):
    job = cluster.sbatch(wrap="sleep 7")
    cluster.wait_for_state(job, "RUNNING")
    time.sleep(5.5)  # the controller saves its state every 5 s
    cluster.controller_kill()
    cluster.controller_up()
    assert cluster.wait_for_jobs(job) == {job: "COMPLETED"}


def test_preemption_signals_and_requeues(cluster, tmp_path):
    script = tmp_path / "job.sh"
    script.write_text(
        "#!/bin/bash\n"
        'say() { echo "$1 ${SLURM_RESTART_COUNT:-0}" >> $SLURM_JOB_PARTITION; }\n'
        "trap 'say USR2' USR2\n"
        "trap 'say TERM; exit 1' TERM\n"
        "say start\n"
        '[ -n "$SLURM_RESTART_COUNT" ] && exit 0\n'
        "while :; do sleep 0.1; done\n"
    )
    options = ["--signal=B:USR2@5", "--requeue", f"--chdir={tmp_path}"]
    jobs = [cluster.sbatch(f"--partition={name}", *options, script=[str(script)]) for name in ("low", "lowgrace")]
    at_once, grace = tmp_path / "low", tmp_path / "lowgrace"
    wait_until(lambda: lines(at_once) == lines(grace) == ["start 0"], 60, "the first attempts")
    cluster.preempt(seconds=0.5)
    wait_until(lambda: "start 1" in lines(at_once) and "start 1" in lines(grace), 180, "the second attempts")
    assert set(cluster.wait_for_jobs(*jobs).values()) == {"COMPLETED"}
    assert lines(at_once)[0] == "start 0" and lines(at_once)[-1] == "start 1"
    assert "TERM 0" in lines(at_once), "without a grace time, only a moment before the end"
    assert lines(grace)[:2] == ["start 0", "USR2 0"], "a grace time lets the warning signal come first"


def test_requeue_counts_restarts(cluster, tmp_path):
    seen = tmp_path / "seen"
    again = '[ -n "$SLURM_RESTART_COUNT" ] || scontrol requeue $SLURM_JOB_ID'
    job = cluster.sbatch("--requeue", wrap=f'echo "${{SLURM_RESTART_COUNT:-unset}}" >> {seen}; {again}; sleep 1')
    wait_until(lambda: lines(seen) == ["unset", "1"], 60, "the restart")
    assert cluster.wait_for_jobs(job) == {job: "COMPLETED"}


def test_largest_array_index_can_be_lowered(cluster):
    cluster.reconfigure(max_array_size=17)
    with pytest.raises(ClusterError, match="Invalid job array specification"):
        cluster.sbatch("--array=0-17", wrap="true")
    job = cluster.sbatch("--array=0-16", wrap="true")
    assert len(cluster.wait_for_jobs(job)) == 17
    cluster.clean()
    cluster.scancel(cluster.sbatch("--array=0-17", "--hold", wrap="true"))


def test_without_sacct_on_path(cluster):
    def which(name: str, sacct: bool) -> bool:
        env = cluster.environment(sacct=sacct)
        found = subprocess.run(["bash", "-c", f"command -v {name}"], env=env, capture_output=True, check=False)
        return found.returncode == 0

    assert which("sacct", sacct=True)
    assert not which("sacct", sacct=False)
    assert which("sbatch", sacct=False) and which("bash", sacct=False)


def test_accounting_answers_where_it_is_on(cluster):
    if not cluster.settings.accounting:
        pytest.skip("MariaDB or slurmdbd is not installed")
    job = cluster.sbatch("--array=0-1", wrap="true")
    cluster.wait_for_jobs(job)
    wanted = {f"{job}_0": "COMPLETED", f"{job}_1": "COMPLETED"}
    wait_until(lambda: cluster.sacct(job) == wanted, 60, "sacct to catch up")


def test_accounting_off_makes_sacct_fail_and_down_leaves_no_process(slurm_here):
    cluster = Cluster(Settings(nodes=2)).up()
    try:
        root = cluster.root
        with pytest.raises(ClusterError, match="sacct"):
            cluster.sacct("1")
        # A job that detaches as far as it can: own session, orphaned, deaf to SIGTERM.
        job = cluster.sbatch(wrap="setsid bash -c 'trap \"\" TERM; sleep 300 & wait' & sleep 300")
        cluster.wait_for_state(job, "RUNNING")
        wait_until(lambda: len(cluster.processes.jobs()) >= 4, 60, "the job's processes")
        pids = cluster.processes.all()
        assert len(pids) >= 8
        started = time.monotonic()
    finally:
        cluster.down()
    assert time.monotonic() - started < 200, "not as long as the jobs"
    assert not [pid for pid in pids if alive(pid)]
    assert not root.exists()
    cluster.down()


def test_nothing_is_left_when_the_owner_is_killed(slurm_here, tmp_path):
    program = (
        f"import sys, time; sys.path.insert(0, {str(HERE)!r})\n"
        "from cluster import Cluster; from slurm_conf import Settings\n"
        "cluster = Cluster(Settings(nodes=1)).up(); cluster.sbatch(wrap='sleep 300')\n"
        "print(cluster.root, flush=True); time.sleep(300)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    root = owner.stdout.readline().strip()
    assert root

    def of_this_cluster() -> list:
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in pids if any(root in value for value in environment_of(pid).values()) and alive(pid)]

    assert of_this_cluster()
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    wait_until(lambda: not of_this_cluster(), 60, "the orphaned cluster to end")
    wait_until(lambda: not Path(root).exists(), 60, "its folder to be removed")
