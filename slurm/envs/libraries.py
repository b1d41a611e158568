"""Shared libraries that wheels need from the system, brought into an environment where the system lacks them.

A requirements file names them with `#: library SONAME=PACKAGE`, PACKAGE being Debian's. A conda environment has them
from conda. Elsewhere, on Debian and Ubuntu, anyone may download the package and unpack it there: nothing is
installed on the system. The environment's Python loads them at start, so that the wheel finds them loaded.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Dict, List, Optional, Sequence

from slurm.envs import places
from slurm.envs.definition import Definition

_LOADABLE = """
import ctypes, json, sys
loaded, waiting = [], json.loads(sys.argv[1])
while True:
    done = []
    for name in waiting:
        try:
            ctypes.CDLL(name, ctypes.RTLD_GLOBAL)
            done.append(name)
        except OSError:
            pass
    loaded += done
    waiting = [name for name in waiting if name not in done]
    if not done or not waiting:
        break
print(json.dumps(loaded))
"""
"""Prints which of the libraries can be loaded, in an order in which each finds those it needs."""

_MODULE = "voxarray_libraries"
_PRELOAD = '''"""Loads shared libraries that the system lacks, before a wheel asks for them. Written by voxarray."""
import ctypes
import os
import sys

for name in {names!r}:
    try:
        ctypes.CDLL(os.path.join(sys.prefix, "lib", "voxarray", name), ctypes.RTLD_GLOBAL)
    except OSError:  # the wheel's own import then says what it misses
        pass
'''


def complete(definition: Definition, prefix: Path) -> Dict[str, str]:
    """Bring what `definition` needs and the system lacks into `prefix`, if it can be had; the stamp's words on it."""
    wanted = dict(entry.split("=", 1) for entry in definition.libraries)
    there = _loadable(prefix, list(wanted))
    missing = {soname: package for soname, package in wanted.items() if soname not in there}
    if not missing:
        return {}
    names = ", ".join(missing)
    places.say(f"{definition.name}: the system lacks {names}; bringing it into the environment")
    try:
        paths = _fetch(list(missing.values()), prefix)
    except (OSError, subprocess.CalledProcessError) as error:
        places.say(
            f"{definition.name}: {names} cannot be had without root here ({error}); ask for the packages "
            f"{', '.join(missing.values())} or their like, or use conda"
        )
        return {}
    _preload(prefix, _loadable(prefix, paths))
    return {"libraries": " ".join(missing)}


def _loadable(prefix: Path, names: Sequence[str]) -> List[str]:
    """Those of the libraries (sonames or paths) that the environment's Python can load, in a working order."""
    if not names:
        return []
    command = [str(places.python(prefix)), "-I", "-c", _LOADABLE, json.dumps(list(names))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded: List[str] = json.loads(done.stdout.splitlines()[-1])
    return loaded


def _fetch(packages: Sequence[str], prefix: Path) -> List[str]:
    """Unpack the libraries of `packages`, and of what they need that is missing, into `prefix`; their paths."""
    folder = prefix / "lib" / "voxarray"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        options = _options(scratch, packages)
        _apt(["apt-get", *options, "--quiet", "download", *_closure(options, packages)], scratch)
        for archive in sorted(scratch.glob("*.deb")):
            subprocess.run(["dpkg-deb", "--extract", str(archive), str(scratch / "root")], check=True)
        found = [path for path in sorted((scratch / "root").rglob("lib*.so.*")) if not path.is_dir()]
        for path in found:
            shutil.copy2(path, folder / path.name)
    return [str(folder / path.name) for path in found]


def _options(scratch: Path, packages: Sequence[str]) -> List[str]:
    """Options of apt: none where its lists know the packages, else lists of our own, fetched now; no root needed."""
    try:
        _apt(["apt-cache", "show", *packages])
    except subprocess.CalledProcessError:
        (scratch / "lists" / "partial").mkdir(parents=True)
        (scratch / "cache" / "archives" / "partial").mkdir(parents=True)
        options = ["-o", f"Dir::State::lists={scratch}/lists", "-o", f"Dir::Cache={scratch}/cache"]
        _apt(["apt-get", *options, "--quiet", "update"])
        return options
    return []


def _closure(options: Sequence[str], packages: Sequence[str]) -> List[str]:
    """`packages` and all they depend on, less what is installed."""
    no = [f"--no-{kind}" for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")]
    listed = _apt(["apt-cache", *options, "depends", "--recurse", *no, *packages])
    states = _apt(["dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Package}\n"])
    present = {line.split(" ", 1)[1] for line in states.split("\n") if line.startswith("installed ")}
    return [line for line in listed.split("\n") if line and line[0] not in " <" and line not in present]


def _apt(command: Sequence[str], cwd: Optional[Path] = None) -> str:
    """Output of a package tool; CalledProcessError or OSError when it fails or is not there."""
    return subprocess.run(list(command), capture_output=True, text=True, check=True, cwd=cwd).stdout


def _preload(prefix: Path, paths: Sequence[str]) -> None:
    """Have the environment's Python load the libraries when it starts."""
    for site in prefix.glob("lib/python3*/site-packages"):
        program = _PRELOAD.format(names=[Path(path).name for path in paths])
        (site / f"{_MODULE}.py").write_text(program, encoding="utf-8")
        (site / f"{_MODULE}.pth").write_text(f"import {_MODULE}\n", encoding="utf-8")
