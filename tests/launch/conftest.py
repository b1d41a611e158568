"""Every test of the launch gets a home of its own, the toy pipelines, and an environment that is this interpreter."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

FOREIGN = ("SLURM", "SBATCH", "SRUN", "SQUEUE", "SUBMITIT", "VOXARRAY", "TOY_", "CUDA")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A user's place: data, environments, no cluster; in this process and in those it starts."""
    from tests.launch.place import Place

    for name in list(os.environ):
        if name.startswith(FOREIGN):
            monkeypatch.delenv(name)
    environments = tmp_path / "envs"
    make_environment(environments / "vad")
    for name, value in {
        "VOXARRAY_HOME": tmp_path / "home",
        "VOXARRAY_ENVS": environments,
        "VOXARRAY_PIPELINES": REPOSITORY / "tests" / "toys",
        "VOXARRAY_HEARTBEAT_S": "0.2",
        "XDG_CONFIG_HOME": tmp_path / "config",
        "PYTHONPATH": REPOSITORY,
    }.items():
        monkeypatch.setenv(name, str(value))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    made = Place(tmp_path)
    yield made
    made.end()
    for name in ("pipelines", "slurm"):
        logging.getLogger(name).handlers = []  # each command line adds its own
        logging.getLogger(name).propagate = True


def make_environment(prefix):
    """A prefix that `slurm.environments` takes for ready: its Python is the one that runs the tests."""
    (prefix / "bin").mkdir(parents=True)
    python = prefix / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    lock = hashlib.sha256((REPOSITORY / "envs" / f"{prefix.name}.lock").read_bytes()).hexdigest()
    (prefix / ".voxarray-stamp").write_text(f"lock {lock}\npython {platform.python_version()}\ntool test\n")


@pytest.fixture
def cluster(place, monkeypatch):
    """The place, with a make-believe Slurm first on PATH (see fake_slurm.py)."""
    monkeypatch.setenv("FAKE_SLURM", str(place.root / "cluster"))
    monkeypatch.setenv("PATH", f"{place.fake_commands()}{os.pathsep}{os.environ['PATH']}")
    return place
