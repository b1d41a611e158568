"""Files of a run that the file system damaged or somebody edited: named, with what to do, and never believed."""

from __future__ import annotations

import random

import pytest

from pipelines.core import heartbeat, inflight, launches, lock, merge, suspects
from pipelines.core.errors import StorageError, VoxarrayError
from pipelines.core.run import Run, Wish
from tests.core.world import conserved, launch, seed, settle


@pytest.fixture
def run(world):
    made = world.run(world.manifest(12))
    launch(made, 3)
    settle(made, 0)
    return made


def test_a_torn_deal_is_named_at_whatever_length(run):
    path = launches.deal_path(run.folder, 0)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(StorageError, match="deals anew"):
            [list(run.deal(0).items(task)) for task in range(3)]
    path.unlink()
    with pytest.raises(StorageError, match="deals anew"):
        run.deal(0)


def test_a_changed_byte_in_a_deal_ends_in_no_traceback(run):
    path = launches.deal_path(run.folder, 0)
    whole, chance = path.read_bytes(), random.Random(seed())
    for _ in range(300):
        place = chance.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << chance.randrange(8))]) + whole[place + 1 :])
        try:
            [list(run.deal(0).items(task)) for task in range(len(run.deal(0).shares))]
        except VoxarrayError:
            continue


def test_an_edited_record_and_an_edited_plan_are_named(run):
    record = launches.record_path(run.folder, 0)
    record.write_text(record.read_text()[:50])
    with pytest.raises(StorageError, match="changed by hand or damaged"):
        run.records()
    plan = run.folder / "run.json"
    plan.write_text("{}")
    with pytest.raises(StorageError, match="--fresh"):
        Run.open(run.id)


def test_a_damaged_part_stops_the_merge_and_moved_away_its_items_are_redone(run):
    (path,) = (path for _, task, path in run.part_files() if task == 1)
    path.write_bytes(path.read_bytes().replace(b'"done"', b'"dome"', 1))
    original = run.manifest.read_bytes()
    for reading in (lambda: merge.merge(run), lambda: run.new_launch(Wish(2))):
        with pytest.raises(StorageError, match="is damaged") as caught:
            reading()
        assert str(path) in str(caught.value)
    assert run.manifest.read_bytes() == original
    path.rename(path.with_name(f"{path.name}.damaged"))
    number = launch(run, 2)
    dealt = [item.index for task in (0, 1) for item in run.deal(number).items(task)]
    assert sorted(dealt) == [1, 4, 7, 10]
    settle(run, number)
    assert conserved(merge.merge(run)).merged == 12


def test_a_lost_receipt_costs_a_backup_at_most(run):
    merge.merge(run)
    merged = run.manifest.read_bytes()
    (run.folder / "merged.json").write_text("{")
    assert merge.last_receipt(run) is None
    merge.merge(run)
    assert run.manifest.read_bytes() == merged
    assert len(list(run.manifest.parent.glob("*.bak*"))) == 1


@pytest.mark.parametrize("torn", [b"", b"{", b'{"task": 0}'])
def test_torn_heartbeats_and_receipts_are_none_at_all(run, torn):
    run.state_folder(0).mkdir(parents=True)
    heartbeat.heartbeat_path(run.state_folder(0), 0).write_bytes(torn)
    heartbeat.end_path(run.state_folder(0), 0).write_bytes(torn)
    assert heartbeat.read(run.state_folder(0), 0) is None
    assert heartbeat.read_end(run.state_folder(0), 0) is None


@pytest.mark.parametrize("torn", [b"", b"alone ", b"alone 1 2\n", b"\xff\xfe 1\n", b"7" * 9000], ids=range(5))
def test_torn_breadcrumbs_blame_nobody(run, torn):
    run.state_folder(0).mkdir(parents=True)
    path = run.state_folder(0) / "task_0000.n1-1-0badcafe.inflight"
    path.write_bytes(torn)
    suspects.question(run, 0, 0, seen=None)
    assert not path.exists()
    assert not [row for _, row in run.rows() if row.error]


def test_what_a_live_attempt_has_in_flight_is_left_alone(run):
    crumb = inflight.Breadcrumb(run.state_folder(0), 1, 1)
    crumb.enter(0, [1], alone=True)
    with lock.held(run.state_folder(0) / "task_0001.lock", 0, "a live attempt"):
        assert suspects.of_earlier_launches(run) == []
        assert len(list(inflight.left_behind(run.state_folder(0), 1))) == 1
    assert len(suspects.of_earlier_launches(run)) == 1
    assert not list(inflight.left_behind(run.state_folder(0), 1))


def test_a_number_whose_claimer_died_is_skipped(world):
    run = world.run(world.manifest(4))
    launches.deal_path(run.folder, 0).write_bytes(b"")
    launches.deal_path(run.folder, 1).write_bytes(b"left by a launcher that died before it wrote its record")
    assert launch(run) == 2
    assert run.launch_numbers() == [2]
