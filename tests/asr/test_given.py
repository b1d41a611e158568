"""Segments that a manifest gives: every recording's own, wherever their rows are."""

from __future__ import annotations

import json
import random
import tracemalloc

import pytest

from pipelines.asr.given import GivenSegments
from pipelines.core.errors import ManifestError
from pipelines.core.manifest import parse


def written(path, rows, start=b""):
    path.write_bytes(start + b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    return path


def item(path, **fields):
    return parse(0, json.dumps({"audio_filepath": path, **fields}).encode())


def row(path, offset, duration):
    return {"audio_filepath": path, "offset": offset, "duration": duration}


def test_each_recording_has_its_own(tmp_path):
    rows = [row("/a", 1.0, 0.5), row("/a", 3.0, 1.0), row("/b", 0.0, 2.0), row("/ä", 0.25, 0.5)]
    given = GivenSegments(written(tmp_path / "s.json", rows, b"\xef\xbb\xbf"))
    assert given.of(item("/a", duration=9)) == [(1.0, 1.5), (3.0, 4.0)]
    assert given.of(item("/b")) == [(0.0, 2.0)]
    assert given.of(item("/ä")) == [(0.25, 0.75)]
    assert given.of(item("/c")) is None


def test_a_stretch_of_a_recording(tmp_path):
    rows = [row("/a", 1.0, 2.0), row("/a", 4.0, 4.0), row("/a", 9.0, 1.0)]
    given = GivenSegments(written(tmp_path / "s.json", rows))
    assert given.of(item("/a", offset=2.0, duration=4.0)) == [(0.0, 1.0), (2.0, 4.0)]
    assert given.of(item("/a", offset=20.0, duration=4.0)) == []


@pytest.mark.parametrize("seed", range(5))
def test_rows_in_any_order(tmp_path, seed):
    chance = random.Random(seed)
    truth = {f"/{name}": sorted({chance.randrange(90) for _ in range(chance.randrange(1, 6))}) for name in range(40)}
    rows = [row(path, float(start), 0.5) for path, starts in truth.items() for start in starts]
    chance.shuffle(rows)
    given = GivenSegments(written(tmp_path / "s.json", rows))
    for path, starts in truth.items():
        assert given.of(item(path)) == [(float(start), start + 0.5) for start in starts]


def test_nothing(tmp_path):
    assert GivenSegments(written(tmp_path / "s.json", [])).of(item("/a")) is None


def test_what_cannot_be_used_is_said(tmp_path):
    with pytest.raises(ManifestError, match=r"cannot be read.*_segments.json"):
        GivenSegments(tmp_path / "nothing.json")
    with pytest.raises(ManifestError, match=r"Row 2 .* no duration"):
        GivenSegments(written(tmp_path / "s.json", [row("/a", 0, 1), {"audio_filepath": "/b"}]))
    (tmp_path / "t.json").write_bytes(b"nonsense\n")
    with pytest.raises(ManifestError, match=r"Row 1 .* cannot be read"):
        GivenSegments(tmp_path / "t.json")
    path = written(tmp_path / "u.json", [row("/a", 0, 1), row("/b", 0, 1)])
    given = GivenSegments(path)
    path.write_bytes(b"x" * 200)
    with pytest.raises(ManifestError, match="changed while it was in use"):
        given.of(item("/b"))


def test_many_rows_are_not_kept(tmp_path):
    rows = (row(f"/corpus/{number // 20}.wav", number % 20, 0.5) for number in range(40_000))
    path = written(tmp_path / "s.json", rows)
    tracemalloc.start()
    given = GivenSegments(path)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 300_000
    assert peak < 4_000_000
    assert len(given.of(item("/corpus/777.wav"))) == 20
