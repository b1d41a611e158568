"""Parts: what is published is read back whatever the block size; damage is found; empty names are no parts."""

from __future__ import annotations

import json
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.core import parts, store
from pipelines.core.errors import StorageError, signature
from pipelines.core.manifest import Item, key_of
from pipelines.core.parts import DONE, FAILED, PartWriter
from tests.core.world import World, seed

texts = st.text(max_size=20)
values = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), texts
)
results = st.dictionaries(texts, st.one_of(values, st.lists(values, max_size=3)), max_size=4)
outcomes = st.lists(st.one_of(results, texts.map(ValueError)), min_size=1, max_size=30)


def item(index: int) -> Item:
    path = f"/corpus/{index}.wav"
    return Item(index, key_of(path, 0.0), path, 2.0, 0.0, b'{"audio_filepath":"%s"}' % path.encode())


def written(folder, made, shuffle: random.Random):
    writer = PartWriter(folder, "run-1", 0, 3)
    order = list(enumerate(made))
    shuffle.shuffle(order)
    for index, outcome in order:
        if isinstance(outcome, Exception):
            writer.failed(item(index), parts.error_of(outcome))
        else:
            writer.done(item(index), outcome, 2.0)
    path = writer.publish()
    assert path is not None
    return path


@given(outcomes, st.integers(1, 300), st.randoms())
def test_what_was_published_is_read_back_in_order_whatever_the_block(made, block, shuffle):
    with World() as world:
        path = written(world.root, made, shuffle)
        rows = list(parts.rows(path, block))
        header = parts.read_header(path)
    assert [row.index for row in rows] == list(range(len(made)))
    for row, outcome in zip(rows, made):
        assert row.key == item(row.index).key
        if isinstance(outcome, Exception):
            assert (row.status, row.error.type) == (FAILED, "ValueError")
            assert row.error.message == (str(outcome).strip() or "ValueError")
        else:
            assert (row.status, json.loads(bytes(row.result))) == (DONE, outcome)
    failed = sum(isinstance(outcome, Exception) for outcome in made)
    assert (header.rows, header.failed, header.first, header.last) == (len(made), failed, 0, len(made) - 1)
    assert header.audio_seconds == 2.0 * (len(made) - failed)
    assert (header.run, header.launch, header.task, header.sequence) == ("run-1", 0, 3, 0)


def test_every_damaged_byte_and_every_torn_tail_is_found(tmp_path):
    path = written(tmp_path, [{"text": f"wörd {n}"} for n in range(6)], random.Random(seed()))
    whole = path.read_bytes()
    header = whole.index(b"\n") + 1
    assert zlib.crc32(whole[header:]) == parts.read_header(path).crc32
    for position in range(header, len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(StorageError, match="is damaged"):
            list(parts.rows(path, 64))
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(StorageError, match="Move it away"):
            list(parts.rows(path, 64))
    path.write_bytes(whole + whole[header:])
    with pytest.raises(StorageError, match="12 rows of 6"):
        list(parts.rows(path))


def test_a_reserved_name_is_no_part_yet(tmp_path):
    (tmp_path / "task_0003.000.jsonl").write_bytes(b"")
    assert parts.read_header(tmp_path / "task_0003.000.jsonl") is None
    assert list(parts.rows(tmp_path / "task_0003.000.jsonl")) == []
    assert written(tmp_path, [{}], random.Random(0)).name == "task_0003.001.jsonl"


def test_sequence_numbers_go_on_and_a_twin_takes_the_next_one(tmp_path):
    names = [written(tmp_path, [{}], random.Random(0)).name for _ in range(3)]
    assert names == [f"task_0003.00{n}.jsonl" for n in range(3)]
    late, twin = PartWriter(tmp_path, "run-1", 0, 3), PartWriter(tmp_path, "run-1", 0, 3)
    real, calls = parts.next_sequence, []

    def stale(folder, task):  # the twin publishes after this attempt has looked for a free number
        number = real(folder, task)
        if not calls:
            calls.append(number)
            twin.done(item(0), {"from": "twin"}, 1.0)
            twin.publish()
        return number

    late.done(item(0), {"from": "late"}, 1.0)
    parts.next_sequence = stale
    try:
        path = late.publish()
    finally:
        parts.next_sequence = real
    assert path.name == "task_0003.004.jsonl"
    both = [json.loads(bytes(row.result)) for _, _, part in parts.list_parts(tmp_path) for row in parts.rows(part)]
    assert both[-2:] == [{"from": "twin"}, {"from": "late"}]
    assert parts.read_header(path).sequence == 4


def test_only_published_parts_are_listed_by_number_not_by_letters(tmp_path):
    for name in (
        "task_0010.1000.jsonl",
        "task_0010.999.jsonl",
        "task_0002.000.jsonl",
        ".task_0001.000.jsonl.n1-1-0badcafe-0000.tmp",
        "task_0001.000.jsonl.damaged",
        "task_0001.jsonl",
        "notes.txt",
    ):
        (tmp_path / name).write_bytes(b"x")
    assert [(task, number) for task, number, _ in parts.list_parts(tmp_path)] == [(2, 0), (10, 999), (10, 1000)]
    assert parts.list_parts(tmp_path / "nothing") == []


def test_a_part_that_could_not_be_published_is_kept_for_the_next_try(tmp_path, monkeypatch):
    writer = PartWriter(tmp_path, "run-1", 0, 3)
    writer.done(item(0), {"a": 1}, 1.0)
    real = store.publish

    def refuse(path, data):
        raise StorageError("full")

    monkeypatch.setattr(store, "publish", refuse)
    with pytest.raises(StorageError):
        writer.publish()
    monkeypatch.setattr(store, "publish", real)
    assert writer.rows == 1
    assert [row.index for row in parts.rows(writer.publish())] == [0]
    assert writer.publish() is None


def test_causes_group_whatever_their_particulars():
    one = signature("OSError", "cannot read /data/a b/1.wav at 0x7f00aa: 17 bytes of 9000\nTraceback …")
    two = signature("OSError", "cannot read /data/a b/99.flac at 0x11: 3 bytes of 44")
    assert one == two
    assert signature("OSError", "") == "OSError: "
    assert len(signature("E", "x" * 5000)) == 200
