"""Heartbeats and end receipts: what each task says of itself while it works and when it is through."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Callable, Optional

import msgspec

from pipelines.core import clock, paths, store

INTERVAL_VARIABLE = "VOXARRAY_HEARTBEAT_S"
STALE_AFTER = 3
"""A live task is silent for at most this many intervals."""


def interval_s() -> float:
    """Seconds between heartbeats: $VOXARRAY_HEARTBEAT_S, else 10."""
    return float(os.environ.get(INTERVAL_VARIABLE, "10"))


class Heartbeat(msgspec.Struct, kw_only=True):
    """`task_NNNN.heartbeat.json`. Times in seconds since the epoch; counts are this attempt's unless said otherwise.

    `settled_before`: done or given up before it; `quarantined`: given up by it; `audio_seconds_given_up`: of all items
    that were given up, before it too; `failed`: failed tries, of which an item has two before it is given up; `cpu_s`:
    of the process and the children that it has waited for.

    `state`: starting, waiting (for another attempt's lock), loading (the model), running, retrying (failed and suspect
    items, alone), finished, stopped (by a signal), failed.
    """

    task: int
    launch: int
    attempt: str
    host: str
    pid: int
    state: str
    started: float
    time: float
    dealt: int = 0
    audio_seconds_dealt: float = 0.0
    settled_before: int = 0
    audio_seconds_before: float = 0.0
    done: int = 0
    failed: int = 0
    quarantined: int = 0
    audio_seconds: float = 0.0
    audio_seconds_given_up: float = 0.0
    reason: Optional[str] = None
    signal: Optional[str] = None
    restarts: int = 0
    job: Optional[str] = None
    cpu_s: float = 0.0
    interval_s: float = 10.0

    @property
    def settled(self) -> int:
        """Items of this task that are done, whoever did them, or given up."""
        return self.settled_before + self.done + self.quarantined


class End(msgspec.Struct, kw_only=True, frozen=True):
    """`task_NNNN.end.json`: the task settled every item dealt to it."""

    task: int
    launch: int
    attempt: str
    host: str
    dealt: int
    done: int
    quarantined: int
    audio_seconds: float
    started: float
    ended: float
    cpu_s: float
    job: Optional[str] = None


def heartbeat_path(state: Path, task: int) -> Path:
    """Where a task's heartbeat lies in its launch's state folder."""
    return state / f"{paths.task_name(task)}.heartbeat.json"


def end_path(state: Path, task: int) -> Path:
    """Where a task's end receipt lies."""
    return state / f"{paths.task_name(task)}.end.json"


def read(state: Path, task: int) -> Optional[Heartbeat]:
    """The last heartbeat of a task; None before its first."""
    try:
        return msgspec.json.decode(heartbeat_path(state, task).read_bytes(), type=Heartbeat)
    except (OSError, msgspec.MsgspecError):
        return None


def read_end(state: Path, task: int) -> Optional[End]:
    """The end receipt of a task; None while it has work left."""
    try:
        return msgspec.json.decode(end_path(state, task).read_bytes(), type=End)
    except (OSError, msgspec.MsgspecError):
        return None


def write(state: Path, beat: Heartbeat) -> None:
    """Publish a heartbeat; a full disk or a lost mount must not stop the work for its sake."""
    beat.time = clock.now()
    with suppress(OSError):
        store.replace_quickly(heartbeat_path(state, beat.task), msgspec.json.encode(beat))


class Beating:
    """Writes `beat` every interval from a thread of its own until stopped."""

    def __init__(self, state: Path, beat: Heartbeat, refresh: Callable[[], None]) -> None:
        self._state, self.beat, self._refresh = state, beat, refresh
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._loop, name="heartbeat", daemon=True)

    def __enter__(self) -> Beating:  # noqa: PYI034 - `Self` is not in Python 3.9
        self.now()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.now()

    def now(self) -> None:
        """Write a heartbeat at once."""
        with self._lock:
            self._refresh()
            write(self._state, self.beat)

    def _loop(self) -> None:
        while not self._ended.wait(self.beat.interval_s):
            self.now()
