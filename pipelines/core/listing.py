"""The listing: the manifest that a directory pipeline starts from, one row a recording, sorted by path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Iterator

import msgspec

from pipelines.core import store
from pipelines.core.errors import ManifestError
from pipelines.core.extsort import sorted_lines
from pipelines.core.pipeline import Parameters, Pipeline

_encode = msgspec.json.Encoder().encode


def publish(pipeline: Pipeline, source: Path, parameters: Parameters, path: Path, sizes: bool = False) -> None:
    """List `source` and publish the rows at `path`, replacing an earlier listing. Memory stays flat.

    `sizes` adds each file's size in bytes: a stand-in for its duration, for which every file has to be looked up.
    """
    if pipeline.list_items is None:
        raise ManifestError(f"The pipeline {pipeline.name} cannot list a directory; give it a manifest.")
    if not source.is_dir():
        what = "is a file, not a directory" if source.exists() else "does not exist"
        raise ManifestError(
            f"{source} {what}. Give the directory that holds the recordings; it is searched recursively."
        )
    count = 0
    with store.writing(path) as file:
        for line in sorted_lines(_lines(pipeline.list_items(source, parameters), sizes)):
            file.write(line.split(b"\0", 1)[1])
            count += 1
        if not count:
            raise ManifestError(
                f"No recordings were found in {source} or below it: no file there has the suffix of an audio format "
                "that is read (wav, flac, mp3, ogg, opus, m4a, …). Check the path, and that this node sees the same "
                "file system."
            )


def _lines(rows: Iterator[dict[str, Any]], sizes: bool) -> Iterator[bytes]:
    """Each row as a line, with its path in front so that lines sort by path whatever its characters."""
    for row in rows:
        if sizes:
            row["size"] = _size(row["audio_filepath"])
        path = str(row["audio_filepath"]).encode("utf-8").replace(b"\n", b"\x01")
        yield path + b"\0" + _encode(row) + b"\n"


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - a million times; no Path object for each
    except OSError:
        return 0
