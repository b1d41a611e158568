"""What differs by machine: the build of torch, and shared libraries that the system lacks."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from fresh import SMALL

from slurm import environments
from slurm.envs import build, libraries, places, torch
from slurm.envs.definition import Definition, find
from slurm.envs.uv import Uv

IN_CI = bool(os.environ.get("CI"))

# -- the torch layer, with wheels and a driver of our own


def wheel(folder: Path, version: str) -> None:
    """A package called torch that says which build it is."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"torch-{version}.dist-info"
    files = {
        "torch.py": f"__version__ = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(folder / f"torch-{version}-py3-none-any.whl", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
        archive.writestr(f"{info}/RECORD", record)


@pytest.fixture
def with_torch(prefixes: Path, definitions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Definition:
    """An environment with a torch layer; its index is a folder, which is where only the CUDA build is."""
    wheel(tmp_path / "index", "9.9.0")
    built = next((tmp_path / "index").glob("*.whl"))
    (definitions / "net.txt").write_text("#: python {}.{}\n#: torch torch==9.9.0\n".format(*sys.version_info))
    (definitions / "net.lock").write_text("# nothing\n")
    digest = hashlib.sha256(built.read_bytes()).hexdigest()
    (definitions / "net.cuda.lock").write_text(f"torch==9.9.0 --hash=sha256:{digest}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    simple = tmp_path / "simple" / "torch"
    simple.mkdir(parents=True)
    shutil.copy(built, simple)
    (simple / "index.html").write_text(f'<a href="{built.name}#sha256={digest}">{built.name}</a>\n')
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "simple").as_uri())
    monkeypatch.setenv("UV_OFFLINE", "1")
    return find("net")


def torch_version(prefix: Path) -> str:
    question = [str(places.python(prefix)), "-I", "-c", "import torch; print(torch.__version__)"]
    return subprocess.run(question, capture_output=True, text=True, check=True).stdout.strip()


def test_cuda_build_with_a_driver(with_torch: Definition, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "9.9.0+cpu")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv(torch.VARIABLE, "cuda")
    prefix = build.create(with_torch)
    assert (torch_version(prefix), places.read_stamp(prefix)["torch"]) == ("9.9.0", "cuda")


def test_cpu_wheel_at_hand(with_torch: Definition, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "9.9.0+cpu")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv(torch.VARIABLE, "cpu")
    prefix = build.create(with_torch)
    assert (torch_version(prefix), places.read_stamp(prefix)["torch"]) == ("9.9.0+cpu", "cpu, from a wheel at hand")


def test_cuda_build_on_a_cpu_at_last(with_torch: Definition, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(torch.VARIABLE, "cpu")
    prefix = build.create(with_torch)
    assert torch_version(prefix) == "9.9.0"


def test_which_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(torch.VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    if not Path("/proc/driver/nvidia/version").exists():
        assert torch.build() == "cpu"
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert torch.build() == "cuda"
    monkeypatch.setenv(torch.VARIABLE, "tpu")
    assert environments.main(["create", "nothing"]) == 2
    with pytest.raises(Exception, match="cuda or cpu"):
        torch.build()


@pytest.mark.parametrize(
    ("package", "belongs"),
    [
        ("torch", True),
        ("torchaudio", True),
        ("nvidia-cublas-cu12", True),
        ("triton", True),
        ("cuda-bindings", True),
        ("torchmetrics", False),
        ("numpy", False),
        ("sympy", False),
    ],
)
def test_what_the_layer_is(package: str, belongs: bool) -> None:
    assert torch.is_layer(package) is belongs


# -- shared libraries that the system lacks

LACKED = ("libgsl.so.27=libgsl27", "libgsl.so.25=libgsl25", "libidn.so.12=libidn12", "libmpeg2.so.0=libmpeg2-4")


def test_library_comes_into_the_prefix(prefixes: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if shutil.which("apt-get") is None:
        pytest.skip("only Debian's packages can be unpacked without root")
    definition = find(SMALL)
    prefixes.mkdir()
    Uv(prefixes).make(definition, prefixes / SMALL)
    for entry in LACKED:
        soname = entry.split("=")[0]
        if not libraries._loadable(prefixes / SMALL, [soname]):
            wanting = Definition(SMALL, "engine", definition.pythons, (), libraries=(entry,))
            if libraries.complete(wanting, prefixes / SMALL) == {"libraries": soname}:
                assert libraries._loadable(prefixes / SMALL, [soname]) == [soname]
                assert libraries.complete(wanting, prefixes / SMALL) == {}
                return
    assert not IN_CI, capfd.readouterr().err
    pytest.skip("no library was found that this machine lacks and its packages have")


def test_library_that_cannot_be_had(
    prefixes: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = find(SMALL)
    prefixes.mkdir()
    Uv(prefixes).make(definition, prefixes / SMALL)
    monkeypatch.setenv("PATH", "/nonexistent")
    wanting = Definition(SMALL, "engine", definition.pythons, (), libraries=("libnothing.so.7=libnothing7",))
    assert libraries.complete(wanting, prefixes / SMALL) == {}
    said = capfd.readouterr().err
    assert "libnothing.so.7" in said
    assert "libnothing7" in said
