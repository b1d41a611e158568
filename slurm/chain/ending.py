"""`cancel CHAIN`: end what is at work in a chain, and keep anything from going on."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Iterator

from pipelines.core import clock, lock, store
from pipelines.core.errors import DONE as ALL_DONE
from pipelines.core.errors import LockedError, VoxarrayError
from pipelines.core.run import Run
from slurm import cluster, control, launch
from slurm.chain import beforehand, doing, following, state
from slurm.chain.state import DONE, RUNNING, Order

_WAIT_S = 60.0
"""Slurm ends a job within half a minute; a command at a terminal sees the marker by itself."""


def cancel(chain: str) -> int:
    """Cancel a chain; the exit status. The marker comes first: a conductor must see it whatever happens after."""
    order, whole = state.read_order(chain), state.read(chain)
    if whole.state == DONE:
        print(f"The chain {chain} is done; there is nothing to cancel.")
        return ALL_DONE
    store.publish(state.cancelled_path(chain), f"{clock.iso()}\n".encode())
    runs = {link.run: Run.open(link.run) for link in whole.links.values() if link.state == RUNNING and link.run}
    if order.where == "slurm":
        with lock.tried(state.folder(chain) / "chain.lock") as free:
            pass
        conductors = [whole.job, *(link.conductor for link in whole.links.values())]
        cluster.end([job for job in conductors if job])
        if not free:  # a conductor was at it, and may have been ended between a submission and its note of that
            runs.update({run.id: run for run in _begun(order)})
    ended = [control.cancelled(run) for run in runs.values()]
    busy = following.conductor_here(chain)
    if busy is not None:
        with suppress(OSError):
            os.kill(busy, signal.SIGINT)
    told = [text for text in ended if text]
    print(
        f"Cancelled the chain {chain}{': ' + '; '.join(told) if told else ''}. What is published stays; the same "
        "`voxarray run …` goes on."
    )
    return ALL_DONE


def _begun(order: Order) -> Iterator[Run]:
    """Runs of the links whose turn it is, once nobody takes the chain on any more."""
    with suppress(LockedError), lock.held(state.folder(order.id) / "chain.lock", _WAIT_S, f"The chain {order.id}"):
        pass
    whole = state.read(order.id)
    for link in order.links:
        if whole.links[link.name].state == DONE or any(whole.links[name].state != DONE for name in link.after):
            continue
        with suppress(VoxarrayError, KeyError), beforehand.at_home():
            results = {name: other.results for name, other in whole.links.items()}
            run = launch.existing(doing.given(order, link, doing.words(link, results)).decision)
            if run is not None:
                yield run
