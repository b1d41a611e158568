"""kill -9 at random moments: of whole tasks, of supervisors, of workers, while merging, while listing and dealing.

Afterwards conservation holds, nothing is lost or doubled, and the bytes are those of a run that nobody disturbed. What
is killed when is drawn from VOXARRAY_SEED; VOXARRAY_KILLS (200) says how many kills there are over the whole file.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pipelines.core import merge, parts
from pipelines.core.run import Run
from tests.core.world import World, conserved, decoded, launch, seed, settle, slurm_task

KILLS = int(os.environ.get("VOXARRAY_KILLS", "200"))
TASKS, BATCH, ITEMS = 3, 3, 150
killed: dict[str, int] = {}


def group_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes of a command, its own first."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(path.name)) == process.pid:
                found.append(int(path.name))
        except ProcessLookupError:
            continue
    return sorted(found, key=lambda number: number != process.pid)


class Task:
    """One task of an array, started again whenever it was killed."""

    def __init__(self, world: World, path: Path, number: int, job: str) -> None:
        self.world, self.path, self.number, self.job = world, path, number, job
        self.seen = world.root / f"seen-{job}-{number}"
        self.process = self.start()

    def start(self) -> subprocess.Popen[str]:
        self.before = self.processed
        slurm = slurm_task(self.job, range(TASKS), self.number)
        toy = {"TOY_SEEN": str(self.seen), "TOY_NAP": "0.004", "TOY_BATCH": str(BATCH)}
        return self.world.start(self.path, **slurm, **toy, VOXARRAY_PART_ITEMS="7", VOXARRAY_HEARTBEAT_S="0.05")

    @property
    def processed(self) -> int:
        return self.seen.stat().st_size // len("00000.wav\n") if self.seen.exists() else 0

    def kill(self, chance: random.Random, whom: str) -> bool:
        """Kill it at some moment; most often while it is at work. Whether it was alive."""
        if chance.random() < 0.7:
            deadline = time.monotonic() + 5
            while self.processed == self.before and self.process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.08))
        else:
            time.sleep(chance.uniform(0, 0.25))
        members = group_of(self.process)
        if self.process.poll() is not None or not members:
            return False
        whom = chance.choice(["group", "supervisor", "worker"]) if whom == "anybody" else whom
        if whom == "group":
            os.killpg(self.process.pid, signal.SIGKILL)
        elif whom == "supervisor":
            self.process.kill()
        elif len(members) > 1:
            os.kill(members[-1], signal.SIGKILL)
            return True
        else:
            return False
        self.process.communicate()
        return True

    def ended(self) -> bool:
        return self.process.poll() == 0


def storm(world: World, kills: int, whom: str) -> list[Run]:
    """Runs of arrays under a storm of that many kills, all brought to their end afterwards."""
    chance, runs, count, job = random.Random(f"{seed()} {whom}"), [], 0, 100
    while count < kills:
        job += 10
        path = world.write(world.rows(ITEMS), f"corpus-{job}.json")
        tasks = [Task(world, path, number, str(job)) for number in range(TASKS)]
        while count < kills and not all(task.ended() for task in tasks):
            task = chance.choice([task for task in tasks if not task.ended()])
            count += task.kill(chance, whom)
            for one in tasks:
                if one.process.poll() not in (None, 0):
                    one.process = one.start()
        for task in tasks:
            while True:
                said, _ = task.process.communicate(timeout=180)
                if task.ended():
                    break
                assert count or task.process.returncode in (1, 75), said
                task.process = task.start()
        run = world.run(path)
        processed = sum(task.processed for task in tasks)
        assert processed <= ITEMS + BATCH * count + 2 * TASKS, "kills cost more than the batches in flight"
        runs.append(run)
    killed[whom] = count
    return runs


def quiet(world: World) -> bytes:
    return world.undisturbed(world.rows(ITEMS))


def left_over(world: World) -> list[str]:
    suffixes = (".tmp", ".inflight", ".journal")
    return [str(path) for path in world.root.rglob("*") if path.name.endswith(suffixes)]


def test_whole_tasks_are_killed(world):
    expected = quiet(world)
    for run in storm(world, KILLS * 45 // 100, "group"):
        receipt = conserved(merge.merge(run))
        assert (receipt.merged, receipt.quarantined, receipt.differing) == (ITEMS, 0, 0)
        assert run.manifest.read_bytes() == expected
        blamed = [row.error.kind for _, row in run.rows() if row.error]
        assert set(blamed) <= {parts.LOST}
    assert left_over(world) == []


def test_supervisors_and_workers_are_killed_alone_too(world):
    expected = quiet(world)
    for run in storm(world, KILLS * 30 // 100, "anybody"):
        receipt = conserved(merge.merge(run))
        assert receipt.merged + receipt.quarantined == ITEMS
        if receipt.quarantined:  # a worker that is killed twice over the same lonely item looks like the item's fault
            number = launch(run, pardon=True)
            settled = run.deal(number)
            assert settled.shares[0].items == receipt.quarantined
            status, said = world.command("run", run.id, number, 0, pipeline="task")
            assert status == 0, said
            receipt = conserved(merge.merge(run))
        assert (receipt.merged, receipt.differing) == (ITEMS, 0)
        assert run.manifest.read_bytes() == expected
    assert left_over(world) == []


def interrupted(world: World, chance: random.Random, usual: float, *command: object, pipeline: str) -> bool:
    """Start a command, and kill it at some moment of the time it usually takes. Whether it was alive."""
    process = world.start(*command, pipeline=pipeline)
    if pipeline in ("merge", "launch"):
        assert process.stdout is not None
        process.stdout.readline()  # it is about to begin
    time.sleep(chance.uniform(0, usual))
    alive = process.poll() is None
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        alive = False
    process.communicate()
    return alive


def test_merges_are_killed(world):
    chance = random.Random(f"{seed()} merge")
    path = world.manifest(6000)
    original = path.read_bytes()
    run = world.run(path)
    launch(run, 4)
    settle(run, 0)
    begun = time.monotonic()
    merge.merge(run)
    usual, merged = time.monotonic() - begun, path.read_bytes()
    count = 0
    for attempt in range(KILLS):
        if attempt % 3 == 0:
            path.write_bytes(original)
        count += interrupted(world, chance, usual * 1.2, run.id, pipeline="merge")
        assert path.read_bytes() in (original, merged)
        assert path.with_name("corpus.json.bak").read_bytes() == original
        if count == KILLS * 12 // 100:
            break
    killed["merge"] = count
    receipt = conserved(merge.merge(run))
    assert receipt.merged == 6000
    assert path.read_bytes() == merged
    assert [one.name for one in path.parent.glob("corpus.json.bak*")] == ["corpus.json.bak"]
    assert left_over(world) == []


def test_listings_and_deals_are_killed(world):
    chance = random.Random(f"{seed()} deal")
    source = world.root / "audio"
    source.mkdir()
    for number in range(3000):
        (source / f"{number:05d}.wav").write_bytes(b"x" * (number % 50))
    run = world.run(source, "chime", pitch=440)
    begun = time.monotonic()
    launch(run, 5)
    usual, count = time.monotonic() - begun, 0
    for attempt in range(KILLS):
        count += interrupted(world, chance, usual * 1.2, run.id, 3 + attempt % 5, pipeline="launch")
        assert len(decoded(run.manifest)) == 3000
        if count == KILLS * 13 // 100:
            break
    killed["deal"] = count
    for record in run.records():
        deal = run.deal(record.number)
        indexes = [item.index for task in range(record.tasks) for item in deal.items(task)]
        assert sorted(indexes) == list(range(3000))
    number = launch(run, 4)
    settle(run, number)
    assert conserved(merge.merge(run)).merged == 3000
    assert left_over(world) == []


@pytest.mark.parametrize("pipeline", ["tone", "chime"])
def test_commands_are_killed_from_their_first_moment_on(world, pipeline):
    """From nothing: no run, no listing, no launch."""
    chance, count = random.Random(f"{seed()} {pipeline}"), 0
    source = world.manifest(40) if pipeline == "tone" else world.root / "audio"
    if pipeline == "chime":
        source.mkdir()
        for number in range(40):
            (source / f"{number}.wav").write_bytes(b"x")
    for _ in range(8):
        count += interrupted(world, chance, 0.4, source, "--tasks", 2, pipeline=pipeline)
    killed[pipeline] = count
    status, said = world.command(source, "--tasks", 2, pipeline=pipeline)
    assert status == 0, said
    assert "40 items = 40 merged" in said
    assert left_over(world) == []


def test_there_were_enough_kills(request):
    ran = {item.name for item in request.session.items}
    print(f"kills: {killed}, together {sum(killed.values())}; seed {seed()}")
    if {"test_whole_tasks_are_killed", "test_merges_are_killed", "test_listings_and_deals_are_killed"} <= ran:
        assert sum(killed.values()) >= KILLS
