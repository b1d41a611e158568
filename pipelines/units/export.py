"""`./voxarray units`: what packed units are, and the text forms that other tools read. Standard library alone."""

from __future__ import annotations

import argparse
import mmap
import struct
import sys
from array import array
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Iterator, Optional, Sequence

import msgspec

from pipelines.core import manifest, store
from pipelines.core.errors import DONE, USAGE, UsageError, VoxarrayError
from pipelines.units import packed

_ROW = struct.Struct("<qqq")
FORMS = ("gslm", "textless", "manifest")


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    options = build_parser().parse_args(arguments)
    try:
        folder = _folder(options.units)
        if options.text is None:
            print(summary(folder))
            return DONE
        with _output(options.output) as file:
            for line in lines(folder, options.text, options.frames):
                file.write(line.encode("utf-8", "surrogateescape") + b"\n")
    except VoxarrayError as error:
        print(f"voxarray: {error}", file=sys.stderr)
        return error.exit_status or USAGE
    return DONE


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="voxarray units",
        allow_abbrev=False,
        description="What packed units are; with --text, the units themselves as text, an item a line.",
    )
    parser.add_argument("units", metavar="UNITS", help="output/DATASET/units, or the name of the DATASET")
    parser.add_argument(
        "--text",
        choices=FORMS,
        help="gslm: PATH|3 14 15 … (a stretch's PATH with its start and end: x_0.250-0.750.wav); textless: JSON with "
        "audio, units and durations, as its transcribe.py writes (a stretch's offset and duration, too); manifest: "
        "the manifest's rows with `units`, and `durations` in frames where they are deduplicated",
    )
    parser.add_argument("--frames", action="store_true", help="one unit a frame, also where they are deduplicated")
    parser.add_argument("--output", metavar="FILE", help="write there instead of on the terminal")
    return parser


def _folder(name: str) -> Path:
    from pipelines.core import paths

    given = Path(name).expanduser().absolute()
    for folder in (given, given / "units", paths.home() / "output" / name / "units"):
        if (folder / "units.json").exists():
            return folder
    return given


@contextmanager
def _output(name: Any) -> Iterator[IO[bytes]]:
    if name is None:
        yield sys.stdout.buffer
        sys.stdout.flush()
        return
    with store.writing(Path(name).expanduser().absolute()) as file:
        yield file


def summary(folder: Path) -> str:
    """What the units are, in words."""
    what = packed.describe(folder)
    seconds = what.frames / what.rate
    kind = "runs of equal units are one, with durations" if what.deduplicated else "one unit a frame"
    return (
        f"{folder}\n  {what.name}: {what.vocabulary_size:,} units, {what.rate:g} frames a second; {kind}\n"
        f"  {what.items:,} items, {what.units:,} units in {what.shards} shards, {seconds / 3600:.2f} hours "
        f"({16 * what.units / max(seconds, 1e-9):.0f} bits a second as stored)\n"
        f"  made by the run {what.run}"
    )


def lines(folder: Path, form: str, frames: bool) -> Iterator[str]:
    """Every item in the chosen form, in the manifest's order."""
    with ExitStack() as stack:
        units = _Shards(folder, stack)
        for row, item in enumerate(manifest.items(folder / "manifest.json")):
            codes, durations = units.read(row)
            if frames:
                codes = array("H", (code for code, count in zip(codes, durations) for _ in range(count)))
                durations = array("H", [1]) * len(codes)
            yield _line(item, form, codes, durations)


def _line(item: manifest.Item, form: str, codes: Sequence[int], durations: Sequence[int]) -> str:
    text, frames = " ".join(map(str, codes)), " ".join(map(str, durations))
    stretch = item.span
    if form == "gslm":
        return f"{item.audio_filepath if stretch is None else _named(item.audio_filepath, *stretch)}|{text}"
    if form == "textless":
        place = {} if stretch is None else {"offset": stretch[0], "duration": stretch[1]}
        fields = {"audio": item.audio_filepath, **place, "units": text, "durations": frames}
        return msgspec.json.encode(fields).decode()
    fields = {name: value for name, value in item.fields().items() if name != "durations"}
    lasting = {"durations": frames} if any(count != 1 for count in durations) else {}
    return msgspec.json.encode({**fields, "units": text, **lasting}).decode()


def _named(path: str, start: float, duration: Optional[float]) -> str:
    """The name of a stretch of a recording, as the files of `sts` have it: `x_0.250-0.750.wav`."""
    end = "end" if duration is None else f"{start + duration:.3f}"
    where = Path(path)
    return str(where.with_name(f"{where.stem}_{start:.3f}-{end}{where.suffix}"))


class _Shards:
    """Units and durations by row, through the system's memory map."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._what = packed.describe(folder)
        self._files: dict[str, tuple[mmap.mmap, int]] = {}

    def read(self, row: int) -> tuple[Sequence[int], Sequence[int]]:
        """An item's units, and how many frames each lasts."""
        data, start = self._open("index.npy")
        shard, first, count = _ROW.unpack_from(data, start + row * _ROW.size)
        codes = self._part("units", shard, first, count)
        if not self._what.deduplicated:
            return codes, array("H", [1]) * count
        return codes, self._part("durations", shard, first, count)

    def _part(self, kind: str, shard: int, first: int, count: int) -> array[int]:
        data, start = self._open(packed.shard_name(kind, shard))
        values = array("H", data[start + 2 * first : start + 2 * (first + count)])
        if sys.byteorder == "big":
            values.byteswap()
        return values

    def _open(self, name: str) -> tuple[mmap.mmap, int]:
        if name not in self._files:
            path = self._folder / name
            try:
                file = self._stack.enter_context(path.open("rb"))
                data = self._stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            except (OSError, ValueError) as error:
                again = "Merge the run again: `./voxarray merge RUN`."
                raise UsageError(f"{path} cannot be read ({error}). {again}") from None
            self._files[name] = (data, 10 + int.from_bytes(data[8:10], "little"))
        return self._files[name]
