"""Log-mel bands: against an independent computation in numpy, and of each waveform alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines.units.logmel import BANDS, HOP, WINDOW, LogMel
from tests import corpus


def by_the_book(samples):
    """Kaldi's filter bank, frame by frame in float64, with a naive transform and triangles bin by bin."""
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85
    transform = np.exp(-2j * np.pi * np.outer(np.arange(256), np.arange(400)) / 512)
    mel = 1127 * np.log(1 + np.arange(256) * 16000 / 512 / 700)
    edges = np.linspace(1127 * np.log(1 + 20 / 700), 1127 * np.log(1 + 8000 / 700), 82)
    triangles = np.zeros((80, 256))
    for band in range(80):
        left, centre, right = edges[band : band + 3]
        for k in range(256):
            if left < mel[k] <= centre:
                triangles[band, k] = (mel[k] - left) / (centre - left)
            elif centre < mel[k] < right:
                triangles[band, k] = (right - mel[k]) / (right - centre)
    rows = []
    for start in range(0, len(samples) - 399, 320):
        frame = samples[start : start + 400].astype(np.float64)
        frame = frame - frame.mean()
        frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
        power = np.abs(transform @ (frame * window)) ** 2
        rows.append(np.log(np.maximum(triangles @ power, np.finfo(np.float32).eps)))
    return np.array(rows)


@pytest.fixture(scope="module")
def speech():
    try:
        files = corpus.speech("en", 8, longest=5.0)
    except corpus.Missing as reason:
        pytest.skip(str(reason))
    return [torch.from_numpy(corpus.read_wave(path).astype(np.float32) / 32768) for path in files]


def test_it_is_kaldis_filter_bank_every_20_ms(speech):
    for waveform in speech[:3]:
        found = LogMel()(waveform[None])[0]
        expected = by_the_book(waveform.numpy())
        assert found.dtype == torch.float32
        assert found.shape == expected.shape == ((len(waveform) - WINDOW) // HOP + 1, BANDS)
        assert np.abs(found.numpy() - expected).max() < 2e-6


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (1, 0), (399, 0), (400, 1), (719, 1), (720, 2), (16000, 49)])
def test_frames_are_those_of_hubert(samples, frames):
    assert LogMel.frames(samples) == frames
    assert LogMel()(torch.zeros(2, samples)).shape == (2, frames, 80)


def test_padding_company_and_place_change_no_bit(speech):
    model = LogMel()
    lengths = torch.tensor([len(each) for each in speech])
    together = model(torch.nn.utils.rnn.pad_sequence(speech, batch_first=True), lengths)
    whole = model(torch.cat(speech)[None])[0]
    for row, waveform in zip(together, speech):
        alone = model(waveform[None])[0]
        assert torch.equal(row[: len(alone)], alone)
        assert torch.equal(model(waveform[None, 5 * HOP :])[0], alone[5:])
    assert torch.equal(whole[: len(together[0][: LogMel.frames(len(speech[0]))])], model(speech[0][None])[0])


def test_silence_is_finite():
    found = LogMel()(torch.zeros(1, 4000))
    assert torch.isfinite(found).all()
    assert len(torch.unique(found)) == 1


def test_attributes_are_those_of_an_encoder():
    assert (LogMel().hop, LogMel().shortest, LogMel().width) == (320, 400, 80)
