"""The worker process of a task: `python -m pipelines.core.worker RUN LAUNCH TASK`, started by the supervisor."""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import logging
import os
import signal
import sys
from contextlib import suppress
from typing import Optional, Sequence

from pipelines.core import logs, stall
from pipelines.core.errors import SOME_FAILED, VoxarrayError
from pipelines.core.pipeline import Resources
from pipelines.core.run import Run
from pipelines.core.task import TaskLoop

log = logging.getLogger(__name__)


def _die_with(supervisor: Optional[int]) -> None:
    """Ask the kernel (Linux) to kill this process when its supervisor dies, so that no ghost goes on working."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)
    if supervisor is not None and os.getppid() != supervisor:  # it died before the kernel could be asked
        os._exit(SOME_FAILED)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run one task; see the module."""
    parser = argparse.ArgumentParser(prog="pipelines.core.worker", description=__doc__)
    parser.add_argument("run")
    parser.add_argument("launch", type=int)
    parser.add_argument("task", type=int)
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--alone", default="", help="item indexes to try one by one, joined by commas")
    parser.add_argument("--supervisor", type=int, help="process that this one is not to outlive")
    parser.add_argument("--last-words", type=int, help="descriptor to say on why the task cannot go on")
    options = parser.parse_args(arguments)
    _die_with(options.supervisor)
    faulthandler.enable()
    faulthandler.register(stall.TRACE_SIGNAL)
    logs.to_stream(sys.stderr)
    alone = [int(index) for index in options.alone.split(",") if index]
    try:
        loop = TaskLoop(
            Run.open(options.run), options.launch, options.task, Resources(options.cpus, options.gpus), alone
        )
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, loop.warn)
        return loop.work()
    except VoxarrayError as error:
        log.error("%s", error)  # noqa: TRY400 - the paragraph says it all
        _say(options.last_words, str(error))
        return error.exit_status
    except BaseException as error:
        log.exception("The task cannot go on.")
        _say(options.last_words, f"{type(error).__name__}: {error}. The log has the traceback.")
        return SOME_FAILED


def _say(descriptor: Optional[int], words: str) -> None:
    """Tell the supervisor, for the log may be on the disk that is full."""
    with suppress(OSError):
        os.write(descriptor if descriptor is not None else -1, words.encode("utf-8", "replace")[:4000])


if __name__ == "__main__":
    STATUS = main()
    logging.shutdown()
    sys.stderr.flush()
    # Threads of a model, or batches past their grace time, must not keep a finished process alive.
    os._exit(STATUS)
