"""Publication: whole or not at all, and first wins, with and without hard links, among threads and processes."""

from __future__ import annotations

import errno
import multiprocessing
import os
import sys
import threading
import time
from pathlib import Path
from unittest import mock

import pytest

from pipelines.core import store
from pipelines.core.errors import StorageError

WRITERS, ROUNDS = 8, 30


def no_links(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def race(folder: Path, who: int, start: threading.Barrier) -> list[int]:
    """Try to win every one of a number of names; which were won."""
    won = []
    for number in range(ROUNDS):
        start.wait()
        if store.publish(folder / f"{number}.json", f"{who}:{number}\n".encode() * 500):
            won.append(number)
    return won


def check(folder: Path, won: dict[int, list[int]]) -> None:
    for number in range(ROUNDS):
        winners = [who for who, names in won.items() if number in names]
        assert len(winners) == 1, f"{len(winners)} writers were told that their file stands"
        assert (folder / f"{number}.json").read_bytes() == f"{winners[0]}:{number}\n".encode() * 500
    assert not [path for path in folder.iterdir() if store.is_temporary(path.name)]


@pytest.mark.parametrize("links", [True, False])
def test_first_wins_among_threads(tmp_path, links):
    won, start = {}, threading.Barrier(WRITERS)

    def work(who: int) -> None:
        won[who] = race(tmp_path, who, start)

    with mock.patch.object(os, "link", os.link if links else no_links):
        threads = [threading.Thread(target=work, args=(who,)) for who in range(WRITERS)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    check(tmp_path, won)


def process(folder: Path, who: int, start: threading.Barrier, links: bool, answers: multiprocessing.Queue) -> None:
    store.ATTEMPT = f"node-{os.getpid()}-{who:08x}"
    if not links:
        os.link = no_links
    answers.put((who, race(folder, who, start)))


@pytest.mark.parametrize("links", [True, False])
def test_first_wins_among_processes(tmp_path, links):
    context = multiprocessing.get_context("fork")
    start, answers = context.Barrier(4), context.Queue()
    processes = [context.Process(target=process, args=(tmp_path, who, start, links, answers)) for who in range(4)]
    [one.start() for one in processes]
    won = dict(answers.get(timeout=180) for _ in processes)
    [one.join() for one in processes]
    check(tmp_path, won)


def test_without_links_a_slow_winner_is_not_overtaken(tmp_path):
    """Between its reservation and its rename a process may be stopped for as long as it pleases."""
    path = tmp_path / "task_0000.000.jsonl"
    rename, told = os.replace, []

    def while_another_publishes(source: Path, target: Path) -> None:
        with mock.patch.object(os, "replace", rename):
            told.append(store.publish(path, b"another\n"))
        rename(source, target)

    with mock.patch.object(os, "link", no_links), mock.patch.object(os, "replace", while_another_publishes):
        told.append(store.publish(path, b"slow\n"))
    assert told.count(True) == 1
    assert path.read_bytes() == (b"another\n" if told[0] else b"slow\n")


def test_a_link_whose_reply_was_lost_still_won(tmp_path):
    real = os.link

    def lossy(source: Path, target: Path) -> None:
        real(source, target)
        raise FileExistsError(errno.EEXIST, "the reply was lost, and the call was sent again")

    with mock.patch.object(os, "link", lossy):
        assert store.publish(tmp_path / "a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_a_replacement_that_fails_leaves_what_was_there(tmp_path, failing):
    path = tmp_path / "merged.json"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match="disk or your quota is full"):
        if failing == "write":
            with store.writing(path):
                full()
        else:
            with mock.patch.object(os, failing, full):
                store.replace(path, b"new")
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["merged.json"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "full"),
        (errno.EDQUOT, "full"),
        (errno.EACCES, "permissions"),
        (errno.EROFS, "permissions"),
        (errno.EIO, "Check the mount"),
    ],
)
def test_errors_of_the_file_system_become_one_paragraph(tmp_path, code, words):
    with pytest.raises(StorageError) as caught, store.teaching(tmp_path / "part"):
        raise OSError(code, os.strerror(code))
    said = str(caught.value)
    assert words in said
    assert str(tmp_path / "part") in said
    assert "\n" not in said


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="could not be written"):
        store.publish(tmp_path / "file" / "below" / "a", b"x")


@pytest.mark.parametrize("host", ["n1", "node-12", "gpu-a-3"])
def test_private_files_of_dead_processes_of_this_host_are_known(tmp_path, host):
    dead = multiprocessing.get_context("fork").Process(target=int)
    dead.start()
    dead.join()
    with mock.patch.object(store, "ATTEMPT", f"{host}-{dead.pid}-0badcafe"):
        left = store.temporary(tmp_path / "a.jsonl").name
        beat = f".task_0000.heartbeat.json.{store.ATTEMPT}.tmp"
    with mock.patch.object(store, "ATTEMPT", f"{host}-{os.getpid()}-12345678"):
        live = store.temporary(tmp_path / "a.jsonl").name
        assert store.is_temporary(left)
        assert store.left_by_the_dead(left)
        assert store.left_by_the_dead(beat)
        assert not store.left_by_the_dead(live)
    with mock.patch.object(store, "ATTEMPT", f"other-{os.getpid()}-12345678"):
        assert not store.left_by_the_dead(left), "a process of another host cannot be looked up"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="told by Linux's /proc")
def test_a_zombie_is_dead_and_a_process_that_inherited_the_number_is_another(tmp_path):
    zombie = os.fork()
    if not zombie:
        os._exit(0)
    os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
    host = store.ATTEMPT.rsplit("-", 2)[0]
    for pid, seconds, expected in ((zombie, 0, True), (os.getpid(), 0, False), (os.getpid(), 7200, True)):
        left = tmp_path / f".part.{host}-{pid}-0badcafe.tmp"
        left.write_bytes(b"")
        written = time.time() - seconds
        os.utime(left, (written, written))
        assert store.is_abandoned(left) == expected, (pid, seconds)
    os.waitpid(zombie, 0)


@pytest.mark.parametrize("name", ["a" * 255, "é" * 127, "a" * 220])
def test_any_name_that_a_file_system_takes_can_be_published(tmp_path, name):
    store.replace(tmp_path / name, b"old")
    with store.writing(tmp_path / name) as file:
        file.write(b"new")
        private = next(path.name for path in tmp_path.iterdir() if path.name != name)
        assert store.is_temporary(private)
        assert not store.left_by_the_dead(private)
    dead = multiprocessing.get_context("fork").Process(target=int)
    dead.start()
    dead.join()
    with mock.patch.object(store, "ATTEMPT", f"n1-{dead.pid}-0badcafe"):
        assert store.left_by_the_dead(store.temporary(tmp_path / name).name)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(name, b"new")]
    assert len({store.temporary(tmp_path / f"{name[:-1]}{end}").name.rsplit("-", 1)[0] for end in "xyz"}) == 3


def test_a_file_that_would_not_change_is_left_alone(tmp_path):
    path = tmp_path / "listing"
    for text, changes in ((b"one", True), (b"one", False), (b"two", True), (b"twos", True)):
        before = path.stat().st_ino if path.exists() else None
        with store.writing(path, if_changed=True) as file:
            file.write(text)
        assert path.read_bytes() == text
        assert (path.stat().st_ino != before) == changes
        assert [entry.name for entry in tmp_path.iterdir()] == ["listing"]
