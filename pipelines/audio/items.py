"""The audio of a manifest's items: streamed, or read ahead of a GPU by several threads."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Iterator, Optional, Sequence

from pipelines.audio import RATE
from pipelines.audio.read import Recording
from pipelines.audio.resample import Float32
from pipelines.core.errors import ItemError
from pipelines.core.manifest import Item

_BLOCK = 10 * RATE
_AHEAD_S = 120.0
"""Longer items are not read ahead: they are streamed, so that memory stays flat."""


class Audio:
    """One item's audio: called, its blocks from the beginning. What went wrong on the way is in `fault`."""

    def __init__(self, item: Item) -> None:
        self.fault: Optional[Exception] = None
        self.duration = 0.0
        """Seconds, once the audio was read to its end."""
        self.samples = 0
        """Samples at 16 kHz, once the audio was read to its end."""
        self._item = item
        self._ahead: Optional[Future[list[Float32]]] = None

    def __call__(self) -> Iterator[Float32]:
        """Blocks of float32 samples at 16 kHz. Ends early, with `fault` set, where they cannot be read."""
        try:
            if self._ahead is not None:
                yield from self._ahead.result()
            else:
                yield from self._blocks()
        except Exception as error:  # noqa: BLE001 - one recording's trouble must not touch the others of its batch
            self.fault = error

    def read_ahead(self, pool: ThreadPoolExecutor) -> None:
        """Begin to read, unless that may be more than memory should hold."""
        if self._item.duration is not None and self._item.duration <= _AHEAD_S:
            self._ahead = pool.submit(lambda: list(self._blocks()))

    def _blocks(self) -> Iterator[Float32]:
        problem = self._item.fields().get("problem") if b'"problem"' in self._item.row else None
        if problem:
            raise ItemError(str(problem))
        start, length = self._item.span or (0.0, None)
        samples = 0
        with Recording(self._item.audio_filepath, start, length) as recording:
            for block in recording.float_blocks(_BLOCK):
                samples += len(block)
                yield block
            self.duration, self.samples = recording.duration, samples


@contextmanager
def read_ahead(audios: Sequence[Audio], threads: int) -> Iterator[None]:
    """Read with so many threads while the block runs; 0: each item is read when it is its turn."""
    if not threads:
        yield
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        for audio in audios:
            audio.read_ahead(pool)
        yield
