"""Features of a manifest's items, and of them the frames whose hash puts them into the sample."""

from __future__ import annotations

from contextlib import nullcontext
from threading import Lock
from typing import Any, ContextManager, Sequence, Union

import numpy as np
import torch

from pipelines.audio import RATE
from pipelines.audio.items import Audio
from pipelines.audio.resample import Float32
from pipelines.core.errors import ItemError, UsageError
from pipelines.core.manifest import Item
from pipelines.core.pipeline import Parameters, Resources
from pipelines.units import device, models
from pipelines.units.fitting import Hashes, hashes
from pipelines.units.logmel import LogMel
from pipelines.units.options import CHUNK_S
from pipelines.units.pieces import Cut, blocks_of, takes_over_normalization

_CONTEXT_S = 4.0
"""What a piece of a long recording sees of each neighbour, as when it is encoded."""
_LONGER_S = 2.0
"""By so much a recording may last longer than its manifest says without any change to the sample."""


class SampleProcessor:
    """The sample as the engine calls for it, item by item: each frame's chance depends on its own hash alone."""

    batch_items, batch_seconds = 16, 600.0

    def __init__(self, parameters: Parameters, resources: Resources) -> None:
        self._seed, self._rate, self._hop = parameters["seed"], parameters["rate"], parameters["hop"]
        self._limit = np.uint64(min(2**64 - 1, int(self._rate * 2.0**64)))
        self._device = device.choose("fp32")
        self._features = _model(parameters, self._device)
        self._normalize = takes_over_normalization(self._features)
        on_gpu = self._device.type == "cuda"
        self.concurrency = 2 if on_gpu else resources.cpus
        self._turn: ContextManager[Any] = Lock() if on_gpu else nullcontext()
        is_logmel = parameters["dense_model"] is None
        context = 0 if is_logmel else round(_CONTEXT_S * RATE / self._hop)
        self._cut = Cut(self._features.shortest, self._hop, round(CHUNK_S * RATE), context)

    def process(self, items: Sequence[Item]) -> Sequence[Union[dict[str, Any], Exception]]:
        """Each item's sampled frames and their hashes, or why there are none."""
        return [self._guarded(item) for item in items]

    def _guarded(self, item: Item) -> Union[dict[str, Any], Exception]:
        try:
            found, frames = self._sample(item)
        except Exception as error:  # noqa: BLE001 - one recording's trouble, whatever it is, must not touch the others
            return error
        # Bytes become base64 in the parts.
        hashed, features = found.astype("<u8").tobytes(), frames.astype("<f4").tobytes()
        return {"sampled": len(found), "hashes": hashed, "features": features}

    def _sample(self, item: Item) -> tuple[Hashes, Float32]:
        """Hashes (n,) and features (n, width) of the frames in the sample. Raises ItemError."""
        numbers = hashes(item.key, self._seed, self._cut.frames(round((item.duration or 0.0) * RATE)) + self._longer)
        if not (numbers <= self._limit).any():
            # Most items of a large manifest: nothing of them is needed, so they are not even read.
            return numbers[:0], np.empty((0, self._features.width), np.float32)
        found: list[Hashes] = []
        parts: list[Float32] = []
        start = 0
        audio = Audio(item)
        for piece in self._cut.pieces(blocks_of(audio, self._normalize)):
            count = piece.last - piece.first
            if start + count > len(numbers):
                numbers = hashes(item.key, self._seed, 2 * (start + count))
            chosen = np.flatnonzero(numbers[start : start + count] <= self._limit)
            if len(chosen):
                found.append(numbers[start + chosen])
                parts.append(self._of(piece.samples)[piece.first + chosen])
            start += count
        if audio.fault is not None:
            raise audio.fault
        if not parts:
            return numbers[:0], np.empty((0, self._features.width), np.float32)
        return np.concatenate(found), np.concatenate(parts)

    @property
    def _longer(self) -> int:
        return int(_LONGER_S * RATE / self._hop)

    def _of(self, samples: Float32) -> Float32:
        """Features (frames, width) of a waveform."""
        waveform = torch.from_numpy(np.ascontiguousarray(samples))[None].to(self._device)
        with self._turn, torch.inference_mode():
            features: Float32 = self._features(waveform, None)[0].float().cpu().numpy()
        if not np.isfinite(features).all():
            raise ItemError("Its features are not all numbers: the recording holds NaN or infinite samples.")
        return features

    def close(self) -> None:
        """Nothing is held."""


def _model(parameters: Parameters, on: torch.device) -> Any:
    if parameters["dense_model"] is None:
        return LogMel().to(on)
    from pipelines.units.hubert import Hubert

    info = models.describe(parameters["dense_model"], "hubert")
    if info.digest != parameters["dense_digest"]:
        raise UsageError(
            f"The encoder {info.name} in {info.folder} is not the one that this run began with: it was imported anew "
            "since. Give the command again: with the encoder as it is now, that is another run."
        )
    return Hubert.load(info, parameters["layer"], device=on)
