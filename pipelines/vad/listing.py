"""The recordings in a directory and below it, streamed; nothing that looks like one is skipped without a word."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Iterator, Optional

from pipelines.audio.formats import is_recording
from pipelines.core.pipeline import Parameters

_Identity = tuple[int, int]
"""Device and inode of a directory."""


class _Folder:
    """A directory that is still to be read, and the identities of those above it (for links that lead in a circle)."""

    __slots__ = ("above", "path")

    def __init__(self, path: str, above: tuple[_Identity, ...]) -> None:
        self.path, self.above = path, above


def list_items(source: Path, _: Parameters) -> Iterator[dict[str, Any]]:
    """Rows for every recording below `source`: `audio_filepath`, and `problem` where it is known to be unreadable.

    Files are taken by suffix, upper or lower case. Links to files and directories are followed, but not those that
    lead back up, nor those to a directory that lies below `source` itself: its recordings are there once. A directory
    that cannot be read becomes a row with its problem. One directory is open at a time.
    """
    waiting, links = [_Folder(os.fspath(source), ())], list[_Folder]()
    below: set[_Identity] = set()
    following = False  # links, which wait until all that lies below `source` has been read
    while waiting or links:
        if not waiting:
            waiting, links, following = links, [], True
        folder = waiting.pop()
        try:
            status = Path(folder.path).stat()
            identity = (status.st_dev, status.st_ino)
            if identity in folder.above or (following and identity in below):
                continue
            if not following:
                below.add(identity)
            above = (*folder.above, identity)
            with os.scandir(folder.path) as entries:
                for entry in entries:
                    if _is_folder(entry):
                        later = entry.is_symlink() and not following
                        (links if later else waiting).append(_Folder(entry.path, above))
                    elif is_recording(entry.name):
                        yield _row(entry.path, _problem(entry))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            yield _row(folder.path, f"The directory cannot be read ({reason}), so its recordings are missing.")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):  # a link that leads to itself
        return entry.is_dir()
    return False


def _problem(entry: os.DirEntry[str]) -> Optional[str]:
    """Why the entry cannot be read, as far as that is known without opening it."""
    with suppress(OSError):
        if entry.is_file():
            return None
        if not entry.is_symlink():
            return "It is not a regular file but a pipe, a socket or a device."
    return "It is a symbolic link to something that does not exist."


def _row(path: str, problem: Optional[str]) -> dict[str, Any]:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        # JSON is Unicode: such a name cannot be written into a manifest and found again.
        path = os.fsencode(path).decode("utf-8", "backslashreplace")
        problem = "Its name is not valid UTF-8 (shown with backslashes). Rename it, for example with convmv."
    row: dict[str, Any] = {"audio_filepath": path}
    if problem is not None:
        row["problem"] = problem
    return row
