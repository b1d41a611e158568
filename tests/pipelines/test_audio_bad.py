"""What cannot be read says why, in one sentence without the path, and holds nothing open."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipelines.audio import ffmpeg
from pipelines.audio.items import Audio
from pipelines.audio.read import Recording, read
from pipelines.core.errors import ItemError
from pipelines.core.manifest import parse
from tests import corpus

TONE = (3000 * np.sin(np.arange(16000 * 4) / 5)).astype(np.int16)
EXPECTED = {
    "empty.wav": "is empty",
    "truncated.wav": "is truncated: its header promises 4.000 s",
    "header_only.wav": "is truncated",
    "cut_in_header.wav": "is truncated",
    "not_audio.wav": "is not audio that libsndfile or ffmpeg can read",
    "not_audio.mp3": "not audio|damaged",
    "truncated.flac": "is damaged or truncated",
    "zeros.wav": "is not audio",
    "dangling.wav": "no longer there",
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return corpus.write_wave(tmp_path_factory.mktemp("good") / "good.wav", TONE)


def message(path) -> str:
    before = list(Path("/proc/self/fd").iterdir())
    with pytest.raises(ItemError) as caught:
        read(str(path))
    # Fewer, where what an earlier test left open is collected meanwhile.
    assert len(list(Path("/proc/self/fd").iterdir())) <= len(before)
    text = str(caught.value)
    assert str(path.parent) not in text
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", EXPECTED)
def test_bad_files(tmp_path, good, name):
    assert re.search(EXPECTED[name], message(corpus.bad_files(tmp_path, good)[name]))


@pytest.mark.parametrize("kind", ["mp3", "ogg", "opus", "m4a", "mka"])
def test_compressed_and_cut_in_half(tmp_path, good, kind):
    options = ["-movflags", "+faststart"] if kind == "m4a" else []
    path = corpus.convert(good, tmp_path / f"a.{kind}", *options)
    os.truncate(path, path.stat().st_size // 2)
    assert "truncated" in message(path)


def test_an_mp3_that_does_not_say_its_length_is_read_to_its_end(tmp_path, good):
    """libsndfile estimates the length of such a file (here at 1.4 s) and would stop there."""
    path = corpus.convert(good, tmp_path / "a.mp3", "-write_xing", "0", "-q:a", "2")
    assert read(str(path))[1] == pytest.approx(4.0, abs=0.2)


@pytest.mark.parametrize("kind", ["mp3", "ogg"])
def test_recordings_that_were_joined_are_read_to_the_end(tmp_path, good, kind):
    """libsndfile would stop after the first."""
    first = corpus.convert(good, tmp_path / f"a.{kind}")
    second = corpus.convert(good, tmp_path / f"b.{kind}", "-t", "2")
    joined = tmp_path / f"joined.{kind}"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    assert read(str(joined))[1] == pytest.approx(6.0, abs=0.2)


def test_a_flac_written_to_a_pipe_does_not_say_its_length(tmp_path, good):
    with (tmp_path / "a.flac").open("wb") as file:
        made = subprocess.run(
            ["ffmpeg", "-v", "error", "-i", good, "-f", "flac", "-"], capture_output=True, check=True
        )
        file.write(made.stdout)
    samples, duration = read(str(tmp_path / "a.flac"))
    assert duration == 4.0
    assert np.array_equal(samples, TONE)


@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_24", "ULAW"])
def test_a_writer_that_was_killed(tmp_path, subtype):
    """The sizes in the header are still 0, which libsndfile takes for no samples."""
    path = tmp_path / "a.wav"
    soundfile.write(path, TONE / 32768, 16000, subtype=subtype)
    data = bytearray(path.read_bytes())
    sizes = data.index(b"data") + 4
    data[4:8] = data[sizes : sizes + 4] = bytes(4)
    path.write_bytes(data)
    samples, duration = read(str(path))
    assert duration == 4.0
    assert np.abs(samples.astype(int) - TONE).max() < 150


def test_bytes_behind_an_ogg_file(tmp_path, good):
    path = corpus.convert(good, tmp_path / "a.ogg")
    with path.open("ab") as file:
        file.write(bytes(1000))
    assert read(str(path))[1] == pytest.approx(4.0, abs=0.01)


def test_gone(tmp_path):
    assert "no longer there" in message(tmp_path / "never.wav")
    assert "no longer there" in message(tmp_path / "never" / "never.wav")


def test_no_regular_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    assert "not a regular file" in message(tmp_path / "pipe.wav")
    assert "not a regular file" in message(tmp_path)


def test_permission_denied(tmp_path, good):
    path = tmp_path / "secret.wav"
    path.write_bytes(good.read_bytes())
    path.chmod(0)
    root = not os.geteuid()
    if root:
        os.seteuid(65534)
    try:
        assert "permission denied" in message(path)
    finally:
        if root:
            os.seteuid(0)


def test_not_numbers(tmp_path):
    values = np.zeros(16000, np.float32)
    values[700] = np.nan
    soundfile.write(tmp_path / "a.wav", values, 16000, subtype="FLOAT")
    assert "NaN" in message(tmp_path / "a.wav")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [16000, 24000])
@pytest.mark.parametrize("channels", [1, 2])
def test_not_numbers_in_floating_point(tmp_path, bad, rate, channels):
    values = np.zeros((rate, channels), np.float32)
    values[-1, -1] = bad
    soundfile.write(tmp_path / "a.wav", values, rate, subtype="FLOAT")
    audio = Audio(parse(0, json.dumps({"audio_filepath": str(tmp_path / "a.wav")}).encode()))
    list(audio())
    assert isinstance(audio.fault, ItemError)
    assert "not numbers (NaN or infinite)" in str(audio.fault)


def test_no_ffmpeg(tmp_path, good, monkeypatch):
    path = corpus.convert(good, tmp_path / "a.m4a")
    ffmpeg.program.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    try:
        assert "needs ffmpeg" in message(path)
        assert "conda install" in message(path)
    finally:
        ffmpeg.program.cache_clear()


def test_names_that_ffmpeg_would_take_for_something_else(tmp_path, good):
    for name in ("concat:a|b.m4a", "-i.m4a", "http:x.m4a", "a%03d.m4a"):
        made = corpus.convert(good, tmp_path / "plain.m4a")
        made.rename(tmp_path / name)
        assert read(str(tmp_path / name))[1] == pytest.approx(4.0, abs=0.15)


def test_a_wrong_suffix_does_not_matter(tmp_path, good):
    flac = corpus.convert(good, tmp_path / "a.flac")
    for name in ("a.mp3", "b.wav", "c.m4a"):
        (tmp_path / name).write_bytes(flac.read_bytes())
        assert read(str(tmp_path / name))[1] == 4.0


def test_leaving_early_ends_ffmpeg(tmp_path, good):
    path = corpus.convert(good, tmp_path / "a.m4a")
    with Recording(str(path)) as recording:
        process = recording._source._process
        next(recording.blocks(100))
    assert process.poll() is not None


def test_a_warning_to_all_processes_does_not_spoil_a_recording(tmp_path, good):
    """Slurm sends its warning signals to every process of a task; ffmpeg would die of them."""
    long = corpus.write_wave(tmp_path / "long.wav", np.tile(TONE, 60))
    path = corpus.convert(long, tmp_path / "a.m4a")
    with Recording(str(path)) as recording:
        blocks = recording.blocks(16000)
        first = next(blocks)
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
            recording._source._process.send_signal(number)
        rest = sum(map(len, blocks))
        assert recording.duration == pytest.approx(240, abs=0.2)
    assert len(first) + rest == pytest.approx(240 * 16000, abs=4000)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
