"""What is said of each recording: the longest, shortest and mean speech and silence, their ratio, and where to split.

The figures are those of the seed program (columns of the same names in the CSV); here they follow the segment options.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import islice
from typing import Any

from pipelines.audio import RATE
from pipelines.voice.segments import Bounds

FRAME = 256
"""`splits` are counted in frames of so many samples (16 ms), whatever the engine's own frames are."""
_TARGET = 30 * RATE // FRAME
_WINDOW = 10 * RATE // FRAME
_PAUSE = 3 * RATE // 10 // FRAME
SPLIT_FROM = 30.0
"""Recordings shorter than this (seconds) get no splits."""


def result(bounds: Bounds, length: int, duration: float) -> dict[str, Any]:
    """The fields that VAD adds to a recording: `length` is the samples analysed, `duration` its seconds.

    Times are in seconds: durations to the microsecond, segments to the millisecond.
    """
    segments: list[list[int]] = bounds.tolist()
    spoken = [end - start for start, end in segments]
    silences = _silences(segments, length)
    quiet = [end - start for start, end in silences]
    fields: dict[str, Any] = {"duration": duration}
    for name, lengths in (("spoken", spoken), ("nospch", quiet)):
        fields["max-" + name] = round(max(lengths) / RATE, 6) if lengths else 0.0
        fields["min-" + name] = round(min(lengths) / RATE, 6) if lengths else 0.0
        fields["avg-" + name] = round(sum(lengths) / RATE / len(lengths), 6) if lengths else 0.0
    fields["spch-ratio"] = round(sum(spoken) / length, 6) if length else 0.0
    if duration >= SPLIT_FROM:
        fields["splits"] = splits(silences, length)
    # A resampler may give up to one sample more than the recording lasts, and the last millisecond may round up.
    last = math.floor(duration * 1000 + 1e-6) / 1000
    rounded = ([min(round(start / RATE, 3), last), min(round(end / RATE, 3), last)] for start, end in segments)
    fields["segments"] = [[start, end] for start, end in rounded if end > start]
    return fields


def _silences(segments: list[list[int]], length: int) -> list[tuple[int, int]]:
    """What lies before, between and after the segments; nothing where two touch."""
    edges = [0]
    for segment in segments:
        edges += segment
    edges.append(length)
    return [(start, end) for start, end in zip(edges[::2], edges[1::2]) if end > start]


def splits(silences: list[tuple[int, int]], length: int) -> list[int]:
    """Where to split a long recording: frames (16 ms) in the middle of the first pause of 300 ms after each 30 s.

    The search goes on for 10 s, then skips; it ends 30 s before the end. Pauses and rules are the seed program's.
    """
    frames = length // FRAME
    pauses = [(start // FRAME, end // FRAME) for start, end in silences]
    ends = [end for _, end in pauses]
    found: list[int] = []
    target = _TARGET
    while target < frames - _TARGET:
        following = target + _WINDOW
        for start, end in islice(pauses, bisect_right(ends, target), None):
            if start >= target + _WINDOW:
                break
            length_left = end - max(start, target)
            if length_left >= _PAUSE:
                found.append(max(start, target) + length_left // 2)
                following = found[-1] + _TARGET
                break
        target = following
    return found
