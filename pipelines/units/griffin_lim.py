"""Log-mel units back to a waveform without a trained vocoder: what the embedded default can say of its units.

Each unit's centroid becomes a magnitude spectrum (the mel bands undone with non-negative weights, pre-emphasis taken
off), spectra are interpolated from a frame every 20 ms to one every 5 ms, and phases that fit them are found by fast
Griffin-Lim (Perraudin, Balazs, Søndergaard 2013) from the phases of single-pass spectrogram inversion (Beauregard,
Harish, Wyse 2015), which makes 16 iterations do what 60 do from any other start. It is intelligible where the units
are, and sounds hoarse: units of log-mel bands hardly keep pitch.
"""

from __future__ import annotations

import math
from typing import Iterator, NamedTuple

import torch
from torch import Tensor

from pipelines.units import logmel

HOP = 80
"""Samples between the frames of the inversion (5 ms)."""
_FINER = logmel.HOP // HOP
_OVERLAP = logmel.WINDOW // HOP
_ITERATIONS, _MOMENTUM = 16, 0.9
_UPDATES = 40
"""Of the multiplicative updates that undo the mel bands."""
_LEAST = 1e-12
"""Power in place of 0."""
_LAG = logmel.WINDOW / 2 / logmel.HOP
"""What lies between the start of a unit and the centre of the frame that it stands for, in units."""
CONTEXT = -(-(_ITERATIONS + 2) * (_OVERLAP - 1) // _FINER) + 1
"""Units to each side that can change a unit's samples: every iteration reaches as far as windows overlap."""


class Spectra:
    """What does not depend on the units: windows, and the mel bands' weights."""

    def __init__(self, device: torch.device) -> None:
        self._filters = logmel.filters().to(device)
        self._window = torch.hann_window(logmel.WINDOW, dtype=torch.float64).to(device)
        angle = torch.arange(logmel.BINS, dtype=torch.float64) * (2 * math.pi / logmel.POINTS)
        emphasis = 1 + logmel.PREEMPHASIS**2 - 2 * logmel.PREEMPHASIS * torch.cos(angle)
        powers = self._window.square().sum().cpu() / logmel.povey().square().sum()
        self._gain = (powers / emphasis).to(device)

    def of(self, bands: Tensor) -> Tensor:
        """Log-mel bands (frames, 80) → logarithms of magnitudes (frames, 257) of a Hann window over speech, float64.

        Powers whose bands come as near as they can in the Kullback-Leibler sense (Lee and Seung 2000): never negative.
        """
        wanted = bands.to(self._filters).exp()
        spread = self._filters.sum(dim=1).clamp(min=1e-9)
        power = (wanted / self._filters.sum(dim=0) @ self._filters.t() / spread).clamp(min=_LEAST)
        for _ in range(_UPDATES):
            ratio = wanted / (power @ self._filters).clamp(min=_LEAST)
            power = power * (ratio @ self._filters.t() / spread)
        power = power.clamp(min=_LEAST) * self._gain
        power[:, 0] = _LEAST  # the features leave the mean out
        spectra: Tensor = power.log().mul(0.5)
        return spectra


class Block(NamedTuple):
    """Units start … stop-1 of a sequence, computed together; of them, first … last-1 count."""

    start: int
    stop: int
    first: int
    last: int


def blocks(frames: int, size: int, context: int) -> Iterator[Block]:
    """Blocks of at most `size` units that count, with `context` around them."""
    for first in range(0, frames, size):
        last = min(first + size, frames)
        yield Block(max(0, first - context), min(frames, last + context), first, last)


class GriffinLim:
    """The inversion for one codebook of log-mel centroids (K, 80). Safe to call from several threads.

    In float64, because the iterations magnify rounding a hundred thousand times: in float32 (twice as fast) the sound
    would depend on where blocks begin, by 0.005; so it does not, by 1e-5.
    """

    hop = logmel.HOP

    def __init__(self, centroids: Tensor) -> None:
        self.device = centroids.device
        self.vocabulary_size = len(centroids)
        self._spectra = Spectra(self.device).of(centroids)
        self._turning = _turning(self._spectra)
        self._window = torch.hann_window(logmel.WINDOW, dtype=torch.float64, device=self.device)

    @torch.inference_mode()
    def waveform(self, units: Tensor, size: int = 500) -> Iterator[Tensor]:
        """Units (frames,) int64 → samples (frames · 320,) float32 in [-1, 1], `size` units at a time.

        Memory does not grow with the sequence. A block sees all that can change it, so blocks join without a seam.
        """
        # Phases are in turns; a block takes over that of the frame it begins with from the block before it.
        phase = torch.zeros(logmel.BINS, dtype=torch.float64, device=self.device)
        for block in blocks(len(units), size, CONTEXT):
            chosen = units[block.start : block.stop]
            magnitudes = _interpolated(self._spectra[chosen]).exp()
            steps = self._turning[chosen].repeat_interleave(_FINER, dim=0)
            phases = torch.cat([phase[None], phase + steps.cumsum(dim=0)]).frac()
            following = max(0, block.last - CONTEXT)
            phase = phases[(following - block.start) * _FINER]
            samples = self._fitted(magnitudes, phases)
            start = logmel.WINDOW // 2 + (block.first - block.start) * self.hop
            yield samples[start : start + (block.last - block.first) * self.hop].clamp(-1, 1).float()

    def _fitted(self, magnitudes: Tensor, turns: Tensor) -> Tensor:
        """Fast Griffin-Lim: magnitudes (n, 257) and phases in turns → samples, (n + 4) · 80 of them."""
        # A frame's transform counts from its first sample, and the phase is that at its centre.
        centred = turns - torch.arange(logmel.BINS, device=self.device) * (logmel.WINDOW / 2 / logmel.POINTS)
        spectrum = torch.polar(magnitudes, centred.frac() * (2 * math.pi))
        norm = _added(self._window.square().expand(len(magnitudes), -1)).clamp(min=1e-3)
        before = torch.zeros_like(spectrum)
        for _ in range(_ITERATIONS):
            consistent = self._transformed(self._sum(spectrum) / norm)
            spectrum = torch.lerp(before, consistent, 1 + _MOMENTUM)
            before = consistent
            parts = torch.view_as_real(spectrum)
            scale = magnitudes * torch.rsqrt(parts.square().sum(dim=2).clamp(min=1e-20))
            spectrum = spectrum * scale
        return self._sum(spectrum) / norm

    def _sum(self, spectrum: Tensor) -> Tensor:
        return _added(torch.fft.irfft(spectrum, logmel.POINTS)[:, : logmel.WINDOW] * self._window)

    def _transformed(self, samples: Tensor) -> Tensor:
        spectrum: Tensor = torch.fft.rfft(samples.unfold(0, logmel.WINDOW, HOP) * self._window, logmel.POINTS)
        return spectrum


def _interpolated(spectra: Tensor) -> Tensor:
    """Log-magnitudes a unit (n, 257) → every 5 ms (4 n + 1, 257), straight lines between the frames' centres."""
    places = torch.arange(_FINER * len(spectra) + 1, device=spectra.device) / _FINER - _LAG
    places = places.clamp(0, len(spectra) - 1)
    below = places.floor()
    lower = below.long()
    upper = (lower + 1).clamp(max=len(spectra) - 1)
    between: Tensor = torch.lerp(spectra[lower], spectra[upper], (places - below)[:, None].to(spectra.dtype))
    return between


def _turning(spectra: Tensor) -> Tensor:
    """Log-magnitudes (n, 257) → how far each bin turns from frame to frame (n, 257): as its nearest peak, in turns."""
    bins = torch.arange(logmel.BINS, device=spectra.device)
    left, middle, right = spectra[:, :-2], spectra[:, 1:-1], spectra[:, 2:]
    is_peak = torch.zeros_like(spectra, dtype=torch.bool)
    is_peak[:, 1:-1] = (middle > left) & (middle >= right)
    far = 4 * logmel.BINS
    below = torch.where(is_peak, bins, -far).cummax(dim=1).values
    above = torch.where(is_peak, bins, far).flip(1).cummin(dim=1).values.flip(1)
    nearest = torch.where(bins - below <= above - bins, below, above)
    nearest = torch.where(nearest.abs() < far, nearest, bins)  # no peak at all
    place = bins.double().repeat(len(spectra), 1)
    # The parabola through a peak and its neighbours gives the frequency between bins.
    bend = left - 2 * middle + right
    place[:, 1:-1] += torch.where(is_peak[:, 1:-1], (left - right) / (2 * bend), 0.0)
    return place.gather(1, nearest) * (HOP / logmel.POINTS)


def _added(frames: Tensor) -> Tensor:
    """Overlapping frames (n, 400), 80 samples apart, added up: ((n + 4) · 80,)."""
    pieces = frames.reshape(len(frames), _OVERLAP, HOP)
    total = frames.new_zeros(len(frames) + _OVERLAP - 1, HOP)
    for place in range(_OVERLAP):
        total[place : place + len(frames)] += pieces[:, place]
    return total.reshape(-1)
