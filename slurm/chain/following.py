"""Following a chain from a terminal, and what is told at its end."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Callable, Optional

from pipelines.core.errors import DONE as ALL_DONE
from pipelines.core.errors import SOME_FAILED, ClusterNotFit, VoxarrayError
from slurm import cluster, launch
from slurm.chain import state
from slurm.chain.state import DONE, RUNNING, STOPPED, Order, State

_POLL_S = 1.0
_QUEUE_EVERY_S = 15.0
_LOST_AFTER = 3


def conductor_here(chain: str) -> Optional[int]:
    """The other process on this machine that conducts a chain, if one lives."""
    try:
        whole = state.read(chain)
    except VoxarrayError:
        return None
    if whole.pid is None or whole.pid == os.getpid() or whole.host != socket.gethostname():
        return None
    return whole.pid if whole.began and began(whole.pid) == whole.began else None


def began(pid: int) -> str:
    """When a process of this machine began, in the kernel's ticks: its number alone may go to another. Empty: gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def follow_here(chain: str, pid: int) -> int:
    """Follow a chain that another process on this machine conducts. Ctrl-C leaves it running."""
    return _follow(chain, lambda: conductor_here(chain) == pid)


def follow_there(chain: str) -> int:
    """Follow a chain on Slurm. Ctrl-C leaves it running."""
    asked = [0.0, 0.0]

    def alive() -> bool:
        if time.monotonic() - asked[0] > _QUEUE_EVERY_S:
            asked[0] = time.monotonic()
            asked[1] = 0 if is_conducted(chain) else asked[1] + 1
        return asked[1] < _LOST_AFTER

    return _follow(chain, alive)


def is_conducted(chain: str) -> bool:
    """Whether a job waits to take the chain on, or is at it; yes, too, where Slurm does not answer."""
    whole = state.read(chain)
    jobs = [link.conductor for link in whole.links.values() if link.state == RUNNING and link.conductor]
    jobs += [whole.job] if whole.job else []
    try:
        return bool(jobs and cluster.queue(jobs))
    except ClusterNotFit:
        return True


def _follow(chain: str, alive: Callable[[], bool]) -> int:
    """Tell what changes, until the chain has ended or `alive` says that nothing takes it on."""
    told: dict[str, str] = {}
    try:
        while True:
            whole = state.read(chain)
            for name, link in whole.links.items():
                line = f"{name}: {link.state}{f' ({link.message})' if link.message else ''}"
                if link.state != state.WAITING and told.get(name) != line:
                    told[name] = line
                    launch.say(line)
            if whole.state in (DONE, STOPPED):
                return conclude(state.read_order(chain), whole)
            if not alive() and state.read(chain).state == whole.state:
                launch.say(lost(chain))
                return SOME_FAILED
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        launch.say(f"\nThe chain goes on; `./voxarray status {chain}` shows how far it is.")
        return ALL_DONE


def lost(chain: str) -> str:
    """The message for a chain that nothing takes on any more."""
    return (
        f"Nothing takes {chain} on any more: its conductor was cancelled or died (its log is "
        f"{state.folder(chain) / 'chain.log'}). What was done is kept; the same `voxarray run …` goes on."
    )


def conclude(order: Order, whole: State) -> int:
    """Tell how a chain ended; the exit status."""
    stopped = {name: link for name, link in whole.links.items() if link.state == STOPPED}
    for name, link in stopped.items():
        launch.say(f"The chain stopped at {name}: {link.message}")
    if whole.state == DONE:
        print(f"{order.title}: done, {len(order.links)} steps.")
        for name, link in whole.links.items():
            where = link.results.get("manifest") or next(iter(link.results.values()), "")
            print(f"  {name:24} {link.message}{f'  -> {where}' if where and where != link.message else ''}")
        return SOME_FAILED if any(link.given_up for link in whole.links.values()) else ALL_DONE
    if not stopped:
        launch.say(f"The chain {order.id} was cancelled.")
    launch.say("What was done is kept; once that is mended, the same `voxarray run …` does what is missing.")
    return SOME_FAILED
