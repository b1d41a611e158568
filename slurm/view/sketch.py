"""Distributions in bounded memory: exact counts, sums and extremes; quantiles to a quarter of a percent.

Values are counted in bins of equal ratio (1000 a decade), as in DDSketch (Masson, Rim and Lee, 2019, VLDB): any range
fits, and a histogram can be drawn afterwards, with bins that suit what was found.
"""

from __future__ import annotations

import math
from typing import Iterator, NamedTuple

PER_DECADE = 1000
_PARTS = 100
_COARSE = 20
"""Values beyond this multiple of their unit need no bins that mind it."""
_CANDIDATES = 60
_LEAST, _MOST = 1e-9, 1e12
"""Magnitudes outside are counted as the nearest of these."""


class Bin(NamedTuple):
    """Values from `low` (included) to `high`."""

    low: float
    high: float
    size: int


class Sketch:
    """The distribution of the values added."""

    def __init__(self) -> None:
        self.count = self.zeros = 0
        self.total = 0.0
        self.low, self.high = math.inf, -math.inf
        self._positive: dict[int, int] = {}
        self._negative: dict[int, int] = {}
        self._parts = [0] * (_PARTS + 1)
        self._outside = self._whole = 0

    def add(self, value: float) -> None:
        """Count one finite value."""
        self.count += 1
        self.total += value
        self.low, self.high = min(self.low, value), max(self.high, value)
        if 0.0 <= value <= 1.0:
            self._parts[int(value * _PARTS)] += 1
            self._whole += value in (0.0, 1.0)
        else:
            self._outside += 1
        if value == 0.0:
            self.zeros += 1
            return
        side = self._positive if value > 0 else self._negative
        place = math.floor(math.log10(min(max(abs(value), _LEAST), _MOST)) * PER_DECADE)
        side[place] = side.get(place, 0) + 1

    @property
    def mean(self) -> float:
        """The mean; 0 of nothing."""
        return self.total / self.count if self.count else 0.0

    @property
    def is_share(self) -> bool:
        """Whether every value lies from 0 to 1, and not all are one of these two."""
        return not self._outside and self._whole < self.count

    def _steps(self) -> Iterator[tuple[float, float, int]]:
        """(low, high, count) of all fine bins, ascending."""
        for place in sorted(self._negative, reverse=True):
            yield -_edge(place + 1), -_edge(place), self._negative[place]
        if self.zeros:
            yield 0.0, 0.0, self.zeros
        for place in sorted(self._positive):
            yield _edge(place), _edge(place + 1), self._positive[place]

    def quantile(self, share: float) -> float:
        """The value below which `share` of the values lie, interpolated within a fine bin, never beyond the ends."""
        wanted, seen = share * self.count, 0
        for low, high, count in self._steps():
            if seen + count >= wanted:
                value = low + (high - low) * (wanted - seen) / count
                return min(max(value, self.low), self.high)
            seen += count
        return self.high

    def parts(self, number: int = 50) -> list[Bin]:
        """A histogram from 0 to 1 in `number` equal bins (a divisor of 100); the last includes 1."""
        width = _PARTS // number
        counts = [sum(self._parts[place : place + width]) for place in range(0, _PARTS, width)]
        counts[-1] += self._parts[_PARTS]
        return [Bin(place / number, (place + 1) / number, count) for place, count in enumerate(counts)]

    def logarithmic(self, most: int = 44) -> list[Bin]:
        """A histogram of the positive values in about `most` bins of equal ratio at most.

        The first and the last bin also count what lies beyond them.
        """
        if not self._positive:
            return []
        first, last = self._range()
        step = next(
            step for step in (5, 10, 20, 25, 50, 100, 125, 200, 250, 500, 10**9) if (last - first) / step < most
        )
        edges = [place * step for place in range(first // step, last // step + 2)]
        bounds = self._snapped([_edge(place) for place in edges])
        counts = [0] * (len(bounds) - 1)
        at = 0
        for place in sorted(self._positive):
            middle = _edge(place + 0.5)
            while at < len(counts) - 1 and middle >= bounds[at + 1]:
                at += 1
            counts[at] += self._positive[place]
        return [Bin(bounds[place], bounds[place + 1], count) for place, count in enumerate(counts)]

    def _range(self) -> tuple[int, int]:
        """The fine bins between which all but a thousandth at either end lie: what is rarer would squeeze the rest."""
        rare = sum(self._positive.values()) // 1000
        ends = []
        for places in (sorted(self._positive), sorted(self._positive, reverse=True)):
            seen = 0
            for place in places:
                seen += self._positive[place]
                if seen > rare:
                    ends.append(place)
                    break
        return ends[0], ends[1]

    def _snapped(self, bounds: list[float]) -> list[float]:
        """Bounds moved between the values where these are multiples of the least one, as frames of one length are.

        Bins of equal ratio would else hold one, none, two, one … of the possible values: a comb that is not in the
        data. Such bins differ in their ratios, so draw them as densities.
        """
        unit = self._unit()
        if not unit or bounds[0] > _COARSE * unit:
            return bounds
        ratio = bounds[1] / bounds[0]
        snapped: list[float] = []
        for bound in [*bounds, bounds[-1] + unit]:
            moved = (max(0, math.floor(bound / unit - 0.5)) + 0.5) * unit
            if not snapped or moved > snapped[-1] * math.sqrt(ratio):
                snapped.append(moved)
        return snapped if len(snapped) > 1 else bounds

    def _unit(self) -> float:
        """The length of which nearly all small values are multiples, if there is one; else 0."""
        low = sorted(self._positive)[:_CANDIDATES]
        often = 0.02 * sum(self._positive[place] for place in low)
        fitting = (_edge(place + 0.5) for place in low if self._positive[place] > often)
        return next((unit for unit in fitting if self._has_multiples_of(unit)), 0.0)

    def _has_multiples_of(self, unit: float) -> bool:
        counts: dict[int, int] = {}
        beside = 0
        for place, size in self._positive.items():
            ratio = _edge(place + 0.5) / unit
            if ratio < 4.5:
                nearest = max(1, round(ratio))
                if abs(ratio / nearest - 1) < 0.01:
                    counts[nearest] = counts.get(nearest, 0) + size
                else:
                    beside += size
        return len(counts) >= 3 and beside < 0.2 * sum(counts.values())

    def even(self, number: int, low: float, high: float) -> list[Bin]:
        """A histogram from `low` to `high` in equal bins; values beyond are counted in the first and the last."""
        width = (high - low) / number
        if width <= 0:
            return [Bin(low, high, self.count)]
        counts = [0] * number
        for start, end, count in self._steps():
            counts[min(number - 1, max(0, int(((start + end) / 2 - low) / width)))] += count
        return [Bin(low + place * width, low + (place + 1) * width, count) for place, count in enumerate(counts)]


def _edge(place: float) -> float:
    return float(10.0 ** (place / PER_DECADE))
