"""A few items of a chain to look at and to listen to, for its report: `python -m pipelines.units.exhibit`.

Standard input: a JSON object (`Wanted`). Standard output: a JSON object (`Exhibit`). Audio is FLAC at 16 kHz as a data
URI, so that the report needs no other file.
"""

from __future__ import annotations

import base64
import io
import itertools
import math
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Iterator, Optional

import msgspec

from pipelines.audio import RATE
from pipelines.audio.read import Recording
from pipelines.core.errors import ItemError, VoxarrayError

_LOOKED_AT, _SEGMENTS_LOOKED_AT = 1000, 200_000
"""Rows at a manifest's beginning among which items are chosen: a report must not read all of ten million."""
_BINS = 600
_SHORTEST_S = 1.0


class Wanted(msgspec.Struct):
    """Manifests: of the items, of segments of speech, of the same items said again, of speech that was sampled."""

    manifest: Optional[str] = None
    segments: Optional[str] = None
    spoken: Optional[str] = None
    sampled: Optional[str] = None
    count: int = 3
    longest_s: float = 20.0


class Piece(msgspec.Struct):
    """Up to `shown_s` seconds of an item. `peaks`: least and greatest sample (-1 … 1) of equal stretches of these."""

    name: str
    duration: float
    shown_s: float
    peaks: list[tuple[float, float]]
    audio: str
    resynthesis: Optional[str] = None
    segments: list[tuple[float, float]] = []
    text: Optional[str] = None
    units: list[int] = []
    vocabulary_size: int = 0
    rate: float = 0.0


class Exhibit(msgspec.Struct):
    """The items, the sampled ones, and what could not be shown."""

    items: list[Piece] = []
    sampled: list[Piece] = []
    faults: list[str] = []


def exhibit(wanted: Wanted) -> Exhibit:
    """Choose items and read them. What cannot be read is named in `faults`."""
    found = Exhibit()
    if wanted.manifest:
        rows = _chosen(Path(wanted.manifest), wanted)
        spoken = _spoken(wanted.spoken, {row["audio_filepath"] for row in rows})
        segments = _segments(wanted.segments, {row["audio_filepath"] for row in rows})
        for row in rows:
            _add(found.items, found, row, wanted.longest_s, spoken, segments)
    if wanted.sampled:
        for row in list(_rows(Path(wanted.sampled), wanted.count)):
            _add(found.sampled, found, row, wanted.longest_s, {}, {})
    return found


def _rows(path: Path, most: int) -> Iterator[dict[str, Any]]:
    with suppress(OSError), path.open("rb") as file:
        for line in itertools.islice(file, most):
            with suppress(msgspec.MsgspecError):
                yield msgspec.json.decode(line, type=dict[str, Any])


def _chosen(path: Path, wanted: Wanted) -> list[dict[str, Any]]:
    """Items from the beginning, middle and end of the first rows; those with text and of some seconds come first."""
    rows = [row for row in _rows(path, _LOOKED_AT) if (row.get("duration") or 0.0) >= _SHORTEST_S]
    good = [row for row in rows if row.get("text") and row["duration"] <= 2 * wanted.longest_s] or rows
    count = min(wanted.count, len(good))
    return [good[(2 * number + 1) * len(good) // (2 * count)] for number in range(count)]


def _spoken(path: Optional[str], names: set[str]) -> dict[str, str]:
    """Recording → its resynthesis."""
    rows = _rows(Path(path), _SEGMENTS_LOOKED_AT) if path else iter(())
    return {
        row["source_audio_filepath"]: row["audio_filepath"]
        for row in rows
        if row.get("source_audio_filepath") in names
    }


def _segments(path: Optional[str], names: set[str]) -> dict[str, list[tuple[float, float]]]:
    """Recording → its stretches of speech (begin, end) in seconds."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in _rows(Path(path), _SEGMENTS_LOOKED_AT) if path else iter(()):
        if row.get("audio_filepath") in names and "offset" in row:
            found.setdefault(row["audio_filepath"], []).append((row["offset"], row["offset"] + row["duration"]))
    return found


def _add(  # noqa: PLR0917 - the parts of one exhibit
    where: list[Piece],
    found: Exhibit,
    row: dict[str, Any],
    longest_s: float,
    spoken: dict[str, str],
    segments: dict[str, list[tuple[float, float]]],
) -> None:
    path, start = row["audio_filepath"], float(row.get("offset") or 0.0)
    length = min(longest_s, row["duration"])
    try:
        samples = _read(path, start, length)
        piece = Piece(Path(path).name, row["duration"], len(samples) / RATE, _peaks(samples), _uri(samples))
        again = spoken.get(path)
        if again is not None:
            piece.resynthesis = _uri(_read(again, 0.0, longest_s))
        inside = [(begin - start, end - start) for begin, end in segments.get(path, []) if end > start]
        piece.segments = [(max(0.0, begin), end) for begin, end in inside if begin < piece.shown_s]
        piece.text = row.get("text")
        _add_units(piece, row)
        where.append(piece)
    except (VoxarrayError, ItemError, OSError, ValueError) as error:
        found.faults.append(f"{path}: {error}")


def _add_units(piece: Piece, row: dict[str, Any]) -> None:
    if "units_row" not in row:
        return
    from pipelines.units.packed import PackedUnits

    packed = PackedUnits(Path(row["units_filepath"]))
    piece.vocabulary_size, piece.rate = packed.description.vocabulary_size, packed.description.rate
    frames = packed.frames(int(row["units_row"]))
    piece.units = frames[: int(piece.shown_s * piece.rate)].tolist()


def _read(path: str, start: float, length: float) -> Any:
    import numpy as np

    with Recording(path, start) as recording:
        blocks = list(itertools.islice(recording.float_blocks(RATE), math.ceil(length)))
    return np.concatenate(blocks)[: int(length * RATE)]


def _peaks(samples: Any) -> list[tuple[float, float]]:
    import numpy as np

    parts = np.array_split(samples, min(_BINS, max(1, len(samples))))
    return [(round(float(part.min()), 3), round(float(part.max()), 3)) for part in parts if len(part)]


def _uri(samples: Any) -> str:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="FLAC", subtype="PCM_16")
    return f"data:audio/flac;base64,{base64.b64encode(file.getvalue()).decode()}"


def main() -> int:
    """Answer one request."""
    wanted = msgspec.json.decode(sys.stdin.buffer.read(), type=Wanted)
    sys.stdout.buffer.write(msgspec.json.encode(exhibit(wanted)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
