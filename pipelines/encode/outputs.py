"""What an encode run publishes: packed units, and the manifest with what identifies each item's units."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Union

import msgspec

from pipelines.core.manifest import Item
from pipelines.core.output import ManifestOutput, published_by, with_fields
from pipelines.core.pipeline import ErrorInfo, OutputFile
from pipelines.core.plan import Plan
from pipelines.encode import options
from pipelines.units.packed import PackedWriter


class _Encoded(msgspec.Struct):
    """A task's result for one item; bytes are base64 in JSON."""

    num_units: int
    frames: int
    units: bytes = b""
    durations: bytes = b""
    path: str = ""


_UNITS = ("units_filepath", "units_row", "num_units")
"""The fields that an item's row gains."""

_decode = msgspec.json.Decoder(_Encoded).decode
_encode = msgspec.json.Encoder().encode


class EncodeOutput:
    """The consumer of the merge. Items without a result keep their row, less the units that an earlier run gave it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        ours = published_by(plan.run_id)
        self._manifest = ManifestOutput(Path(plan.manifest), ours)
        self._store: Optional[PackedWriter] = None
        if plan.parameters["format"] == options.PACKED:
            self._store = PackedWriter(options.place(plan.parameters), plan.parameters["deduplicate"], ours)

    def open(self) -> None:
        """Open private files."""
        self._manifest.open()

    def write(self, item: Item, result: Optional[bytes], error: Optional[ErrorInfo]) -> None:  # noqa: ARG002
        """Take one item."""
        if result is None:
            self._manifest.write_rows([_without_units(item.row)], [None])
            return
        found = _decode(result)
        where = found.path if self._store is None else str(self._store.folder)
        fields: dict[str, Union[str, int]] = {"units_filepath": where, "num_units": found.num_units}
        if self._store is not None:
            fields["units_row"] = self._store.items
        added = _encode(fields)
        self._manifest.write(item, added, None)
        if self._store is not None:
            row = with_fields(item.row, added)
            self._store.add(found.units, found.durations, found.frames, row)

    def stands(self) -> bool:
        """Whether the manifest is already what it would become."""
        return self._manifest.stands()

    def publish(self) -> list[OutputFile]:
        """Give the files their names: the units first, then the manifest that speaks of them."""
        files = []
        if self._store is not None:
            self._store.finish(self._description())
            files = self._store.publish()
        return files + self._manifest.publish()

    def _description(self) -> dict[str, object]:
        parameters = self._plan.parameters
        return {
            "name": parameters["units"],
            "vocabulary_size": parameters["vocabulary_size"],
            "rate": parameters["rate"],
            "run": self._plan.run_id,
            "codebook": parameters["codebook"],
            "codebook_digest": parameters["codebook_digest"],
            "parameters": dict(parameters),
        }

    def abandon(self) -> None:
        """Remove the private files."""
        self._manifest.abandon()
        if self._store is not None:
            self._store.abandon()


def _without_units(row: bytes) -> bytes:
    """A row that names no units: beside those of this run, others would be taken for units of the same codebook."""
    fields = msgspec.json.decode(row)
    if fields.keys().isdisjoint(_UNITS):
        return row
    return _encode({name: value for name, value in fields.items() if name not in _UNITS})
