"""Log-mel units back to sound: near what the units say, the same whatever the blocks, and never without an answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pipelines.units import griffin_lim, logmel
from pipelines.units.codebook import Codebook
from pipelines.units.fitting import fit
from pipelines.units.griffin_lim import CONTEXT, GriffinLim, Spectra, blocks
from pipelines.units.logmel import LogMel
from tests import corpus

DECIBELS = 10 / math.log(10)


@pytest.fixture(scope="module")
def waveforms():
    try:
        files = corpus.speech("en", 60, longest=6.0)
    except corpus.Missing as reason:
        pytest.skip(str(reason))
    found = [torch.from_numpy(corpus.read_wave(path).astype(np.float32) / 32768) for path in files]
    return [each for each in found if len(each) > 8000]


@pytest.fixture(scope="module")
def book(waveforms):
    frames = torch.cat([LogMel()(each[None])[0] for each in waveforms[10:]])
    order = torch.randperm(len(frames), generator=torch.Generator().manual_seed(0))
    return Codebook(torch.from_numpy(fit(frames[order].numpy(), 100).centroids))


def distance(one, other):
    """Root mean square over bands of the difference of log-mel spectra in dB, mean over frames."""
    count = min(len(one), len(other))
    return float(((one[:count] - other[:count]) * DECIBELS).square().mean(dim=1).sqrt().mean())


def said_again(inversion, units):
    """Log-mel bands of the sound of units."""
    sound = torch.cat(list(inversion.waveform(units)))
    return LogMel()(torch.nn.functional.pad(sound, (0, 80))[None])[0]


def test_features_that_were_not_quantised_come_back(waveforms):
    floor = []
    for waveform in waveforms[:10]:
        bands = LogMel()(waveform[None])[0]
        floor.append(distance(bands, said_again(GriffinLim(bands), torch.arange(len(bands)))))
    assert np.mean(floor) < 2.3, floor


def test_units_say_what_their_centroids_do(waveforms, book):
    inversion = GriffinLim(book.centroids)
    quantised, resynthesised = [], []
    for waveform in waveforms[:10]:
        bands = LogMel()(waveform[None])[0]
        units = book.assign(bands)
        quantised.append(distance(bands, book.centroids[units]))
        resynthesised.append(distance(bands, said_again(inversion, units)))
    assert np.mean(resynthesised) < np.mean(quantised) + 0.4, (quantised, resynthesised)
    assert np.mean(resynthesised) < 8


def test_mel_bands_are_undone_without_negative_power(waveforms):
    bands = LogMel()(waveforms[0][None])[0]
    spectra = Spectra(torch.device("cpu")).of(bands)
    assert spectra.shape == (len(bands), logmel.BINS)
    assert torch.isfinite(spectra).all()


@pytest.mark.parametrize("frames", [1, 2, 3, CONTEXT, CONTEXT + 1, 60])
def test_a_unit_becomes_320_samples(book, frames):
    units = torch.arange(frames) % book.size
    sound = torch.cat(list(GriffinLim(book.centroids).waveform(units)))
    assert sound.shape == (320 * frames,)
    assert sound.dtype == torch.float32
    assert float(sound.abs().max()) <= 1
    assert torch.equal(sound, torch.cat(list(GriffinLim(book.centroids).waveform(units))))


def test_no_units_are_no_sound(book):
    assert list(GriffinLim(book.centroids).waveform(torch.empty(0, dtype=torch.int64))) == []


@pytest.mark.parametrize("size", [7, CONTEXT, 50, 233])
def test_blocks_join_without_a_seam(waveforms, book, size):
    units = torch.cat([book.assign(LogMel()(each[None])[0]) for each in waveforms[:8]])[:300]
    inversion = GriffinLim(book.centroids)
    whole = torch.cat(list(inversion.waveform(units, len(units))))
    assert float((torch.cat(list(inversion.waveform(units, size))) - whole).abs().max()) < 1e-4


def test_blocks_see_all_that_can_change_them(book, monkeypatch):
    """With more context nothing changes, with less something does: it is the reach of the iterations."""
    units = torch.randint(0, book.size, (300,), generator=torch.Generator().manual_seed(0))
    inversion = GriffinLim(book.centroids)
    usual = torch.cat(list(inversion.waveform(units, 40)))
    monkeypatch.setattr(griffin_lim, "CONTEXT", CONTEXT + 15)
    assert float((torch.cat(list(inversion.waveform(units, 40))) - usual).abs().max()) < 1e-4
    monkeypatch.setattr(griffin_lim, "CONTEXT", 2)
    assert float((torch.cat(list(inversion.waveform(units, 40))) - usual).abs().max()) > 1e-3


@pytest.mark.parametrize(("frames", "size"), [(0, 5), (1, 5), (5, 5), (6, 5), (23, 5)])
def test_blocks_cover_a_sequence_once(frames, size):
    found = list(blocks(frames, size, 3))
    assert [n for block in found for n in range(block.first, block.last)] == list(range(frames))
    for block in found:
        assert block.start == max(0, block.first - 3)
        assert block.stop == min(frames, block.last + 3)


def test_silence_is_quiet():
    floor = torch.full((2, logmel.BANDS), math.log(logmel.FLOOR))
    assert float(torch.cat(list(GriffinLim(floor).waveform(torch.zeros(50, dtype=torch.int64)))).abs().max()) < 1e-3


def test_what_is_louder_than_full_scale_is_clipped():
    loud = torch.full((2, logmel.BANDS), 20.0)
    assert float(torch.cat(list(GriffinLim(loud).waveform(torch.zeros(9, dtype=torch.int64)))).abs().max()) == 1.0
