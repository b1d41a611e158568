"""Environments are really made, with uv, again after kills, and never over others' work."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict

import pytest
from fresh import SMALL, module_file

from pipelines.core.errors import EnvironmentNotFit
from pipelines.core.paths import repository
from slurm import environments
from slurm.envs import build, interpreters, places
from slurm.envs.definition import find, names

LARGE = ("asr", "lm", "sts", "test", "units")
"""Gigabytes each: `./voxarray test` has made them by the same way, and once is enough."""


@pytest.mark.parametrize("name", LARGE)
def test_large_environments_are_fit_as_they_were_made(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    if not environments.is_ready(name):
        pytest.skip(f"{name} is not made: `./voxarray env create {name}`")
    assert places.read_stamp(places.prefix(find(name)))["lock"] == environments.lock_digest(name)
    assert environments.main(["check", name]) == 0, capfd.readouterr().out


SMALL_ONES = [name for name in names() if name not in (*LARGE, "engine")]


@pytest.mark.parametrize("name", [*SMALL_ONES, "engine-3.9", "engine-3.13"])
def test_every_environment_is_made_and_fit(name: str, prefixes: Path, capfd: pytest.CaptureFixture[str]) -> None:
    definition = find(name)
    if interpreters.find(definition.pythons) is None:
        pytest.skip(f"this machine has no Python {' or '.join(definition.pythons)}")
    assert not environments.is_ready(name)
    assert environments.ensure(name) == prefixes / name
    assert environments.is_ready(name)
    assert environments.python(name) == prefixes / name / "bin" / "python"
    stamp = places.read_stamp(prefixes / name)
    assert stamp["lock"] == environments.lock_digest(name)
    assert environments.main(["check", name]) == 0, capfd.readouterr().out
    capfd.readouterr()
    environments.ensure(name)
    assert capfd.readouterr() == ("", ""), "nothing is done for one that is ready"


def test_lists_and_checks(prefixes: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert environments.main(["check", SMALL]) == 3
    assert f"./voxarray env create {SMALL}" in capfd.readouterr().out
    assert environments.main(["create", SMALL]) == 0
    assert environments.main([]) == 0
    listed = capfd.readouterr().out
    assert f"{SMALL:12} ready" in listed
    for name in names():
        assert f"{name} " in listed
    assert environments.main(["create"]) == 2
    assert environments.main(["create", "nothing"]) == 2
    assert environments.main(["check"]) == 0
    shutil.rmtree(next((prefixes / SMALL).glob("lib/python3*/site-packages/msgspec")))
    assert environments.main(["check", SMALL]) == 3
    assert "NOT FIT: import msgspec" in capfd.readouterr().out


def test_new_lock_brings_it_up_to_date(prefixes: Path, definitions: Path) -> None:
    prefix = environments.ensure(SMALL)
    lock = definitions / "engine.lock"
    entries = re.split(r"^(?=[A-Za-z0-9])", lock.read_text(), flags=re.MULTILINE)
    lock.write_text("".join(entry for entry in entries if not entry.startswith("hypothesis")))
    assert not environments.is_ready(SMALL)
    inode = (prefix / "bin").stat().st_ino
    environments.ensure(SMALL)
    assert environments.is_ready(SMALL)
    assert (prefix / "bin").stat().st_ino == inode, "brought up to date where it stands, not made anew"
    assert not list(prefix.glob("lib/python3*/site-packages/hypothesis"))
    assert module_file(prefix, "msgspec").is_relative_to(prefix)


def test_other_python_makes_it_anew(prefixes: Path, definitions: Path) -> None:
    """A finished environment whose Python is no longer accepted is replaced, not built upon."""
    pythons = [version for version in ("3.9", "3.13", "3.12", "3.10") if interpreters.find([version])]
    if not pythons:
        pytest.skip("this machine has one Python")
    text = definitions / "engine.txt"
    environments.ensure("engine")
    text.write_text(text.read_text().replace("#: python 3.11 3.12 3.13 3.10 3.14 3.9", f"#: python {pythons[0]}"))
    assert not environments.is_ready("engine")
    environments.ensure("engine")
    assert places.read_stamp(prefixes / "engine")["python"].startswith(pythons[0])


def test_no_lock_no_environment(prefixes: Path, definitions: Path) -> None:
    (definitions / "engine.lock").unlink()
    with pytest.raises(EnvironmentNotFit, match=r"env lock engine"):
        environments.ensure("engine")
    assert environments.lock_digest("engine") is None


def test_no_python_says_what_to_do(
    prefixes: Path, definitions: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    text = definitions / "engine.txt"
    text.write_text(text.read_text().replace("#: python 3.11 3.12 3.13 3.10 3.14 3.9", "#: python 3.1"))
    monkeypatch.setenv("UV_OFFLINE", "1")
    assert environments.main(["create", "engine"]) == 3
    said = capfd.readouterr().err
    assert "needs Python 3.1" in said
    assert "VOXARRAY_PYTHON" in said
    assert "./voxarray env create engine" in said


def test_what_is_not_ours_is_left_alone(prefixes: Path) -> None:
    (prefixes / SMALL).mkdir(parents=True)
    (prefixes / SMALL / "thesis.txt").write_text("three years of work")
    with pytest.raises(EnvironmentNotFit, match="will not touch it"):
        environments.ensure(SMALL)
    assert (prefixes / SMALL / "thesis.txt").read_text() == "three years of work"


def create_apart(prefixes: Path, extra: Dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "slurm.environments", "create", SMALL]
    env = {**os.environ, "PYTHONPATH": str(repository()), places.VARIABLE: str(prefixes), **extra}
    return subprocess.Popen(
        command, env=env, cwd=repository(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def test_killed_at_any_moment_it_resumes(prefixes: Path) -> None:
    """Ten kills, spread over the two seconds that it takes; then it is made, whole and fit."""
    moments = random.Random(20_261_121)
    killed = 0
    for _ in range(10):
        process = create_apart(prefixes, {build.TOOL_VARIABLE: "uv"})
        time.sleep(moments.uniform(0.1, 1.6))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        process.communicate()
        if environments.is_ready(SMALL):
            assert environments.main(["check", SMALL]) == 0
            shutil.rmtree(prefixes / SMALL)
    assert killed >= 5, "this machine is so quick that the kills came late"
    environments.ensure(SMALL)
    assert environments.main(["check", SMALL]) == 0
    assert not list(prefixes.glob(".*.building"))


def test_two_makers_at_once(prefixes: Path) -> None:
    running = [create_apart(prefixes, {build.TOOL_VARIABLE: "uv"}) for _ in range(3)]
    said = [process.communicate()[1].decode() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], said
    assert sum("voxarray: making environment" in text for text in said) == 1
    assert environments.main(["check", SMALL]) == 0
