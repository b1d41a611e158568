"""The ledger against a naive one: done, struck, quarantined, pardoned, for any history over any manifests."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.core import ledger, parts
from pipelines.core import run as run_module
from pipelines.core.errors import StorageError
from pipelines.core.manifest import Item, key_of
from pipelines.core.parts import DIED, EXCEPTION, LOST, Error, PartWriter, Row
from pipelines.core.scan import scan
from tests.core.world import World

DONE = "done"
events = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 9), st.sampled_from([DONE, EXCEPTION, EXCEPTION, DIED, LOST, LOST])),
    max_size=60,
)
"""(launch, item, what became of it)"""
orders = st.lists(st.permutations(range(10)), min_size=4, max_size=4)
"""Of each launch: the order of the items in the manifest that it was dealt from."""


def path_of(number: int) -> str:
    return f"/corpus/{number}.wav"


def error(kind: str) -> Error:
    return Error("E", kind, f"E: {kind}", kind)


def naive(number: int, history, pardoned: int) -> int:
    mine = [(launch, what) for launch, item, what in history if item == number]
    if any(what == DONE for _, what in mine):
        return ledger.DONE
    strikes = sum(what in (EXCEPTION, DIED) for launch, what in mine if launch >= pardoned)
    losses = sum(what == LOST for launch, what in mine if launch >= pardoned)
    if strikes >= 2 or losses >= 3:
        return ledger.QUARANTINED
    return ledger.STRUCK if strikes else ledger.MISSING


def publish(world: World, launch: int, history, order) -> list:
    """The parts that a launch left, two of them where there are rows enough."""
    writer = PartWriter(world.root / f"launch-{launch}", "run", launch, 0)
    found = []
    rows = [(number, what) for where, number, what in history if where == launch]
    for place, (number, what) in enumerate(rows):
        path = path_of(number)
        item = Item(order.index(number), key_of(path, 0.0), path, 1.0, 0.0, b"{}")
        if what == DONE:
            writer.done(item, {"text": '"status":"done","result":'}, 1.0)
        else:
            writer.failed(item, error(what))
        if place == len(rows) // 2:
            found.append(writer.publish())
    found.append(writer.publish())
    return [path for path in found if path is not None]


@settings(max_examples=150)
@given(events, st.integers(1, 8), st.integers(0, 4), orders, st.sets(st.integers(0, 3)))
def test_the_book_is_the_naive_ledger(history, items, pardoned, orders, alike):
    """`alike`: launches dealt from the present manifest; the others saw ten items in an order of their own."""
    with World() as world:
        path = world.write({"audio_filepath": path_of(number)} for number in range(items))
        known = [event for event in history if event[0] not in alike or event[1] < items]
        with scan(path) as present, ledger.Book(present) as book:
            for launch in range(4):
                order = list(range(10)) if launch in alike else orders[launch]
                for part in publish(world, launch, known, order):
                    digest = present.identity.order if launch in alike else f"order {launch}"
                    book.enter(part, digest, counted=launch >= pardoned)
            account = book.account()
    expected = [naive(number, known, pardoned) for number in range(items)]
    assert list(account.states) == expected
    assert account.items == account.done + account.quarantined + account.left == items
    assert account.left == sum(state in (ledger.MISSING, ledger.STRUCK) for state in expected)


@given(st.lists(st.sampled_from([EXCEPTION, DIED, LOST]), max_size=6))
def test_the_cause_named_is_the_first_failure_that_counts(kinds):
    failed = [Row(0, "0" * 16, parts.FAILED, error=error(kind)) for kind in kinds]
    cause = ledger.quarantine_cause(failed)
    assert (cause is not None) == (naive(0, [(0, 0, kind) for kind in kinds], 0) == ledger.QUARANTINED)
    assert cause is None or cause is failed[0].error


def test_a_part_whose_rows_cannot_be_of_this_manifest_is_damaged(world):
    path = world.manifest(2)
    with scan(path) as present, ledger.Book(present) as book:
        (part,) = publish(world, 0, [(0, 7, DONE)], list(range(10)))
        with pytest.raises(StorageError, match="is damaged"):
            book.enter(part, present.identity.order, counted=True)


def test_a_manifest_is_validated_once_and_read_again_only_for_its_keys(world, monkeypatch):
    path = world.manifest(30)
    run = world.run(path)
    launched = run.new_launch(run_module.Wish(2))
    monkeypatch.setattr(run_module, "scan", None)
    with run.scan() as again:
        assert again.identity == launched.manifest
        with scan(path) as read:
            assert [list(map(list, bucket)) for bucket in again.keys.buckets()] == [
                list(map(list, bucket)) for bucket in read.keys.buckets()
            ]
    monkeypatch.undo()
    path.write_text(path.read_text().replace("00003", "00033"))
    with run.scan() as changed:
        assert changed.identity.order != launched.manifest.order
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    world.write([{**row, "text": "x"} for row in rows])
    with run.scan() as texted:
        assert texted.identity.order == changed.identity.order
        assert texted.identity.sha256 != changed.identity.sha256
