"""Recordings of a day stream through bounded memory. Each case is a process of its own, whose peak is measured."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import corpus

ROOT = Path(__file__).resolve().parents[2]
ALLOWED_MB = 60
_READ = """
import resource, sys
from pipelines.audio.read import Recording, read
read(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with Recording(sys.argv[2]) as recording:
    samples = sum(map(len, recording.blocks(1 << 20)))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(samples, recording.duration, (after - before) // 1024)
"""
_ANALYSE = """
import resource, sys
from pipelines.core.manifest import parse
from pipelines.core.pipeline import Resources
from pipelines.vad import load, options
import argparse, json
parser = argparse.ArgumentParser()
options.add_arguments(parser)
processor = load(options.parameters(parser.parse_args(["--engine", sys.argv[3]])), Resources(cpus=2))
def item(path): return parse(0, json.dumps({"audio_filepath": path}).encode())
processor.process([item(sys.argv[1])])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
[result] = processor.process([item(sys.argv[2])])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(result["duration"], result["duration"], (after - before) // 1024)
"""


def peak(script: str, *arguments: object) -> tuple[float, float, int]:
    """What the script prints: samples, seconds, and the megabytes that its long file took on top of its short one."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    samples, seconds, megabytes = done.stdout.split()
    return float(samples), float(seconds), int(megabytes)


def sparse(path: Path, hours: float, rate: int, channels: int) -> Path:
    """A WAVE file of silence that takes no room on the disk."""
    frames = round(hours * 3600 * rate)
    bytes_ = frames * channels * 2
    head = b"RF64\xff\xff\xff\xffWAVEds64" + struct.pack("<IQQQI", 28, bytes_ + 72, bytes_, frames, 0)
    head += b"fmt " + struct.pack("<IHHIIHH", 16, 1, channels, rate, rate * channels * 2, channels * 2, 16)
    with path.open("wb") as file:
        file.write(head + b"data\xff\xff\xff\xff")
        file.truncate(len(head) + 8 + bytes_)
    return path


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    return sparse(tmp_path_factory.mktemp("short") / "short.wav", 1 / 60, 16000, 1)


def test_a_day_at_16_khz(tmp_path, short):
    path = sparse(tmp_path / "day.wav", 24, 16000, 1)
    samples, seconds, megabytes = peak(_READ, short, path)
    assert (samples, seconds) == (24 * 3600 * 16000, 24 * 3600)
    assert megabytes < ALLOWED_MB


def test_an_hour_in_stereo_at_48_khz(tmp_path, short):
    path = sparse(tmp_path / "hour.wav", 1, 48000, 2)
    samples, seconds, megabytes = peak(_READ, short, path)
    assert (samples, seconds) == (3600 * 16000, 3600)
    assert megabytes < ALLOWED_MB


@pytest.mark.parametrize("kind", ["flac", "m4a"])
def test_ten_minutes_compressed(tmp_path, short, kind):
    source = sparse(tmp_path / "source.wav", 1 / 6, 16000, 1)
    path = corpus.convert(source, tmp_path / f"long.{kind}", "-ar", "44100", "-ac", "2")
    samples, seconds, megabytes = peak(_READ, short, path)
    assert seconds == pytest.approx(600, abs=0.1)
    assert samples == pytest.approx(600 * 16000, abs=2000)
    assert megabytes < ALLOWED_MB


@pytest.mark.parametrize(("engine", "hours"), [("silero", 1), ("ten", 0.3)])
def test_the_engines(tmp_path, short, engine, hours):
    """Blocks of 8 minutes for `ten`, two in flight, each with what comes before it; probabilities: 1 MB an hour."""
    random = np.random.default_rng(0)
    noise = random.integers(-200, 200, round(hours * 3600 * 16000)).astype(np.int16)
    path = corpus.write_wave(tmp_path / "long.wav", noise)
    _, seconds, megabytes = peak(_ANALYSE, short, path, engine)
    assert seconds == hours * 3600
    assert megabytes < 100
