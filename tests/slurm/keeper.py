"""Keep a cluster's processes: start them, adopt every orphan of theirs, and end them all when the tests go away.

Slurm's step daemons and the jobs under them detach from whoever started them. The keeper is their "subreaper"
(prctl(2)): whatever is orphaned below it becomes its child, so that everything a cluster ever started can be found by
walking down from one process id, and nothing else can. It reads one JSON request a line from its standard input. When
that input closes, which also happens when the test process is killed with SIGKILL, it ends everything and removes the
cluster's folder, its only argument.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List

PR_SET_CHILD_SUBREAPER = 36


def descendants(root: int) -> List[int]:
    """Process ids below `root`, parents before children, without zombies."""
    children: Dict[int, List[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
        except OSError:
            continue  # it ended while we looked
        if state != "Z":
            children.setdefault(int(parent), []).append(int(entry.name))
    found: List[int] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(0), [])
        found += below
        queue += below
    return found


def end_all(root: int, patience_s: float = 60.0) -> List[int]:
    """SIGKILL everything below `root` until nothing is left; returns what outlived `patience_s` seconds."""
    deadline = time.monotonic() + patience_s
    while True:
        left = descendants(root)
        if not left or time.monotonic() > deadline:
            return left
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)


def reap(*_: Any) -> None:
    """Collect every ended child, adopted ones included: a zombie would look like a daemon that does not stop."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def start(request: Dict[str, Any]) -> int:
    """Start one process as the request {"argv", "log", "env"} says; returns its process id."""
    with Path(request["log"]).open("ab") as log:
        process = subprocess.Popen(
            request["argv"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=request["env"],
            start_new_session=True,
        )
    process.returncode = 0  # reaped by the handler above, never by this object
    return process.pid


def main() -> None:
    """Serve requests until standard input closes or SIGTERM comes; then end everything."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGCHLD, reap)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for line in sys.stdin:
            sys.stdout.write(f"{start(json.loads(line))}\n")
            sys.stdout.flush()
    finally:
        end_all(os.getpid())
        shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    main()
