"""Between sample types and rates: channels to their mean, any rate to 16 kHz, and float samples to 16-bit integers."""

from __future__ import annotations

from typing import Any, Union

import numpy as np
import numpy.typing as npt

from pipelines.audio import RATE
from pipelines.core.errors import ItemError

Int16 = npt.NDArray[np.int16]
Float32 = npt.NDArray[np.float32]
Samples = Union[Int16, Float32]
"""Integers of 16 bits, or floats with full scale at ±1; the last axis is channels where there are two axes."""

FULL_SCALE = np.float32(32768.0)


def mono(samples: Samples) -> Samples:
    """The mean of the channels, shape (frames,). One channel is handed on as it is, integers or floats."""
    if samples.ndim == 1:
        return samples
    if samples.shape[1] == 1:
        return samples[:, 0]
    mean: Float32 = to_float(samples).mean(axis=1, dtype=np.float32)
    return mean


def to_float(samples: Samples) -> Float32:
    """Samples as float32 with full scale at ±1. Exact for 16-bit integers."""
    if samples.dtype == np.float32:
        return samples  # type: ignore[return-value]
    scaled: Float32 = np.multiply(samples, np.float32(1) / FULL_SCALE, dtype=np.float32)
    return scaled


def finite(samples: Float32) -> Float32:
    """The samples as they are. Raises ItemError for what is no number, which a model would answer with anything."""
    if not np.isfinite(samples).all():
        raise ItemError(
            "The recording holds samples that are not numbers (NaN or infinite); whatever wrote it went wrong."
        )
    return samples


def to_int16(samples: Samples) -> Int16:
    """Samples as 16-bit integers, rounded to the nearest and clipped at full scale.

    Raises ItemError for samples that are not numbers.
    """
    if samples.dtype == np.int16:
        return samples  # type: ignore[return-value]
    scaled = samples * FULL_SCALE
    if scaled.size and not (np.isfinite(scaled.max()) and np.isfinite(scaled.min())):
        raise ItemError(
            "The recording holds samples that are not numbers (NaN or infinite); whatever wrote it went wrong."
        )
    np.rint(scaled, out=scaled)
    np.clip(scaled, -32768, 32767, out=scaled)
    whole: Int16 = scaled.astype(np.int16)
    return whole


class Resampler:
    """From `rate` to 16 kHz, one channel, block by block: soxr's HQ recipe, no alias above −130 dB, no delay."""

    def __init__(self, rate: int) -> None:
        import soxr

        if not 100 <= rate <= 10_000_000:
            raise ItemError(f"The recording says that it has {rate} samples a second, which cannot be.")
        self._stream: Any = soxr.ResampleStream(rate, RATE, 1, dtype="float32", quality="HQ")

    def push(self, samples: Float32, last: bool = False) -> Float32:
        """The next samples at 16 kHz; with `last`, all that are left."""
        out: Float32 = self._stream.resample_chunk(samples, last=last)
        return out
