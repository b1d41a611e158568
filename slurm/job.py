"""What a job runs, in its pipeline's own environment: submitit unpickles these functions by name.

Arguments are JSON, so that launcher and job may run on different versions of Python. These functions end the process
with their exit status themselves: how a task ended stands in the run's folder, and submitit's own result pickle (which
a kill can leave half written, to fail every later attempt) is never made.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import sys

log = logging.getLogger(__name__)


def run_task(text: str) -> None:
    """Run one task of a launch. `text`: JSON object with run, launch, task, cpus, gpus, memory_mb."""
    from pipelines.core import logs, paths, requeue, supervise
    from pipelines.core.errors import VoxarrayError
    from pipelines.core.pipeline import Resources

    order = json.loads(text)
    logs.to_stream(sys.stderr)
    logs.to_file(paths.task_log(order["run"], order["launch"], order["task"]))
    resources = Resources(order["cpus"], order["gpus"], order["memory_mb"])
    try:
        with requeue.heeded(f"Task {order['task']} of {order['run']}"):
            status = supervise.run_task(order["run"], order["launch"], order["task"], resources)
    except VoxarrayError as error:
        log.error("%s (On %s, with VOXARRAY_HOME=%s.)", error, platform.node(), paths.home())  # noqa: TRY400
        status = error.exit_status
    _end(status)


def run_sweep(text: str) -> None:
    """Run the sweep of a launch. `text`: JSON object with run, launch."""
    from pipelines.core import requeue
    from slurm import sweep

    order = json.loads(text)
    with requeue.heeded(f"The sweep of {order['run']}", requeue.LIVES):
        status = sweep.main([order["run"], "--launch", str(order["launch"])])
    _end(status)


def run_chain(text: str) -> None:
    """Take a chain on. `text`: JSON object with chain."""
    from pipelines.core import requeue
    from slurm.chain import conductor

    chain = json.loads(text)["chain"]
    with requeue.heeded(f"The conductor of {chain}", requeue.LIVES):
        status = conductor.main([chain])
    _end(status)


def _end(status: int) -> None:
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
