"""Packages of git repositories: installed where git reaches them, done without where it does not, tried again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fresh import SMALL, module_file

from pipelines.core.errors import UsageError
from slurm import environments
from slurm.envs import places, sources
from slurm.envs.definition import Definition, find

NOWHERE = "0" * 40


def git(folder: Path, *arguments: str) -> str:
    told = ["git", "-C", str(folder), "-c", "user.name=A", "-c", "user.email=a@b.c", *arguments]
    return subprocess.run(told, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with a package of two versions; the later one is broken."""
    folder = tmp_path / "upstream"
    (folder / "tiny_units").mkdir(parents=True)
    git(folder.parent, "init", "--quiet", str(folder))
    (folder / "tiny_units" / "__init__.py").write_text("answer = 42\n")
    (folder / "setup.py").write_text("from setuptools import setup\nsetup(name='tiny-units', version='1.0')\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    (folder / "setup.py").write_text("raise SystemExit('this cannot be built')\n")
    git(folder, "commit", "--quiet", "-a", "-m", "second")
    return folder


@pytest.fixture
def define(definitions: Path, prefixes: Path) -> None:
    """The lock of the environment that the tests make: setuptools, which builds the package."""
    pythons = "#: python {}.{}\n".format(*sys.version_info)
    (definitions / "small.txt").write_text(f"{pythons}setuptools<81\n")
    assert environments.main(["lock", "small"]) == 0


def asking(definitions: Path, *entries: str) -> Definition:
    text = definitions / "small.txt"
    kept = [line for line in text.read_text().splitlines() if not line.startswith("#: git")]
    text.write_text("\n".join([*kept, *(f"#: git {entry}" for entry in entries)]) + "\n")
    return find("small")


@pytest.mark.usefixtures("define", "prefixes")
def test_one_commit_is_installed(definitions: Path, repository: Path) -> None:
    first = git(repository, "rev-parse", "HEAD~1")
    asking(definitions, f"tiny-units={repository.as_uri()}@{first}")
    prefix = environments.ensure("small")
    assert places.read_stamp(prefix)["git"] == f"tiny-units@{first[:12]}"
    assert "lacking" not in places.read_stamp(prefix)
    assert module_file(prefix, "tiny_units") == prefix / "src" / "tiny-units" / "tiny_units" / "__init__.py"


@pytest.mark.usefixtures("define", "prefixes")
def test_what_cannot_be_had_is_said_and_tried_again(
    definitions: Path, repository: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first, broken = git(repository, "rev-parse", "HEAD~1"), git(repository, "rev-parse", "HEAD")
    hidden = tmp_path / "hidden"
    repository.rename(hidden)
    asking(definitions, f"tiny-units={repository.as_uri()}@{first}")
    assert environments.main(["create", "small"]) == 0
    said = capfd.readouterr().err
    assert said.count(f"tiny-units@{first[:12]} is not in it: git says") == 1
    assert "`./voxarray env create small` adds it" in said
    assert environments.main(["list", "small"]) == 0
    assert f"without tiny-units@{first[:12]}" in capfd.readouterr().out

    environments.ensure("small")
    assert capfd.readouterr().err == "", "a run never waits for a repository"

    hidden.rename(repository)
    assert environments.main(["create", "small"]) == 0
    prefix = environments.prefix("small")
    assert places.read_stamp(prefix)["git"] == f"tiny-units@{first[:12]}"
    assert "lacking" not in places.read_stamp(prefix)
    assert places.is_current(prefix, find("small"))

    capfd.readouterr()
    places.write_stamp(prefix, {**places.read_stamp(prefix), "lacking": "something"})
    asking(definitions, f"tiny-units={repository.as_uri()}@{NOWHERE}", f"tiny-units={repository.as_uri()}@{broken}")
    assert environments.main(["create", "small"]) == 0
    said = capfd.readouterr().err
    assert f"tiny-units@{NOWHERE[:12]} is not in it: git says" in said
    assert f"tiny-units@{broken[:12]} is not in it: its build ended" in said
    assert "git" not in places.read_stamp(prefix)


def test_no_git(repository: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    wanting = Definition(SMALL, "engine", (), (), git=(f"tiny-units={repository.as_uri()}@{NOWHERE}",))
    assert sources.complete(None, wanting, Path("/nonexistent")) == {"lacking": "tiny-units@000000000000"}
    assert "there is no git" in capfd.readouterr().err


def test_repository_that_does_not_answer(
    repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "git").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(sources, "_REACH_S", 0.2)
    wanting = Definition(SMALL, "engine", (), (), git=(f"tiny-units={repository.as_uri()}@{NOWHERE}",))
    assert sources.complete(None, wanting, tmp_path) == {"lacking": "tiny-units@000000000000"}
    assert "gave no answer" in capfd.readouterr().err


@pytest.mark.parametrize("entry", ["textless", "textless=https://host/x", "textless=https://host/x@main", "x=y@ab1"])
def test_only_whole_commits(entry: str) -> None:
    with pytest.raises(UsageError, match="40 digits"):
        sources.wanted(Definition("new", "new", ("3.9",), (), git=(entry,)))


def test_the_reference_names_both(definitions: Path) -> None:
    assert [source.name for source in sources.wanted(find("sts"))] == ["fairseq", "textless"]
