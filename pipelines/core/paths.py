"""Where things are: the repository, the home of a user's data, the folder of each run."""

from __future__ import annotations

import os
from pathlib import Path

HOME_VARIABLE = "VOXARRAY_HOME"


def repository() -> Path:
    """The folder that holds `pipelines/`, `slurm/` and `envs/`."""
    return Path(__file__).resolve().parent.parent.parent


def home() -> Path:
    """The folder under which `metadata/`, `output/` and `logs/` lie: $VOXARRAY_HOME, else the repository."""
    value = os.environ.get(HOME_VARIABLE)
    return Path(value).expanduser().absolute() if value else repository()


def absolute(name: str) -> Path:
    """One spelling of a place that a user names, for runs are known by it: absolute, and without `..`.

    Symbolic links stay as they are, unless a `..` follows one: then only the file system knows what is meant.
    """
    path = os.path.expanduser(name)  # noqa: PTH111 - Path's raises for a user that is not there
    plain = os.path.abspath(path)  # noqa: PTH100 - Path's keeps `..`
    real = os.path.realpath(path)
    return Path(plain if os.path.realpath(plain) == real else real)


def metadata() -> Path:
    """Default folder of manifests and their statistics."""
    return home() / "metadata"


def runs() -> Path:
    """The folder of all run folders."""
    return home() / "output" / "runs"


def run_folder(run_id: str) -> Path:
    """The folder of one run."""
    return runs() / run_id


def launch_name(number: int) -> str:
    """`launch-003`: the name of a launch in files and folders."""
    return f"launch-{number:03d}"


def task_name(task: int) -> str:
    """`task_0003`: the name of a task in files."""
    return f"task_{task:04d}"


def logs(run_id: str, launch: int) -> Path:
    """The folder of one launch's log files."""
    return home() / "logs" / run_id / launch_name(launch)


def task_log(run_id: str, launch: int, task: int) -> Path:
    """The log file of one task of one launch."""
    return logs(run_id, launch) / f"{task_name(task)}.log"
