"""A folder of `.pt` files, one tensor a recording as the published recipe has them, packed once for all trainings."""

from __future__ import annotations

import csv
import hashlib
import logging
from pathlib import Path
from typing import Any, Iterator, Mapping, NamedTuple, Optional

import msgspec
import numpy as np

from pipelines.core import lock, manifest, paths
from pipelines.core.errors import ItemError, ManifestError, listed
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
    found = sorted(folder.rglob("*.pt"))
    stamps = "".join(f"{file}\0{(stat := file.stat()).st_size}\0{stat.st_mtime_ns}\n" for file in found)
    about = f"{path}\0{path.stat().st_mtime_ns}\0{vocabulary_size}\0{skip_missing}\0{stamps}"
    name = hashlib.sha256(about.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    where = paths.home() / "output" / "cache" / f"units-{name}"
    with lock.held(where.with_suffix(".lock"), _WAIT_S, f"The packing of {folder}"):
        if not is_packed(where):
            log.info("Packing the %d files of %s, once.", len(found), folder)
            _pack(path, folder, where, vocabulary_size, skip_missing)
    return Packed(where, where / "manifest.json")


def _pack(path: Path, folder: Path, where: Path, vocabulary_size: Optional[int], skip_missing: bool) -> None:
    files = _Files(folder)
    writer = PackedWriter(where, deduplicated=False, ours={})
    missing, largest = [], -1
    try:
        for row in _rows(path):
            file = files.of(row)
            if file is None or not file.exists():
                missing.append(str(row.get("file_id") or row["audio_filepath"]))
                continue
            units = _units(file)
            largest = max(largest, int(units.max(initial=-1)))
            said = {**row, "units_filepath": str(where), "units_row": writer.items, "num_units": len(units)}
            writer.add(units.astype("<u2").tobytes(), b"", len(units), msgspec.json.encode(said))
        if missing and not skip_missing:
            raise ManifestError(
                f"{len(missing):,} of {len(missing) + writer.items:,} rows of {path} have no file of units below "
                f"{folder}: {listed(missing, len(missing))}. A row's file is FILE_ID.pt, or its recording's path "
                "below the dataset's folder with .pt. Encode them, or leave them out with --skip-missing."
            )
        writer.finish(_described(folder, vocabulary_size or largest + 1))
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


def _described(folder: Path, size: int) -> dict[str, Any]:
    texts = dict.fromkeys(("run", "codebook", "codebook_digest"), "")
    return {"name": str(folder), "vocabulary_size": size, "rate": _RATE, "parameters": {}, **texts}


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


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL manifest, or of a CSV with a column `file_id` or `audio_filepath`."""
    if path.suffix != ".csv":
        for item in manifest.items(path, keyed=False):
            yield item.fields()
        return
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


class _Files:
    """The `.pt` files below a folder, found by what a row says."""

    def __init__(self, folder: Path) -> None:
        self._by_path = {str(file.relative_to(folder).with_suffix("")): file for file in folder.rglob("*.pt")}
        self._by_name: dict[str, Optional[Path]] = {}
        for file in self._by_path.values():  # a name that two files share finds neither
            self._by_name[file.stem] = None if file.stem in self._by_name else file

    def of(self, row: Mapping[str, Any]) -> Optional[Path]:
        """A row's file: as `units_filepath` says, else by its file_id, else by the end of its path."""
        named = row.get("units_filepath")
        if isinstance(named, str) and named.endswith(".pt"):
            return Path(named)
        name = row.get("file_id")
        if name:
            return self._by_path.get(str(name)) or self._by_name.get(str(name))
        parts = Path(str(row["audio_filepath"])).with_suffix("").parts
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        return next((self._by_path[end] for end in ends if end in self._by_path), None)
