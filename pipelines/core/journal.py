"""The journal: rows of an attempt that are not yet in a part, so that the death of the process costs no finished item.

Each line carries its own CRC-32, so a torn tail is seen and left. A journal is no result: nobody reads it but the next
attempt at the task, which publishes what is whole in it as a part. It is not synced to disk: a process may die at any
moment without loss, and when a whole node does, what is lost is redone.
"""

from __future__ import annotations

import os
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Iterator, NamedTuple

from pipelines.core import paths, store


class Entry(NamedTuple):
    """One row as a part will hold it, its item's index, its seconds of audio, and whether it is a failure."""

    place: int
    audio_seconds: float
    failed: bool
    row: bytes


class Journal:
    """Appends rows; emptied whenever they have been published."""

    def __init__(self, state: Path, task: int) -> None:
        self._path = state / f"{paths.task_name(task)}.{store.ATTEMPT}.journal"
        with store.teaching(self._path):
            state.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC, 0o666)

    def add(self, entries: list[Entry]) -> None:
        """Append rows with one system call."""
        lines = (b"%d %.6f %d %s" % (index, seconds, failed, row) for index, seconds, failed, row in entries)
        data = b"".join(b"%08x %s\n" % (zlib.crc32(line), line) for line in lines)
        with store.teaching(self._path):
            while data:  # a disk that fills up takes part of it
                data = data[os.write(self._file, data) :]

    def clear(self) -> None:
        """Forget all rows: they are published."""
        os.ftruncate(self._file, 0)

    def close(self) -> None:
        """Remove the journal."""
        os.close(self._file)
        with suppress(OSError):
            self._path.unlink()


def left_behind(state: Path, task: int) -> Iterator[Path]:
    """The journals of dead attempts at a task. Hold the task's lock; unlink each once its rows are published."""
    yield from sorted(state.glob(f"{paths.task_name(task)}.*.journal"))


def attempt(path: Path) -> str:
    """The attempt that wrote a journal."""
    return path.name.split(".", 1)[1][: -len(".journal")]


def read(path: Path) -> list[Entry]:
    """The whole rows of a journal, up to the first that is torn."""
    entries = []
    for line in path.read_bytes().split(b"\n"):
        checksum, _, rest = line.partition(b" ")
        if not rest or checksum != b"%08x" % zlib.crc32(rest):
            break
        index, seconds, failed, row = rest.split(b" ", 3)
        entries.append(Entry(int(index), float(seconds), failed == b"1", row))
    return entries
