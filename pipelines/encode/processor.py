"""The loaded encoder, taking recordings from the engine and giving each its units."""

from __future__ import annotations

import io
from contextlib import nullcontext
from threading import Lock
from typing import Any, ContextManager, Sequence, Union

import numpy as np

from pipelines.audio.items import Audio, read_ahead
from pipelines.core.manifest import Item
from pipelines.core.pipeline import Parameters, Resources
from pipelines.encode import options
from pipelines.units import encoder, files, naming, packed

_ON_GPU, _ON_CPU = (256, 3600.0), (4, 600.0)
"""Items in a batch, and seconds of audio. A batch is what a killed process loses."""


class EncodeProcessor:
    """Units as the engine calls for them. On a GPU, batches take turns there while the next ones are being decoded."""

    def __init__(self, parameters: Parameters, resources: Resources) -> None:
        self._parameters = parameters
        self._encoder = encoder.load(parameters)
        on_gpu = self._encoder.on_gpu
        self.batch_items, self.batch_seconds = _ON_GPU if on_gpu else _ON_CPU
        self.concurrency = 2 if on_gpu else resources.cpus
        self._decoders = resources.cpus if on_gpu else 0
        self._turn: ContextManager[Any] = Lock() if on_gpu else nullcontext()
        naming.claim(options.place(parameters), "units", options.made(parameters))

    def process(self, items: Sequence[Item]) -> Sequence[Union[dict[str, Any], Exception]]:
        """Each item's units, or why there are none."""
        if self._parameters["format"] == options.PT:
            naming.claim_source(options.place(self._parameters), "units", items[0], self._parameters)
        audios = [Audio(item) for item in items]
        with read_ahead(audios, self._decoders), self._turn:
            found = self._encoder.encode_recordings(audios)
        return [
            audio.fault if audio.fault is not None else self._result(item, frames, audio.duration)
            for item, frames, audio in zip(items, found, audios)
        ]

    def _result(self, item: Item, frames: packed.Units, duration: float) -> dict[str, Any]:
        units, durations = packed.deduplicated(frames) if self._parameters["deduplicate"] else (frames, None)
        result: dict[str, Any] = {"num_units": len(units), "frames": len(frames), "duration": duration}
        if self._parameters["format"] == options.PT:
            return {**self._written(item, units), **result}
        result["units"] = units.astype("<u2").tobytes()
        if durations is not None:
            result["durations"] = durations.astype("<u2").tobytes()
        return result

    def _written(self, item: Item, units: packed.Units) -> dict[str, Any]:
        """One file a recording, as torch.save writes a tensor of 32-bit integers."""
        import torch

        data = io.BytesIO()
        torch.save(torch.from_numpy(units.astype(np.int32)), data)
        path = options.place(self._parameters) / naming.file_name(item, self._parameters, options.PT)
        with files.writing(path) as file:
            file.write(data.getbuffer())
        return {"path": str(path), "bytes": data.tell()}

    def close(self) -> None:
        """Nothing is left open."""
