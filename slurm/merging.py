"""Merges from the launcher: here, or in the pipeline's own environment where its outputs need that."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Sequence

import msgspec

from pipelines.core import merge as engine
from pipelines.core import paths
from pipelines.core.errors import IncompleteRunError, VoxarrayError
from pipelines.core.merge import Receipt
from pipelines.core.run import Run

_REFUSED = 9
"""Exit status of the process below that has refused to merge, and said why on its standard output."""


class _Refusal(msgspec.Struct):
    incomplete: bool
    message: str
    exit_status: int


def merge(run: Run, partial: bool = False, if_due: bool = False) -> Receipt:
    """Merge a run; as `pipelines.core.merge.merge`, wherever that has to happen."""
    if not run.pipeline.merge_in_environment:
        return engine.merge(run, partial, if_due)
    from slurm import environments

    name = run.plan.environment.name
    environments.ensure(name)
    python = str(environments.python(name))
    if os.path.realpath(sys.prefix) == os.path.realpath(environments.prefix(name)):
        return engine.merge(run, partial, if_due)
    return _merge_there(python, run, partial, if_due)


def _merge_there(python: str, run: Run, partial: bool, if_due: bool) -> Receipt:
    flags = [*(["--partial"] if partial else []), *(["--if-due"] if if_due else [])]
    environment = {**os.environ, "PYTHONPATH": str(paths.repository()), "VOXARRAY_HOME": str(paths.home())}
    command = [python, "-m", "slurm.merging", run.id, *flags]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=False)
    if done.returncode == _REFUSED:
        refusal = msgspec.json.decode(done.stdout, type=_Refusal)
        error = (IncompleteRunError if refusal.incomplete else VoxarrayError)(refusal.message)
        error.exit_status = refusal.exit_status
        raise error
    if done.returncode != 0:
        raise VoxarrayError(
            f"The merge of {run.id} in the environment {run.plan.environment.name} ended with status "
            f"{done.returncode}; its messages stand above. Nothing was published, and the parts are untouched: "
            f"`./voxarray merge {run.id}` tries again."
        )
    return msgspec.json.decode(done.stdout, type=Receipt)


def main(arguments: Sequence[str]) -> int:
    """`python -m slurm.merging RUN [--partial] [--if-due]`, in the pipeline's environment: a receipt, or a refusal."""
    run = Run.open(arguments[0])
    try:
        receipt = engine.merge(run, "--partial" in arguments, "--if-due" in arguments)
    except VoxarrayError as error:
        _say(_Refusal(isinstance(error, IncompleteRunError), str(error), error.exit_status))
        return _REFUSED
    _say(receipt)
    return 0


def _say(answer: msgspec.Struct) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
