"""Slurm's own commands, asked politely: bounded in time, patient with a controller that restarts, no sacct needed."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from typing import Iterator, NamedTuple, Optional, Sequence

from pipelines.core.errors import ClusterNotFit

log = logging.getLogger(__name__)

_TIMEOUT_S = 60.0
PATIENCE_S = 300.0
"""How long a controller may stay silent before a command gives up."""
_SILENT = ("unable to contact slurm controller", "socket timed out", "connection refused", "timed out", "zero bytes")
_ABSENT = ("could not establish a configuration source", "command not found", "unable to process configuration file")
_KEPT = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_CONF_SERVER")
_FOREIGN = ("SLURM", "SBATCH", "SRUN", "SUBMITIT")
_WHOLE = {"squeue": {"SLURM_BITSTR_LEN": "0"}}
"""Variables for a command: without this one, squeue cuts an array's list of tasks after 64 bytes (squeue(1))."""


class CommandError(ClusterNotFit):
    """A Slurm command failed; `said` is its standard error."""

    def __init__(self, command: Sequence[str], said: str) -> None:
        super().__init__(f"`{' '.join(command)}` failed: {said or 'it said nothing'}.")
        self.said = said

    @property
    def is_silence(self) -> bool:
        """Whether the controller did not answer, so that waiting may help."""
        return any(mark in self.said.lower() for mark in _SILENT)


def call(*command: str, timeout_s: float = _TIMEOUT_S) -> str:
    """Standard output of a Slurm command. `CommandError` if it fails."""
    variables = {**os.environ, **_WHOLE.get(command[0], {})}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
            env=variables,
        )
    except FileNotFoundError:
        raise CommandError(command, f"{command[0]}: command not found") from None
    except subprocess.TimeoutExpired:
        raise CommandError(command, f"timed out after {timeout_s:.0f} s") from None
    if done.returncode != 0:
        raise CommandError(command, " ".join(done.stderr.split()))
    return done.stdout


def patiently(*command: str, patience_s: float = PATIENCE_S) -> str:
    """`call`, again and again with growing pauses while the controller does not answer (it may be restarting)."""
    deadline = time.monotonic() + patience_s
    pause = 1.0
    while True:
        try:
            return call(*command)
        except CommandError as error:
            if not error.is_silence or time.monotonic() + pause > deadline:
                raise
            log.warning("Slurm's controller does not answer (%s); asking again in %.0f s.", error.said[:120], pause)
        time.sleep(pause)
        pause = min(30.0, pause * 2)


def fitness() -> Optional[str]:
    """Why jobs cannot be submitted from here; None where they can (a controller that is silent for now counts)."""
    if shutil.which("sbatch") is None:
        return "there is no sbatch on PATH"
    try:
        call("scontrol", "show", "config", timeout_s=20)
    except CommandError as error:
        if any(mark in error.said.lower() for mark in _ABSENT):
            return "sbatch is installed, but no cluster is configured (no slurm.conf)"
    return None


def settings(patience_s: float = PATIENCE_S) -> dict[str, str]:
    """`scontrol show config`, key → value."""
    text = patiently("scontrol", "show", "config", patience_s=patience_s)
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def max_array_size() -> int:
    """How many tasks one array may have (the largest index is one less)."""
    value = settings().get("MaxArraySize", "1001")
    return max(1, int(value)) if value.isdigit() else 1001


class Queued(NamedTuple):
    """One line of the queue: the array's (or job's) id, the array tasks it stands for, state, reason, name."""

    job_id: str
    tasks: str
    state: str
    reason: str
    name: str


def queue(ids: Sequence[str] = (), name: str = "") -> list[Queued]:
    """The jobs of these ids (or of this name and user) that have not ended; an array's pending tasks share a line."""
    select = [f"--jobs={','.join(ids)}"] if ids else [f"--name={name}", f"--user={os.getuid()}"]
    try:
        text = patiently("squeue", "--noheader", "--all", "--format=%F|%K|%T|%r|%j", *select)
    except CommandError as error:
        if "invalid job id" in error.said.lower():
            return []
        raise
    return [Queued(*line.split("|", 4)) for line in text.splitlines() if line.count("|") >= 4]


def end(ids: Sequence[str]) -> None:
    """Cancel jobs; those that have ended already do not matter."""
    if ids:
        try:
            patiently("scancel", *ids)
        except CommandError as error:
            if "invalid job id" not in error.said.lower():
                raise


@contextmanager
def outside_of_jobs() -> Iterator[None]:
    """Hide the surrounding job's variables: else a submission from inside a job inherits its array and limits."""
    hidden = {
        name: os.environ.pop(name) for name in list(os.environ) if name.startswith(_FOREIGN) and name not in _KEPT
    }
    try:
        yield
    finally:
        os.environ.update(hidden)
