"""Several processes for one training, started as torchrun does; all die with the process that started them.

torchrun itself would have to be told to stop without killing, and would live on where its own parent is killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Callable, Sequence

_POLL_S = 0.1
_PATIENCE_S = 60.0
"""What the others get to end by themselves when one has failed."""


def run(module: str, argument: Path, count: int, stopping: Callable[[], bool]) -> int:
    """`python -m MODULE ARGUMENT` `count` times, with torchrun's variables. Returns the worst exit status.

    Once `stopping` says yes, each gets SIGTERM, once.
    """
    port = free_port()
    started = [_start(module, argument, rank, count, port) for rank in range(count)]
    told, failed_at = False, None
    try:
        while None in (states := [process.poll() for process in started]):
            if stopping() and not told:
                told = True
                for process in started:
                    process.send_signal(signal.SIGTERM)
            if failed_at is None and any(states):
                failed_at = time.monotonic()
            if failed_at is not None and time.monotonic() - failed_at > _PATIENCE_S:
                _kill(started)
            time.sleep(_POLL_S)
    finally:
        _kill(started)
    return max((abs(process.wait()) for process in started), default=0)


def _start(module: str, argument: Path, rank: int, count: int, port: int) -> subprocess.Popen[bytes]:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    env = {**os.environ, **{name: str(value) for name, value in place.items()}, "MASTER_ADDR": "127.0.0.1"}
    command = [sys.executable, "-m", "pipelines.lm.several", str(os.getpid()), module, str(argument)]
    return subprocess.Popen(command, env=env)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def _kill(started: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in started:
        with suppress(OSError):
            if process.poll() is None:
                process.kill()


def main() -> None:
    """Become the module, but only while the parent lives (Linux: the kernel sees to it)."""
    parent, module, *arguments = sys.argv[1:]
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        os._exit(1)
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606 - the death signal outlives it


if __name__ == "__main__":
    main()
