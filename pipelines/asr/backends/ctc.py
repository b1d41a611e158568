"""CTC recognisers of transformers, in batches that change nothing.

Models whose first convolution is normalised over time (`feat_extract_norm: group`: wav2vec2-base, -large-960h) hear
the padding of a batch too: transformers runs them without a mask, and their text then depends on the longest recording
beside them. Here that normalisation leaves the padding out, and every layer is given the mask.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, NamedTuple, Optional, Sequence

import numpy as np
import torch

from pipelines.asr.backends import device
from pipelines.asr.backends.base import ONE_BY_ONE, Transcript, Word, audible, within
from pipelines.audio import RATE
from pipelines.audio.resample import Float32
from pipelines.core.errors import UsageError

_EXACT = ("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat")
"""Models known to be exact under padding once they have mask and masked normalisation; others go one by one."""
_VARIANCE_FLOOR = 1e-7
"""Of a piece's own normalisation, as transformers' Wav2Vec2FeatureExtractor has it."""


class MaskedGroupNorm(torch.nn.Module):
    """GroupNorm with one group a channel, over the frames of each row's own piece: a drop-in for the first layer's."""

    def __init__(self, norm: torch.nn.GroupNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.rows = threading.local()
        """`rows.mask`: which frames (batch, 1, frames) belong to the pieces of the calling thread's batch."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Normalise (batch, channels, frames); frames of the padding are unspecified."""
        wide = hidden.float()
        mask: Optional[torch.Tensor] = getattr(self.rows, "mask", None)
        if mask is None:
            mean = wide.mean(dim=2, keepdim=True)
            spread = (wide - mean).square().mean(dim=2, keepdim=True)
        else:
            count = mask.sum(dim=2, keepdim=True)
            mean = (wide * mask).sum(dim=2, keepdim=True) / count
            spread = ((wide - mean).square() * mask).sum(dim=2, keepdim=True) / count
        normal = (wide - mean) * torch.rsqrt(spread + self.eps)
        return (normal * self.weight.float()[:, None] + self.bias.float()[:, None]).to(hidden.dtype)


class Shape(NamedTuple):
    """Kernel and stride of a convolution."""

    kernel: int
    stride: int

    def frames(self, samples: torch.Tensor) -> torch.Tensor:
        """How many frames it makes of so many samples."""
        return torch.div(samples - self.kernel, self.stride, rounding_mode="floor") + 1


class Ctc:
    """A CTC recogniser on one device; on a CPU, one call a core."""

    longest_s = 30.0
    has_words = True
    together = ONE_BY_ONE
    encoder_overhead = None

    def __init__(self, model: Any, folder: Path, place: device.Place, cpus: int) -> None:
        """`model` is in evaluation mode on `place`; `folder` holds its tokenizer and preprocessor."""
        self.on_gpu = place.on_gpu
        self.overhead = device.overhead(place)
        self.batch_s = device.batch_s(place, per_80_gb=2400.0, on_cpu=60.0)
        self.concurrency = 1 if place.on_gpu else max(1, cpus)
        if not place.on_gpu:
            torch.set_num_threads(1)  # calls run side by side instead
        self._model, self._place = model, place
        self._processor = _processor(folder)
        self._tokenizer = self._processor.tokenizer
        self._blank = int(model.config.pad_token_id)
        self._step_s = (
            float(np.prod(model.config.conv_stride)) / RATE if hasattr(model.config, "conv_stride") else 0.02
        )
        self._batches = model.config.model_type in _EXACT
        self._norm = self._masked_norm() if self._batches else None

    def _masked_norm(self) -> Optional[MaskedGroupNorm]:
        """Put our normalisation in the place of the model's, if it has one over time."""
        if self._model.config.feat_extract_norm != "group":
            return None
        first = self._model.base_model.feature_extractor.conv_layers[0]
        first.layer_norm = MaskedGroupNorm(first.layer_norm)
        norm: MaskedGroupNorm = first.layer_norm
        return norm

    def transcribe(self, pieces: Sequence[Float32], words: bool = False) -> list[Transcript]:
        """The transcripts of a batch of pieces (samples,) at 16 kHz ±1."""
        return audible(pieces, words, lambda some: self._recognise(some, words))

    def _recognise(self, pieces: list[Float32], words: bool) -> list[Transcript]:
        rows = self._batch(pieces) if self._batches else [self._one(piece) for piece in pieces]
        return [self._transcript(ids, words, len(piece) / RATE) for ids, piece in zip(rows, pieces)]

    @torch.inference_mode()
    def _batch(self, pieces: list[Float32]) -> list[list[int]]:
        """The best token of each frame of each piece."""
        normal = self._processor.feature_extractor.do_normalize
        signal, lengths = device.padded([_normal(piece) if normal else piece for piece in pieces], self._place.device)
        even = len({len(piece) for piece in pieces}) == 1
        mask = None if even else torch.arange(signal.shape[1], device=signal.device) < lengths[:, None]
        if self._norm is not None:
            self._norm.rows.mask = None if mask is None else self._first_mask(signal.shape[1], lengths)
        logits = self._model(signal.to(self._place.dtype), attention_mask=None if mask is None else mask.long()).logits
        best = logits.argmax(dim=-1).cpu()
        frames = self._model._get_feat_extract_output_lengths(lengths.cpu())  # noqa: SLF001 - there is no public one
        return [row[:count].tolist() for row, count in zip(best, frames.tolist())]

    def _first_mask(self, samples: int, lengths: torch.Tensor) -> torch.Tensor:
        """Which frames of the first convolution are of each piece: (batch, 1, frames)."""
        config = self._model.config
        first = Shape(config.conv_kernel[0], config.conv_stride[0])
        count = int(first.frames(torch.tensor(samples)))
        return (torch.arange(count, device=lengths.device) < first.frames(lengths)[:, None])[:, None]

    @torch.inference_mode()
    def _one(self, piece: Float32) -> list[int]:
        """As transformers prepares and runs a single recording."""
        inputs = self._processor(piece, sampling_rate=RATE, return_tensors="pt").to(self._place.device)
        inputs = {
            name: each.to(self._place.dtype) if each.is_floating_point() else each for name, each in inputs.items()
        }
        ids: list[int] = self._model(**inputs).logits[0].argmax(dim=-1).tolist()
        return ids

    def _transcript(self, ids: list[int], words: bool, seconds: float) -> Transcript:
        if not words:
            return Transcript(self._tokenizer.decode(ids).strip())
        found = self._tokenizer.decode(ids, output_word_offsets=True)
        step = self._step_s if self._batches else seconds / max(1, len(ids))
        spans = [
            Word(each["start_offset"] * step, each["end_offset"] * step, each["word"]) for each in found.word_offsets
        ]
        return Transcript(found.text.strip(), within(spans, seconds))

    def close(self) -> None:
        """Free the weights."""
        del self._model


def _normal(piece: Float32) -> Float32:
    """Mean 0 and variance 1 over the piece itself."""
    wide = piece.astype(np.float64)
    normal: Float32 = ((wide - wide.mean()) / np.sqrt(wide.var() + _VARIANCE_FLOOR)).astype(np.float32)
    return normal


def _processor(folder: Path) -> Any:
    """Tokenizer and preprocessor of a folder. A language model beside them is left aside: decoding is greedy."""
    from transformers import AutoFeatureExtractor, AutoTokenizer, Wav2Vec2Processor

    try:
        extractor = AutoFeatureExtractor.from_pretrained(str(folder), local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"Tokenizer or preprocessor of the model in {folder} cannot be read: {str(error).splitlines()[0]} Fetch "
            "its vocab.json, tokenizer_config.json and preprocessor_config.json too."
        ) from None
    if extractor.sampling_rate != RATE:
        raise UsageError(f"The model in {folder} hears {extractor.sampling_rate} Hz; asr gives it {RATE} Hz.")
    return Wav2Vec2Processor(feature_extractor=extractor, tokenizer=tokenizer)
