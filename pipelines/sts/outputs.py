"""What an sts run publishes beside the files themselves: a manifest of them, ready for `asr` or a listening test."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import msgspec

from pipelines.core.manifest import Item
from pipelines.core.output import OutputWriter, published_by
from pipelines.core.pipeline import ErrorInfo, OutputFile
from pipelines.core.plan import Plan, stem_of
from pipelines.units import naming

_LEFT_OUT = ("offset", "units", "durations", "units_filepath", "units_row", "num_units", "size")
"""Fields of the item that are not true of its resynthesis."""


class _Spoken(msgspec.Struct):
    path: str
    duration: float


_decode = msgspec.json.Decoder(_Spoken).decode
_encode = msgspec.json.Encoder().encode


def manifest_of(plan: Plan) -> Path:
    """Where the manifest of what was said again lies."""
    return naming.folder(plan.parameters["dataset"]) / f"{stem_of(Path(plan.manifest))}.json"


class StsOutput:
    """The consumer of the merge. Items without a result have no row."""

    def __init__(self, plan: Plan) -> None:
        self._writer = OutputWriter(manifest_of(plan), published_by(plan.run_id))

    def open(self) -> None:
        """Open the private file."""
        self._writer.open()

    def write(self, item: Item, result: Optional[bytes], error: Optional[ErrorInfo]) -> None:  # noqa: ARG002
        """Take one item."""
        if result is None:
            return
        spoken, fields = _decode(result), item.fields()
        source = {"source_audio_filepath": item.audio_filepath}
        if "offset" in fields:
            source["source_offset"] = fields["offset"]
        kept = {name: value for name, value in fields.items() if name not in _LEFT_OUT}
        row = {**kept, "audio_filepath": spoken.path, "duration": spoken.duration, **source}
        self._writer.write(_encode(row) + b"\n")

    def publish(self) -> list[OutputFile]:
        """Give the manifest its name."""
        self._writer.finish()
        return [self._writer.publish()]

    def abandon(self) -> None:
        """Remove the private file."""
        self._writer.abandon()
