"""How a chain stands: its folder, its links' states, and which chain is meant.

`output/chains/ID/` holds `chain.json` (what it does), `state.json` (how it stands), `recipe.toml` (a copy),
`chain.log` (what its conductor said) and LINK.txt (what a tool printed). What is done is known from the runs' own
receipts: the state only says what was last seen, and whom the chain waits for.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Optional

import msgspec

from pipelines.core import clock, paths, store
from pipelines.core.errors import StorageError, UsageError, listed
from slurm.chain.plan import Link

WAITING, RUNNING, DONE, STOPPED = "waiting", "running", "done", "stopped"
FORMAT = 1


class Order(msgspec.Struct, frozen=True):
    """`chain.json`. `flags`: launch flags of all links."""

    format: int
    id: str
    title: str
    recipe: str
    values: dict[str, str]
    links: list[Link]
    flags: list[str]
    where: str
    created: str

    def link(self, name: str) -> Link:
        """The link of that name."""
        return next(link for link in self.links if link.name == name)


class Standing(msgspec.Struct):
    """How a link stands. `sweep` and `conductor`: the job that is waited for, and the job that waits."""

    state: str = WAITING
    message: str = ""
    run: Optional[str] = None
    launch: Optional[int] = None
    sweep: Optional[str] = None
    conductor: Optional[str] = None
    revivals: int = 0
    given_up: int = 0
    inputs: str = ""
    results: dict[str, str] = {}
    since: str = ""


class State(msgspec.Struct):
    """`state.json`. `host`, `pid`, `began`: of the process that conducts a chain on this machine, while it does.

    `job`: the conductor that is at it, or was put back into the queue in the middle.
    """

    format: int
    id: str
    links: dict[str, Standing]
    pid: Optional[int] = None
    host: str = ""
    began: str = ""
    job: Optional[str] = None

    @property
    def state(self) -> str:
        """done, stopped (of some link nothing more will come by itself), running or waiting."""
        states = [link.state for link in self.links.values()]
        if all(state == DONE for state in states):
            return DONE
        return next((state for state in (RUNNING, STOPPED) if state in states), WAITING)

    @property
    def runs(self) -> dict[str, str]:
        """Link → run, of those that have one."""
        return {name: link.run for name, link in self.links.items() if link.run}


def folder(chain: str) -> Path:
    """Where a chain's files lie."""
    return paths.home() / "output" / "chains" / chain


def output_path(chain: str, link: str) -> Path:
    """Where what a tool printed lies; the values in a link's name may hold anything."""
    return folder(chain) / f"{re.sub(r'[^A-Za-z0-9._=-]+', '_', link).strip('_')}.txt"


def cancelled_path(chain: str) -> Path:
    """The marker that `cancel` leaves: no conductor may go on."""
    return folder(chain) / "cancelled"


def write_order(order: Order) -> None:
    """Publish what a chain does."""
    store.write_json(folder(order.id) / "chain.json", order)


def read_order(chain: str) -> Order:
    """What a chain does. Raises UsageError where there is no such chain, StorageError where it cannot be read."""
    order: Order = _read(folder(chain) / "chain.json", Order, chain)
    return order


def write(state: State) -> None:
    """Publish how a chain stands."""
    store.write_json(folder(state.id) / "state.json", state)


def read(chain: str) -> State:
    """How a chain stands. Raises as `read_order`."""
    whole: State = _read(folder(chain) / "state.json", State, chain)
    return whole


def _read(path: Path, kind: Any, chain: str) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        raise UsageError(f"There is no chain {chain!r} under {folder(chain).parent}. {_known()}") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise StorageError(
            f"{path} cannot be read ({error}); it was changed by hand or damaged. Nothing of the chain's runs is "
            "touched: give the same `voxarray run …` again, which writes it anew."
        ) from None


def fresh(order: Order, state: Optional[State]) -> State:
    """The state with which a command takes a chain up: what ran or stopped is looked at anew."""
    links = {}
    for link in order.links:
        before = state.links.get(link.name) if state is not None else None
        links[link.name] = Standing(since=clock.iso())
        if before is not None:
            kept = links[link.name]
            kept.run, kept.inputs, kept.sweep, kept.conductor = (
                before.run,
                before.inputs,
                before.sweep,
                before.conductor,
            )
    return State(FORMAT, order.id, links)


def ids() -> list[str]:
    """All chains, the one that changed last at the end."""
    found = [(path.stat().st_mtime, path.parent.name) for path in folder("_").parent.glob("*/chain.json")]
    return [name for _, name in sorted(found)]


def find(text: str) -> Optional[str]:
    """The chain that is meant: its id, the beginning of that, or its folder; None where there is none such.

    The beginning goes past the recipe's name, which runs may have, too. Raises UsageError where several fit.
    """
    known = ids()
    name = Path(text).name if Path(text).parent == folder("_").parent else text
    if name in known:
        return name
    fit = [each for each in known if each.startswith(name) and len(name) > len(each.rpartition("-")[0]) + 1]
    if len(fit) > 1:
        raise UsageError(f"{text!r} may mean {len(fit)} chains: {listed(fit[::-1], len(fit))}. Give one of these ids.")
    return fit[0] if fit else None


def _known() -> str:
    known = ids()
    return f"The latest are {listed(known[::-1], len(known))}." if known else "There are none."
