"""A launch on this machine: its tasks through submitit's local executor, never more at once than the cores carry.

The pump, a process of its own session, starts the next task when one ends, and does the sweep at the end; so it
outlives the terminal, and Ctrl-C there asks it to stop rather than tearing its tasks down.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional, Sequence

from pipelines.core import clock, heartbeat, logs, paths, provenance
from pipelines.core.errors import SOME_FAILED, VoxarrayError
from pipelines.core.launches import LaunchRecord
from pipelines.core.run import Run
from slurm import cluster, job, request, submit, sweep
from slurm.request import Job, Jobs, Request

log = logging.getLogger(__name__)

_POLL_S = 0.1
_FOREVER_MIN = 60 * 24 * 3650.0
"""submitit ends local jobs after 2 minutes unless told otherwise."""
_ASK_AGAIN_S, _KILL_AFTER_S = 3.0, 60.0


def cores() -> int:
    """The cores this process may use."""
    with suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_mb() -> int:
    """This machine's memory in megabytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def gpus() -> list[int]:
    """The numbers of this machine's GPUs that may be used."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [int(number) for number in visible.split(",") if number.strip().isdigit()]
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return list(range(sum(line.startswith("GPU ") for line in done.stdout.splitlines())))


def slots(wanted: Request) -> int:
    """How many tasks may run at once: what cores, memory and GPUs carry, and --max-parallel allows; at least one."""
    most = max(1, min(cores() // wanted.cpus, memory_mb() // wanted.mem_mb))
    if wanted.gpu_count:
        most = max(1, min(most, len(gpus()) // wanted.gpu_count))
    return min(most, wanted.max_parallel or most)


class Pump:
    """Takes the tasks of one launch through, a bounded number at a time."""

    def __init__(self, run: Run, record: LaunchRecord, wanted: Request) -> None:
        self.run, self.record, self.wanted = run, record, wanted
        self.stopping = False
        self._running: dict[int, Any] = {}
        self._waiting = list(range(submit.tasks_with_items(run, record.number)))
        self._free = list(range(slots(wanted)))
        self._slot: dict[int, int] = {}
        self._folder = submit.folder(run, record.number)
        self._asked = self._asked_first = 0.0

    def stop(self, *_: object) -> None:
        """Signal handler: start nothing more, let tasks publish what they have, end."""
        self.stopping = True

    def __call__(self) -> None:
        """Run until every task has ended, or until stopped."""
        while self._running or (self._waiting and not self.stopping):
            self._collect()
            while self._waiting and self._free and not self.stopping:
                self._start(self._waiting.pop(0))
            if self.stopping:
                self._ask_to_stop()
            time.sleep(_POLL_S)

    def _start(self, task: int) -> None:
        from submitit import LocalExecutor

        slot = self._free.pop()
        executor = LocalExecutor(self._folder, python=shlex.quote(self.wanted.python))
        # An empty list of devices would hide every GPU; a task that asked for none must not find one either.
        count, devices = self.wanted.gpu_count, gpus() if self.wanted.gpu_count else []
        executor.update_parameters(
            timeout_min=_FOREVER_MIN,
            stderr_to_stdout=True,
            gpus_per_node=count,
            visible_gpus=tuple(devices[slot * count : (slot + 1) * count]),
        )
        self._running[task] = executor.submit(
            job.run_task, submit.order(self.run, self.record.number, task, self.wanted)
        )
        self._slot[task] = slot

    def _collect(self) -> None:
        for task in [task for task, running in self._running.items() if running.done()]:
            del self._running[task]
            self._free.append(self._slot.pop(task))

    def _ask_to_stop(self) -> None:
        """SIGTERM to every task, again every few seconds: one that is still starting up does not hear the first."""
        now = time.monotonic()
        self._asked_first = self._asked_first or now
        if now - self._asked < _ASK_AGAIN_S:
            return
        self._asked = now
        number = signal.SIGKILL if now - self._asked_first > _KILL_AFTER_S else signal.SIGTERM
        for running in self._running.values():
            with suppress(OSError):
                os.kill(int(running.job_id), number)


def pump(run: Run, launch: int) -> int:
    """Run a launch, then its sweep, then the launches that the sweep makes. Returns the exit status."""
    jobs = request.read(run, launch)
    wanted = jobs.request if jobs else Request(python=sys.executable)
    while True:
        current = Pump(run, run.record(launch), wanted)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, current.stop)
        note(run, launch, wanted, os.getpid())
        with cluster.outside_of_jobs():
            current()
        if current.stopping:
            request.cancel(run, launch)
        verdict = sweep.settle(run, launch, lambda run, record, wanted: note(run, record.number, wanted, os.getpid()))
        log.info("%s: %s", verdict.outcome, verdict.message)
        if verdict.outcome != sweep.RESUBMITTED or verdict.next is None:
            return verdict.exit_status
        launch = verdict.next


def note(run: Run, launch: int, wanted: Request, pid: int) -> None:
    """Record a process as the launch's pump: at once, so that there is no moment at which the launch has none."""
    jobs = Jobs(
        cluster="local",
        jobs=[Job(str(pid), 0, submit.tasks_with_items(run, launch), request.PUMP)],
        state=request.SUBMITTED,
        request=wanted,
        name=request.job_name(run, launch),
        host=provenance.host(),
        submitted=clock.iso(),
    )
    request.write(run, launch, jobs)


def start(run: Run, record: LaunchRecord, wanted: Request) -> subprocess.Popen[bytes]:
    """Start the pump of a published launch in a session of its own."""
    path = paths.logs(run.id, record.number) / "pump.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(paths.repository()), "VOXARRAY_HOME": str(paths.home())}
    with path.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "slurm.local", run.id, str(record.number)],
            cwd=paths.repository(),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    note(run, record.number, wanted, process.pid)  # a second command, given now, must find it
    return process


def end_leftovers(run: Run) -> int:
    """Stop tasks of this machine that outlived their pump (it was killed): they publish what they have. How many."""
    ended: list[int] = []
    for launch in run.launch_numbers():
        jobs = request.read(run, launch)
        if jobs is None or jobs.cluster != "local" or jobs.host != provenance.host():
            continue
        for task in range(run.record(launch).tasks):
            beat = heartbeat.read(run.state_folder(launch), task)
            if beat is not None and beat.host == jobs.host and _is_worker(beat.pid, run.id):
                with suppress(OSError):
                    os.kill(beat.pid, signal.SIGTERM)
                    ended.append(beat.pid)
    deadline = time.monotonic() + _KILL_AFTER_S
    while any(_is_worker(pid, run.id) for pid in ended) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return len(ended)


def _is_worker(pid: int, run_id: str) -> bool:
    """Whether a process is a worker of that run: process ids come again."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"pipelines.core.worker" in command and run_id.encode() in command


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """`python -m slurm.local RUN LAUNCH`: the pump's process."""
    parser = argparse.ArgumentParser(prog="python -m slurm.local", description=__doc__, allow_abbrev=False)
    parser.add_argument("run")
    parser.add_argument("launch", type=int)
    options = parser.parse_args(arguments)
    logs.to_stream(sys.stderr)
    try:
        return pump(Run.open(options.run), options.launch)
    except VoxarrayError as error:
        log.error("%s", error)  # noqa: TRY400 - the paragraph says it all
        return error.exit_status
    except Exception:
        log.exception("The pump of %s cannot go on.", options.run)
        return SOME_FAILED


if __name__ == "__main__":
    sys.exit(main())
