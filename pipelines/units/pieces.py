"""Recordings cut into pieces that a model takes at once, and which frames of each piece count.

Attention looks at the whole of what it is given, and costs its length squared, so long recordings go in pieces.
`overlapping`: pieces share `context` frames with each neighbour on both sides of a cut, and a frame counts in the
piece where it lies further from the cut; every frame of the recording is there once. `textless`: pieces end to end, as
textlesslib cuts them; each cut loses the frames that would straddle it.
"""

from __future__ import annotations

from typing import Any, Iterator, NamedTuple, Protocol

import numpy as np

from pipelines.audio.resample import Float32

OVERLAPPING, TEXTLESS = "overlapping", "textless"
MODES = (OVERLAPPING, TEXTLESS)


class Recording(Protocol):
    """What is encoded: its samples as blocks (float32, 16 kHz, full scale ±1), afresh at each call."""

    def __call__(self) -> Iterator[Float32]:
        """Its blocks, from the beginning."""
        ...


def takes_over_normalization(features: Any) -> bool:
    """Whether a model is to see normalised waveforms. It no longer normalises: that is of whole recordings."""
    wanted = bool(getattr(features, "normalize", False))
    if wanted:
        features.normalize = False
    return wanted


def blocks_of(recording: Recording, normalize: bool) -> Iterator[Float32]:
    """A recording's blocks; with `normalize`, of mean 0 and variance 1 over all of it (as fairseq: ε of 1e-5)."""
    if not normalize:
        return recording()
    count, total, squares = 0, 0.0, 0.0
    for block in recording():
        wide = block.astype(np.float64)
        count, total, squares = count + len(wide), total + float(wide.sum()), squares + float(wide @ wide)
    mean = total / max(1, count)
    middle, scale = np.float32(mean), np.float32(1 / np.sqrt(squares / max(1, count) - mean * mean + 1e-5))
    return ((block - middle) * scale for block in recording())


class Piece(NamedTuple):
    """Samples, and the range of their frames that counts."""

    samples: Float32
    first: int
    last: int


class Cut(NamedTuple):
    """How recordings are cut. `window` samples make the first frame, `hop` more each of the others."""

    window: int
    hop: int
    longest: int
    """Samples of a piece at most."""
    context: int
    """Frames that a piece shares with each neighbour: 1 or more; 0 and `textless` together."""
    mode: str = OVERLAPPING

    def frames(self, samples: int) -> int:
        """Frames of so many samples; a recording shorter than one frame is padded with zeros to one."""
        return max(1, (samples - self.window) // self.hop + 1) if samples else 0

    def pieces(self, blocks: Iterator[Float32]) -> Iterator[Piece]:
        """The pieces of a recording that comes as blocks of any size. Memory: one piece and one block."""
        return self._end_to_end(blocks) if self.mode == TEXTLESS else self._overlapping(blocks)

    def _overlapping(self, blocks: Iterator[Float32]) -> Iterator[Piece]:
        held = _Held(blocks)
        whole = self.frames(self.longest)
        first = 0
        while not held.ends_within(self.longest):
            yield Piece(held.first((whole - 1) * self.hop + self.window), first, whole - self.context)
            held.drop((whole - 2 * self.context) * self.hop)
            first = self.context
        samples = self._padded(held.first(self.longest))
        if len(samples):
            yield Piece(samples, first, self.frames(len(samples)))

    def _end_to_end(self, blocks: Iterator[Float32]) -> Iterator[Piece]:
        held = _Held(blocks)
        is_first = True
        while True:
            last = held.ends_within(self.longest)
            samples = held.first(self.longest)
            if is_first:
                samples = self._padded(samples)
            if len(samples) >= self.window:
                yield Piece(samples, 0, self.frames(len(samples)))
            if last:
                return
            held.drop(self.longest)
            is_first = False

    def _padded(self, samples: Float32) -> Float32:
        lacking = self.window - len(samples)
        return np.pad(samples, (0, lacking)) if 0 < lacking < self.window else samples


class _Held:
    """The samples that are read and not yet dropped."""

    def __init__(self, blocks: Iterator[Float32]) -> None:
        self._blocks = blocks
        self._samples: Float32 = np.empty(0, np.float32)
        self._ended = False

    def ends_within(self, count: int) -> bool:
        """Whether no more than `count` samples are left of the recording."""
        parts = [self._samples]
        have = len(self._samples)
        while have <= count and not self._ended:
            block = next(self._blocks, None)
            if block is None:
                self._ended = True
            else:
                parts.append(block)
                have += len(block)
        if len(parts) > 1:
            self._samples = np.concatenate(parts)
        return have <= count

    def first(self, count: int) -> Float32:
        return self._samples[:count]

    def drop(self, count: int) -> None:
        self._samples = self._samples[count:]
