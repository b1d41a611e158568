"""Parts: immutable, atomically published files of results.

A part is JSONL. Its first line is the header; every other line is a row: what became of one item. Rows are in the
order of the manifest. A part exists under its final name or not at all, so a torn one is never read; the header's
count and CRC-32 find damage that came later.
"""

from __future__ import annotations

import math
import re
import zlib
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional

import msgspec

from pipelines.core import clock, paths, provenance, store
from pipelines.core.errors import StorageError, signature
from pipelines.core.journal import Entry, Journal
from pipelines.core.manifest import Item

DONE = "done"
FAILED = "failed"

EXCEPTION = "exception"
"""The pipeline raised an error for the item."""
DIED = "died"
"""The worker process died while it had only this item in flight."""
LOST = "lost"
"""The whole task vanished while it had only this item in flight: it may be the item's fault, or a node's."""


class Error(msgspec.Struct, frozen=True):
    """Why an attempt at an item failed; `kind` is EXCEPTION, DIED or LOST."""

    type: str
    message: str
    signature: str
    kind: str = EXCEPTION


class Row(msgspec.Struct, omit_defaults=True, gc=False):
    """What one attempt made of one item. `result` holds the added fields as a JSON object."""

    index: int
    key: str
    status: str
    result: msgspec.Raw = msgspec.Raw(b"")
    error: Optional[Error] = None


class Header(msgspec.Struct, frozen=True):
    """First line of a part. `first` and `last` are item indexes; times are seconds since the epoch."""

    run: str
    launch: int
    task: int
    sequence: int
    attempt: str
    host: str
    rows: int
    failed: int
    first: int
    last: int
    audio_seconds: float
    crc32: int
    started: float
    published: float


class _HeaderLine(msgspec.Struct):
    part: Header


_encode = msgspec.json.Encoder().encode
_decode_row = msgspec.json.Decoder(Row).decode
_decode_header = msgspec.json.Decoder(_HeaderLine).decode
_NAME = re.compile(r"task_(\d{4,})\.(\d{3,})\.jsonl")


def error_of(exception: BaseException, kind: str = EXCEPTION) -> Error:
    """The ledger's form of an exception."""
    name = type(exception).__name__
    message = str(exception).encode("utf-8", "backslashreplace").decode().strip() or name
    return Error(name, message[:2000], signature(name, message), kind)


class PartWriter:
    """Collects rows of one task and publishes them as parts. Not safe to share between threads.

    With a journal, rows survive the death of the process from `keep` on, and that of the node from `publish` on.
    """

    def __init__(self, folder: Path, run: str, launch: int, task: int, attempt: Optional[str] = None) -> None:
        self._folder = folder
        self._run, self._launch, self._task, self._attempt = run, launch, task, attempt or store.ATTEMPT
        self.journal: Optional[Journal] = None
        self._entries: list[Entry] = []
        self._kept = 0
        self._bytes = 0
        self._started = clock.now()

    def done(self, item: Item, result: Mapping[str, Any], audio_seconds: float) -> None:
        """Add the result of an item. Raises TypeError or ValueError where it is no JSON object."""
        if not isinstance(result, Mapping):
            raise TypeError(f"the pipeline returned {type(result).__name__} for the item instead of fields")
        row = _encode(Row(item.index, item.key, DONE, msgspec.Raw(_encode(result))))
        self.add(Entry(item.index, audio_seconds, False, row))

    def failed(self, item: Item, error: Error) -> None:
        """Add a strike against an item."""
        self.add(Entry(item.index, 0.0, True, _encode(Row(item.index, item.key, FAILED, error=error))))

    def add(self, entry: Entry) -> None:
        """Add a row."""
        self._entries.append(entry)
        self._bytes += len(entry.row)

    def keep(self) -> None:
        """Write the rows added since the last call into the journal."""
        if self.journal is not None and self._kept < len(self._entries):
            self.journal.add(self._entries[self._kept :])
        self._kept = len(self._entries)

    @property
    def rows(self) -> int:
        """Rows not yet published."""
        return len(self._entries)

    @property
    def size(self) -> int:
        """Their size in bytes."""
        return self._bytes

    @property
    def age_s(self) -> float:
        """Seconds since the last publication."""
        return clock.now() - self._started

    def publish(self) -> Optional[Path]:
        """Publish the collected rows as one part, under the first free sequence number; None if there are none."""
        path = self._publish() if self._entries else None
        if self.journal is not None:
            self.journal.clear()
        self._entries, self._kept, self._bytes = [], 0, 0
        self._started = clock.now()
        return path

    def is_published(self) -> bool:
        """Whether a part of this attempt holds exactly the collected rows."""
        mine = (self._attempt, len(self._entries), zlib.crc32(self._body()))
        published = (read_header(path) for task, _, path in list_parts(self._folder) if task == self._task)
        return any(header is not None and (header.attempt, header.rows, header.crc32) == mine for header in published)

    def _body(self) -> bytes:
        self._entries.sort(key=lambda entry: entry.place)
        return b"\n".join(entry.row for entry in self._entries) + b"\n"

    def _publish(self) -> Path:
        body = self._body()
        sequence = next_sequence(self._folder, self._task)
        while True:
            path = self._folder / f"{paths.task_name(self._task)}.{sequence:03d}.jsonl"
            if store.publish(path, _encode(_HeaderLine(self._header(sequence, body))) + b"\n" + body):
                return path
            sequence += 1  # a twin attempt took the name; its part and this one are both whole, and merge once

    def _header(self, sequence: int, body: bytes) -> Header:
        return Header(
            run=self._run,
            launch=self._launch,
            task=self._task,
            sequence=sequence,
            attempt=self._attempt,
            host=provenance.host(),
            rows=len(self._entries),
            failed=sum(entry.failed for entry in self._entries),
            first=self._entries[0].place,
            last=self._entries[-1].place,
            audio_seconds=round(math.fsum(entry.audio_seconds for entry in self._entries), 6),
            crc32=zlib.crc32(body),
            started=round(self._started, 3),
            published=round(clock.now(), 3),
        )


def next_sequence(folder: Path, task: int) -> int:
    """One more than the highest sequence number a task has published in `folder`."""
    return max((number for owner, number, _ in list_parts(folder) if owner == task), default=-1) + 1


def list_parts(folder: Path) -> list[tuple[int, int, Path]]:
    """(task, sequence, path) of the parts in a launch's folder, in that order."""
    try:
        names = [entry.name for entry in folder.iterdir()]
    except FileNotFoundError:
        return []
    found = [(match, name) for name in names if (match := _NAME.fullmatch(name))]
    return sorted((int(match[1]), int(match[2]), folder / name) for match, name in found)


def read_header(path: Path) -> Optional[Header]:
    """The header of a part; None for an empty file (a name reserved, not yet published)."""
    return _read_header(path)[0]


def _read_header(path: Path) -> tuple[Optional[Header], int]:
    """The header, and where the rows begin."""
    with path.open("rb") as file:
        line = file.readline()
    if not line:
        return None, 0
    try:
        return _decode_header(line).part, len(line)
    except msgspec.MsgspecError as error:
        raise damaged(path, f"its header cannot be read ({error})") from None


def damaged(path: Path, what: str) -> StorageError:
    """The paragraph for a part that is no longer what was published."""
    return StorageError(
        f"The part {path} is damaged: {what}. It was published whole, so the file system lost or changed it "
        f"since. Move it away (`mv {path} {path}.damaged`): its items then count as missing, and "
        "`./voxarray retry RUN` redoes them."
    )


def blocks(path: Path, block: int = 1 << 16) -> Iterator[list[bytes]]:
    """The rows of a part as lists of bytes (see `rawrows`), read `block` bytes at a time.

    The file is not kept open between blocks. Raises `StorageError` at the end where count or checksum differ.
    """
    header, position = _read_header(path)
    if header is None:
        return
    count, crc, rest = 0, 0, b""
    while True:
        with path.open("rb") as file:
            file.seek(position)
            data = file.read(block)
        if not data:
            break
        position += len(data)
        crc = zlib.crc32(data, crc)
        found = (rest + data).split(b"\n")
        rest = found.pop()
        count += len(found)
        if found:
            yield found
    if rest or count != header.rows or crc != header.crc32:
        raise damaged(path, f"{count:,} rows of {header.rows:,} were found, or their checksum differs")


def rows(path: Path, block: int = 1 << 16) -> Iterator[Row]:
    """The rows of a part, read `block` bytes at a time."""
    for found in blocks(path, block):
        for row in found:
            yield decoded(path, row)


def decoded(path: Path, row: bytes) -> Row:
    """A row from its bytes."""
    try:
        return _decode_row(row)
    except msgspec.MsgspecError as error:
        raise damaged(path, f"a row cannot be read ({error})") from None
