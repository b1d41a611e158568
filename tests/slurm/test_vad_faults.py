"""VAD over real speech while the cluster fails: time limits, preemption, dead nodes, twins, a controller that goes.

In each, a plain array and a launcher's run are at work side by side, to halve the time that Slurm makes one wait.
"""

from __future__ import annotations

import signal
import time

import pytest
from brake import workers
from processes import send, wait_until
from test_vad_launcher import job_of


def finish(scene, *names):
    """Wait for the runs and prove them."""
    for name in names:
        scene.wait_for_merge(name)
        run = scene.prove(name)
        assert set(run.done().values()) == {1}, "nothing was done twice"


def requeued(scene, job):
    """Wait until every task of the job has been requeued."""
    wait_until(lambda: min(restarts(scene, job).values()) >= 1, 120, f"job {job} to be requeued", 0.3)


def preempted(records):
    """Whether Slurm has told every task of a job to go, or has taken it off its node already."""
    return all(record.get("PreemptTime", "None")[0].isdigit() or int(record["Restarts"]) for record in records)


def restarts(scene, job):
    return {record.get("ArrayTaskId", "0"): int(record["Restarts"]) for record in scene.cluster.job(job)}


@pytest.mark.deadline(900)
def test_time_limit(scene):
    """Warned in time, tasks publish and requeue themselves; without a warning, they are ended, and can be repaired."""
    with scene.cluster.paused():
        warned = scene.sbatch("warned", "--array=0-1", "--time=1", "--signal=B:USR2@20")
        stopped = scene.sbatch("stuck", "--array=0-1", "--time=1", "--signal=B:CONT@10")
        scene.launch("launched", "--tasks", "2", "--time", "1")
    run = scene.run("launched")
    both = (0, 1)
    with scene.held(warned=both, launched=both, stuck=both) as brakes:
        for brake in brakes[:2]:
            brake.trickle(0.02)
        for brake, job in zip(brakes[:2], (warned, job_of(run))):
            requeued(scene, job)
            brake.release()
        scene.cluster.wait_for_jobs(stopped, timeout_s=360)
    assert set(scene.cluster.states(stopped).values()) == {"TIMEOUT"}
    finish(scene, "warned", "launched")
    assert len(run.launches()) == 1, "a requeued task is the same launch's"
    scene.voxarray("retry", scene.run("stuck").id, "--cluster", "slurm", "--tasks", "2", "--cpus", "1")
    finish(scene, "stuck")


@pytest.mark.parametrize("user_signal", [True, False])
def test_preemption(scene, user_signal):
    """With and without a grace time, on sites that send the user's signal at preemption and on those that do not."""
    if not user_signal:
        scene.cluster.reconfigure(preempt_user_signal=False)
    with scene.cluster.paused():
        low = scene.sbatch("low", "--array=0-3", "--partition=low")
        grace = scene.sbatch("grace", "--array=0-3", "--partition=lowgrace")
        scene.launch("launched", "--tasks", "4", "--partition", "lowgrace")
    with scene.held(low=range(4), grace=range(4), launched=range(4)) as brakes:
        high = scene.cluster.preempt(seconds=0.5)
        jobs = (low, grace, job_of(scene.run("launched")))
        wait_until(lambda: all(map(preempted, map(scene.cluster.job, jobs))), 60, "all tasks to be preempted", 0.1)
        time.sleep(1)
        for brake in brakes:
            brake.trickle(0.02)
        scene.cluster.wait_for_jobs(high)
    launched = scene.run("launched")
    for name in ("low", "grace", "launched"):
        scene.wait_for_merge(name)
        scene.prove(name)
    for job in (low, grace, job_of(launched)):
        assert set(restarts(scene, job).values()) == {1}
    assert len(launched.launches()) == 1, "a requeued task is the same launch's"


def test_node_that_dies(scene):
    with scene.cluster.paused():
        plain = scene.sbatch("plain", "--array=0-3")
        scene.launch("launched", "--tasks", "4")
    run = scene.run("launched")
    with scene.held(plain=range(4), launched=range(4)):
        scene.cluster.node_kill("n2")
    finish(scene, "plain", "launched")
    for job in (plain, job_of(run)):
        assert sorted(restarts(scene, job).values()) == [0, 0, 0, 1]
    scene.cluster.node_up("n2")


@pytest.mark.parametrize("locks", [True, False])
def test_split_brain_twins(scene, locks):
    """A node that Slurm believes dead works on beside the requeued attempts: nothing is lost, torn or doubled.

    Without locks (files that locks are held on are taken away, as on a file system whose locks do not reach other
    nodes), both attempts of a task work at the same time.
    """
    with scene.cluster.paused():
        plain = scene.sbatch("plain", "--array=0-3")
        scene.launch("launched", "--tasks", "4")
    run = scene.run("launched")
    with scene.held(plain=range(4), launched=range(4)) as [one, other]:
        if not locks:
            for path in scene.home.glob("output/runs/*/state/*/*.lock"):
                path.unlink()
        scene.cluster.node_kill("n3", split_brain=True)
        ghosts = {worker.pid for brake in (one, other) for worker in brake.held.values()}
        wait_until(lambda: any(restarts(scene, plain).values()), 90, "the twin of the plain array")
        wait_until(lambda: any(restarts(scene, job_of(run)).values()), 90, "the twin of the launch")
        if not locks:
            wait_until(lambda: twins(scene, ghosts) >= 2, 90, "the twins to be at work beside the ghosts")
    for name in ("plain", "launched"):
        scene.wait_for_merge(name)
        scene.prove(name)
    scene.cluster.ghosts_end("n3")
    scene.cluster.node_up("n3")


def twins(scene, ghosts):
    """How many live workers are not those that were held."""
    names = ("plain", "launched")
    found = [worker.pid for name in names for worker in workers(scene.cluster.processes, name)]
    return len(set(found) - ghosts)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_controller_restart(scene, number):
    """Arrays and sweep go on; what is asked of Slurm meanwhile waits for the controller."""
    with scene.cluster.paused():
        plain = scene.sbatch("plain", "--array=0-3")
        scene.launch("launched", "--tasks", "4")
    run = scene.run("launched")
    with scene.held(plain=range(4), launched=range(4)) as [one, _]:
        if number == signal.SIGKILL:
            time.sleep(5.5)  # what happened in the last 5 s is not yet saved: any cluster would lose it
        scene.cluster.controller_kill(number)
        one.release()  # these end while nobody listens
        wait_until(lambda: bool(scene.run("plain").receipt()), 120, "the plain array to merge without a controller")
        scene.cluster.controller_up()
    finish(scene, "plain", "launched")
    assert set(scene.cluster.wait_for_jobs(plain, job_of(run)).values()) == {"COMPLETED"}


def test_two_arrays_of_one_run_at_once(scene):
    """Their sixteen tasks start together: one listing, one deal for each array, and one result."""
    jobs = [scene.sbatch("rush", "--array=0-7"), scene.sbatch("rush", "--array=0-7")]
    states = scene.cluster.wait_for_jobs(*jobs)
    assert set(states.values()) == {"COMPLETED"}, states
    run = scene.prove("rush")
    assert len(run.launches()) == 2
    assert [launch["tasks"] for launch in run.launches()] == [8, 8]


def test_ghost_that_never_ends(scene):
    """A ghost keeps its task's lock for ever: its twin stops, the sweep has the items done elsewhere, and merges.

    When the ghost wakes up in the end, what it publishes changes nothing.
    """
    with scene.cluster.paused():
        scene.launch("haunted", "--tasks", "4", VOXARRAY_LOCK_WAIT_S="3")
    run = scene.run("haunted")
    with scene.held(haunted=range(4)) as [brake]:
        scene.cluster.node_kill("n1", split_brain=True)
        for task in (1, 2, 3):
            send(brake.held[task].pid, signal.SIGCONT)
        scene.wait_for_merge("haunted")
        scene.prove("haunted")
        assert len(run.launches()) == 2
        before = len(run.rows())
    wait_until(lambda: not workers(scene.cluster.processes, "haunted"), 90, "the ghost to end")
    assert len(run.rows()) > before, "the ghost published what it had"
    scene.voxarray("merge", run.id, statuses=[1])
    scene.prove("haunted")
