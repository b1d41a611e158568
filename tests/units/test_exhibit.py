"""Items for a chain's report: chosen, read, cut, and named where they cannot be."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
import soundfile

from pipelines.units import exhibit
from pipelines.units.exhibit import Wanted
from pipelines.units.packed import PackedWriter
from tests.units.test_packed import SAID

RATE = 16000


@pytest.fixture
def corpus(tmp_path):
    """Nine recordings with texts, units, segments and resyntheses; the second of those is no recording."""
    rows, segments, spoken = [], [], []
    writer = PackedWriter(tmp_path / "units", False, {})
    for number in range(9):
        path, again = tmp_path / f"{number}.wav", tmp_path / f"again-{number}.wav"
        samples = np.sin(np.arange((number + 2) * RATE) / 20) * 0.5
        for name in (path, again):
            soundfile.write(name, samples, RATE)
        frames = np.arange(len(samples) // 320, dtype=np.uint16) % 50
        row = {"audio_filepath": str(path), "duration": len(samples) / RATE, "text": f"number {number}"}
        writer.add(frames.tobytes(), b"", len(frames), json.dumps(row).encode())
        rows.append({**row, "units_filepath": str(tmp_path / "units"), "units_row": number})
        segments += [{"audio_filepath": str(path), "offset": start, "duration": 0.25} for start in (0.5, 1.5, 30)]
        spoken.append({"audio_filepath": str(again), "source_audio_filepath": str(path)})
    writer.finish(SAID)
    writer.publish()
    for name, entries in (("m", rows), ("segments", segments), ("spoken", spoken)):
        (tmp_path / f"{name}.json").write_text("".join(json.dumps(row) + "\n" for row in entries))
    return tmp_path


def wanted(corpus, **more):
    names = {"manifest": "m", "segments": "segments", "spoken": "spoken"}
    return Wanted(**{key: str(corpus / f"{name}.json") for key, name in names.items()}, **more)


def samples_of(uri):
    kind, _, data = uri.partition(";base64,")
    assert kind == "data:audio/flac"
    return soundfile.read(io.BytesIO(base64.b64decode(data)))


def test_items_with_all_that_is_known_of_them(corpus):
    found = exhibit.exhibit(wanted(corpus))
    assert [piece.name for piece in found.items] == ["1.wav", "4.wav", "7.wav"]
    assert found.faults == []
    piece = found.items[0]
    assert (piece.duration, piece.shown_s, piece.text) == (3.0, 3.0, "number 1")
    assert piece.segments == [(0.5, 0.75), (1.5, 1.75)]
    assert (len(piece.units), piece.vocabulary_size, piece.rate) == (150, 50, 50.0)
    assert max(high for _, high in piece.peaks) == pytest.approx(0.5, abs=0.01)
    for uri in (piece.audio, piece.resynthesis):
        samples, rate = samples_of(uri)
        assert (len(samples), rate) == (3 * RATE, RATE)


def test_long_items_are_cut(corpus):
    found = exhibit.exhibit(wanted(corpus, longest_s=2.5, count=1))
    (piece,) = found.items
    assert piece.shown_s == 2.5
    assert len(piece.units) == 125
    assert len(samples_of(piece.audio)[0]) == 2.5 * RATE


def test_what_cannot_be_read_is_named(corpus):
    (corpus / "4.wav").write_bytes(b"RIFF no more")
    found = exhibit.exhibit(wanted(corpus))
    assert [piece.name for piece in found.items] == ["1.wav", "7.wav"]
    assert len(found.faults) == 1
    assert "4.wav" in found.faults[0]


def test_manifests_that_are_not_there_show_nothing(tmp_path):
    assert exhibit.exhibit(Wanted(manifest=str(tmp_path / "none.json"))).items == []


def test_sampled_speech(corpus):
    found = exhibit.exhibit(Wanted(sampled=str(corpus / "m.json"), count=2))
    assert [piece.name for piece in found.sampled] == ["0.wav", "1.wav"]
    assert found.items == []
