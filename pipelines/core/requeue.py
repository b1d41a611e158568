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
from contextlib import contextmanager
from types import FrameType
from typing import Iterator, Optional

from pipelines.core import provenance
from pipelines.core.errors import STOPPED_BY_WARNING, Warned

log = logging.getLogger(__name__)

TIME_IS_UP = (signal.SIGUSR1, signal.SIGUSR2)
"""Signals that say so. SIGTERM says it at a preemption, else "stop", as a user's SIGINT does."""
_SCHEDULER = (*TIME_IS_UP, signal.SIGTERM)
_REQUEUED_S = 60.0
LIVES = 3
"""A job that has nothing to show for its time is not queued again once that has been up so many times."""


class _Ear:
    """Hears the scheduler's signals. The first is raised, at once or when what must not be broken off is through."""

    def __init__(self) -> None:
        self.came: list[signal.Signals] = []
        self.deferring = 0

    def __call__(self, number: int, _: Optional[FrameType]) -> None:
        self.came.append(signal.Signals(number))
        if len(self.came) == 1 and not self.deferring:
            raise Warned(number)


_ear: Optional[_Ear] = None
"""Of this process, while it heeds warnings."""


@contextmanager
def heeded(what: str, lives: Optional[int] = None) -> Iterator[None]:
    """Where a warning comes in here, put this process's Slurm job back into the queue, and end the process.

    `what` is said to have been warned. `lives`: how often its time may be up before it is left at that; None: always
    once more, as each life gets further. Outside of Slurm, nothing changes.
    """
    global _ear  # noqa: PLW0603 - signal handlers are the process's own, too
    if provenance.scheduler_job() is None:
        _unblock()
        yield
        return
    ear = _Ear()
    before = {}
    try:
        _ear = ear
        for number in _SCHEDULER:
            before[number] = signal.signal(number, ear)
        _unblock()
        yield
        if ear.came:  # raised in a finaliser, which swallows what is raised
            raise Warned(ear.came[0])
    except Warned as warned:
        _end(what, signal.Signals(warned.number), lives)
        raise SystemExit(STOPPED_BY_WARNING) from None
    finally:
        _ear = None
        for number, handler in before.items():
            signal.signal(number, handler)


def _unblock() -> None:
    """Take the signals that were blocked while Python was starting (slurm/common.sh)."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SCHEDULER)


@contextmanager
def deferred() -> Iterator[None]:
    """What must not be broken off in the middle, if it is short: a warning that comes in here is raised at its end."""
    ear = _ear
    if ear is None:
        yield
        return
    ear.deferring += 1
    try:
        yield
    finally:
        ear.deferring -= 1
    if ear.came and not ear.deferring:
        raise Warned(ear.came[0])


def is_heeding() -> bool:
    """Whether a warning that is raised now is heeded."""
    return _ear is not None


def means_time_is_up(number: signal.Signals) -> bool:
    """Whether a signal means that, and not "stop"."""
    return number in TIME_IS_UP or (number == signal.SIGTERM and is_preempted())


def _end(what: str, number: signal.Signals, lives: Optional[int]) -> None:
    restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    if not means_time_is_up(number):
        log.warning("%s was stopped by SIGTERM. What was published is kept; the same command goes on.", what)
    elif lives is not None and restarts + 1 >= lives and number in TIME_IS_UP and not is_preempted():
        log.error(
            "%s was warned by %s in its life number %d, and begins anew in each: most likely it needs longer "
            "than its time limit. Give it more (--time; for a sweep and what follows it, `time` under [sweep] in a "
            "profile), and give the same command again.",
            what,
            number.name,
            restarts + 1,
        )
    else:
        put_back(f"{what} was warned by {number.name} and is back in the queue.")


def put_back(done: str) -> None:
    """Requeue this process's job, whose time is up; `done` is logged where that was done."""
    came: set[int] = set()
    # Slurm may warn twice, and it ends what has been requeued, perhaps before it has answered.
    before = {number: signal.signal(number, lambda again, _: came.add(again)) for number in _SCHEDULER}
    try:
        if _requeue():
            log.info("%s", done)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            if signal.SIGTERM in came:
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(_REQUEUED_S)  # leaving by itself would end the job before it is requeued
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _requeue() -> bool:
    """Ask Slurm to queue this job again: `<array>_<task>`, never the array's parent."""
    job = provenance.scheduler_job()
    if job is None:
        return False
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    else:
        if done.returncode == 0:
            return True
        said = done.stderr.strip()
    log.warning(
        "Slurm did not requeue job %s: %s. The sweep, or the same command again, does what is left.", job, said
    )
    return False


def is_preempted() -> bool:
    """Whether Slurm wants this job's node for another: a grace time begins with SIGTERM, as a cancellation does.

    Until the grace time is over, a preempted job counts as running; a cancelled one does not.
    """
    job = provenance.scheduler_job()
    if job is None:
        return False
    command = ["scontrol", "--oneliner", "show", "job", job]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    return " JobState=RUNNING " in said and re.search(r" PreemptTime=\d", said) is not None
