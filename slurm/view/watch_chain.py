"""`status CHAIN`: how a chain stands, once, as JSON, or kept in view with a line for the run of each of its steps."""

from __future__ import annotations

import sys
import time
from typing import Any, Optional, Sequence

import msgspec

from pipelines.core.run import Run
from slurm.chain import show as chains
from slurm.chain import state
from slurm.view import watch
from slurm.view.standing import Looker, Standing
from slurm.view.text import Terminal

_ASK_EVERY_S = 10.0
"""Whether a chain on Slurm goes on is asked of its queue: not at every look."""
_AT_WORK = (state.RUNNING, state.WAITING)


class Chain:
    """A chain for the live view: its steps' runs as they come, and what stands above them."""

    def __init__(self, chain: str) -> None:
        self.id = chain
        self.is_over = False
        self._looker = Looker()
        self._asked, self._states = float("-inf"), [""]
        self._runs: dict[str, Run] = {}
        self._steps: dict[str, str] = {}
        self._head: Sequence[str] = [chain]

    def runs(self) -> Sequence[Run]:
        """The runs of the steps that have one, in the chain's order."""
        whole = state.read(self.id)
        states = [link.state for link in whole.links.values()]
        if states != self._states or time.monotonic() - self._asked > _ASK_EVERY_S:
            view = chains.look(self.id, self._looker)
            self._asked, self._states = time.monotonic(), states
            self._head = chains.render(view, Terminal())[:2]
            self.is_over = view.state not in _AT_WORK
        self._steps = {run: step for step, run in whole.runs.items()}
        for run in self._steps:
            if run not in self._runs:
                self._runs[run] = Run.open(run)
        return [self._runs[run] for run in self._steps]

    def step(self, run: Run) -> str:
        """The step that a run belongs to."""
        return self._steps.get(run.id, "")

    def head(self) -> Sequence[str]:
        """What the chain is, and how many of its steps are done."""
        return self._head

    def over(self, _: Sequence[Standing]) -> bool:
        """Whether no step is at work or will be."""
        return self.is_over


def show(chain: str, every_s: Optional[float], *, as_json: bool) -> int:
    """Print a chain (`every_s`: again and again, until it is over or the reader leaves); returns the exit status."""
    looker = Looker()

    def encoded(_: object = None) -> dict[str, Any]:
        return chains.as_json(chains.look(chain, looker))

    if every_s is not None:
        known = Chain(chain)
        watch.watch(
            known.runs,
            every_s=every_s,
            label=known.step,
            head=known.head,
            over=known.over,
            encode=encoded if as_json else None,
        )
    elif as_json:
        print(msgspec.json.format(msgspec.json.encode(encoded()), indent=2).decode())
    view = chains.look(chain, looker)
    if not as_json and (every_s is None or sys.stdout.isatty()):
        watch.say(chains.render(view, Terminal.of(sys.stdout)))
    return view.exit_status
