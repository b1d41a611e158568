"""`python -m tests.core.toy NAME …`: a toy pipeline's command line, and beside it what a launcher does.

`merge RUN [--partial]`, `launch RUN TASKS`, `task run RUN LAUNCH TASK`. Variables: `TOY_NO_LOCKS`, `TOY_NO_LINKS` take
locks and hard links away.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from typing import List

from pipelines.core import cli, logs, merge, registry, supervise
from pipelines.core.errors import VoxarrayError
from pipelines.core.run import Run, Wish


def main(arguments: List[str]) -> int:
    """What was asked for; the exit status."""
    name, rest = arguments[0], arguments[1:]
    _cripple()
    if name == "task":
        logs.to_stream(sys.stderr)
        return supervise.run_task(rest[1], int(rest[2]), int(rest[3]))
    if name not in ("merge", "launch"):
        return cli.main(registry.find(name), rest)
    logs.to_stream(sys.stderr)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    try:
        if name == "merge":
            merge.merge(Run.open(rest[0]), partial="--partial" in rest)
        else:
            Run.open(rest[0]).new_launch(Wish(int(rest[1])))
    except VoxarrayError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_status
    return 0


def _cripple() -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    if os.environ.get("TOY_NO_LOCKS"):
        fcntl.flock = refuse
    if os.environ.get("TOY_NO_LINKS"):
        os.link = refuse


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
