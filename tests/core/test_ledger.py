"""The ledger against a naive one: done, struck, quarantined, pardoned, for any history in any order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.core import ledger, parts
from pipelines.core.parts import DIED, EXCEPTION, LOST, Error, Row
from pipelines.core.spool import KeyBuckets

DONE = "done"
events = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 9), st.sampled_from([DONE, EXCEPTION, EXCEPTION, DIED, LOST, LOST])),
    max_size=60,
)
"""(launch, item, what became of it)"""


def key(number: int) -> str:
    return f"{number * 0x1F3D5B79A1C3E5F7 % 2**64:016x}"


def row(number: int, what: str) -> Row:
    if what == DONE:
        return Row(number, key(number), parts.DONE)
    return Row(number, key(number), parts.FAILED, error=Error("E", what, f"E: {what}", what))


def naive(number: int, history, pardoned: int) -> int:
    mine = [(launch, what) for launch, item, what in history if item == number]
    if any(what == DONE for _, what in mine):
        return ledger.DONE
    strikes = sum(what in (EXCEPTION, DIED) for launch, what in mine if launch >= pardoned)
    losses = sum(what == LOST for launch, what in mine if launch >= pardoned)
    if strikes >= 2 or losses >= 3:
        return ledger.QUARANTINED
    return ledger.STRUCK if strikes else ledger.MISSING


@settings(max_examples=150)
@given(events, st.integers(0, 8), st.integers(0, 4))
def test_settling_is_the_naive_ledger(history, items, pardoned):
    found = ledger.outcomes([(launch, row(number, what)) for launch, number, what in history], pardoned)
    with KeyBuckets() as manifest:
        for number in range(items):
            manifest.add(key(number), number)
        account = ledger.settle(manifest, items, found)
    expected = [naive(number, history, pardoned) for number in range(items)]
    assert list(account.states) == expected
    assert account.items == account.done + account.quarantined + account.left == items
    assert account.left == sum(state in (ledger.MISSING, ledger.STRUCK) for state in expected)
    assert account.outside == len({number for _, number, what in history if what == DONE and number >= items})


@given(st.lists(st.sampled_from([EXCEPTION, DIED, LOST]), max_size=6))
def test_the_cause_named_is_the_first_failure_that_counts(kinds):
    failed = [row(0, kind) for kind in kinds]
    history = [(0, 0, kind) for kind in kinds]
    cause = ledger.quarantine_cause(failed)
    assert (cause is not None) == (naive(0, history, 0) == ledger.QUARANTINED)
    assert cause is None or cause is failed[0].error
