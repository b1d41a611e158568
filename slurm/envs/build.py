"""Making an environment: one maker at a time, begun anew after a kill, complete only once its stamp is written.

A prefix is made in its final place, because conda writes that place into it. While it is being made, a marker lies
beside it (`.NAME.building`); one that is found when a build begins means that the last maker died, and what it left is
removed. The packages that it had fetched are in uv's and conda's caches, so beginning anew is quick.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Dict, List

from pipelines.core.errors import EnvironmentNotFit
from slurm.envs import conda, libraries, places, sources, torch
from slurm.envs.definition import Definition
from slurm.envs.uv import Uv

TOOL_VARIABLE = "VOXARRAY_ENV_TOOL"
"""`uv` leaves a conda that is present alone."""


def create(definition: Definition) -> Path:
    """The prefix of the environment, made or brought up to its lock if need be; EnvironmentNotFit if it cannot be."""
    if definition.name == "launcher":
        from slurm.envs import bootstrap

        return bootstrap.create()
    prefix = places.prefix(definition)
    if places.is_current(prefix, definition):
        return prefix
    if definition.digest() is None:
        raise EnvironmentNotFit(
            f"Environment {definition.name} has no lock: {definition.lock} does not exist, so what would be installed "
            f"is not known. It belongs to the repository: `git checkout -- envs`, or `./voxarray env lock "
            f"{definition.base}` makes it from {definition.base}.txt."
        )
    root = places.writable_root()
    prefix = root / definition.name
    with places.exclusive(root, definition.name):
        if not places.is_current(prefix, definition):
            _make(definition, root, prefix)
    return prefix


def _make(definition: Definition, root: Path, prefix: Path) -> None:
    begun = time.monotonic()
    stamp = places.read_stamp(prefix)
    marker = root / f".{definition.name}.building"
    usable = _is_usable(definition, prefix, marker, stamp)
    marker.touch()
    (prefix / places.STAMP).unlink(missing_ok=True)
    if prefix.exists() and not usable:
        shutil.rmtree(prefix)
    places.say(f"making environment {definition.name} in {prefix}")
    uv = Uv(root)
    try:
        tool = stamp["tool"] if usable else _make_prefix(uv, definition, prefix)
        extras = torch.sync(uv, definition, prefix)
        extras.update(sources.complete(uv, definition, prefix))
        extras.update(libraries.complete(definition, prefix))
    except subprocess.CalledProcessError as error:
        raise EnvironmentNotFit(
            f"Environment {definition.name} could not be made: `{' '.join(map(str, error.cmd[:3]))} …` ended with "
            f"exit status {error.returncode}; its own messages above say why. Likely the package index is out of "
            f"reach or the disk is full. What was fetched is kept; run `./voxarray env create {definition.name}`."
        ) from error
    version = _version(prefix)
    places.write_stamp(prefix, {"lock": str(definition.digest()), "python": version, "tool": tool, **extras})
    marker.unlink()
    places.say(f"environment {definition.name} is ready: Python {version}, {time.monotonic() - begun:.0f} s")


def _is_usable(definition: Definition, prefix: Path, marker: Path, stamp: Dict[str, str]) -> bool:
    """Whether to build upon what is in `prefix`: finished once, with a fitting Python. EnvironmentNotFit: not ours."""
    if not marker.exists() and not stamp and prefix.exists() and any(prefix.iterdir()):
        raise EnvironmentNotFit(
            f"{prefix} is where environment {definition.name} belongs, but something else is there: it has no "
            f"{places.STAMP}, so voxarray did not make it and will not touch it. Move it away, or set "
            f"{places.VARIABLE} to another folder."
        )
    fitting = ".".join(stamp.get("python", "").split(".")[:2]) in definition.pythons
    return fitting and not marker.exists() and os.access(places.python(prefix), os.X_OK)


def _make_prefix(uv: Uv, definition: Definition, prefix: Path) -> str:
    """An environment with Python and nothing installed, made with conda if there is one, else uv; says with which."""
    tool = None if os.environ.get(TOOL_VARIABLE) == "uv" else conda.find()
    if tool is not None:
        try:
            conda.make(tool, definition, prefix)
        except (subprocess.CalledProcessError, OSError) as error:
            places.say(f"{definition.name}: {tool.name} could not make it ({error}); trying without conda")
            shutil.rmtree(prefix, ignore_errors=True)
        else:
            return tool.name
    uv.make(definition, prefix)
    return "uv"


def _version(prefix: Path) -> str:
    asked: List[str] = [str(places.python(prefix)), "-I", "-c", "import platform; print(platform.python_version())"]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
