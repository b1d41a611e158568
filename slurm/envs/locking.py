"""`NAME.txt` -> `NAME.lock`: exact versions with hashes, for every accepted Python and platform, by uv.

Always from the package index as uv reaches it by default: pip's find-links and extra indexes stay out, for a local
wheel (`torch+cpu`) must never end up in a lock.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Iterable, List, Sequence, Tuple

from pipelines.core.errors import EnvironmentNotFit
from slurm.envs import index, places, torch
from slurm.envs.definition import Definition, file_digest, find, locked_pins
from slurm.envs.uv import executable

_HEADER = "# Made from envs/{base}.txt by `./voxarray env lock {base}`; {pythons}, every platform.\n"
_TOGETHER = "# With envs/{base}.cuda.lock, SHA-256 {digest}\n"
"""So that the digest of the lock, by which an environment is known to be current, changes with its torch too."""


def lock(definition: Definition, upgrade: bool = False) -> List[Path]:
    """Write the environment's lock (and its torch layer's); pins that still fit stay, unless `upgrade`."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        pins = scratch / "pins.txt"
        pins.write_text(_preferences(definition, upgrade), encoding="utf-8")
        _compile(definition, scratch, pins)
        whole = pins.read_text(encoding="utf-8")
        layer = [package for package, _ in locked_pins(pins) if torch.is_layer(package)] if definition.torch else []
    header, written = _header(definition), [definition.lock]
    if definition.torch:
        definition.cuda_lock.write_text(header + _entries(whole, layer, keep=True), encoding="utf-8")
        written.append(definition.cuda_lock)
        header += _TOGETHER.format(base=definition.base, digest=file_digest(definition.cuda_lock))
    definition.lock.write_text(header + _entries(whole, layer, keep=False), encoding="utf-8")
    return written


def _preferences(definition: Definition, upgrade: bool) -> str:
    """Pins that stay where they fit: first those of the environments that are included, then the lock's own."""
    text = "".join(_read(find(name).lock) for name in definition.includes)
    if upgrade:
        return text
    included = [package for package, _ in _split(text)]
    return text + _entries(_read(definition.lock) + _read(definition.cuda_lock), included, keep=False)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def oldest(definition: Definition) -> str:
    """The oldest Python that the environment accepts."""
    return min(definition.pythons, key=lambda version: int(version.split(".")[1]))


def _compile(definition: Definition, scratch: Path, output: Path) -> None:
    requirements = scratch / f"{definition.base}.txt"
    wanted = _bounded([*definition.requirements, *definition.torch], definition.pythons)
    requirements.write_text("\n".join(wanted) + "\n", encoding="utf-8")
    overrides = scratch / "without.txt"
    # a marker that is never true: uv resolves as if no package asked for these
    never = "".join(f"{package}; python_version < '3'\n" for package in definition.without)
    overrides.write_text(never, encoding="utf-8")
    command: Sequence[str] = [
        str(executable()), "pip", "compile", "--quiet", "--no-config", "--universal", "--generate-hashes",
        "--python-version", oldest(definition), "--override", str(overrides), "--no-header", "--no-annotate",
        "--output-file", str(output), str(requirements),
    ]  # fmt: skip
    environment = index.uv_environment(index.pip_configuration(), places.writable_root())
    try:
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    except subprocess.CalledProcessError as error:
        raise EnvironmentNotFit(
            f"Environment {definition.base} cannot be locked: uv found no versions for envs/{definition.base}.txt on "
            f"every accepted Python, and says above what is in the way. The lock was left as it was."
        ) from error


def _bounded(requirements: Sequence[str], pythons: Sequence[str]) -> List[str]:
    """The requirements, for no newer Python than the only one accepted: uv bounds them from below alone."""
    if len(pythons) > 1:
        return list(requirements)
    above = f"python_version < '3.{int(pythons[0].split('.')[1]) + 1}'"
    parts = [line.partition(";") for line in requirements]
    return [f"{name}; ({marker.strip()}) and {above}" if marker else f"{name}; {above}" for name, _, marker in parts]


def _header(definition: Definition) -> str:
    several = len(definition.pythons) > 1
    pythons = f"every Python from {oldest(definition)}" if several else f"Python {definition.pythons[0]}"
    return _HEADER.format(base=definition.base, pythons=pythons)


def _entries(lock_text: str, layer: Iterable[str], keep: bool) -> str:
    """The entries (pin and hashes) of the packages in `layer`, or all others."""
    chosen = set(layer)
    return "".join(entry for package, entry in _split(lock_text) if (package in chosen) == keep)


def _split(lock_text: str) -> List[Tuple[str, str]]:
    return [
        (entry.split("==")[0].lower(), entry)
        for entry in re.split(r"^(?=[A-Za-z0-9])", lock_text, flags=re.MULTILINE)
        if "==" in entry
    ]
