"""Every format, rate and channel count gives the same recording, at 16 kHz, in one piece and in blocks."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from pipelines.audio.read import Recording, read
from tests import corpus

SECONDS = 2.0
FORMATS = ("wav", "flac", "mp3", "ogg", "opus", "m4a")
RATES = dict.fromkeys(FORMATS, (8000, 16000, 22050, 44100, 48000))
RATES["opus"] = (8000, 12000, 16000, 24000, 48000)
"""Opus has rates of its own."""
KINDS = [(kind, rate, channels) for kind in FORMATS for rate in RATES[kind] for channels in (1, 2)]


def chirp(rate: int) -> np.ndarray:
    """A tone that rises from 200 to 3,000 Hz, with a silent end: every lag shows."""
    time = np.arange(round(SECONDS * rate)) / rate
    tone = 0.4 * np.sin(2 * np.pi * (200 * time + 700 * time**2))
    tone[time > SECONDS - 0.2] = 0
    return tone


@pytest.fixture(scope="module")
def master(tmp_path_factory):
    """Stereo, 48 kHz: the chirp is in the mean of the channels, which differ by a tone that cancels."""
    tone = chirp(48000)
    other = 0.2 * np.sin(2 * np.pi * 500 * np.arange(len(tone)) / 48000)
    path = tmp_path_factory.mktemp("master") / "master.wav"
    soundfile.write(path, np.column_stack((tone + other, tone - other)), 48000, subtype="PCM_24")
    return path


def lag_and_likeness(samples: np.ndarray, expected: np.ndarray) -> tuple[int, float]:
    size = 1 << (len(samples) + len(expected)).bit_length()
    crossed = np.fft.irfft(np.fft.rfft(samples, size) * np.conj(np.fft.rfft(expected, size)), size)
    lag = int(np.argmax(crossed))
    norm = np.linalg.norm(samples) * np.linalg.norm(expected)
    return (lag if lag < size // 2 else lag - size), float(crossed[lag] / norm)


@pytest.mark.parametrize(("kind", "rate", "channels"), KINDS)
def test_the_recording_is_the_same(master, tmp_path, kind, rate, channels):
    options = ["-ar", str(rate), "-ac", str(channels), *(["-b:a", "96k"] if kind in ("mp3", "m4a", "opus") else [])]
    path = corpus.convert(master, tmp_path / f"Recording.{kind.upper()}", *options)
    samples, duration = read(str(path))
    assert samples.dtype == np.int16
    # Encoders of m4a fill the last packet; the others say how long the recording is.
    assert duration == pytest.approx(SECONDS, abs=0.15 if kind == "m4a" else 0.001)
    assert len(samples) == pytest.approx(duration * 16000, abs=2)
    lag, likeness = lag_and_likeness(samples.astype(np.float64), chirp(16000))
    assert abs(lag) <= 8
    assert likeness > 0.99


@pytest.mark.parametrize("kind", FORMATS)
def test_blocks_are_the_whole_cut_up(master, tmp_path, kind):
    path = corpus.convert(master, tmp_path / f"a.{kind}", "-ar", "48000" if kind == "opus" else "44100")
    whole, duration = read(str(path))
    for size in (256, 1000, 20_000):
        with Recording(str(path)) as recording:
            blocks = list(recording.blocks(size))
            assert recording.duration == duration
        assert all(len(block) == size for block in blocks[:-1])
        assert 0 < len(blocks[-1]) <= size
        assert np.array_equal(np.concatenate(blocks), whole)


def test_floats_are_the_same_without_the_rounding(master, tmp_path):
    path = corpus.convert(master, tmp_path / "a.flac", "-ar", "44100")
    whole, _ = read(str(path))
    with Recording(str(path)) as recording:
        floats = np.concatenate(list(recording.float_blocks(4096)))
    assert floats.dtype == np.float32
    assert np.abs(floats * 32768 - whole).max() <= 0.5 + 1e-3
    assert len(np.unique(floats)) > len(np.unique(whole))


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "m4a"])
def test_a_twentieth_of_a_second(master, tmp_path, kind):
    path = corpus.convert(master, tmp_path / f"a.{kind}", "-t", "0.05", "-ar", "16000", "-ac", "1")
    samples, duration = read(str(path))
    assert 800 <= len(samples) <= 3000
    assert duration == len(samples) / 16000


def test_no_alias_from_resampling(tmp_path):
    """A tone of 8.5 kHz has no place at 16 kHz."""
    tone = 0.5 * np.sin(2 * np.pi * 8500 * np.arange(48000 * 3) / 48000)
    soundfile.write(tmp_path / "a.wav", tone.astype(np.float32), 48000, subtype="FLOAT")
    with Recording(str(tmp_path / "a.wav")) as recording:
        samples = np.concatenate(list(recording.float_blocks(16000)))[8000:-8000]
    assert 20 * np.log10(np.abs(samples).max() / 0.5) < -100


def test_sixteen_bits_are_not_touched(tmp_path):
    samples = np.random.default_rng(0).integers(-32768, 32768, 16000).astype(np.int16)
    for name in ("a.wav", "a.flac"):
        soundfile.write(tmp_path / name, samples, 16000, subtype="PCM_16")
        assert np.array_equal(read(str(tmp_path / name))[0], samples)


def test_floats_are_rounded_and_clipped(tmp_path):
    values = np.array(
        [0.0, 1.0, -1.0, 1.7, -3.0, 0.49 / 32768, 0.51 / 32768, -0.51 / 32768, 32767 / 32768], np.float32
    )
    soundfile.write(tmp_path / "a.wav", values, 16000, subtype="FLOAT")
    samples, _ = read(str(tmp_path / "a.wav"))
    assert samples.tolist() == [0, 32767, -32768, 32767, -32768, 0, 1, -1, 32767]


def test_the_mean_of_many_channels(tmp_path):
    channels = np.random.default_rng(1).integers(-3000, 3000, (8000, 6)).astype(np.int16)
    corpus.write_wave(tmp_path / "a.wav", channels)
    expected = np.rint(channels.astype(np.float64).mean(axis=1))
    assert np.abs(read(str(tmp_path / "a.wav"))[0] - expected).max() <= 1
    assert np.mean(read(str(tmp_path / "a.wav"))[0] == expected) > 0.999
