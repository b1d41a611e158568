"""Workers that hang are ended, and their item is found; slow ones and suspended ones are left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from pipelines.core import inflight, merge, paths, stall
from tests.core.test_deaths import errors
from tests.core.world import World, conserved

BRIEF = {"VOXARRAY_STALL_S": "2", "VOXARRAY_HEARTBEAT_S": "10"}


@pytest.mark.parametrize("cpus", [3])
def test_an_item_that_hangs_is_quarantined_and_the_others_are_done(world: World, cpus: int) -> None:
    rows = world.rows(24)
    rows[13]["nap"] = 100_000
    path = world.write(rows)
    status, said = world.command(path, "--cpus", cpus, **BRIEF)
    assert status == 1, said
    assert "23 merged + 1 quarantined + 0 missing" in said
    run = world.run(path)
    assert errors(run) == {"13": ["died", "died"]}
    message = next(row.error.message for _, row in run.rows() if row.error)
    assert "it hung: no batch began or ended and no processor time was used for 2 s" in message
    assert conserved(merge.last_receipt(run)).merged == 23
    assert "in process\n" in paths.task_log(run.id, 0, 0).read_text(), "the log says where it stood"


def test_work_without_end_is_no_hang(world: World) -> None:
    rows = world.rows(4)
    rows[1]["spin"] = 3
    path = world.write(rows)
    status, said = world.command(path, **{**BRIEF, "VOXARRAY_STALL_S": "1"})
    assert status == 0, said
    assert errors(world.run(path)) == {}


def test_nobody_is_watched_if_asked(world: World) -> None:
    rows = world.rows(2)
    rows[1]["nap"] = 4
    status, said = world.command(world.write(rows), **{**BRIEF, "VOXARRAY_STALL_S": "0"})
    assert status == 0, said


def test_quiet_looks_must_follow_each_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in flight, and the time of processors, are compared from look to look."""
    noted, used = [b""], [1.0]
    monkeypatch.setattr(inflight, "noted", lambda *_: noted[0])
    monkeypatch.setattr(stall, "processor_s", lambda _: used[0])
    with subprocess.Popen(["/bin/true"]) as process:
        watch = stall.Watch(process, world.root, 0, 100.0)
        assert [watch._is_quiet() for _ in range(3)] == [False] * 3, "a model may load for hours"
        noted[0] = b"7 8\n"
        assert [watch._is_quiet() for _ in range(3)] == [False, True, True]
        noted[0] = b"9\n"
        assert [watch._is_quiet() for _ in range(2)] == [False, True]
        used[0] = 5.0
        assert [watch._is_quiet() for _ in range(2)] == [False, True]


def test_a_worker_without_items_in_flight_is_not_watched(world: World) -> None:
    """Such as one that publishes a part to a file server that is slow."""
    crumb = inflight.Breadcrumb(world.root, 3, slots=2)
    assert inflight.noted(world.root, 3, os.getpid()) == b""
    crumb.enter(1, [17, 18, 19], alone=False)
    assert inflight.noted(world.root, 3, os.getpid()) == b"17 18 19"
    crumb.leave(1)
    assert inflight.noted(world.root, 3, os.getpid()) == b""


def test_processor_time_of_a_family() -> None:
    """Children count while they live, and once they were waited for."""
    spin = "import time\nwhile time.process_time() < .5: pass\n"
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {spin!r}])\nprint('spun', flush=True)\n"
    living = f"subprocess.Popen([sys.executable, '-c', {spin + 'print(1, flush=True); time.sleep(600)'!r}]).wait()"
    one = subprocess.Popen([sys.executable, "-c", code + living], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert one.stdout is not None
        one.stdout.readline()
        assert stall.processor_s(one.pid) >= 0.45, "counted in ticks"
        one.stdout.readline()
        assert stall.processor_s(one.pid) >= 0.9
    finally:
        os.killpg(one.pid, signal.SIGKILL)
        one.communicate()
