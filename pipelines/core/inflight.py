"""The breadcrumb: which items a worker process has in flight, so that its death can be laid at the right door.

One small file an attempt, one fixed slot a thread, overwritten in place with one system call when a batch starts and
when it ends. The bytes are in the page cache the moment they are written, and so outlive the process, whatever kills
it.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Iterator, NamedTuple, Sequence

from pipelines.core import paths, store

_SLOT = 8192


class Crumbs(NamedTuple):
    """What was in flight when a process died: item indexes, and whether they were being tried alone."""

    indexes: list[int]
    alone: bool
    path: Path


class Breadcrumb:
    """Notes the items in flight in each of `slots` threads."""

    def __init__(self, state: Path, task: int, slots: int) -> None:
        self._path = state / f"{paths.task_name(task)}.{store.ATTEMPT}.inflight"
        self._lock = threading.Lock()
        with store.teaching(self._path):
            state.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
            os.pwrite(self._file, b"\n" * (_SLOT * slots), 0)

    def enter(self, slot: int, indexes: Sequence[int], alone: bool) -> None:
        """The thread of `slot` starts on these items."""
        text = ("alone " if alone else "") + " ".join(map(str, indexes))
        self._write(text.encode()[: _SLOT - 1].ljust(_SLOT, b"\n"), slot)

    def leave(self, slot: int) -> None:
        """The thread of `slot` has its results."""
        self._write(b"\n", slot)

    def _write(self, data: bytes, slot: int) -> None:
        # A batch past its grace time may outlive the crumb; the closed file's number may be another file's by then.
        # A file system that copies on write may be full even for that; publishing results will tell.
        with self._lock, suppress(OSError):
            if self._file >= 0:
                os.pwrite(self._file, data, slot * _SLOT)

    def close(self) -> None:
        """Nothing is in flight any more."""
        with self._lock:
            os.close(self._file)
            self._file = -1
        with suppress(OSError):
            self._path.unlink()


def tasks(state: Path) -> list[int]:
    """The tasks whose attempts left breadcrumbs or journals in a launch's state folder."""
    found = chain(state.glob("task_*.inflight"), state.glob("task_*.journal"))
    return sorted({int(path.name[len("task_") :].split(".")[0]) for path in found})


def left_behind(state: Path, task: int) -> Iterator[Crumbs]:
    """The breadcrumbs of dead attempts at a task. Hold the task's lock; unlink each once it is dealt with."""
    for path in sorted(state.glob(f"{paths.task_name(task)}.*.inflight")):
        yield _read(path)


def noted(state: Path, task: int, pid: int) -> bytes:
    """What a living process on this machine has noted of its items in flight, slot by slot; empty: none."""
    its = f"{paths.task_name(task)}.{store.ATTEMPT.rsplit('-', 2)[0]}-{pid}-*.inflight"
    return b"\n".join(_slots(b"".join(path.read_bytes() for path in state.glob(its)))).strip()


def _slots(data: bytes) -> list[bytes]:
    """What each slot says; behind its first line is what is left of an earlier batch."""
    return [data[start : start + _SLOT].split(b"\n", 1)[0] for start in range(0, len(data), _SLOT)]


def _read(path: Path) -> Crumbs:
    indexes: list[int] = []
    alone = False
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    for slot in _slots(data):
        words = slot.split()
        alone = alone or words[:1] == [b"alone"]
        # The last number of a slot that was cut off may lack digits; a wrong suspect costs one lonely try, no more.
        indexes += [int(word) for word in words if word.isdigit() and len(word) < 20]
    return Crumbs(indexes, alone, path)
