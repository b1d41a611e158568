"""Directories as sources: the listing is sorted whatever the order of reading, and told where it cannot be made."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.core import listing, merge
from pipelines.core.errors import ManifestError
from pipelines.core.pipeline import Pipeline, Resources
from pipelines.core.run import Wish
from pipelines.core.task import TaskLoop
from tests.core.world import World, conserved, decoded, launch, settle

names = st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), min_size=1, max_size=12)


def lister(rows) -> Pipeline:
    return Pipeline("x", "", None, source="directory", list_items=lambda *_: iter(rows))


@given(st.lists(names.map(lambda name: f"/d/{name}"), unique=True, min_size=1, max_size=30), st.randoms())
def test_a_listing_is_sorted_by_the_paths_bytes_in_whatever_order_it_was_read(found, chance):
    with World() as world:
        texts = []
        for _ in range(2):
            chance.shuffle(found)
            listing.publish(lister({"audio_filepath": path} for path in found), world.root, {}, world.root / "l.jsonl")
            texts.append((world.root / "l.jsonl").read_text(encoding="utf-8"))
    assert texts[0] == texts[1]
    paths = [json.loads(line)["audio_filepath"] for line in texts[0].split("\n")[:-1]]
    assert paths == sorted(found, key=lambda path: path.encode().replace(b"\n", b"\x01"))


def corpus(folder: Path, count: int) -> Path:
    for number in range(count):
        path = folder / f"s{number % 3}" / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * number)
    return folder


def test_a_directory_without_recordings_a_file_and_nothing_at_all_are_told_apart(world):
    for source, words in (
        (world.root / "empty", "No recordings were found"),
        (world.root / "file", "is a file, not a directory"),
        (world.root / "nothing", "does not exist"),
    ):
        if source.name == "empty":
            source.mkdir()
        elif source.name == "file":
            source.write_bytes(b"")
        status, said = world.command(source, world.root / "out", pipeline="chime")
        assert (status, words in said) == (2, True), said
        assert "Traceback" not in said
    assert not list(world.home.rglob("*.tmp"))


def test_sizes_are_added_where_balancing_needs_them(world):
    source = corpus(world.root / "audio", 9)
    run = world.run(source, "chime", pitch=1)
    record = run.new_launch(Wish(4, "balanced"), say=lambda _: None)
    rows = decoded(run.manifest)
    assert [row["size"] for row in rows] == [Path(row["audio_filepath"]).stat().st_size for row in rows]
    assert record.items == 9


def test_a_directory_that_grew_is_listed_again_and_what_is_done_stays_done(world):
    source = corpus(world.root / "audio", 9)
    run = world.run(source, "chime", pitch=1)
    settle(run, launch(run, 3))
    (source / "s0" / "00.wav").write_bytes(b"new")
    (source / "s2" / "5.wav").unlink()
    number = launch(run, 2)
    assert [Path(item.audio_filepath).name for task in (0, 1) for item in run.deal(number).items(task)] == ["00.wav"]
    settle(run, number)
    receipt = conserved(merge.merge(run))
    assert (receipt.items, receipt.merged, receipt.outside) == (9, 9, 1)


def test_a_file_that_disappears_during_the_run_gets_an_error_and_stops_nothing(world):
    source = corpus(world.root / "audio", 6)
    run = world.run(source, "chime", pitch=440)
    run.new_launch(Wish(1, "round-robin"))
    (source / "s1" / "4.wav").unlink()
    assert TaskLoop(run, 0, 0, Resources()).work() == 0
    receipt = conserved(merge.merge(run))
    assert (receipt.merged, receipt.quarantined) == (5, 1)
    assert receipt.signatures[0].example.endswith("s1/4.wav")


def test_names_that_are_no_utf_8_are_named_and_do_not_end_in_a_traceback(world):
    source = corpus(world.root / "audio", 2)
    odd = os.fsencode(source) + b"/caf\xe9.wav"
    try:
        os.close(os.open(odd, os.O_CREAT | os.O_WRONLY))
    except OSError:
        pytest.skip("this file system takes no such names")
    status, said = world.command(source, world.root / "out", pipeline="chime")
    assert status == 2
    assert "Traceback" not in said
    assert "caf" in said
    assert "UTF-8" in said


def test_a_source_that_fails_while_it_is_listed_is_not_called_a_full_disk(world):
    def rows(source, parameters):
        yield {"audio_filepath": "/a.wav"}
        raise PermissionError(13, "Permission denied", "/data/secret")

    with pytest.raises(ManifestError, match="/data/secret"):
        listing.publish(Pipeline("x", "", None, list_items=rows), world.root, {}, world.root / "l.jsonl")
    assert not list(world.root.glob("*.jsonl"))
    assert not list(world.root.glob(".*.tmp"))


def test_a_large_directory_lists_in_flat_memory(world):
    import tracemalloc

    chance = random.Random(0)
    rows = ({"audio_filepath": f"/d/{chance.getrandbits(80):020x}.wav"} for _ in range(250_000))
    tracemalloc.start()
    listing.publish(lister(rows), world.root, {}, world.root / "l.jsonl")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20, peak
