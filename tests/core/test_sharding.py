"""Laws of sharding: every item has exactly one task, whatever the method, and balanced keeps Graham's bound."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.core import launches, ledger
from pipelines.core.manifest import Item
from pipelines.core.run import Wish, assign
from pipelines.core.shard import BALANCED, Balanced, RoundRobin, imbalance, weight
from tests.core.world import launch

durations = st.lists(st.one_of(st.just(0.0), st.floats(0.001, 90000.0)), max_size=300)


def item(index: int, duration: float | None = 1.0, size: int | None = None) -> Item:
    return Item(index, f"{index:016x}", f"/{index}.wav", duration, 0.0, b"{}", size)


def loads(items: list[Item], sharding: RoundRobin | Balanced, tasks: int) -> list[float]:
    sums = [0.0] * tasks
    for number, one in enumerate(items):
        task = sharding.task(number, one)
        assert 0 <= task < tasks
        sums[task] += weight(one)
    return sums


@given(durations, st.integers(1, 40))
def test_balanced_deals_every_item_once_and_keeps_the_bound_of_longest_first(seconds, tasks):
    items = [item(index, duration) for index, duration in enumerate(seconds)]
    sums = loads(items, Balanced(items, tasks), tasks)  # a quota that did not add up would raise
    assert math.isclose(sum(sums), sum(seconds), rel_tol=1e-9, abs_tol=1e-9)
    # Graham's bound of any list scheduling, and the width of the duration classes.
    longest = max(seconds, default=0.0)
    assert max(sums) <= (sum(seconds) / tasks + longest * (1 - 1 / tasks)) * 1.02 + 1e-9


@given(st.integers(0, 500), st.integers(1, 40))
def test_round_robin_partitions_and_its_shares_differ_by_one_at_most(count, tasks):
    sharding = RoundRobin(tasks)
    counts = [0] * tasks
    for number in range(count):
        counts[sharding.task(number, item(number))] += 1
    assert sum(counts) == count
    assert max(counts) - min(counts) <= 1


def test_longest_first_is_within_four_thirds_where_the_optimum_is_known():
    # Each task's optimum is exactly 60 s: filled backwards from a known packing.
    packing = [[60.0], [30.0, 30.0], [40.0, 20.0], [15.0] * 4, [55.0, 5.0], [20.0] * 3]
    items = [item(n, seconds) for n, seconds in enumerate(s for task in packing for s in task)]
    sums = loads(items, Balanced(items, len(packing)), len(packing))
    assert max(sums) <= (4 / 3 - 1 / (3 * len(packing))) * 60 * 1.01


def test_balanced_beats_round_robin_on_a_skewed_corpus():
    items = [item(n, 3600.0 if n % 8 == 0 else 4.0) for n in range(1024)]
    assert imbalance(loads(items, RoundRobin(8), 8)) > 7
    assert imbalance(loads(items, Balanced(items, 8), 8)) < 1.01


def test_items_without_duration_are_dealt_by_size_and_of_no_length_at_all_by_number():
    by_size = [item(n, None, 10_000_000 if n < 4 else 1000) for n in range(40)]
    assert imbalance(loads(by_size, Balanced(by_size, 4), 4)) < 1.05
    empty = [item(n, 0.0) for n in range(40)]
    counts = [0] * 4
    sharding = Balanced(empty, 4)
    for n, one in enumerate(empty):
        counts[sharding.task(n, one)] += 1
    assert counts == [10] * 4


@given(
    st.lists(st.sampled_from([ledger.MISSING, ledger.DONE, ledger.QUARANTINED, ledger.STRUCK]), max_size=80),
    st.integers(1, 9),
    st.sampled_from(["round-robin", "balanced"]),
)
def test_by_position_an_item_has_the_same_task_whatever_is_done(states, tasks, method):
    items = [item(n, 1.0 + n % 13) for n in range(len(states))]

    def dealt(done: list[int]) -> dict[int, int]:
        sharding = Balanced(items, tasks) if method == BALANCED else RoundRobin(tasks)
        pairs = assign(items, bytearray(done), sharding, Wish(tasks, method, launches.POSITION))
        return {one.index: task for task, one in pairs}

    everything, rest = dealt([ledger.MISSING] * len(states)), dealt(states)
    assert set(rest) == {n for n, state in enumerate(states) if state in (ledger.MISSING, ledger.STRUCK)}
    assert all(everything[index] == task for index, task in rest.items())


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 9), st.one_of(st.none(), st.integers(1, 20)))
def test_only_missing_items_are_dealt_evenly_and_up_to_the_limit(done, tasks, limit):
    states = bytearray(ledger.DONE if one else ledger.MISSING for one in done)
    wish = Wish(tasks, limit=limit)
    pairs = list(assign([item(n) for n in range(len(done))], states, RoundRobin(tasks), wish))
    missing = [n for n, one in enumerate(done) if not one]
    assert [one.index for _, one in pairs] == missing[: limit if limit is not None else len(missing)]
    assert [task for task, _ in pairs] == [n % tasks for n in range(len(pairs))]


@pytest.mark.parametrize("sharding", ["round-robin", "balanced"])
def test_a_deal_holds_every_item_once_in_order(world, sharding):
    run = world.run(world.manifest(101))
    deal = run.deal(launch(run, 7, sharding=sharding))
    shares = [[one.index for one in deal.items(task)] for task in range(7)]
    assert sorted(index for share in shares for index in share) == list(range(101))
    assert all(share == sorted(share) for share in shares)
    assert [share.items for share in deal.shares] == [len(share) for share in shares]


def test_a_deal_has_room_for_a_thousand_tasks(world):
    run = world.run(world.manifest(2500))
    deal = run.deal(launch(run, 1000))
    assert sum(len(list(deal.items(task))) for task in range(1000)) == 2500


@pytest.mark.parametrize(("sharding", "warned"), [("round-robin", True), ("balanced", False)])
def test_skewed_round_robin_is_told_of(world, sharding, warned):
    rows = [{**row, "duration": 600.0 if n % 4 == 0 else 2.0} for n, row in enumerate(world.rows(64))]
    run = world.run(world.write(rows))
    told = []
    record = run.new_launch(Wish(4, sharding), say=told.append)
    assert bool(told) == warned
    assert (record.imbalance > 1.15) == warned
    if warned:
        assert "--shard balanced" in told[0]
