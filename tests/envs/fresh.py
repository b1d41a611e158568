"""Helpers of the environment tests: copies of the repository, an ordinary user, running a command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, Sequence

import pytest

from pipelines.core.paths import repository

SMALL = "engine-{}.{}".format(*sys.version_info)
"""An environment that is made in two seconds, with the Python that is surely here."""

NOBODY = 65534
"""User and group id of the account without privileges."""

KEPT = ("PIP_", "SSL_", "REQUESTS_CA", "CURL_CA", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy")
"""What a stranger's shell has to have where the network needs it; everything else is left out."""


def is_root() -> bool:
    return os.geteuid() == 0


def real_python() -> Path:
    """The interpreter that the test environment was made with."""
    return Path(getattr(sys, "_base_executable", "") or sys.executable)


def copy_repository(target: Path) -> None:
    listed = subprocess.run(
        ["git", "-C", str(repository()), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
        text=True,
    )
    for name in listed.stdout.split("\0"):
        source = repository() / name
        if name and source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)


def as_ordinary_user(command: Sequence[str]) -> List[str]:
    """The command under an account without privileges; unchanged when the tests run under such a one."""
    if not is_root():
        return list(command)
    if shutil.which("setpriv") is None:
        pytest.skip("root without setpriv cannot become an ordinary user")
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command]


def give_to_ordinary_user(folder: Path) -> None:
    if is_root():
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", str(folder)], check=True)


def run(command: Sequence[object], env: Dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, its output captured; the longest takes some 20 seconds."""
    return subprocess.run(
        list(map(str, command)),
        env=env,
        cwd=cwd,
        timeout=240,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def module_file(prefix: Path, module: str) -> Path:
    """Where the environment's Python finds a module."""
    question = f"import {module}; print({module}.__file__)"
    command = [str(prefix / "bin" / "python"), "-I", "-c", question]
    return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
