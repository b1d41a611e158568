"""Failures by cause: grouped, counted once an item, with examples that are the user's paths, and fitting advice."""

from __future__ import annotations

import pytest
from made_runs import Made, Maker, look_at, make

from pipelines.core import parts, paths
from pipelines.core.launches import Deal, deal_path
from pipelines.core.parts import Error, PartWriter
from slurm.view import failures
from slurm.view.advice import what_to_do


def fail(maker: Maker, launch: int, indexes: list[int], message: str, **how) -> None:
    """Publish failed tries of items (`tries`, 2; `kind`, an exception), as their task would."""
    deal = Deal(deal_path(maker.folder, launch))
    folder = maker.folder / "parts" / paths.launch_name(launch)
    for task in range(maker.made.tasks):
        for item in deal.items(task):
            if item.index in indexes:
                text = message.format(path=item.audio_filepath)
                error = Error("ItemError", text, parts.signature("ItemError", text), how.get("kind", parts.EXCEPTION))
                writer = PartWriter(folder, maker.made.run_id(), launch, task)
                for _ in range(how.get("tries", 2)):
                    writer.failed(item, error)
                writer.publish()


@pytest.fixture
def maker(moment) -> Maker:
    maker = Maker(Made(items=100, tasks=4), moment)
    maker.plan()
    maker.launch()
    return maker


def test_causes_are_grouped_and_the_most_frequent_comes_first(maker):
    fail(maker, 0, [1, 2, 3], "{path}: 17 bytes are no header")
    fail(maker, 0, [4], "the file is empty")
    found = look_at(maker).failures
    assert [(cause.items, cause.quarantined, cause.tries) for cause in found.causes] == [(3, 3, 6), (1, 1, 2)]
    assert found.causes[0].signature == "ItemError: <path>: N bytes are no header"
    assert found.quarantined == 4
    assert found.complete


def test_examples_are_the_paths_of_the_manifest(maker):
    fail(maker, 0, [7, 42, 99, 98], "no")
    examples = look_at(maker).failures.causes[0].examples
    assert len(examples) == failures.EXAMPLES
    assert {example.path for example in examples} < {f"/data/corpus/000/{index:06d}.wav" for index in (7, 42, 98, 99)}


def test_one_try_is_not_the_end_and_losses_weigh_less(maker):
    fail(maker, 0, [1], "flaky", tries=1)
    fail(maker, 0, [2], "the whole task vanished", tries=2, kind=parts.LOST)
    fail(maker, 0, [3], "the whole task vanished", tries=3, kind=parts.LOST)
    found = look_at(maker).failures
    assert (found.items, found.quarantined) == (3, 1)


def test_an_item_that_failed_in_two_ways_counts_with_the_last(maker, moment):
    fail(maker, 0, [5], "first reason", tries=1)
    moment.now += 60
    fail(maker, 0, [5], "second reason", tries=1)
    found = look_at(maker).failures
    assert [(cause.message, cause.items, cause.quarantined) for cause in found.causes] == [("second reason", 1, 1)]


def test_a_pardon_makes_earlier_failures_void(maker, moment):
    fail(maker, 0, [5], "before")
    moment.now += 60
    maker.launch(1, {5}, pardon=True)
    assert look_at(maker).failures.items == 0
    fail(maker, 1, [5], "after", tries=1)
    found = look_at(maker).failures
    assert [(cause.message, cause.quarantined) for cause in found.causes] == [("after", 0)]


def test_reading_stops_at_a_bound_and_says_so(maker, monkeypatch):
    monkeypatch.setattr(failures, "MOST_ROWS", 4)
    fail(maker, 0, list(range(10)), "bad")
    found = look_at(maker).failures
    assert not found.complete
    assert 0 < found.items < 10


def test_a_run_with_failures_in_every_part_is_counted_right(moment):
    maker = make(Made(items=1000, tasks=4, bad=0.1), moment)
    view = look_at(maker)
    assert view.receipt.quarantined == view.failures.quarantined
    assert {(c.signature, c.count) for c in view.receipt.signatures} == {
        (c.signature, c.quarantined) for c in view.failures.causes
    }


@pytest.mark.parametrize(
    ("message", "word"),
    [
        ("the worker process died (SIGKILL: killed, most often for want of memory)", "memory"),
        ("CUDA out of memory. Tried to allocate", "memory"),
        ("The file is empty (0 bytes).", "copy"),
        ("The WAVE file is truncated: it ends before its samples begin.", "copy"),
        ("[Errno 2] No such file or directory", "nodes"),
        ("The file is no longer there: it was moved or deleted", "nodes"),
        ("permission denied", "permissions"),
        ("[Errno 116] Stale file handle", "storage"),
        ("Something never seen", "log"),
    ],
)
def test_advice_fits(message, word):
    assert word in what_to_do(f"ItemError: {message}", message, parts.EXCEPTION).lower()


def test_a_lost_task_is_not_blamed_on_the_item():
    assert "node" in what_to_do("TaskLost: x", "SIGKILL", parts.LOST)
