"""The launcher's own environment, made by whatever Python the machine has: `venv` without ensurepip, and our own pip.

Run by `./voxarray` when the environment is missing or its lock has changed. It is built under a private name and
renamed when complete, so that another process never sees half of it, and a killed one leaves only a folder to remove.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path
from types import SimpleNamespace
from typing import List

from pipelines.core.errors import EnvironmentNotFit, VoxarrayError
from slurm.envs import index, places
from slurm.envs.definition import Definition, find

_NAME = "launcher"
_STALE_S = 3600.0
"""Age at which an unfinished folder is taken for a dead process's where the file system has no locks."""


class _Builder(venv.EnvBuilder):
    """A virtual environment without pip, and without activation scripts: they would name the folder it is built in."""

    def setup_scripts(self, context: SimpleNamespace) -> None:
        """Install none."""


def create() -> Path:
    """The prefix of the launcher's environment, made when missing; EnvironmentNotFit when it cannot be."""
    definition = find(_NAME)
    prefix = places.prefix(definition)
    if _is_current(prefix, definition):
        return prefix
    root = places.writable_root()
    prefix = root / _NAME
    with places.exclusive(root, _NAME) as locked:
        if not _is_current(prefix, definition):
            _remove_leftovers(root, 0.0 if locked else _STALE_S)
            _make(definition, root, prefix)
    return prefix


def _is_current(prefix: Path, definition: Definition) -> bool:
    return places.is_current(prefix, definition) and (prefix / places.LOCK_COPY).exists()


def _make(definition: Definition, root: Path, prefix: Path) -> None:
    begun = time.monotonic()
    places.say(f"making the command's own environment in {prefix} (once, some 10 seconds)")
    building = root / f".{_NAME}.{os.getpid()}.tmp"
    _Builder(symlinks=True).create(building)
    lock = definition.lock.read_bytes()
    _install(building, definition)
    (building / places.LOCK_COPY).write_bytes(lock)
    stamp = {"lock": str(definition.digest()), "python": platform.python_version(), "tool": "pip"}
    places.write_stamp(building, stamp)
    _publish(building, prefix)
    places.say(f"ready in {time.monotonic() - begun:.0f} s")


def _install(building: Path, definition: Definition) -> None:
    command: List[str] = [str(places.python(building)), "-I", *index.pip(), "install", "--quiet", "--no-compile"]
    command += ["--no-input", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    command += ["--requirement", str(definition.lock)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=index.package_environment())
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
        raise EnvironmentNotFit(
            f"The packages of {definition.lock} could not be installed for the command itself, with {sys.executable}. "
            f"Likely the package index cannot be reached: pip's configuration and PIP_INDEX_URL, PIP_CERT and "
            f"HTTPS_PROXY are followed. pip said: {' '.join(said[-6:]) or done.stdout[-500:]}"
        )


def _publish(building: Path, prefix: Path) -> None:
    """Put the finished environment in place; one that stood there (an older lock's) makes way."""
    if prefix.exists():
        old = building.with_suffix(".old")
        prefix.rename(old)
        building.rename(prefix)
        shutil.rmtree(old, ignore_errors=True)
        return
    try:
        building.rename(prefix)
    except OSError:  # another process was first, where the file system has no locks
        shutil.rmtree(building, ignore_errors=True)


def _remove_leftovers(root: Path, age: float) -> None:
    for left in [*root.glob(f".{_NAME}.*.tmp"), *root.glob(f".{_NAME}.*.old")]:
        if time.time() - left.stat().st_mtime >= age:
            shutil.rmtree(left, ignore_errors=True)


def main() -> int:
    """Make the environment and print its prefix; errors are one paragraph on standard error."""
    try:
        print(create())
    except VoxarrayError as error:
        places.say(str(error))
        return error.exit_status
    except OSError as error:
        places.say(f"the command's own environment cannot be made: {error}. Give it a folder with {places.VARIABLE}.")
        return EnvironmentNotFit.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
