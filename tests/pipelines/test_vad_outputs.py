"""The published files: complete, quoted, in order, whole or not there."""

from __future__ import annotations

import csv
import json

import msgspec
import pytest

from pipelines.core.manifest import parse
from pipelines.core.pipeline import ErrorInfo
from pipelines.core.plan import Plan
from pipelines.vad.outputs import VadOutput

RESULT = {
    "duration": 31.5,
    "max-spoken": 0.5,
    "min-spoken": 0.016,
    "avg-spoken": 0.258,
    "max-nospch": 20.0,
    "min-nospch": 0.2,
    "avg-nospch": 10.0,
    "spch-ratio": 0.016,
    "splits": [2000, 4000],
    "segments": [[0.016, 0.516], [1.0, 1.016]],
}


NAMES = ('a, "b".wav', "é/c 1.wav", "bad.wav", "late.wav")


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.setenv("VOXARRAY_HOME", str(tmp_path / "home"))
    (tmp_path / "listing.jsonl").write_bytes(b"".join(item(index).row + b"\n" for index in range(len(NAMES))))

    def make(**parameters):
        fields = {
            "format": 1,
            "run_id": "r-1",
            "pipeline": "vad",
            "source": "/data/my corpus",
            "manifest": str(tmp_path / "listing.jsonl"),
            "outputs": str(tmp_path / "out" / "corpus.v1_2026-11-21"),
            "parameters": parameters,
            "environment": {"name": "vad", "lock": None, "python": "3.11"},
            "code": {"commit": None, "modified": False},
            "host": "node",
            "created": "2026-11-21T00:00:00Z",
            "argv": [],
        }
        return msgspec.convert(fields, Plan)

    return make


def item(index: int):
    return parse(index, msgspec.json.encode({"audio_filepath": f"/data/my corpus/{NAMES[index]}"}))


def fill(output):
    output.open()
    output.write(item(0), msgspec.json.encode(RESULT), None)
    short = {name: value for name, value in RESULT.items() if name != "splits"} | {"duration": 1.5, "segments": []}
    output.write(item(1), msgspec.json.encode(short), None)
    output.write(item(2), None, ErrorInfo("ItemError", 'It is\n"bad", really.', "s"))
    output.write(item(3), None, None)


def test_files(plan, tmp_path):
    output = VadOutput(plan())
    fill(output)
    published = output.publish()
    folder = tmp_path / "out"
    stem = "corpus.v1_2026-11-21"
    assert sorted(path.name for path in folder.iterdir()) == [f"{stem}.csv", f"{stem}.json", f"{stem}_segments.json"]
    assert {file.path.rsplit("/", 1)[1]: file.rows for file in published} == {
        f"{stem}.csv": 4,
        f"{stem}.json": 2,
        f"{stem}_segments.json": 2,
    }
    with (folder / f"{stem}.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    figures = "max-spoken min-spoken avg-spoken max-nospch min-nospch avg-nospch spch-ratio"
    assert list(rows[0]) == ["audio_filepath", "duration", *figures.split(), "splits", "error"]
    assert rows[0]["audio_filepath"] == '/data/my corpus/a, "b".wav'
    assert [rows[0][name] for name in ("duration", "max-spoken", "splits", "error")] == [
        "31.5",
        "0.5",
        "[2000, 4000]",
        "",
    ]
    assert rows[1]["splits"] == ""
    assert [rows[2][name] for name in ("duration", "spch-ratio", "error")] == ["", "", 'It is\n"bad", really.']
    assert "Not processed yet" in rows[3]["error"]
    manifest = [json.loads(line) for line in (folder / f"{stem}.json").read_text().splitlines()]
    assert manifest == [
        {"audio_filepath": '/data/my corpus/a, "b".wav', "duration": 31.5},
        {"audio_filepath": "/data/my corpus/é/c 1.wav", "duration": 1.5},
    ]
    segments = [json.loads(line) for line in (folder / f"{stem}_segments.json").read_text().splitlines()]
    assert [(row["offset"], row["duration"]) for row in segments] == [(0.016, 0.5), (1.0, 0.016)]


def test_rttm_has_ten_fields_whatever_the_name(plan, tmp_path):
    output = VadOutput(plan(rttm=True))
    fill(output)
    output.publish()
    lines = (tmp_path / "out" / "corpus.v1_2026-11-21.rttm").read_text().splitlines()
    assert lines == [
        'SPEAKER a,%20"b" 1 0.016 0.500 <NA> <NA> speech <NA> <NA>',
        'SPEAKER a,%20"b" 1 1.000 0.016 <NA> <NA> speech <NA> <NA>',
    ]
    assert all(len(line.split()) == 10 for line in lines)


def test_nothing_is_left_of_an_abandoned_merge(plan, tmp_path):
    output = VadOutput(plan(rttm=True))
    fill(output)
    output.abandon()
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_of_somebody_else_is_kept(plan, tmp_path):
    (tmp_path / "out").mkdir()
    mine = tmp_path / "out" / "corpus.v1_2026-11-21.json"
    mine.write_text("mine\n")
    output = VadOutput(plan())
    fill(output)
    output.publish()
    assert mine.with_name(mine.name + ".bak").read_text() == "mine\n"
