"""The folders that voxarray works in, by the file system they lie on, and the probes' own folders inside them."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.core import paths
from slurm.envs import places as environments

_TRIES = 20
_WORDS = "words"


class Place(NamedTuple):
    """A folder that jobs use. `written`: they write to it."""

    name: str
    path: Path
    written: bool


class Folders(NamedTuple):
    """The places of one file system. `made`: what was made in them; the first is where the trials are made."""

    places: list[Place]
    made: list[Path]

    @property
    def title(self) -> str:
        """The names of its places."""
        return ", ".join(place.name for place in self.places)


def used() -> list[Place]:
    """Every folder that a job on a compute node needs; those to be written are made if they are not there."""
    home = paths.home()
    found = [Place(name, home / name, written=True) for name in ("output", "metadata", "logs")]
    for place in found:
        place.path.mkdir(parents=True, exist_ok=True)
    found.append(Place("repository", paths.repository(), written=False))
    roots = [root for root in environments.roots() if any(root.glob(f"*/{environments.STAMP}"))]
    return [*found, *(Place("environments", root, written=False) for root in roots)]


def grouped(places: list[Place]) -> list[Folders]:
    """The places by file system, that of the results first; a folder of the probe in each that may be written to."""
    name = f".doctor-{os.getpid()}-{time.time_ns()}"
    groups: dict[int, Folders] = {}
    for place in places:
        group = groups.setdefault(place.path.stat().st_dev, Folders([], []))
        group.places.append(place)
        if place.written or (not group.made and os.access(place.path, os.W_OK | os.X_OK)):
            made = place.path / name
            made.mkdir()
            group.made.append(made)
    return list(groups.values())


def order(groups: list[Folders]) -> list[dict[str, Any]]:
    """What the nodes are told of the folders; each probe's folder gets a token that they have to see."""
    token = secrets.token_hex(8)
    told = []
    for group in groups:
        tokens = [folder / "token" for folder in group.made]
        for path in tokens:
            path.write_text(token, encoding="ascii")
        told.append(
            {
                "title": group.title,
                "folder": str(group.made[0]) if group.made else None,
                "paths": [str(place.path) for place in group.places],
                "written": [str(place.path) for place in group.places if place.written],
                "tokens": [str(path) for path in tokens],
                "token": token,
            }
        )
    return told


def words(groups: list[Folders]) -> Path:
    """The folder in which the programs talk, made if it is not there."""
    folder = groups[0].made[0] / _WORDS
    folder.mkdir(exist_ok=True)
    return folder


def remove(groups: list[Folders]) -> None:
    """Remove all that the probe made; a file that a node still holds open may keep its folder for a moment on NFS."""
    for folder in (folder for group in groups for folder in group.made):
        for _ in range(_TRIES):
            with suppress(FileNotFoundError):
                shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(0.25)
