"""`./voxarray test`: sets up, then checks, the engine's tests on the oldest and the newest Python, the whole suite.

With arguments, they are pytest's, and only the suite runs. The suite runs last: its summary is the last thing printed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import List, Sequence, Tuple

from pipelines.core.errors import DONE, NOT_FIT, SOME_FAILED, VoxarrayError
from pipelines.core.paths import repository
from slurm.environments import ensure, python
from slurm.envs import interpreters, places
from slurm.envs.definition import find

_ENGINE_PYTHONS = ("3.9", "3.13")
"""Both ends of what the engine promises to run on."""

_KILLS = "60"
"""Kills of the storms on each of those; the suite itself has them all (VOXARRAY_KILLS)."""

_NO_TESTS = 5
"""pytest's exit status when it selected no test."""


def main(argv: Sequence[str]) -> int:
    """Set up and run; 0 when everything passed, 1 when something failed, 3 when the machine could not be set up."""
    try:
        engines = _set_up()
    except VoxarrayError as error:
        places.say(str(error))
        return error.exit_status
    except subprocess.CalledProcessError as error:
        places.say(f"the machine could not be set up for the tests: exit status {error.returncode}")
        return NOT_FIT
    suite = [str(python("test")), "-m", "pytest"]
    if argv:
        return _run(suite + list(argv))
    failed = [title for title, command in _checks(engines) if not _passes(title, command)]
    for title in failed:
        places.say(f"FAILED: {title} (its messages are above); the suite runs all the same")
    status = _run(suite)
    return status or (SOME_FAILED if failed else DONE)


def _set_up() -> List[str]:
    """System packages and environments; the names of the engine's environments that this machine can have."""
    subprocess.run(["bash", str(repository() / "tests" / "system-packages.sh")], check=True)
    for name in ("vad", "units", "asr", "lm", "demo", "test"):
        ensure(name)
    _set_up_reference()
    engines: List[str] = []
    for version in _ENGINE_PYTHONS:
        if interpreters.find([version]) is None:
            places.say(f"SKIPPED: the engine's tests on Python {version}: this machine has no Python {version}")
        else:
            ensure(f"engine-{version}")
            engines.append(f"engine-{version}")
    return engines


def _set_up_reference() -> None:
    """The environment of fairseq, where this machine can have it; its tests say that they are left out elsewhere."""
    try:
        if interpreters.find(find("sts").pythons) is None:
            places.say("SKIPPED: the comparison with fairseq: this machine has no Python 3.9")
        else:
            ensure("sts")
    except (VoxarrayError, subprocess.CalledProcessError) as error:
        places.say(f"SKIPPED: the comparison with fairseq: {error}")


def _checks(engines: Sequence[str]) -> List[Tuple[str, List[str]]]:
    """Title and command of everything that runs before the suite."""
    tools = str(python("test"))
    return [
        ("ruff", [tools, "-m", "ruff", "check", "."]),
        ("mypy", [tools, "-m", "mypy"]),
        *((f"tests of {name}", [str(python(name)), "-m", "pytest", *_cache(name), "tests/core"]) for name in engines),
    ]


def _cache(name: str) -> List[str]:
    """Keeps the runs of the suite from mixing up what they remember of each other's failures."""
    return ["-o", f"cache_dir=.pytest_cache/{name}"]


def _passes(title: str, command: Sequence[str]) -> bool:
    places.say(title)
    return _run(command, VOXARRAY_KILLS=os.environ.get("VOXARRAY_KILLS", _KILLS)) in (DONE, _NO_TESTS)


def _run(command: Sequence[str], **variables: str) -> int:
    """Run a program in the repository, its output shown as it comes; its exit status."""
    sys.stdout.flush()
    environment = {**os.environ, "PYTHONPATH": str(repository()), "PYTHONNOUSERSITE": "1", **variables}
    # tools such as ruff and ffmpeg of the environment come first
    environment["PATH"] = os.pathsep.join([str(Path(command[0]).parent), environment.get("PATH", os.defpath)])
    return subprocess.run(list(command), cwd=repository(), env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
