"""Reading a manifest once: every row validated, duplicates found, the whole identified, in flat memory."""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path
from typing import Callable, Iterable, Optional

import msgspec

from pipelines.core.errors import LISTED, ManifestError, listed
from pipelines.core.manifest import (
    BLOCK,
    BOM,
    KEYS,
    Fields,
    Identity,
    Item,
    changed,
    items,
    lines,
    read_fields,
    refuse_changed,
)
from pipelines.core.names import Names
from pipelines.core.spool import KeyBuckets
from pipelines.core.store import sha256_of

_named = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Scan:
    """A manifest read once: its identity, harmless oddities, and the keys of its items. Close it, or use `with`."""

    def __init__(self, identity: Identity, notes: list[str], keys: Optional[KeyBuckets] = None) -> None:
        self.identity = identity
        self.notes = notes
        self._keys = keys

    def __enter__(self) -> Scan:  # noqa: PYI034 - `Self` is not in Python 3.9
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def keys(self) -> KeyBuckets:
        """Key and index of every item; read from the manifest on first use where it had been identified before."""
        if self._keys is None:
            self._keys = KeyBuckets()
            for item in items(Path(self.identity.path)):
                self._keys.add(item.key, item.index)
        return self._keys

    def close(self) -> None:
        """Free the keys."""
        if self._keys is not None:
            self._keys.close()


class _Problems:
    """Collects what is wrong with a manifest: a few examples of each kind, and the count."""

    def __init__(self) -> None:
        self.count = 0
        self.examples: list[str] = []

    def add(self, line: int, what: str) -> None:
        self.count += 1
        if len(self.examples) < LISTED:
            self.examples.append(f"line {line}: {what}")


def check(fields: Fields, row: bytes, requires: tuple[str, ...], extra: tuple[str, ...]) -> Optional[str]:
    """What is wrong with one row, or None. `extra`: required fields that the engine itself does not read."""
    if not fields.audio_filepath.startswith("/"):
        return f"audio_filepath is not absolute ({fields.audio_filepath!r}); compute nodes have another current folder"
    if fields.duration is None:
        if "duration" in requires:
            return "duration is missing"
    elif not 0 <= fields.duration < math.inf:
        return f"duration is {fields.duration}, and must be 0 or more seconds"
    if not 0 <= fields.offset < math.inf:
        return f"offset is {fields.offset}, and must be 0 or more seconds"
    if b"\\u" in row or not row.isascii():
        _named(row)  # raises where a field's name is no text: the merge has to tell which fields a row has
    if extra:
        present = msgspec.json.decode(row)
        lacking = [name for name in extra if name not in present]
        if lacking:
            return f"{', '.join(lacking)} is missing"
    return None


def scan(
    path: Path,
    requires: tuple[str, ...] = ("audio_filepath",),
    name_of: Optional[Callable[[Item], Optional[str]]] = None,
) -> Scan:
    """Read a manifest once: validate every row, find duplicates, identify it. Memory does not grow with its length.

    Raises `ManifestError` that names the first lines at fault. `name_of` names the file that an item's result goes to
    (ItemError: there can be none); no two items may have one name.
    """
    keys = KeyBuckets()
    try:
        before = _stat(path)
        with Names(name_of) as names:
            reading = _Reading(path, requires, keys, names)
            reading.read()
            _refuse_duplicates(path, keys)
            names.refuse_nameless(path)
            names.refuse_shared(path)
        after = _stat(path)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise changed(path, "read")
    except BaseException:
        keys.close()
        raise
    return Scan(reading.identity(after), reading.notes.spoken(path), keys)


def known(path: Path, identities: Iterable[Identity]) -> Optional[Scan]:
    """The scan of a manifest that holds the bytes of one identified (and so validated) before; else None."""
    stat = _stat(path)
    alike = {each.sha256: each for each in identities if each.size == stat.st_size and each.keys == KEYS}
    identity = alike.get(sha256_of(path)) if alike else None
    if identity is None:
        return None
    now = msgspec.structs.replace(identity, path=str(path), mtime_ns=stat.st_mtime_ns)
    refuse_changed(path, now, "read")
    return Scan(now, [])


class _Reading:
    """The state of one scan."""

    def __init__(self, path: Path, requires: tuple[str, ...], keys: KeyBuckets, names: Names) -> None:
        self._path, self._requires, self._keys, self._names = path, requires, keys, names
        self._extra = tuple(name for name in requires if name not in ("audio_filepath", "duration"))
        self._whole, self._order = hashlib.sha256(), hashlib.blake2b(digest_size=16)
        self._count, self._seconds, self._known = 0, 0.0, True
        self._problems = _Problems()
        self.notes = _Notes()

    def read(self) -> None:
        """Read every line; raise for those at fault, and for a manifest without items."""
        first = 1
        with self._path.open("rb", buffering=BLOCK) as file:
            while block := file.readlines(BLOCK):
                data = b"".join(block)
                self._whole.update(data)
                if self.notes.see(data, at_start=first == 1):
                    block[0] = block[0][len(BOM) :]
                self._take(first, block)
                first += len(block)
        if self._problems.count:
            raise _invalid(self._path, self._problems)
        if not self._count:
            raise ManifestError(
                f"The manifest {self._path} has no items. If it was made from a directory, check that the "
                "directory holds recordings."
            )

    def _take(self, first: int, block: list[bytes]) -> None:
        """Validate lines; `first` is the number of the first of them."""
        keys: list[str] = []
        for number, line in enumerate(block, first):
            row = line.rstrip(b"\r\n")
            if not row or row.isspace():
                self.notes.blank += 1
                continue
            try:
                fields = read_fields(row)
                fault = check(fields, row, self._requires, self._extra)
            except ValueError as error:
                fault = str(error)
            if fault is not None:
                self._problems.add(number, fault)
                continue
            key = fields.key
            self._names.add(self._count + len(keys), fields, row)
            self._keys.add(key, self._count + len(keys))
            keys.append(key)
            if fields.duration is None:
                self._known = False
            else:
                self._seconds += fields.duration
        self._order.update("".join(keys).encode())
        self._count += len(keys)

    def identity(self, stat: os.stat_result) -> Identity:
        """What the manifest is."""
        return Identity(
            str(self._path),
            stat.st_size,
            stat.st_mtime_ns,
            self._whole.hexdigest(),
            self._count,
            self._order.hexdigest(),
            round(self._seconds, 6) if self._known else None,
            KEYS,
        )


def _stat(path: Path) -> os.stat_result:
    next(lines(path), None)  # raises the teaching error where the file cannot be read
    return path.stat()


class _Notes:
    """Harmless oddities, taken off and told once each."""

    def __init__(self) -> None:
        self.bom = False
        self.crlf = 0
        self.blank = 0
        self.unterminated = False

    def see(self, data: bytes, at_start: bool) -> bool:
        """Note what is odd about a block of whole lines. Returns whether a byte-order mark is to be taken off."""
        self.crlf += data.count(b"\r\n")
        self.unterminated = not data.endswith(b"\n")
        self.bom = self.bom or (at_start and data.startswith(BOM))
        return self.bom and at_start

    def spoken(self, path: Path) -> list[str]:
        told = []
        if self.bom:
            told.append(f"{path} starts with a byte-order mark (some editors write one); it is ignored.")
        if self.crlf:
            told.append(f"{path} has Windows line ends (CRLF) on {self.crlf:,} lines; they are read as line ends.")
        if self.blank:
            told.append(f"{path} has {self.blank:,} blank lines; they hold no item.")
        if self.unterminated:
            told.append(
                f"{path} does not end with a newline; its last line was read whole. If a copy was cut short, "
                "compare the number of items with its source."
            )
        return told


def _invalid(path: Path, problems: _Problems) -> ManifestError:
    return ManifestError(
        f"The manifest {path} cannot be used: {problems.count:,} of its lines are at fault. "
        f"{listed(problems.examples, problems.count)}. Every line must be one JSON object with an absolute "
        "`audio_filepath` and a `duration` in seconds. Mend or remove these lines and give the same command again; "
        "nothing was started and nothing is lost."
    )


def _refuse_duplicates(path: Path, keys: KeyBuckets) -> None:
    pairs = list(keys.duplicates(LISTED))
    if not pairs:
        return
    wanted = {index for pair in pairs for index in pair}
    found = {item.index: item for item in items(path) if item.index in wanted}
    told = [f"items {a + 1} and {b + 1}: {found[b].audio_filepath}" for a, b in pairs]
    raise ManifestError(
        f"The manifest {path} names the same recording or stretch more than once (same audio_filepath; for rows with "
        f"an offset, same offset and duration too): {listed(told, keys.duplicate_count)}. One result would be lost. "
        "Remove the duplicates (`awk '!seen[$0]++'` does for lines that are the same) and give the command again."
    )
