"""The loaded model, taking items from the engine and drawing a sequence for each."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from threading import Lock
from typing import Any, ContextManager, Optional, Sequence, Union

import msgspec
import numpy as np

from pipelines.core import store
from pipelines.core.errors import UsageError
from pipelines.core.manifest import Item
from pipelines.core.pipeline import Parameters, Resources
from pipelines.language import files
from pipelines.language.sampling import How, Sample, generate
from pipelines.language.scoring import Units
from pipelines.sample import options
from pipelines.units import device, naming, packed
from pipelines.units.rows import UnitRows

_ON_GPU, _ON_CPU = 512, 32
_PROMPT = "prompt_"


class SampleProcessor:
    """Sequences as the engine calls for them; each depends on the seed and its own number (and prompt) alone."""

    batch_seconds = float("inf")

    def __init__(self, parameters: Parameters, resources: Resources) -> None:
        path = Path(parameters["model"])
        if store.sha256_of(path) != parameters["model_digest"]:
            raise UsageError(
                f"The model in {path} is not the one that this run began with: its training went on since. Give the "
                "command again, with another NAME."
            )
        trained = files.describe(path)
        on = device.choose("fp32")
        self._model, self._units = files.load(trained, on).double(), trained.description.units
        known = self._units.codebook_digest or None
        self._rows = UnitRows(self._units.vocabulary_size, self._units.name, codebook_digest=known)
        self._prompted, self._prompt_units = parameters["prompts"] is not None, parameters["prompt_units"]
        self._how = How(
            parameters["temperature"],
            parameters["top_k"],
            parameters["top_p"],
            parameters["min_units"],
            parameters["max_units"],
            parameters["seed"],
        )
        on_gpu = on.type == "cuda"
        self.batch_items = _ON_GPU if on_gpu else _ON_CPU
        self.concurrency = 1 if on_gpu else resources.cpus
        self._turn: ContextManager[Any] = Lock() if on_gpu else nullcontext()
        naming.claim(options.folder(parameters), "units", parameters)

    def process(self, items: Sequence[Item]) -> Sequence[Union[dict[str, Any], Exception]]:
        """Each item's units, or why there are none."""
        faults, prompts = self._prompts(items)
        results: list[Union[dict[str, Any], Exception]] = [fault or {} for fault in faults]
        by_length: dict[int, list[int]] = {}
        for number, (fault, prompt) in enumerate(zip(faults, prompts)):
            if fault is None:
                by_length.setdefault(len(prompt), []).append(number)
        for chosen in by_length.values():
            with self._turn:
                found = generate(
                    self._model,
                    [prompts[number] for number in chosen],
                    [items[number].fields()["number"] for number in chosen],
                    self._how,
                )
            for number, sample in zip(chosen, found):
                results[number] = self._result(prompts[number], sample)
        return results

    def _prompts(self, items: Sequence[Item]) -> tuple[list[Optional[Exception]], list[Units]]:
        """What is wrong with each item's prompt, and its units as the model knows them."""
        if not self._prompted:
            return [None] * len(items), [np.empty(0, np.uint16)] * len(items)
        faults, frames, _ = self._rows.read([_as_row(item) for item in items])
        units = frames if self._units.raw else [packed.deduplicated(each)[0] for each in frames]
        return faults, [each[: self._prompt_units] for each in units]

    def _result(self, prompt: Units, sample: Sample) -> dict[str, Any]:
        units = np.concatenate([prompt, sample.units])
        return {
            "num_units": len(units),
            "units": units.astype("<u2").tobytes(),  # base64 in JSON
            "prompt_num_units": len(prompt),
            "ended": sample.ended,
            "log_probability": round(sample.log_probability, 6),
        }

    def close(self) -> None:
        """Nothing is held."""


def _as_row(item: Item) -> Item:
    """The prompt's own row, as far as its units go."""
    fields = item.fields()
    own = {name[len(_PROMPT) :]: value for name, value in fields.items() if name.startswith(_PROMPT)}
    return msgspec.structs.replace(item, row=msgspec.json.encode(own))
