"""A folder of `.pt` files, one tensor a recording as the published recipe has them, packed once for all trainings."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any, NamedTuple, Optional

import msgspec
import numpy as np

from pipelines.core import lock, paths
from pipelines.core.errors import ItemError, ManifestError, listed
from pipelines.lm import rows, tensors
from pipelines.units.packed import PackedWriter
from pipelines.units.rows import tensor_of

log = logging.getLogger(__name__)

_WAIT_S = 6 * 3600.0
_MOST_UNIT = 65_535
_RATE = 50.0
"""Units a second where nothing says it: HuBERT's."""


class Packed(NamedTuple):
    """Packed units, and the manifest of their items."""

    folder: Path
    manifest: Path


def is_packed(folder: Path) -> bool:
    """Whether a folder holds packed units, and not files of tensors."""
    return (folder / "units.json").exists()


def packed(path: Path, folder: Path, vocabulary_size: Optional[int], skip_missing: bool) -> Packed:
    """The packed units of the files that belong to a manifest's rows (JSONL, or CSV with a header).

    Made by whoever comes first, in `output/cache`, anew whenever the manifest or a file of units changed. Raises
    ManifestError for rows without a file, and for files that hold no units.
    """
    stamps, made = tensors.digest(path, folder), tensors.deduplicated(folder)
    about = f"{path}\0{path.stat().st_mtime_ns}\0{vocabulary_size}\0{skip_missing}\0{made}\0{stamps}"
    name = hashlib.sha256(about.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    where = paths.home() / "output" / "cache" / f"units-{name}"
    with lock.held(where.with_suffix(".lock"), _WAIT_S, f"The packing of {folder}"):
        if not is_packed(where):
            log.info("Packing the files of %s, once.", folder)
            _pack(path, folder, where, vocabulary_size, skip_missing)
    return Packed(where, where / "manifest.json")


def _pack(path: Path, folder: Path, where: Path, vocabulary_size: Optional[int], skip_missing: bool) -> None:
    files, joined = tensors.Files(folder), tensors.deduplicated(folder)
    writer = PackedWriter(where, deduplicated=False, ours={})  # that would promise durations
    missing, largest, repeats = [], -1, False
    try:
        for row in rows.table(path):
            file = files.of(row)
            if file is None or not file.exists():
                missing.append(str(row.get("file_id") or row["audio_filepath"]))
                continue
            units = _units(file)
            largest = max(largest, int(units.max(initial=-1)))
            repeats = repeats or bool((units[1:] == units[:-1]).any())
            said = {**row, "units_filepath": str(where), "units_row": writer.items, "num_units": len(units)}
            writer.add(units.astype("<u2").tobytes(), b"", len(units), msgspec.json.encode(said))
        if missing and not skip_missing:
            raise ManifestError(
                f"{len(missing):,} of {len(missing) + writer.items:,} rows of {path} have no file of units below "
                f"{folder}: {listed(missing, len(missing))}. A row's file is FILE_ID.pt, or its recording's path "
                "below the dataset's folder with .pt. Encode them, or leave them out with --skip-missing."
            )
        writer.finish(_described(folder, vocabulary_size or largest + 1, not repeats if joined is None else joined))
        writer.publish()
    except BaseException:
        writer.abandon()
        raise
    if vocabulary_size is None:
        log.warning(
            "The files of %s do not say how many units there are; the largest is %d, so the vocabulary is taken to be "
            "%d. Say it with --vocabulary-size if that is wrong.",
            folder,
            largest,
            largest + 1,
        )
    if joined is None and not repeats:
        log.warning(
            "No unit in the files of %s follows itself, so they are taken to be deduplicated: runs of equal units are "
            "one unit. If they are one a frame, say it with --raw.",
            folder,
        )


def _described(folder: Path, size: int, joined: bool) -> dict[str, Any]:
    """`joined`: whether runs of equal units are one unit, how long each lasts unknown."""
    texts = dict.fromkeys(("run", "codebook", "codebook_digest"), "")
    parameters = {"deduplicate": joined}
    return {"name": str(folder), "vocabulary_size": size, "rate": _RATE, "parameters": parameters, **texts}


def _units(file: Path) -> Any:
    """The units of one file (units,). Raises ManifestError where it holds none."""
    try:
        units = tensor_of(file)
    except ItemError as error:
        raise ManifestError(f"{file}: {error} Encode it again, or take its row out.") from None
    if len(units) and (int(units.min()) < 0 or int(units.max()) > _MOST_UNIT):
        raise ManifestError(
            f"{file} holds the units {units.min()} to {units.max()}, and units are 0 to {_MOST_UNIT:,}: it is no file "
            "of units, or special tokens are among them."
        )
    return np.asarray(units)
