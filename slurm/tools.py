"""Commands that need a pipeline's environment: started there, with the arguments as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Sequence

from pipelines.core import paths
from slurm import environments


def import_checkpoint(arguments: Sequence[str]) -> int:
    """`import-checkpoint …`: a published checkpoint becomes a model folder."""
    return _run("units", "pipelines.units.importing", arguments)


def parity(arguments: Sequence[str]) -> int:
    """`parity encode …`: both backends on the same files."""
    if not any(argument in ("-h", "--help") for argument in arguments):
        environments.ensure("sts")
    both = [
        "--native-python",
        str(environments.python("units")),
        "--reference-python",
        str(environments.python("sts")),
    ]
    return _run("units", "pipelines.units.parity", [*arguments, *both])


def wer(arguments: Sequence[str]) -> int:
    """`wer MANIFEST`: word error rates."""
    return _run("asr", "pipelines.asr.wer", arguments)


def _run(environment: str, module: str, arguments: Sequence[str]) -> int:
    interpreter = sys.executable  # --help needs no environment
    if not any(argument in ("-h", "--help") for argument in arguments):
        environments.ensure(environment)
        interpreter = str(environments.python(environment))
    command = [interpreter, "-m", module, *arguments]
    variables = {**os.environ, "PYTHONPATH": str(paths.repository()), "VOXARRAY_HOME": str(paths.home())}
    try:
        return subprocess.run(command, env=variables, check=False).returncode
    except KeyboardInterrupt:
        return 1
