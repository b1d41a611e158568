"""Batches: consecutive items taken through the processor at once; where that fails, each by itself."""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import Iterator, Optional, Sequence

from pipelines.core import store
from pipelines.core.errors import ItemError, VoxarrayError, Warned
from pipelines.core.inflight import Breadcrumb
from pipelines.core.manifest import Item
from pipelines.core.pipeline import Processor, Result

log = logging.getLogger(__name__)

Outcome = list[tuple[Item, Result]]


def cut(items: Iterator[Item], most: int, most_seconds: float) -> Iterator[list[Item]]:
    """Consecutive items, at most `most` of them, no more once they hold `most_seconds` of audio."""
    held: list[Item] = []
    seconds = 0.0
    for item in items:
        held.append(item)
        seconds += item.duration or 0.0
        if len(held) >= most or seconds >= most_seconds:
            yield held
            held, seconds = [], 0.0
    if held:
        yield held


def attempt(processor: Processor, crumb: Breadcrumb, slot: int, items: list[Item], alone: bool) -> Outcome:
    """Take a batch through the processor; if it fails as a whole, each of its items by itself.

    Raises `VoxarrayError` for what is nobody's fault but the machine's, so that no item is blamed for a full disk.
    """
    crumb.enter(slot, [item.index for item in items], alone or len(items) == 1)
    try:
        results = list(processor.process(items))
        if len(results) != len(items):
            raise ValueError(f"the pipeline returned {len(results)} results for {len(items)} items")
        _raise_faults_of_the_machine(results)
        return list(zip(items, results))
    except (KeyboardInterrupt, Warned):
        raise
    except BaseException as error:  # `sys.exit` in a library, and Rust's panics, are no `Exception`
        _raise_faults_of_the_machine([error])
        log.debug("a batch of %d failed", len(items), exc_info=True)
        if len(items) == 1:
            return [(items[0], error if isinstance(error, Exception) else ItemError(repr(error)))]
    finally:
        crumb.leave(slot)
    return [entry for item in items for entry in attempt(processor, crumb, slot, [item], alone=True)]


def _raise_faults_of_the_machine(results: Sequence[object]) -> None:
    for result in results:
        if isinstance(result, BaseException):
            fault = _fault_of_the_machine(result)
            if fault is not None:
                raise fault from result


def _fault_of_the_machine(error: BaseException) -> Optional[VoxarrayError]:
    if isinstance(error, VoxarrayError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return store.storage_error(Path(error.filename or "a file of the pipeline"), error)
    return None
