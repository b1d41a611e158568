"""Ends a worker process that hangs: a deadlock in a decoder, or a mount that never answers.

A batch that takes long is no hang, and how long is long differs by a thousand between machines and models. What a
hang has and slow work has not: for many minutes no batch begins or ends, and the worker and all its children use no
processor time. (A loop without end does use it; the time limit ends that.)
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Optional

from pipelines.core import inflight
from pipelines.core.errors import UsageError

log = logging.getLogger(__name__)

PATIENCE_VARIABLE = "VOXARRAY_STALL_S"
PATIENCE_S = 1800.0
"""Seconds without any sign of work before a worker is killed; 0 in the variable: never."""
_LOOKS = 10
_IDLE = 0.01
"""Part of one core: heartbeats and waiting threads stay far below it, work of any kind far above."""
_LAST_WORDS_S = 1.0

TRACE_SIGNAL = signal.SIGQUIT
"""At this, a worker writes to its log where each of its threads stands."""


def patience_s() -> float:
    """Seconds that a worker may look hung: $VOXARRAY_STALL_S, else half an hour; 0: for ever."""
    said = os.environ.get(PATIENCE_VARIABLE, str(PATIENCE_S))
    try:
        return float(said)
    except ValueError:
        raise UsageError(
            f"{PATIENCE_VARIABLE} is {said!r} in this environment: it is a number of seconds, without a unit, as in "
            f"{PATIENCE_VARIABLE}=3600 (0: a worker that hangs is never ended)."
        ) from None


class Watch:
    """Watches one worker of one task, from a thread of its own, until stopped."""

    def __init__(self, worker: subprocess.Popen[bytes], state: Path, task: int, patience: float) -> None:
        self.stalled: Optional[str] = None
        self._worker, self._state, self._task, self._patience = worker, state, task, patience
        self._every = patience / _LOOKS
        self._quiet = 0
        self._noted, self._used = b"", 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="stall", daemon=True)

    def __enter__(self) -> Watch:  # noqa: PYI034 - `Self` is not in Python 3.9
        if self._patience > 0:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _loop(self) -> None:
        # Looks are counted, not seconds: a job that the scheduler suspends is suspended with its supervisor.
        while not self._over.wait(self._every):
            with suppress(OSError):
                self._quiet = self._quiet + 1 if self._is_quiet() else 0
            if self._quiet >= _LOOKS:
                self._end()
                return

    def _is_quiet(self) -> bool:
        """Whether items are in flight, and since the last look neither they changed nor anything was computed."""
        noted, used = inflight.noted(self._state, self._task, self._worker.pid), processor_s(self._worker.pid)
        # without /proc nothing is known of a process, and it is left alone
        quiet = bool(noted) and noted == self._noted and 0 < used < self._used + _IDLE * self._every
        self._noted, self._used = noted, used
        return quiet

    def _end(self) -> None:
        spoken = f"{self._patience / 60:g} min" if self._patience >= 60 else f"{self._patience:g} s"
        self.stalled = f"it hung: no batch began or ended and no processor time was used for {spoken}"
        log.warning("The worker of task %d hangs and is killed; its log shows where each thread stood.", self._task)
        with suppress(OSError):
            self._worker.send_signal(TRACE_SIGNAL)
            time.sleep(_LAST_WORDS_S)
            self._worker.kill()


def processor_s(root: int) -> float:
    """Processor seconds of a process and all its descendants, ended ones that were waited for included."""
    parents, used = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            pid = int(path.parent.name)
            parents[pid] = int(fields[1])
            used[pid] = sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime: proc(5)
    family = {root}
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        family |= more
        grown = bool(more)
    return sum(used.get(pid, 0) for pid in family) / os.sysconf("SC_CLK_TCK")
