"""Suspects: items that were in flight when a process died. Turned into strikes where only one item can be meant."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Iterable, Optional

from pipelines.core import inflight, journal, lock, parts, paths
from pipelines.core.inflight import Crumbs
from pipelines.core.manifest import Item
from pipelines.core.parts import Error

if TYPE_CHECKING:
    from pipelines.core.run import Run

log = logging.getLogger(__name__)


def question(run: Run, launch: int, task: int, seen: Optional[str], strike: bool = True) -> list[Item]:
    """Take over what dead attempts at a task left: publish their journals, read and remove their breadcrumbs.

    Returns the items that were in flight.

    `seen`: how the worker died, where its supervisor saw it; None: nobody saw the attempt end. With `strike`, an item
    that was in flight alone gets a strike (seen), or a loss (unseen). Hold the task's lock.
    """
    _adopt(run, launch, task)
    suspects: list[Item] = []
    for crumbs in inflight.left_behind(run.state_folder(launch), task):
        found = _items(run, launch, task, crumbs)
        # Whoever trains for days outlives nodes: that a task vanished says nothing about an item that goes on.
        counts = strike and not (seen is None and run.pipeline.resumes)
        if counts and crumbs.alone and len(found) == 1:
            _publish(run, launch, task, found[0], seen)
        suspects += found
        with suppress(OSError):
            crumbs.path.unlink()
    return suspects


def of_earlier_launches(run: Run) -> list[str]:
    """Keys of the items that dead attempts of all launches had in flight; live attempts are left alone."""
    keys: list[str] = []
    for launch in run.launch_numbers():
        for task in inflight.tasks(run.state_folder(launch)):
            with lock.tried(run.state_folder(launch) / f"{paths.task_name(task)}.lock") as free:
                if free:
                    keys += [item.key for item in question(run, launch, task, seen=None)]
    return keys


def _adopt(run: Run, launch: int, task: int) -> None:
    """Publish the rows that dead attempts had finished but not published.

    An attempt may die between publishing its rows and emptying its journal: the same rows must not be strikes twice.
    """
    for path in journal.left_behind(run.state_folder(launch), task):
        with suppress(FileNotFoundError):
            writer = parts.PartWriter(run.parts_folder(launch), run.id, launch, task, journal.attempt(path))
            for entry in journal.read(path):
                writer.add(entry)
            if writer.rows and not writer.is_published():
                log.info("%d finished items of a dead attempt at task %d were recovered.", writer.rows, task)
                writer.publish()
            path.unlink()


def _items(run: Run, launch: int, task: int, crumbs: Crumbs) -> list[Item]:
    wanted = set(crumbs.indexes)
    return [item for item in run.deal(launch).items(task) if item.index in wanted] if wanted else []


def _publish(run: Run, launch: int, task: int, item: Item, seen: Optional[str]) -> None:
    if seen is None:
        message = "the whole task vanished while it had only this item in flight"
        error = Error("TaskLost", message, f"TaskLost: {message}", parts.LOST)
    else:
        message = f"the worker process died ({seen}) while it had only this item in flight"
        error = Error("WorkerDied", message, f"WorkerDied: {message}", parts.DIED)
    writer = parts.PartWriter(run.parts_folder(launch), run.id, launch, task)
    writer.failed(item, error)
    writer.publish()
    log.warning("Item %d (%s): %s.", item.index + 1, item.audio_filepath, message)


def indexes(items: Iterable[Item]) -> set[int]:
    """The indexes of items."""
    return {item.index for item in items}
