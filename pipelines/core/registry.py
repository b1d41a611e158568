"""The pipelines that are here: every folder with a `pipeline.toml` in `pipelines/`, and in the user's own folders."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from pipelines.core import paths
from pipelines.core.errors import UsageError
from pipelines.core.pipeline import Pipeline

EXTRA_VARIABLE = "VOXARRAY_PIPELINES"
"""Folders (joined like PATH) that hold pipelines of one's own, one folder each."""


def _roots() -> list[Path]:
    extra = [Path(folder) for folder in os.environ.get(EXTRA_VARIABLE, "").split(os.pathsep) if folder]
    return [paths.repository() / "pipelines", *extra]


def folders() -> dict[str, Path]:
    """Name → folder of all pipelines; the suite's own come first."""
    found: dict[str, Path] = {}
    for root in _roots():
        for path in sorted(root.glob("*/pipeline.toml")):
            found.setdefault(path.parent.name, path.parent)
    return found


def find(name: str) -> Pipeline:
    """The pipeline of that name; imports its description, not its model's packages."""
    folder = folders().get(name)
    if folder is None:
        raise UsageError(
            f"There is no pipeline named {name!r}. There are: {', '.join(sorted(folders())) or 'none'}. One of "
            f"your own is found where ${EXTRA_VARIABLE} names the folder it lies in."
        )
    pipeline: Pipeline = _module(name, folder).PIPELINE
    return pipeline


def _module(name: str, folder: Path) -> ModuleType:
    if folder.parent == paths.repository() / "pipelines":
        return importlib.import_module(f"pipelines.{name}")
    full = f"voxarray_pipeline_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            full, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        if spec is None or spec.loader is None:
            raise UsageError(f"The pipeline {name!r} in {folder} has no __init__.py that can be read.")
        module = importlib.util.module_from_spec(spec)
        sys.modules[full] = module
        spec.loader.exec_module(module)
    return sys.modules[full]
