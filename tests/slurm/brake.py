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
from types import TracebackType
from typing import Collection, Dict, List, NamedTuple, Optional, Type

from processes import Processes, command_of, send, wait_until

_SLICE_S = 0.02
_AT_WORK = {"running", "retrying"}


class Worker(NamedTuple):
    """A worker process: its id, and the launch and task it works for."""

    pid: int
    launch: int
    task: int


def workers(processes: Processes, run: str) -> List[Worker]:
    """The worker processes of a run that are alive now."""
    found = []
    for pid in processes.all():
        words = command_of(pid)
        if "pipelines.core.worker" in words:
            operands = words[words.index("pipelines.core.worker") + 1 :]
            if operands[:1] == [run]:
                found.append(Worker(pid, int(operands[1]), int(operands[2])))
    return found


class Brake:
    """Holds the workers of one run. Used with `with`: at the end everything goes on."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        self._processes, self._folder = processes, folder
        self._ended = threading.Event()
        self._trickle: Optional[threading.Thread] = None
        self._stopped: List[int] = []
        self.held: Dict[int, Worker] = {}

    def __enter__(self) -> Brake:  # noqa: PYI034 - `Self` is not in Python 3.9
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.release()

    def hold(self, tasks: Collection[int], timeout_s: float = 60) -> None:
        """Stop the worker of each of these tasks once it has published a part but has work left."""

        def all_held() -> bool:
            for worker in workers(self._processes, self._folder.name):
                if worker.task in tasks and self.held.get(worker.task) != worker:
                    self._step(worker)
            return set(tasks) <= set(self.held)

        wait_until(all_held, timeout_s, f"tasks {sorted(tasks)} to be in the middle of their work", 0.005)

    def _step(self, worker: Worker) -> None:
        """Let a worker run until it is at work, then by slices of time until it has published something."""
        if not self._at_work(worker):
            return
        send(worker.pid, signal.SIGSTOP)
        if self._has_parts(worker):
            self.held[worker.task] = worker
            return
        send(worker.pid, signal.SIGCONT)
        time.sleep(_SLICE_S)
        send(worker.pid, signal.SIGSTOP)

    def _at_work(self, worker: Worker) -> bool:
        path = self._folder / f"state/launch-{worker.launch:03d}/task_{worker.task:04d}.heartbeat.json"
        try:
            beat = json.loads(path.read_text())
        except (OSError, ValueError):
            return False
        return beat["pid"] == worker.pid and beat["state"] in _AT_WORK

    def _has_parts(self, worker: Worker) -> bool:
        parts = self._folder / f"parts/launch-{worker.launch:03d}"
        return any(parts.glob(f"task_{worker.task:04d}.*.jsonl"))

    def stop(self, pid: int) -> None:
        """Stop any process until `release`."""
        send(pid, signal.SIGSTOP)
        self._stopped.append(pid)

    def trickle(self, share: float) -> None:
        """From now on, let every worker of the run work only this share of the time, later attempts included."""
        self._trickle = threading.Thread(target=self._slowly, args=(share,), daemon=True)
        self._trickle.start()

    def _slowly(self, share: float) -> None:
        while not self._ended.is_set():
            slow = [worker for worker in workers(self._processes, self._folder.name) if self._at_work(worker)]
            for number, pause in ((signal.SIGCONT, _SLICE_S), (signal.SIGSTOP, _SLICE_S / share)):
                for worker in slow:
                    send(worker.pid, number)
                self._ended.wait(pause)

    def release(self) -> None:
        """Let everything go on."""
        self._ended.set()
        if self._trickle:
            self._trickle.join()
            self._trickle = None
        self._ended.clear()
        self.held.clear()
        still = [worker.pid for worker in workers(self._processes, self._folder.name)]
        for pid in self._stopped + still:
            send(pid, signal.SIGCONT)
        self._stopped = []
