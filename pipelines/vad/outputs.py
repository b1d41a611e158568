"""What a VAD run publishes: STEM.csv, STEM.json, STEM_segments.json, and STEM.rttm on request."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from pathlib import Path
from typing import Any, Optional
from urllib.parse import quote

import msgspec

from pipelines.core.manifest import Item, items
from pipelines.core.output import OutputWriter, published_by
from pipelines.core.pipeline import ErrorInfo, OutputFile
from pipelines.core.plan import Plan
from pipelines.core.spool import KeyBuckets
from pipelines.vad.columns import COLUMNS

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode
_SPACE = re.compile(r"[\s%]")


class VadOutput:
    """The consumer of the merge. Every item gets a row in the CSV; those with a result are in the other files."""

    def __init__(self, plan: Plan) -> None:
        stem = Path(plan.outputs)
        ours = published_by(plan.run_id)

        def file(end: str) -> OutputWriter:
            return OutputWriter(stem.with_name(stem.name + end), ours)

        self._csv, self._manifest, self._segments = file(".csv"), file(".json"), file("_segments.json")
        self._rttm = file(".rttm") if plan.parameters.get("rttm") else None
        self._names = _Names(Path(plan.source))
        self._listing = Path(plan.manifest)

    @property
    def _writers(self) -> list[OutputWriter]:
        writers = [self._csv, self._manifest, self._segments]
        return writers if self._rttm is None else [*writers, self._rttm]

    def open(self) -> None:
        """Open private files."""
        for writer in self._writers:
            writer.open()
        self._csv.write(_csv_line(["audio_filepath", "duration", *COLUMNS, "splits", "error"]), rows=0)
        if self._rttm is not None:
            self._names.read(self._listing)

    def write(self, item: Item, result: Optional[bytes], error: Optional[ErrorInfo]) -> None:
        """Take one item."""
        if result is None:
            reason = error.message if error else "Not processed yet (the merge was partial)."
            self._csv.write(_csv_line([item.audio_filepath, "", *[""] * len(COLUMNS), "", reason]))
            return
        fields = _decode(result)
        path, duration = item.audio_filepath, fields["duration"]
        figures = [fields[name] for name in COLUMNS]
        self._csv.write(_csv_line([path, duration, *figures, fields.get("splits", ""), ""]))
        self._manifest.write(_encode({"audio_filepath": path, "duration": duration}) + b"\n")
        self._write_segments(item, fields["segments"])

    def _write_segments(self, item: Item, segments: list[tuple[float, float]]) -> None:
        lines = [
            _encode({"audio_filepath": item.audio_filepath, "offset": start, "duration": round(end - start, 3)})
            for start, end in segments
        ]
        if lines:
            self._segments.write(b"\n".join(lines) + b"\n", rows=len(lines))
        if self._rttm is not None and segments:
            head, tail = f"SPEAKER {self._names.of(item)} 1", "<NA> <NA> speech <NA> <NA>"
            rttm = [f"{head} {start:.3f} {end - start:.3f} {tail}\n" for start, end in segments]
            self._rttm.write("".join(rttm).encode(), rows=len(rttm))

    def publish(self) -> list[OutputFile]:
        """Give the files their names, once all of them are whole."""
        for writer in self._writers:
            writer.finish()
        return [writer.publish() for writer in self._writers]

    def abandon(self) -> None:
        """Remove the private files."""
        for writer in self._writers:
            writer.abandon()


class _Names:
    """What RTTM calls recordings: the path below the directory, without suffix; white space as %20.

    Where recordings differ in their suffix alone, their names have it.
    """

    def __init__(self, source: Path) -> None:
        self._source = source
        self._alike = bytearray()

    def read(self, listing: Path) -> None:
        """Find those that would share a name: with another's, or with what another is called with its suffix."""
        with KeyBuckets() as keys:
            for item in items(listing, keyed=False):
                for name in set(self._forms(item)):
                    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8)
                    keys.add(digest.hexdigest(), item.index)
                self._alike.append(0)
            for pair in keys.duplicates(2 * len(self._alike)):
                for index in pair:
                    self._alike[index] = 1

    def of(self, item: Item) -> str:
        """The recording's name."""
        whole, short = self._forms(item)
        return _SPACE.sub(lambda space: quote(space[0]), whole if self._alike[item.index] else short)

    def _forms(self, item: Item) -> tuple[str, str]:
        """The name with suffix, and without."""
        path = Path(item.audio_filepath)
        whole = str(path.relative_to(self._source) if path.is_relative_to(self._source) else path)
        return whole, whole.removesuffix(path.suffix)


def _csv_line(values: list[Any]) -> bytes:
    """One line of CSV as RFC 4180 quotes it, ended by a line feed as pandas does."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue().encode("utf-8", "backslashreplace")
