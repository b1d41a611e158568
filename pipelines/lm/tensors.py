"""Files of units, one `.pt` a recording: which is a row's, whether any changed since, and how they were made."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Mapping, Optional

import msgspec

from pipelines.lm import rows

_NOTE = ".units.json"
"""Where `encode --format pt` says in the dataset's folder how its units are made."""


class Files:
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


def digest(path: Path, folder: Path) -> str:
    """SHA-256 over the files of a manifest's rows: their paths, sizes and times of change. Raises ManifestError."""
    files, found = Files(folder), hashlib.sha256()
    for row in rows.table(path):
        file = files.of(row)
        if file is not None and file.exists():
            stat = file.stat()
            found.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogatepass"))
    return found.hexdigest()


def deduplicated(folder: Path) -> Optional[bool]:
    """Whether runs of equal units are one unit, as the note of `encode` in or above the folder says; None: no note."""
    for where in (folder, *folder.parents):
        try:
            note = msgspec.json.decode((where / _NOTE).read_bytes(), type=dict[str, Any])
        except (OSError, msgspec.MsgspecError):
            continue
        said = note.get("deduplicate")
        return said if isinstance(said, bool) else None
    return None
