"""What produced a result: code version, environment lock, interpreter, host, command line."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path
from typing import Optional

import msgspec

from pipelines.core import paths

VERSION = "0.1.0"


class Environment(msgspec.Struct, frozen=True):
    """The environment of a pipeline: its name, the SHA-256 of its lock file (None: no lock), and the interpreter."""

    name: str
    lock: Optional[str]
    python: str


class Code(msgspec.Struct, frozen=True):
    """The commit the code stood at, and whether files differed from it (their diff is kept beside the plan)."""

    commit: Optional[str]
    modified: bool


def environment(name: str) -> Environment:
    """The named environment as it stands."""
    return Environment(name, lock_digest(name), platform.python_version())


def lock_digest(name: str) -> Optional[str]:
    """SHA-256 of `envs/NAME.lock`."""
    try:
        return hashlib.sha256((paths.repository() / "envs" / f"{name}.lock").read_bytes()).hexdigest()
    except OSError:
        return None


def _git(*arguments: str) -> Optional[bytes]:
    try:
        done = subprocess.run(
            ["git", "-C", str(paths.repository()), *arguments], capture_output=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def code() -> tuple[Code, bytes]:
    """The code's version, and the diff of tracked files against it."""
    head = _git("rev-parse", "HEAD")
    diff = _git("diff", "HEAD", "--", "pipelines", "slurm", "envs") or b""
    return Code(head.decode().strip() if head else None, bool(diff)), diff


def host() -> str:
    """This node's name."""
    return socket.gethostname()


def command() -> list[str]:
    """The command line, as given."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


def scheduler_job() -> Optional[str]:
    """This process's Slurm job as Slurm writes it (`123_5` in an array), or None outside of Slurm."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    if array and task:
        return f"{array}_{task}"
    return os.environ.get("SLURM_JOB_ID")
