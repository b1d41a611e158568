"""Sums over scored rows: all of them, each group, and the worst items; in memory that does not grow with the rows."""

from __future__ import annotations

import heapq
from pathlib import Path
from typing import Iterator, Optional

import msgspec

from pipelines.asr.scoring import NORMALISED, RAW, UNKNOWN, Columns, Counts, Pair, Scored

BUCKETS = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0)
"""Seconds at which durations are divided."""
MOST_GROUPS = 1000
"""Values of one field that are counted apart; further ones go together, so that memory stays flat."""
OTHERS = "(others)"


class Group(msgspec.Struct):
    """Rows that have one value of a field in common."""

    value: str
    items: int
    seconds: float
    raw: Pair
    normalised: Pair


class Worst(msgspec.Struct):
    """One of the items with the most errors (normalised words)."""

    audio_filepath: str
    duration: Optional[float]
    reference: str
    hypothesis: str
    words: Counts


class Report(msgspec.Struct):
    """What `voxarray wer` found. Items without reference or hypothesis are in no rate."""

    manifest: str
    columns: dict[str, str]
    whole: Group
    empty_references: int = 0
    """Items whose normalised reference has no words: what was recognised there counts as inserted."""
    inserted_there: int = 0
    """Words that were recognised in these."""
    without_reference: int = 0
    without_hypothesis: int = 0
    seconds_without: float = 0.0
    missed: Counts = msgspec.field(default_factory=Counts)
    """Normalised words of the items without a hypothesis, as deletions."""
    by: dict[str, list[Group]] = msgspec.field(default_factory=dict)
    worst: list[Worst] = msgspec.field(default_factory=list)

    def rate_with_missed(self) -> Optional[float]:
        """The normalised WER if the items without a hypothesis had an empty one."""
        words = Counts()
        words.add(self.whole.normalised.words)
        words.add(self.missed)
        return words.rate

    def to_json(self) -> bytes:
        """The report as JSON, with its rates (percent)."""
        value = msgspec.to_builtins(self)
        for group in [value["whole"], *(each for groups in value["by"].values() for each in groups)]:
            for kind in (RAW, NORMALISED):
                for name, short in (("words", "wer"), ("characters", "cer")):
                    group[kind][short] = msgspec.convert(group[kind][name], Counts).rate
        value["wer_with_missed"] = self.rate_with_missed()
        return msgspec.json.format(msgspec.json.encode(value), indent=2)


class Sums:
    """What is kept of the rows that were seen."""

    def __init__(self, path: Path, columns: Columns, worst: int) -> None:
        names = {"reference": columns.reference, "hypothesis": columns.hypothesis}
        self._report = Report(str(path), names, _group("all"))
        self._by: dict[str, dict[str, Group]] = {"duration": {}, **{name: {} for name in columns.by}}
        self._most = worst
        self._worst: list[tuple[int, float, int, Worst]] = []
        self._number = 0

    def add(self, row: Scored) -> None:
        """Count one row."""
        report = self._report
        self._number += 1
        if row.raw is None or row.normalised is None:
            self._add_uncounted(row)
            return
        if not row.normalised.words.total:
            report.empty_references += 1
            report.inserted_there += row.normalised.words.insertions
        groups = [report.whole, self._of("duration", _bucket(row.seconds))]
        groups += [self._of(name, UNKNOWN if value is None else value) for name, value in self._values(row)]
        for group in groups:
            group.items += 1
            group.seconds += row.seconds or 0.0
            group.raw.add(row.raw)
            group.normalised.add(row.normalised)
        self._keep(row, row.normalised.words)

    def _values(self, row: Scored) -> Iterator[tuple[str, Optional[str]]]:
        return ((name, value) for name, value in zip(list(self._by)[1:], row.groups))

    def _add_uncounted(self, row: Scored) -> None:
        report = self._report
        if row.reference is None:
            report.without_reference += 1
            return
        report.without_hypothesis += 1
        report.seconds_without += row.seconds or 0.0
        if row.missed is not None:
            report.missed.add(row.missed.words)

    def _of(self, name: str, value: str) -> Group:
        groups = self._by[name]
        if value not in groups:
            if len(groups) >= MOST_GROUPS:
                value = OTHERS
            groups.setdefault(value, _group(value))
        return groups[value]

    def _keep(self, row: Scored, words: Counts) -> None:
        """Among the worst: by errors, then by their share; of equals, the earliest."""
        rank = (words.errors, words.rate or 0.0, -self._number)
        if not words.errors or self._most < 1 or (len(self._worst) >= self._most and rank <= self._worst[0][:3]):
            return
        item = Worst(row.path, row.seconds, row.reference or "", row.hypothesis or "", words)
        heapq.heappush(self._worst, (*rank, item))
        if len(self._worst) > self._most:
            heapq.heappop(self._worst)

    def report(self) -> Report:
        """All of it: durations in their order, other groups with most words first."""
        order = [_bucket(edge - 0.5) for edge in BUCKETS] + [_bucket(BUCKETS[-1]), UNKNOWN]
        durations = self._by.pop("duration")
        self._report.by["duration"] = [durations[name] for name in order if name in durations]
        for name, groups in self._by.items():
            self._report.by[name] = sorted(
                groups.values(), key=lambda group: (group.value == OTHERS, -group.normalised.words.total, group.value)
            )
        self._report.worst = [item for *_, item in sorted(self._worst, reverse=True, key=lambda entry: entry[:3])]
        return self._report


def _group(value: str) -> Group:
    return Group(value, 0, 0.0, Pair(Counts(), Counts()), Pair(Counts(), Counts()))


def _bucket(seconds: Optional[float]) -> str:
    if seconds is None:
        return UNKNOWN
    below = next((edge for edge in BUCKETS if seconds < edge), None)
    if below is None:
        return f"{BUCKETS[-1]:g} s and more"
    return f"{max((edge for edge in BUCKETS if edge < below), default=0.0):g} to {below:g} s"
