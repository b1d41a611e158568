"""Files that several runs of one pipeline publish: whose stand there, and what to say where one replaces another's.

Runs of different pipelines may share a file, a manifest to which each adds its fields. Two runs of one pipeline write
the same files anew, so what the later merge left are no longer the earlier run's results.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterable, NamedTuple, Optional

import msgspec

from pipelines.core import paths
from pipelines.core.errors import LISTED, listed
from pipelines.core.pipeline import OutputFile
from pipelines.core.run import Run


class _Receipt(msgspec.Struct):
    run: str
    time: str
    outputs: list[OutputFile]


class _Plan(msgspec.Struct):
    pipeline: str


class _Merged(NamedTuple):
    """When a run was merged last, to the second and then by its file's time, and its receipt."""

    when: tuple[str, int]
    receipt: _Receipt


def taken(run: Run, files: Iterable[str]) -> dict[str, str]:
    """Which of `files` another run of the pipeline published after this run's last merge: path → id of the last such.

    A manifest that the run extends is not among them: its fields are added to whatever stands there.
    """
    wanted = {os.path.realpath(path): path for path in files}
    wanted.pop(os.path.realpath(run.manifest), None)
    names = {Path(path).name for path in wanted.values()}
    own = _merged(run.folder)
    latest = dict.fromkeys(wanted.values(), own.when if own else ("", 0))
    found: dict[str, str] = {}
    for file in paths.runs().glob("*/merged.json"):
        other = _merged(file.parent)
        if other is None or other.receipt.run == run.id:
            continue
        alike = [os.path.realpath(file.path) for file in other.receipt.outputs if Path(file.path).name in names]
        shared = [wanted[path] for path in alike if path in wanted]
        if shared and _pipeline(file.parent) == run.plan.pipeline:
            for path in shared:
                if other.when > latest[path]:
                    latest[path], found[path] = other.when, other.receipt.run
    return found


def replaced(run: Run, files: list[OutputFile]) -> list[str]:
    """A line for every other run of the pipeline whose files a merge of this one has just replaced by `files`."""
    kept = {file.path: Path(file.backup).name for file in files if file.backup is not None}
    owners = taken(run, kept)
    lines = []
    for owner in sorted(set(owners.values())):
        told = [f"{path} (kept as {kept[path]})" for path in kept if owners.get(path) == owner]
        lines.append(
            f"This replaced what {owner}, another {run.plan.pipeline} run, had published, with all that was added to "
            f"it since: {listed(told[:LISTED], len(told))}."
        )
    return lines


def _merged(folder: Path) -> Optional[_Merged]:
    path = folder / "merged.json"
    try:
        receipt = msgspec.json.decode(path.read_bytes(), type=_Receipt)
        return _Merged((receipt.time, path.stat().st_mtime_ns), receipt)
    except (OSError, msgspec.MsgspecError):
        return None


def _pipeline(folder: Path) -> Optional[str]:
    try:
        return msgspec.json.decode((folder / "run.json").read_bytes(), type=_Plan).pipeline
    except (OSError, msgspec.MsgspecError):
        return None
