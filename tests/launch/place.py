"""A user's place for tests: manifests, the command line in processes of its own, runs as they stand on disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


class Place:
    """`root` holds `home` (VOXARRAY_HOME), `envs`, `config`, and what the test makes."""

    def __init__(self, root):
        self.root = root
        self.home = root / "home"
        self._started = []

    def manifest(self, count, name="m.json", **fields):
        """A manifest of `count` items; fields may be functions of the item's number."""
        path = self.root / name
        rows = []
        for number in range(count):
            row = {"audio_filepath": f"/data/{number:05d}.wav", "duration": 1.0 + number % 5}
            for key, value in fields.items():
                made = value(number) if callable(value) else value
                if made is not None:
                    row[key] = made
            rows.append(json.dumps(row))
        path.write_text("\n".join(rows) + "\n")
        return path

    def start(self, *words, **environment):
        """Start `voxarray …` in a session of its own."""
        process = subprocess.Popen(
            [sys.executable, "-m", "slurm", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, **environment},
        )
        self._started.append(process)
        return process

    def run(self, *words, timeout_s=300, **environment):
        """`voxarray …` to its end: (exit status, standard output, standard error)."""
        process = self.start(*words, **environment)
        out, error = process.communicate(timeout=timeout_s)
        return process.returncode, out, error

    def runs(self):
        """Ids of the runs."""
        return sorted(path.parent.name for path in (self.home / "output" / "runs").glob("*/run.json"))

    def folder(self, run=None):
        """A run's folder (the only run's, without a name)."""
        return self.home / "output" / "runs" / (run or self.runs()[0])

    def json(self, *names, run=None):
        """A JSON file of a run."""
        return json.loads(self.folder(run).joinpath(*names).read_text())

    def tree(self):
        """Every file under the place, with its size and time: what must not change."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            stat = path.lstat()
            found[str(path)] = (stat.st_size, stat.st_mtime_ns) if path.is_file() else None
        return found

    def processes(self, mark):
        """Ids of processes of this place whose command line holds `mark`."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    home = f"VOXARRAY_HOME={self.home}\0".encode() in (entry / "environ").read_bytes() + b"\0"
                except OSError:
                    continue
                if mark in command and home:
                    found.append(int(entry.name))
        return found

    def fake_commands(self):
        """A folder with the commands of a make-believe Slurm."""
        folder = self.root / "bin"
        folder.mkdir(exist_ok=True)
        program = Path(__file__).with_name("fake_slurm.py")
        for name in ("sbatch", "squeue", "scontrol", "scancel", "srun", "sinfo"):
            command = folder / name
            command.write_text(f'#!/bin/sh\nexec {sys.executable} {program} {name} "$@"\n')
            command.chmod(0o755)
        return folder

    def end(self):
        """Kill whatever the test left running."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.wait()
        for pid in self.processes("slurm.local") + self.processes("submitit") + self.processes("pipelines.core"):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def wait_until(condition, timeout_s=180.0, what="the condition"):
    """Wait for something to become true; returns what made it so."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come about in {timeout_s} s")
