"""Profiles: a cluster's settings under a name, in `slurm/profiles/` or the user's `~/.config/voxarray/profiles/`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, Mapping, NamedTuple, Optional

from pipelines.core.errors import UsageError
from slurm import resources
from slurm.resources import Description, Setting

DEFAULT = "default"
"""The profile that is used where none is named, if there is one of that name."""

_TABLES = ("pipelines", "sbatch", "sweep", "description")


class Profile(NamedTuple):
    """Settings (see `slurm.resources.KEYS`), further sbatch options, and what differs for the sweep."""

    name: Optional[str]
    settings: Mapping[str, Any]
    sbatch: dict[str, Any]
    sweep: dict[str, Any]


def folders() -> list[Path]:
    """Where profiles lie; the user's own come first."""
    configuration = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return [configuration / "voxarray" / "profiles", Path(__file__).resolve().parent / "profiles"]


def known() -> dict[str, Path]:
    """Name → file of every profile."""
    found: dict[str, Path] = {}
    for folder in folders():
        for path in sorted(folder.glob("*.toml")):
            found.setdefault(path.stem, path)
    return found


def load(name: Optional[str], pipeline: str) -> Profile:
    """The named profile as it stands for a pipeline; without a name, the one called `default`, or nothing."""
    paths = known()
    if name is None and DEFAULT not in paths:
        return Profile(None, {}, {}, {})
    path = paths.get(name or DEFAULT)
    if path is None:
        raise UsageError(
            f"There is no profile named {name!r}. There are: {', '.join(sorted(paths)) or 'none'}. A profile is a "
            f"file NAME.toml in {folders()[0]}; slurm/profiles/README.md explains; example.toml is one to copy."
        )
    table = resources.read_toml(path)
    own = table.get("pipelines", {}).get(pipeline, {})
    general = {key: value for key, value in table.items() if key not in _TABLES}
    settings = {**resources.checked(general, str(path)), **resources.checked(own, f"{path}, [pipelines.{pipeline}]")}
    return Profile(path.stem, settings, dict(table.get("sbatch", {})), _sweep(table.get("sweep", {}), path))


def resolved(
    description: Description, options: argparse.Namespace, before: Optional[Profile] = None
) -> tuple[Profile, dict[str, Setting]]:
    """The profile of a command, and every setting of its tasks. `before`: an earlier launch's, instead."""
    chosen = before or load(options.profile, description.name)
    given = {key: getattr(options, key) for key in resources.KEYS if getattr(options, key, None) is not None}
    origin = f"profile {chosen.name}" if before is None else f"as {chosen.name}"
    return chosen, resources.resolve(description, chosen.settings, origin, given)


def _sweep(table: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The sweep's own settings, as submitit's parameters."""
    resources.checked(table, f"{path}, [sweep]")
    taken = {key: table[key] for key in ("partition", "account", "qos", "constraint") if key in table}
    if "time" in table:
        taken["time"] = resources.minutes(table["time"])
    if "mem" in table:
        taken["mem"] = f"{resources.megabytes(table['mem'])}M"
    return taken
