"""Identity: of items (path, and place of a stretch), of runs (what changes results), of what produced them."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.core import cli, manifest, merge, paths, provenance, registry, scan
from pipelines.core.errors import UsageError
from pipelines.core.manifest import key_of, parse
from pipelines.core.plan import run_id, stem_of
from pipelines.core.run import Run, Wish
from tests.core.world import REPOSITORY, conserved, launch, settle

texts = st.text(min_size=1, max_size=30)
offsets = st.one_of(st.just(0.0), st.integers(1, 10**9).map(lambda n: n / 1000))


places = st.tuples(texts, offsets, st.none() | offsets)


@given(places, places)
def test_two_items_are_the_same_where_path_and_place_are(one, other):
    assert (key_of(*one) == key_of(*other)) == (one == other)


def test_other_fields_and_their_order_do_not_change_an_item():
    bare = parse(0, b'{"audio_filepath":"/a.wav"}')
    full = parse(7, b'{"text": "x", "duration": 2, "audio_filepath": "\\u002fa.wav"}')
    assert bare.key == full.key
    assert full.fields()["text"] == "x"
    assert parse(0, b'{"audio_filepath":"/a.wav","offset":0}').key == bare.key
    assert parse(0, b'{"audio_filepath":"/a.wav","offset":0.5}').key != bare.key


def test_the_duration_of_a_stretch_is_part_of_it_and_that_of_a_recording_is_not():
    form = '{"audio_filepath":"/a.wav"%s,"duration":%s}'
    for offset in (',"offset":0', ',"offset":0.0', ',"offset":2.5'):
        one, same, other = (parse(0, (form % (offset, duration)).encode()).key for duration in ("1", "1.0", "0.9"))
        assert one == same != other
    assert parse(0, (form % ("", 1)).encode()).key == parse(0, (form % ("", 0.9)).encode()).key


def name(source: str = "/data/corpus.json", pipeline: str = "tone", **parameters: object) -> str:
    return run_id(pipeline, Path(source), None, parameters)


def test_the_same_command_is_the_same_run_and_a_changed_parameter_another():
    assert name(a=1, b=2.0) == name(b=2.0, a=1)
    different = [name(a=1, b=2.5), name(a=1), name("/data/corpus2.json", a=1), name(pipeline="chime", a=1)]
    different.append(run_id("tone", Path("/data/corpus.json"), Path("/out/corpus"), {"a": 1}))
    assert len({*different, name(a=1, b=2.0)}) == 6
    assert name().startswith("corpus-")


def test_a_place_has_one_spelling_and_links_stay_but_where_they_matter(world):
    place = world.root / "data" / "corpus"
    place.mkdir(parents=True)
    (world.root / "linked").symlink_to(place)
    with mock.patch.object(os, "getcwd", return_value=str(place)):
        for name in (place, f"{place}/", f"{place}/../corpus", f"{place}/.//gone/..", "../corpus", "."):
            assert paths.absolute(str(name)) == place
    assert paths.absolute(f"{world.root}/data/../linked/x.json") == world.root / "linked" / "x.json"
    assert paths.absolute(f"{world.root}/linked/../x.json") == world.root / "data" / "x.json"


def test_the_same_source_spelled_otherwise_is_the_same_run(world):
    (world.root / "other").mkdir()
    tone, path = registry.find("tone"), world.manifest(1)
    parse_args = cli.build_parser(tone).parse_args
    runs = {cli.locate(tone, parse_args([name])).id for name in (str(path), f"{world.root}/other/../{path.name}")}
    assert len(runs) == 1


names = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=40)


@given(names)
def test_a_runs_name_is_safe_in_shells_and_file_names(text):
    stem = stem_of(Path("/data") / text)
    assert stem
    assert not set(stem) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert stem[0] not in ".-"


def test_the_same_command_resumes_and_another_parameter_does_not_mix(world):
    path = world.manifest(5)
    run = world.run(path)
    settle(run, launch(run))
    again = world.run(path)
    assert again.id == run.id
    assert again.plan == run.plan
    assert again.new_launch.__self__.launch_numbers() == [0]
    other = world.run(path, factor=2.0)
    assert other.id != run.id
    assert not list(other.part_files())


def test_a_stretch_that_is_cut_anew_is_done_anew_and_the_others_are_not(world):
    rows = [{"audio_filepath": "/a.wav", "offset": float(start), "duration": 1.5} for start in range(3)]
    path = world.write(rows)
    run = world.run(path)
    settle(run, launch(run))
    rows[0]["duration"] = 0.9
    world.write([*rows, {**rows[0], "duration": 3.0}])
    record = run.new_launch(Wish(1))
    assert [(item.offset, item.duration) for item in run.deal(record.number).items(0)] == [(0.0, 0.9), (0.0, 3.0)]
    settle(run, record.number)
    assert conserved(merge.merge(run)).outside == 1


@pytest.mark.parametrize(("place", "redone"), [({}, 0), ({"offset": 0.5}, 3)])
def test_what_was_done_under_the_keys_of_an_earlier_version_is_kept_or_redone_whole(world, place, redone):
    def of_old(audio_filepath, offset=0.0, duration=None):
        return key_of(audio_filepath, offset)

    run = world.run(world.manifest(3, **place))
    with mock.patch.object(manifest, "key_of", of_old), mock.patch.object(scan, "KEYS", 1):
        settle(run, launch(run))
    record = run.new_launch(Wish(1))
    assert (record.items if record else 0) == redone
    if record:
        settle(run, record.number)
    receipt = conserved(merge.merge(run))
    assert (receipt.merged, receipt.outside) == (3, redone)


def test_fresh_moves_the_earlier_run_aside_whole(world):
    path = world.manifest(3)
    run = world.run(path)
    settle(run, launch(run))
    before = {file.name for file in run.folder.rglob("*") if file.is_file()}
    fresh = Run.create(registry.find("tone"), path, None, {"factor": 1.0}, fresh=True)
    assert fresh.id == run.id
    assert not fresh.launch_numbers()
    (aside,) = fresh.folder.parent.glob(f"{run.id}.until-*")
    assert {file.name for file in aside.rglob("*") if file.is_file()} == before


def test_the_plan_tells_what_produced_the_results(world):
    diff = b"diff --git a/x b/x\n"
    with mock.patch.object(provenance, "code", return_value=(provenance.Code("1" * 40, modified=True), diff)):
        run = world.run(world.manifest(1))
    assert run.plan.code.commit == "1" * 40
    assert (run.folder / "code.diff").read_bytes() == diff
    assert run.plan.parameters == {"factor": 1.0}
    assert run.plan.environment.name == "vad"
    assert run.plan.host


def test_the_commit_is_asked_of_git_and_its_absence_is_no_error(tmp_path):
    code, _ = provenance.code()
    if (REPOSITORY / ".git").exists():
        assert code.commit is None or len(code.commit) == 40
    with mock.patch.object(provenance.paths, "repository", return_value=tmp_path):
        assert provenance.code() == (provenance.Code(None, modified=False), b"")


def test_an_unknown_run_and_an_unknown_pipeline_are_answered_with_what_there_is(world):
    with pytest.raises(UsageError, match="There are no runs yet"):
        Run.open("nothing-12345678")
    run = world.run(world.manifest(1))
    with pytest.raises(UsageError, match=run.id):
        Run.open("nothing-12345678")
    with pytest.raises(UsageError, match=r"chime.*tone"):
        registry.find("bell")


def test_a_plan_whose_name_was_reserved_and_never_filled_is_made_good(world):
    """Where links do not exist, a process may die between reserving a name and filling it."""
    path = world.manifest(2)
    run = world.run(path)
    whole = (run.folder / "run.json").read_bytes()
    (run.folder / "run.json").write_bytes(b"")
    assert world.run(path).id == run.id
    assert len((run.folder / "run.json").read_bytes()) >= len(whole) - 40
