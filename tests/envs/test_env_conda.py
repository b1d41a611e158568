"""conda, mamba and micromamba, played by a stand-in: what they are asked, and what becomes of their failures."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import List

import pytest
from fresh import SMALL, module_file, real_python

from slurm import environments
from slurm.envs import build, conda, places

MICROMAMBA = """#!{python}
import json, os, subprocess, sys
with open({record!r}, "a") as file:
    file.write(json.dumps(sys.argv) + "\\n")
prefix = sys.argv[sys.argv.index("--prefix") + 1]
if os.path.exists(prefix):
    sys.exit("Non-conda folder exists at prefix")
if {broken}:
    os.makedirs(prefix + "/conda-meta")
    sys.exit(1)
subprocess.run([{python!r}, "-m", "venv", "--without-pip", prefix], check=True)
os.makedirs(prefix + "/conda-meta")
"""


def stand_in(folder: Path, name: str, broken: bool = False) -> Path:
    """An executable called `name` that is called as conda is, writes down how, and makes an environment."""
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(MICROMAMBA.format(python=str(real_python()), record=str(folder / "record"), broken=broken))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def asked(folder: Path) -> List[List[str]]:
    return [json.loads(line) for line in (folder / "record").read_text().splitlines()]


@pytest.fixture
def with_conda(prefixes: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv(build.TOOL_VARIABLE)
    monkeypatch.delenv("CONDA_EXE", raising=False)
    monkeypatch.delenv("MAMBA_EXE", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}/conda:/usr/bin:/bin")
    return tmp_path / "conda"


def test_conda_makes_the_prefix_and_uv_fills_it(with_conda: Path, prefixes: Path) -> None:
    stand_in(with_conda, "micromamba")
    prefix = environments.ensure("vad")
    (call,) = asked(with_conda)
    assert call[1:5] == ["create", "--yes", "--prefix", str(prefix)]
    assert call[5:8] == ["--override-channels", "--channel", "conda-forge"]
    assert call[8:] == ["python=3.11", "libsndfile>=1.2", "ffmpeg>=5", "libcxx>=14"]
    assert (prefix / "conda-meta").is_dir()
    assert places.read_stamp(prefix)["tool"] == "micromamba"
    assert module_file(prefix, "soundfile").is_relative_to(prefix)
    environments.ensure("vad")
    assert len(asked(with_conda)) == 1


def test_one_python_of_an_environment_with_conda(with_conda: Path, prefixes: Path) -> None:
    stand_in(with_conda, "mamba")
    environments.ensure(SMALL)
    assert asked(with_conda)[0][8:] == ["python={}.{}".format(*sys.version_info)]


def test_conda_that_fails_gives_way_to_uv(with_conda: Path, prefixes: Path, capfd: pytest.CaptureFixture[str]) -> None:
    stand_in(with_conda, "conda", broken=True)
    prefix = environments.ensure(SMALL)
    assert "conda could not make it" in capfd.readouterr().err
    assert places.read_stamp(prefix)["tool"] == "uv"
    assert not (prefix / "conda-meta").exists()
    assert environments.main(["check", SMALL]) == 0


def test_conda_killed_half_way_begins_anew(with_conda: Path, prefixes: Path) -> None:
    stand_in(with_conda, "micromamba")
    (prefixes / SMALL / "conda-meta").mkdir(parents=True)
    (prefixes / f".{SMALL}.building").touch()
    environments.ensure(SMALL)
    assert places.read_stamp(prefixes / SMALL)["tool"] == "micromamba"


def test_which_conda(with_conda: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if conda.find() is not None:
        pytest.skip("this machine has a conda in /usr/bin")
    hidden = stand_in(tmp_path / "hidden", "conda")
    monkeypatch.setenv("CONDA_EXE", str(hidden))
    assert conda.find() == hidden, "conda is often a shell function, and its program only in $CONDA_EXE"
    for name in ("conda", "mamba", "micromamba"):
        assert conda.find() != (with_conda / name)
        stand_in(with_conda, name)
        assert conda.find() == with_conda / name
