"""The layer that differs by machine: torch with CUDA where there is an NVIDIA driver, else for the CPU alone.

An environment asks for it with a line `#: torch torch==VERSION …` in its requirements. `NAME.lock` then has everything
but the layer, and `NAME.cuda.lock` the layer as the package index serves it by default, which is the CUDA build.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, List

from pipelines.core.errors import EnvironmentNotFit, UsageError
from slurm.envs import places
from slurm.envs.definition import Definition

if TYPE_CHECKING:
    from slurm.envs.uv import Uv

VARIABLE = "VOXARRAY_TORCH"
"""`cuda` or `cpu`, where the machine that makes the environment is not the kind that uses it (a login node)."""

_LAYER = re.compile(r"^(torch|torchaudio|torchvision|torchcodec|triton|nvidia-.*|cuda-.*)$")


def is_layer(package: str) -> bool:
    """Whether a package (normalized name) belongs to the layer: torch's compiled parts and NVIDIA's libraries."""
    return _LAYER.match(package) is not None


def build() -> str:
    """`cuda` or `cpu`: what $VOXARRAY_TORCH says, else whether an NVIDIA driver is loaded."""
    asked = os.environ.get(VARIABLE)
    if asked:
        if asked not in ("cuda", "cpu"):
            raise UsageError(f"{VARIABLE} is {asked!r}; it may be cuda or cpu, or unset to let the machine decide.")
        return asked
    driver = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi")
    return "cuda" if driver else "cpu"


def sync(uv: Uv, definition: Definition, prefix: Path) -> Dict[str, str]:
    """Fill `prefix` from the lock and add the layer, if any; what the stamp should say about it."""
    if not definition.torch:
        uv.sync([definition.lock], prefix)
        return {}
    if build() == "cuda":
        # without find-links: a folder of CPU wheels would win over the pinned CUDA build
        uv.sync([definition.lock, definition.cuda_lock], prefix, find_links=False)
        return {"torch": "cuda"}
    uv.sync([definition.lock], prefix)
    return {"torch": _first_that_works(uv, definition, prefix)}


def _first_that_works(uv: Uv, definition: Definition, prefix: Path) -> str:
    """Install a torch that runs on a CPU: a wheel at hand, uv's CPU index, at last the CUDA build, which also does."""
    local = [f"{requirement}+cpu" for requirement in definition.torch]
    failures: List[str] = []
    ways: Dict[str, Callable[[], None]] = {
        "cpu, from a wheel at hand": lambda: uv.install(local, prefix),
        "cpu": lambda: uv.install(definition.torch, prefix, ["--torch-backend", "cpu"]),
        "cuda, on a CPU": lambda: uv.sync([definition.lock, definition.cuda_lock], prefix, find_links=False),
    }
    for name, install in ways.items():
        status = _status(install)
        if status == 0:
            return name
        failures.append(f"{name}: exit status {status}")
        places.say(f"{definition.name}: torch ({name}) cannot be had here; trying the next way")
    raise EnvironmentNotFit(
        f"No build of {' '.join(definition.torch)} could be installed for environment {definition.name} "
        f"({'; '.join(failures)}). uv's messages above say why; with a package index in reach, run "
        f"`./voxarray env create {definition.name}` again."
    )


def _status(install: Callable[[], None]) -> int:
    """Exit status of an installation: 0 when it went well."""
    try:
        install()
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0
