"""Packages that no registry has: installed from their public git repositories, where git reaches those.

A requirements file names each with `#: git NAME=URL@COMMIT`. The environment must work without them, for many clusters
have a package index and no way to a git host. git's own configuration holds, so a mirror is one command:
`git config --global url.MIRROR.insteadOf URL`. The sources lie in PREFIX/src and are installed as editable, because
textlesslib's installation as a copy lacks its vocoders.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional

from pipelines.core.errors import UsageError
from slurm.envs import index, places
from slurm.envs.definition import Definition
from slurm.envs.uv import Uv

_ENTRY = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)=(?P<url>\S+)@(?P<commit>[0-9a-f]{40})$")

_REACH_S = 20
"""How long a repository may take to answer: a firewall that drops packets would hold a build up for minutes."""

_FETCH_S = 600

_OPTIONS = ("--no-build-isolation",)
"""With the torch, numpy and Cython that are there: fairseq's build imports them, and would fetch others otherwise."""


class Source(NamedTuple):
    """One package of a git repository."""

    name: str
    url: str
    commit: str

    @property
    def short(self) -> str:
        """As the stamp and messages name it."""
        return f"{self.name}@{self.commit[:12]}"


def wanted(definition: Definition) -> List[Source]:
    """The environment's git packages; UsageError where a line is not NAME=URL@COMMIT with a whole commit."""
    found = []
    for entry in definition.git:
        match = _ENTRY.match(entry)
        if match is None:
            raise UsageError(
                f"envs/{definition.base}.txt: `#: git {entry}` is not NAME=URL@COMMIT with the 40 digits of a commit: "
                "a branch or tag may change, and with it what was computed."
            )
        found.append(Source(match["name"], match["url"], match["commit"]))
    return found


def complete(uv: Uv, definition: Definition, prefix: Path) -> Dict[str, str]:
    """Install what can be reached over what the lock gave; the stamp's words on it, none where there is none."""
    there: List[str] = []
    lacking: List[str] = []
    for source in wanted(definition):
        fault = _install(uv, source, prefix)
        if fault is None:
            there.append(source.short)
            continue
        lacking.append(source.short)
        places.say(
            f"{definition.name}: {source.short} is not in it: {fault}. It works without (envs/{definition.base}.txt "
            f"says how); where git reaches that, `./voxarray env create {definition.name}` adds it"
        )
    return {key: " ".join(names) for key, names in (("git", there), ("lacking", lacking)) if names}


def add_lacking(definition: Definition, prefix: Path) -> None:
    """Try again what a finished environment lacks: asked for by `env create`, never on the way of a run."""
    stamp = places.read_stamp(prefix)
    if "lacking" not in stamp:
        return
    with places.exclusive(prefix.parent, definition.name):
        del stamp["lacking"]
        words = complete(Uv(prefix.parent), definition, prefix)
        places.write_stamp(prefix, {**{key: text for key, text in stamp.items() if key != "git"}, **words})


def _install(uv: Uv, source: Source, prefix: Path) -> Optional[str]:
    """None when the package is in place, else what was in the way."""
    if shutil.which("git") is None:
        return "there is no git"
    folder = prefix / "src" / source.name
    try:
        _git("ls-remote", "--quiet", source.url, "HEAD", timeout=_REACH_S)
        _fetch(source, folder)
    except subprocess.TimeoutExpired as error:
        return f"{source.url} gave no answer in {error.timeout:.0f} s"
    except subprocess.CalledProcessError as error:
        return f"git says {_last_line(error.stderr) or f'exit status {error.returncode}'}"
    try:
        uv.install(["--editable", str(folder)], prefix, _OPTIONS)
    except subprocess.CalledProcessError as error:
        return f"its build ended with exit status {error.returncode}, see above"
    return None


def _fetch(source: Source, folder: Path) -> None:
    """That one commit, in `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _git("init", "--quiet", str(folder))
    _git("-C", str(folder), "fetch", "--quiet", "--depth", "1", source.url, source.commit, timeout=_FETCH_S)
    _git("-C", str(folder), "checkout", "--quiet", "--detach", "FETCH_HEAD")


def _git(*arguments: str, timeout: Optional[float] = None) -> None:
    """Run git, which must ask nobody for a password; CalledProcessError or TimeoutExpired when it fails."""
    environment = {**index.package_environment(), "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", "LC_ALL": "C"}
    subprocess.run(
        ["git", *arguments],
        env=environment, check=True, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else ""
