"""Manifests: JSONL files, one item a line, streamed.

Source of the format: NVIDIA NeMo's manifests (`audio_filepath`, `duration` in seconds, optional `offset` in seconds,
`text`, …). An item's identity is its path and, for a stretch of a recording (a row with an `offset`), where that
begins and how long it is; its line number only orders it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Iterator, Optional, Union

import msgspec
from msgspec import UNSET

from pipelines.core.errors import ManifestChangedError, ManifestError

BOM = b"\xef\xbb\xbf"
BLOCK = 1 << 20
"""Bytes read at a time."""
KEYS = 2
"""How keys are made now. Before, the duration of a stretch was not part of its key."""


class Item(msgspec.Struct, frozen=True, gc=False):
    """One manifest line. `row` is its bytes without line end; `duration`, `offset` are in seconds, `size` in bytes."""

    index: int
    key: str
    audio_filepath: str
    duration: Optional[float]
    offset: float
    row: bytes
    size: Optional[int] = None

    def fields(self) -> dict[str, Any]:
        """Every field of the row."""
        value: dict[str, Any] = msgspec.json.decode(self.row)
        return value

    @property
    def span(self) -> Optional[tuple[float, Optional[float]]]:
        """Start and duration in seconds of an item that is a stretch of a recording; None for a whole one."""
        return (self.offset, self.duration) if b'"offset"' in self.row and "offset" in self.fields() else None


class Fields(msgspec.Struct, gc=False):
    """What the engine itself needs of a row."""

    audio_filepath: str
    duration: Optional[float] = None
    given_offset: Union[float, msgspec.UnsetType] = msgspec.field(default=UNSET, name="offset")
    size: Optional[int] = None

    @property
    def offset(self) -> float:
        """Where it begins, in seconds; 0 for a whole recording."""
        return 0.0 if self.given_offset is UNSET else self.given_offset

    @property
    def key(self) -> str:
        """The identity of the item."""
        if self.given_offset is UNSET:
            return key_of(self.audio_filepath)
        return key_of(self.audio_filepath, self.given_offset, self.duration)


_decode = msgspec.json.Decoder(Fields).decode


class Identity(msgspec.Struct, frozen=True):
    """What a manifest was at one moment. `order` digests the items' keys in order; other fields do not matter.

    `keys`: how those were made, `KEYS` at that time.
    """

    path: str
    size: int
    mtime_ns: int
    sha256: str
    items: int
    order: str
    audio_seconds: Optional[float]
    keys: int = 1


def refuse_changed(path: Path, identity: Identity, doing: str) -> None:
    """Raise `ManifestError` where the manifest is no longer the one that was identified, by its size and time."""
    try:
        stat = path.stat()
    except OSError:
        raise changed(path, doing) from None
    if (stat.st_size, stat.st_mtime_ns) != (identity.size, identity.mtime_ns):
        raise changed(path, doing)


def changed(path: Path, doing: str) -> ManifestChangedError:
    """The paragraph for a manifest that somebody writes while it is being read."""
    return ManifestChangedError(
        f"The manifest {path} changed while it was being {doing}. Something is still writing it: wait until it is "
        "whole, and give the same command again. It was left as it is, and nothing is lost."
    )


def key_of(audio_filepath: str, offset: float = 0.0, duration: Optional[float] = None) -> str:
    """The identity of an item: 16 hex digits of BLAKE2b over its path and place; a clash is found by the scan.

    `duration` in seconds is that of a stretch, whose end it says, and None for a recording from `offset` to its end.
    """
    text = audio_filepath
    if duration is not None:
        text = f"{text}\0{offset:.6f}\0{duration:.6f}"
    elif offset:
        text = f"{text}\0{offset:.6f}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def read_fields(row: bytes) -> Fields:
    """The fields of one line (bytes without line end). Raises ValueError with the reason."""
    try:
        return _decode(row)
    except msgspec.MsgspecError as error:
        raise ValueError(_reason(row, str(error))) from None


def parse(index: int, row: bytes, keyed: bool = True) -> Item:
    """The item of one line (bytes without line end). Raises ValueError with the reason."""
    fields = read_fields(row)
    key = fields.key if keyed else ""
    return Item(index, key, fields.audio_filepath, fields.duration, fields.offset, row, fields.size)


def _reason(row: bytes, message: str) -> str:
    if b"NaN" in row or b"Infinity" in row:
        return "NaN or Infinity, which JSON does not know (the durations were computed wrongly, or pandas wrote them)"
    if row.startswith(b"["):
        return "it is a JSON array, not one object a line (write it with one object a line, JSONL)"
    return message[:160]


def lines(path: Path) -> Iterator[bytes]:
    """The non-empty lines of a manifest, without line ends; a byte-order mark and CRLF are taken off."""
    try:
        with path.open("rb", buffering=BLOCK) as file:
            bom = BOM
            while block := file.readlines(BLOCK):
                block[0] = block[0].removeprefix(bom)
                bom = b""
                yield from [row for line in block if (row := line.rstrip(b"\r\n")) and not row.isspace()]
    except FileNotFoundError:
        raise ManifestError(
            f"There is no manifest at {path}. Check the path; `./voxarray vad DIRECTORY` makes one from "
            "a directory of recordings."
        ) from None
    except IsADirectoryError:
        raise ManifestError(
            f"{path} is a directory, and a manifest (a JSONL file) is needed. `./voxarray vad {path}` "
            "makes a manifest from a directory of recordings."
        ) from None
    except OSError as error:
        raise ManifestError(f"The manifest {path} cannot be read: {error.strerror}. Check its permissions.") from None


def items(path: Path, keyed: bool = True) -> Iterator[Item]:
    """The items of a manifest in order; with empty keys where they are not needed. Raises ManifestError."""
    for index, row in enumerate(lines(path)):
        try:
            yield parse(index, row, keyed)
        except ValueError as error:
            raise ManifestError(
                f"Item {index + 1} of {path} cannot be read: {error}. If the file is being written or changed now, "
                "give the command again once it is whole; else mend the line."
            ) from None
