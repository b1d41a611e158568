"""Language models of discrete units: a manifest of units → checkpoints and a leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator

from pipelines.core import paths, plan
from pipelines.core.pipeline import Parameters, Pipeline, Processor, Resources
from pipelines.core.plan import Plan
from pipelines.lm import grid
from pipelines.lm.options import GRID_NAMES, add_arguments, parameters
from pipelines.lm.outputs import Leaderboard
from pipelines.units import files


def load(parameters: Parameters, resources: Resources) -> Processor:
    """What trains; imports torch. Raises EnvironmentNotFit, UsageError."""
    from pipelines.units import environment

    environment.verify_packages("lm", ("numpy", "torch", "safetensors"))
    from pipelines.lm.processor import LmProcessor

    return LmProcessor(parameters, resources)


def list_items(source: Path, parameters: Parameters) -> Iterator[dict[str, Any]]:
    """One item a combination of the grid; its folder of checkpoints is its identity."""
    run = plan.run_id("lm", source, None, parameters)
    base = {name: parameters[name] for name in GRID_NAMES}
    for settings in grid.combinations(base, parameters["grid"]):
        folder = paths.home() / "output" / "checkpoints" / run / grid.name_of(settings, parameters["grid"])
        yield {"audio_filepath": str(folder), "run": run, "manifest": str(source), "settings": settings}


def _models(plan: Plan) -> Path:
    """The folder of the models, of which `score` and `sample` take the best."""
    return paths.home() / "output" / "checkpoints" / plan.run_id


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
    results={
        "model": lambda plan: str(_models(plan)),
        "leaderboard": lambda plan: str(_models(plan) / "leaderboard.json"),
    },
    is_whole=files.is_whole,
    resumes=True,
)
