"""Speech that a manifest of segments gives (`audio_filepath`, `offset`, `duration`, a row a segment), by recording.

Such a manifest has many more rows than a task has items, so it is read once, and only where each recording's rows lie
is kept: 24 bytes for every run of them, whatever their number.
"""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Iterator, Optional

import numpy as np

from pipelines.core import manifest
from pipelines.core.errors import ManifestError
from pipelines.core.manifest import Fields, Item

_BLOCK = 1 << 20


class GivenSegments:
    """Segments of speech by the path of their recording. Thread-safe. Raises ManifestError for what it cannot use.

    Rows of one recording are best together, as `vad` writes them; wherever they are, they are found.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        keys, starts, ends = array("Q"), array("q"), array("q")
        last = None
        for start, end, fields in _rows(path):
            if fields.audio_filepath == last:
                ends[-1] = end
                continue
            last = fields.audio_filepath
            keys.append(_key(last))
            starts.append(start)
            ends.append(end)
        order = np.argsort(np.frombuffer(keys, np.uint64), kind="stable") if keys else np.empty(0, np.int64)
        self._keys = np.frombuffer(keys, np.uint64)[order] if keys else np.empty(0, np.uint64)
        self._starts = np.frombuffer(starts, np.int64)[order] if keys else np.empty(0, np.int64)
        self._ends = np.frombuffer(ends, np.int64)[order] if keys else np.empty(0, np.int64)

    def of(self, item: Item) -> Optional[list[tuple[float, float]]]:
        """Speech in an item: (start, end) in seconds from its own beginning; None where its recording has no rows.

        An item with an offset is a stretch of its recording: what of the segments lies outside is cut off. `vad`
        writes no rows for a recording without speech, nor for one that it could not read.
        """
        key = np.uint64(_key(item.audio_filepath))
        first, last = np.searchsorted(self._keys, key), np.searchsorted(self._keys, key, side="right")
        segments: list[tuple[float, float]] = []
        found = False
        most = item.duration if item.offset and item.duration is not None else float("inf")
        for start, end in zip(self._starts[first:last].tolist(), self._ends[first:last].tolist()):
            for fields in _between(self._path, start, end):
                if fields.audio_filepath != item.audio_filepath or fields.duration is None:
                    continue
                found = True
                begin = max(0.0, fields.offset - item.offset)
                stop = min(most, fields.offset + fields.duration - item.offset)
                if stop > begin:
                    segments.append((begin, stop))
        return sorted(segments) if found else None


def _key(path: str) -> int:
    return int(manifest.key_of(path), 16)


def _rows(path: Path) -> Iterator[tuple[int, int, Fields]]:
    """(first byte, byte after the last, fields) of every row."""
    at = 0
    try:
        with path.open("rb", buffering=_BLOCK) as file:
            for number, line in enumerate(file, 1):
                start, at = at, at + len(line)
                row = line.removeprefix(manifest.BOM).strip()
                if not row:
                    continue
                fields = _read(path, number, row)
                if fields.duration is None:
                    raise ManifestError(
                        f"Row {number} of the segments {path} has no duration, and a segment of speech needs one: "
                        '{"audio_filepath": …, "offset": seconds, "duration": seconds}. `./voxarray vad` writes '
                        "such a file as STEM_segments.json."
                    )
                yield start, at, fields
    except OSError as error:
        raise ManifestError(
            f"The manifest of segments {path} cannot be read ({error.strerror}). Check its path; `./voxarray vad "
            "DIRECTORY` writes one as STEM_segments.json."
        ) from None


def _read(path: Path, number: int, row: bytes) -> Fields:
    try:
        return manifest.read_fields(row)
    except ValueError as error:
        raise ManifestError(f"Row {number} of the segments {path} cannot be read: {error}.") from None


def _between(path: Path, start: int, end: int) -> Iterator[Fields]:
    """The rows between two bytes of the file. Raises ManifestError where it is not the file that was read first."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(end - start)
        yield from (manifest.read_fields(row) for line in data.split(b"\n") if (row := _bare(line)))
    except (OSError, ValueError) as error:
        raise ManifestError(
            f"The manifest of segments {path} changed while it was in use ({error}). Give the command again once it "
            "is whole."
        ) from None


def _bare(line: bytes) -> bytes:
    return line.removeprefix(manifest.BOM).strip()
