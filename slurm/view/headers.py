"""The headers of a run's parts: who published how much, and when. Parts never change, so each is read once."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Optional

from pipelines.core import parts
from pipelines.core.errors import StorageError
from pipelines.core.parts import Header
from pipelines.core.run import Run


class PartFile(NamedTuple):
    """A published part."""

    path: Path
    header: Header


class Headers:
    """Reads headers, and remembers them while a run is watched."""

    def __init__(self) -> None:
        self._known: dict[Path, Header] = {}
        self.damaged: dict[Path, str] = {}
        """Parts that cannot be read → the paragraph that says so."""

    def of(self, run: Run) -> list[PartFile]:
        """The parts of all launches of a run, by launch, task and sequence."""
        found = []
        for _, _, path in run.part_files():
            header = self._known.get(path) or self._read(path)
            if header is not None:
                found.append(PartFile(path, header))
        return found

    def _read(self, path: Path) -> Optional[Header]:
        try:
            header = parts.read_header(path)
        except (StorageError, OSError) as error:
            self.damaged[path] = str(error)
            return None
        if header is not None:  # an empty file is a name reserved, not yet a part
            self._known[path] = header
        return header
