"""Log-mel bands: features that need no weights, those of GSLM's LogMel baseline at HuBERT's frame rate.

Kaldi's filter bank as `torchaudio.compliance.kaldi.fbank` computes it by default (80 bands from 20 Hz, 25 ms Povey
windows, DC removed, pre-emphasis 0.97, power spectrum of 512 points, natural logarithm, no dither), which GSLM
(Lakhotia et al. 2021, arXiv:2102.01192) quantises; but every 20 ms, so that frames are those of HuBERT.
"""

from __future__ import annotations

import math
from typing import Optional

import torch
from torch import Tensor, nn

from pipelines.audio import RATE

HOP = 320
"""Samples between frames (20 ms)."""
WINDOW = 400
"""Samples of a frame (25 ms)."""
BANDS = 80
POINTS = 512
"""Of the Fourier transform."""
BINS = POINTS // 2 + 1
LOWEST = 20.0
"""Hz; the highest band ends at half the sampling rate."""
PREEMPHASIS = 0.97
FLOOR = 1.1920928955078125e-07
"""Least power of a band before the logarithm: float32's epsilon, as in Kaldi."""
DESCRIPTION = {"kind": "logmel", "bands": BANDS, "window": WINDOW, "hop": HOP, "lowest": LOWEST, "rate": RATE}
"""What a codebook's description says of its features."""
_FRAMES_AT_ONCE = 1 << 13


class LogMel(nn.Module):
    """The features. Computed in float64 and rounded to float32 at the end: batching changes no bit that matters."""

    hop, shortest, width = HOP, WINDOW, BANDS
    normalize = False

    def __init__(self) -> None:
        super().__init__()
        self._window: Tensor
        self._filters: Tensor
        self.register_buffer("_window", povey(), persistent=False)
        self.register_buffer("_filters", filters(), persistent=False)

    @staticmethod
    def frames(samples: int) -> int:
        """Frames of a waveform of so many samples; 0 if it is shorter than a window."""
        return max(0, (samples - WINDOW) // HOP + 1)

    @torch.inference_mode()
    def forward(self, waveforms: Tensor, lengths: Optional[Tensor] = None) -> Tensor:  # noqa: ARG002 - as encoders'
        """Waveforms (batch, samples), full scale ±1, 16 kHz → (batch, frames, 80) float32.

        Padding changes nothing, so `lengths` are not needed; rows beyond a waveform's own frames are of the padding.
        """
        if waveforms.shape[1] < WINDOW:
            return waveforms.new_zeros(len(waveforms), 0, BANDS)
        frames = waveforms.unfold(1, WINDOW, HOP)
        step = max(1, _FRAMES_AT_ONCE // len(waveforms))
        parts = [self._bands(frames[:, start : start + step]) for start in range(0, frames.shape[1], step)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _bands(self, frames: Tensor) -> Tensor:
        frames = frames.double()
        frames = frames - frames.mean(dim=-1, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
        spectrum = torch.fft.rfft((frames - PREEMPHASIS * before) * self._window, POINTS)
        power: Tensor = spectrum.real.square() + spectrum.imag.square()
        return torch.matmul(power, self._filters).clamp(min=FLOOR).log().float()


def povey() -> Tensor:
    """Kaldi's window: a symmetric Hann window to the power of 0.85, (400,) float64."""
    return torch.hann_window(WINDOW, periodic=False, dtype=torch.float64).pow(0.85)


def filters() -> Tensor:
    """Triangles on the mel scale, (257, 80) float64; band edges are equally spaced from 20 Hz to 8 kHz."""
    low, high = _mel(LOWEST), _mel(RATE / 2)
    step = (high - low) / (BANDS + 1)
    left = low + step * torch.arange(BANDS, dtype=torch.float64)
    hertz = torch.arange(BINS, dtype=torch.float64) * (RATE / POINTS)
    mel = 1127.0 * torch.log1p(hertz / 700.0)
    rising = (mel[:, None] - left) / step
    weights = torch.minimum(rising, 2 - rising).clamp(min=0)
    weights[-1] = 0  # Kaldi leaves out the bin at half the sampling rate
    return weights


def _mel(hertz: float) -> float:
    return 1127.0 * math.log1p(hertz / 700.0)
