"""Fixtures of the environment tests: fresh copies of the repository, a bare process environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Dict, Iterator

import pytest
from fresh import KEPT, copy_repository

from pipelines.core.paths import repository
from slurm.envs import build, definition, index, places


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A temporary folder that every user can enter (pytest's own are private)."""
    folder = Path(tempfile.mkdtemp(prefix="voxarray-test-"))
    folder.chmod(0o755)
    yield folder
    subprocess.run(["chmod", "-R", "u+w", str(folder)], check=False)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def clone(public_folder: Path) -> Path:
    """The repository as a fresh clone of the working tree would be: tracked and new files, nothing ignored."""
    target = public_folder / "clone"
    copy_repository(target)
    return target


@pytest.fixture
def bare(public_folder: Path) -> Dict[str, str]:
    """The process environment of a fresh machine: a home, the system's PATH, what the network needs."""
    home = public_folder / "home"
    home.mkdir()
    kept = {key: value for key, value in os.environ.items() if key.startswith(KEPT)}
    return {**kept, "HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}


@pytest.fixture
def has_system_python(bare: Dict[str, str]) -> None:
    """Needs a Python on the bare PATH; one under a private home does not serve another user."""
    found = shutil.which("python3", path=bare["PATH"])
    if found is None:
        pytest.skip("this machine has no system-wide python3")


@pytest.fixture
def prefixes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder of prefixes, and no conda; removed at once, for an environment may have gigabytes."""
    monkeypatch.setenv(places.VARIABLE, str(tmp_path / "envs"))
    monkeypatch.setenv(build.TOOL_VARIABLE, "uv")
    yield tmp_path / "envs"
    shutil.rmtree(tmp_path / "envs", ignore_errors=True)


@pytest.fixture
def definitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `envs/` that a test may change."""
    copy = tmp_path / "definitions"
    shutil.copytree(repository() / "envs", copy, ignore=shutil.ignore_patterns(".prefix", ".tools"))
    for module in (definition, index):
        monkeypatch.setattr(module, "folder", lambda: copy)
    return copy
