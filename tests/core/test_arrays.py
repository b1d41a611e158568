"""Plain sbatch arrays, with Slurm's variables and no Slurm: from nothing, repaired, resized, the manifest growing."""

from __future__ import annotations

import os
import signal
import time

import pytest

from pipelines.core import heartbeat, merge
from tests.core.world import World, array_launch, conserved, decoded, slurm_task, tree


def names(*numbers: int) -> list[str]:
    return [f"{n:05d}.wav" for n in numbers]


def test_an_array_from_nothing_lists_deals_works_and_merges_once(world):
    path = world.manifest(41)
    plain = world.undisturbed(world.rows(41))
    answers = world.array("700", range(4), path)
    assert [status for status, _ in answers] == [0, 0, 0, 0], answers
    assert world.seen() == names(*range(41))
    run = world.run(path)
    (record,) = run.records()
    assert (record.tasks, record.deal, record.job, record.submitted_tasks) == (4, "position", "700", 4)
    assert conserved(merge.last_receipt(run)).merged == 41
    assert path.read_bytes() == plain
    assert sum("41 items = 41 merged" in said for _, said in answers) >= 1
    for task in range(4):
        end = heartbeat.read_end(run.state_folder(0), task)
        assert end.dealt == len(range(task, 41, 4))
        assert end.job == f"700_{task}"


def test_an_array_over_a_directory_from_nothing_uses_one_listing(world):
    source = world.root / "audio"
    for number in range(30):
        (source / str(number % 4)).mkdir(parents=True, exist_ok=True)
        (source / str(number % 4) / f"{number}.wav").write_bytes(b"x" * number)
    answers = world.array("700", range(4), source, world.root / "out", pipeline="chime")
    assert [status for status, _ in answers] == [0, 0, 0, 0], answers
    rows = decoded(next(world.home.rglob("listing.jsonl")))
    assert [row["audio_filepath"] for row in rows] == sorted(map(str, source.rglob("*.wav")))
    assert [row["bytes"] for row in rows] == [int(row["audio_filepath"].split("/")[-1][:-4]) for row in rows]
    assert len(list(world.home.rglob("launch-*.json"))) == 1


def dead(world: World, path, task: int, count: int) -> None:
    """Run a task of array 900 until it has seen some items, then kill it and its worker."""
    slow = {"TOY_NAP": "0.03", "TOY_BATCH": "1", "VOXARRAY_PART_ITEMS": "1"}
    process = world.start(path, **slurm_task("900", range(16), task), **slow)
    seen = world.root / "seen"
    while not seen.exists() or len(seen.read_text().split()) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    world.seen()


@pytest.mark.parametrize(
    ("broken", "repair"), [({5: 1}, [5]), ({0: 1, 5: 2, 12: 1}, [0, 5, 12]), ({5: 1, 7: 0}, [5]), ({5: 1}, [3, 5])]
)
def test_repairs_redo_exactly_what_those_tasks_lack(world, broken, repair):
    """`broken`: how many items each dead task had seen; 0: it never ran."""
    path = world.manifest(16 * 4)
    plain = world.undisturbed(world.rows(16 * 4))
    whole = [task for task in range(16) if task not in broken]
    run = world.run(path)
    array_launch(run, "900", 16, whole)
    world.seen()
    for task, count in broken.items():
        if count:
            dead(world, path, task, count)
    done = {row.index for _, row in run.rows()}
    answers = world.array("901", repair, path)
    assert {status for status, _ in answers} == {0}, answers
    lacking = [index for index in range(64) if index % 16 in repair and index not in done]
    processed = world.seen()
    assert set(processed) <= set(names(*lacking)), "something was done twice"
    assert len(processed) >= len(lacking) - len(repair), "journals hold at most what was in flight"
    after = {row.index for _, row in run.rows()}
    assert after == done | set(lacking)
    left = [task for task in broken if task not in repair]
    if left:
        assert not (run.folder / "merged.json").exists()
        assert any(f"--array={','.join(map(str, left))}" in said for _, said in answers), answers
        answers = world.array("902", left, path)
        assert {status for status, _ in answers} == {0}, answers
    assert conserved(merge.last_receipt(run)).merged == 64
    assert path.read_bytes() == plain


def test_the_number_of_tasks_is_remembered_and_a_first_array_with_gaps_must_say_it(world):
    path = world.manifest(24)
    ((status, said),) = world.array("1", [3], path)
    assert status == 2
    assert "does not say how many there are" in said
    assert "Traceback" not in said
    ((status, said),) = world.array("2", [3], path, "6")
    assert (status, world.seen()) == (0, names(3, 9, 15, 21)), said
    ((status, said),) = world.array("3", [4], path)
    assert (status, world.seen()) == (0, names(4, 10, 16, 22)), said
    assert [record.tasks for record in world.run(path).records()] == [6, 6]


def test_a_task_that_does_not_exist_is_a_usage_error_and_the_rest_still_merges(world):
    path = world.manifest(8)
    array_launch(world.run(path), "1", 4, [0, 1])
    answers = world.array("2", range(6), path)
    assert [status for status, _ in answers] == [0, 0, 0, 0, 2, 2], answers
    assert "has 4 tasks, 0 to 3" in answers[5][1]
    assert conserved(merge.last_receipt(world.run(path))).merged == 8


def test_dealing_over_another_number_does_only_what_is_missing(world):
    path = world.manifest(48)
    plain = world.undisturbed(world.rows(48))
    array_launch(world.run(path), "1", 16, [0, 1, 2, 3, 8])
    done = [index for index in range(48) if index % 16 in (0, 1, 2, 3, 8)]
    assert world.seen() == names(*done)
    answers = world.array("2", range(4), path, "4")
    assert {status for status, _ in answers} == {0}, answers
    assert world.seen() == names(*(index for index in range(48) if index not in done))
    assert [record.tasks for record in world.run(path).records()] == [16, 4]
    assert path.read_bytes() == plain


def test_the_repair_that_a_merge_names_after_a_resize_is_the_one_that_works(world):
    path = world.manifest(24)
    run = world.run(path)
    array_launch(run, "1", 8, [1, 3])
    array_launch(run, "2", 4, [0, 1, 2])
    status, said = world.command(run.id, pipeline="merge")
    assert status == 1
    assert "--array=3 " in said, said
    world.array("3", [3], path)
    assert conserved(merge.last_receipt(run)).merged == 24


def test_a_manifest_that_grew_has_only_its_new_items_done(world):
    path = world.manifest(20)
    array_launch(world.run(path), "1", 4, range(4))
    merge.merge(world.run(path))
    world.seen()
    merged = path.read_text().splitlines(keepends=True)
    grown = [*merged[:7], '{"audio_filepath": "/corpus/new.wav", "duration": 1}\n', *merged[7:]]
    path.write_text("".join(grown))
    answers = world.array("2", range(4), path)
    assert {status for status, _ in answers} == {0}, answers
    assert world.seen() == ["new.wav"]
    rows = decoded(path)
    assert [row["audio_filepath"] for row in rows][7] == "/corpus/new.wav"
    assert all("tone" in row for row in rows)


def test_a_manifest_that_grows_during_an_array_is_named_and_the_next_one_does_the_rest(world):
    path = world.manifest(12)
    array_launch(world.run(path), "1", 3, [0, 1])
    with path.open("a") as file:
        file.write('{"audio_filepath": "/corpus/new.wav", "duration": 1}\n')
    ((status, said),) = world.array("1", range(3), path, only=[2])
    assert status == 0, said
    assert "changed since launch 0" in said
    assert "12 items then, 13 now" in said
    assert not (world.run(path).folder / "merged.json").exists()
    assert {status for status, _ in world.array("2", range(3), path)} == {0}
    assert conserved(merge.last_receipt(world.run(path))).merged == 13


def test_balanced_arrays_are_repaired_as_they_were_dealt(world):
    rows = [{**row, "duration": 100.0 if n % 5 == 0 else 1.0} for n, row in enumerate(world.rows(40))]
    path = world.write(rows)
    world.array("1", range(4), path, "--shard", "balanced", only=[0, 1, 3])
    world.seen()
    run = world.run(path)
    lacking = [item.index for item in run.deal(0).items(2)]
    ((status, said),) = world.array("2", [2], path)
    assert status == 0, said
    assert world.seen() == names(*lacking)
    assert conserved(merge.last_receipt(run)).merged == 40


def test_without_links_and_without_locks_an_array_from_nothing_is_right_all_the_same(world):
    path = world.manifest(30)
    answers = world.array("1", range(3), path, TOY_NO_LINKS="1", TOY_NO_LOCKS="1", TOY_NAP="0.005")
    assert {status for status, _ in answers} == {0}, answers
    status, said = world.command(world.run(path).id, pipeline="merge")
    assert status == 0, said
    receipt = conserved(merge.last_receipt(world.run(path)))
    assert (receipt.merged, receipt.differing) == (30, 0)


def test_partial_merges_say_so_and_change_nothing_of_what_comes_later(world):
    path = world.manifest(20)
    plain = world.undisturbed(world.rows(20))
    run = world.run(path)
    array_launch(run, "1", 2, [0])
    status, said = world.command(run.id, "--partial", pipeline="merge")
    assert status == 0, said
    assert merge.last_receipt(run).partial
    assert "PARTIAL" in merge.summary(merge.last_receipt(run))
    assert sum("tone" in row for row in decoded(path)) == 10
    world.array("2", [1], path)
    assert path.read_bytes() == plain
    assert not merge.last_receipt(run).partial


def test_nothing_but_the_runs_own_files_is_touched(world):
    path = world.manifest(10)
    notes = world.home / "metadata" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("mine")
    (world.root / "audio.wav").write_bytes(b"RIFF")
    before = tree(world.root)
    original = path.read_bytes()
    assert {status for status, _ in world.array("1", range(2), path)} == {0}
    after = tree(world.root)
    run = world.run(path)
    changed = {name for name in after if before.get(name) != after[name]}
    own = ("home/output/runs/" + run.id, "home/logs/" + run.id, "home/output/locks/")
    assert {name for name in changed if not name.startswith(own)} == {"corpus.json", "corpus.json.bak", "seen"}
    assert set(before) <= set(after)
    assert after["corpus.json.bak"] == original


@pytest.mark.parametrize("tasks", ["0", "-3"])
def test_an_impossible_number_of_tasks_is_a_usage_error(world, tasks):
    path = world.manifest(3)
    for arguments, slurm in (((path, "--tasks", tasks), {}), ((path, "--tasks", tasks), slurm_task("1", [0], 0))):
        status, said = world.command(*arguments, **slurm)
        assert status == 2
        assert "must be 1 or more" in said
        assert "Traceback" not in said
