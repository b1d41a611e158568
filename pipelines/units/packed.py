"""Packed units: shards of 16-bit integers with an index, memory-mapped; written by a merge, in manifest order.

A folder holds `units-00000.npy`, … (uint16, one dimension), for deduplicated units `durations-00000.npy`, … beside
them (uint16, frames that each unit lasts), `index.npy` (int64, shape (items, 3): shard, first unit, units),
`manifest.json` (a row an item) and `units.json` (what the units are). Anyone can read it:

    index = numpy.load("index.npy")
    shard, first, count = index[row]
    units = numpy.load(f"units-{shard:05d}.npy", mmap_mode="r")[first : first + count]

Format of the arrays: NumPy's .npy, version 1.0. A unit that lasts over 65,535 frames is written as several runs.
The writer needs the standard library alone: merges happen in the launcher's Python too.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping, Optional

import msgspec

from pipelines.core import store
from pipelines.core.errors import UsageError
from pipelines.core.output import OutputWriter
from pipelines.core.pipeline import OutputFile

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Units = npt.NDArray[np.uint16]
else:
    Units = Any

FORMAT = 1
SHARD_UNITS = 1 << 25
"""Units in a shard: 64 MB, 186 hours at 50 units a second."""
_ROW = struct.Struct("<qqq")


class Description(msgspec.Struct, frozen=True, omit_defaults=True):
    """`units.json`. `rate`: units (frames, where they are deduplicated) a second."""

    format: int
    name: str
    vocabulary_size: int
    rate: float
    deduplicated: bool
    items: int
    units: int
    frames: int
    shards: int
    run: str
    codebook: str
    codebook_digest: str
    parameters: dict[str, Any]
    index_sha256: str
    units_sha256: str = ""
    """Over the shards of units and durations; earlier versions did not write it."""


def shard_name(kind: str, number: int) -> str:
    """`units-00003.npy` or `durations-00003.npy`."""
    return f"{kind}-{number:05d}.npy"


def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """What stands before the data in a .npy file, version 1.0 (numpy.lib.format)."""
    sizes = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({sizes}), }}"
    padding = -(10 + len(text) + 1) % 64
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + padding + 1) + text.encode() + b" " * padding + b"\n"


class PackedWriter:
    """Writes a folder of packed units under private names; `publish` gives them their own, description last.

    Memory: one shard. `ours`: path → SHA-256 of what an earlier merge of the same run published there.
    """

    def __init__(
        self, folder: Path, deduplicated: bool, ours: Mapping[str, str], shard_units: int = SHARD_UNITS
    ) -> None:
        self.folder = folder
        self.items = self.units = self.frames = 0
        self._deduplicated, self._ours, self._shard_units = deduplicated, ours, shard_units
        self._codes, self._durations = bytearray(), bytearray()
        self._index = store.scratch()
        self._shards, self._content = 0, hashlib.sha256()
        self._writers: list[OutputWriter] = []
        self._manifest = self._open("manifest.json")

    def _open(self, name: str) -> OutputWriter:
        writer = OutputWriter(self.folder / name, self._ours)
        self._writers.append(writer)
        return writer

    def add(self, codes: bytes, durations: bytes, frames: int, row: bytes) -> None:
        """Add an item: its units and durations (uint16, little-endian), its frames, its row of the manifest."""
        # an item without units opens no shard: there might never be anything to write into it
        if codes and self._codes and len(self._codes) + len(codes) > 2 * self._shard_units:
            self._write_shard()
        with store.teaching(store.scratch_path()):
            self._index.write(_ROW.pack(self._shards, len(self._codes) // 2, len(codes) // 2))
        self._codes += codes
        self._durations += durations
        self._manifest.write(row + b"\n")
        self.items += 1
        self.units += len(codes) // 2
        self.frames += frames

    def _write_shard(self) -> None:
        kinds = {"units": self._codes, **({"durations": self._durations} if self._deduplicated else {})}
        for kind, data in kinds.items():
            writer = self._open(shard_name(kind, self._shards))
            writer.write(npy_header("<u2", (len(data) // 2,)), rows=0)
            writer.write(bytes(data), rows=len(data) // 2)
            writer.finish()
            self._content.update(writer.sha256.encode())
        self._codes, self._durations = bytearray(), bytearray()
        self._shards += 1

    def finish(self, describe: Mapping[str, Any]) -> None:
        """Write what is left; `describe`: the fields of the description that the writer cannot know."""
        if self._codes or not self._shards:
            self._write_shard()
        index = self._open("index.npy")
        index.write(npy_header("<i8", (self.items, 3)), rows=0)
        self._index.seek(0)
        while block := self._index.read(1 << 20):
            index.write(block, rows=len(block) // _ROW.size)
        for writer in (self._manifest, index):
            writer.finish()
        description = Description(
            format=FORMAT,
            deduplicated=self._deduplicated,
            items=self.items,
            units=self.units,
            frames=self.frames,
            shards=self._shards,
            index_sha256=index.sha256,
            units_sha256=self._content.hexdigest(),
            **describe,
        )
        last = self._open("units.json")
        last.write(store.pretty(description))
        last.finish()

    def publish(self) -> list[OutputFile]:
        """Give all files their names."""
        store.discard(self._index)
        return [writer.publish() for writer in self._writers]

    def abandon(self) -> None:
        """Remove the private files."""
        store.discard(self._index)
        for writer in self._writers:
            writer.abandon()


def describe(folder: Path) -> Description:
    """What the packed units of a folder are. Raises UsageError where there are none."""
    path = folder / "units.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Description)
    except FileNotFoundError:
        raise UsageError(
            f"{folder} holds no packed units (it has no units.json). `./voxarray encode MANIFEST DATASET` writes them "
            "to output/DATASET/units; check the path, or wait for that run's merge."
        ) from None
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(
            f"{path} cannot be read ({error}): it is damaged, or of a later version of voxarray. Merge the run that "
            "made it once more: `./voxarray merge RUN`."
        ) from None


class PackedUnits:
    """A folder of packed units, memory-mapped. `len()` is the number of items; rows as in the manifest's `units_row`.

    Raises UsageError where the folder is not whole.
    """

    def __init__(self, folder: Path) -> None:
        import numpy as np

        self.folder = folder
        self.description = describe(folder)
        self._index: Any = np.load(folder / "index.npy", mmap_mode="r")
        self._shards: dict[tuple[str, int], Any] = {}
        if len(self._index) != self.description.items:
            raise UsageError(
                f"The packed units in {folder} do not fit together: units.json speaks of {self.description.items:,} "
                f"items, index.npy of {len(self._index):,}. A merge is replacing them at this moment, or files were "
                "mixed. Wait, or merge the run again: `./voxarray merge RUN`."
            )

    def __len__(self) -> int:
        return len(self._index)

    def units(self, row: int) -> Units:
        """The units of an item as they are stored. Shape (units,), uint16."""
        return self._part("units", row)

    def durations(self, row: int) -> Units:
        """How many frames each of them lasts. Shape (units,), uint16."""
        if self.description.deduplicated:
            return self._part("durations", row)
        import numpy as np

        return np.ones(int(self._index[row, 2]), np.uint16)

    def frames(self, row: int) -> Units:
        """One unit a frame, the timing kept. Shape (frames,), uint16."""
        import numpy as np

        if not self.description.deduplicated:
            return self.units(row)
        return np.repeat(self.units(row), self.durations(row))

    def _part(self, kind: str, row: int) -> Units:
        shard, first, count = map(int, self._index[row])
        array: Units = self._shard(kind, shard)[first : first + count]
        return array

    def _shard(self, kind: str, number: int) -> Any:
        import numpy as np

        found: Optional[Any] = self._shards.get((kind, number))
        if found is None:
            found = self._shards[kind, number] = np.load(self.folder / shard_name(kind, number), mmap_mode="r")
        return found


def deduplicated(frames: Units) -> tuple[Units, Units]:
    """Runs of equal units as one unit each, and its duration in frames (65,535 at most). Shape (units,) both."""
    import numpy as np

    if not len(frames):
        return frames, frames
    starts = np.flatnonzero(np.concatenate([[True], frames[1:] != frames[:-1]]))
    lengths = np.diff(np.append(starts, len(frames)))
    longest = np.iinfo(np.uint16).max
    if lengths.max() <= longest:
        return frames[starts], lengths.astype(np.uint16)
    pieces = -(-lengths // longest)
    units = np.repeat(frames[starts], pieces)
    durations = np.full(len(units), longest, np.uint16)
    durations[np.cumsum(pieces) - 1] = (lengths - (pieces - 1) * longest).astype(np.uint16)
    return units, durations
