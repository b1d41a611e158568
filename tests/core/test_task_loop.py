"""The task loop: bad items are struck, retried alone, quarantined; good ones survive them, and their bytes too."""

from __future__ import annotations

import hashlib
import os
import random
import threading

import pytest

from pipelines.core import batch, heartbeat, inflight, journal, ledger, merge, parts, store, suspects
from pipelines.core.errors import DONE, EnvironmentNotFit, StorageError
from pipelines.core.manifest import Item
from pipelines.core.pipeline import Resources
from pipelines.core.run import Run, Wish
from pipelines.core.task import TaskLoop
from tests.core.world import World, conserved, decoded, launch, seed


def loop(run: Run, cpus: int = 1, task: int = 0, alone=()) -> int:
    return TaskLoop(run, run.launch_numbers()[-1], task, Resources(cpus), alone).work()


def failures(run: Run) -> list[tuple[str, str]]:
    return [(row.error.type, row.error.message) for _, row in run.rows() if row.status == parts.FAILED]


def worked(world: World, rows, cpus: int = 1) -> Run:
    run = world.run(world.write(rows))
    launch(run)
    assert loop(run, cpus) == DONE
    return run


@pytest.mark.parametrize("cpus", [1, 3])
@pytest.mark.parametrize("most", ["1", "4", "100"])
@pytest.mark.parametrize("part", ["1", "7", "2000"])
def test_every_item_is_processed_once_and_the_bytes_are_the_same_however_it_is_cut(
    world, monkeypatch, cpus, most, part
):
    monkeypatch.setenv("TOY_BATCH", most)
    monkeypatch.setenv("VOXARRAY_PART_ITEMS", part)
    run = worked(world, world.rows(23), cpus)
    assert world.seen() == [f"{n:05d}.wav" for n in range(23)]
    receipt = conserved(merge.merge(run))
    assert (receipt.merged, receipt.spare) == (23, 0)
    tones = [hashlib.sha256(row["audio_filepath"].encode()).hexdigest()[:12] for row in world.rows(23)]
    expected = ({**row, "tone": tone, "loud": 17.0} for row, tone in zip(world.rows(23), tones))
    assert decoded(run.manifest) == list(expected)
    assert run.manifest.read_bytes() == FIRST.setdefault("merged", run.manifest.read_bytes())
    assert sum(1 for _ in run.part_files()) >= (23 if part == "1" and most == "1" else 1)


FIRST: dict[str, bytes] = {}
"""The bytes of the first way of cutting: those of all others."""


def test_a_failing_item_gets_two_strikes_and_the_rest_is_done(world):
    rows = world.rows(10)
    rows[3]["raise"] = "no audio stream in /data/3.wav"
    run = worked(world, rows)
    assert world.seen().count("00003.wav") == 2
    assert failures(run) == [("ItemError", "no audio stream in /data/3.wav")] * 2
    receipt = conserved(merge.merge(run))
    assert (receipt.merged, receipt.quarantined) == (9, 1)
    assert receipt.signatures[0].signature == "ItemError: no audio stream in <path>"
    assert "tone" not in decoded(run.manifest)[3]
    end = heartbeat.read_end(run.state_folder(0), 0)
    assert (end.dealt, end.done, end.quarantined) == (10, 9, 1)


def test_an_item_that_fails_once_and_then_succeeds_is_done(world):
    rows = world.rows(6)
    rows[2].update({"raise": "the mount hiccuped", "once": str(world.root / "once")})
    run = worked(world, rows)
    assert len(failures(run)) == 1
    receipt = conserved(merge.merge(run))
    assert (receipt.merged, receipt.quarantined, receipt.spare) == (6, 0, 1)


@pytest.mark.parametrize(
    ("fault", "type_", "words"),
    [
        ({"batch": "cuda error"}, None, None),
        ({"short": 1}, "ValueError", "0 results for 1 items"),
        ({"odd": "object"}, "TypeError", "object"),
        ({"odd": "none"}, "TypeError", "NoneType"),
        ({"odd": "surrogate"}, "UnicodeEncodeError", "surrogates not allowed"),
        ({"sys_exit": 0}, "ItemError", "SystemExit(0)"),
    ],
)
@pytest.mark.parametrize("cpus", [1, 2])
def test_whatever_an_item_does_to_its_batch_the_others_are_done(world, fault, type_, words, cpus):
    rows = world.rows(11)
    rows[5].update(fault)
    run = worked(world, rows, cpus)
    if type_ is None:
        assert failures(run) == []
        assert conserved(merge.merge(run)).merged == 11
        return
    assert [kind for kind, _ in failures(run)] == [type_] * 2
    assert words in failures(run)[0][1]
    receipt = conserved(merge.merge(run))
    assert (receipt.merged, receipt.quarantined) == (10, 1)


@pytest.mark.parametrize("cpus", [1, 2])
@pytest.mark.parametrize("fault", ["full", "returned", "unfit"])
def test_no_item_is_blamed_for_a_fault_of_the_machine(world, fault, cpus):
    rows = world.rows(9)
    rows[4].update({"machine": fault, "once": str(world.root / "once")})
    run = world.run(world.write(rows))
    launch(run)
    with pytest.raises(EnvironmentNotFit if fault == "unfit" else StorageError):
        loop(run, cpus)
    assert failures(run) == []
    assert not list(run.state_folder(0).glob("*.inflight"))
    assert loop(run, cpus) == DONE
    receipt = conserved(merge.merge(run))
    assert (receipt.merged, receipt.quarantined) == (9, 0)


def test_a_message_with_undecodable_bytes_is_recorded():
    error = parts.error_of(OSError(2, "No such file", "/data/caf\udce9.wav"))
    assert "caf\\udce9.wav" in error.message
    assert "\\udce9" not in error.signature


def test_a_number_that_json_does_not_know_becomes_null(world):
    rows = world.rows(2)
    rows[1]["odd"] = "nan"
    run = worked(world, rows)
    merge.merge(run)
    assert decoded(run.manifest)[1]["tone"] is None


def test_a_second_attempt_does_only_what_is_left_and_retries_a_strike_alone(world):
    rows = world.rows(8)
    rows[1].update({"raise": "x", "once": str(world.root / "once")})
    run = world.run(world.write(rows))
    launch(run)
    writer = parts.PartWriter(run.parts_folder(0), run.id, 0, 0)
    dealt = list(run.deal(0).items(0))
    for item in dealt[4:]:
        writer.done(item, {"tone": "before", "loud": 0}, 1.0)
    writer.failed(dealt[1], parts.error_of(ValueError("first strike")))
    writer.publish()
    assert loop(run) == DONE
    assert world.seen() == ["00000.wav", "00001.wav", "00002.wav", "00003.wav"]
    receipt = conserved(merge.merge(run))
    assert (receipt.merged, receipt.quarantined) == (7, 1)


def test_a_pardon_voids_strikes_and_only_pardoned_items_are_dealt(world):
    rows = world.rows(5)
    rows[4].update({"raise": "x", "once": str(world.root / "once")})
    run = world.run(world.write(rows))
    launch(run)
    part = parts.PartWriter(run.parts_folder(0), run.id, 0, 0)
    for _ in range(2):
        part.failed(list(run.deal(0).items(0))[4], parts.error_of(ValueError("x")))
    part.publish()
    loop(run)
    assert run.new_launch(Wish(1)) is None
    (world.root / "once").touch()
    number = launch(run, pardon=True)
    assert [item.index for item in run.deal(number).items(0)] == [4]
    assert loop(run) == DONE
    assert conserved(merge.merge(run)).merged == 5
    assert run.new_launch(Wish(1, pardon=True)) is None, "there is nobody left to pardon"


def test_parts_roll_by_time_and_the_end_receipt_comes_last(world, monkeypatch):
    monkeypatch.setenv("VOXARRAY_PART_S", "0")
    run = worked(world, world.rows(9))
    assert sum(1 for _ in run.part_files()) == 3
    left = {path.name for path in run.state_folder(0).iterdir()}
    assert left == {"task_0000.heartbeat.json", "task_0000.end.json"}


def test_the_heartbeat_tells_what_the_task_did(world):
    rows = world.rows(7)
    rows[0]["raise"] = "x"
    run = worked(world, rows)
    beat = heartbeat.read(run.state_folder(0), 0)
    assert (beat.state, beat.dealt, beat.done, beat.failed) == ("finished", 7, 6, 2)
    assert beat.pid == os.getpid()
    assert beat.audio_seconds == sum(row["duration"] for row in rows[1:])
    assert beat.audio_seconds_dealt == sum(row["duration"] for row in rows)
    assert beat.time >= beat.started


def test_a_breadcrumb_names_what_is_in_flight_until_it_has_left(tmp_path):
    crumb = inflight.Breadcrumb(tmp_path, 3, 2)
    crumb.enter(0, [4, 5, 6], alone=False)
    crumb.enter(1, [70], alone=True)
    (found,) = inflight.left_behind(tmp_path, 3)
    assert (found.indexes, found.alone) == ([4, 5, 6, 70], True)
    crumb.leave(1)
    crumb.enter(0, [5], alone=False)
    (found,) = inflight.left_behind(tmp_path, 3)
    assert (found.indexes, found.alone) == ([5], False)
    assert list(inflight.left_behind(tmp_path, 30)) == []
    crumb.close()
    assert list(inflight.left_behind(tmp_path, 3)) == []


def test_a_batch_that_outlives_its_breadcrumb_writes_into_no_other_file(tmp_path):
    crumb = inflight.Breadcrumb(tmp_path / "state", 0, 2)
    crumb.enter(1, [1], alone=False)
    crumb.close()
    path = tmp_path / "part"
    with path.open("wb") as file:  # gets the number of the closed file
        late = threading.Thread(target=lambda: (crumb.leave(1), crumb.enter(0, [9], alone=True)))
        late.start()
        late.join()
        file.write(b"whole")
    assert path.read_bytes() == b"whole"


def test_a_batch_of_thousands_fits_its_slot_and_is_cut_to_whole_suspects(tmp_path):
    crumb = inflight.Breadcrumb(tmp_path, 0, 2)
    crumb.enter(0, list(range(10**6, 10**6 + 5000)), alone=False)
    crumb.enter(1, [7], alone=False)
    (found,) = inflight.left_behind(tmp_path, 0)
    assert 7 in found.indexes
    assert len(found.indexes) > 1000


def test_batches_end_by_number_and_by_seconds():
    chance = random.Random(seed())
    items = [item(number, chance.choice([None, 0.5, 3.0, 40.0])) for number in range(200)]
    batches = list(batch.cut(iter(items), 5, 10.0))
    assert [one for held in batches for one in held] == items
    for held in batches[:-1]:
        seconds = [item.duration or 0.0 for item in held]
        assert len(held) == 5 or sum(seconds) >= 10
        assert sum(seconds[:-1]) < 10


def item(index, duration):
    return Item(index, f"{index:016x}", f"/{index}", duration, 0.0, b"{}")


def test_a_torn_journal_is_read_to_its_tear(tmp_path):
    book = journal.Journal(tmp_path, 0)
    entries = [journal.Entry(n, 1.5, n % 2 == 0, b'{"index":%d,"text":"a b"}' % n) for n in range(6)]
    book.add(entries[:2])
    book.add(entries[2:])
    (path,) = journal.left_behind(tmp_path, 0)
    assert journal.read(path) == entries
    whole = path.read_bytes()
    ends = [position + 1 for position, byte in enumerate(whole) if byte == 10]
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        found = journal.read(path)
        complete = sum(end <= length + 1 for end in ends)  # a row that lacks but its newline is whole
        assert found == entries[:complete]
    book.clear()
    assert journal.read(path) == []
    book.close()
    assert list(journal.left_behind(tmp_path, 0)) == []


@pytest.mark.parametrize("killed", ["before the part", "after the part", "after the part was adopted"])
def test_rows_of_a_dead_attempt_are_recovered_once(world, monkeypatch, killed):
    """A row that is in the journal and in a part must not count twice: a second strike would quarantine the item."""
    run = world.run(world.manifest(4))
    launch(run)
    items = list(run.deal(0).items(0))
    writer = parts.PartWriter(run.parts_folder(0), run.id, 0, 0)
    writer.journal = journal.Journal(run.state_folder(0), 0)
    writer.done(items[2], {"tone": "x"}, 1.0)
    writer.failed(items[0], parts.error_of(ValueError("one strike")))
    writer.keep()
    if killed == "after the part":
        monkeypatch.setattr(writer.journal, "clear", lambda: None)
        writer.publish()
    (path,) = journal.left_behind(run.state_folder(0), 0)
    kept = path.read_bytes()
    monkeypatch.setattr(store, "ATTEMPT", "node-1-00000002")
    suspects.question(run, 0, 0, seen=None)
    if killed == "after the part was adopted":
        path.write_bytes(kept)  # the adopter died before it could remove the journal
        monkeypatch.setattr(store, "ATTEMPT", "node-1-00000003")
        suspects.question(run, 0, 0, seen=None)
    assert not list(journal.left_behind(run.state_folder(0), 0))
    with run.scan() as scan:
        account = run.account(scan)
    assert list(account.states) == [ledger.STRUCK, ledger.MISSING, ledger.DONE, ledger.MISSING]
    assert sum(1 for _ in run.rows()) == 2
