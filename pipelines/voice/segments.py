"""From speech probabilities to segments: hysteresis, shortest speech and silence, longest segment, padding.

The order is the field's (pyannote's Binarize, NeMo, Silero): decide per frame, close short silences, drop short
speech, cut long segments, pad. All is counted in whole samples at 16 kHz, so rounding decides nothing.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

import numpy as np
import numpy.typing as npt

from pipelines.audio import RATE
from pipelines.audio.resample import Float32

Bounds = npt.NDArray[np.int64]
"""Segments, shape (segments, 2): first sample, and the sample after the last. Sorted, disjoint; some may touch."""


class Rules(NamedTuple):
    """How probabilities become segments. Times are in samples at 16 kHz; the defaults give the raw runs of speech."""

    onset: float = 0.5
    offset: float = 0.5
    min_speech: int = 0
    min_silence: int = 0
    pad_onset: int = 0
    pad_offset: int = 0
    max_segment: Optional[int] = None


def samples_of(seconds: float) -> int:
    """Seconds as samples at 16 kHz."""
    return round(seconds * RATE)


def segments(probabilities: Float32, hop: int, length: int, rules: Rules) -> Bounds:
    """The segments of a recording of `length` samples; frame number i covers the samples from i·hop to (i+1)·hop."""
    raw = runs(speech(probabilities, rules.onset, rules.offset)) * hop
    if len(raw):
        raw[-1, 1] = min(raw[-1, 1], length)
    bounds = raw
    if rules.min_silence:
        bounds = close_silences(bounds, rules.min_silence)
    if rules.min_speech:
        bounds = bounds[bounds[:, 1] - bounds[:, 0] >= rules.min_speech]
    if rules.max_segment is not None:
        room = rules.max_segment - rules.pad_onset - rules.pad_offset
        bounds = cut(bounds, _Cuts(raw, probabilities, hop, room, max(1, rules.min_speech)))
    if rules.pad_onset or rules.pad_offset:
        bounds = pad(bounds, rules.pad_onset, rules.pad_offset, length)
    return bounds


def speech(probabilities: Float32, onset: float, offset: float) -> npt.NDArray[np.bool_]:
    """Frames of speech: from the first above `onset` until one is at or below `offset`."""
    on: npt.NDArray[np.bool_] = probabilities > np.float32(onset)
    if offset >= onset:
        return on
    decided = on | (probabilities <= np.float32(offset))
    # Between the two thresholds a frame is what the last decided frame before it was; not speech if there is none.
    latest = np.maximum.accumulate(np.where(decided, np.arange(len(on)), -1))
    kept: npt.NDArray[np.bool_] = on[latest] & (latest >= 0)
    return kept


def runs(flags: npt.NDArray[np.bool_]) -> Bounds:
    """The runs of True, shape (runs, 2): first index, index after the last."""
    padded = np.zeros(len(flags) + 2, np.int8)
    padded[1:-1] = flags
    return np.flatnonzero(padded[1:] != padded[:-1]).reshape(-1, 2)


def close_silences(bounds: Bounds, shortest: int) -> Bounds:
    """Join segments with less than `shortest` samples between them."""
    apart = bounds[1:, 0] - bounds[:-1, 1] >= shortest
    starts = bounds[np.concatenate(([True], apart)), 0] if len(bounds) else bounds[:, 0]
    ends = bounds[np.concatenate((apart, [True])), 1] if len(bounds) else bounds[:, 1]
    return np.column_stack((starts, ends))


def pad(bounds: Bounds, before: int, after: int, length: int) -> Bounds:
    """Lengthen every segment; where two would overlap, they share the silence between them in proportion."""
    if not len(bounds):
        return bounds
    starts, ends = np.maximum(bounds[:, 0] - before, 0), np.minimum(bounds[:, 1] + after, length)
    silence = bounds[1:, 0] - bounds[:-1, 1]
    meet = bounds[:-1, 1] + silence * after // (before + after)
    tight = silence < before + after
    starts[1:][tight] = meet[tight]
    ends[:-1][tight] = meet[tight]
    return np.column_stack((starts, ends))


class _Cuts(NamedTuple):
    """What long segments are cut by: raw speech, frame probabilities, longest piece, shortest piece (samples)."""

    raw: Bounds
    probabilities: Float32
    hop: int
    longest: int
    shortest: int


def cut(bounds: Bounds, cuts: _Cuts) -> Bounds:
    """Cut segments of more than `longest` samples, so that all pieces have from `shortest` to `longest`.

    The cut is at the longest pause in reach (a silence that had been closed; it is left out), else at the frame in the
    second half of the reach where speech is least likely (the pieces touch).
    """
    if not (bounds[:, 1] - bounds[:, 0] > cuts.longest).any():
        return bounds
    pieces: list[tuple[int, int]] = []
    for start, end in bounds.tolist():
        at = start
        while end - at > cuts.longest:
            stop, go = _best_pause(cuts, at, end) or _least_likely(cuts, at, end)
            pieces.append((at, stop))
            at = go
        pieces.append((at, end))
    return np.array(pieces, np.int64).reshape(-1, 2)


def _best_pause(cuts: _Cuts, at: int, end: int) -> Optional[tuple[int, int]]:
    """The longest pause that leaves pieces of allowed lengths on both sides; of equals the latest."""
    first = int(np.searchsorted(cuts.raw[:, 1], at + cuts.shortest))
    last = int(np.searchsorted(cuts.raw[:, 1], at + cuts.longest, side="right"))
    stops, goes = cuts.raw[first:last, 1], cuts.raw[first + 1 : last + 1, 0]
    stops = stops[: len(goes)]
    allowed = goes <= end - cuts.shortest
    stops, goes = stops[allowed], goes[allowed]
    if not len(stops):
        return None
    lengths = goes - stops
    best = len(lengths) - 1 - int(np.argmax(lengths[::-1]))
    return int(stops[best]), int(goes[best])


def _least_likely(cuts: _Cuts, at: int, end: int) -> tuple[int, int]:
    """The start of the least likely frame where a cut leaves pieces of allowed lengths; of equals the last."""
    latest = min(at + cuts.longest, end - cuts.shortest)
    earliest = min(latest, max(at + cuts.shortest, at + cuts.longest // 2))
    first, last = -(-earliest // cuts.hop), latest // cuts.hop
    near = cuts.probabilities[first : last + 1]
    place = (last - int(np.argmin(near[::-1]))) * cuts.hop if len(near) else latest
    return place, place
