"""The command `./voxarray` on a fresh machine: first use, every way of calling it, kills, other users."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Dict, List

import pytest
from fresh import as_ordinary_user, give_to_ordinary_user, is_root, real_python, run

from slurm.envs import interpreters

LIST = ["env", "list"]


def launcher_line(stdout: str) -> str:
    return next(line for line in stdout.splitlines() if line.startswith("launcher "))


def test_first_use_makes_it_and_the_next_finds_it(clone: Path, bare: Dict[str, str]) -> None:
    first = run([clone / "voxarray", *LIST], bare, clone)
    assert first.returncode == 0, first.stderr
    assert f"in {clone}/envs/.prefix/launcher" in first.stderr
    assert "ready" in launcher_line(first.stdout)
    second = run([clone / "voxarray", *LIST], bare, clone)
    assert (second.returncode, second.stderr) == (0, "")


def test_from_anywhere_through_symlinks(clone: Path, bare: Dict[str, str], public_folder: Path) -> None:
    elsewhere = public_folder / "else where"
    elsewhere.mkdir()
    (public_folder / "bin").mkdir()
    (public_folder / "bin" / "absolute").symlink_to(clone / "voxarray")
    (public_folder / "bin" / "relative").symlink_to("../bin/absolute")
    (public_folder / "folder").symlink_to(clone)
    ways = (
        [public_folder / "bin" / "relative"],
        ["../bin/relative"],
        ["../folder/voxarray"],
        ["bash", "../clone/voxarray"],
        ["relative"],
    )
    for way in ways:
        env = {**bare, "PATH": f"{public_folder}/bin:{bare['PATH']}", "CDPATH": str(public_folder)}
        done = run([*way, *LIST], env, elsewhere)
        assert done.returncode == 0, (way, done.stderr)
        assert f"{clone}/envs/.prefix/launcher" in launcher_line(done.stdout)
    inside = run(["bash", "voxarray", *LIST], bare, clone)
    assert inside.returncode == 0, inside.stderr
    assert list(elsewhere.iterdir()) == []


def test_nothing_of_the_users_gets_in_the_way(clone: Path, bare: Dict[str, str], public_folder: Path) -> None:
    """A `slurm` package or a broken module where the user stands, and the PYTHON* variables of a module system."""
    trap = public_folder / "trap"
    for module in ("slurm/__init__.py", "pipelines/__init__.py", "msgspec.py", "argparse.py", "runpy.py"):
        (trap / module).parent.mkdir(parents=True, exist_ok=True)
        (trap / module).write_text("raise SystemExit('the wrong module')\n")
    env = {**bare, "PYTHONPATH": str(trap), "PYTHONSTARTUP": str(trap / "runpy.py"), "PYTHONHOME": "/nonexistent"}
    done = run([clone / "voxarray", *LIST], env, trap)
    assert done.returncode == 0, done.stderr
    assert "ready" in launcher_line(done.stdout)


def test_works_without_ensurepip_and_pip(clone: Path, bare: Dict[str, str], public_folder: Path) -> None:
    python = stripped_python(public_folder / "stripped")
    for missing in ("ensurepip", "pip"):
        assert run([python, "-c", f"import {missing}"], bare, clone).returncode != 0
    assert run([python, "-m", "venv", public_folder / "v"], bare, clone).returncode != 0
    done = run([clone / "voxarray", *LIST], {**bare, "VOXARRAY_PYTHON": str(python)}, clone)
    assert done.returncode == 0, done.stderr
    assert "ready" in launcher_line(done.stdout)
    made_from = (clone / "envs/.prefix/launcher/bin/python").resolve().parent
    assert made_from == python.parent.resolve()


def stripped_python(folder: Path) -> Path:
    """A Python whose library has neither ensurepip nor pip, as some distributions install it: the real one's files."""
    question = "import sysconfig, sys; print(sysconfig.get_path('stdlib')); print(sys.version_info[1])"
    answer = subprocess.run([str(real_python()), "-c", question], capture_output=True, text=True, check=True)
    library, minor = answer.stdout.split()
    name = f"python3.{minor}"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / name).write_bytes(real_python().resolve().read_bytes())
    (folder / "bin" / name).chmod(0o755)
    target = folder / "lib" / name
    target.mkdir(parents=True)
    for entry in Path(library).iterdir():
        if entry.name not in ("ensurepip", "site-packages", "dist-packages"):
            (target / entry.name).symlink_to(entry)
    return folder / "bin" / name


def test_pythons_that_do_not_serve_are_passed_over(clone: Path, bare: Dict[str, str], public_folder: Path) -> None:
    shims = public_folder / "shims"
    shims.mkdir()
    for name, script in (("python3", "echo 'pyenv: python3: command not found' >&2; exit 127"), ("python", "exit 1")):
        (shims / name).write_text(f"#!/bin/sh\n{script}\n")
        (shims / name).chmod(0o755)
    (shims / "python3.11").symlink_to(real_python())
    done = run([clone / "voxarray", *LIST], {**bare, "PATH": f"{shims}:{bare['PATH']}"}, clone)
    assert done.returncode == 0, done.stderr
    unusable = {**bare, "VOXARRAY_ENVS": "no/envs", "VOXARRAY_PYTHON": "/bin/false"}
    named = run([clone / "voxarray", *LIST], unusable, clone)
    assert named.returncode == 3
    assert "no Python >= 3.9" in named.stderr
    assert "VOXARRAY_PYTHON" in named.stderr


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.13", "3.14"])
def test_any_python_from_3_9(clone: Path, bare: Dict[str, str], version: str) -> None:
    found = interpreters.find([version])
    if found is None:
        pytest.skip(f"this machine has no Python {version}")
    env = {**bare, "VOXARRAY_PYTHON": str(found[1])}
    done = run([clone / "voxarray", *LIST], env, clone)
    assert done.returncode == 0, done.stderr
    assert f"ready, Python {version}." in launcher_line(done.stdout)
    assert run([clone / "voxarray", "--help"], env, clone).returncode == 0


def test_concurrent_first_use(clone: Path, bare: Dict[str, str]) -> None:
    running = [
        subprocess.Popen(
            [str(clone / "voxarray"), *LIST],
            env=bare,
            cwd=clone,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    answers = [process.communicate(timeout=240) for process in running]
    assert [process.returncode for process in running] == [0] * 4, answers
    assert sum("making the command's own environment" in stderr for _, stderr in answers) == 1
    assert leftovers(clone) == []


def leftovers(clone: Path) -> List[str]:
    return sorted(path.name for path in (clone / "envs/.prefix").iterdir() if path.suffix in (".tmp", ".old"))


@pytest.mark.parametrize("delay", [0.05, 0.3, 0.8])
def test_killed_first_use_resumes(clone: Path, bare: Dict[str, str], delay: float) -> None:
    process = subprocess.Popen(
        [str(clone / "voxarray"), *LIST],
        env=bare,
        cwd=clone,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not list((clone / "envs").glob(".prefix/.launcher.*.tmp")) and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (clone / "envs/.prefix/launcher").exists(), "killed too late to mean anything"
    assert leftovers(clone)
    done = run([clone / "voxarray", *LIST], bare, clone)
    assert done.returncode == 0, done.stderr
    assert leftovers(clone) == []


def test_changed_lock_makes_it_anew(clone: Path, bare: Dict[str, str]) -> None:
    assert run([clone / "voxarray", *LIST], bare, clone).returncode == 0
    lock = clone / "envs/launcher.lock"
    lock.write_text(lock.read_text() + "# one more line\n")
    again = run([clone / "voxarray", *LIST], bare, clone)
    assert again.returncode == 0, again.stderr
    assert "making the command's own environment" in again.stderr
    assert "ready" in launcher_line(again.stdout)
    assert leftovers(clone) == []
    assert run([clone / "voxarray", *LIST], bare, clone).stderr == ""


@pytest.mark.usefixtures("has_system_python")
def test_ordinary_user(clone: Path, bare: Dict[str, str]) -> None:
    give_to_ordinary_user(clone)
    give_to_ordinary_user(Path(bare["HOME"]))
    done = run(as_ordinary_user([clone / "voxarray", *LIST]), bare, Path("/"))
    assert done.returncode == 0, done.stderr
    assert f"{clone}/envs/.prefix/launcher" in launcher_line(done.stdout)


@pytest.mark.usefixtures("has_system_python")
def test_ordinary_user_makes_a_pipeline_environment(clone: Path, bare: Dict[str, str]) -> None:
    give_to_ordinary_user(clone)
    give_to_ordinary_user(Path(bare["HOME"]))
    bare["VOXARRAY_ENV_TOOL"] = "uv"
    done = run(as_ordinary_user([clone / "voxarray", "env", "create", "vad"]), bare, Path("/"))
    assert done.returncode == 0, done.stderr
    checked = run(as_ordinary_user([clone / "voxarray", "env", "check", "vad"]), bare, Path("/"))
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.usefixtures("has_system_python")
def test_repository_that_cannot_be_written_to(clone: Path, bare: Dict[str, str]) -> None:
    give_to_ordinary_user(Path(bare["HOME"]))
    if not is_root():
        subprocess.run(["chmod", "-R", "a-w", str(clone)], check=True)
    done = run(as_ordinary_user([clone / "voxarray", *LIST]), bare, Path("/"))
    assert done.returncode == 0, done.stderr
    assert f"{bare['HOME']}/.cache/voxarray/" in launcher_line(done.stdout)
    again = run(as_ordinary_user([clone / "voxarray", *LIST]), bare, Path("/"))
    assert (again.returncode, again.stderr) == (0, "")
    homeless = run(as_ordinary_user([clone / "voxarray", *LIST]), {**bare, "HOME": "/nonexistent"}, Path("/"))
    assert homeless.returncode == 3
    assert "VOXARRAY_ENVS" in homeless.stderr


@pytest.mark.usefixtures("has_system_python")
def test_another_user_shares_what_the_owner_made(clone: Path, bare: Dict[str, str]) -> None:
    if not is_root():
        pytest.skip("needs root to be two users")
    give_to_ordinary_user(Path(bare["HOME"]))
    assert run([clone / "voxarray", *LIST], bare, clone).returncode == 0
    done = run(as_ordinary_user([clone / "voxarray", *LIST]), bare, Path("/"))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{clone}/envs/.prefix/launcher" in launcher_line(done.stdout)


def test_no_package_index_is_one_clear_paragraph(clone: Path, bare: Dict[str, str]) -> None:
    env = {**bare, "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}
    done = run([clone / "voxarray", *LIST], env, clone)
    assert done.returncode == 3
    assert "PIP_INDEX_URL" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (clone / "envs/.prefix/launcher").exists()
