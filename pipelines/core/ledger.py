"""The ledger: what became of every item, read from the parts.

Nothing else is kept: an item is done when some part has its result, and its strikes are the failed rows that parts
hold. Two strikes quarantine an item. A strike is an error the pipeline raised for the item, or the death of the
worker process with only this item in flight. That a whole task vanished with only this item in flight is weaker
evidence (nodes fail and jobs are killed too): three of those weigh as much. A launch that pardons makes all earlier
strikes void.
"""

from __future__ import annotations

from typing import Iterable, Iterator, NamedTuple, Optional, Sequence

from pipelines.core import parts
from pipelines.core.parts import Error, Row
from pipelines.core.spool import KeyBuckets

STRIKES = 2
LOSSES = 3

MISSING, DONE, QUARANTINED, STRUCK = 0, 1, 2, 3
"""States of an item. STRUCK: one strike, to be retried; it counts as missing."""

_DONE, _STRIKE, _LOSS = 0, 1, 2


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
    outside: int

    @property
    def items(self) -> int:
        """Items of the manifest."""
        return len(self.states)

    @property
    def left(self) -> int:
        """Items that a launch has to do: missing, and struck once."""
        return self.missing + self.struck


def outcomes(rows: Iterable[tuple[int, Row]], pardoned_before: int) -> Iterator[tuple[str, int]]:
    """(key, outcome) of rows given with their launch's number, without strikes from before the pardon."""
    for launch, row in rows:
        outcome = _outcome(row)
        if outcome == _DONE or launch >= pardoned_before:
            yield row.key, outcome


def settle(manifest: KeyBuckets, items: int, found: Iterable[tuple[str, int]]) -> Account:
    """Join the keys of a manifest with the outcomes found in the parts. Memory: one byte an item, and one bucket."""
    states = bytearray(items)
    outside = 0
    with KeyBuckets() as rows:
        for name, outcome in found:
            rows.add(name, outcome)
        for number, (keys, indexes) in enumerate(manifest.buckets()):
            standings: dict[int, Standing] = {}
            for key, outcome in zip(*rows.bucket(number)):
                if outcome == _DONE and key not in standings:
                    standings[key] = _DONE_AT_ONCE
                    continue
                standing = standings.get(key)
                if standing is _DONE_AT_ONCE:
                    continue
                if standing is None:
                    standing = standings[key] = Standing()
                standing._add(outcome)  # noqa: SLF001
            for key, index in zip(keys, indexes):
                known = standings.pop(key, None)
                if known is not None:
                    states[index] = known.state
            outside += sum(standing.state == DONE for standing in standings.values())
    return Account(
        states, states.count(DONE), states.count(QUARANTINED), states.count(STRUCK), states.count(MISSING), outside
    )


_DONE_AT_ONCE = Standing()
_DONE_AT_ONCE.done = True
