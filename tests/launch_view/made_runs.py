"""Runs made by hand: folders as the engine leaves them, with a clock that the test holds in its hand.

The parts, heartbeats and end receipts are written by the engine's own code; only the work is left out.
"""

from __future__ import annotations

import json
import os
import random
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator, Optional
from unittest import mock

import msgspec
from made_tasks import MadeTask

from pipelines.core import clock, launches, ledger, manifest, merge, parts, paths, plan, provenance, store
from pipelines.core.manifest import Identity
from pipelines.core.parts import Error
from pipelines.core.pipeline import OutputFile
from pipelines.core.run import Run
from pipelines.core.scan import scan
from slurm.view.standing import Looker, Standing

NOON = 1_795_000_000.0
"""When the made runs begin: 2026-11-18 in UTC."""


class Moment:
    """The time, the node and the attempt that the engine's code sees."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now
        self.host = "login-1"


@contextmanager
def held(home: Path, moment: Moment) -> Iterator[Moment]:
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict("os.environ", {"VOXARRAY_HOME": str(home)}))
        stack.enter_context(mock.patch.object(clock, "now", lambda: moment.now))
        stack.enter_context(mock.patch.object(provenance, "host", lambda: moment.host))
        stack.enter_context(mock.patch.object(os, "fsync"))  # thousands of small files need not outlive a power cut
        yield moment


def speech(rng: random.Random, duration: float) -> dict[str, Any]:
    """A result as voice activity detection gives it: segments of speech, and their statistics, in seconds."""
    segments, at = [], rng.expovariate(1 / 0.4)
    while at < duration:
        end = min(duration, at + rng.lognormvariate(0.6, 0.8))
        segments.append([round(at, 3), round(end, 3)])
        at = end + 0.05 + rng.lognormvariate(-0.9, 0.9)
    spoken = [end - start for start, end in segments]
    gaps = [b[0] - a[1] for a, b in zip(segments, segments[1:])]
    return {
        "duration": round(duration, 3),
        "max-spoken": max(spoken, default=0.0),
        "avg-spoken": round(sum(spoken) / len(spoken), 3) if spoken else 0.0,
        "max-nospch": max(gaps, default=0.0),
        "avg-nospch": round(sum(gaps) / len(gaps), 3) if gaps else 0.0,
        "spch-ratio": round(sum(spoken) / duration, 4) if duration else 0.0,
        "segments": segments,
    }


@dataclass
class Made:
    """What a made run is like. Times in seconds after its start; `speed` is × real time of one task."""

    items: int = 400
    tasks: int = 4
    name: str = "corpus"
    pipeline: str = "tone"
    cluster: str = "slurm"
    speed: float = 200.0
    seed: int = 1
    known: bool = True
    bad: float = 0.0
    part_items: int = 50
    until: Optional[float] = None
    slow: dict[int, float] = field(default_factory=dict)
    breaks: dict[int, list[tuple[float, float]]] = field(default_factory=dict)
    silent: dict[int, float] = field(default_factory=dict)
    delays: Callable[[int], float] = lambda task: 3.0 + task % 5
    durations: Callable[[random.Random], float] = lambda rng: min(3600.0, rng.lognormvariate(2.3, 0.9))
    result: Callable[[random.Random, float], dict[str, Any]] = speech

    def run_id(self) -> str:
        return f"{self.name}-{self.seed:08x}"


class Maker:
    """Makes one run in the home of `moment`."""

    def __init__(self, made: Made, moment: Moment) -> None:
        self.made, self.moment, self.begun = made, moment, moment.now
        self.folder = paths.run_folder(made.run_id())
        self.rng = random.Random(made.seed)
        self.audio: list[float] = []
        self.end = moment.now

    def plan(self) -> None:
        source = self.folder / "listing.jsonl"
        source.parent.mkdir(parents=True, exist_ok=True)
        with source.open("w") as file:
            for number in range(self.made.items):
                seconds = round(self.made.durations(self.rng), 3)
                self.audio.append(seconds)
                row = {"audio_filepath": f"/data/{self.made.name}/{number // 100:03d}/{number:06d}.wav"}
                if self.made.known:
                    row["duration"] = seconds
                file.write(json.dumps(row) + "\n")
        store.publish(
            self.folder / "run.json",
            store.pretty(
                plan.Plan(
                    1,
                    self.made.run_id(),
                    self.made.pipeline,
                    "/data/corpus",
                    str(source),
                    str(paths.metadata() / "corpus"),
                    {"engine": "ten", "threshold": 0.5},
                    provenance.Environment("vad", "ab" * 32, "3.11.7"),
                    provenance.Code("0123456789abcdef0123456789abcdef01234567", False),
                    "login-1",
                    clock.iso(),
                    ["voxarray", "vad", "/data/corpus", "--tasks", str(self.made.tasks)],
                )
            ),
        )

    def launch(self, number: int = 0, indexes: Optional[set[int]] = None, **changes: Any) -> launches.LaunchRecord:
        """Deal (all, or the items of `indexes`) round-robin, and publish the launch."""
        every = [
            item for item in manifest.items(self.folder / "listing.jsonl") if indexes is None or item.index in indexes
        ]
        assigned = [(place % self.made.tasks, item) for place, item in enumerate(every)]
        shares = launches.write_deal(launches.deal_path(self.folder, number), assigned, self.made.tasks)
        with scan(self.folder / "listing.jsonl") as scanned:
            identity: Identity = scanned.identity
        record = launches.LaunchRecord(
            number, self.made.tasks, "round-robin", launches.MISSING, self.made.cluster, len(every), identity,
            round(launches.skew(shares), 4), clock.iso(), ["voxarray", "vad", "/data/corpus"],
        )  # fmt: skip
        record = msgspec.structs.replace(record, **changes)
        store.publish(launches.record_path(self.folder, number), store.pretty(record))
        return record

    def work(self, number: int = 0, skip: tuple[int, ...] = ()) -> None:
        """Let every task of the launch go through its items, each on its own time."""
        deal = launches.Deal(launches.deal_path(self.folder, number))
        base = self.moment.now
        for task in range(self.made.tasks):
            if task not in skip:
                MadeTask(self, number, task, list(deal.items(task)), base + self.made.delays(task)).run()
        self.moment.now = base + self.made.until if self.made.until is not None else self.end

    def merge(self) -> None:
        """The receipt of a merge, counted from the parts (the pipeline of a made run need not exist)."""
        done: set[str] = set()
        strikes: dict[str, int] = {}
        errors: dict[str, Error] = {}
        rows = count = 0
        for path in sorted((self.folder / "parts").rglob("task_*.jsonl")):
            count += 1
            for row in parts.rows(path):
                rows += 1
                if row.status == parts.DONE:
                    done.add(row.key)
                else:
                    strikes[row.key] = strikes.get(row.key, 0) + 1
                    errors[row.key] = row.error
        bad = [key for key, count in strikes.items() if key not in done and count >= ledger.STRIKES]
        causes: dict[str, merge.Cause] = {}
        for key in bad:
            error = errors[key]
            cause = causes.setdefault(
                error.signature, merge.Cause(error.signature, 0, "/data/example.wav", error.message)
            )
            cause.count += 1
        with scan(self.folder / "listing.jsonl") as scanned:
            items, identity = scanned.identity.items, scanned.identity
        receipt = merge.Receipt(
            run=self.made.run_id(),
            time=clock.iso(),
            manifest=identity,
            items=items,
            merged=len(done),
            quarantined=len(bad),
            missing=items - len(done) - len(bad),
            partial=False,
            parts=count,
            rows_read=rows,
            spare=rows - len(done) - len(bad),
            differing=0,
            outside=0,
            outputs=[OutputFile("/home/me/metadata/corpus.csv", "cd" * 32, 123_456, items)],
            signatures=sorted(causes.values(), key=lambda cause: -cause.count),
        )
        store.write_json(self.folder / "merged.json", receipt)


def make(made: Made, moment: Moment, merged: bool = True) -> Maker:
    """A run of one launch, finished and merged unless `made.until` or `merged` say otherwise."""
    maker = Maker(made, moment)
    maker.plan()
    maker.launch()
    maker.work()
    if merged and made.until is None:
        moment.now += 4
        maker.merge()
    return maker


def look_at(maker: Maker) -> Standing:
    """How a made run stands."""
    return Looker().look(Run.open(maker.made.run_id()))
