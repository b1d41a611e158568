"""How a chain stands, for people and for programs.

JSON (format 1; fields are added, never renamed or removed): chain · title · state (waiting, running, done, stopped,
cancelled, lost) · where (slurm, local, debug) · steps [{step, command, after, state (waiting, running, done, stopped),
message, since, run, results {name: path}, status: the run as in slurm/view/run_json.py (`null` unless it is running)}]
"""

from __future__ import annotations

import shlex
from typing import Any, NamedTuple, Optional

from pipelines.core import clock
from pipelines.core.errors import DONE as ALL_DONE
from pipelines.core.errors import SOME_FAILED
from pipelines.core.run import Run
from slurm.chain import following, state
from slurm.chain.state import DONE, RUNNING, STOPPED, WAITING, Order, State
from slurm.view import run_json
from slurm.view.standing import Looker, Standing
from slurm.view.text import Column, Terminal, table
from slurm.view.words import brief, figures, share

FORMAT = 1
_COLUMNS = [Column("step"), Column("state"), Column("items", right=True), Column("", spare=1), Column("run", spare=2)]
_STYLES = {RUNNING: "green", DONE: "dim", WAITING: "yellow"}


class View(NamedTuple):
    """A chain at one moment. `standings`: of the runs at work, by step."""

    order: Order
    whole: State
    state: str
    standings: dict[str, Standing]

    @property
    def exit_status(self) -> int:
        """0 while it may still come to a good end."""
        good = self.state in (DONE, RUNNING, WAITING)
        return ALL_DONE if good else SOME_FAILED


def look(chain: str, looker: Optional[Looker] = None) -> View:
    """How a chain stands now. Raises UsageError where there is none of that id."""
    order, whole = state.read_order(chain), state.read(chain)
    looker = looker or Looker()
    standings = {
        name: looker.look(Run.open(link.run))
        for name, link in whole.links.items()
        if link.state == RUNNING and link.run
    }
    return View(order, whole, _state(order, whole), standings)


def _state(order: Order, whole: State) -> str:
    if whole.state == DONE:
        return DONE
    if state.cancelled_path(order.id).exists():
        return "cancelled"
    if order.where != "slurm":
        alive = following.conductor_here(order.id) is not None
        return RUNNING if alive else STOPPED if whole.state == STOPPED else "lost"
    if whole.state == RUNNING or (whole.state == WAITING and whole.job is not None):  # between two steps, too
        return RUNNING if following.is_conducted(order.id) else "lost"
    return whole.state


def render(view: View, terminal: Terminal) -> list[str]:
    """The lines of `status CHAIN`."""
    order, whole = view.order, view.whole
    lines = [f"{terminal.paint(order.id, 'bold')}: {order.title}", f"{_sentence(view)}", ""]
    lines += table(terminal, _COLUMNS, [_row(view, name, terminal) for name in whole.links])
    lines += [
        f"\n{terminal.paint(name, 'red')} stopped: {link.message}"
        for name, link in whole.links.items()
        if link.state == STOPPED
    ]
    return [*lines, "", *(terminal.paint(text, "dim") for text in _next(view))]


def _sentence(view: View) -> str:
    done = sum(link.state == DONE for link in view.whole.links.values())
    words = {
        DONE: "Done.",
        RUNNING: "At work; each step starts when the one before is merged.",
        WAITING: "Not begun.",
        STOPPED: "Stopped.",
        "cancelled": "Cancelled.",
        "lost": following.lost(view.order.id),
    }
    return f"{done} of {len(view.whole.links)} steps are done. {words[view.state]}"


def _row(view: View, name: str, terminal: Terminal) -> list[str]:
    link, seen = view.whole.links[name], view.standings.get(name)
    shown = terminal.paint(link.state, _STYLES.get(link.state, "red"))
    if seen is not None:
        told = [share(seen.done + seen.quarantined, seen.items)] if seen.items else []
        told += [f"{figures(seen.speed)} × real time"] if seen.speed else []
        told += [f"{brief(seen.eta_s)} left"] if seen.eta_s is not None else []
        told += seen.notes[:1]
        return [name, shown, f"{seen.items:,}", ", ".join(told) or seen.state, link.run or ""]
    if link.state == WAITING:
        left = [other for other in view.order.link(name).after if view.whole.links[other].state != DONE]
        return [name, shown, "", f"for {', '.join(left)}" if left else link.message, link.run or ""]
    items, _, more = link.message.partition(" items")
    counted = items if link.state == DONE and items.replace(",", "").isdigit() else ""
    return [name, shown, counted, more.strip(", ") if link.state == DONE else "", link.run or ""]


def _next(view: View) -> list[str]:
    order = view.order
    again = shlex.join(["voxarray", "run", order.recipe, *(f"{key}={value}" for key, value in order.values.items())])
    texts = {
        DONE: f"`./voxarray report {order.id}` makes one page of all steps.",
        RUNNING: f"`./voxarray cancel {order.id}` ends it; `./voxarray status RUN` tells more of a step.",
    }
    return [texts.get(view.state, f"`{again}` goes on.")]


def as_json(view: View) -> dict[str, Any]:
    """The chain for programs."""
    steps = []
    for link in view.order.links:
        standing = view.whole.links[link.name]
        seen = view.standings.get(link.name)
        steps.append(
            {
                "step": link.name,
                "command": shlex.join(link.words),
                "after": link.after,
                "state": standing.state,
                "message": standing.message,
                "since": standing.since or None,
                "run": standing.run,
                "results": standing.results,
                "status": run_json.run(seen) if seen is not None else None,
            }
        )
    return {
        "format": FORMAT,
        "chain": view.order.id,
        "title": view.order.title,
        "state": view.state,
        "where": view.order.where,
        "time": clock.iso(),
        "steps": steps,
    }
