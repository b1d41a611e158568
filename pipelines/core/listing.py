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
    if pipeline.source == "directory" and not source.is_dir():
        what = "is a file, not a directory" if source.exists() else "does not exist"
        raise ManifestError(
            f"{source} {what}. Give the directory that holds the recordings; it is searched recursively."
        )
    count = 0
    with store.writing(path, if_changed=True) as file:
        rows = _read(pipeline.list_items(source, parameters), source)
        for line in sorted_lines(_lines(rows, sizes)):
            file.write(line.split(b"\0", 1)[1])
            count += 1
        if not count and pipeline.source != "directory":
            raise ManifestError(f"There is nothing to do in {source} with these options: they come to no item at all.")
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
        try:
            path = str(row["audio_filepath"]).encode("utf-8").replace(b"\n", b"\x01")
            yield path + b"\0" + _encode(row) + b"\n"
        except UnicodeEncodeError:
            raise ManifestError(
                f"The name {os.fsencode(row['audio_filepath'])!r} is not UTF-8, and a manifest (JSON) can hold no "
                "other. Rename the file, or keep it out of the directory, and give the same command again."
            ) from None


def _read(rows: Iterator[dict[str, Any]], source: Path) -> Iterator[dict[str, Any]]:
    """The rows; an error of the file system that stops them is told as one of the source."""
    try:
        yield from rows
    except OSError as error:
        raise ManifestError(
            f"{error.filename or source} could not be listed: {error.strerror or error}. Check its permissions and "
            "its mount, or keep it out of the directory, and give the same command again."
        ) from error


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - a million times; no Path object for each
    except OSError:
        return 0
