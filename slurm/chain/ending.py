"""`cancel CHAIN`: end what is at work in a chain, and keep anything from going on."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from pipelines.core import clock, store
from pipelines.core.errors import DONE as ALL_DONE
from pipelines.core.run import Run
from slurm import cluster, control
from slurm.chain import following, state
from slurm.chain.state import RUNNING


def cancel(chain: str) -> int:
    """Cancel a chain; the exit status. The marker comes first: a conductor must see it whatever happens after."""
    whole = state.read(chain)
    store.publish(state.cancelled_path(chain), f"{clock.iso()}\n".encode())
    waiting = [link.conductor for link in whole.links.values() if link.conductor]
    if state.read_order(chain).where == "slurm":
        cluster.end(waiting)
    ended = [
        control.cancelled(Run.open(link.run)) for link in whole.links.values() if link.state == RUNNING and link.run
    ]
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
