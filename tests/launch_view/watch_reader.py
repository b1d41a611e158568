"""A person before a terminal on which `status --watch` runs, and the runs to be watched."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

from made_runs import Made, make

REPOSITORY = Path(__file__).resolve().parents[2]


def going(moment, name, **more):
    """A run in the middle of its work; all of them began at the same time."""
    moment.now = moment.__dict__.setdefault("begun", moment.now)
    return make(Made(**{"items": 2000, "tasks": 4, "speed": 20, "until": 200, "name": name, **more}), moment)


def _take_terminal():
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Reader:
    """A person before a terminal, on which a command runs."""

    def __init__(self, home, *arguments, rows=30, columns=100, **variables):
        self.leader, self.follower = pty.openpty()
        self.size(rows, columns, tell=False)
        self.settings = termios.tcgetattr(self.follower)
        environment = {**os.environ, "VOXARRAY_HOME": str(home), "PYTHONPATH": str(REPOSITORY), "TERM": "xterm",
                       "NO_COLOR": "1", **variables}  # fmt: skip
        for name in ("COLUMNS", "LINES"):
            environment.pop(name, None)
        command = [sys.executable, "-m", "slurm", "status", *arguments]
        self.process = subprocess.Popen(
            command,
            stdin=self.follower,
            stdout=self.follower,
            stderr=self.follower,
            env=environment,
            preexec_fn=_take_terminal,  # noqa: PLW1509 - so that Ctrl-C typed there reaches it
        )
        self.seen = ""

    def size(self, rows, columns, tell=True):
        fcntl.ioctl(self.leader, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if tell:
            self.process.send_signal(signal.SIGWINCH)

    def until(self, text, timeout_s=180.0):
        """Read until a text has come; returns what came until then, and forgets it."""
        deadline = time.monotonic() + timeout_s
        while text not in self.seen:
            if not select.select([self.leader], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"{text!r} did not come: {self.seen[-3000:]}")
            self.seen += os.read(self.leader, 65536).decode(errors="replace")
        found, self.seen = self.seen.partition(text)[0] + text, self.seen.partition(text)[2]
        return found

    def type(self, text):
        os.write(self.leader, text.encode())

    def left(self):
        """The command has ended, and the terminal is as it was; returns its exit status and what came last."""
        deadline = time.monotonic() + 180
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self.leader], [], [], 0.05)[0]:
                self.seen += os.read(self.leader, 65536).decode(errors="replace")
        while select.select([self.leader], [], [], 0.1)[0]:
            self.seen += os.read(self.leader, 65536).decode(errors="replace")
        assert termios.tcgetattr(self.follower) == self.settings
        return self.process.wait(1), self.seen

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.leader)
        os.close(self.follower)


def lines_of(drawn):
    """What stands on the screen after a drawing."""
    text = drawn.rpartition("\x1b[H")[2].partition("\x1b[J")[0]
    return [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line) for line in text.replace("\r", "").split("\n")]
