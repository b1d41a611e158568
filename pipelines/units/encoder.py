"""Speech to units: pieces of recordings through an encoder and a codebook, in batches that change nothing."""

from __future__ import annotations

import logging
from typing import Any, Iterable, NamedTuple, Optional, Protocol, Sequence

import numpy as np
import torch

from pipelines.audio import RATE
from pipelines.audio.resample import Float32
from pipelines.core.errors import UsageError
from pipelines.core.pipeline import Parameters
from pipelines.units import device, models
from pipelines.units.codebook import Codebook
from pipelines.units.packed import Units
from pipelines.units.pieces import OVERLAPPING, Cut, Piece, Recording, blocks_of, takes_over_normalization

log = logging.getLogger(__name__)

CONTEXT_S = 4.0
"""What a piece of a long recording sees of each neighbour."""
_PADDING = 0.1
"""A batch ends where more of it would be padding."""
_GPU_BATCH_S, _GPU_WINDOW_S = 480.0, 3600.0
"""On a GPU: padded seconds in a batch at first, and seconds of audio that are sorted by length to make batches of."""


class Features(Protocol):
    """A model of `pipelines.units`: HuBERT, or log-mel bands."""

    hop: int
    shortest: int

    def __call__(self, waveforms: torch.Tensor, lengths: Optional[torch.Tensor]) -> torch.Tensor:
        """Waveforms (batch, samples) and lengths (batch,) → features (batch, frames, width)."""
        ...


class _Waiting(NamedTuple):
    """A piece, whose recording it is of, and its place there."""

    owner: int
    place: int
    piece: Piece


class Padding:
    """Frames that were computed, and those of them that were speech and not padding."""

    def __init__(self) -> None:
        self.real = self.computed = 0

    @property
    def share(self) -> float:
        """Of the computed samples, those that are padding."""
        return 1 - self.real / self.computed if self.computed else 0.0


class UnitEncoder:
    """Encodes recordings. On a CPU, safe to call from several threads. A result depends on its recording alone."""

    def __init__(  # noqa: PLR0917
        self,
        features: Features,
        codebook: Codebook,
        on: torch.device,
        mode: str = OVERLAPPING,
        chunk_s: float = 100.0,
        batch_s: Optional[float] = None,
    ) -> None:
        self.vocabulary_size, self.hop = codebook.size, features.hop
        self.rate = RATE / features.hop
        self.padding = Padding()
        context = round(CONTEXT_S * self.rate) if mode == OVERLAPPING else 0
        self.cut = Cut(features.shortest, features.hop, round(chunk_s * RATE), context, mode)
        self._features, self._codebook, self._device = features, codebook, on
        # On a CPU a batch is no faster than its recordings one by one, and padding costs.
        self._batch = round((batch_s if batch_s is not None else _GPU_BATCH_S if on.type == "cuda" else 0) * RATE)
        self._window = round((_GPU_WINDOW_S if self._batch else 0) * RATE)
        self._normalize = takes_over_normalization(features)

    @property
    def on_gpu(self) -> bool:
        """Whether batches are worth their padding."""
        return self._device.type == "cuda"

    def encode(self, waveforms: Sequence[Float32]) -> list[Units]:
        """The units of whole waveforms (samples,) at 16 kHz; shape (frames,) each."""
        return list(self.encode_recordings([_blocks_of(waveform) for waveform in waveforms]))

    def encode_recordings(self, recordings: Iterable[Recording]) -> list[Units]:
        """The units of recordings of any length, one a frame, in their order. Memory: the window's pieces."""
        found: list[list[Optional[Units]]] = []
        waiting: list[_Waiting] = []
        held = 0
        for owner, recording in enumerate(recordings):
            found.append([])
            for place, piece in enumerate(self.cut.pieces(blocks_of(recording, self._normalize))):
                found[owner].append(None)
                waiting.append(_Waiting(owner, place, piece))
                held += len(piece.samples)
                if held >= self._window:
                    self._settle(waiting, found)
                    waiting, held = [], 0
        self._settle(waiting, found)
        return [np.concatenate([part for part in parts if part is not None] or [_NONE]) for parts in found]

    def _settle(self, waiting: list[_Waiting], found: list[list[Optional[Units]]]) -> None:
        waiting.sort(key=lambda each: len(each.piece.samples))
        while waiting:
            count = self._fitting(waiting)
            batch, waiting = waiting[-count:], waiting[:-count]
            for each, units in zip(batch, self._through([entry.piece for entry in batch])):
                found[each.owner][each.place] = units

    def _fitting(self, waiting: list[_Waiting]) -> int:
        """How many of the longest pieces make a batch: as many as fit, and as padding leaves worth it."""
        longest, real, count = max(1, len(waiting[-1].piece.samples)), 0, 0
        for each in reversed(waiting):
            real += len(each.piece.samples)
            computed = longest * (count + 1)
            if count and (computed > self._batch or real < (1 - _PADDING) * computed):
                break
            count += 1
        return count

    def _through(self, pieces: list[Piece]) -> list[Units]:
        """One batch through encoder and codebook; where a GPU's memory does not hold it, in halves."""
        try:
            return self._units(pieces)
        except torch.cuda.OutOfMemoryError:
            if len(pieces) == 1:
                raise
            torch.cuda.empty_cache()
            self._batch = max(1, self._batch // 2)
            log.info("The GPU's memory does not hold the batch; batches of %.0f s from now on.", self._batch / RATE)
        half = len(pieces) // 2
        return self._through(pieces[:half]) + self._through(pieces[half:])

    def _units(self, pieces: list[Piece]) -> list[Units]:
        lengths = [len(piece.samples) for piece in pieces]
        longest = max(lengths)
        self.padding.real += sum(lengths)
        self.padding.computed += longest * len(pieces)
        with torch.inference_mode():
            if len(pieces) == 1:
                waveforms = torch.from_numpy(np.ascontiguousarray(pieces[0].samples))[None].to(self._device)
                features = self._features(waveforms, None)
            else:
                padded = torch.zeros(len(pieces), longest, pin_memory=self._device.type == "cuda")
                for row, piece in enumerate(pieces):
                    padded[row, : lengths[row]] = torch.from_numpy(np.ascontiguousarray(piece.samples))
                waveforms = padded.to(self._device, non_blocking=True)
                features = self._features(waveforms, torch.tensor(lengths, device=self._device))
            spans = [features[row, piece.first : piece.last] for row, piece in enumerate(pieces)]
            codes = self._codebook.assign(spans[0] if len(spans) == 1 else torch.cat(spans)).cpu().numpy()
        ends = np.cumsum([piece.last - piece.first for piece in pieces])[:-1]
        return np.split(codes.astype(np.uint16), ends)


_NONE = np.empty(0, np.uint16)


class WholeRecordings:
    """An encoder that takes waveforms one by one, each whole, called as ours is."""

    on_gpu = False

    def __init__(self, encoder: Any) -> None:
        self.vocabulary_size, self.hop, self.rate = encoder.vocabulary_size, encoder.hop, RATE / encoder.hop
        self._encoder = encoder

    def encode_recordings(self, recordings: Iterable[Recording]) -> list[Units]:
        """The units of recordings, one a frame, in their order."""
        found = []
        for recording in recordings:
            blocks = list(recording())
            found.append(self._encoder.encode([np.concatenate(blocks)])[0] if blocks else _NONE)
        return found


def _blocks_of(waveform: Float32) -> Recording:
    return lambda: iter([waveform])


def _refuse_other(model: models.ModelInfo, digest: str) -> None:
    """Raise UsageError where a model is no longer the one that the run began with."""
    if model.digest != digest:
        raise UsageError(
            f"The model {model.name} in {model.folder} is not the one that this run began with (it was fitted or "
            "imported anew since), and units of two models must not mix. Give the command again: with the model as "
            "it is now, that is another run. Or put the earlier model back."
        )


def load(parameters: Parameters, batch_s: Optional[float] = None) -> Any:
    """The encoder of a run's parameters, on the device that is there. Raises UsageError, EnvironmentNotFit."""
    if parameters["backend"] == "textless":
        from pipelines.units.reference import ReferenceEncoder

        return WholeRecordings(ReferenceEncoder.load(parameters))
    on = device.choose(parameters["precision"])
    codebook = models.describe(parameters["codebook"], "codebook")
    _refuse_other(codebook, parameters["codebook_digest"])
    if parameters["dense_model"] is None:
        from pipelines.units.logmel import LogMel

        features: Any = LogMel().to(on)
    else:
        from pipelines.units.hubert import Hubert

        dense = models.describe(parameters["dense_model"], "hubert")
        _refuse_other(dense, parameters["dense_digest"])
        kind = torch.bfloat16 if parameters["precision"] == "bf16" else torch.float32
        features = Hubert.load(dense, parameters["layer"], device=on, dtype=kind)
    return UnitEncoder(
        features, Codebook.load(codebook, on), on, parameters["chunking"], parameters["chunk_s"], batch_s
    )
