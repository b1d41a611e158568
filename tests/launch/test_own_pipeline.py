"""The guide to a pipeline of one's own in TECHNICAL.md, done as it is written."""

from __future__ import annotations

import array
import json
import re
import wave

import pytest

from tests.launch.conftest import REPOSITORY

GUIDE = (REPOSITORY / "TECHNICAL.md").read_text().partition("\n## Your own pipeline\n")[2].partition("\n## ")[0]
FILES = dict(re.findall(r"^`([\w./]+)`[^\n]*:\n\n```\w+\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE))


@pytest.fixture
def peak(place, monkeypatch):
    """The guide's files in a folder of the user's, and three recordings: loud, soft, and none."""
    for name, text in FILES.items():
        path = place.root / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv("VOXARRAY_PIPELINES", str(place.root / "mine"))
    rows = []
    for name, level in (("loud", 32767), ("soft", 3277), ("none", None)):
        path = place.root / f"{name}.wav"
        if level is None:
            path.write_bytes(b"RIFF")
        else:
            with wave.open(str(path), "wb") as file:
                file.setparams((1, 2, 16000, 0, "NONE", ""))
                file.writeframes(array.array("h", [0, level, -level] * 1000).tobytes())
        rows.append({"audio_filepath": str(path), "duration": 0.1875})
    manifest = place.root / "corpus.json"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


def peaks(place):
    return [json.loads(line).get("peak_db") for line in (place.root / "corpus.json").read_text().splitlines()]


def test_it_is_short():
    assert {"peak/__init__.py", "peak/pipeline.toml", "peaks.toml"} == set(FILES)
    assert sum(len(FILES[name].splitlines()) for name in ("peak/__init__.py", "peak/pipeline.toml")) < 60


def test_it_runs_as_written(peak):
    status, out, error = peak.run("peak", "corpus.json", "--tasks", 2, "--cluster", "local")
    assert "3 items = 2 merged + 1 quarantined + 0 missing" in out, error
    assert status == 1
    assert peaks(peak) == [0.0, -20.0, None]
    status, _, error = peak.run("peak", "corpus.json", "--full-scale", "-1")
    assert (status, "must be above 0" in error) == (2, True)


def test_it_is_a_step_of_a_chain(peak):
    (peak.root / "peaks.toml").write_text(FILES["peaks.toml"])
    status, out, error = peak.run("run", "peaks.toml", "manifest=corpus.json", "--cluster", "local")
    assert status == 1, error
    assert "2 items, 1 given up" in out
    assert peaks(peak) == [0.0, -20.0, None]


def test_it_is_in_the_help(peak):
    status, out, _ = peak.run("--help")
    assert (status, "Peak level in dB." in out) == (0, True)
