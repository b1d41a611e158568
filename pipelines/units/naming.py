"""Where a pipeline writes the file of an item: below `output/DATASET`, as the item lies below the dataset's folder."""

from __future__ import annotations

import argparse
import re
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, Mapping, Optional

import msgspec

from pipelines.core import paths, store
from pipelines.core.errors import ItemError, UsageError
from pipelines.core.manifest import Item, items

_DATASET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the operand DATASET."""
    parser.add_argument("dataset", metavar="DATASET", help="the dataset's name: results go below output/DATASET")


def add_root(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where the dataset's folder begins."""
    parser.add_argument(
        "--root",
        metavar="DIR",
        help="the folder that the recordings lie below; their paths below it are kept (default: the first folder "
        "named DATASET in each path)",
    )


def dataset(options: argparse.Namespace) -> str:
    """The validated operand. Raises UsageError."""
    name = str(options.dataset)
    if not _DATASET.fullmatch(name):
        raise UsageError(
            f"DATASET is {name!r}, and must be one folder's name: letters, digits, and . _ - + (not first). Results "
            "go to output/DATASET; it should be the name of the recordings' own folder (/data/expresso/audio/x.wav "
            "with DATASET expresso), or any name with --root."
        )
    return name


def root(options: argparse.Namespace) -> Optional[str]:
    """The validated option. Raises UsageError."""
    if options.root is None:
        return None
    folder = paths.absolute(options.root)
    if not folder.is_dir():
        raise UsageError(
            f"--root is {folder}, which is not a folder here. Name the folder that the recordings lie below."
        )
    return str(folder)


def verify(options: argparse.Namespace) -> None:
    """Check what can be checked before anything is fitted: the operand, --root, and the manifest's first item."""
    parameters = {"dataset": dataset(options), "root": root(options)}
    source = paths.absolute(options.source)
    first = next(items(source, keyed=False), None)
    try:
        if first is not None:
            relative(first, parameters)
    except ItemError as error:
        raise UsageError(f"{first.audio_filepath if first else ''}, the first item of {source}: {error}.") from None


def folder(name: str) -> Path:
    """`output/DATASET`."""
    return paths.home() / "output" / name


def relative(item: Item, parameters: Mapping[str, Any]) -> PurePosixPath:
    """The item's path below the dataset's folder, a stretch with its start and end in seconds, without suffix.

    Raises ItemError where the item does not lie there.
    """
    below = PurePosixPath(item.audio_filepath).relative_to(top(item, parameters))
    stem = below.stem if below.suffix else below.name
    stretch = item.span
    if stretch is not None:
        start, duration = stretch
        end = "end" if duration is None else f"{start + duration:.3f}"
        stem = f"{stem}_{start:.3f}-{end}"
    return below.with_name(stem)


def file_name(item: Item, parameters: Mapping[str, Any], suffix: str) -> str:
    """The item's file, below the dataset's folder. Raises ItemError where there can be none."""
    path = relative(item, parameters)
    path = path.with_name(f"{path.name}.{suffix}")
    longest = max(len(part.encode("utf-8", "surrogatepass")) for part in path.parts)
    if longest > store.LONGEST_NAME:
        raise ItemError(
            f"a name in its file's path would have {longest} bytes, and file systems take {store.LONGEST_NAME} at "
            "most; give the recording (or its folder) a shorter name"
        )
    return str(path)


def top(item: Item, parameters: Mapping[str, Any]) -> str:
    """The folder that the item's path is kept below: --root, or the first one in the path with the dataset's name.

    Raises ItemError where the item does not lie there.
    """
    path, root = PurePosixPath(item.audio_filepath), parameters["root"]
    if root is not None:
        if ".." not in path.parts and path.is_relative_to(root) and path != PurePosixPath(root):
            return str(root)
        raise ItemError(f"it does not lie below --root {root}")
    name, parts = parameters["dataset"], path.parts[:-1]
    if name not in parts or ".." in parts:
        raise ItemError(
            f"no folder in its path is named {name!r}, so nobody knows where its place below output/{name} begins; "
            "name the folder that the recordings lie below with --root"
        )
    return str(PurePosixPath(*parts[: parts.index(name) + 1]))


ADVICE = "Give this one another DATASET (with --root, if that is no folder in the recordings' paths)."


def verify_free(where: Path, kind: str, made: Mapping[str, Any]) -> None:
    """Raise UsageError where the folder holds `kind` (units, speech) made otherwise, as its claim tells."""
    try:
        text = (where / f".{kind}.json").read_bytes()
    except OSError:
        return
    if text != _text(made):
        raise UsageError(
            f"{where} holds {kind} made with other settings ({_difference(text, made)}), and the two must not mix. "
            f"{ADVICE}"
        )


def claim(where: Path, kind: str, made: Mapping[str, Any]) -> None:
    """Say in a folder how its `kind` is made; first wins. Raises UsageError as `verify_free`."""
    store.publish(where / f".{kind}.json", _text(made))
    verify_free(where, kind, made)


def verify_source(where: Path, kind: str, manifest: Path, parameters: Mapping[str, Any]) -> None:
    """Raise UsageError where the folder holds `kind` of recordings that lie elsewhere than all of the manifest's.

    The files of the one would take the places of the other's, wherever two have the same name.
    """
    claimed = _claimed_top(where, kind)
    if claimed is None or claimed == parameters["root"]:
        return
    with suppress(ItemError):  # the scan of the manifest tells, of rows that are none, too
        tops = {top(item, parameters) for item in items(manifest, keyed=False)}
        if tops and (parameters["root"] is not None or claimed not in tops):
            raise _foreign(where, kind, claimed)


def is_claimed(where: Path, kind: str) -> bool:
    """Whether files of that kind in a folder are voxarray's."""
    return (where / f".{kind}.json").exists()


def claim_source(where: Path, kind: str, item: Item, parameters: Mapping[str, Any]) -> None:
    """Say in a folder where the recordings of its `kind` lie; first wins. Raises UsageError as `verify_source`."""
    here, note = top(item, parameters), _source_note(where, kind)
    if not note.exists():
        store.publish(note, _text({"below": here}))
    claimed = _claimed_top(where, kind)
    if parameters["root"] is not None and claimed not in (None, here):
        raise _foreign(where, kind, claimed)


def _source_note(where: Path, kind: str) -> Path:
    return where / f".{kind}-source.json"


def _claimed_top(where: Path, kind: str) -> Optional[str]:
    try:
        found = msgspec.json.decode(_source_note(where, kind).read_bytes(), type=dict[str, str])
    except (OSError, msgspec.MsgspecError):
        return None
    return found.get("below")


def _foreign(where: Path, kind: str, claimed: Optional[str]) -> UsageError:
    return UsageError(
        f"{where} holds {kind} of the recordings below {claimed}, and these lie elsewhere: files of the same name "
        f"would replace each other. {ADVICE} Recordings that lie below that folder are given with --root {claimed}."
    )


def _difference(text: bytes, made: Mapping[str, Any]) -> str:
    try:
        before = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError:
        return "the note about them cannot be read"
    names = [name for name in sorted({*before, *made}) if not name.endswith("_digest")]
    if all(before.get(name) == made.get(name) for name in names):
        return "the models were fitted or imported anew since"
    told = [f"{name} {before.get(name)}, now {made.get(name)}" for name in names if before.get(name) != made.get(name)]
    return "; ".join(told)


def _text(made: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(made, order="deterministic") + b"\n"
