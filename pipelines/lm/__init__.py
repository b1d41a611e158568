"""Language models of discrete units: a manifest of units → checkpoints and a leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator

from pipelines.core import paths, plan
from pipelines.core.pipeline import Parameters, Pipeline, Processor, Resources
from pipelines.lm import grid
from pipelines.lm.options import add_arguments, parameters
from pipelines.lm.outputs import Leaderboard
from pipelines.units import files


def load(parameters: Parameters, resources: Resources) -> Processor:
    """What trains; imports torch. Raises EnvironmentNotFit, UsageError."""
    from pipelines.units import environment

    environment.verify_packages("lm", ("numpy", "torch"))
    from pipelines.lm.processor import LmProcessor

    return LmProcessor(parameters, resources)


def list_items(source: Path, parameters: Parameters) -> Iterator[dict[str, Any]]:
    """One item a combination of the grid; its folder of checkpoints is its identity."""
    top = paths.home() / "output" / "checkpoints" / plan.run_id("lm", source, None, parameters)
    varied = parameters["grid"]
    base = {name: value for name, value in parameters.items() if name not in ("grid", "units", "split_by", "raw")}
    for settings in grid.combinations(base, varied):
        folder = grid.folder_of(settings, varied, top)
        yield {"audio_filepath": str(folder), "manifest": str(source), "settings": settings}


PIPELINE = Pipeline(
    name="lm",
    summary="Language models of discrete units: training, alone or as a grid.",
    load=load,
    environment="lm",
    source="listed",
    add_arguments=add_arguments,
    parameters=parameters,
    list_items=list_items,
    outputs=Leaderboard,
    is_whole=files.is_whole,
    resumes=True,
)
