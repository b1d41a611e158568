"""Consumers of a merge: private files that appear whole, with what stood there before kept as a backup."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Callable, Mapping, Optional, Sequence

import msgspec

from pipelines.core import manifest, paths, store
from pipelines.core.manifest import Item
from pipelines.core.pipeline import ErrorInfo, OutputFile


class OutputWriter:
    """One output file: written under a private name, hashed as it is written, published whole.

    Where `path` is a symbolic link, a file takes its place: what it leads to may be others', too, and is not written.
    What stands there is kept as `.bak` when its SHA-256 is not in `ours`: it was not made by this run.
    """

    def __init__(self, path: Path, ours: Mapping[str, str]) -> None:
        self.path = path
        self._ours = ours.get(os.path.realpath(path))
        self._private = store.temporary(self.path)
        self._digest = hashlib.sha256()
        self._size = 0
        self._rows = 0
        self._file: Optional[IO[bytes]] = None

    def open(self) -> None:
        """Open the private file."""
        with store.teaching(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._private.open("wb", buffering=1 << 20)

    def write(self, line: bytes, rows: int = 1) -> None:
        """Write a line (with its newline), or several that count as `rows`."""
        if self._file is None:
            self.open()
        with store.teaching(self.path):
            self._file.write(line)  # type: ignore[union-attr]
        self._digest.update(line)
        self._size += len(line)
        self._rows += rows

    def finish(self) -> None:
        """Make the private file durable. Do this to all files before the first is published."""
        if self._file is None:
            self.open()
        with store.teaching(self.path):
            self._file.flush()  # type: ignore[union-attr]
            os.fsync(self._file.fileno())  # type: ignore[union-attr]
            self._file.close()  # type: ignore[union-attr]

    @property
    def sha256(self) -> str:
        """Of what was written so far."""
        return self._digest.hexdigest()

    def publish(self, check: Callable[[], None] = lambda: None) -> OutputFile:
        """Give the private file its final name. `check` comes last, and may raise for what is not to be replaced."""
        digest, backup = self.sha256, None
        with store.teaching(self.path):
            if self.path.exists():
                present = store.sha256_of(self.path)
                if present == digest:  # as where a twin has merged the same: there is nothing to replace
                    self._private.unlink()
                    return OutputFile(str(self.path), digest, self._size, self._rows)
                if present != self._ours:
                    backup = str(_keep(self.path, present))
                with suppress(OSError):
                    shutil.copymode(self.path, self._private)
            check()
            os.replace(self._private, self.path)
            store.sync_folder(self.path.parent)
        return OutputFile(str(self.path), digest, self._size, self._rows, backup)

    def abandon(self) -> None:
        """Remove the private file."""
        with suppress(OSError):
            self._private.unlink()
        with suppress(OSError):  # on a full disk, what is still buffered cannot be written
            if self._file is not None:
                self._file.close()


def published_by(run_id: str) -> dict[str, str]:
    """Path → SHA-256 of the files that a run's last merge published: those it may replace without keeping a backup.

    Paths are those of the files themselves, whatever links lead to them.
    """
    try:
        receipt = msgspec.json.decode((paths.run_folder(run_id) / "merged.json").read_bytes())
    except (OSError, msgspec.MsgspecError):
        return {}
    return {os.path.realpath(file["path"]): file["sha256"] for file in receipt["outputs"]}


def _keep(path: Path, digest: str) -> Path:
    """Keep a file as `<path>.bak`, or `.bak2`, … beside it; a backup is never replaced, nor made twice of the same."""
    number = 1
    while True:
        backup = path.with_name(f"{path.name}.bak{number if number > 1 else ''}")
        try:
            if path.is_symlink():  # a second link would be no backup
                raise OSError(errno.EMLINK, os.strerror(errno.EMLINK), path)
            os.link(path, backup)
        except OSError:
            if not backup.exists():
                private = store.temporary(backup)
                shutil.copy2(path, private)
                os.replace(private, backup)
                return backup
            if backup.stat().st_size == path.stat().st_size and store.sha256_of(backup) == digest:
                return backup
            number += 1
        else:
            return backup


class ManifestOutput:
    """The manifest itself, every row with the fields of its result added; items without result keep their row.

    What others write into it meanwhile is never replaced.
    """

    def __init__(self, path: Path, ours: Mapping[str, str]) -> None:
        self._writer = OutputWriter(path, ours)
        self._found = _state(path)

    def open(self) -> None:
        """Open the private file."""
        self._writer.open()

    def write(self, item: Item, result: Optional[bytes], error: Optional[ErrorInfo]) -> None:  # noqa: ARG002
        """Write the item's row."""
        self.write_rows([item.row], [result])

    def write_rows(self, rows: Sequence[bytes], results: Sequence[Optional[bytes]]) -> None:
        """Write the rows of items that follow each other."""
        merged = _spliced(rows, results)
        if merged is None:
            merged = [with_fields(row, result) if result else row for row, result in zip(rows, results)]
        merged.append(b"")
        self._writer.write(b"\n".join(merged), len(rows))

    def publish(self) -> list[OutputFile]:
        """Replace the manifest; the user's own version is kept as a backup. ManifestError where it has changed."""
        self._writer.finish()
        return [self._writer.publish(self._refuse_changed)]

    def stands(self) -> bool:
        """Whether what was written is what stands there already."""
        return self._writer.path.exists() and store.sha256_of(self._writer.path) == self._writer.sha256

    def _refuse_changed(self) -> None:
        if _state(self._writer.path) != self._found:
            raise manifest.changed(self._writer.path, "merged")

    def abandon(self) -> None:
        """Remove the private file."""
        self._writer.abandon()


def _state(path: Path) -> Optional[tuple[int, int, int]]:
    """What tells a file's states from each other; None: it is not there."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def with_fields(row: bytes, result: bytes) -> bytes:
    """A row (JSON object) with the fields of `result` (compact JSON object) added, or replaced where it has them.

    The row's own bytes stay as they are where no field is replaced. Adding the same fields again changes no byte.
    """
    body, added = row.strip(), b"," + result[1:]
    if result == b"{}" or body.endswith(added):
        return row
    names = _decode(result)
    # A name may stand in the row with escapes, or be a mere value in it; then the row has to be parsed to know.
    if b"\\" in body or len(body) < 4 or any(_quoted(name) in body for name in names):
        fields = _decode(body)
        if not fields or not names.keys().isdisjoint(fields):
            fields.update(names)
            return msgspec.json.encode(fields)
    return body[:-1].rstrip() + added


def _spliced(rows: Sequence[bytes], results: Sequence[Optional[bytes]]) -> Optional[list[bytes]]:
    """What `with_fields` makes of each row, at a third of its cost, where no row can have one of the fields already.

    None where that is not sure: a name occurs somewhere in the rows, or not all results have the same fields.
    """
    done = [result for result in results if result is not None]
    names = tuple(_decode(done[0])) if done else ()
    text = b"\n".join(rows)
    if not names or b"\\" in text or any(_quoted(name) in text for name in names):
        return None
    try:
        _decoder_of_many(names)(b"[%s]" % b",".join(done))
    except (ValueError, msgspec.MsgspecError):  # a name that needs escapes, or another result has other names
        return None
    return [
        row.strip()[:-1].rstrip() + b"," + result[1:] if result is not None else row
        for row, result in zip(rows, results)
    ]


@lru_cache(maxsize=16)
def _decoder_of_many(names: tuple[str, ...]) -> Callable[[bytes], object]:
    """Decodes a list of objects that have exactly these fields."""
    fields = {f"field_{number}": name for number, name in enumerate(names)}
    one = msgspec.defstruct(
        "One", [(field, msgspec.Raw) for field in fields], rename=fields, forbid_unknown_fields=True, gc=False
    )
    return msgspec.json.Decoder(list[one]).decode  # type: ignore[valid-type]


_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@lru_cache(maxsize=256)
def _quoted(name: str) -> bytes:
    return b'"%s"' % name.encode()
