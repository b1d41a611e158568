"""`python -m tests.core.toy NAME …`: a toy pipeline's command line; `merge RUN` and `launch RUN TASKS` beside it."""

from __future__ import annotations

import sys
from typing import List

from pipelines.core import cli, logs, merge, registry
from pipelines.core.errors import VoxarrayError
from pipelines.core.run import Run, Wish


def main(arguments: List[str]) -> int:
    """What was asked for; the exit status."""
    name, rest = arguments[0], arguments[1:]
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
