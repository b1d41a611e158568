"""Everything that can happen to a chain at work, one fault at a time, by a seeded die.

What a fault hit, or that there was nothing to hit, is kept: only faults that hit something are counted.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from cluster import Cluster
from processes import ClusterError, command_of, send

_SPARE = 64 << 10


class Weather:
    """Faults on a cluster and on one home. `command`: starts the chain's command once more, as a user would."""

    def __init__(
        self, cluster: Cluster, home: Path, recordings: List[Path], command: Callable[[], Any], die: random.Random
    ) -> None:
        self.cluster, self.home, self.recordings, self.command, self.die = cluster, home, recordings, command, die
        self.counts: Counter = Counter()
        self.log: List[str] = []
        self.started: List[subprocess.Popen] = []
        self._ended = threading.Event()
        self._slowed: Optional[threading.Thread] = None
        self.kinds: Dict[str, Callable[[], object]] = {
            "kill -9 of a worker": self.kill_worker,
            "kill -9 of a supervisor": self.kill_supervisor,
            "kill -9 of a whole task": self.kill_task,
            "scancel": self.scancel,
            "requeue": self.requeue,
            "time limit (its warning)": self.warn,
            "time limit": self.time_limit,
            "preemption": self.preempt,
            "node death": self.node_death,
            "split brain": self.split_brain,
            "controller restart": self.controller,
            "accounting restart": self.accounting,
            "full disk": self.full_disk,
            "vanishing file": self.vanish,
            "unreadable file": self.unreadable,
            "clock jump (file times)": self.clock,
            "two launchers at once": self.two_launchers,
            "stalled worker": self.stall,
        }
        rare = {"time limit": 0.3, "controller restart": 0.5, "accounting restart": 0.3, "full disk": 0.6}
        often = ("kill -9 of a worker", "kill -9 of a whole task", "scancel", "time limit (its warning)", "preemption")
        self.weights = {**rare, **dict.fromkeys(often, 2.5)}

    def blow(self) -> bool:
        """One fault; whether it hit something."""
        names = list(self.kinds)
        name = self.die.choices(names, [self.weights.get(name, 1.0) for name in names])[0]
        try:
            hit = self.kinds[name]()
        except (ClusterError, OSError, subprocess.SubprocessError) as error:
            self.log.append(f"{time.monotonic():.1f} {name}: {str(error)[:200]}")
            return False
        self.log.append(f"{time.monotonic():.1f} {name}: {hit}")
        self.counts[name] += bool(hit)
        return bool(hit)

    # -- processes and jobs

    def pids(self, word: str) -> List[int]:
        """Processes of jobs whose command line has that word."""
        return [pid for pid in self.cluster.processes.jobs() if word in " ".join(command_of(pid))]

    def _kill(self, word: str) -> Optional[int]:
        found = self.pids(word)
        if not found:
            return None
        pid = self.die.choice(found)
        send(pid, signal.SIGKILL)
        return pid

    def kill_worker(self) -> Optional[int]:
        return self._kill("pipelines.core.worker")

    def kill_supervisor(self) -> Optional[int]:
        return self._kill("submitit")

    def _job(self, only_arrays: bool = False) -> Optional[str]:
        """The id of a running job; sweeps and conductors among them."""
        rows = [row["id"] for row in self.cluster.squeue() if row["state"] == "RUNNING" and row["partition"] != "high"]
        rows = [each for each in rows if "_" in each or not only_arrays]
        return self.die.choice(rows) if rows else None

    def kill_task(self) -> Optional[str]:
        job = self._job()
        if job:
            self.cluster.scancel("--signal=KILL", "--full", job)
        return job

    def scancel(self) -> Optional[str]:
        job = self._job(only_arrays=True)
        if job:
            self.cluster.scancel(job)
        return job

    def requeue(self) -> Optional[str]:
        job = self._job()
        if job:
            self.cluster.scontrol("requeue", job)
        return job

    def warn(self) -> Optional[str]:
        job = self._job(only_arrays=True)
        if job:
            self.cluster.scancel("--signal=USR2", job)
        return job

    def time_limit(self) -> Optional[str]:
        job = self._job(only_arrays=True)
        if job:
            self.cluster.scontrol("update", f"JobId={job}", "TimeLimit=1")
        return job

    def preempt(self) -> Optional[str]:
        preemptible = [row for row in self.cluster.squeue() if row["partition"].startswith("low")]
        return self.cluster.preempt(seconds=0.3, nodes=2) if preemptible else None

    def stall(self) -> Optional[int]:
        """A worker that hangs for longer than a few heartbeats."""
        found = self.pids("pipelines.core.worker")
        if not found:
            return None
        pid = self.die.choice(found)
        send(pid, signal.SIGSTOP)
        threading.Timer(4.0, send, (pid, signal.SIGCONT)).start()
        return pid

    # -- the cluster

    def _node(self, split_brain: bool) -> str:
        name = self.die.choice(self.cluster.settings.names())
        self.cluster.node_kill(name, split_brain=split_brain)
        time.sleep(0.3)
        self.cluster.node_up(name)
        return name

    def node_death(self) -> str:
        return self._node(split_brain=False)

    def split_brain(self) -> str:
        return self._node(split_brain=True)

    def controller(self) -> str:
        number = self.die.choice([signal.SIGTERM, signal.SIGKILL])
        self.cluster.controller_kill(number)
        time.sleep(self.die.uniform(0, 1.5))
        self.cluster.controller_up()
        return number.name

    def accounting(self) -> Optional[str]:
        daemons = self.cluster.processes
        if "slurmdbd" not in daemons.pids:
            return None
        daemons.kill("slurmdbd", signal.SIGKILL)
        time.sleep(0.5)
        self.cluster.accounting_up()
        return "slurmdbd"

    # -- files

    def full_disk(self) -> Optional[int]:
        """The disk of the home fills up for a second and a half."""
        if not os.path.ismount(self.home.parent):
            return None
        ballast = self.home.parent / "ballast"
        free = os.statvfs(self.home.parent)
        size = free.f_bavail * free.f_frsize
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(4096, size - self.die.choice([0, _SPARE])))
        time.sleep(1.5)
        ballast.unlink()
        return size

    def vanish(self) -> Optional[str]:
        path = self.die.choice(self.recordings)
        hidden = path.parent.parent.with_name("hidden") / path.name
        hidden.parent.mkdir(exist_ok=True)
        if not path.exists():
            return None
        path.rename(hidden)
        threading.Timer(1.5, hidden.rename, (path,)).start()
        return path.name

    def unreadable(self) -> Optional[str]:
        """A recording becomes a folder for a moment: opening it fails for root, too, for whom no mode bits do."""
        path = self.die.choice(self.recordings)
        hidden = path.parent.parent.with_name("hidden") / f"u-{path.name}"
        hidden.parent.mkdir(exist_ok=True)
        if not path.is_file():
            return None
        path.rename(hidden)
        path.mkdir()

        def back() -> None:
            path.rmdir()
            hidden.rename(path)

        threading.Timer(1.5, back).start()
        return path.name

    def clock(self) -> int:
        """Files of the runs look as if the clock of their node had jumped by hours, to either side."""
        moved = 0
        for path in self.home.glob("output/runs/*/*/launch-*/*"):
            if self.die.random() < 0.3:
                moment = time.time() + self.die.uniform(-3, 3) * 3600
                try:
                    os.utime(path, (moment, moment))
                except OSError:
                    continue
                moved += 1
        return moved

    # -- people

    def two_launchers(self) -> int:
        self.started += [self.command(), self.command()]
        return 2

    # -- the pace

    def slow(self, share: float) -> None:
        """From now on, let workers work only about this share of the time, so that faults find them at it."""
        self._slowed = threading.Thread(target=self._slowly, args=(share,), daemon=True)
        self._slowed.start()

    def _slowly(self, share: float) -> None:
        while not self._ended.is_set():
            found = self.pids("pipelines.core.worker")
            for number, seconds in ((signal.SIGSTOP, 0.1 * (1 / share - 1)), (signal.SIGCONT, 0.1)):
                for pid in found:
                    send(pid, number)
                self._ended.wait(seconds)

    def calm(self) -> None:
        """End of the storm: nothing is slowed or hidden any more, every node is up, and held jobs are let go."""
        self._ended.set()
        if self._slowed:
            self._slowed.join()
        time.sleep(4.5)  # the timers above
        for pid in self.pids("pipelines.core.worker"):
            send(pid, signal.SIGCONT)
        for process in self.started:
            process.wait(timeout=180)
        if not self.cluster.processes.running("slurmctld"):
            self.cluster.controller_up()
        self.cluster.nodes_up()
        for row in self.cluster.squeue():
            if row["reason"] in ("launch failed requeued held", "JobHeldAdmin", "JobHeldUser"):
                self.cluster.release(row["id"])
