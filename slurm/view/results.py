"""What a run's results say, read once as a stream: any pipeline's numbers, and segments where there are some.

Memory: one byte an item, the sketches of at most `MOST_FIELDS` fields, and the failures.
"""

from __future__ import annotations

import math
import zlib
from typing import Any, Callable, Optional

import msgspec

from pipelines.core import manifest, parts
from pipelines.core.errors import ManifestError, StorageError
from pipelines.core.launches import LaunchRecord
from pipelines.core.parts import Row
from pipelines.core.run import Run
from slurm.view.failures import Blame
from slurm.view.headers import PartFile
from slurm.view.sketch import Sketch

MOST_FIELDS = 30
SAMPLED = 400_000
"""With more rows, the distributions are of a sample of about so many, drawn by the items' keys; counts stay exact."""
DURATION, RATIO, SEGMENTS = "duration", "spch-ratio", "segments"

_decode = msgspec.json.Decoder().decode


class Results:
    """Statistics of all published rows. An item done twice counts once."""

    def __init__(self, rows: int) -> None:
        self.done = self.twice = self.rows = 0
        self.stride = max(1, rows // SAMPLED)
        self.fields: dict[str, Sketch] = {}
        self.segments, self.pauses = Sketch(), Sketch()
        self.sampled = 0
        self.speech_seconds = self.judged_seconds = 0.0
        self.blame = Blame()
        self._seen: dict[str, bytearray] = {}

    def add(self, record: LaunchRecord, task: int, row: Row, pardoned_before: int) -> None:
        """Take one row into account."""
        self.rows += 1
        seen = self._seen.get(record.manifest.order)
        if seen is None:
            seen = self._seen[record.manifest.order] = bytearray(record.manifest.items)
        is_done = row.index < len(seen) and seen[row.index]
        if row.status != parts.DONE:
            if record.number >= pardoned_before and not is_done:
                self.blame.add(record.number, task, row)
            return
        if is_done:
            self.twice += 1
            return
        if row.index < len(seen):
            seen[row.index] = 1
        self.done += 1
        self.blame.forgive(row.key)
        if self.stride == 1 or zlib.crc32(row.key.encode()) % self.stride == 0:
            self._measure(_decode(bytes(row.result)))

    def _measure(self, result: dict[str, Any]) -> None:
        self.sampled += 1
        for name, value in result.items():
            kind = type(value)
            if kind is float or kind is int:
                self._count(name, value)
            elif kind is str:
                self._count(f"{name} (characters)", len(value))
            elif kind is list and value and name == SEGMENTS:
                self._measure_segments(value)
        duration, ratio = result.get(DURATION), result.get(RATIO)
        if isinstance(duration, (int, float)) and isinstance(ratio, (int, float)):
            self.speech_seconds += duration * ratio
            self.judged_seconds += duration

    def _count(self, name: str, value: float) -> None:
        sketch = self.fields.get(name)
        if sketch is None:
            if len(self.fields) >= MOST_FIELDS:
                return
            sketch = self.fields[name] = Sketch()
        if math.isfinite(value):
            sketch.add(value)

    def _measure_segments(self, segments: list[Any]) -> None:
        before: Optional[float] = None
        for segment in segments:
            if not (isinstance(segment, list) and len(segment) == 2):
                return
            start, end = segment
            self.segments.add(end - start)
            if before is not None and start > before:
                self.pauses.add(start - before)
            before = end

    @property
    def speech_share(self) -> Optional[float]:
        """Share of the audio that is speech; None where the pipeline does not tell."""
        return self.speech_seconds / self.judged_seconds if self.judged_seconds else None


def read(run: Run, files: list[PartFile], damaged: dict[Any, str], say: Callable[[int], None]) -> Results:
    """The statistics of a run. `say` gets the number of rows read, part by part; parts found damaged are noted."""
    records = {record.number: record for record in run.records()}
    pardoned = run.pardoned_before()
    results = Results(sum(file.header.rows for file in files))
    for path, header in files:
        record = records.get(header.launch)
        if record is None:
            continue
        try:
            for row in parts.rows(path):
                results.add(record, header.task, row, pardoned)
        except (StorageError, OSError) as error:
            damaged[path] = str(error)
        say(results.rows)
    if DURATION not in results.fields:
        _read_durations(run, results)
    return results


def _read_durations(run: Run, results: Results) -> None:
    """The manifest's durations, for pipelines that do not find them out themselves."""
    durations = Sketch()
    try:
        for number, line in enumerate(manifest.lines(run.manifest)):
            if number % results.stride == 0:
                item = manifest.parse(number, line)
                if item.duration is not None:
                    durations.add(item.duration)
    except (ManifestError, ValueError):
        return  # gone or being written; the merge tells of it
    if durations.count:
        results.fields[DURATION] = durations
