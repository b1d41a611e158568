"""Named errors whose message teaches: what is wrong, where, the likely cause, the command that mends it."""

from __future__ import annotations

import re
from typing import Iterable

LISTED = 10
"""Lists inside messages stop at this many entries."""

DONE = 0
SOME_FAILED = 1
USAGE = 2
NOT_FIT = 3
STOPPED_BY_WARNING = 75
"""Exit status of a task that published its part on a warning signal and has work left (sysexits' EX_TEMPFAIL)."""


class VoxarrayError(Exception):
    """Anything voxarray tells the user in one paragraph; `exit_status` is the command's exit status."""

    exit_status = SOME_FAILED


class UsageError(VoxarrayError):
    """The command line asks for something that does not exist or does not fit together."""

    exit_status = USAGE


class ManifestError(VoxarrayError):
    """A manifest (or a listing) cannot be used as it stands."""

    exit_status = USAGE


class ManifestChangedError(ManifestError):
    """A manifest changed while it was being read."""


class IncompleteRunError(VoxarrayError):
    """A merge was asked of a run that still has missing items."""


class StorageError(VoxarrayError):
    """The file system refused a write (full, read-only, over quota); what was published is safe."""


class LockedError(VoxarrayError):
    """Another live attempt holds the task, or another process is merging."""


class EnvironmentNotFit(VoxarrayError):  # noqa: N818 - a state, said in the words of the command line
    """The pipeline's environment lacks something: a package, a system library, an interpreter."""

    exit_status = NOT_FIT


class ClusterNotFit(VoxarrayError):  # noqa: N818
    """The cluster, or this machine in its place, cannot take the job."""

    exit_status = NOT_FIT


class ItemError(Exception):
    """One item cannot be processed. The message goes into the ledger; without the item's path, causes group."""


class Unfinished(Exception):  # noqa: N818 - nothing is wrong
    """A pipeline was told to stop in the middle of an item; the next attempt goes on. No strike against the item."""


class Warned(BaseException):
    """The scheduler's signal `number` came where nothing has to be published first. No item is to blame for it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def listed(entries: Iterable[str], total: int) -> str:
    """`entries` joined for a message, at most `LISTED` of them, with how many more of `total` there are."""
    shown: list[str] = []
    for entry in entries:
        if len(shown) == LISTED:
            break
        shown.append(entry)
    more = f" … and {total - len(shown):,} more" if total > len(shown) else ""
    return "; ".join(shown) + more


def plain(text: str) -> str:
    """Text from outside (names of files, messages) without what a terminal would obey: escaped where not printable."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


_PATH = re.compile(r"(?:/[^\s:'\",;()\[\]]+)+")
_HEX = re.compile(r"\b0x[0-9a-fA-F]+\b|\b[0-9a-f]{8,}\b")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def signature(kind: str, message: str) -> str:
    """The cause of an error without its particulars (paths, addresses, numbers), 200 characters at most."""
    first = message.strip().splitlines()[0] if message.strip() else ""
    first = _PATH.sub("<path>", first)
    first = _HEX.sub("<hex>", first)
    first = _NUMBER.sub("N", first)
    return f"{kind}: {first}"[:200]
