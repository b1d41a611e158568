"""The scheduler's warning that a job's time is up, and the job's way back into the queue.

A job is warned at its time limit and at preemption, and both may come at any moment: while a manifest is read, while a
set-up is waited for, in the middle of a merge. Everything before and after a task's own work may be broken off there
and done again, as after a kill; the work itself has its supervisor, which publishes first.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Iterator, Optional

from pipelines.core import provenance
from pipelines.core.errors import STOPPED_BY_WARNING

log = logging.getLogger(__name__)

TIME_IS_UP = (signal.SIGUSR1, signal.SIGUSR2)
"""Signals that say so. SIGTERM says it at a preemption, else "stop", as a user's SIGINT does."""
_SCHEDULER = (*TIME_IS_UP, signal.SIGTERM)
_REQUEUED_S = 60.0


class Warned(BaseException):
    """A warning signal came where nothing has to be published first. `number`: the signal."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.number = number


@contextmanager
def heeded(what: str) -> Iterator[None]:
    """Where a warning comes in here, put this process's Slurm job back into the queue, and end the process.

    `what` is said to have been warned. Outside of Slurm, nothing changes.
    """
    if provenance.scheduler_job() is None:
        yield
        return
    before = {number: signal.signal(number, _raise) for number in _SCHEDULER}
    try:
        yield
    except Warned as warned:
        put_back(warned.number, f"{what} was warned by {warned.number.name} and is back in the queue.")
        raise SystemExit(STOPPED_BY_WARNING) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(number: int, _: Optional[FrameType]) -> None:
    raise Warned(signal.Signals(number))


def put_back(number: signal.Signals, done: str) -> None:
    """Requeue this process's job if the signal means that its time is up; `done` is logged where that was done."""
    came: set[int] = set()
    # Slurm may warn twice, and it ends what has been requeued, perhaps before it has answered.
    before = {other: signal.signal(other, lambda again, _: came.add(again)) for other in _SCHEDULER}
    try:
        if (number in TIME_IS_UP or (number == signal.SIGTERM and _preempted())) and _requeue():
            log.info("%s", done)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            if signal.SIGTERM in came:
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(_REQUEUED_S)  # leaving by itself would end the job before it is requeued
    finally:
        for other, handler in before.items():
            signal.signal(other, handler)


def _requeue() -> bool:
    """Ask Slurm to queue this job again: `<array>_<task>`, never the array's parent."""
    job = provenance.scheduler_job()
    if job is None:
        return False
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode == 0:
            return True
        log.warning(
            "Slurm did not requeue job %s: %s. The sweep, or the same command again, does what is left.",
            job,
            done.stderr.strip(),
        )
    return False


def _preempted() -> bool:
    """Whether Slurm wants this job's node for another: a grace time begins with SIGTERM, as a cancellation does.

    Until the grace time is over, a preempted job counts as running; a cancelled one does not.
    """
    job = provenance.scheduler_job()
    if job is None:
        return False
    with suppress(OSError, subprocess.TimeoutExpired):
        command = ["scontrol", "--oneliner", "show", "job", job]
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
        return " JobState=RUNNING " in said and re.search(r" PreemptTime=\d", said) is not None
    return False
