"""The units that are read: packed, one a frame, files of tensors, CSV manifests; and what is wrong with them."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.core.errors import ManifestError
from pipelines.lm import packing, splitting
from pipelines.lm.data import Corpus, Source
from tests.lm import making
from tests.lm.sources import write
from tests.units.stage import rows_of

SMALL = [[1, 2, 3], [4, 5], [6, 7, 8, 9]]


@pytest.fixture
def made(tmp_path):
    path, folder = write(tmp_path, SMALL, 12)
    return path, folder


def read(path, folder, **how):
    return Corpus(Source(**{"manifest": path, "folder": folder, "group": None, "salt": 1, "raw": False, **how}))


def change(path, number, **fields):
    """Set fields of one row of a manifest; None takes one out."""
    rows = rows_of(path)
    rows[number].update(fields)
    rows[number] = {name: value for name, value in rows[number].items() if value is not None}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_units_and_frames(made):
    corpus = read(*made)
    assert [corpus.sequence(item).tolist() for item in range(3)] == SMALL
    assert corpus.lengths.tolist() == [3, 2, 4]
    raw = read(*made, raw=True)
    assert raw.sequence(1).tolist() == [4, 4, 5, 5]
    assert raw.lengths.tolist() == [6, 4, 8]
    assert (corpus.described().raw, raw.described().raw) == (False, True)
    assert corpus.digest() != raw.digest()


def test_items_are_found_by_what_they_are_where_their_row_does_not_say_where(made):
    """A manifest of before encoding, in another order; one that names other units; one whose folder has moved."""
    path, folder = made
    moved = folder.with_name("moved")
    shutil.move(folder, moved)
    rows = rows_of(path)
    for number in (0, 2):
        del rows[number]["units_filepath"], rows[number]["units_row"]
    path.write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))
    corpus = read(path, moved)
    assert [corpus.sequence(item).tolist() for item in range(3)] == SMALL[::-1]


def test_stretches_that_begin_together_have_each_their_own_units(made):
    path, folder = made
    rows = [json.dumps({"audio_filepath": "/a.wav", "offset": 0.0, "duration": end}) + "\n" for end in (1, 2, 3)]
    (folder / "manifest.json").write_text("".join(rows))
    path.write_text("".join(reversed(rows)))
    corpus = read(path, folder)
    assert [corpus.sequence(item).tolist() for item in range(3)] == SMALL[::-1]


def test_items_without_units_are_named_or_left_out(made):
    path, folder = made
    rows = rows_of(path)
    rows.append({"audio_filepath": "/corpus/late.wav", "duration": 1.0})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        ManifestError, match=r"1 of 4 items .* have no units .*item 4 \(/corpus/late.wav\).*--skip-miss"
    ):
        read(path, folder)
    corpus = read(path, folder, skip_missing=True)
    assert (len(corpus), corpus.left_out) == (3, 1)


def test_empty_items_are_named_or_left_out(tmp_path):
    path, folder = write(tmp_path, [[1, 2], [], [3]], 12, frames=True)
    with pytest.raises(ManifestError, match=r"1 of 3 items .* are empty .*item 2 \(/corpus/speaker1/00001.wav\)"):
        read(path, folder)
    assert [read(path, folder, skip_missing=True).sequence(item).tolist() for item in (0, 1)] == [[1, 1, 2, 2], [3, 3]]


def test_no_units_at_all(made, tmp_path):
    _, folder = made
    other = tmp_path / "other.json"
    other.write_text('{"audio_filepath": "/nothing/of/it.wav", "duration": 1.0}\n')
    with pytest.raises(ManifestError, match=r"No item of .*voxarray encode"):
        read(other, folder, skip_missing=True)


@pytest.mark.parametrize("unit", [12, 65_535])
def test_units_outside_of_the_vocabulary_are_named(tmp_path, unit):
    path, folder = write(tmp_path, [*SMALL[:2], [6, unit, 1]], 12)
    with pytest.raises(ManifestError, match=rf"Row 2 .*speaker2/00002.wav.* has the unit {unit}.* 0 to 11"):
        read(path, folder)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("int64", "it holds int64"),
        ("float32", "it holds float32"),
        (">u2", "it holds >u2"),
        ("table", r"of shape \(9, 1\)"),
        ("fewer", r"of shape \(7,\), and not all"),
        ("cut", r"of shape \(9,\), and not all"),
        ("nonsense", "magic string"),
        ("gone", "No such file"),
    ],
)
def test_shards_that_are_none_are_named(made, kind, said):
    path, folder = made
    shard = folder / "units-00000.npy"
    units = np.load(shard)
    if kind == "gone":
        shard.unlink()
    elif kind == "nonsense":
        shard.write_bytes(b"nonsense" * 99)
    elif kind == "cut":
        shard.write_bytes(shard.read_bytes()[:-3])
    elif kind in ("table", "fewer"):
        np.save(shard, units[:, None] if kind == "table" else units[:7])
    else:
        np.save(shard, units.astype(kind))
    with pytest.raises(ManifestError, match=rf"units-00000.npy is no shard of packed units.*{said}"):
        read(path, folder)


def test_a_missing_speaker_is_named(made):
    path, folder = made
    change(path, 1, speaker=None)
    with pytest.raises(ManifestError, match=r"Item 2 of .* has no field 'speaker', which --split-by asks for"):
        read(path, folder, group="speaker")


# splits


def many(tmp_path, count=300, speakers=40):
    _, drawn = making.sequences(count)
    return write(tmp_path, drawn, 12, speakers=speakers)


@pytest.mark.parametrize("group", [None, "speaker"])
@pytest.mark.parametrize("test_ratio", [0.0, 0.2])
def test_no_group_is_in_two_parts(tmp_path, group, test_ratio):
    path, folder = many(tmp_path)
    corpus = read(path, folder, group=group)
    parts = splitting.split(corpus, 0.7, test_ratio)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(corpus)))
    field = "speaker" if group else "audio_filepath"
    rows = rows_of(path)
    names = [{rows[item][field] for item in part} for part in parts]
    assert not names[0] & names[1] and not names[0] & names[2] and not names[1] & names[2]
    assert len(parts.train) and len(parts.valid) and bool(len(parts.test)) == bool(test_ratio)


def test_stretches_of_a_recording_stay_together(tmp_path):
    path, folder = many(tmp_path, 120)
    rows = rows_of(path)
    for number, row in enumerate(rows):
        row["audio_filepath"], row["offset"] = f"/corpus/{number // 6}.wav", float(number % 6)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    parts = splitting.split(read(path, folder), 0.7, 0.0)
    assert {item // 6 for item in parts.train}.isdisjoint({item // 6 for item in parts.valid})


def test_a_corpus_that_grows_shrinks_or_is_shuffled_keeps_its_split(tmp_path):
    path, folder = many(tmp_path)
    rows = rows_of(path)

    def part_of(chosen):
        path.write_text("".join(json.dumps(row) + "\n" for row in chosen))
        parts = splitting.split(read(path, folder, group="speaker"), 0.8, 0.1)
        return {chosen[item]["speaker"]: name for name, items in zip(parts._fields, parts) for item in items}

    whole = part_of(rows)
    for chosen in (rows[:150], rows[100:], random.Random(3).sample(rows, len(rows))):
        assert part_of(chosen).items() <= whole.items()
    fewer = part_of([row for row in rows if int(row["speaker"].removeprefix("speaker")) < 30])
    assert fewer.items() <= whole.items()


def test_the_split_is_the_seeds(tmp_path):
    path, folder = many(tmp_path)
    valid = [splitting.split(read(path, folder, salt=salt), 0.8, 0.0).valid.tolist() for salt in (1, 2, 1)]
    assert valid[0] == valid[2] != valid[1]


def test_few_groups(tmp_path, caplog):
    _, drawn = making.sequences(40)
    path, folder = write(tmp_path / "two", drawn, 12, speakers=2)
    parts = splitting.split(read(path, folder, group="speaker"), 0.95, 0.0)
    assert len(parts.train) == len(parts.valid) == 20
    assert "Validation has" in caplog.text and "--split-seed" in caplog.text
    path, folder = write(tmp_path / "one", drawn, 12, speakers=1)
    with pytest.raises(ManifestError, match=r"1 group.*too few"):
        splitting.split(read(path, folder, group="speaker"), 0.9, 0.0)


# files of tensors


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder of `.pt` files, one of them nested, and the manifest of the recordings."""
    monkeypatch.setenv("VOXARRAY_HOME", str(tmp_path / "home"))
    folder = tmp_path / "tokens"
    rows = []
    for number, units in enumerate(SMALL):
        name = f"reader{number}/chapter/{number:04d}" if number else "flat"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        torch.save(torch.tensor(units, dtype=[torch.int32, torch.int64, torch.int16][number]), folder / f"{name}.pt")
        rows.append({"audio_filepath": f"/data/librivox/{name}.flac", "duration": 1.5})
    path = tmp_path / "librivox.json"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path, folder


def pack(path, folder, size=None, skip_missing=False):
    found = packing.packed(path, folder, size, skip_missing)
    return read(found.manifest, found.folder)


def test_files_of_tensors(files):
    corpus = pack(*files)
    assert [corpus.sequence(item).tolist() for item in range(3)] == SMALL
    assert corpus.vocabulary_size == 10, "the largest unit and one"
    assert pack(*files, size=2000).vocabulary_size == 2000
    assert not corpus.units.description.deduplicated


def test_the_published_recipes_manifest(files):
    path, folder = files
    table = path.with_suffix(".csv")
    table.write_text("file_id,duration,gender\nflat,1.5,f\n0001,2.5,m\nreader2/chapter/0002,3,f\n")
    corpus = pack(table, folder)
    assert [corpus.sequence(item).tolist() for item in range(3)] == SMALL
    assert corpus.seconds.tolist() == [1.5, 2.5, 3.0]
    table.write_text("name,duration\nflat,1.5\n")
    with pytest.raises(ManifestError, match="neither `file_id` nor `audio_filepath`"):
        pack(table, folder)


def test_files_are_packed_anew_when_one_changes(files):
    first = pack(*files)
    torch.save(torch.tensor([1, 1]), files[1] / "flat.pt")
    second = pack(*files)
    assert second.sequence(0).tolist() == [1, 1]
    assert pack(*files).units.folder == second.units.folder != first.units.folder


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (torch.tensor([1.0, 2.0]), "no one-dimensional tensor of integers"),
        (torch.tensor([[1, 2]]), "no one-dimensional tensor of integers"),
        ({"units": [1]}, "no one-dimensional tensor of integers"),
        (torch.tensor([1, -1]), "holds the units -1 to 1"),
        (torch.tensor([70_000]), "holds the units 70000 to 70000"),
        (b"nonsense", "cannot be read as a tensor"),
    ],
)
def test_files_that_hold_no_units_are_named(files, content, said):
    path = files[1] / "flat.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ManifestError, match=said) as caught:
        pack(*files)
    assert str(path) in str(caught.value)


def test_files_that_are_missing_are_named_or_left_out(files):
    (files[1] / "flat.pt").unlink()
    with pytest.raises(
        ManifestError, match=r"1 of 3 rows .* have no file of units .*librivox/flat.flac.*--skip-missing"
    ):
        pack(*files)
    assert len(pack(*files, skip_missing=True)) == 2
    with pytest.raises(ManifestError, match="--vocabulary-size is too small"):
        pack(*files, size=8, skip_missing=True)


def test_a_name_that_two_files_share_finds_neither(files, tmp_path):
    _, folder = files
    for reader in ("a", "b"):
        (folder / reader).mkdir()
        torch.save(torch.tensor([1]), folder / reader / "same.pt")
    table = Path(tmp_path / "table.csv")
    table.write_text("file_id,duration\nsame,1\n")
    with pytest.raises(ManifestError, match="same"):
        pack(table, folder)
    table.write_text("file_id,duration\na/same,1\n")
    assert len(pack(table, folder)) == 1
