"""Where a VAD run's outputs go, and what stands there after another run wrote to the same place."""

from __future__ import annotations

import json
import os
from pathlib import Path
from unittest import mock

import pytest

from pipelines.core import clock, merge
from pipelines.core.errors import UsageError
from pipelines.core.run import Run
from pipelines.vad import PIPELINE
from pipelines.vad.columns import COLUMNS
from tests.core.world import World, finish, launch

FIGURES = dict.fromkeys(COLUMNS, 1.0)


@pytest.fixture
def world():
    with World() as made:
        yield made


def corpus(world, name: str, *files: str) -> Path:
    folder = world.root / name
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).write_bytes(b"x")
    return folder


def vad(source: Path, stem: Path | None = None, threshold: float = 0.5, **more: object) -> Run:
    return Run.create(PIPELINE, source, stem, {"onset": threshold, **more})


def done(run: Run, segments: list, **more: object) -> merge.Receipt:
    """What the command does: the run's items, where they are missing, and the merge, where it is due."""
    if not run.launch_numbers():
        number = launch(run)
        finish(run, number, run.deal(number).items(0), duration=2.0, segments=segments, **FIGURES)
    return merge.merge(run, if_due=True)


def rows(run: Run) -> list[dict]:
    lines = Path(run.plan.outputs + "_segments.json").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_run_whose_files_another_run_replaced_writes_them_anew_and_says_so(world):
    source, stem = corpus(world, "wav", "a.wav", "b.wav"), world.root / "out" / "res"
    first, second = vad(source, stem), vad(source, stem, 0.95)
    assert not done(first, [[0.0, 1.0]]).notes
    (note,) = done(second, []).notes
    assert first.id in note
    assert f"{stem}_segments.json (kept as res_segments.json.bak)" in note
    manifest = Path(f"{stem}.json")
    manifest.write_text(manifest.read_text().replace("}", ',"text":"x"}'))
    again = done(first, [])
    assert len(rows(first)) == 2
    assert second.id in again.notes[0]
    assert "with all that was added to it since" in merge.summary(again)
    assert '"text"' in manifest.with_name("res.json.bak").read_text()
    assert done(first, []) == again, "what was written anew is not taken from this run again"


def test_what_later_pipelines_added_and_runs_elsewhere_do_not_make_a_merge_due(world):
    source = corpus(world, "wav", "a.wav")
    run = vad(source, world.root / "one")
    receipt = done(run, [[0.0, 1.0]])
    done(vad(source, world.root / "two"), [])
    manifest = Path(run.plan.outputs + ".json")
    manifest.write_text(manifest.read_text().replace("}", ',"text":"x"}'))
    other = world.run(manifest)
    finish(other, launch(other), other.deal(0).items(0))
    assert not merge.merge(other).notes
    before = manifest.read_bytes()
    assert done(run, []) == receipt
    assert manifest.read_bytes() == before


def test_a_folder_that_is_spelled_in_two_ways_is_one(world):
    source = corpus(world, "wav", "a.wav")
    (world.root / "out").mkdir()
    (world.root / "link").symlink_to(world.root / "out")
    first, second = vad(source, world.root / "out" / "res"), vad(source, world.root / "link" / "res", 0.95)
    done(first, [[0.0, 1.0]])
    assert first.id in done(second, []).notes[0]
    assert second.id in done(first, []).notes[0]


def test_two_runs_that_extend_one_manifest_do_not_replace_each_others_files(world):
    path = world.manifest(3)
    for factor in (1.0, 2.0):
        run = world.run(path, factor=factor)
        finish(run, launch(run), run.deal(0).items(0))
        assert not merge.merge(run).notes


def test_directories_of_one_name_have_default_stems_of_their_own_which_stay(world):
    runs = [vad(corpus(world, f"{name}/wav", f"{name}.wav")) for name in ("aa", "bb")]
    plain = str(world.home / "metadata" / f"wav_{clock.today()}")
    assert [run.plan.outputs for run in runs] == [plain, f"{plain}_{runs[1].id.rpartition('-')[2]}"]
    with mock.patch.object(clock, "today", return_value="2001-01-01"):
        assert [vad(Path(run.plan.source)).plan.outputs for run in runs] == [run.plan.outputs for run in runs]
    again = [Run.create(PIPELINE, Path(run.plan.source), None, run.plan.parameters, fresh=True) for run in runs]
    assert [run.plan.outputs for run in again] == [run.plan.outputs for run in runs]
    assert vad(Path(runs[0].plan.source), threshold=0.9).plan.outputs == plain
    given = world.root / "out" / "res"
    assert [vad(Path(run.plan.source), given).plan.outputs for run in runs] == [str(given)] * 2


def test_a_stem_that_cannot_be_written_is_refused_before_anything_is_made(world):
    source = corpus(world, "wav", "a.wav")
    (world.root / "file").write_bytes(b"")
    with pytest.raises(UsageError, match=r"file is not a directory\. Give a STEM"):
        vad(source, world.root / "file" / "deep" / "res")
    with mock.patch.object(os, "access", return_value=False), pytest.raises(UsageError, match="this user write"):
        vad(source, world.root / "new" / "res")
    assert not list(world.home.rglob("run.json"))
    assert not (world.root / "new").exists()


def test_a_fresh_start_that_is_refused_leaves_the_earlier_run_where_it_is(world):
    run = vad(corpus(world, "wav", "a.wav"), world.root / "res")
    with mock.patch.object(os, "access", return_value=False), pytest.raises(UsageError):
        Run.create(PIPELINE, Path(run.plan.source), world.root / "res", run.plan.parameters, fresh=True)
    assert [path.name for path in run.folder.parent.iterdir()] == [run.id]


def test_rttm_tells_recordings_apart_that_differ_in_their_suffix_alone(world):
    names = ["x.wav", "x.flac", "x y.mp3", "z.wav", "z.wav.flac", "q.tar.wav", "q.ogg"]
    run = vad(corpus(world, "wav", *names), world.root / "res", rttm=True)
    done(run, [[0.0, 1.0]])
    told = [line.split()[1] for line in (world.root / "res.rttm").read_text().splitlines()]
    assert sorted(told) == ["q", "q.tar", "x%20y", "x.flac", "x.wav", "z.wav", "z.wav.flac"]
