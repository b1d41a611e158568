"""The ledger: what became of every item, read from the parts.

Nothing else is kept: an item is done when some part has its result, and its strikes are the failed rows that parts
hold. Two strikes quarantine an item. A strike is an error the pipeline raised for the item, or the death of the
worker process with only this item in flight. That a whole task vanished with only this item in flight is weaker
evidence (nodes fail and jobs are killed too): three of those weigh as much. A launch that pardons makes all earlier
strikes void.
"""

from __future__ import annotations

from pathlib import Path
from typing import Callable, NamedTuple, Optional, Sequence

from pipelines.core import parts, rawrows
from pipelines.core.parts import Error, Row
from pipelines.core.scan import Scan
from pipelines.core.spool import KeyBuckets, join

STRIKES = 2
LOSSES = 3

MISSING, DONE, QUARANTINED, STRUCK = 0, 1, 2, 3
"""States of an item. STRUCK: one strike, to be retried; it counts as missing."""

_DONE, _STRIKE, _LOSS = 0, 1, 2
_VOID = 3
"""Done once, but the file that the item's result speaks of is gone or changed."""
_DONE_MARK = 16
"""An item's mark is one byte: whether it is done, strikes (0 to 2) above losses (0 to 3)."""


def is_quarantined(strikes: int, losses: int) -> bool:
    """Whether an item with so many strikes and losses is given up until a retry pardons it."""
    return strikes >= STRIKES or losses >= LOSSES


class Standing:
    """Strikes and losses of one item so far."""

    __slots__ = ("done", "losses", "strikes")

    def __init__(self) -> None:
        self.done = False
        self.strikes = 0
        self.losses = 0

    def add(self, row: Row) -> None:
        """Take one more row of the item into account."""
        self._add(_outcome(row))

    def _add(self, outcome: int) -> None:
        if outcome == _DONE:
            self.done = True
        elif outcome == _STRIKE:
            self.strikes += 1
        else:
            self.losses += 1

    @property
    def state(self) -> int:
        """MISSING, DONE, QUARANTINED or STRUCK."""
        if self.done:
            return DONE
        if is_quarantined(self.strikes, self.losses):
            return QUARANTINED
        return STRUCK if self.strikes else MISSING


def _outcome(row: Row) -> int:
    if row.status == parts.DONE:
        return _DONE
    return _LOSS if row.error is not None and row.error.kind == parts.LOST else _STRIKE


def quarantine_cause(failed: Sequence[Row]) -> Optional[Error]:
    """The error of the first of an item's failed rows if they quarantine it, else None."""
    standing = Standing()
    for row in failed:
        standing.add(row)
    return failed[0].error if standing.state == QUARANTINED else None


class Account(NamedTuple):
    """How the items of a manifest stand: one byte each in `states`, and the counts."""

    states: bytearray
    done: int
    quarantined: int
    struck: int
    missing: int

    @property
    def items(self) -> int:
        """Items of the manifest."""
        return len(self.states)

    @property
    def left(self) -> int:
        """Items that a launch has to do: missing, and struck once."""
        return self.missing + self.struck


class Book:
    """Takes rows in any order. Memory: one byte an item, and one bucket of what other manifests' launches left."""

    def __init__(self, scan: Scan, is_whole: Optional[Callable[[bytes], bool]] = None) -> None:
        self._scan = scan
        self._is_whole = is_whole
        self._marks = bytearray(scan.identity.items)
        self._elsewhere = KeyBuckets()

    def __enter__(self) -> Book:  # noqa: PYI034 - `Self` is not in Python 3.9
        return self

    def __exit__(self, *_: object) -> None:
        self._elsewhere.close()

    def enter(self, path: Path, order: str, counted: bool) -> None:
        """Take the rows of a part that was dealt from a manifest of that order; `counted`: no pardon voids strikes."""
        present = order == self._scan.identity.order
        try:
            for rows in parts.blocks(path):
                outcomes = [self._outcome_of(path, row, result) for row, result in zip(rows, rawrows.results(rows))]
                if present:
                    for index, outcome in zip(rawrows.indexes(rows), outcomes):
                        if outcome == _DONE or (counted and outcome != _VOID):
                            self._mark(index, outcome)
                else:
                    for key, outcome in zip(rawrows.keys(rows), outcomes):
                        if outcome == _DONE or (counted and outcome != _VOID):
                            self._elsewhere.add(key, outcome)
        except (ValueError, IndexError):
            raise parts.damaged(path, "the index of a row cannot be right") from None

    def _outcome_of(self, path: Path, row: bytes, result: Optional[bytes]) -> int:
        if result is None:
            return _outcome(parts.decoded(path, row))
        return _DONE if self._is_whole is None or self._is_whole(result) else _VOID

    def _mark(self, index: int, outcome: int) -> None:
        self._marks[index] = _AFTER[outcome][self._marks[index]]

    def account(self) -> Account:
        """How the items stand by all that was entered."""
        if not self._elsewhere.empty:
            for outcome, index in join(self._elsewhere, self._scan.keys):
                if index is not None:
                    self._mark(index, outcome)
        states = self._marks.translate(_STATE)
        count = states.count
        return Account(states, count(DONE), count(QUARANTINED), count(STRUCK), count(MISSING))


def _split(mark: int) -> tuple[int, int]:
    """Strikes and losses of a mark."""
    return min(mark // 4 % 4, STRIKES), min(mark % 4, LOSSES)


def _after(mark: int, outcome: int) -> int:
    strikes, losses = _split(mark)
    if outcome == _DONE or mark >= _DONE_MARK:
        return _DONE_MARK
    strikes, losses = min(strikes + (outcome == _STRIKE), STRIKES), min(losses + (outcome == _LOSS), LOSSES)
    return strikes * 4 + losses


def _state(mark: int) -> int:
    standing = Standing()
    standing.done = mark >= _DONE_MARK
    standing.strikes, standing.losses = _split(mark)
    return standing.state


_AFTER = [bytes(_after(mark, outcome) for mark in range(256)) for outcome in (_DONE, _STRIKE, _LOSS)]
_STATE = bytes(_state(mark) for mark in range(256))
