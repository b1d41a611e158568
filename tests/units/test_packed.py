"""Packed units: written by the merge, read by anyone, whole or refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.core.errors import UsageError
from pipelines.units import export
from pipelines.units.packed import PackedUnits, PackedWriter, deduplicated, describe, npy_header

SAID = {
    "name": "logmel-kmeans-50",
    "vocabulary_size": 50,
    "rate": 50.0,
    "run": "corpus-12345678",
    "codebook": "/models/logmel-kmeans-50",
    "codebook_digest": "0" * 64,
    "parameters": {},
}


def write(folder, items, deduplicate=True, shard_units=1 << 20):
    writer = PackedWriter(folder, deduplicate, {}, shard_units)
    for number, item in enumerate(items):
        frames = np.asarray(item, np.uint16)
        units, durations = deduplicated(frames) if deduplicate else (frames, None)
        row = json.dumps({"audio_filepath": f"/corpus/{number}.wav", "duration": len(frames) / 50}).encode()
        tail = durations.tobytes() if deduplicate else b""
        writer.add(units.tobytes(), tail, len(frames), row)
    writer.finish(SAID)
    return writer.publish()


items_of_units = st.lists(
    st.lists(st.tuples(st.integers(0, 65535), st.integers(1, 4)), max_size=20).map(
        lambda runs: [unit for unit, count in runs for _ in range(count)]
    ),
    max_size=12,
)


@settings(max_examples=60)
@given(items=items_of_units, deduplicate=st.booleans(), shard_units=st.integers(1, 40))
@example(items=[[0, 0], []], deduplicate=False, shard_units=1)
def test_what_is_written_is_read_back(tmp_path_factory, items, deduplicate, shard_units):
    folder = tmp_path_factory.mktemp("units")
    write(folder, items, deduplicate, shard_units)
    found = PackedUnits(folder)
    assert len(found) == len(items)
    for row, frames in enumerate(items):
        assert found.frames(row).tolist() == frames
        assert int(found.durations(row).sum()) == len(frames)
        if not deduplicate:
            assert found.units(row).tolist() == frames
        assert (np.diff(found.units(row).astype(int)) != 0).all() or not deduplicate
    what = describe(folder)
    assert (what.items, what.frames) == (len(items), sum(map(len, items)))


def test_three_lines_of_numpy_read_them(tmp_path):
    write(tmp_path, [[1, 1, 2], [3], [7, 7, 7, 9]], shard_units=3)
    index = np.load(tmp_path / "index.npy")
    shard, first, count = index[2]
    units = np.load(tmp_path / f"units-{shard:05d}.npy", mmap_mode="r")[first : first + count]
    assert units.tolist() == [7, 9]
    assert shard == 1


def test_a_unit_that_lasts_long_is_several_runs():
    frames = np.concatenate([np.full(150_000, 7), [8]]).astype(np.uint16)
    units, durations = deduplicated(frames)
    assert units.tolist() == [7, 7, 7, 8]
    assert durations.tolist() == [65535, 65535, 18930, 1]
    assert (np.repeat(units, durations) == frames).all()


def test_nothing_deduplicated_is_nothing():
    units, durations = deduplicated(np.empty(0, np.uint16))
    assert len(units) == len(durations) == 0


@pytest.mark.parametrize("shape", [(0,), (12345678,), (17, 3), (0, 3)])
def test_headers_are_numpys_own(tmp_path, shape):
    data = np.zeros(shape, "<i8")
    (tmp_path / "a.npy").write_bytes(npy_header("<i8", shape) + data.tobytes())
    assert np.load(tmp_path / "a.npy").shape == shape
    assert len(npy_header("<i8", shape)) % 64 == 0


def test_abandoned_leaves_nothing(tmp_path):
    writer = PackedWriter(tmp_path / "units", True, {}, 2)
    for _ in range(5):
        writer.add(b"\1\0\2\0", b"\1\0\1\0", 2, b"{}")
    writer.abandon()
    assert list((tmp_path / "units").iterdir()) == []


def test_a_folder_that_is_not_whole_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no packed units"):
        PackedUnits(tmp_path)
    write(tmp_path, [[1, 2], [3]])
    np.save(tmp_path / "index.npy", np.load(tmp_path / "index.npy")[:1])
    with pytest.raises(UsageError, match="do not fit together"):
        PackedUnits(tmp_path)
    (tmp_path / "units.json").write_text("{")
    with pytest.raises(UsageError, match="damaged"):
        PackedUnits(tmp_path)


ITEMS = [[5, 5, 5, 9], [3], []]


@pytest.mark.parametrize(
    ("form", "frames", "lines"),
    [
        ("gslm", False, ["/corpus/0.wav|5 9", "/corpus/1.wav|3", "/corpus/2.wav|"]),
        ("gslm", True, ["/corpus/0.wav|5 5 5 9", "/corpus/1.wav|3", "/corpus/2.wav|"]),
        (
            "textless",
            False,
            [
                '{"audio":"/corpus/0.wav","units":"5 9","durations":"3 1"}',
                '{"audio":"/corpus/1.wav","units":"3","durations":"1"}',
                '{"audio":"/corpus/2.wav","units":"","durations":""}',
            ],
        ),
        (
            "manifest",
            False,
            [
                '{"audio_filepath":"/corpus/0.wav","duration":0.08,"units":"5 9","durations":"3 1"}',
                '{"audio_filepath":"/corpus/1.wav","duration":0.02,"units":"3"}',
                '{"audio_filepath":"/corpus/2.wav","duration":0.0,"units":""}',
            ],
        ),
    ],
)
@pytest.mark.parametrize("shard_units", [2, 100])
def test_text_forms(tmp_path, form, frames, lines, shard_units):
    write(tmp_path / "units", ITEMS, shard_units=shard_units)
    assert list(export.lines(tmp_path / "units", form, frames)) == lines


def test_stretches_of_a_recording_are_told_apart(tmp_path):
    write(tmp_path, [[5, 5], [7]])
    rows = [{"audio_filepath": "/a.b/x.wav", "offset": start, "duration": 0.5} for start in (0.0, 0.25)]
    (tmp_path / "manifest.json").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert list(export.lines(tmp_path, "gslm", frames=False)) == [
        "/a.b/x_0.000-0.500.wav|5",
        "/a.b/x_0.250-0.750.wav|7",
    ]
    told = [json.loads(line) for line in export.lines(tmp_path, "textless", frames=False)]
    assert [(row["audio"], row["offset"], row["duration"]) for row in told] == [
        ("/a.b/x.wav", 0.0, 0.5),
        ("/a.b/x.wav", 0.25, 0.5),
    ]


@pytest.mark.parametrize("frames", [False, True])
def test_a_manifest_of_text_keeps_the_timing(tmp_path, frames):
    from pipelines.core.manifest import parse
    from pipelines.units.rows import UnitRows

    write(tmp_path, ITEMS[:2])
    listed = (tmp_path / "manifest.json").read_text().replace("}", ', "durations": "9"}')  # of earlier units
    (tmp_path / "manifest.json").write_text(listed)
    items = [parse(0, line.encode()) for line in export.lines(tmp_path, "manifest", frames)]
    faults, units, _ = UnitRows(50, "x").read(items)
    assert faults == [None, None]
    assert [each.tolist() for each in units] == ITEMS[:2]


def test_text_of_units_that_are_not_deduplicated(tmp_path):
    write(tmp_path, ITEMS, deduplicate=False)
    assert next(export.lines(tmp_path, "gslm", frames=False)) == "/corpus/0.wav|5 5 5 9"


def test_the_command(tmp_path, capsys):
    write(tmp_path / "corpus" / "units", ITEMS)
    assert export.main([str(tmp_path / "corpus")]) == 0
    assert "3 items, 3 units in 1 shards" in capsys.readouterr().out
    assert export.main([str(tmp_path / "corpus"), "--text", "gslm", "--output", str(tmp_path / "out.txt")]) == 0
    assert (tmp_path / "out.txt").read_text().splitlines()[0] == "/corpus/0.wav|5 9"
    assert export.main([str(tmp_path / "nothing")]) == 2
    assert "holds no packed units" in capsys.readouterr().err
