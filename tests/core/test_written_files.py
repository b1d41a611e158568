"""Pipelines that write a file for each item: no two share one, and what is gone or changed counts as missing."""

from __future__ import annotations

import pytest

from pipelines.core import merge, registry
from pipelines.core.errors import DONE, IncompleteRunError, ManifestError
from pipelines.core.pipeline import Resources
from pipelines.core.run import Wish
from pipelines.core.task import TaskLoop
from tests.core.world import World, conserved, decoded, launch


@pytest.fixture
def world(tmp_path):
    with World(TOY_PAGES=str(tmp_path / "pages")) as made:
        yield made


def scribe(world, manifest, **parameters):
    return world.run(manifest, "scribe", name="book", pen="quill", **parameters)


def work(run, number, tasks=1):
    for task in range(tasks):
        assert TaskLoop(run, number, task, Resources()).work() == DONE


def pages(tmp_path):
    return sorted((tmp_path / "pages" / "book").glob("*.txt"))


def test_files_that_vanish_or_change_are_written_again_and_no_others(world, tmp_path):
    run = scribe(world, world.manifest(10))
    work(run, launch(run, 2), 2)
    conserved(merge.merge(run))
    found = pages(tmp_path)
    before = [page.read_bytes() for page in found]
    world.seen()
    assert run.new_launch(Wish(2)) is None, "nothing is missing"
    found[2].unlink()
    found[7].write_bytes(b"cut")
    with pytest.raises(IncompleteRunError, match="2 of"):
        merge.merge(run)
    work(run, launch(run, 3), 3)
    assert world.seen() == ["00002.wav", "00007.wav"]
    receipt = conserved(merge.merge(run))
    assert (receipt.merged, receipt.spare) == (10, 2)
    assert [page.read_bytes() for page in pages(tmp_path)] == before


def test_a_task_that_comes_back_does_again_what_was_lost_meanwhile(world, tmp_path):
    run = scribe(world, world.manifest(6))
    number = launch(run)
    loop = TaskLoop(run, number, 0, Resources())
    assert loop.work() == DONE
    (run.state_folder(number) / "task_0000.end.json").unlink()
    pages(tmp_path)[1].unlink()
    world.seen()
    work(run, number)
    assert world.seen() == ["00001.wav"]
    conserved(merge.merge(run))


def test_a_grown_manifest_keeps_what_is_whole(world, tmp_path):
    rows = world.rows(8)
    run = scribe(world, world.write(rows[:5]))
    work(run, launch(run))
    pages(tmp_path)[0].unlink()
    world.write(rows)
    world.seen()
    work(run, launch(run))
    assert world.seen() == ["00000.wav", "00005.wav", "00006.wav", "00007.wav"]
    conserved(merge.merge(run))


def test_items_of_one_name_are_refused_before_anything_is_done(world, tmp_path):
    rows = world.rows(3)
    rows[2]["audio_filepath"] = "/elsewhere/00000.flac"
    path = world.write(rows)
    for status, said in (world.command(path, "book", pipeline="scribe") for _ in range(2)):
        assert status == 2
        assert "items 1 and 3 (/corpus/00000.wav, /elsewhere/00000.flac) -> book/00000.txt" in said
    assert not (tmp_path / "pages").exists()


def test_items_that_can_have_no_name_are_refused(world):
    rows = world.rows(3)
    rows[1]["audio_filepath"] = "/corpus/nameless.wav"
    run = scribe(world, world.write(rows))
    with pytest.raises(ManifestError, match=r"For 1 items .* has no name\. .* item 2: /corpus/nameless.wav"):
        launch(run)


def test_items_may_have_no_file_at_all(world):
    rows = world.rows(3)
    rows[1]["audio_filepath"], rows[2]["audio_filepath"] = "/a/silent.wav", "/b/silent.wav"
    scribe(world, world.write(rows)).scan().close()


def test_operands_of_the_pipeline_come_before_the_number_of_tasks(world, tmp_path):
    manifest = world.manifest(4)
    status, said = world.command(manifest, "book", "2", "--pen", "quill", pipeline="scribe")
    assert status == 0, said
    (record,) = scribe(world, manifest).records()
    assert record.tasks == 2
    assert len(pages(tmp_path)) == 4
    assert {"path", "bytes"} <= set(decoded(manifest)[0])


def test_the_environment_may_depend_on_a_parameter(world):
    manifest = world.manifest(1)
    pipeline = registry.find("scribe")
    assert pipeline.environment_for({"pen": "quill"}) == "vad"
    assert pipeline.environment_for({"pen": "brush"}) == "test"
    run = world.run(manifest, "scribe", name="book", pen="brush")
    assert run.plan.environment.name == "test"
