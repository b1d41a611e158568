"""What `asr` writes into rows, and what it leaves alone: with a recogniser that says what it heard."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipelines.asr import backends, processor, sizes
from pipelines.asr.backends import Transcript, Word
from tests.units.stage import RATE, Stage, rows_of


class Echo:
    """Says its name, and how many samples it heard."""

    longest_s, batch_s, overhead, encoder_overhead = 30.0, 30.0, 1.0, None
    has_words, on_gpu, concurrency = True, False, 1
    together = (4, 120.0)

    def __init__(self, name="echo", flagged=None):
        self.name, self.flagged = name, flagged

    def transcribe(self, pieces, words=False):
        found = [Word(0.0, 0.1, self.name), Word(0.1, 0.2, "{}")]
        return [
            Transcript(
                f"{self.name} {len(piece)}",
                [found[0], found[1]._replace(word=str(len(piece)))] if words else None,
                self.flagged,
            )
            for piece in pieces
        ]

    def close(self):
        pass


@pytest.fixture
def stage():
    with Stage() as made:
        yield made


@pytest.fixture
def say(stage, monkeypatch):
    """`asr` with a recogniser; what it said."""

    def run(manifest, recogniser, *options, status=0):
        monkeypatch.setattr(backends, "load", lambda *_: recogniser)
        found, said = stage.give("asr", manifest, "--model", "pocketsphinx", "--vad", "never", *options)
        assert found == status, said
        return said

    return run


def tone(stage, name, seconds=1.0, **fields):
    samples = (8000 * np.sin(np.arange(int(seconds * RATE)) / 20)).astype(np.int16)
    return {**stage.recording(name, samples), **fields}


OLD = {
    "text": "old",
    "segments": [{"start": 0, "end": 1, "text": "old"}],
    "words": [{"start": 0, "end": 1, "word": "old"}],
    "flags": ["loop"],
}


def test_nothing_of_an_earlier_text_stands_beside_a_new_one(stage, say):
    rows = [tone(stage, "a.wav", **OLD), tone(stage, "b.wav", text="old"), tone(stage, "c.wav", words=3)]
    manifest = stage.write(rows)
    say(manifest, Echo(), "--redo")
    new = {"text": "echo 16000", "segments": [], "words": [], "flags": []}
    assert rows_of(manifest) == [
        {**rows[0], **new},
        {**rows[1], "text": "echo 16000"},
        {**rows[2], "text": "echo 16000"},  # not of any text: the user's own
    ]
    say(manifest, Echo("more", "odd"), "--redo", "--words", "--segments")
    assert [row["text"] for row in rows_of(manifest)] == ["more 16000"] * 3
    for row in rows_of(manifest):
        assert [segment["text"] for segment in row["segments"]] == ["more 16000"]
        assert [word["word"] for word in row["words"]] == ["more", "16000"]
        assert row["flags"] == ["odd"]


def test_what_goes_with_a_text_has_its_name(stage, say):
    manifest = stage.write([tone(stage, "a.wav", **OLD)])
    say(manifest, Echo("a", "odd"), "--field", "first", "--segments", "--words")
    say(manifest, Echo("b"), "--field", "second", "--segments", "--words")
    say(manifest, Echo("c"), "--field", "first", "--redo")
    (row,) = rows_of(manifest)
    assert {name: row[name] for name in OLD} == OLD
    assert row["first"] == "c 16000"
    assert row["first_segments"] == row["first_words"] == row["first_flags"] == []
    assert [segment["text"] for segment in row["second_segments"]] == [row["second"]] == ["b 16000"]
    assert "second_flags" not in row


def test_a_row_that_fails_keeps_what_it_had(stage, say):
    rows = [tone(stage, "a.wav", **OLD), tone(stage, "gone.wav", **OLD)]
    (stage.data / "gone.wav").unlink()
    manifest = stage.write(rows)
    said = say(manifest, Echo(), "--redo", status=1)
    assert "1 merged + 1 quarantined" in said
    assert rows_of(manifest)[1] == rows[1]


def test_rows_that_keep_their_text_are_counted_where_it_is_seen(stage, say):
    manifest = stage.write([tone(stage, f"{number}.wav", **({"text": ""} if number else {})) for number in range(3)])
    said = say(manifest, Echo())
    assert "2 of 3 rows had `text` already" in said
    assert "--redo" in said
    assert "--field" in said
    assert "2 of 3 rows" in say(manifest, Echo()), "and whoever asks again is told again"
    said = say(manifest, Echo("other"), "--words")
    assert "3 of 3 rows had `text` already" in said
    assert "words" not in rows_of(manifest)[0]
    (receipt,) = [
        path for path in (stage.home / "output" / "runs").glob("*/merged.json") if "3 of 3" in path.read_text()
    ]
    assert len(json.loads(receipt.read_text())["notes"]) == 1
    said = say(manifest, Echo("other"), "--words", "--redo")
    assert "rows had" not in said


@pytest.mark.parametrize("on_gpu", [False, True])
def test_no_more_of_a_long_recording_is_held_than_a_few_batches(stage, say, monkeypatch, on_gpu):
    """Ten minutes and twenty short ones, by batches of two minutes: the same text as all at once."""
    rows = [tone(stage, "long.wav", 600), *(tone(stage, f"{number}.wav", 2 + number / 8) for number in range(20))]
    monkeypatch.setattr(processor, "_ON_GPU", Echo.together)
    monkeypatch.setattr(processor.AsrProcessor, "_size", lambda _: sizes.Size(30.0))
    held = []
    run = processor.Batcher.run

    def counted(self, pieces):
        held.append(sum(map(len, pieces)) / RATE)
        return run(self, pieces)

    monkeypatch.setattr(processor.Batcher, "run", counted)
    few = Echo()
    few.on_gpu = on_gpu
    manifest = stage.write(rows, "few.json")
    say(manifest, few)
    assert max(held) <= 2 * 120 + few.longest_s
    assert sum(held) == pytest.approx(sum(row["duration"] for row in rows))

    held.clear()
    together = Echo()
    together.together = (64, 1e6)
    other = stage.write(rows, "other.json")
    say(other, together)
    assert max(held) > 600
    assert other.read_bytes() == manifest.read_bytes()
    assert len(rows_of(manifest)[0]["segments"]) >= 20


def test_other_segments_are_another_run(stage, say):
    row = tone(stage, "a.wav", 40)
    given = {"audio_filepath": row["audio_filepath"], "offset": 0.0}
    segments = stage.write([{**given, "duration": 10.0}], "segments.json")
    manifest = stage.write([row])
    options = ["--vad", "auto", "--vad-segments", segments]
    say(manifest, Echo(), *options)
    first = rows_of(manifest)[0]["text"]
    stage.write([{**given, "duration": 20.0}], "segments.json")
    say(manifest, Echo(), *options, "--redo")
    say(manifest, Echo(), *options)
    assert rows_of(manifest)[0]["text"] != first
    assert len(list((stage.home / "output" / "runs").glob("*/run.json"))) == 3


def test_segments_that_changed_since_the_run_began_are_refused(stage):
    from pipelines.core.errors import UsageError

    segments = stage.write([{"audio_filepath": "/a", "offset": 0.0, "duration": 1.0}], "segments.json")
    begun = {"vad_segments": str(segments), "vad_segments_version": "another"}
    with pytest.raises(UsageError, match="changed since"):
        processor._given(begun)
