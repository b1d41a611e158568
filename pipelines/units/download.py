"""Fetching published files: found on this machine where they are, else downloaded, resumed, and checked by SHA-256."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import IO, Callable, List, Optional, Sequence

from pipelines.core import store
from pipelines.units import models
from pipelines.units.checkpoint import CheckpointError
from pipelines.units.known import File, Known

TEXTLESS_VARIABLE = "TEXTLESS_CHECKPOINT_ROOT"
_BLOCK = 1 << 20
_TRIES = 5
_TIMEOUT_S = 60.0

Say = Callable[[str], None]


def folder() -> Path:
    """Where downloads lie until they are imported."""
    return models.folder() / ".downloads"


def places(given: Optional[Path]) -> List[Path]:
    """Folders in which published files are looked for: the given one alone, else textlesslib's and our own."""
    if given is not None:
        return [given]
    root = os.environ.get(TEXTLESS_VARIABLE)
    return [*([Path(root).expanduser()] if root else []), Path("~/.textless").expanduser(), folder()]


def find(file: File, folders: Sequence[Path]) -> Optional[Path]:
    """A published file in one of the folders, under textlesslib's name, or (checked) its address's."""
    for each in folders:
        for name in dict.fromkeys((file.name, file.url.rsplit("/", 1)[-1])):
            path = each / name
            if path.is_file() and (name == file.name or store.sha256_of(path) == file.sha256):
                return path
    return None


def verify(known: Known, file: File, path: Path) -> None:
    """Raise CheckpointError unless the file is the published one, byte for byte."""
    found = store.sha256_of(path)
    if found != file.sha256:
        raise CheckpointError(
            f"{path} is not the published {file.name} of {known.name}: its SHA-256 is {found}, and should be "
            f"{file.sha256} ({path.stat().st_size:,} bytes). Its download was probably cut off: remove it and fetch "
            f"{file.url} again. A model of your own is imported under a name of its own: `./voxarray "
            "import-checkpoint FILE --name NAME`."
        )


def obtain(known: Known, given: Optional[Path], download: bool, say: Say) -> List[Path]:
    """All files of a published model, in their order, each the published one. Raises CheckpointError."""
    folders = places(given)
    found = [find(file, folders) for file in known.files]
    absent = [file for file, path in zip(known.files, found) if path is None]
    if absent and not download:
        raise CheckpointError(
            f"{', '.join(file.name for file in absent)} of {known.name} is not in "
            f"{' or '.join(map(str, folders))}, and is not to be downloaded. {known.instructions()}"
        )
    paths = [path or fetch(known, file, say) for file, path in zip(known.files, found)]
    for file, path in zip(known.files, paths):
        verify(known, file, path)
    return paths


def fetch(known: Known, file: File, say: Say) -> Path:
    """Download one file into `folder()`, going on where an earlier attempt stopped."""
    path, part = folder() / file.name, folder() / f"{file.name}.part"
    with store.teaching(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    say(f"downloading {file.url}")
    for attempt in range(1, _TRIES + 1):
        try:
            _fetch_rest(file, part, say)
            break
        except urllib.error.HTTPError as error:
            if error.code == 416:  # the part is as long as the file, or longer
                break
            if attempt == _TRIES or error.code < 500:
                raise _unreachable(known, file, f"the server said {error.code} {error.reason}") from None
        except (OSError, HTTPException) as error:
            if attempt == _TRIES:
                raise _unreachable(known, file, str(getattr(error, "reason", error))) from None
        time.sleep(2.0 ** (attempt - 1))
    if store.sha256_of(part) != file.sha256:
        found = store.sha256_of(part)
        part.unlink()
        raise CheckpointError(
            f"What was downloaded from {file.url} has SHA-256 {found}, and the published file {file.sha256}: "
            "something on the way changed it (a proxy's error page, mostly). It was removed; try again, or "
            "bring the file and give `--from FOLDER`."
        )
    os.replace(part, path)
    return path


def _fetch_rest(file: File, part: Path, say: Say) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - the addresses are our own
        resumed = answer.status == 206
        left = answer.headers.get("Content-Length")
        total = (have if resumed else 0) + int(left) if left else None
        with store.teaching(part):
            out = part.open("ab" if resumed else "wb")
        with out:
            _copy(answer, out, part, total, say)


def _copy(answer: IO[bytes], out: IO[bytes], part: Path, total: Optional[int], say: Say) -> None:
    """The answer into the file. OSError: the connection ended early."""
    told = time.monotonic()
    while block := answer.read(_BLOCK):
        with store.teaching(part):
            out.write(block)
        if time.monotonic() > told + 10:
            told = time.monotonic()
            of = f" of {total / 1e6:,.0f}" if total else ""
            say(f"  {out.tell() / 1e6:,.0f}{of} MB")
    if total is not None and out.tell() < total:
        raise OSError(f"the connection ended after {out.tell():,} of {total:,} bytes")


def _unreachable(known: Known, file: File, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{file.url} could not be downloaded: {reason}. Compute nodes often have no internet: use a login node, or "
        f"another machine. What came is kept, and the same command goes on from there. {known.instructions()}"
    )


def clean(paths: Sequence[Path]) -> None:
    """Remove what was downloaded here, once it is imported."""
    for path in paths:
        if path.parent == folder():
            path.unlink(missing_ok=True)
