"""Random histories against a model that keeps everything in memory: merge == naive merge, and conservation always.

A history is launches over random numbers of tasks, parts of random items in random order, twins that publish the same
items, failures, pardons, manifests that grow, shrink and are reordered in between, partial merges and repeated ones.
"""

from __future__ import annotations

import hashlib
import json
import random
from unittest import mock

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pipelines.core import launches, ledger, merge, parts, store, stream, tally
from pipelines.core.errors import IncompleteRunError, ManifestError
from pipelines.core.parts import DIED, EXCEPTION, LOST
from pipelines.core.run import Wish
from tests.core.world import World, conserved, seed

DONE = "done"
outcomes = st.sampled_from([DONE] * 5 + [EXCEPTION, EXCEPTION, DIED, LOST, LOST])
randoms = st.integers(0, 2**32).map(random.Random)


def result_of(name: str) -> dict:
    """What the work makes of an item: of nothing but the item."""
    return {"tone": hashlib.sha256(name.encode()).hexdigest()[:8], "names": [name, None]}


class Histories(RuleBasedStateMachine):
    """The model: the manifest's lines, and one event for every row that was published."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.world.__enter__()
        blocks = parts.blocks
        self.patches = [  # many small windows, blocks and spills
            mock.patch.object(tally, "WINDOW", 7),
            mock.patch.object(stream, "_CHUNK", 5),
            mock.patch.object(parts, "blocks", lambda path, _=0: blocks(path, 64)),
        ]
        for patch in self.patches:
            patch.start()
        self.lines: list[str] = []
        self.events: list[tuple[int, str, str]] = []
        self.pardoned = 0
        self.born = 0

    def teardown(self) -> None:
        try:
            self.finish()
        finally:
            for patch in self.patches:
                patch.stop()
            self.world.__exit__()

    # the model

    def name(self, line: str) -> str:
        return json.loads(line)["audio_filepath"]

    def state(self, name: str) -> int:
        mine = [(launch, what) for launch, item, what in self.events if item == name]
        if any(what == DONE for _, what in mine):
            return ledger.DONE
        counted = [what for launch, what in mine if launch >= self.pardoned]
        losses = counted.count(LOST)
        if len(counted) - losses >= 2 or losses >= 3:
            return ledger.QUARANTINED
        return ledger.STRUCK if len(counted) > losses else ledger.MISSING

    def left(self) -> list[str]:
        names = [self.name(line) for line in self.lines]
        return [name for name in names if self.state(name) in (ledger.MISSING, ledger.STRUCK)]

    def newborn(self, count: int) -> list[str]:
        rows = [{"audio_filepath": f"/c/{self.born + n}.wav", "duration": 1.5, "text": "é ß"} for n in range(count)]
        self.born += count
        return [json.dumps(row) for row in rows]

    # what happens

    @initialize(count=st.integers(1, 25))
    def begin(self, count: int) -> None:
        self.path = self.world.root / "corpus.json"
        self.lines = self.newborn(count)
        self.write()
        self.run = self.world.run(self.path)

    def write(self) -> None:
        self.path.write_text("".join(f"{line}\n" for line in self.lines), encoding="utf-8")

    @rule(
        tasks=st.integers(1, 9),
        sharding=st.sampled_from(["round-robin", "balanced"]),
        deal=st.sampled_from(["missing", "position"]),
        pardon=st.booleans(),
        limit=st.one_of(st.none(), st.none(), st.integers(1, 5)),
    )
    def launch(self, tasks: int, sharding: str, deal: str, pardon: bool, limit: int) -> None:
        wanted = self.left()
        if pardon:
            wanted = [name for name in map(self.name, self.lines) if self.state(name) != ledger.DONE]
        record = self.run.new_launch(Wish(tasks, sharding, deal, pardon=pardon, limit=limit), say=lambda _: None)
        if record is None:
            assert not wanted
            return
        dealt = [item for task in range(tasks) for item in self.run.deal(record.number).items(task)]
        assert [item.audio_filepath for item in sorted(dealt, key=lambda item: item.index)] == wanted[:limit]
        if pardon:
            self.pardoned = record.number

    @rule(chance=randoms, share=st.floats(0, 1), what=st.lists(outcomes, min_size=1, max_size=12), twin=st.booleans())
    def work(self, chance: random.Random, share: float, what: list, twin: bool) -> None:
        numbers = self.run.launch_numbers()
        if not numbers:
            return
        number = chance.choice(numbers)
        deal = self.run.deal(number)
        task = chance.randrange(len(deal.shares))
        items = [item for item in deal.items(task) if chance.random() <= share]
        chance.shuffle(items)
        for attempt in range(1 + twin):
            with mock.patch.object(store, "ATTEMPT", f"node-1-{attempt:08x}"):
                self.publish(number, task, items, what, chance)

    def publish(self, number: int, task: int, items: list, what: list, chance: random.Random) -> None:
        writer = parts.PartWriter(self.run.parts_folder(number), self.run.id, number, task)
        for place, item in enumerate(items):
            outcome = what[place % len(what)]
            if outcome == DONE:
                writer.done(item, result_of(item.audio_filepath), item.duration)
            else:
                writer.failed(item, parts.error_of(ValueError("bad"), outcome))
            self.events.append((number, item.audio_filepath, outcome))
            if chance.random() < 0.2:
                writer.publish()
        writer.publish()

    @rule(chance=randoms, grow=st.integers(0, 6), keep=st.sampled_from([1.0, 1.0, 0.7]), shuffle=st.booleans())
    def change_the_manifest(self, chance: random.Random, grow: int, keep: float, shuffle: bool) -> None:
        kept = [line for line in self.lines if chance.random() < keep] or self.lines[:1]
        self.lines = kept + self.newborn(grow)
        if shuffle:
            chance.shuffle(self.lines)
        self.write()

    @rule(partial=st.booleans())
    def merge(self, partial: bool) -> None:
        before, left = self.path.read_bytes(), len(self.left())
        if left and not partial:
            with pytest.raises(IncompleteRunError, match=f"{left} of {len(self.lines)} items"):
                merge.merge(self.run)
            assert self.path.read_bytes() == before
            return
        receipt = conserved(merge.merge(self.run, partial=partial), partial)
        names = [self.name(line) for line in self.lines]
        states = [self.state(name) for name in names]
        self.lines = [
            line[:-1] + "," + json.dumps(result_of(name), separators=(",", ":"))[1:]
            if state == ledger.DONE and "tone" not in json.loads(line)
            else line
            for line, name, state in zip(self.lines, names, states)
        ]
        assert self.path.read_text(encoding="utf-8").splitlines() == self.lines
        assert (receipt.merged, receipt.quarantined) == (states.count(ledger.DONE), states.count(ledger.QUARANTINED))
        assert (receipt.missing, receipt.partial) == (left, left > 0)
        assert receipt.rows_read == len(self.events)
        assert receipt.outside == sum(name not in names for _, name, _ in self.events)
        assert sum(cause.count for cause in receipt.signatures) == receipt.quarantined
        assert receipt.differing == 0
        again = merge.merge(self.run, partial=partial)
        assert again.outputs == [msgspec.structs.replace(file, backup=None) for file in receipt.outputs]
        assert self.path.read_text(encoding="utf-8").splitlines() == self.lines

    @invariant()
    def the_account_agrees(self) -> None:
        if not self.lines:
            return
        with self.run.scan() as scan:
            account = self.run.account(scan)
        assert list(account.states) == [self.state(self.name(line)) for line in self.lines]

    def finish(self) -> None:
        """Whatever happened, everything can still be done, and then the bytes are those of a quiet run."""
        if not self.lines:
            return
        self.launch(3, "round-robin", "missing", True, None)
        for number in self.run.launch_numbers()[-1:]:
            for task in range(3):
                self.publish(number, task, list(self.run.deal(number).items(task)), [DONE], random.Random(0))
        self.merge(partial=False)
        assert not list(self.path.parent.glob(".*.tmp"))
        assert not list(self.run.folder.rglob("*.tmp"))


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=14)


def test_results_that_differ_are_counted_and_the_first_stands(world):
    run = world.run(world.manifest(3))
    for value in ("first", "second"):
        with mock.patch.object(store, "ATTEMPT", f"node-1-{value:>08}"):
            number = run.launch_numbers()[0] if run.launch_numbers() else run.new_launch(Wish(1)).number
            writer = parts.PartWriter(run.parts_folder(number), run.id, number, 0)
            for item in run.deal(number).items(0):
                writer.done(item, {"tone": value if item.index == 1 else "same"}, 1.0)
            writer.publish()
    receipt = conserved(merge.merge(run))
    assert (receipt.differing, receipt.spare) == (1, 3)
    assert [json.loads(line)["tone"] for line in run.manifest.read_text().splitlines()] == ["same", "first", "same"]
    assert "differ" in merge.summary(receipt)


def changed(lines: list, how: str) -> str:
    return "".join(
        {
            "grows": [*lines, '{"audio_filepath": "/new.wav", "duration": 1}\n'],
            "shrinks": lines[:-3],
            "is reordered": random.Random(seed()).sample(lines, len(lines)),
            "gets other durations": [line.replace('"duration": ', '"duration": 9') for line in lines],
            "loses its fields": [line.replace("duration", "seconds") for line in lines],
            "breaks": [*lines[:20], lines[20][:17]],
        }[how]
    )


changes = ["grows", "shrinks", "is reordered", "gets other durations", "loses its fields", "breaks"]


@pytest.mark.parametrize("how", changes)
def test_a_manifest_that_changes_while_it_is_merged_stops_the_merge(world, how):
    path = world.manifest(40)
    run = world.run(path)
    record = run.new_launch(Wish(2))
    for task in range(2):
        writer = parts.PartWriter(run.parts_folder(0), run.id, 0, task)
        for item in run.deal(record.number).items(task):
            writer.done(item, result_of(item.audio_filepath), 1.0)
        writer.publish()
    lines = path.read_text().splitlines(keepends=True)
    after = changed(lines, how)
    streams = stream.streams

    def meanwhile(*arguments):
        path.write_text(after)
        return streams(*arguments)

    with mock.patch.object(stream, "streams", meanwhile), pytest.raises(ManifestError, match="changed"):
        merge.merge(run)
    assert path.read_text() == after
    assert not list(path.parent.glob(".*.tmp"))
    assert not (run.folder / "merged.json").exists()


@pytest.mark.parametrize("when", ["while it reads", "before it publishes"])
def test_a_twin_that_merges_the_same_meanwhile_is_no_change(world, when):
    """Where locks do not hold, two tasks that end at once merge side by side."""
    rows = world.rows(8)
    path = world.write(rows)
    wanted = b"".join(
        json.dumps(row).encode()[:-1] + b',"tone":"x"}\n' for row in rows
    )  # as the fields of a result are added to a row
    run = world.run(path)
    run.new_launch(Wish(1))
    writer = parts.PartWriter(run.parts_folder(0), run.id, 0, 0)
    for item in run.deal(0).items(0):
        writer.done(item, {"tone": "x"}, 1.0)
    writer.publish()
    place, name = (stream, "streams") if when == "while it reads" else (merge, "_prove")
    real = getattr(place, name)

    def meanwhile(*arguments):
        path.write_bytes(wanted)
        return real(*arguments)

    with mock.patch.object(place, name, meanwhile):
        assert conserved(merge.merge(run)).merged == 8
    assert path.read_bytes() == wanted
    assert not list(path.parent.glob(".*.tmp"))


@pytest.mark.parametrize("sharding", ["round-robin", "balanced"])
@pytest.mark.parametrize("how", changes)
def test_a_manifest_that_changes_while_it_is_dealt_stops_the_launch(world, how, sharding):
    path = world.manifest(40)
    run = world.run(path)
    lines = path.read_text().splitlines(keepends=True)
    write_deal = launches.write_deal

    def meanwhile(private, assignments, tasks):
        path.write_text(changed(lines, how))
        return write_deal(private, assignments, tasks)

    with mock.patch.object(launches, "write_deal", meanwhile), pytest.raises(ManifestError, match="changed"):
        run.new_launch(Wish(3, sharding))
    assert not run.launch_numbers()
    assert {one.name for one in run.folder.iterdir()} == {"run.json"}
    path.write_text("".join(lines))
    assert run.new_launch(Wish(3, sharding)).items == 40
