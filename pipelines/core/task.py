"""The task loop: a model loaded once, and a task's items taken through it batch by batch.

Results are published in rolling parts, so a death at any moment costs the batches in flight and what was not yet
published. Errors of items become strikes; after the main pass, items with one strike are tried once more, alone.
"""

from __future__ import annotations

import logging
import os
import signal
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path
from typing import Callable, Iterable, Iterator, Optional, Sequence

from pipelines.core import batch, clock, heartbeat, ledger, parts, provenance, store
from pipelines.core.batch import Outcome
from pipelines.core.errors import DONE, STOPPED_BY_WARNING, Unfinished
from pipelines.core.heartbeat import Beating, End, Heartbeat
from pipelines.core.inflight import Breadcrumb
from pipelines.core.journal import Journal
from pipelines.core.manifest import Item
from pipelines.core.parts import Row
from pipelines.core.pipeline import Processor, Resources
from pipelines.core.run import Run

log = logging.getLogger(__name__)

PART_ITEMS, PART_S, PART_BYTES = 2000, 120.0, 16 << 20
"""A part is published when it holds this many rows, after this many seconds, or at this many bytes."""
GRACE_S = 20.0
"""After a warning signal, batches in flight get this many seconds to finish."""


def _setting(name: str, default: float) -> float:
    return float(os.environ.get(name, default))


def _processor_s() -> float:
    """Processor seconds of this process and the children that it has waited for (ffmpeg, processes of a backend)."""
    return round(sum(os.times()[:4]), 3)


class TaskLoop:
    """One attempt at one task of one launch. `alone`: indexes of items to be tried one by one, first."""

    def __init__(self, run: Run, launch: int, task: int, resources: Resources, alone: Iterable[int] = ()) -> None:
        self.run, self.launch, self.task, self.resources = run, launch, task, resources
        self.state = run.state_folder(launch)
        self.deal = run.deal(launch)
        self.alone = set(alone)
        self.stopping = False
        self._stop: Optional[Callable[[], None]] = None
        self._unfinished = False
        self._standings: dict[str, ledger.Standing] = {}
        self._retry: list[Item] = []
        self._part = parts.PartWriter(run.parts_folder(launch), run.id, launch, task)
        self._part_items = _setting("VOXARRAY_PART_ITEMS", PART_ITEMS)
        self._part_s = _setting("VOXARRAY_PART_S", PART_S)
        share = self.deal.shares[task]
        self.beat = Heartbeat(
            task=task,
            launch=launch,
            attempt=store.ATTEMPT,
            host=provenance.host(),
            pid=os.getpid(),
            state="starting",
            started=clock.now(),
            time=clock.now(),
            dealt=share.items,
            audio_seconds_dealt=share.audio_seconds,
            job=provenance.scheduler_job(),
            restarts=int(os.environ.get("SLURM_RESTART_COUNT") or 0),
            interval_s=heartbeat.interval_s(),
        )

    def warn(self, number: int, _: object = None) -> None:
        """Signal handler: finish what is in flight, publish, stop.

        It takes no lock, not even an Event's: a second signal may interrupt it (a scheduler signals every process).
        """
        self.beat.signal = signal.Signals(number).name
        self.stopping = True
        if self._stop is not None:
            self._stop()

    def work(self) -> int:
        """Settle the task's items. Returns the exit status: DONE, or STOPPED_BY_WARNING with work left."""
        with Beating(self.state, self.beat, self._refresh) as beating:
            try:
                status = self._settle(beating)
            except BaseException as error:
                self.beat.state, self.beat.reason = "failed", str(error)[:500]
                raise
            self.beat.state = "finished" if status == DONE else "stopped"
        return status

    def _refresh(self) -> None:
        self.beat.cpu_s = _processor_s()

    def _settle(self, beating: Beating) -> int:
        self._read_standings()
        if next(self._pending(), None) is not None:
            self.beat.state = "loading"
            beating.now()
            processor = self.run.pipeline.load(self.run.plan.parameters, self.resources)
            self._stop = getattr(processor, "stop", None)
            journal = self._part.journal = Journal(self.state, self.task)
            try:
                finished = self._process_all(processor, beating)
            finally:
                self._part.publish()
                journal.close()
            if not finished or self._unfinished:
                return STOPPED_BY_WARNING
            processor.close()
        self._publish_end()
        return DONE

    # what is left to do

    def _read_standings(self) -> None:
        """What earlier attempts at this task, and later launches, made of its items."""
        pardoned, suspects = self.run.pardoned_before(), set(self.run.record(self.launch).suspects)
        mine = {item.key: item for item in self._dealt()} if self.run.launch_numbers()[-1] > self.launch else None
        for launch, owner, path in self.run.part_files(self.launch):
            if launch == self.launch:
                if owner != self.task:
                    continue
                header = parts.read_header(path)
                # Durations may be known from the results alone, so the parts say how much audio was done.
                self.beat.audio_seconds_before += header.audio_seconds if header else 0.0
            for row in self._rows_that_count(path):
                if (mine is None or row.key in mine) and (row.status == parts.DONE or launch >= pardoned):
                    self._standings.setdefault(row.key, ledger.Standing()).add(row)
        untried = ledger.Standing()
        for item in self._dealt():
            state = self._standings.get(item.key, untried).state
            if item.key in suspects or state == ledger.STRUCK:
                self.alone.add(item.index)
            if state in (ledger.DONE, ledger.QUARANTINED):
                self.beat.settled_before += 1
            if state == ledger.QUARANTINED:
                self.beat.audio_seconds_given_up += item.duration or 0.0

    def _rows_that_count(self, path: Path) -> Iterator[Row]:
        """The rows of a part but those whose file is no longer what was written."""
        is_whole = self.run.pipeline.is_whole
        for row in parts.rows(path):
            if is_whole is None or row.status != parts.DONE or is_whole(bytes(row.result)):
                yield row

    def _dealt(self) -> Iterator[Item]:
        return self.deal.items(self.task)

    def _pending(self) -> Iterator[Item]:
        for item in self._dealt():
            standing = self._standings.get(item.key)
            if standing is None or standing.state in (ledger.MISSING, ledger.STRUCK):
                yield item

    # the passes

    def _process_all(self, processor: Processor, beating: Beating) -> bool:
        """Suspects alone, the rest in batches, then what failed, alone again. False if stopped before the end."""
        with closing(Breadcrumb(self.state, self.task, processor.concurrency)) as crumb:
            return self._passes(processor, crumb, beating)

    def _passes(self, processor: Processor, crumb: Breadcrumb, beating: Beating) -> bool:
        self._set_state("retrying" if self.alone else "running", beating)
        suspects = [item for item in self._pending() if item.index in self.alone]
        finished = self._one_by_one(processor, crumb, suspects)
        if finished:
            self._set_state("running", beating)
            rest = (item for item in self._pending() if item.index not in self.alone)
            finished = self._in_batches(processor, crumb, rest)
        while finished and self._retry:
            self._set_state("retrying", beating)
            again, self._retry = self._retry, []
            finished = self._one_by_one(processor, crumb, again)
        return finished

    def _set_state(self, state: str, beating: Beating) -> None:
        self.beat.state = state
        beating.now()

    def _one_by_one(self, processor: Processor, crumb: Breadcrumb, items: Sequence[Item]) -> bool:
        for item in items:
            if self.stopping:
                return False
            self._collect(batch.attempt(processor, crumb, 0, [item], alone=True))
        return True

    def _in_batches(self, processor: Processor, crumb: Breadcrumb, items: Iterator[Item]) -> bool:
        """Keep every thread of the processor busy with a batch of its own. False if stopped before the end."""
        slots = list(range(processor.concurrency))
        flying: dict[Future[Outcome], int] = {}
        batches = batch.cut(items, processor.batch_items, processor.batch_seconds)
        pool = ThreadPoolExecutor(processor.concurrency, thread_name_prefix="batch")
        more = True
        while more or flying:
            while more and slots and not self.stopping:
                chosen = next(batches, None)
                if chosen is None:
                    more = False
                else:
                    slot = slots.pop()
                    flying[pool.submit(batch.attempt, processor, crumb, slot, chosen, alone=False)] = slot
            if self.stopping:
                self._land(flying)
                return False
            ended, _ = wait(flying, timeout=1.0, return_when=FIRST_COMPLETED)
            for future in ended:
                slots.append(flying.pop(future))
                self._collect(future.result())
            self._publish_when_due()
        pool.shutdown()
        return True

    def _land(self, flying: dict[Future[Outcome], int]) -> None:
        """Give the batches in flight the grace time; what does not make it is redone by the next attempt."""
        ended, late = wait(flying, timeout=_setting("VOXARRAY_GRACE_S", GRACE_S))
        for future in ended:
            self._collect(future.result())
        if late:
            log.info("%d batches were still in flight after the grace time; the next attempt redoes them.", len(late))

    def _collect(self, outcome: Outcome) -> None:
        for item, result in outcome:
            if isinstance(result, Unfinished):
                log.info("Item %d: %s.", item.index + 1, result)
                self._unfinished = True
                continue
            if isinstance(result, Exception):
                self._strike(item, result)
                continue
            try:
                seconds = item.duration if item.duration is not None else float(result.get("duration") or 0.0)
                self._part.done(item, result, seconds)
            except Exception as error:  # noqa: BLE001 - no mapping, or no JSON: whatever it is, it is this item's
                self._strike(item, error)
                continue
            self.beat.done += 1
            self.beat.audio_seconds += seconds
        self._part.keep()
        self._publish_when_due()

    def _strike(self, item: Item, exception: Exception) -> None:
        error = parts.error_of(exception)
        self._part.failed(item, error)
        self.beat.failed += 1
        standing = self._standings.setdefault(item.key, ledger.Standing())
        standing.strikes += 1
        if standing.state == ledger.STRUCK:
            self._retry.append(item)
        else:
            self.beat.quarantined += 1
            self.beat.audio_seconds_given_up += item.duration or 0.0
            log.warning(
                "Item %d (%s) is quarantined: %s: %s", item.index + 1, item.audio_filepath, error.type, error.message
            )

    def _publish_when_due(self) -> None:
        part = self._part
        if part.rows and (part.rows >= self._part_items or part.age_s >= self._part_s or part.size >= PART_BYTES):
            part.publish()

    def _publish_end(self) -> None:
        done = quarantined = 0
        beat = self.beat
        for item in self._dealt():
            standing = self._standings.get(item.key)
            quarantined += standing is not None and standing.state == ledger.QUARANTINED
        done = beat.dealt - quarantined
        end = End(
            task=self.task,
            launch=self.launch,
            attempt=beat.attempt,
            host=beat.host,
            dealt=beat.dealt,
            done=done,
            quarantined=quarantined,
            audio_seconds=round(beat.audio_seconds_before + beat.audio_seconds, 3),
            started=beat.started,
            ended=clock.now(),
            cpu_s=_processor_s(),
            job=beat.job,
        )
        store.write_json(heartbeat.end_path(self.state, self.task), end)
