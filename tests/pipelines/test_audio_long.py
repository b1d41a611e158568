"""WAVE files whose sizes are wrong: longer than 32 bits can say, or left as their writer could not mend them.

The long ones are sparse: they take no disk.
"""

from __future__ import annotations

import struct
import subprocess
import time

import numpy as np
import pytest
import soundfile

from pipelines.audio.read import Recording, read
from pipelines.core.errors import ItemError
from tests import corpus

RATE = 44100
TAIL = np.arange(-500, 500, dtype=np.int16)


def bytes_of(samples: np.ndarray, tag: int, bits: int) -> bytes:
    """16-bit samples in another format."""
    if tag == 3:
        return (samples / 32768).astype(f"<f{bits // 8}").tobytes()
    if bits == 8:
        return (samples // 256 + 128).astype(np.uint8).tobytes()
    wide = (samples.astype(np.int64) << (bits - 16)).astype("<i8").view(np.uint8).reshape(-1, 8)
    return wide[:, : bits // 8].tobytes()


def sparse(path, tag: int, channels: int, bits: int, seconds: float, size=None, tail=TAIL, behind=b""):
    """A WAVE file of silence with `tail` at its end. `size`: that of the data in the header."""
    align = channels * bits // 8
    end = bytes_of(np.repeat(tail, channels), tag, bits)
    total = round(seconds * RATE) * align
    size = total if size is None else size
    head = b"RIFF" + struct.pack("<I", (size + 36) % (1 << 32)) + b"WAVEfmt " + struct.pack("<I", 16)
    head += struct.pack("<HHIIHH", tag, channels, RATE, RATE * align, align, bits)
    head += b"data" + struct.pack("<I", size % (1 << 32))
    with path.open("wb") as file:
        file.write(head)
        file.seek(len(head) + total - len(end))
        file.write(end + behind)
    return path


def end_of(path, frames: int) -> tuple[float, np.ndarray]:
    """The duration of the recording by its decoder, and its last frames."""
    with Recording(str(path)) as recording:
        source = recording._source
        left = source._left
        source.skip(left - frames)
        samples = source.read(frames + 10)
        assert len(samples) == frames
        return left / RATE, samples


LONG = {
    "24 bits": (1, 1, 24, 24 * 3600),
    "32 bits": (1, 1, 32, 24 * 3600),
    "float": (3, 1, 32, 24 * 3600),
    "double": (3, 1, 64, 24 * 3600),
    "8 bits, stereo": (1, 2, 8, 24 * 3600),
    "24 bits, 5.1": (1, 6, 24, 3 * 3600),
    "16 bits": (1, 2, 16, 24 * 3600),
}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("unknown", [False, True])
def test_longer_than_the_header_can_say(tmp_path, name, unknown):
    _, channels, bits, seconds = LONG[name]
    path = sparse(tmp_path / "a.wav", *LONG[name], size=0xFFFFFFFF if unknown else None)
    duration, samples = end_of(path, 1000)
    assert duration == seconds
    assert samples.ndim == (1 if channels == 1 else 2)
    samples = samples if channels == 1 else samples[:, -1]
    samples = samples if samples.dtype == np.int16 else samples * 32768
    assert np.array_equal(samples, TAIL // 256 * 256 if bits == 8 else TAIL)


@pytest.mark.parametrize(("tag", "bits", "subtype"), [(1, 24, "PCM_24"), (1, 32, "PCM_32"), (3, 32, "FLOAT")])
def test_long_files_are_read_as_short_ones_are(tmp_path, tag, bits, subtype):
    """To the last bit, which is beyond what 16 bits hold."""
    values = np.random.default_rng(0).uniform(-1, 1, 3 * RATE)
    soundfile.write(tmp_path / "short.wav", values, RATE, subtype=subtype)
    expected, _ = soundfile.read(tmp_path / "short.wav", dtype="float32")
    data = (tmp_path / "short.wav").read_bytes()[-len(values) * bits // 8 :]
    path = sparse(tmp_path / "a.wav", tag, 1, bits, 14 * 3600)
    with path.open("r+b") as file:
        file.seek(44)
        file.write(data)
    with Recording(str(path)) as recording:
        assert np.array_equal(recording._source.read(len(values)), expected)


def test_kinds_that_only_libsndfile_reads_are_refused_when_they_are_too_long(tmp_path):
    path = sparse(tmp_path / "a.wav", 7, 1, 8, 30 * 3600)
    with pytest.raises(ItemError, match=r"longer than its 32-bit header can say\. Convert it: `ffmpeg -ignore_length"):
        read(str(path))


@pytest.mark.parametrize(("channels", "bits"), [(1, 16), (2, 16), (6, 16), (1, 24), (6, 24)])
@pytest.mark.parametrize("gigabytes", [0.001, 1, 3, 5])
def test_the_size_that_sox_writes_to_a_pipe(tmp_path, channels, bits, gigabytes):
    """0x7FFFF000, rounded down to a whole number of frames."""
    align = channels * bits // 8
    seconds = round(gigabytes * 1e9 / align / RATE, 1)
    path = sparse(tmp_path / "a.wav", 1, channels, bits, seconds, size=0x7FFFF000 // align * align)
    with Recording(str(path)) as recording:
        source = recording._source
        frames = source.frames if hasattr(source, "frames") else source._left
    assert frames == round(seconds * RATE)


def test_a_size_that_is_the_marker_by_chance(tmp_path):
    """A chunk follows, so it is right."""
    seconds = 0x7FFF1000 // 2 / RATE
    path = sparse(tmp_path / "a.wav", 1, 1, 16, seconds, behind=b"LIST\4\0\0\0INFO")
    assert end_of(path, 1000)[0] == seconds


def promising(path, seconds: float):
    """Lowers the sizes in the header of a WAVE file to those of its first seconds."""
    data = bytearray(path.read_bytes())
    place = data.index(b"data") + 4
    size = round(seconds * 32000)
    data[place : place + 4] = struct.pack("<I", size)
    data[4:8] = struct.pack("<I", size + place - 4)
    path.write_bytes(data)
    return path


@pytest.fixture
def noise(tmp_path):
    samples = np.random.default_rng(0).integers(-3000, 3000, 4 * 16000).astype(np.int16)
    return corpus.write_wave(tmp_path / "noise.wav", samples), samples


def test_a_recorder_that_was_killed_after_its_last_update(tmp_path, noise):
    path, samples = noise
    promising(path, 1)
    with pytest.raises(
        ItemError, match=r"says 1.000 s of audio, and 3.000 s follow that are no chunk.*-ignore_length"
    ):
        read(str(path))
    mended = tmp_path / "mended.wav"
    subprocess.run(["ffmpeg", "-v", "error", "-ignore_length", "1", "-i", path, "-c", "copy", mended], check=True)
    assert np.array_equal(read(str(mended))[0], samples)


@pytest.mark.parametrize(
    "behind",
    [bytes(100_000), b"id3 " + struct.pack("<I", 50_000) + bytes(50_000), b"ID3\3" + bytes(99_000), b"\1" * 900],
)
def test_what_may_stand_behind_the_samples(noise, behind):
    path, samples = noise
    with path.open("ab") as file:
        file.write(behind)
    assert np.array_equal(read(str(path))[0], samples)


def test_no_chunks_at_all(tmp_path):
    """It took minutes, 8 bytes at a time."""
    path = tmp_path / "a.wav"
    with path.open("wb") as file:
        file.write(b"RIFF\0\0\0\0WAVE")
        file.truncate(1 << 33)
    before = time.monotonic()
    with pytest.raises(ItemError, match="damaged: bytes that are no chunk"):
        read(str(path))
    assert time.monotonic() - before < 1


@pytest.mark.parametrize("cut", [False, True])
def test_mp3_inside_wave(tmp_path, noise, cut):
    path = corpus.convert(noise[0], tmp_path / "a.wav", "-c:a", "libmp3lame", "-b:a", "64k")
    assert soundfile.info(path).subtype == "MPEG_LAYER_III"
    if not cut:
        assert read(str(path))[1] == pytest.approx(4, abs=0.15)
        return
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(ItemError, match="truncated"):
        read(str(path))
