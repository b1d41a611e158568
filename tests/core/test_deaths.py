"""Deaths: an item that kills its process is found, tried alone and quarantined after two strikes; nobody else is."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from pipelines.core import heartbeat, inflight, ledger, merge, parts, suspects
from pipelines.core.run import Run
from pipelines.core.supervise import run_task
from tests.core.world import World, conserved, launch


def account(run: Run) -> ledger.Account:
    with run.scan() as scan:
        return run.account(scan)


def errors(run: Run) -> dict[str, list[str]]:
    found: dict = {}
    for _, row in run.rows():
        if row.error is not None:
            found.setdefault(f"{row.index}", []).append(row.error.kind)
    return found


@pytest.mark.parametrize(
    ("fault", "words", "cpus"),
    [
        ({"kill": signal.SIGSEGV}, "segmentation fault", 3),
        ({"kill": signal.SIGKILL}, "want of memory", 1),
        ({"exit": 1}, "exit status 1", 1),
        ({"exit": 0}, "exit status 0", 3),
    ],
)
def test_an_item_that_ends_the_process_is_quarantined_and_the_others_are_done(world, fault, words, cpus):
    rows = world.rows(24)
    rows[13].update(fault)
    path = world.write(rows)
    status, said = world.command(path, "--cpus", cpus)
    assert status == 1, said
    assert "23 merged + 1 quarantined + 0 missing" in said
    assert "00013.wav" in said
    run = world.run(path)
    assert errors(run) == {"13": ["died", "died"]}
    assert words in next(row.error.message for _, row in run.rows() if row.error)
    assert conserved(merge.last_receipt(run)).merged == 23
    assert world.seen().count("00013.wav") in (3, 4)
    state = run.state_folder(0)
    assert not [one for one in state.iterdir() if one.suffix in (".inflight", ".journal")]


def test_two_items_that_kill_are_told_apart_in_one_batch(world):
    rows = world.rows(12)
    rows[4]["kill"] = signal.SIGKILL
    rows[6]["kill"] = signal.SIGSEGV
    status, said = world.command(world.write(rows), TOY_BATCH="12")
    assert status == 1
    assert "10 merged + 2 quarantined" in said


def test_an_item_that_kills_once_is_done_in_the_end(world):
    rows = world.rows(8)
    rows[2].update(kill=signal.SIGKILL, once=str(world.root / "once"))
    status, said = world.command(world.write(rows))
    assert status == 0, said
    assert "8 merged" in said


def test_a_quarantined_item_is_pardoned_by_a_retry(world):
    rows = world.rows(5)
    rows[1]["kill"] = signal.SIGKILL
    path = world.write(rows)
    assert world.command(path)[0] == 1
    run = world.run(path)
    assert world.command(path)[0] == 1, "the same command again leaves it in quarantine"
    path.write_text(path.read_text().replace('"kill": 9', '"kell": 9'))
    number = launch(run, pardon=True)
    assert run.deal(number).shares[0].items == 1
    assert run_task(run.id, number, 0) == 0
    assert conserved(merge.merge(run)).merged == 5


def test_a_worker_that_dies_while_loading_is_started_twice_and_no_item_is_blamed(world):
    path = world.manifest(4)
    status, said = world.command(path, TOY_DIE_LOADING="1")
    assert status == 1
    assert "died twice with no item in flight" in said
    assert "Traceback" not in said
    run = world.run(path)
    assert errors(run) == {}
    status, said = world.command(path)
    assert status == 0, said


def started(world: World, *arguments: object, **variables: str):
    """A command at work: some of its items are processed."""
    process = world.start(*arguments, **variables)
    seen = world.root / "seen"
    deadline = time.monotonic() + 180
    while not seen.exists() or seen.stat().st_size < 60:
        assert time.monotonic() < deadline, process.communicate()
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return process


def processes_of(group: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(path.name)) == group:
                found.append(int(path.name))
        except ProcessLookupError:
            continue
    return found


def test_when_the_supervisor_is_killed_its_worker_dies_too(world):
    path = world.manifest(200)
    process = started(world, path, TOY_NAP="0.02")
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60
    while processes_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert processes_of(process.pid) == []
    status, said = world.command(path)
    assert status == 0, said
    assert "200 merged" in said


def test_kill_9_of_everything_costs_no_finished_item_and_blames_none(world):
    path = world.manifest(120)
    process = started(world, path, TOY_NAP="0.02")
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = world.seen()
    status, said = world.command(path)
    assert status == 0, said
    assert "120 merged" in said
    again = world.seen()
    assert set(before) | set(again) == {f"{n:05d}.wav" for n in range(120)}
    assert len(set(before) & set(again)) <= 4, "more than the batch in flight was done twice"
    assert account(world.run(path)).done == 120


def test_three_vanished_attempts_with_the_same_lonely_item_quarantine_it(world):
    run = world.run(world.manifest(3))
    launch(run)
    for attempt in range(3):
        crumb = inflight.Breadcrumb(run.state_folder(0), 0, 1)
        crumb.enter(0, [1], alone=True)
        assert account(run).quarantined == 0, attempt
        assert [item.index for item in suspects.question(run, 0, 0, seen=None)] == [1]
    assert list(account(run).states) == [ledger.MISSING, ledger.QUARANTINED, ledger.MISSING]
    assert errors(run) == {"1": [parts.LOST] * 3}


def test_suspects_of_a_vanished_launch_are_tried_alone_in_the_next_one(world):
    run = world.run(world.manifest(6))
    launch(run)
    crumb = inflight.Breadcrumb(run.state_folder(0), 0, 1)
    crumb.enter(0, [1, 3], alone=False)
    number = launch(run, 2)
    keys = [item.key for task in (0, 1) for item in run.deal(number).items(task) if item.index in (1, 3)]
    assert sorted(run.record(number).suspects) == sorted(keys)
    assert errors(run) == {}
    assert not list(run.state_folder(0).glob("*.inflight"))


def test_an_environment_that_does_not_fit_is_status_3(world):
    path = world.manifest(2)
    status, _ = world.command(path, TOY_NOT_FIT="libtone.so is not there. `./voxarray env create vad` makes it.")
    assert status == 3
    log = next((world.home / "logs").rglob("task_0000.log")).read_text()
    assert "libtone.so is not there" in log
    assert "Traceback" not in log
    assert heartbeat.read(world.run(path).state_folder(0), 0).state == "failed"
