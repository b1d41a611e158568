"""What a user may still write, where a file system keeps account of it: `lfs` on Lustre, `quota` elsewhere."""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple, Optional

from slurm.probes import BAD, NOTE, Finding

_TIMEOUT_S = 10.0
_NEARLY = 0.9
_MAKE_ROOM = "make room, or name another place with VOXARRAY_HOME; a run that is over quota publishes nothing more"


class Use(NamedTuple):
    """How much of a limit is used; `limit` 0: there is none."""

    what: str
    used: int
    limit: int


def look(topic: str, kind: str, folder: Path) -> Optional[Finding]:
    """The finding where a quota is nearly or wholly used up; None where it is not, or nobody can tell."""
    if kind == "lustre" and shutil.which("lfs"):
        text = _asked(["lfs", "quota", "-q", "-u", getpass.getuser(), str(folder)])
        return judged(topic, lustre(text))
    if shutil.which("quota"):  # it prints only what is over its quota
        text = " ".join(_asked(["quota", "-q"]).split())
        return Finding(topic, "quota", BAD, f"`quota` says: {text[:300]}", _MAKE_ROOM) if text else None
    return None


def lustre(text: str) -> list[Use]:
    """`lfs quota -q`: folder, KB used, quota, limit, grace, files, quota, limit, grace; `*` marks what is over."""
    words = [re.sub(r"\*$", "", word) for word in text.split()]
    numbers = words[1:9]
    if len(numbers) < 8 or not all(numbers[place].isdigit() for place in (0, 1, 2, 4, 5, 6)):
        return []
    size = Use("KB", int(numbers[0]), int(numbers[1]) or int(numbers[2]))
    return [size, Use("files", int(numbers[4]), int(numbers[5]) or int(numbers[6]))]


def judged(topic: str, uses: list[Use]) -> Optional[Finding]:
    """The finding about the use that is nearest to its limit; None where all are well."""
    limited = [use for use in uses if use.limit]
    if not limited:
        return None
    worst = max(limited, key=lambda use: use.used / use.limit)
    if worst.used < _NEARLY * worst.limit:
        return None
    seen = f"{worst.used:,} of {worst.limit:,} {worst.what} are used"
    return Finding(topic, "quota", BAD if worst.used >= worst.limit else NOTE, seen, _MAKE_ROOM)


def _asked(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
