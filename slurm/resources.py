"""What one task asks the scheduler for: a pipeline's `pipeline.toml`, then a profile, then the command line."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import MappingProxyType
from typing import Any, Mapping, NamedTuple

from pipelines.core import environment
from pipelines.core.errors import UsageError

_MEMORY = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT]?)B?", re.IGNORECASE)
_MEGABYTES = {"K": 1 / 1024, "": 1.0, "M": 1.0, "G": 1024.0, "T": 1024.0**2}
_GPUS = re.compile(r"(?:(?P<type>[A-Za-z][\w.-]*):)?(?P<number>\d+)")

BUILT_IN: Mapping[str, Any] = {"cpus": 1, "gpus": "0", "mem": "4G", "time": "4:00:00"}
"""Where a pipeline says nothing of its own."""

KEYS = ("cpus", "gpus", "mem", "time", "partition", "account", "qos", "constraint", "max_parallel", "tasks")
"""What `pipeline.toml` ([resources]), a profile and the command line may set."""

SBATCH_VARIABLES = {
    "partition": "SBATCH_PARTITION",
    "account": "SBATCH_ACCOUNT",
    "qos": "SBATCH_QOS",
    "constraint": "SBATCH_CONSTRAINT",
    "time": "SBATCH_TIMELIMIT",
}
"""sbatch's own variables, honoured between profile and pipeline: the sweep must ask for the same as the launch did."""


class Description(NamedTuple):
    """A pipeline's `pipeline.toml`, read as data: nothing is imported."""

    name: str
    folder: Path
    summary: str
    usage: str
    environment: str
    resources: Mapping[str, Any]
    environments: Mapping[str, str] = MappingProxyType({})
    """Other environments, by the option and value that ask for them."""

    def environment_for(self, parameters: Mapping[str, Any]) -> str:
        """The environment that a run with these parameters needs."""
        return environment.chosen(self.environment, self.environments, parameters)


class Setting(NamedTuple):
    """A value, and who set it."""

    value: Any
    origin: str


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file's contents. UsageError with the place where it does not parse."""
    try:
        import tomllib
    except ImportError:  # Python < 3.11
        import tomli as tomllib
    try:
        with path.open("rb") as file:
            table: dict[str, Any] = tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not TOML that can be read: {error}. Mend that line and try again.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    return table


def describe(folder: Path) -> Description:
    """The description of the pipeline in `folder`."""
    table = read_toml(folder / "pipeline.toml")
    name = folder.name
    return Description(
        name,
        folder,
        table.get("summary", ""),
        table.get("usage", "SOURCE"),
        table.get("environment", name),
        checked(table.get("resources", {}), str(folder / "pipeline.toml")),
        table.get("environments", {}),
    )


def checked(table: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The table, if it has only keys that are known."""
    unknown = sorted(set(table) - set(KEYS))
    if unknown:
        raise UsageError(f"{where} sets {', '.join(unknown)}, which is not known. Known are {', '.join(KEYS)}.")
    return table


def minutes(text: object) -> int:
    """Minutes of a time as Slurm writes it: `30` (minutes), `30:00`, `4:00:00`, `2-12`, `2-12:30`, `2-12:30:00`."""
    days, dash, clock = str(text).strip().rpartition("-")
    parts = clock.split(":")
    if not all(part.isdigit() for part in [*parts, days if dash else "0"]) or len(parts) > 3:
        raise UsageError(f"{text!r} is not a time. Write minutes (30), hours (4:00:00) or days (2-12:00:00).")
    numbers = [int(part) for part in parts]
    if days:
        hours, mins, seconds = [*numbers, 0, 0][:3]
    elif len(numbers) == 3:
        hours, mins, seconds = numbers
    else:
        hours, mins, seconds = 0, *[*numbers, 0][:2]
    total = int(days or 0) * 1440 + hours * 60 + mins + (seconds > 0)
    if total < 1:
        raise UsageError(f"{text!r} is no time at all; a task needs a minute or more.")
    return total


def clock(total: int) -> str:
    """Minutes as `H:MM:00`."""
    return f"{total // 60}:{total % 60:02d}:00"


def megabytes(text: object) -> int:
    """Megabytes of a memory size as Slurm writes it: `4G`, `500M`, `0.5T`; a bare number is megabytes."""
    match = _MEMORY.fullmatch(str(text).strip())
    if not match or float(match["number"]) == 0:
        raise UsageError(f"{text!r} is not a memory size. Write it like 8G or 500M.")
    return max(1, round(float(match["number"]) * _MEGABYTES[match["unit"].upper()]))


def gpu_count(text: object) -> int:
    """How many GPUs `2` or `a100:2` asks for."""
    match = _GPUS.fullmatch(str(text).strip())
    if not match:
        raise UsageError(f"{text!r} is not a number of GPUs. Write it like 1 or a100:1.")
    return int(match["number"])


def positive(name: str, value: object) -> int:
    """A whole number of 1 or more."""
    if not str(value).isdigit() or int(str(value)) < 1:
        raise UsageError(f"{name} must be a whole number of 1 or more, and {value!r} was given.")
    return int(str(value))


def resolve(
    description: Description, profile: Mapping[str, Any], origin_of_profile: str, given: Mapping[str, Any]
) -> dict[str, Setting]:
    """Every known setting with its origin: command line, else profile, else sbatch's variables, else pipeline.toml."""
    layers = [
        (given, "command line"),
        (profile, origin_of_profile),
        (_from_variables(), "SBATCH_ variable"),
        (description.resources, f"{description.name}/pipeline.toml"),
        (BUILT_IN, "built in"),
    ]
    settings = {}
    for key in KEYS:
        for layer, origin in layers:
            if layer.get(key) is not None:
                settings[key] = Setting(layer[key], origin)
                break
    return settings


def _from_variables() -> dict[str, str]:
    get = os.environ.get
    return {key: value for key, variable in SBATCH_VARIABLES.items() if (value := get(variable))}
