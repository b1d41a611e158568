"""A storm: for half a minute everything that can happen to a run happens to it, by a seeded die."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest
from brake import workers
from processes import ClusterError, send, wait_until

SECONDS = 10
SEED = int(os.environ.get("VOXARRAY_SEED", "20261121"))


class Storm:
    """Faults on the cluster and on the runs of a scene."""

    def __init__(self, scene, names, seed):
        self.scene, self.names, self.die = scene, names, random.Random(seed)
        self.log = []

    def blow(self):
        """One fault, chosen by the die."""
        faults = [self.kill_worker, self.kill_batch, self.requeue, self.scancel, self.node, self.controller]
        fault = self.die.choice(faults)
        try:
            self.log.append((round(time.monotonic(), 1), fault.__name__, fault()))
        except ClusterError as error:
            self.log.append((round(time.monotonic(), 1), fault.__name__, str(error)[:120]))

    def _task(self):
        """The id of a running array task (`12_3`), if any."""
        rows = [row["id"] for row in self.scene.cluster.squeue() if row["state"] == "RUNNING" and "_" in row["id"]]
        return self.die.choice(rows) if rows else None

    def kill_worker(self):
        found = [worker for name in self.names for worker in workers(self.scene.cluster.processes, name)]
        if found:
            send(self.die.choice(found).pid, signal.SIGKILL)
        return len(found)

    def kill_batch(self):
        task = self._task()
        if task:
            self.scene.cluster.scancel("--signal=KILL", "--full", task)
        return task

    def requeue(self):
        task = self._task()
        if task:
            self.scene.cluster.scontrol("requeue", task)
        return task

    def scancel(self):
        task = self._task()
        if task:
            self.scene.cluster.scancel(task)
        return task

    def node(self):
        name = self.die.choice(self.scene.cluster.settings.names())
        self.scene.cluster.node_kill(name, split_brain=self.die.random() < 0.5)
        time.sleep(0.5)
        self.scene.cluster.node_up(name)
        return name

    def controller(self):
        self.scene.cluster.controller_kill(signal.SIGTERM)
        self.scene.cluster.controller_up()


def settled(scene):
    return not scene.cluster.squeue()


@pytest.mark.deadline(900)
def test_storm(scene):
    with scene.cluster.paused():
        scene.sbatch("plain", "--array=0-5")
        scene.launch("launched", "--tasks", "6")
    storm = Storm(scene, ("plain", "launched"), SEED)
    with scene.held(plain=range(6), launched=range(6)) as brakes:
        for brake in brakes:
            brake.trickle(0.03)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            storm.blow()
            time.sleep(0.7)
    for entry in storm.log:
        print(*entry)
    # Held jobs are Slurm's way of saying that it gave up on them after repeated requeues.
    for row in scene.cluster.squeue():
        if row["reason"] in ("launch failed requeued held", "JobHeldAdmin", "JobHeldUser"):
            scene.cluster.release(row["id"])
    wait_until(lambda: settled(scene), 150, "the storm to settle", 0.3)
    if not scene.run("plain").receipt():
        job = scene.sbatch("plain", "--array=0-5")
        scene.cluster.wait_for_jobs(job)
    if not scene.run("launched").receipt():
        scene.launch("launched", "--tasks", "3")
        scene.wait_for_merge("launched")
    for name in ("plain", "launched"):
        scene.prove(name)
