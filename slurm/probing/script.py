"""The batch script of `doctor --cluster`, and the options that place it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from pipelines.core import paths
from slurm import submit
from slurm.request import Request

NO_FOLDER, NO_REPOSITORY, NO_PYTHON, NO_SRUN = 41, 42, 44, 127
"""Exit statuses of the job: what it did not find on a node."""

ON_A_NODE = f"""\
place=$1 repository=$2
shift 2
for try in $(seq 30); do [ -d "$place" ] && break; sleep 0.5; done
[ -d "$place" ] || exit {NO_FOLDER}
exec >>"$place/said.${{VOXARRAY_PROBE_RANK:-${{SLURM_PROCID:-0}}}}" 2>&1
{{ cd "$repository" && [ -f slurm/probing/node.py ]; }} || exit {NO_REPOSITORY}
for python in "$@"; do
  if "$python" -E -s -c 'import sys; sys.exit(sys.version_info < (3, 9))'; then
    exec "$python" -E -s -B -m slurm.probing.node "$place"
  fi
done
exit {NO_PYTHON}"""
"""Begins with what every node has, so that whatever is missing can be named by the exit status."""


def script(place: Path, nodes: int, wanted: Request, pythons: list[str], second_to: str = "") -> str:
    """The batch script. Its output goes nowhere before its folder is seen: a job without an output file never runs.

    `second_to`: the node of a first job, for a job of one node that is to be the second.
    """
    options: dict[str, Any] = {
        "job-name": "voxarray.doctor",
        "nodes": nodes,
        "ntasks": nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": wanted.cpus,
        "mem": f"{wanted.mem_mb}M",
        "time": wanted.time,
        "output": "/dev/null",
        "chdir": "/",
        **placing(wanted),
        **({"exclude": second_to} if second_to else {}),
    }
    lines = [f"#SBATCH --{name}" if value is True else f"#SBATCH --{name}={value}" for name, value in options.items()]
    words = ["bash", "-c", ON_A_NODE, "doctor", str(place), str(paths.repository()), *pythons]
    step = f"srun --ntasks={nodes} --ntasks-per-node=1 --cpus-per-task={wanted.cpus} --kill-on-bad-exit=0"
    exports = [*submit.setup(), *(["export VOXARRAY_PROBE_RANK=1"] if second_to else [])]
    return "\n".join(["#!/bin/bash", *lines, *exports, f"{step} {shlex.join(words)}", "exit $?", ""])


def placing(wanted: Request) -> dict[str, Any]:
    """The options that say where a job may run, and for whom, as sbatch spells them."""
    named = {name: getattr(wanted, name) for name in ("partition", "account", "qos", "constraint")}
    named["gpus-per-node"] = wanted.gpus if wanted.gpu_count else None
    others = {name.replace("_", "-"): value for name, value in wanted.sbatch.items()}
    return {name: value for name, value in {**named, **others}.items() if value not in (None, False)}
