"""Spools, key joins and external sorting against the naive models that hold everything in memory."""

from __future__ import annotations

import io
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.core.extsort import sorted_lines
from pipelines.core.spool import KeyBuckets, Spool, join
from tests.core.world import seed

additions = st.lists(st.tuples(st.integers(0, 6), st.binary(min_size=1, max_size=900)), max_size=120)


@given(additions, st.integers(0, 100))
def test_a_spool_returns_each_buckets_bytes_in_order_while_it_grows_and_after(added, start):
    file = io.BytesIO(b"\0" * start)
    file.seek(start)
    spool = Spool(file, 7, start, memory=1)  # the smallest blocks there are
    expected = [b""] * 7
    for number, (bucket, data) in enumerate(added):
        spool.add(bucket, data)
        expected[bucket] += data
        if number % 10 == 0:
            assert b"".join(spool.read(bucket)) == expected[bucket]
    assert [b"".join(spool.read(bucket)) for bucket in range(7)] == expected
    end = spool.finish()
    assert end == start + sum(map(len, expected))
    whole = file.getvalue()
    pieces = [[whole[offset : offset + length] for offset, length in extents] for extents in spool.extents]
    assert [b"".join(piece) for piece in pieces] == expected


@given(st.lists(st.integers(2, 700), max_size=60))
def test_what_is_added_at_once_is_never_split_between_blocks(sizes):
    file = io.BytesIO()
    spool = Spool(file, 1, memory=1)
    for size in sizes:
        spool.add(0, b"x" * (size - 1) + b"\n")
    spool.finish()
    assert all(file.getvalue()[offset + length - 1 : offset + length] == b"\n" for offset, length in spool.extents[0])


keys = st.one_of(st.integers(0, 40), st.integers(0, 2**64 - 1)).map(lambda number: f"{number:016x}")
pairs = st.lists(st.tuples(keys, st.integers(0, 2**40)), max_size=80)


def filled(entries):
    buckets = KeyBuckets()
    for key, number in entries:
        buckets.add(key, number)
    return buckets


@settings(max_examples=40)
@given(pairs, pairs.map(lambda entries: list(dict(entries).items())))
def test_a_join_is_the_naive_join(left, right):
    with filled(left) as one, filled(right) as two:
        found = sorted(join(one, two), key=repr)
    naive = dict(right)
    assert found == sorted(((number, naive.get(key)) for key, number in left), key=repr)


@settings(max_examples=40)
@given(pairs, st.integers(0, 12))
def test_duplicates_are_the_naive_duplicates(entries, limit):
    first, naive = {}, []
    for key, number in entries:
        if key in first:
            naive.append((first[key], number))
        else:
            first[key] = number
    with filled(entries) as buckets:
        found = list(buckets.duplicates(limit))
        count = buckets.duplicate_count
    assert count == len(naive)
    assert len(found) == min(limit, len(naive))
    assert not set(found) - set(naive)


def test_a_join_of_many_keys():
    chance = random.Random(seed())
    universe = [f"{chance.getrandbits(64):016x}" for _ in range(30_000)]
    with filled((key, n) for n, key in enumerate(universe)) as right:
        wanted = [(chance.choice(universe), n) for n in range(50_000)]
        place = {key: n for n, key in enumerate(universe)}
        with filled(wanted) as left:
            assert sorted(join(left, right)) == [(n, place[key]) for key, n in wanted]


@given(
    st.lists(st.binary(max_size=12).map(lambda data: data.replace(b"\n", b"/") + b"\n"), max_size=200),
    st.integers(1, 50),
)
def test_external_sorting_is_sorting(lines, chunk):
    assert list(sorted_lines(iter(lines), chunk)) == sorted(lines)


def test_external_sorting_of_lines_longer_than_a_block():
    chance = random.Random(seed())
    lines = [bytes([chance.randrange(65, 91)]) * chance.randrange(1, 200_000) + b"\n" for _ in range(40)]
    assert list(sorted_lines(iter(lines), 7)) == sorted(lines)
