"""Locks spare double work and nothing more: a twin waits, then stops; without locks everything is right as well."""

from __future__ import annotations

import errno
import fcntl
import logging
import threading
import time
from unittest import mock

import pytest
from filelock import FileLock

from pipelines.core import heartbeat, lock, merge
from pipelines.core.errors import DONE, LockedError, StorageError
from pipelines.core.pipeline import Resources
from pipelines.core.supervise import Supervisor
from tests.core.world import conserved, launch, settle, slurm_task


def test_a_locked_task_waits_then_stops_with_one_clear_line(world):
    path = world.manifest(3)
    run = world.run(path)
    launch(run, cluster="sbatch", job="77")
    with lock.held(run.state_folder(0) / "task_0000.lock", 0, "The test"):
        begun = time.monotonic()
        status, said = world.command(path, **slurm_task("77", [0], 0), VOXARRAY_LOCK_WAIT_S="0.5")
        assert time.monotonic() - begun > 0.5
    assert status == 1
    assert "Traceback" not in said
    (line,) = [one for one in said.splitlines() if "was not given up within 0.5 s" in one]
    assert "Task 0 of corpus" in line
    assert "process" in line
    assert "Nothing is lost" in line
    assert world.seen() == []
    status, said = world.command(path, **slurm_task("77", [0], 0))
    assert status == 0, said


def test_a_twin_goes_on_when_the_lock_is_given_up_and_finds_everything_done(world):
    run = world.run(world.manifest(30))
    launch(run)
    process = world.start("run", run.id, "0", "0", pipeline="task", TOY_NAP="0.03")
    seen = world.root / "seen"
    while not seen.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    told: list = []
    with mock.patch.object(logging.getLogger("pipelines.core.lock"), "info", lambda *words: told.append(words)):
        assert Supervisor(run, 0, 0, Resources())() == DONE
    assert process.wait(timeout=180) == 0
    assert any("waiting up to" in words[0] for words in told)
    assert world.seen() == [f"{n:05d}.wav" for n in range(30)]
    assert conserved(merge.merge(run)).spare == 0


def test_a_task_that_ended_is_not_done_again(world):
    run = world.run(world.manifest(3))
    launch(run)
    assert Supervisor(run, 0, 0, Resources())() == DONE
    assert len(world.seen()) == 3
    assert Supervisor(run, 0, 0, Resources())() == DONE
    assert world.seen() == []


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_work_goes_on_and_says_so(world, code, caplog):
    def refuse(*_: object) -> None:
        raise OSError(code, "no locks here")

    run = world.run(world.manifest(4))
    launch(run)
    logging.getLogger("pipelines").propagate = True
    with mock.patch.object(fcntl, "flock", refuse):
        assert Supervisor(run, 0, 0, Resources())() == DONE
        assert conserved(merge.merge(run)).merged == 4
    assert "no locks" in caplog.text
    left = [path.name for path in run.folder.rglob("*") if "lock" in path.name and path.stat().st_size]
    assert left == [], "a lock file that its maker's death leaves behind would wedge the task"


def test_without_locks_nobody_is_taken_to_be_at_work(world):
    """The files of locks stay behind; on such a file system, every one of them would look held for ever."""
    path = world.manifest(6)
    assert world.command(path, "--limit", "3", TOY_NO_LOCKS="1")[0] == 1
    for words in ([], ["--fresh"]):
        status, said = world.command(path, *words, TOY_NO_LOCKS="1")
        assert status == 0, said


def test_without_locks_twins_do_the_work_twice_and_it_counts_once(world):
    run = world.run(world.manifest(40))
    launch(run)
    processes = [
        world.start("run", run.id, "0", "0", pipeline="task", TOY_NAP="0.15", TOY_NO_LOCKS="1") for _ in range(3)
    ]
    for process in processes:
        said, _ = process.communicate(timeout=180)
        assert process.returncode == 0, said
    assert len(world.seen()) > 40
    receipt = conserved(merge.merge(run))
    assert (receipt.merged, receipt.quarantined, receipt.differing) == (40, 0, 0)
    assert receipt.rows_read > 40


def test_a_lock_that_cannot_be_made_is_told_in_one_paragraph(tmp_path):
    denied = mock.patch.object(FileLock, "acquire", side_effect=PermissionError(errno.EACCES, "Permission denied"))
    with denied, pytest.raises(StorageError, match="permissions"), lock.held(tmp_path / "a.lock", 1, "x"):
        pass
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError), lock.held(tmp_path / "file" / "a.lock", 1, "x"):
        pass


def test_two_merges_at_once_are_one_after_the_other_and_agree(world):
    run = world.run(world.manifest(300))
    launch(run)
    settle(run, 0)
    receipts: list = []
    threads = [threading.Thread(target=lambda: receipts.append(merge.merge(run))) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(receipts) == 4
    assert len({receipt.outputs[0].sha256 for receipt in receipts}) == 1
    assert len(list(run.manifest.parent.glob("corpus.json.bak*"))) == 1


def test_runs_that_add_to_one_manifest_merge_one_after_the_other(world):
    path = world.manifest(3)
    link = world.root / "linked.json"
    link.symlink_to(path)
    run, other = world.run(path), world.run(link)

    def meanwhile(*_: object) -> None:
        with pytest.raises(LockedError, match=f"The merge into {link} is held"):
            merge.merge(other, wait_s=0)

    with mock.patch.object(merge, "_merge", mock.Mock(side_effect=meanwhile)) as begun:
        merge.merge(run)
    begun.assert_called_once()


def test_a_merge_that_is_due_is_done_once_by_many(world):
    run = world.run(world.manifest(20))
    launch(run)
    settle(run, 0)
    first = merge.merge(run, if_due=True)
    assert merge.merge(run, if_due=True) == first
    assert [file.sha256 for file in merge.merge(run).outputs] == [file.sha256 for file in first.outputs]


def test_a_heartbeat_survives_a_full_disk(world):
    run = world.run(world.manifest(1))
    launch(run)
    run.state_folder(0).mkdir(parents=True)
    beat = heartbeat.Heartbeat(
        task=0, launch=0, attempt="a", host="h", pid=1, state="running", started=0.0, time=0.0, dealt=1
    )
    with mock.patch("pathlib.Path.write_bytes", side_effect=OSError(errno.ENOSPC, "full")):
        heartbeat.write(run.state_folder(0), beat)
    heartbeat.write(run.state_folder(0), beat)
    assert heartbeat.read(run.state_folder(0), 0) == beat
