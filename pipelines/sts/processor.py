"""The loaded encoder and vocoder, taking items from the engine and writing the speech of each."""

from __future__ import annotations

from contextlib import nullcontext
from threading import Lock
from typing import Any, ContextManager, Optional, Sequence, Union

import numpy as np

from pipelines.audio import RATE
from pipelines.audio.items import Audio, read_ahead
from pipelines.audio.resample import Float32
from pipelines.core.manifest import Item
from pipelines.core.pipeline import Parameters, Resources
from pipelines.sts.options import AUDIO, made, output_name
from pipelines.units import encoder, files, naming, packed, synthesis
from pipelines.units.rows import UnitRows

_ON_GPU, _ON_CPU = (128, 1800.0), (2, 300.0)
"""Items in a batch, and seconds of audio. A batch is what a killed process loses."""
_SLACK = 2 * RATE // 25
"""Samples that a recording may be longer than its frames: the end that makes no whole frame."""


class StsProcessor:
    """Resynthesis as the engine calls for it. On a GPU, batches take turns while the next ones are being decoded."""

    def __init__(self, parameters: Parameters, resources: Resources) -> None:
        self._parameters = parameters
        self._voice = synthesis.load(parameters)
        self._encoder = encoder.load(parameters) if parameters["from"] == AUDIO else None
        size, hop = parameters["vocabulary_size"], round(RATE / parameters["rate"])
        self._rows = UnitRows(size, parameters["units"], hop, parameters["codebook_digest"])
        on_gpu = self._voice.on_gpu
        self.batch_items, self.batch_seconds = _ON_GPU if on_gpu else _ON_CPU
        self.concurrency = 2 if on_gpu else resources.cpus
        self._decoders = resources.cpus if on_gpu else 0
        self._turn: ContextManager[Any] = Lock() if on_gpu else nullcontext()
        self._folder = naming.folder(parameters["dataset"])
        naming.claim(self._folder, "speech", made(parameters))

    def process(self, items: Sequence[Item]) -> Sequence[Union[dict[str, Any], Exception]]:
        """Each item's file, or why there is none."""
        naming.claim_source(self._folder, "speech", items[0], self._parameters)
        faults, units, lengths = self._units(items)
        with self._turn:
            spoken = iter(self._voice.speak([self._as_asked(each) for each, fault in zip(units, faults) if not fault]))
        return [
            fault or self._written(item, self._cut(next(spoken), length))
            for item, fault, length in zip(items, faults, lengths)
        ]

    def _units(
        self, items: Sequence[Item]
    ) -> tuple[list[Optional[Exception]], list[packed.Units], list[Optional[int]]]:
        """For each item: what went wrong, its units (one a frame), and how many samples its speech should have."""
        if self._encoder is None:
            return self._rows.read(items)
        audios = [Audio(item) for item in items]
        with read_ahead(audios, self._decoders), self._turn:
            found = self._encoder.encode_recordings(audios)
        return [audio.fault for audio in audios], found, [audio.samples for audio in audios]

    def _as_asked(self, frames: packed.Units) -> packed.Units:
        return packed.deduplicated(frames)[0] if self._parameters["deduplicate"] else frames

    def _cut(self, speech: Float32, length: Optional[int]) -> Float32:
        return speech if length is None or self._parameters["deduplicate"] else _of_length(speech, length)

    def _written(self, item: Item, speech: Float32) -> dict[str, Any]:
        import soundfile

        path = self._folder / output_name(item, self._parameters)
        samples = np.clip(np.rint(speech * 32767), -32768, 32767).astype(np.int16)
        with files.writing(path) as file:
            soundfile.write(file, samples, RATE, "PCM_16", format=self._parameters["audio_format"].upper())
            size = file.seek(0, 2)
        return {"path": str(path), "bytes": size, "duration": len(samples) / RATE}

    def close(self) -> None:
        """Nothing is left open."""


def _of_length(speech: Float32, length: int) -> Float32:
    """Speech with as many samples as the recording has: the end that makes no whole frame becomes silence."""
    lacking = length - len(speech)
    if lacking > _SLACK:
        return speech  # the recording was cut as textlesslib cuts, which loses frames
    return np.pad(speech, (0, lacking)) if lacking > 0 else speech[:length]
