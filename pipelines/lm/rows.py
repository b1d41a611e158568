"""The rows of a manifest that a training is given, JSONL or CSV: nobody has validated them, so a bad one is named."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Iterator

from pipelines.core import manifest
from pipelines.core.errors import ManifestError
from pipelines.core.manifest import Item


def items(path: Path) -> Iterator[Item]:
    """The items of a JSONL manifest. Raises ManifestError for a row that is none."""
    for index, row in enumerate(manifest.lines(path)):
        try:
            item = manifest.parse(index, row)
        except ValueError as error:
            raise ManifestError(
                f"Item {index + 1} of {path} cannot be read: {error}. A manifest has one JSON object a line, each "
                "with audio_filepath; a last line that is cut off is still being written, or was lost in a copy. Mend "
                "the line or take it out, and give the same command again: it goes on with what is missing."
            ) from None
        yield item


def table(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL manifest, or of a CSV with a column `file_id` or `audio_filepath`. Raises ManifestError."""
    if path.suffix != ".csv":
        for item in items(path):
            yield item.fields()
        return
    try:
        yield from _of_csv(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(
            f"{path} cannot be read as a CSV table ({error}). It needs a header with `file_id` or `audio_filepath`, "
            "and UTF-8. Write it anew, or give a JSONL manifest."
        ) from None


def _of_csv(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if not {"file_id", "audio_filepath"} & set(reader.fieldnames or ()):
            raise ManifestError(
                f"{path} has the columns {', '.join(reader.fieldnames or ()) or '(none)'}, and neither `file_id` nor "
                "`audio_filepath`: nothing says which file of units belongs to a row."
            )
        for number, row in enumerate(reader, 2):
            audio = row.get("audio_filepath") or f"/{row.get('file_id', '')}"
            try:
                duration = float(row.get("duration") or 0.0)
            except ValueError:
                raise ManifestError(f"Line {number} of {path} has the duration {row['duration']!r}.") from None
            yield {**{str(name): value for name, value in row.items()}, "audio_filepath": audio, "duration": duration}
