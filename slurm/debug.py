"""`--cluster debug`: every task of a launch in one process of the pipeline's Python, so that breakpoints work."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Optional, Sequence

from pipelines.core import logs, merge, paths
from pipelines.core.errors import DONE, SOME_FAILED, VoxarrayError
from pipelines.core.launches import LaunchRecord
from pipelines.core.pipeline import Resources
from pipelines.core.run import Run
from slurm.request import Request


def start(run: Run, record: LaunchRecord, wanted: Request) -> int:
    """Run a launch in the foreground of this terminal; returns the exit status."""
    environment = {**os.environ, "PYTHONPATH": str(paths.repository()), "VOXARRAY_HOME": str(paths.home())}
    command = [wanted.python, "-m", "slurm.debug", run.id, str(record.number), str(wanted.cpus), str(wanted.gpu_count)]
    try:
        return subprocess.run(command, env=environment, check=False).returncode
    except KeyboardInterrupt:
        return SOME_FAILED


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """`python -m slurm.debug RUN LAUNCH CPUS GPUS`, in the pipeline's environment. Exceptions reach the terminal."""
    from pipelines.core.task import TaskLoop

    name, launch, cpus, gpus = sys.argv[1:] if arguments is None else arguments
    logs.to_stream(sys.stderr, plain=True)
    try:
        run = Run.open(name)
        for task in range(run.record(int(launch)).tasks):
            status = TaskLoop(run, int(launch), task, Resources(int(cpus), int(gpus))).work()
            if status != DONE:
                return SOME_FAILED
        receipt = merge.merge(run)
    except VoxarrayError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("Stopped. What was published is kept; the same command resumes.", file=sys.stderr)
        return SOME_FAILED
    print(merge.summary(receipt))
    return SOME_FAILED if receipt.quarantined else DONE


if __name__ == "__main__":
    sys.exit(main())
