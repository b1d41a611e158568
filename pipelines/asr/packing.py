"""Where a recording is cut: stretches that hold all of its speech, none longer than a model takes, few and at pauses.

Speech is padded; speech that a short gap separates may share a piece; what is longer than a piece is cut where it is
weakest. Among all ways to pack what is left, the cheapest is taken: a piece costs as much as a second of pause is
worth, and a cut costs the less the longer its pause is. All is counted in whole samples at 16 kHz.
"""

from __future__ import annotations

from typing import NamedTuple, Optional, Sequence

import numpy as np

from pipelines.audio import RATE
from pipelines.audio.resample import Float32
from pipelines.voice.segments import Bounds, pad

WORTH = RATE
"""The pause (samples) at which a cut costs nothing, and the cost of a piece."""
_SMOOTH = RATE // 10
"""How far to each side of a cut in speech its weakness is looked at (samples)."""
_RANGE_DB = 60.0
"""Levels that far below the loudest around are as quiet as silence."""


class Limits(NamedTuple):
    """How pieces are made, in samples."""

    longest: int
    """Of a piece."""
    gap: int
    """Longest silence inside a piece."""
    pad: int
    """Silence kept before and after speech, where there is so much."""


class Track(NamedTuple):
    """What a recording is from frame to frame: its level in dB, and how likely speech is if an engine heard it."""

    hop: int
    level: Float32
    probabilities: Optional[Float32] = None

    def weakest(self, first: int, last: int) -> int:
        """The sample from `first` to `last` (both may be it) at whose sides there is least; of equals the last."""
        around = max(1, _SMOOTH // self.hop)
        start, end = -(-first // self.hop), last // self.hop
        low, high = max(0, start - around), min(len(self.level), end + around)
        if high <= low or end < start:
            return last
        level = self.level[low:high].astype(np.float64)
        strength = np.maximum(0, level - level.max() + _RANGE_DB) / _RANGE_DB
        if self.probabilities is not None:
            known = self.probabilities[low:high]
            strength[: len(known)] += known
        # total[i] is the sum of the frames before low + i, so that a window is a difference.
        total = np.concatenate(([0.0], np.cumsum(strength)))
        cuts = np.arange(start, min(end, high) + 1)
        left, right = np.maximum(cuts - around, low) - low, np.minimum(cuts + around, high) - low
        mean = (total[right] - total[left]) / np.maximum(1, right - left)
        best = len(mean) - 1 - int(np.argmin(np.round(mean[::-1], 6)))
        return min(max(int(cuts[best]) * self.hop, first), last)


def tidy(segments: Sequence[tuple[float, float]], length: int) -> Bounds:
    """Segments in seconds, in any order and overlapping as they like, as bounds within `length` samples."""
    found: list[list[int]] = []
    for start, end in sorted((max(0, round(start * RATE)), min(length, round(end * RATE))) for start, end in segments):
        if end <= start:
            continue
        if found and start <= found[-1][1]:
            found[-1][1] = max(found[-1][1], end)
        else:
            found.append([start, end])
    return np.array(found, np.int64).reshape(-1, 2)


def packed(speech: Bounds, length: int, limits: Limits, track: Optional[Track]) -> list[tuple[int, int]]:
    """The pieces of a recording of `length` samples: (first sample, sample after the last), in order, disjoint.

    Every sample of `speech` is in one of them. Pieces may touch. Without a `track`, speech that is longer than a piece
    is cut at equal lengths.
    """
    if not len(speech):
        return []
    silence = np.concatenate(([length], speech[1:, 0] - speech[:-1, 1])).tolist()
    padded = pad(speech, limits.pad, limits.pad, length) if limits.pad else speech
    units: list[_Unit] = []
    for (start, end), before in zip(padded.tolist(), silence):
        for number, (first, last) in enumerate(_shares(start, end, limits.longest, track)):
            units.append(_Unit(first, last, 0 if number else before))
    pieces: list[tuple[int, int]] = []
    at = 0
    for number in range(1, len(units) + 1):
        if number == len(units) or units[number].silence > limits.gap:
            pieces += _cheapest(units[at:number], limits.longest)
            at = number
    return pieces


class _Unit(NamedTuple):
    """Padded speech that is not to be cut further, and the silence before it."""

    start: int
    end: int
    silence: int


def _shares(start: int, end: int, longest: int, track: Optional[Track]) -> list[tuple[int, int]]:
    """Speech without a pause, in stretches of at most `longest` that touch; the last has a quarter of it or more."""
    found = []
    while end - start > longest:
        latest = min(start + longest, end - longest // 4)
        earliest = min(latest, start + longest // 2)
        count = -(-(end - start) // longest)
        at = start + (end - start) // count if track is None else track.weakest(max(start + 1, earliest), latest)
        found.append((start, at))
        start = at
    return [*found, (start, end)]


def _cheapest(units: list[_Unit], longest: int) -> list[tuple[int, int]]:
    """Neighbours packed so that pieces and cuts cost least; of equals, with the later cuts."""
    # best[n] is the least cost of the first n units, and where the last of their pieces begins.
    best: list[tuple[int, int]] = [(0, 0)]
    for last in range(len(units)):
        choice = None
        for first in range(last, -1, -1):
            if units[last].end - units[first].start > longest:
                break
            cut = max(0, WORTH - units[first].silence) if first else 0
            cost = best[first][0] + WORTH + cut
            if choice is None or cost < choice[0]:
                choice = (cost, first)
        if choice is None:  # a unit is never longer than `longest`
            raise ValueError(f"a stretch of {units[last].end - units[last].start} samples is longer than {longest}")
        best.append(choice)
    pieces: list[tuple[int, int]] = []
    last = len(units)
    while last:
        first = best[last][1]
        pieces.append((units[first].start, units[last - 1].end))
        last = first
    return pieces[::-1]
