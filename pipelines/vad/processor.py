"""The loaded engine, taking recordings from the engine's threads and giving each its statistics and segments."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Optional, Sequence, Union

from pipelines.audio.read import Recording
from pipelines.audio.resample import Float32
from pipelines.core.errors import ItemError
from pipelines.core.manifest import Item
from pipelines.core.pipeline import Parameters, Resources
from pipelines.vad import statistics
from pipelines.voice import engines, speech
from pipelines.voice.segments import Rules, samples_of

_BATCH = {"ten": 2, "silero": 16}
"""Recordings in a batch: small, because a batch is what a killed process loses; as large as makes its cost vanish."""


class Processor:
    """VAD as the engine calls it, from as many threads as there are cores."""

    batch_seconds = 3600.0

    def __init__(self, parameters: Parameters, resources: Resources) -> None:
        self.concurrency = resources.cpus
        self.batch_items = _BATCH[parameters["engine"]]
        self._helpers = _Helpers(resources.cpus)
        self._rules = rules(parameters)
        self._engine = engines.load(parameters["engine"], self._helpers.spawn)

    def process(self, items: Sequence[Item]) -> Sequence[Union[dict[str, Any], Exception]]:
        """Each item's statistics and segments, or why there are none."""
        with self._helpers.busy():
            return [self._guarded(item) for item in items]

    def _guarded(self, item: Item) -> Union[dict[str, Any], Exception]:
        try:
            return self.analyse(item)
        except Exception as error:  # noqa: BLE001 - one recording's trouble, whatever it is, must not touch the others
            return error

    def analyse(self, item: Item) -> dict[str, Any]:
        """One recording's statistics and segments. Raises ItemError."""
        _refuse_known_problem(item)
        with Recording(item.audio_filepath) as recording:
            heard = speech.listen(recording.blocks(self._engine.block), self._engine)
            duration = recording.duration
        return statistics.result(heard.segments(self._rules), heard.length, duration)

    def close(self) -> None:
        """End the helping threads."""
        self._helpers.close()


def rules(parameters: Parameters) -> Rules:
    """The segment options in samples."""
    times = {name: samples_of(parameters[name]) for name in ("min_speech", "min_silence", "pad_onset", "pad_offset")}
    longest = parameters["max_segment"]
    return Rules(
        onset=parameters["onset"],
        offset=parameters["offset"],
        max_segment=None if longest is None else samples_of(longest),
        **times,
    )


def _refuse_known_problem(item: Item) -> None:
    """Fail an item of which the listing already knew that it cannot be read."""
    if b'"problem"' in item.row:
        problem = item.fields().get("problem")
        if problem:
            raise ItemError(str(problem))


class _Helpers:
    """Threads for the parts of long recordings, as many as there are cores without a batch at the moment."""

    def __init__(self, cpus: int) -> None:
        self._cores = threading.BoundedSemaphore(cpus)
        self._pool = ThreadPoolExecutor(cpus, thread_name_prefix="part") if cpus > 1 else None

    def busy(self) -> threading.BoundedSemaphore:
        """Hold a core for the length of a `with` block."""
        return self._cores

    def spawn(self, work: Callable[[], Float32]) -> Optional[Future[Float32]]:
        """Start `work` on an idle core; None if there is none."""
        if self._pool is None or not self._cores.acquire(blocking=False):
            return None
        future = self._pool.submit(work)
        future.add_done_callback(lambda _: self._cores.release())
        return future

    def close(self) -> None:
        """Wait for no one."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)
