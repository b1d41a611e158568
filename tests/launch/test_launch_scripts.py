"""The plain script: where it finds the repository, the Python, and what it says when it does not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "slurm" / "vad.slurm"

ECHO = """#!/bin/sh
[ "$1" = -c ] && exit {modules}
echo "{name} $@ PYTHONPATH=$PYTHONPATH SAFE=$PYTHONSAFEPATH"
"""


def interpreter(path, name, has_modules=True):
    """A Python that tells what it was called with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(ECHO.format(name=name, modules=0 if has_modules else 1))
    path.chmod(0o755)


def stamp(prefix, lock=None):
    import hashlib

    digest = lock or hashlib.sha256((REPOSITORY / "envs" / "vad.lock").read_bytes()).hexdigest()
    (prefix / ".voxarray-stamp").write_text(f"lock {digest}\npython 3.11.7\n")


def call(script, *words, **environment):
    """The script as bash runs it; returns (exit status, output)."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "CONDA", "VIRTUAL_ENV"))
    }
    done = subprocess.run(
        ["bash", str(script), *words], capture_output=True, text=True, check=False, env={**kept, **environment}
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def bare(place, monkeypatch):
    """No environments, and a PATH with the system's programs but no Python."""
    monkeypatch.setenv("VOXARRAY_ENVS", str(place.root / "none"))
    folder = place.root / "tools"
    folder.mkdir()
    for name in ("bash", "sh", "sed", "head", "tr", "cat", "mkdir", "readlink", "hostname", "sha256sum", "tee", "env"):
        found = shutil.which(name)
        if found:
            (folder / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(folder))
    return place


def test_takes_the_environments_python(bare):
    prefix = bare.root / "envs" / "vad"
    interpreter(prefix / "bin" / "python", "environment")
    stamp(prefix)
    status, said = call(SCRIPT, "DIR", "STEM", VOXARRAY_ENVS=str(bare.root / "envs"))
    assert (status, said) == (0, f"environment -m pipelines.vad DIR STEM PYTHONPATH={REPOSITORY} SAFE=1\n")


def test_says_that_the_environment_is_old(bare):
    prefix = bare.root / "envs" / "vad"
    interpreter(prefix / "bin" / "python", "environment")
    stamp(prefix, "0" * 64)
    status, said = call(SCRIPT, "DIR", VOXARRAY_ENVS=str(bare.root / "envs"))
    assert status == 0
    assert "voxarray env create vad" in said
    assert "environment -m pipelines.vad DIR" in said


def test_half_made_environment_is_passed_over(bare):
    prefix = bare.root / "envs" / "vad"
    (prefix / ".voxarray-stamp").unlink()
    interpreter(prefix / "bin" / "python", "half-made")
    interpreter(bare.root / "conda" / "bin" / "python", "conda")
    settings = {"VOXARRAY_ENVS": str(bare.root / "envs"), "CONDA_PREFIX": str(bare.root / "conda")}
    assert call(SCRIPT, "DIR", **settings)[1].startswith("conda -m pipelines.vad DIR")


def test_folder_with_a_space_in_its_name(bare):
    prefix = bare.root / "my envs" / "vad"
    interpreter(prefix / "bin" / "python", "spaced")
    stamp(prefix)
    assert call(SCRIPT, "A DIR", VOXARRAY_ENVS=str(bare.root / "my envs"))[1].startswith(
        "spaced -m pipelines.vad A DIR"
    )


def test_falls_back_to_an_active_python_that_has_what_is_needed(bare):
    interpreter(bare.root / "conda" / "bin" / "python", "conda", has_modules=False)
    interpreter(bare.root / "venv" / "bin" / "python", "venv")
    settings = {"CONDA_PREFIX": str(bare.root / "conda"), "VIRTUAL_ENV": str(bare.root / "venv")}
    assert call(SCRIPT, "DIR", **settings)[1].startswith("venv -m pipelines.vad DIR")


def test_falls_back_to_the_python_on_path(bare):
    interpreter(bare.root / "tools" / "python3", "path")
    assert call(SCRIPT, "DIR")[1].startswith("path -m pipelines.vad DIR")


def test_no_python_is_one_paragraph(bare):
    status, said = call(SCRIPT, "DIR")
    assert status == 3
    assert said.count("\n") == 1
    assert f"{REPOSITORY}/voxarray env create vad" in said
    assert "numpy" in said


def test_real_question_about_modules(bare):
    """The Python of these tests has the engine's packages, and not one called like this."""
    (bare.root / "tools" / "python3").symlink_to(sys.executable)
    common = f"repository={REPOSITORY}; source {REPOSITORY}/slurm/common.sh; python={sys.executable}; "
    for name, expected in (("json", 0), ("json nothing_like_this", 1)):
        program = common + f"_modules() {{ echo {name}; }}; _has_modules vad"
        done = subprocess.run(["bash", "-c", program], check=False)
        assert done.returncode == expected


def copied(place):
    """The script as Slurm runs it: a copy somewhere else."""
    target = place.root / "spool" / "slurm_script"
    target.parent.mkdir()
    shutil.copy(SCRIPT, target)
    return target


def test_finds_the_repository_through_the_jobs_record(bare):
    interpreter(bare.root / "tools" / "python3", "path")
    scontrol = bare.root / "tools" / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "   Command={SCRIPT} DIR STEM"\necho "   Command=again"\n')
    scontrol.chmod(0o755)
    status, said = call(copied(bare), "DIR", SLURM_JOB_ID="5", SLURM_SUBMIT_DIR="/")
    assert (status, said.split()[0]) == (0, "path"), said


def test_finds_the_repository_where_it_was_submitted(bare):
    interpreter(bare.root / "tools" / "python3", "path")
    assert call(copied(bare), "DIR", SLURM_JOB_ID="5", SLURM_SUBMIT_DIR=str(REPOSITORY))[0] == 0


def test_finds_the_repository_by_its_variable(bare):
    interpreter(bare.root / "tools" / "python3", "path")
    assert call(copied(bare), "DIR", VOXARRAY_REPOSITORY=str(REPOSITORY), SLURM_SUBMIT_DIR="/")[0] == 0


def test_repository_that_is_not_found_is_said_where_it_can_be_read(bare):
    where = bare.root / "elsewhere"
    where.mkdir()
    status, said = call(copied(bare), "DIR", SLURM_JOB_ID="5", SLURM_SUBMIT_DIR=str(where))
    assert status == 3
    assert "VOXARRAY_REPOSITORY" in said
    assert "VOXARRAY_REPOSITORY" in (where / "slurm-5.out").read_text()


def test_log_is_opened_where_slurm_was_given_none(bare):
    interpreter(bare.root / "tools" / "python3", "path")
    environment = {**os.environ, "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}
    with Path(os.devnull).open("w") as nothing:
        subprocess.run(["bash", str(SCRIPT), "DIR"], env=environment, stdout=nothing, stderr=nothing, check=True)
    assert (bare.home / "logs" / "vad_12_3.out").read_text().startswith("path -m pipelines.vad DIR")


def test_output_that_was_asked_for_is_left_alone(bare):
    interpreter(bare.root / "tools" / "python3", "path")
    environment = {**os.environ, "SLURM_JOB_ID": "12"}
    with (bare.root / "mine.out").open("w") as mine:
        subprocess.run(["bash", str(SCRIPT), "DIR"], env=environment, stdout=mine, stderr=mine, check=True)
    assert "path -m pipelines.vad DIR" in (bare.root / "mine.out").read_text()
    assert not (bare.home / "logs").exists()


def test_what_the_script_asks_of_slurm():
    text = SCRIPT.read_text()
    for line in ("--signal=B:USR2@120", "--open-mode=append", "--requeue"):
        assert f"#SBATCH {line}\n" in text
