"""What an environment is made of, read from `envs/NAME.txt`, `envs/NAME.yml` and `envs/NAME.lock`.

`NAME.txt` holds the direct requirements, written by people, and `#: key words` lines that say the rest:

    #: python 3.11 3.12       accepted Pythons, the preferred one first
    #: include launcher vad   environments whose requirements belong to this one
    #: without torchaudio     dependencies of dependencies that are never installed
    #: torch torch==2.13.0    the layer that differs by machine (see `slurm.envs.torch`)
    #: git NAME=URL@COMMIT    packages that only git repositories have (see `slurm.envs.sources`)
    #: library libc++.so.1=libc++1  shared libraries of the system, and the Debian package of each
    #: import numpy soundfile modules that `env check` imports
    #: call ten_vad:TenVad    and things that it calls without arguments
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from pipelines.core.errors import UsageError
from pipelines.core.paths import repository

_DIRECTIVE = re.compile(r"^#:\s*(\w+)\s+(.*)$")
_KEYS = ("python", "include", "without", "torch", "git", "library", "import", "call")
_VERSIONED = re.compile(r"^(?P<base>.+)-(?P<python>3\.\d+)$")


@dataclass(frozen=True)
class Definition:
    """One environment. `engine-3.9` is the environment `engine` on Python 3.9: same files, one accepted Python."""

    name: str
    base: str
    pythons: Tuple[str, ...]
    requirements: Tuple[str, ...]
    includes: Tuple[str, ...] = ()
    without: Tuple[str, ...] = ()
    torch: Tuple[str, ...] = ()
    git: Tuple[str, ...] = ()
    libraries: Tuple[str, ...] = ()
    imports: Tuple[str, ...] = ()
    calls: Tuple[str, ...] = ()

    @property
    def lock(self) -> Path:
        """The pinned, hashed requirements."""
        return folder() / f"{self.base}.lock"

    @property
    def cuda_lock(self) -> Path:
        """The pinned torch layer of machines with an NVIDIA driver; only where `torch` is not empty."""
        return folder() / f"{self.base}.cuda.lock"

    @property
    def conda(self) -> Path:
        """The conda file: Python and system libraries."""
        return folder() / f"{self.base}.yml"

    def digest(self) -> Optional[str]:
        """SHA-256 (hexadecimal) of the lock's bytes; None where the environment has not been locked."""
        return file_digest(self.lock)


def folder() -> Path:
    """The folder of the definitions."""
    return repository() / "envs"


def file_digest(path: Path) -> Optional[str]:
    """SHA-256 (hexadecimal) of a file's bytes, None where there is no such file."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def names() -> List[str]:
    """The environments that are defined, by name."""
    return sorted(path.stem for path in folder().glob("*.txt"))


def find(name: str) -> Definition:
    """The definition of environment `name`; UsageError with the list of those there are when it does not exist."""
    if name in names():
        return _read(name, name, None)
    versioned = _VERSIONED.match(name)
    if versioned and versioned["base"] in names():
        return _read(name, versioned["base"], versioned["python"])
    raise UsageError(
        f"There is no environment called {name!r}: no file envs/{name}.txt defines it. "
        f"There are: {', '.join(names())}. `./voxarray env list` shows them."
    )


def _read(name: str, base: str, python: Optional[str]) -> Definition:
    words, requirements = _parse(folder() / f"{base}.txt")
    accepted = words["python"]
    if python is not None and python not in accepted:
        raise UsageError(
            f"Environment {base} is not made for Python {python}: envs/{base}.txt accepts {', '.join(accepted)}."
        )
    for included in words["include"]:
        other = _read(included, included, None)
        requirements += [line for line in other.requirements if line not in requirements]
        for key, values in (
            ("without", other.without),
            ("torch", other.torch),
            ("git", other.git),
            ("library", other.libraries),
            ("import", other.imports),
            ("call", other.calls),
        ):
            words[key] += [value for value in values if value not in words[key]]
    wanted = {requirement_name(line) for line in words["torch"]}
    return Definition(
        name=name,
        base=base,
        pythons=(python,) if python else tuple(accepted),
        requirements=tuple(requirements),
        includes=tuple(words["include"]),
        # what one included environment leaves out, another may ask for
        without=tuple(package for package in words["without"] if package not in wanted),
        torch=tuple(words["torch"]),
        git=tuple(words["git"]),
        libraries=tuple(words["library"]),
        imports=tuple(words["import"]),
        calls=tuple(words["call"]),
    )


def _parse(path: Path) -> Tuple[Dict[str, List[str]], List[str]]:
    words: Dict[str, List[str]] = {key: [] for key in _KEYS}
    requirements: List[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        directive = _DIRECTIVE.match(line)
        if directive:
            if directive[1] not in _KEYS:
                raise UsageError(f"{path}: unknown key {directive[1]!r} in {line!r}; there are {', '.join(_KEYS)}.")
            words[directive[1]] += directive[2].split()
        elif line.strip() and not line.startswith("#"):
            requirements.append(line.strip())
    return words, requirements


def requirement_name(line: str) -> str:
    """The normalized name of the package that a requirement line asks for: `Ten_VAD==1 ; …` -> `ten-vad`."""
    match = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line)
    if match is None:
        raise UsageError(f"{line!r} is not a requirement: it does not begin with a package's name.")
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def locked_pins(lock: Path) -> List[Tuple[str, str]]:
    """Name and version of every pin of a lock, in its order; one package may have a pin for each Python."""
    pins = re.findall(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", lock.read_text(encoding="utf-8"), re.MULTILINE)
    return [(requirement_name(name), version) for name, version in pins]
