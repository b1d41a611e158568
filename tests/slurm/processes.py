"""The processes of one test cluster, by name, through a keeper that outlives neither the tests nor its processes."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Optional, Sequence

import keeper


class ClusterError(Exception):
    """The cluster did not do what the test needs; the message says what was awaited and what was seen."""


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str, poll_s: float = 0.05) -> None:
    """Poll `condition` until it holds; ClusterError naming `what` after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(f"waited {timeout_s:g} s in vain for {what}")
        time.sleep(poll_s)


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def environment_of(pid: int) -> Dict[str, str]:
    """Environment with which the process was started; empty when it has gone."""
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (entry.partition(b"=") for entry in raw.split(b"\0") if entry)
    return {name.decode(errors="replace"): value.decode(errors="replace") for name, _, value in pairs}


def command_of(pid: int) -> List[str]:
    """The process's command line; empty when it has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def cpu_seconds(pid: int) -> float:
    """Processor time that the process has used, in steps of 10 ms; infinite when it has gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return math.inf
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Processes:
    """Named daemons and everything that descends from them."""

    def __init__(self, root: Path) -> None:
        self.logs = root / "log"
        self.pids: Dict[str, int] = {}
        self._keeper = subprocess.Popen(
            [sys.executable, keeper.__file__, str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> int:
        """Start a daemon in the foreground under the keeper, its output in `<logs>/<name>.out`."""
        if not self._keeper.stdin or not self._keeper.stdout:
            raise ClusterError("the keeper has no pipes")
        request = {"argv": list(argv), "log": str(self.logs / f"{name}.out"), "env": dict(env)}
        self._keeper.stdin.write(json.dumps(request) + "\n")
        self._keeper.stdin.flush()
        reply = self._keeper.stdout.readline()
        if not reply:
            raise ClusterError(f"the keeper ended while it started {name}: {' '.join(argv)}")
        self.pids[name] = int(reply)
        return self.pids[name]

    def running(self, name: str) -> bool:
        """Whether the daemon was started and still runs."""
        return name in self.pids and alive(self.pids[name])

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to a daemon and wait until it has ended."""
        pid = self.pids[name]
        send(pid, number)
        wait_until(lambda: not alive(pid), 60, f"{name} to end after signal {number}")

    def all(self) -> List[int]:
        """Every process of the cluster, whoever started it."""
        return keeper.descendants(self._keeper.pid)

    def jobs(self, node: Optional[str] = None) -> List[int]:
        """Processes of jobs and the step daemons above them, of one node or of all."""
        inside = [pid for pid in self.all() if _of_job(pid, node)]
        steps = [pid for pid in self.all() if _is_step_daemon(pid, self.logs, node)]
        below = [child for pid in steps for child in keeper.descendants(pid)]
        return list(dict.fromkeys(steps + below + inside))

    def end(self) -> List[int]:
        """End everything; returns the processes that could not be ended (normally none)."""
        if self._keeper.poll() is None:
            if self._keeper.stdin:
                self._keeper.stdin.close()  # the request to end
            try:
                self._keeper.wait(180)
            except subprocess.TimeoutExpired:
                keeper.end_all(self._keeper.pid)
                self._keeper.kill()
                self._keeper.wait()
        if self._keeper.stdout:
            self._keeper.stdout.close()
        mark = str(self.logs)
        left = [pid for pid in self.pids.values() if alive(pid) and environment_of(pid).get("SLURM_TEST") == mark]
        self.pids.clear()
        return left


def send(pid: int, number: int) -> None:
    """Send a signal; a process that has gone is no error."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _of_job(pid: int, node: Optional[str]) -> bool:
    environment = environment_of(pid)
    return "SLURM_JOB_ID" in environment and node in (None, environment.get("SLURMD_NODENAME"))


def _is_step_daemon(pid: int, logs: Path, node: Optional[str]) -> bool:
    """Step daemons carry no mark of their node but the node's log file, which they keep open."""
    try:
        if not Path(f"/proc/{pid}/comm").read_text().startswith("slurmstepd"):
            return False
        targets = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return False
    return node is None or str(logs / f"slurmd-{node}.log") in targets
