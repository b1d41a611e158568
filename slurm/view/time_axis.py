"""A time axis that leaves out what nobody waits to see: the pauses between launches."""

from __future__ import annotations

from typing import NamedTuple, Sequence

from pipelines.core import clock
from slurm.view.words import brief

_BREAK = 2.5
"""Percent of the width that a left-out pause takes."""
_LEAST_SHARE = 0.15
"""Pauses longer than this share of all busy time are left out."""
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_STEPS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800)


class Piece(NamedTuple):
    """An uninterrupted stretch: from `start` to `end` (seconds since the epoch), drawn at `left` … `right` percent."""

    start: float
    end: float
    left: float
    right: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.start


class Tick(NamedTuple):
    """A mark at `x` percent."""

    x: float
    label: str


class TimeAxis:
    """Maps times to percent of the width. `spans`: when there was something to see, ascending and disjoint."""

    def __init__(self, spans: Sequence[tuple[float, float]], left: float = 0.0) -> None:
        busy = sum(end - start for start, end in spans)
        least = _LEAST_SHARE * busy
        joined: list[tuple[float, float]] = []
        for start, end in spans:
            if joined and start - joined[-1][1] < least:
                joined[-1] = (joined[-1][0], end)
            else:
                joined.append((start, end))
        total = sum(max(end - start, 1e-3) for start, end in joined)
        width = (100.0 - left - _BREAK * (len(joined) - 1)) / total if joined else 0.0
        self.pieces: list[Piece] = []
        for start, end in joined:
            right = left + max(end - start, 1e-3) * width
            self.pieces.append(Piece(start, end, left, right))
            left = right + _BREAK

    def x(self, time: float) -> float:
        """Percent of the width."""
        for piece in self.pieces:
            if time <= piece.end or piece is self.pieces[-1]:
                share = (time - piece.start) / max(piece.seconds, 1e-3)
                return piece.left + (piece.right - piece.left) * min(1.0, max(0.0, share))
        return 0.0

    def ticks(self, apart: float = 13.0) -> list[Tick]:
        """Round spans since the start of each piece, at least `apart` percent from each other."""
        found = []
        for piece in self.pieces:
            wanted = piece.seconds * apart / max(1e-9, piece.right - piece.left)
            step = next((step for step in _STEPS if step >= wanted), _STEPS[-1])
            for number in range(1, int(piece.seconds / step) + 1):
                tick = Tick(self.x(piece.start + number * step), _span(number * step))
                if piece.right - tick.x > apart / 4 or piece is self.pieces[-1]:
                    found.append(tick)
        return found

    def pauses(self) -> list[Tick]:
        """The middles of the pauses left out, with their lengths."""
        pairs = zip(self.pieces, self.pieces[1:])
        return [Tick((a.right + b.left) / 2, brief(b.start - a.end)) for a, b in pairs]


def _span(seconds: float) -> str:
    """`30 s`, `20 min`, `1 h 30`, `2 d`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes}:{rest:02d} min" if rest else f"{minutes} min"
    if seconds % 86400 == 0:
        return f"{seconds / 86400:.0f} d"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60:02d}" if rest else f"{hours} h"


def moment(seconds: float) -> str:
    """`21 Nov 2026, 14:05 UTC`."""
    return spoken(clock.iso(seconds))


def spoken(iso: str) -> str:
    """The same for a time as the run's files have it, `2026-11-21T14:05:00Z`."""
    return f"{int(iso[8:10])} {_MONTHS[int(iso[5:7]) - 1]} {iso[:4]}, {iso[11:16]} UTC"
