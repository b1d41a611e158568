"""The pipelines that are here: every folder of `pipelines/` with a `pipeline.toml`."""

from __future__ import annotations

import importlib
from pathlib import Path

from pipelines.core import paths
from pipelines.core.errors import UsageError
from pipelines.core.pipeline import Pipeline


def folder(name: str) -> Path:
    """The folder of a pipeline."""
    return paths.repository() / "pipelines" / name


def names() -> list[str]:
    """The names of all pipelines, sorted."""
    return sorted(path.parent.name for path in (paths.repository() / "pipelines").glob("*/pipeline.toml"))


def find(name: str) -> Pipeline:
    """The pipeline of that name; imports its description, not its model's packages."""
    if name not in names():
        raise UsageError(f"There is no pipeline named {name!r}. There are: {', '.join(names())}.")
    pipeline: Pipeline = importlib.import_module(f"pipelines.{name}").PIPELINE
    return pipeline
