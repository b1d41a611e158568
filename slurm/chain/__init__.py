"""Chains: several pipelines, one after the other, from one recipe. `run` is the Python call of `./voxarray run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping, Union

if TYPE_CHECKING:
    from slurm.chain.state import State


def run(recipe: Union[str, Path], values: Mapping[str, str], **options: Any) -> State:
    """Run a recipe (a file, or the name of a shipped one), and return how the chain stands then.

    `options`: the command's own, as `cluster="slurm"`, `partition="gpu"`, `tasks=16`, `wait=True`. A chain on Slurm
    goes on by itself unless `wait`; one on this machine is done when this returns. Raises VoxarrayError.
    """
    from slurm.chain import command

    return command.run(recipe, values, **options)
