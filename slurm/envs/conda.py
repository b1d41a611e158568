"""conda, mamba or micromamba, where one is present: Python and the system libraries of an environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Dict, List, Optional

from pipelines.core.errors import UsageError
from slurm.envs import places
from slurm.envs.definition import Definition

_TOOLS = ("micromamba", "mamba", "conda")
_EXECUTABLES = ("MAMBA_EXE", "CONDA_EXE")
"""Set by the tools' shell hooks, where the command itself is only a shell function."""


def find() -> Optional[Path]:
    """The executable of micromamba, mamba or conda, the quickest first; None where there is none."""
    for tool in _TOOLS:
        found = shutil.which(tool)
        if found:
            return Path(found)
    for variable in _EXECUTABLES:
        named = os.environ.get(variable)
        if named and os.access(named, os.X_OK):
            return Path(named)
    return None


def read(path: Path) -> Dict[str, List[str]]:
    """`channels`, `dependencies` and `pip` of a conda file. It reads the plain block style that envs/*.yml keep to."""
    lists: Dict[str, List[str]] = {"channels": [], "dependencies": [], "pip": []}
    key = ""
    for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        line = re.sub(r"(^|\s)#.*$", "", raw).rstrip()
        entry = re.match(r"^( *)- +(.*)$", line)
        if entry is None:
            key = line.split(":")[0].strip() if line else key
        elif entry[2].rstrip() == "pip:":
            key = "pip"
        elif key in lists:
            lists[key].append(re.sub(r"^(['\"])(.*)\1$", r"\2", entry[2].strip()))
        else:
            raise UsageError(f"{path}, line {number}: {raw!r} is in no list of {', '.join(lists)}.")
    return lists


def specifications(definition: Definition) -> List[str]:
    """What conda is asked for: the file's dependencies, its pip section left to uv and the lock."""
    wanted = [entry for entry in read(definition.conda)["dependencies"] if entry != "pip"]
    if definition.name != definition.base:
        wanted = [f"python={definition.pythons[0]}" if re.match(r"python\b", entry) else entry for entry in wanted]
    return wanted


def make(tool: Path, definition: Definition, prefix: Path) -> None:
    """Make the prefix, progress on standard error; CalledProcessError when the tool fails."""
    places.say(f"{definition.name}: conda environment with {tool}")
    channels = [word for channel in read(definition.conda)["channels"] for word in ("--channel", channel)]
    # `create` with the specifications is the one spelling that conda, mamba and micromamba share in every version
    command = [str(tool), "create", "--yes", "--prefix", str(prefix), "--override-channels", *channels]
    subprocess.run([*command, *specifications(definition)], check=True, stdout=places.STDERR)
