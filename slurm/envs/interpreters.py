"""Finding a Python that is really there: on PATH, of pyenv, of uv, of the system. A shim that does not run is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterable, Iterator, Optional, Sequence, Tuple

VARIABLE = "VOXARRAY_PYTHON"
"""The interpreter to try first."""

_ASK = """
import sys
print("%d.%d" % sys.version_info[:2])
print(getattr(sys, "_base_executable", "") or sys.executable)
"""
_TIMEOUT_S = 20
_FOLDERS = ("/usr/local/bin", "/usr/bin", "/bin")
_NESTED = (
    ("/opt", "*/bin"),
    ("/opt", "*/*/bin"),
    ("/usr/local", "*/bin"),
    ("~/.local/share/uv/python", "*/bin"),
    ("~/.pyenv/versions", "*/bin"),
)


def find(pythons: Sequence[str]) -> Optional[Tuple[str, Path]]:
    """The first of the versions `pythons` ("3.11", …) that this machine has, and its real executable; else None."""
    asked: Dict[Path, Optional[Tuple[str, Path]]] = {}
    for version in pythons:
        for candidate in _candidates(version):
            if candidate not in asked:
                asked[candidate] = probe(candidate)
            found = asked[candidate]
            if found and found[0] == version:
                return found
    return None


def probe(executable: Path) -> Optional[Tuple[str, Path]]:
    """Version ("3.11") and executable of an interpreter, outside any virtual environment; None if it won't run."""
    try:
        done = subprocess.run(
            [str(executable), "-I", "-c", _ASK], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.splitlines()
    if done.returncode != 0 or len(lines) < 2:
        return None
    return lines[0], Path(lines[1])


def _candidates(version: str) -> Iterator[Path]:
    """Executables that may be Python `version`, each once, the likeliest first."""
    seen = set()
    for path in _unordered(version):
        if path not in seen and os.access(path, os.X_OK) and not path.is_dir():
            seen.add(path)
            yield path


def _unordered(version: str) -> Iterator[Path]:
    override = os.environ.get(VARIABLE)
    if override:
        yield Path(shutil.which(override) or override)
    if version == "{}.{}".format(*sys.version_info):
        yield Path(getattr(sys, "_base_executable", "") or sys.executable)
    for folder in _folders():
        yield folder / f"python{version}"
        yield folder / "python3"


def _folders() -> Iterable[Path]:
    for entry in os.environ.get("PATH", "").split(os.pathsep):
        if entry:
            yield Path(entry)
    yield from map(Path, _FOLDERS)
    pyenv = os.environ.get("PYENV_ROOT")
    nested = ((f"{pyenv}/versions", "*/bin"), *_NESTED) if pyenv else _NESTED
    for parent, pattern in nested:
        folder = Path(os.path.expanduser(parent))  # noqa: PTH111 - Path.expanduser raises where there is no home
        if folder.is_dir() and os.access(folder, os.R_OK | os.X_OK):
            yield from sorted(folder.glob(pattern), reverse=True)
