"""The supervisor of one task: starts the worker process, outlives its death, and lays that death at the right door.

When the worker dies with items in flight, they become suspects and are tried alone. An item that kills its worker
while it is alone gets a strike; two strikes quarantine it. When the whole task dies, the next attempt reads its
breadcrumb. On a warning signal (time limit, preemption) the worker publishes its part, and the task is put back into
the queue.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO, Iterable, Optional

from pipelines.core import clock, heartbeat, inflight, lock, paths, provenance, requeue, stall, store, suspects
from pipelines.core.errors import DONE, NOT_FIT, SOME_FAILED, STOPPED_BY_WARNING, USAGE, LockedError, Warned
from pipelines.core.pipeline import Resources
from pipelines.core.run import Run

log = logging.getLogger(__name__)

_WARNINGS = (*requeue.TIME_IS_UP, signal.SIGTERM, signal.SIGINT)
_LOADING_DEATHS = 2
_SETTLED = (DONE, SOME_FAILED, USAGE, NOT_FIT, STOPPED_BY_WARNING)


class Supervisor:
    """Runs one task of one launch to its end."""

    def __init__(
        self, run: Run, launch: int, task: int, resources: Resources, log_file: Optional[Path] = None
    ) -> None:
        self.run, self.launch, self.task, self.resources = run, launch, task, resources
        self.state = run.state_folder(launch)
        self.log_file = log_file or paths.task_log(run.id, launch, task)
        self.warned: Optional[signal.Signals] = None
        self._begun = False
        self._worker: Optional[subprocess.Popen[bytes]] = None
        self._last_words = ""
        # trainings wait for each other, while one of them packs the data that all read
        self._patience = 0.0 if run.pipeline.resumes else stall.patience_s()
        self._stalled: Optional[str] = None

    def __call__(self) -> int:
        """Run the task. Returns its exit status (see `pipelines.core.errors`)."""
        before = {number: signal.signal(number, self._warn) for number in _WARNINGS}
        try:
            return self._locked()
        except LockedError as error:
            log.error("%s", error)  # noqa: TRY400 - the paragraph says it all
            return SOME_FAILED
        except Warned:
            return STOPPED_BY_WARNING
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _warn(self, number: int, _: Optional[FrameType]) -> None:
        self.warned = signal.Signals(number)
        if self._worker is not None and self._worker.poll() is None:
            with suppress(OSError):
                self._worker.send_signal(signal.SIGTERM if number != signal.SIGINT else signal.SIGINT)
        elif not self._begun:  # else whoever makes the process, or has waited for it, looks
            raise Warned(number)

    def _locked(self) -> int:
        name = paths.task_name(self.task)
        wait_s = float(os.environ.get("VOXARRAY_LOCK_WAIT_S", "120"))
        with lock.held(self.state / f"{name}.lock", wait_s, f"Task {self.task} of {self.run.id}"):
            end = heartbeat.read_end(self.state, self.task)
            if end is not None:
                log.info("Task %d has settled all its %d items already.", self.task, end.dealt)
                return DONE
            return self._supervise()

    def _supervise(self) -> int:
        alone = suspects.indexes(suspects.question(self.run, self.launch, self.task, seen=None))
        idle_deaths = 0
        while True:
            status = self._work(alone)
            if self._ended_itself(status):
                if status not in (DONE, STOPPED_BY_WARNING):
                    log.error("Task %d stopped. %s", self.task, self._last_words or f"The log is {self.log_file}.")
                return status
            cause = self._stalled or _cause(status)
            unwarned = self.warned is None
            found = suspects.question(self.run, self.launch, self.task, seen=cause, strike=unwarned)
            alone = suspects.indexes(found)
            if self.warned is not None:
                return STOPPED_BY_WARNING
            idle_deaths = 0 if alone else idle_deaths + 1
            if idle_deaths == _LOADING_DEATHS:
                log.error(
                    "The worker of task %d died twice with no item in flight (%s): most likely while the model was "
                    "being loaded. Nothing is lost. Give the task more memory (--mem), or check the environment "
                    "with `./voxarray env check %s`; the log is %s.",
                    self.task,
                    cause,
                    self.run.plan.environment.name,
                    self.log_file,
                )
                return SOME_FAILED
            log.warning(
                "The worker of task %d died (%s); %s.",
                self.task,
                cause,
                f"trying alone the {len(alone)} items it had in flight" if alone else "starting it again",
            )

    def _ended_itself(self, status: int) -> bool:
        """Whether the worker came to its end; a library that calls `exit` leaves a breadcrumb, or no end receipt."""
        its = f".{store.ATTEMPT.rsplit('-', 2)[0]}-{self._worker.pid if self._worker else 0}-"
        crumbs = [crumb for crumb in inflight.left_behind(self.state, self.task) if its in crumb.path.name]
        in_flight = any(crumb.indexes for crumb in crumbs)
        finished = status != DONE or heartbeat.read_end(self.state, self.task) is not None
        return status in _SETTLED and finished and not in_flight

    def _work(self, alone: Iterable[int]) -> int:
        """One worker process from start to end. Returns its exit status; negative: the signal that killed it."""
        command = [
            sys.executable,
            "-m",
            "pipelines.core.worker",
            self.run.id,
            str(self.launch),
            str(self.task),
            "--cpus",
            str(self.resources.cpus),
            "--gpus",
            str(self.resources.gpus),
            "--alone",
            ",".join(map(str, sorted(alone))),
        ]
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [str(paths.repository()), environment.get("PYTHONPATH")])
        )
        self._begun = True
        ear, mouth = os.pipe()
        command += ["--supervisor", str(os.getpid()), "--last-words", str(mouth)]
        with _append(self.log_file) as output, open(ear, "rb", 0) as words:  # noqa: PTH123 - a descriptor
            os.set_blocking(ear, False)  # processes that the worker leaves behind may hold the other end
            try:
                self._worker = subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=[mouth],
                )
            finally:
                os.close(mouth)
            if self.warned is not None:  # the signal came while the process was being made
                self._worker.terminate()
            with stall.Watch(self._worker, self.state, self.task, self._patience) as watch:
                status = self._worker.wait()
            self._stalled = watch.stalled
            self._last_words = (words.read(1 << 16) or b"").decode("utf-8", "replace")
            return status


def _append(path: Path) -> IO[bytes]:
    """The task's log, appended to; the null device where it cannot be written, for the work must go on."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")
    except OSError as error:
        log.warning("The log %s cannot be written (%s).", path, error.strerror)
        return open(os.devnull, "ab")  # noqa: PTH123 - closed by the caller


def _cause(status: int) -> str:
    """A process's death in plain words."""
    if status >= 0:
        return f"exit status {status}"
    name = signal.Signals(-status).name if -status in signal.valid_signals() else str(-status)
    words = {
        "SIGKILL": "killed, most often for want of memory",
        "SIGSEGV": "segmentation fault",
        "SIGABRT": "aborted by a library",
        "SIGBUS": "bus error: a file or memory went away",
        "SIGFPE": "arithmetic fault",
        "SIGILL": "this processor lacks an instruction that a library uses",
    }
    return f"{name}: {words[name]}" if name in words else name


def run_task(run_id: str, launch: int, task: int, resources: Optional[Resources] = None, is_last: bool = True) -> int:
    """Run one task of a launch, as a job does; on the scheduler's warning, requeue it. Returns the exit status.

    `is_last`: nothing follows in this job; else a warning that came as the task was through is raised.
    """
    run = Run.open(run_id)
    supervisor = Supervisor(run, launch, task, resources or Resources())
    log.info(
        "Task %d of %s (launch %d, %d items) on %s; log: %s",
        task,
        run.id,
        launch,
        run.deal(launch).shares[task].items,
        provenance.host(),
        supervisor.log_file,
    )
    began = clock.now()
    status = supervisor()
    warned = supervisor.warned
    if warned is not None and status == STOPPED_BY_WARNING and requeue.means_time_is_up(warned):
        done = f"Task {task} was warned by {warned.name} and is back in the queue; what it did is published."
        requeue.put_back(done)
    if warned is not None and warned != signal.SIGINT and status == DONE and not is_last and requeue.is_heeding():
        raise Warned(warned)
    log.info("Task %d ended with status %d after %s.", task, status, clock.spoken(clock.now() - began))
    return status
