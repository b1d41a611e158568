"""Requirements, conda files and locks say the same; every spec is one that a real conda solver takes."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from pathlib import Path
from typing import Dict, List, Set, Tuple

import pytest
import rattler

from pipelines.core.errors import UsageError
from pipelines.core.paths import repository
from slurm.envs import conda, torch
from slurm.envs.definition import Definition, file_digest, find, locked_pins, names, requirement_name

ALL = names()


def entries(lock: Path) -> List[str]:
    """The pins of a lock, each with its hashes."""
    return [entry for entry in re.split(r"^(?=[A-Za-z0-9])", lock.read_text(), flags=re.MULTILINE) if "==" in entry]


def test_every_environment_has_its_three_files() -> None:
    assert {"engine", "launcher", "sts", "test", "units", "vad"} <= set(ALL)
    for name in ALL:
        assert find(name).lock.is_file()
        assert find(name).conda.is_file()


@pytest.mark.parametrize("name", ALL)
def test_lock_has_every_direct_requirement_with_hashes(name: str) -> None:
    definition = find(name)
    locked = {package for package, _ in locked_pins(definition.lock)}
    assert {requirement_name(line) for line in definition.requirements} <= locked
    for entry in entries(definition.lock):
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry


@pytest.mark.parametrize("name", ALL)
def test_lock_is_nobodys_own(name: str) -> None:
    """No local version, no path, no index: what one machine has must not be frozen for all."""
    definition = find(name)
    for lock in (definition.lock, definition.cuda_lock) if definition.torch else (definition.lock,):
        text = lock.read_text()
        assert not re.search(r"==[^\s;]*\+", text), "a local version such as +cpu"
        assert not re.search(r"(?m)^(--|\S*file:|\S*https?:| *--(?!hash=))", text)
        assert "://" not in text


@pytest.mark.parametrize("name", [name for name in ALL if find(name).torch])
def test_torch_has_a_lock_of_its_own(name: str) -> None:
    """And its digest is part of the other's, by which an environment is known to be current."""
    definition = find(name)
    layer = {package for package, _ in locked_pins(definition.cuda_lock)}
    assert {requirement_name(line) for line in definition.torch} <= layer
    assert all(map(torch.is_layer, layer))
    assert not [package for package, _ in locked_pins(definition.lock) if torch.is_layer(package)]
    assert f"SHA-256 {file_digest(definition.cuda_lock)}\n" in definition.lock.read_text()


@pytest.mark.parametrize("name", ALL)
def test_lock_leaves_out_what_it_should(name: str) -> None:
    definition = find(name)
    assert not {package for package, _ in locked_pins(definition.lock)} & set(definition.without)


def test_no_torch_where_only_weights_are_needed() -> None:
    heavy = re.compile(r"torch|nvidia|triton|cuda")
    assert not [package for package, _ in locked_pins(find("vad").lock) if heavy.search(package)]


def test_what_is_tested_is_what_is_used() -> None:
    """The test environment has the versions of the environments that it stands for."""
    test = find("test")
    for python in test.pythons:
        tested = chosen_pins(test, python)
        for name in test.includes:
            assert chosen_pins(find(name), python) <= tested, (name, python)


def chosen_pins(definition: Definition, python: str) -> Set[Tuple[str, str]]:
    """Names and versions that a lock and its torch layer give to one Python on Linux."""
    from packaging.requirements import Requirement

    locks = (definition.lock, definition.cuda_lock) if definition.torch else (definition.lock,)
    pins = [Requirement(re.split(r"\s*\\", entry)[0]) for lock in locks for entry in entries(lock)]
    where = {"python_version": python, "python_full_version": f"{python}.5", "sys_platform": "linux"}
    return {(pin.name, str(pin.specifier)) for pin in pins if pin.marker is None or pin.marker.evaluate(where)}


@pytest.mark.parametrize("name", ALL)
def test_lock_answers_its_requirements(name: str, tmp_path: Path) -> None:
    """Every direct requirement has, for every accepted Python, exactly one pin that meets it."""
    from packaging.requirements import Requirement

    definition = find(name)
    pins = [Requirement(re.split(r"\s*\\", entry)[0]) for entry in entries(definition.lock)]
    for python in definition.pythons:
        environment = {"python_version": python, "python_full_version": f"{python}.5", "sys_platform": "linux"}
        for line in definition.requirements:
            wanted = Requirement(line)
            if wanted.marker and not wanted.marker.evaluate(environment):
                continue
            chosen = [
                pin
                for pin in pins
                if requirement_name(pin.name) == requirement_name(wanted.name)
                and (pin.marker is None or pin.marker.evaluate(environment))
            ]
            assert len(chosen) == 1, (python, line, chosen)
            assert wanted.specifier.contains(str(chosen[0].specifier).lstrip("=")), (python, line)


@pytest.mark.parametrize("name", ALL)
def test_conda_file_names_the_same_requirements(name: str) -> None:
    definition = find(name)
    assert sorted(conda.read(definition.conda)["pip"]) == sorted([*definition.requirements, *definition.torch])
    assert f"python={definition.pythons[0]}" in conda.read(definition.conda)["dependencies"]
    for included in definition.includes:
        assert set(conda.specifications(find(included))) <= set(conda.specifications(definition))


@pytest.mark.parametrize("name", ALL)
def test_conda_specs_are_valid(name: str) -> None:
    for spec in conda.specifications(find(name)):
        rattler.MatchSpec(spec, strict=True)
    for channel in conda.read(find(name).conda)["channels"]:
        assert rattler.Channel(channel).name == channel


@pytest.mark.parametrize("bad", ["python=>3", "ffmpeg>=5 ===", "libcxx>=14,,<x", ">=3"])
def test_the_solver_rejects_bad_specs(bad: str) -> None:
    with pytest.raises(Exception, match=r".+"):
        rattler.MatchSpec(bad, strict=True)


CHANNEL = {
    "python": ["3.9.18", "3.10.13", "3.11.7", "3.12.1", "3.13.0"],
    "pip": ["24.0"],
    "libsndfile": ["1.0.31", "1.2.2"],
    "ffmpeg": ["4.4.2", "6.1.1", "7.1"],
    "libcxx": ["12.0.1", "14.0.6", "19.1"],
    "cxx-compiler": ["1.5.2", "1.9.0"],
    "git": ["2.43.0"],
}


def make_channel(folder: Path, packages: Dict[str, List[str]]) -> Path:
    """A conda channel on disk: what a solver reads of it."""
    records = {
        f"{name}-{version}-0.conda": {
            "name": name,
            "version": version,
            "build": "0",
            "build_number": 0,
            "depends": [],
            "subdir": "linux-64",
            "md5": "0" * 32,
            "sha256": "0" * 64,
            "size": 1,
        }
        for name, versions in packages.items()
        for version in versions
    }
    for subdir, held in (("linux-64", records), ("noarch", {})):
        (folder / subdir).mkdir(parents=True)
        data = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": held, "repodata_version": 1}
        (folder / subdir / "repodata.json").write_text(json.dumps(data))
    return folder


def solve(channel: Path, specs: List[str]) -> Dict[str, str]:
    async def ask() -> List[Tuple[str, str]]:
        found = await rattler.solve(
            sources=[rattler.Channel(str(channel))],
            specs=[rattler.MatchSpec(spec) for spec in specs],
            platforms=["linux-64", "noarch"],
        )
        return [(record.name.normalized, str(record.version)) for record in found]

    return dict(asyncio.run(ask()))


@pytest.mark.parametrize("name", ALL)
def test_conda_files_can_be_solved(name: str, tmp_path: Path) -> None:
    solved = solve(make_channel(tmp_path, CHANNEL), conda.specifications(find(name)))
    assert solved["python"].startswith(f"{find(name).pythons[0]}.")
    assert solved.get("ffmpeg", "7.1") == "7.1"


def test_one_python_of_an_environment(tmp_path: Path) -> None:
    definition = find("engine-3.9")
    assert (definition.base, definition.pythons, definition.lock) == ("engine", ("3.9",), find("engine").lock)
    assert solve(make_channel(tmp_path, CHANNEL), conda.specifications(definition))["python"] == "3.9.18"


def test_the_solver_finds_what_cannot_be(tmp_path: Path) -> None:
    channel = make_channel(tmp_path, {**CHANNEL, "ffmpeg": ["4.4.2"]})
    with pytest.raises(Exception, match="ffmpeg"):
        solve(channel, conda.specifications(find("vad")))


def test_conda_reader_refuses_what_it_would_misread(tmp_path: Path) -> None:
    file = tmp_path / "odd.yml"
    file.write_text("channels:\n  - conda-forge\nvariables:\n  - x=1\n")
    with pytest.raises(UsageError, match=r"odd\.yml, line 4"):
        conda.read(file)


@pytest.mark.parametrize("name", ["nothing", "engine-3.8", "nothing-3.11"])
def test_unknown_environments_are_named(name: str) -> None:
    with pytest.raises(UsageError, match=r"engine"):
        find(name)


def test_digest_is_what_a_plan_records() -> None:
    from pipelines.core.provenance import lock_digest as recorded
    from slurm.environments import lock_digest

    for name in ALL:
        assert lock_digest(name) == recorded(name)
    assert len(str(lock_digest("vad"))) == 64


def test_bootstrap_needs_the_standard_library_alone(tmp_path: Path) -> None:
    """It runs before anything is installed: with the bare interpreter, isolated, from elsewhere."""
    from fresh import real_python

    program = "import sys; sys.path.insert(0, sys.argv[1]); import slurm.envs.bootstrap, slurm.testing"
    command = [str(real_python()), "-I", "-S", "-c", program, str(repository())]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def definition_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Definition:
    from slurm.envs import definition

    (tmp_path / "new.txt").write_text(text)
    monkeypatch.setattr(definition, "folder", lambda: tmp_path)
    return find("new")


def test_requirements_file_with_an_unknown_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="pyhton"):
        definition_of(tmp_path, monkeypatch, "#: pyhton 3.11\nnumpy\n")


def test_one_leaves_out_what_another_asks_for() -> None:
    """torch is not for voice activity detection, but for units: the environment of both has it, without torchaudio."""
    assert "torch" in find("vad").without
    assert find("test").torch == find("units").torch
    assert find("test").without == ("torchaudio", "torchcodec")


def test_lock_for_one_python_alone() -> None:
    """What an old Python cannot have is not in it, and what a newer one would have neither."""
    for lock in (find("sts").lock, find("sts").cuda_lock):
        assert all(re.match(r"[^;]+; python_full_version < '3\.10'", entry) for entry in entries(lock))
        packages = [package for package, _ in locked_pins(lock)]
        assert len(packages) == len(set(packages))


def test_requirements_for_one_python_alone() -> None:
    from slurm.envs.locking import _bounded

    lines = ["numpy>=1.22", "tomli>=2; python_version < '3.11'"]
    assert _bounded(lines, ["3.10", "3.11"]) == lines
    assert _bounded(lines, ["3.9"]) == [
        "numpy>=1.22; python_version < '3.10'",
        "tomli>=2; (python_version < '3.11') and python_version < '3.10'",
    ]
