"""The loaded model, taking items from the engine and judging their units."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from threading import Lock
from typing import Any, ContextManager, Sequence, Union

from pipelines.core import store
from pipelines.core.errors import UsageError
from pipelines.core.manifest import Item
from pipelines.core.pipeline import Parameters, Resources
from pipelines.language import files
from pipelines.language.scoring import log_probabilities
from pipelines.units import device, packed
from pipelines.units.rows import UnitRows

_ON_GPU, _ON_CPU = (2048, 4 * 3600.0), (256, 1800.0)
"""Items in a batch, and seconds of speech."""


class ScoreProcessor:
    """Scores as the engine calls for them.

    On a CPU the arithmetic is in double precision, so that no digit of a score depends on which sequences shared its
    batch; on a GPU in single precision, and the last digit may.
    """

    def __init__(self, parameters: Parameters, resources: Resources) -> None:
        path = Path(parameters["model"])
        if store.sha256_of(path) != parameters["model_digest"]:
            raise UsageError(
                f"The model in {path} is not the one that this run began with: its training went on since. Give the "
                "command again: with the model as it is now, that is another run."
            )
        trained = files.describe(path)
        on = device.choose("fp32")
        on_gpu = on.type == "cuda"
        self._model, self._units = files.load(trained, on), trained.description.units
        if not on_gpu:
            self._model.double()
        known = self._units.codebook_digest or None
        self._rows = UnitRows(self._units.vocabulary_size, self._units.name, codebook_digest=known)
        self._prefix = f"{parameters['field']}_" if parameters["field"] else ""
        self.batch_items, self.batch_seconds = _ON_GPU if on_gpu else _ON_CPU
        self.concurrency = 2 if on_gpu else resources.cpus
        self._turn: ContextManager[Any] = Lock() if on_gpu else nullcontext()

    def process(self, items: Sequence[Item]) -> Sequence[Union[dict[str, Any], Exception]]:
        """Each item's score, or why it has none."""
        faults, frames, _ = self._rows.read(items)
        good = [number for number, fault in enumerate(faults) if fault is None]
        sequences = [frames[number] if self._units.raw else packed.deduplicated(frames[number])[0] for number in good]
        with self._turn:
            found = log_probabilities(self._model, sequences)
        results: list[Union[dict[str, Any], Exception]] = [fault or {} for fault in faults]
        for number, sequence, value in zip(good, sequences, found.tolist()):
            results[number] = self._result(value, len(sequence) + 1)
        return results

    def _result(self, value: float, tokens: int) -> dict[str, Any]:
        """What is added to a row. Rounded, so that the last bits of sums, which depend on batches, do not show."""
        figures = {
            "log_probability": round(value, 4),
            "num_tokens": tokens,
            "bits_per_unit": round(-value / tokens / math.log(2), 5),
        }
        return {self._prefix + name: figure for name, figure in figures.items()}

    def close(self) -> None:
        """Nothing is held."""
