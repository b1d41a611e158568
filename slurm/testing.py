"""`./voxarray test`: sets up, then checks, the engine's tests on the oldest and the newest Python, the whole suite.

With arguments, they are pytest's, and only the suite runs. The suite runs last: its summary is the last thing printed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, List, Optional, Sequence, Tuple

from pipelines.core.errors import DONE, NOT_FIT, SOME_FAILED, VoxarrayError
from pipelines.core.paths import repository
from slurm.environments import ensure, python
from slurm.envs import interpreters, places
from slurm.envs.definition import find

_ENGINE_PYTHONS = ("3.9", "3.13")
"""Both ends of what the engine promises to run on."""

_KILLS = "60"
"""Kills of the storms on each of those; the suite itself has them all (VOXARRAY_KILLS)."""
_STORMS = "test_storm.py"

_AT_ONCE = 2
"""Checks that run side by side."""

_LATE = ("--reruns=1", "--max-suite-reruns=3", "--rerun-show-tracebacks")
"""A test that a busy machine made late is tried once more, three at most. The summary lists what passed only then,
with what it said the first time. A test that is named on the command line is never tried again."""

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
    failed = _failed(_checks(engines))
    for title in failed:
        places.say(f"FAILED: {title} (its messages are above); the suite runs all the same")
    status = _whole(suite, _told(engines))
    return status or (SOME_FAILED if failed else DONE)


def _told(engines: Sequence[str]) -> List[str]:
    """What the suite leaves out: the engine's tests but the storms, where the oldest and newest Python have told."""
    tests = sorted((repository() / "tests" / "core").glob("test_*.py")) if len(engines) == len(_ENGINE_PYTHONS) else []
    return [f"--ignore=tests/core/{path.name}" for path in tests if path.name != _STORMS]


def _whole(suite: Sequence[str], without: Sequence[str]) -> int:
    """The suite in two processes, as tests on a cluster wait more than they compute; the worse exit status.

    What the tests on the cluster said is shown once both have ended: its summary is the last but one.
    """
    with ThreadPoolExecutor(1) as pool:
        there = pool.submit(_heard, [*suite, *_LATE, *_cache("slurm"), "tests/slurm"])
        places.say("the suite (the tests on a Slurm run beside it, and are shown after it)")
        here = _run([*suite, *_LATE, *_cache("suite"), "--ignore=tests/slurm", *without])
        status, text = there.result()
    places.say("the tests on a Slurm")
    sys.stdout.write(text)
    sys.stdout.flush()
    places.say(f"the suite: {_word(here)}; on a Slurm: {_word(status)}")
    return here or status


def _word(status: int) -> str:
    return "passed" if status == DONE else f"failed ({status}), see above"


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


def _failed(checks: Sequence[Tuple[str, List[str]]]) -> List[str]:
    """Run the checks, two at a time, and show what each said once it has ended; the titles of those that failed."""
    failed = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        said = [(title, pool.submit(_checked, command)) for title, command in checks]
        for title, future in said:
            status, text = future.result()
            places.say(title)
            sys.stdout.write(text)
            sys.stdout.flush()
            if status not in (DONE, _NO_TESTS):
                failed.append(title)
    return failed


def _checked(command: Sequence[str]) -> Tuple[int, str]:
    """Run a check: its exit status, and what it says. Of the engine's tests, those that fail are tried once more.

    Their environment is that of the oldest Python, where the suite's plugin for that is not to be had.
    """
    status, text = _heard(command)
    if status != SOME_FAILED or "pytest" not in command:
        return status, text
    status, again = _heard([*command, "--last-failed"])
    return status, f"{text}\nThose that failed, once more:\n{again}"


def _heard(command: Sequence[str]) -> Tuple[int, str]:
    """Run a program, and keep what it says: its exit status, and that."""
    with tempfile.TemporaryFile() as file:
        status = _run(command, file, VOXARRAY_KILLS=os.environ.get("VOXARRAY_KILLS", _KILLS))
        file.seek(0)
        return status, file.read().decode(errors="replace")


def _run(command: Sequence[str], output: Optional[IO[bytes]] = None, **variables: str) -> int:
    """Run a program in the repository, its output shown as it comes, or written to a file; its exit status."""
    sys.stdout.flush()
    environment = {**os.environ, "PYTHONPATH": str(repository()), "PYTHONNOUSERSITE": "1", **variables}
    # tools such as ruff and ffmpeg of the environment come first
    environment["PATH"] = os.pathsep.join([str(Path(command[0]).parent), environment.get("PATH", os.defpath)])
    error = None if output is None else subprocess.STDOUT
    done = subprocess.run(list(command), cwd=repository(), env=environment, stdout=output, stderr=error, check=False)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
