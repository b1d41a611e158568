"""A run: one pipeline, one source, one set of parameters; its folder, launches and parts."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Callable, Iterable, Iterator, NamedTuple, Optional

import msgspec

from pipelines.core import clock, launches, ledger, listing, parts, paths, plan, provenance, registry, store, suspects
from pipelines.core.errors import StorageError, UsageError
from pipelines.core.launches import LaunchRecord
from pipelines.core.manifest import Identity, Item, refuse_changed
from pipelines.core.manifest import items as items_of
from pipelines.core.parts import Row
from pipelines.core.pipeline import Parameters, Pipeline
from pipelines.core.plan import Plan
from pipelines.core.scan import Scan, known, scan
from pipelines.core.shard import BALANCED, ROUND_ROBIN, WARN_IMBALANCE, Balanced, RoundRobin, Sharding

log = logging.getLogger(__name__)


class Wish(NamedTuple):
    """What a new launch should be. `limit`: at most so many items; `pardon`: quarantined items get another chance."""

    tasks: int
    sharding: str = ROUND_ROBIN
    deal: str = launches.MISSING
    cluster: str = "process"
    job: Optional[str] = None
    submitted_tasks: Optional[int] = None
    pardon: bool = False
    limit: Optional[int] = None
    sweep_round: int = 0
    relist: bool = True


class Run:
    """An existing run, or one that `create` makes."""

    def __init__(self, run_plan: Plan) -> None:
        self.plan = run_plan
        self.folder = paths.run_folder(run_plan.run_id)

    @classmethod
    def create(
        cls, pipeline: Pipeline, source: Path, stem: Optional[Path], parameters: Parameters, fresh: bool = False
    ) -> Run:
        """The run of this command: the one that exists, or a new one. `fresh` moves an existing one aside."""
        name = plan.run_id(pipeline.name, source, stem, parameters)
        folder = paths.run_folder(name)
        if fresh or not store.is_published(folder / "run.json"):
            draft, diff = plan.draft(pipeline, source, stem, parameters)
            if fresh:
                _set_aside(folder)
            if diff:
                store.ensure(folder / "code.diff", diff)
            store.ensure(folder / "run.json", store.pretty(draft))
        return cls.open(name)

    @classmethod
    def open(cls, run_id: str) -> Run:
        """The run of that id."""
        path = paths.run_folder(run_id) / "run.json"
        try:
            return cls(msgspec.json.decode(path.read_bytes(), type=Plan))
        except FileNotFoundError:
            raise UsageError(f"There is no run {run_id!r} under {paths.runs()}. {_known_runs()}") from None
        except msgspec.MsgspecError as error:
            raise StorageError(
                f"The plan {path} cannot be read ({error}); it was changed by hand or damaged. Restore "
                "it, or start the run anew with --fresh."
            ) from None

    @property
    def id(self) -> str:
        """The run's id."""
        return self.plan.run_id

    @property
    def pipeline(self) -> Pipeline:
        """The run's pipeline."""
        return registry.find(self.plan.pipeline)

    @property
    def manifest(self) -> Path:
        """The manifest that is dealt and merged."""
        return Path(self.plan.manifest)

    def parts_folder(self, launch: int) -> Path:
        """Where the parts of a launch are."""
        return self.folder / "parts" / paths.launch_name(launch)

    def state_folder(self, launch: int) -> Path:
        """Where the heartbeats, breadcrumbs, locks and end receipts of a launch are."""
        return self.folder / "state" / paths.launch_name(launch)

    def launch_numbers(self) -> list[int]:
        """The numbers of this run's launches, ascending."""
        return launches.numbers(self.folder)

    def record(self, launch: int) -> LaunchRecord:
        """The record of a launch."""
        return launches.read_record(self.folder, launch)

    def records(self) -> list[LaunchRecord]:
        """All launch records, ascending."""
        return [self.record(number) for number in self.launch_numbers()]

    def deal(self, launch: int) -> launches.Deal:
        """The deal of a launch."""
        return launches.Deal(launches.deal_path(self.folder, launch))

    def pardoned_before(self) -> int:
        """Strikes of launches below this number are void."""
        return max((record.number for record in self.records() if record.pardon), default=0)

    def part_files(self, first_launch: int = 0) -> Iterator[tuple[int, int, Path]]:
        """(launch, task, path) of every published part, from `first_launch` on."""
        for launch in self.launch_numbers():
            if launch >= first_launch:
                for task, _, path in parts.list_parts(self.parts_folder(launch)):
                    yield launch, task, path

    def rows(self) -> Iterator[tuple[int, Row]]:
        """(launch, row) of every published row, in no particular order."""
        for launch, _, path in self.part_files():
            for row in parts.rows(path):
                yield launch, row

    def account(self, scan: Scan) -> ledger.Account:
        """How every item of the scanned manifest stands."""
        pardoned_before = self.pardoned_before()
        with ledger.Book(scan, self.pipeline.is_whole) as book:
            for record in self.records():
                for _, _, path in parts.list_parts(self.parts_folder(record.number)):
                    book.enter(path, record.manifest.order, counted=record.number >= pardoned_before)
            return book.account()

    def scan(self, relist: bool = False, sizes: bool = False) -> Scan:
        """Validate and identify the manifest; for a directory, list it first where that is due. Close the result.

        A manifest that a launch has validated, byte for byte, is not validated again.
        """
        if self.pipeline.lists and (relist or not self.manifest.exists()):
            listing.publish(self.pipeline, Path(self.plan.source), self.plan.parameters, self.manifest, sizes)
        requires = ("audio_filepath",) if self.pipeline.lists else self.pipeline.requires
        identities = (record.manifest for record in self.records())
        return known(self.manifest, identities) or scan(self.manifest, requires, self._name_of)

    @property
    def _name_of(self) -> Optional[Callable[[Item], Optional[str]]]:
        """What a pipeline that writes a file for each item calls it."""
        name, parameters = self.pipeline.output_name, self.plan.parameters
        return None if name is None else lambda item: name(item, parameters)

    def new_launch(self, wish: Wish, say: Callable[[str], None] = log.warning) -> Optional[LaunchRecord]:
        """Deal what is missing, and publish the launch. None where nothing is missing. `say` gets the warnings."""
        suspected = suspects.of_earlier_launches(self)
        with self.scan(wish.relist, wish.sharding == BALANCED) as scan:
            for note in scan.notes:
                say(note)
            states = self.account(scan).states
            if wish.pardon:
                _release(states)
            if wish.deal == launches.MISSING and not (ledger.MISSING in states or ledger.STRUCK in states):
                return None
        return self._publish_launch(wish, scan.identity, states, suspected, say)

    def _publish_launch(
        self, wish: Wish, identity: Identity, states: bytearray, suspected: list[str], say: Callable[[str], None]
    ) -> LaunchRecord:
        private = store.temporary(self.folder / "deal")
        try:
            with store.teaching(self.folder):
                shares = self._deal(private, wish, identity, states)
                number = launches.claim_number(self.folder, private)
        finally:
            with suppress(OSError):
                private.unlink()
        skew = launches.skew(shares)
        record = LaunchRecord(
            number=number,
            tasks=wish.tasks,
            sharding=wish.sharding,
            deal=wish.deal,
            cluster=wish.cluster,
            items=sum(share.items for share in shares),
            manifest=identity,
            imbalance=round(skew, 4),
            created=clock.iso(),
            argv=provenance.command(),
            job=wish.job,
            submitted_tasks=wish.submitted_tasks,
            pardon=wish.pardon,
            sweep_round=wish.sweep_round,
            suspects=suspected,
            done_before=states.count(ledger.DONE),
            quarantined_before=states.count(ledger.QUARANTINED),
        )
        _warn_of_skew(record, say)
        store.write_json(launches.record_path(self.folder, number), record)
        return record

    def _deal(self, private: Path, wish: Wish, identity: Identity, states: bytearray) -> list[launches.Share]:
        try:
            return launches.write_deal(private, self._assignments(wish, states), wish.tasks)
        finally:  # whatever went wrong meanwhile, this would be why
            refuse_changed(self.manifest, identity, "dealt")

    def _assignments(self, wish: Wish, states: bytearray) -> Iterator[tuple[int, Item]]:
        sharding: Sharding = RoundRobin(wish.tasks)
        if wish.sharding == BALANCED:
            everything = (item for _, item in assign(self._items(), states, RoundRobin(1), wish))
            sharding = Balanced(self._items() if wish.deal == launches.POSITION else everything, wish.tasks)
        return assign(self._items(), states, sharding, wish)

    def _items(self) -> Iterator[Item]:
        return items_of(self.manifest, keyed=False)  # a deal goes by order and duration


def assign(items: Iterable[Item], states: bytearray, sharding: Sharding, wish: Wish) -> Iterator[tuple[int, Item]]:
    """(task, item) of every item that is to be done, in manifest order.

    Dealt by position, the sharding sees every item, so that what is done already does not shift the others.
    """
    dealt = 0
    for item in items:
        if item.index == len(states):
            return  # lines that came since the manifest was read; whoever deals from it finds that it changed
        wanted = states[item.index] in (ledger.MISSING, ledger.STRUCK)
        if wish.deal == launches.POSITION:
            task = sharding.task(item.index, item)
        elif wanted:
            task = sharding.task(dealt, item)
        if wanted:
            yield task, item
            dealt += 1
            if dealt == wish.limit:
                return


def _warn_of_skew(record: LaunchRecord, say: Callable[[str], None]) -> None:
    if record.imbalance > WARN_IMBALANCE and record.sharding == ROUND_ROBIN and record.items > record.tasks:
        say(
            f"The longest of {record.tasks} tasks has {record.imbalance:.2f} times the mean's share of the work, so "
            "the run takes that much longer than it could. `--shard balanced` deals by duration, where that is known."
        )


def _set_aside(folder: Path) -> None:
    if folder.exists():
        aside = folder.with_name(f"{folder.name}.until-{clock.iso().replace(':', '')}")
        while aside.exists():  # of the same second
            aside = aside.with_name(f"{aside.name}-2")
        os.replace(folder, aside)
        logs = paths.home() / "logs" / folder.name
        with suppress(OSError):  # else the new run's logs would be appended to the old one's
            os.replace(logs, logs.with_name(aside.name))
        log.warning("The earlier run was moved to %s; delete it when it is no longer wanted.", aside)


def _known_runs() -> str:
    known = sorted(path.parent.name for path in paths.runs().glob("*/run.json"))
    return f"The latest are: {', '.join(known[-10:])}." if known else "There are no runs yet."


def _release(states: bytearray) -> None:
    states[:] = states.replace(bytes([ledger.QUARANTINED]), bytes([ledger.MISSING]))
