"""The names of the files that a pipeline writes for its items: each item must allow of one, and have it for itself."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Callable, Optional

from pipelines.core.errors import LISTED, ItemError, ManifestError, listed
from pipelines.core.manifest import Fields, Item, items, key_of
from pipelines.core.spool import KeyBuckets


class Names:
    """Collects the items' names, in flat memory. A context manager. `name_of` None: there are no such files."""

    def __init__(self, name_of: Optional[Callable[[Item], Optional[str]]]) -> None:
        self._name_of = name_of
        self._nameless: list[tuple[int, str, str]] = []
        self._count, self._common = 0, ""
        self._keys = KeyBuckets() if name_of is not None else None

    def __enter__(self) -> Names:  # noqa: PYI034 - `Self` is not in Python 3.9
        return self

    def __exit__(self, *_: object) -> None:
        if self._keys is not None:
            self._keys.close()

    def add(self, index: int, fields: Fields, row: bytes) -> None:
        """Name an item's file."""
        if self._name_of is None or self._keys is None:
            return
        item = Item(index, "", fields.audio_filepath, fields.duration, fields.offset, row, fields.size)
        try:
            name = self._name_of(item)
        except ItemError as error:
            self._note(index, fields.audio_filepath, str(error))
            return
        if name is not None:
            self._keys.add(key_of(name), index)

    def _note(self, index: int, audio_filepath: str, reason: str) -> None:
        folder = posixpath.dirname(audio_filepath)
        self._common = posixpath.commonpath([self._common, folder]) if self._count else folder
        self._count += 1
        if len(self._nameless) < LISTED:
            self._nameless.append((index, audio_filepath, reason))

    def refuse_nameless(self, path: Path) -> None:
        """Raise `ManifestError` where there can be no file for some items of the manifest at `path`."""
        if not self._count:
            return
        told = [f"item {index + 1}: {audio_filepath}" for index, audio_filepath, _ in self._nameless]
        raise ManifestError(
            f"For {self._count:,} items of the manifest {path} there is no place to write to: {self._nameless[0][2]}. "
            f"They all lie below {self._common}: {listed(told, self._count)}. Nothing was started."
        )

    def refuse_shared(self, path: Path) -> None:
        """Raise `ManifestError` where items of the manifest at `path` share a name."""
        if self._name_of is None or self._keys is None:
            return
        pairs = list(self._keys.duplicates(LISTED))
        if not pairs:
            return
        wanted = {index for pair in pairs for index in pair}
        found = {item.index: item for item in items(path) if item.index in wanted}
        told = [
            f"items {a + 1} and {b + 1} ({found[a].audio_filepath}, {found[b].audio_filepath}) -> "
            f"{self._name_of(found[b])}"
            for a, b in pairs
        ]
        raise ManifestError(
            f"Different items of the manifest {path} would be written to one and the same file: "
            f"{listed(told, self._keys.duplicate_count)}. One of them would be lost. Rename one of the recordings, or "
            "split the manifest and give each half its own DATASET; nothing was started."
        )
