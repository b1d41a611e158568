"""`logs` of many tasks, of files that begin anew, and of lines that a terminal would obey."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time

import pytest

from slurm import cli
from slurm.tasklogs import _Tail

LOGS = 200
FILES = 64
"""Files that the follower may have open: far fewer than there are logs, enough for Python itself."""


@pytest.fixture
def logs(place):
    """The folder of the logs of a run's last launch."""
    cli.main(["tone", str(place.manifest(2)), "--cluster", "local"])
    return max(place.home.glob("logs/*/*/task_0000.log")).parent


class Follower:
    """`logs last --follow` in a process that may open few files."""

    def __init__(self):
        program = f'ulimit -n {FILES}; exec "$0" -m slurm logs last --follow'
        self.process = subprocess.Popen(
            ["bash", "-c", program, sys.executable], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.seen = ""

    def until(self, text):
        """Read until a text has come."""
        deadline = time.monotonic() + 60
        while text not in self.seen:
            if not select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"{text!r} did not come: {self.seen[-2000:]}")
            read = os.read(self.process.stdout.fileno(), 65536)
            if not read:
                raise AssertionError(f"ended: {self.process.stderr.read().decode()[-2000:]}")
            self.seen += read.decode()

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(2)
        self.process.communicate(timeout=60)
        return self.process.returncode


def test_more_logs_are_followed_than_files_may_be_open(logs):
    for task in range(1, LOGS):
        (logs / f"task_{task:04d}.log").write_text("before\n")
    follower = Follower()
    try:
        follower.until("more in")
        time.sleep(1)  # it looks at the sizes next; what comes later is new
        for task in (7, 150, LOGS - 1):
            with (logs / f"task_{task:04d}.log").open("a") as file:
                file.write(f"news of {task}\n")
            follower.until(f"task_{task:04d}.log <==\nnews of {task}\n")
        (logs / "task_9000.log").write_text("one that appears\n")
        follower.until("task_9000.log <==\none that appears\n")
    finally:
        status = follower.end()
    assert status == 0


def test_a_log_in_pieces(tmp_path):
    path = tmp_path / "task_0000.log"
    tail = _Tail()
    assert not tail.more(path), "it may be gone"
    path.write_bytes("caf\u00e9".encode()[:-1])
    assert tail.more(path) == "caf"
    with path.open("ab") as file:
        file.write("\u00e9".encode()[1:] + b"\xff\n")
    assert tail.more(path) == "\u00e9\ufffd\n"
    assert not tail.more(path)
    path.write_bytes(b"anew\n")
    assert tail.more(path) == "anew\n"


@pytest.mark.usefixtures("logs")
@pytest.mark.parametrize("words", [["--task", "²"], ["--launch", "²"]])
def test_a_number_that_is_none(capsys, words):
    assert cli.main(["logs", "last", *words]) == 2
    assert "²" in capsys.readouterr().err


def test_errors_are_shown_and_never_obeyed(logs, capsys):
    (logs / "task_0000.log").write_text("error: cannot read a\x1b]0;pwned\x07b.wav\n")
    capsys.readouterr()
    assert cli.main(["logs", "last", "--errors"]) == 0
    out = capsys.readouterr().out
    assert r"cannot read a\x1b]0;pwned\x07b.wav" in out
    assert "\x1b" not in out
