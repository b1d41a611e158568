"""Stop the workers of a run in the middle of their work, so that a fault hits where the test wants it to.

VAD of a short file takes milliseconds; without this, tasks would be through before anything can happen to them. They
are stopped with SIGSTOP, which no program can notice: the production code needs no switch for tests.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path
from typing import Collection, Dict, List, Mapping, NamedTuple, Optional

from processes import ClusterError, Processes, command_of, cpu_seconds, send, wait_until

_SLICE_S = 0.02
_TURNS = 25
"""Slices that a worker which gets no processor waits for one."""
_AT_WORK = {"running", "retrying"}


class Worker(NamedTuple):
    """A worker process: its id, and the run, launch and task it works for."""

    pid: int
    run: str
    launch: int
    task: int


def workers(processes: Processes, name: str) -> List[Worker]:
    """The living worker processes of the run whose id is `name` and a digest."""
    found = []
    for pid in processes.all():
        words = command_of(pid)
        if "pipelines.core.worker" in words:
            run, launch, task = words[words.index("pipelines.core.worker") + 1 :][:3]
            if run.rpartition("-")[0] == name:
                found.append(Worker(pid, run, int(launch), int(task)))
    return found


class Brake:
    """Holds the workers of one run, which need not exist yet. `runs`: the folder of all run folders."""

    def __init__(self, processes: Processes, runs: Path, name: str) -> None:
        self._processes, self._runs, self._name = processes, runs, name
        self._ended = threading.Event()
        self._trickle: Optional[threading.Thread] = None
        self.held: Dict[int, Worker] = {}

    def step(self, tasks: Collection[int]) -> bool:
        """One round of `hold`; whether all these tasks are held."""
        for worker in workers(self._processes, self._name):
            if worker.task in tasks and self.held.get(worker.task) != worker and self._at_work(worker):
                self._slice(worker)
        for task in set(tasks) - set(self.held):
            if list(self._runs.glob(f"{self._name}-????????/state/launch-*/task_{task:04d}.end.json")):
                raise ClusterError(f"task {task} of {self._name} was through before it could be held")
        return set(tasks) <= set(self.held)

    def _slice(self, worker: Worker) -> None:
        """Let a worker that is at work run by slices of time until it has published something."""
        send(worker.pid, signal.SIGSTOP)
        parts = self._runs / worker.run / f"parts/launch-{worker.launch:03d}"
        if any(parts.glob(f"task_{worker.task:04d}.*.jsonl")):
            self.held[worker.task] = worker
            return
        send(worker.pid, signal.SIGCONT)
        time.sleep(_SLICE_S)
        send(worker.pid, signal.SIGSTOP)

    def _at_work(self, worker: Worker) -> bool:
        state = self._runs / worker.run / f"state/launch-{worker.launch:03d}"
        try:
            beat = json.loads((state / f"task_{worker.task:04d}.heartbeat.json").read_text())
        except (OSError, ValueError):
            return False
        return beat["pid"] == worker.pid and beat["state"] in _AT_WORK

    def trickle(self, share: float) -> None:
        """From now on, let every worker of the run work only about this share of the time, later attempts included."""
        self._trickle = threading.Thread(target=self._slowly, args=(share,), daemon=True)
        self._trickle.start()

    def _slowly(self, share: float) -> None:
        while not self._ended.is_set():
            slow = [worker for worker in workers(self._processes, self._name) if self._at_work(worker)]
            through = {worker: cpu_seconds(worker.pid) + _SLICE_S for worker in slow}
            for worker in slow:
                send(worker.pid, signal.SIGCONT)
            for turn in range(_TURNS):  # on a busy machine, a moment is not yet any work
                self._ended.wait(_SLICE_S)
                for worker in list(through):
                    if turn == _TURNS - 1 or cpu_seconds(worker.pid) >= through[worker]:
                        send(worker.pid, signal.SIGSTOP)
                        del through[worker]
                if not through:
                    break
            self._ended.wait(_SLICE_S / share)

    def release(self) -> None:
        """Let everything go on."""
        self._ended.set()
        if self._trickle:
            self._trickle.join()
            self._trickle = None
        self._ended.clear()
        self.held.clear()
        for worker in workers(self._processes, self._name):
            send(worker.pid, signal.SIGCONT)


def hold(wanted: Mapping[Brake, Collection[int]], timeout_s: float = 60) -> None:
    """Stop the worker of each of these tasks once it has published a part but has work left."""

    def all_held() -> bool:
        turns = [brake.step(tasks) for brake, tasks in wanted.items()]
        return all(turns)

    wait_until(all_held, timeout_s, "the tasks to be in the middle of their work", 0.005)
