"""The one installer, uv. It makes prefixes where no conda is, and fills every prefix from its lock."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import List, Optional, Sequence

from pipelines.core.errors import EnvironmentNotFit
from slurm.envs import index, interpreters, places
from slurm.envs.definition import Definition, find


class Uv:
    """uv with this machine's package indexes."""

    def __init__(self, root: Path) -> None:
        """`root` is the folder of prefixes: uv's cache goes there where there is no home."""
        configuration = index.pip_configuration()
        self.executable = executable()
        self.options = index.uv_options(configuration)
        self.environment = index.uv_environment(configuration, root)

    def run(self, arguments: Sequence[str], indexes: bool = True) -> None:
        """Run uv, its progress on standard error; CalledProcessError when it fails."""
        command = [str(self.executable), *arguments, *(self.options if indexes else ())]
        subprocess.run(command, check=True, env=self.environment, stdout=places.STDERR)

    def interpreter(self, definition: Definition) -> Path:
        """An interpreter that the environment accepts: of this machine, else one that uv downloads."""
        found = interpreters.find(definition.pythons)
        if found:
            return found[1]
        wanted = definition.pythons[0]
        places.say(f"no Python {' or '.join(definition.pythons)} found; trying to download {wanted}")
        try:
            self.run(["python", "install", wanted], indexes=False)
            done = subprocess.run(
                [str(self.executable), "python", "find", "--no-project", "--managed-python", wanted],
                capture_output=True,
                text=True,
                check=True,
                env=self.environment,
            )
        except (subprocess.CalledProcessError, OSError) as error:
            raise EnvironmentNotFit(
                f"Environment {definition.name} needs Python {' or '.join(definition.pythons)}: none was found on "
                f"PATH, under /opt, in pyenv or uv, no conda, mamba or micromamba is here to make one, and uv "
                f"could not download one ({error}). Install such a Python or micromamba (neither needs root), or name "
                f"an interpreter with {interpreters.VARIABLE}=/path/to/python{wanted}; then run "
                f"`./voxarray env create {definition.name}` again."
            ) from error
        return Path(done.stdout.strip())

    def make(self, definition: Definition, prefix: Path) -> None:
        """A fresh virtual environment at `prefix`."""
        interpreter = self.interpreter(definition)
        places.say(f"{definition.name}: virtual environment with {interpreter}")
        command = ["venv", "--quiet", "--no-project", "--clear", "--python", str(interpreter), str(prefix)]
        self.run(command, indexes=False)

    def sync(self, locks: Sequence[Path], prefix: Path, find_links: bool = True) -> None:
        """Make the packages of `prefix` exactly those of `locks`, byte-compiled; hashes are checked."""
        arguments = ["pip", "sync", "--python", str(places.python(prefix)), "--compile-bytecode", "--require-hashes"]
        arguments += map(str, locks)
        if find_links:
            self.run(arguments)
        else:
            self.run([*arguments, *_without_find_links(self.options)], indexes=False)

    def install(self, requirements: Sequence[str], prefix: Path, options: Sequence[str] = ()) -> None:
        """Add `requirements` and nothing else to `prefix`; `options` are uv's."""
        self.run(
            [
                "pip",
                "install",
                "--python",
                str(places.python(prefix)),
                "--compile-bytecode",
                "--no-deps",
                *options,
                *requirements,
            ]
        )


def executable() -> Path:
    """The program itself: of this Python's environment, of the launcher's, else on PATH."""
    launcher = places.prefix(find("launcher"))
    for candidate in (Path(sys.prefix) / "bin" / "uv", launcher / "bin" / "uv", _on_path()):
        if candidate is not None and os.access(candidate, os.X_OK):
            return candidate
    raise EnvironmentNotFit(
        "uv is missing: it comes with the launcher's environment, which is made by any first use of the command. "
        "Run `./voxarray env list` in the repository."
    )


def _on_path() -> Optional[Path]:
    found = shutil.which("uv")
    return Path(found) if found else None


def _without_find_links(options: Sequence[str]) -> List[str]:
    kept: List[str] = []
    skip = False
    for option in options:
        if not skip and option != "--find-links":
            kept.append(option)
        skip = option == "--find-links"
    return kept
