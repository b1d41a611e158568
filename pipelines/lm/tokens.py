"""The units that a training reads: packed ones as they are; a folder of `.pt` files is packed once, beside the run."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional

import msgspec
import numpy as np

from pipelines.core import lock, manifest, paths
from pipelines.core.errors import ManifestError, listed
from pipelines.lm.data import Corpus
from pipelines.units.packed import PackedWriter
from pipelines.units.rows import tensor_of

log = logging.getLogger(__name__)

_WAIT_S = 6 * 3600.0


def corpus(order: Mapping[str, Any]) -> Corpus:
    """The corpus of a training's order. Raises ManifestError, UsageError."""
    path, folder = Path(order["manifest"]), Path(order["units"])
    field = None if order["split_by"] == "file" else order["split_by"]
    if not (folder / "units.json").exists():
        folder = packed(path, folder)
        path = folder / "manifest.json"
    return Corpus(path, folder, field, order["raw"])


def packed(path: Path, folder: Path) -> Path:
    """Packed units of the files that belong to a manifest's rows (JSONL, or CSV with a header as the seed's)."""
    name = hashlib.sha256(f"{path}\0{folder}\0{path.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    where = paths.home() / "output" / "cache" / f"units-{name}"
    with lock.held(where.with_suffix(".lock"), _WAIT_S, f"The packing of {folder}"):
        if not (where / "units.json").exists():
            _pack(path, folder, where)
    return where


def _pack(path: Path, folder: Path, where: Path) -> None:
    log.info("Packing the files of %s, once.", folder)
    files = {str(file.relative_to(folder).with_suffix("")): file for file in sorted(folder.rglob("*.pt"))}
    by_name = {file.stem: file for file in files.values()}
    writer = PackedWriter(where, deduplicated=False, ours={})
    missing, largest = [], 0
    try:
        for row in _rows(path):
            file = _file_of(row, files, by_name)
            if file is None:
                missing.append(str(row.get("file_id") or row.get("audio_filepath")))
                continue
            units = tensor_of(file)
            if len(units) and (int(units.min()) < 0 or int(units.max()) > np.iinfo(np.uint16).max):
                raise ManifestError(
                    f"{file} holds units from {units.min()} to {units.max()}, and units are 0 to 65,535."
                )
            largest = max(largest, int(units.max(initial=0)))
            text = msgspec.json.encode({**row, "units_row": writer.items})
            writer.add(units.astype("<u2").tobytes(), b"", len(units), text)
        if missing:
            raise ManifestError(
                f"{len(missing):,} rows of {path} have no file of units below {folder}: {listed(missing, len(missing))}. "
                "A row's file is FILE_ID.pt, or its path below the dataset's folder with .pt. Encode them, or take the "
                "rows out."
            )
        writer.finish(
            {
                "name": str(folder),
                "vocabulary_size": largest + 1,
                "rate": 50.0,
                "run": "",
                "codebook": "",
                "codebook_digest": "",
                "parameters": {},
            }
        )
        writer.publish()
    except BaseException:
        writer.abandon()
        raise


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix != ".csv":
        for item in manifest.items(path, keyed=False):
            yield item.fields()
        return
    import csv

    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            audio = row.get("audio_filepath") or f"/{row.get('file_id', '')}"
            yield {**row, "audio_filepath": audio, "duration": float(row.get("duration") or 0.0)}


def _file_of(row: Mapping[str, Any], files: Mapping[str, Path], by_name: Mapping[str, Path]) -> Optional[Path]:
    """A row's file: as `units_filepath` says, else by its file_id, else by the end of its path."""
    named = row.get("units_filepath")
    if isinstance(named, str) and named.endswith(".pt"):
        return Path(named)
    name = row.get("file_id")
    if name is not None and str(name) in files:
        return files[str(name)]
    parts = Path(str(row["audio_filepath"])).with_suffix("").parts
    for start in range(len(parts)):
        found = files.get("/".join(parts[start:]))
        if found is not None:
            return found
    return by_name.get(str(name)) if name is not None else None
