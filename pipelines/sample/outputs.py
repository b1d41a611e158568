"""What a run of `sample` publishes: packed units, and a manifest of them that `sts --from units` can speak."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import msgspec

from pipelines.core.manifest import Item
from pipelines.core.output import OutputWriter, published_by
from pipelines.core.pipeline import ErrorInfo, OutputFile
from pipelines.core.plan import Plan
from pipelines.language import files
from pipelines.sample import options
from pipelines.units.packed import PackedWriter


class _Drawn(msgspec.Struct):
    """A task's result for one item; bytes are base64 in JSON."""

    num_units: int
    units: bytes
    prompt_num_units: int
    ended: bool
    log_probability: float


_decode = msgspec.json.Decoder(_Drawn).decode
_encode = msgspec.json.Encoder().encode


class SampleOutput:
    """The consumer of the merge. Items without a result have no row.

    A model of deduplicated units has learnt no durations: each unit lasts as many frames as was asked for.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan, self._parameters = plan, plan.parameters
        self._units = files.describe(Path(plan.parameters["model"])).description.units
        self._frames: int = plan.parameters["frames_per_unit"]
        ours = published_by(plan.run_id)
        self._manifest = OutputWriter(options.listing(plan.parameters), ours)
        self._store = PackedWriter(options.folder(plan.parameters), not self._units.raw, ours)

    def open(self) -> None:
        """Open the private file."""
        self._manifest.open()

    def write(self, item: Item, result: Optional[bytes], error: Optional[ErrorInfo]) -> None:  # noqa: ARG002
        """Take one item."""
        if result is None:
            return
        drawn, fields = _decode(result), item.fields()
        frames = drawn.num_units * self._frames
        row: dict[str, Any] = {
            "audio_filepath": item.audio_filepath,
            "duration": round(frames / self._units.rate, 6),
            "units_filepath": str(self._store.folder),
            "units_row": self._store.items,
            "num_units": drawn.num_units,
            "log_probability": drawn.log_probability,
            "ended": drawn.ended,
        }
        if "prompt_filepath" in fields:
            row.update(prompt_filepath=fields["prompt_filepath"], prompt_num_units=drawn.prompt_num_units)
        text = _encode(row)
        durations = b"" if self._units.raw else self._frames.to_bytes(2, "little") * drawn.num_units
        self._store.add(drawn.units, durations, frames, text)
        self._manifest.write(text + b"\n")

    def publish(self) -> list[OutputFile]:
        """Give the files their names: the units first, then the manifest that speaks of them."""
        self._store.finish(
            {
                "name": self._units.name,
                "vocabulary_size": self._units.vocabulary_size,
                "rate": self._units.rate,
                "run": self._plan.run_id,
                "codebook": self._units.codebook,
                "codebook_digest": self._units.codebook_digest,
                "parameters": dict(self._parameters),
            }
        )
        published = self._store.publish()
        self._manifest.finish()
        return [*published, self._manifest.publish()]

    def abandon(self) -> None:
        """Remove the private files."""
        self._manifest.abandon()
        self._store.abandon()
