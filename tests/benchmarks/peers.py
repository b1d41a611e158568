"""What is lost, and what is done again, when a job is killed in the middle and started again: peers side by side.

    python -m tests.benchmarks.peers --python PYTHON

PYTHON: an interpreter with `datatrove[io]`, `lhotse`, `submitit` and `torch` (the launcher needs none of them). The
job: 400 items in 4 tasks, 20 ms each, a row of JSON each. When 360 have been begun, everything is killed (-9), as by
a node's loss; then the same command is given again, with 4 tasks or with 2. Counted: items without a row in the end,
and items that were begun once more. Several rounds, medians.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import List, NamedTuple, Sequence

REPOSITORY = Path(__file__).resolve().parents[2]
ITEMS, KILLED_AT, TASKS, NAP_S = 400, 360, 4, 0.02
PATIENCE_S = 90


class Outcome(NamedTuple):
    """Of one round. `status`: of the last command."""

    lost: int
    again: int
    status: int


class Job:
    """A job of one peer in a folder of its own."""

    def __init__(self, name: str, root: Path, python: str) -> None:
        self.name, self.root, self.python = name, root, python
        self.seen = root / "seen"
        self.manifest = root / "corpus.json"
        rows = [{"audio_filepath": f"/data/{number:05d}.wav", "duration": 1.0} for number in range(ITEMS)]
        self.manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def argv(self, tasks: int) -> List[str]:
        if self.name == "voxarray":
            return ["voxarray", "tone", str(self.manifest), "--cluster", "local", "--tasks", str(tasks), "--cpus", "1"]
        program = str(Path(__file__).with_name("peers_programs.py"))
        return [self.python, program, self.name, str(self.root), str(tasks)]

    def start(self, tasks: int) -> subprocess.Popen:
        """Start the job's command in a session of its own."""
        argv = self.argv(tasks)
        env = {**os.environ, "TOY_SEEN": str(self.seen), "TOY_NAP": str(NAP_S), "TOY_BATCH": "4"}
        if argv[0] == "voxarray":
            argv[0] = str(REPOSITORY / "voxarray")
            env.update(VOXARRAY_HOME=str(self.root), VOXARRAY_PIPELINES=str(REPOSITORY / "tests" / "toys"))
        with (self.root / "log").open("ab") as log:
            return subprocess.Popen(argv, env=env, stdout=log, stderr=log, start_new_session=True)

    def begun(self) -> int:
        return len(self.seen.read_text().split()) if self.seen.exists() else 0

    def rows(self) -> set:
        """Items that have a row in what the program says is its output."""
        if self.name == "voxarray":
            found = [json.loads(line) for line in self.manifest.read_text().splitlines()]
            return {Path(row["audio_filepath"]).name for row in found if "tone" in row}
        found = set()
        for path in (self.root / "output").glob("*.jsonl"):
            for line in path.read_text().splitlines():
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                found.add(row.get("id") or row["text"])
        return found


def kill(root: Path) -> None:
    """Kill every process that has this folder in its command line or environment, as the loss of a node does."""
    mark = str(root).encode()
    for _ in range(20):
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    known = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                except OSError:
                    continue
                if mark in known:
                    found.append(int(entry.name))
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if not found:
            return
        time.sleep(0.05)


def one(name: str, python: str, tasks_again: int) -> Outcome:
    """One round."""
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        job = Job(name, Path(folder), python)
        process = job.start(TASKS)
        deadline = time.monotonic() + PATIENCE_S
        while job.begun() < KILLED_AT and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        kill(job.root)
        process.wait()
        before = job.begun()
        again = job.start(tasks_again)
        try:
            status = again.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            status = -1
        kill(job.root)
        names = job.seen.read_text().split()
        begun_before = set(names[:before])
        repeated = sum(name in begun_before for name in names[before:])
        return Outcome(ITEMS - len(job.rows()), repeated, status)


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.peers", description=__doc__)
    parser.add_argument("--python", required=True, help="an interpreter that has the peers")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    print("| | 4 tasks again: lost | begun again | 2 tasks: lost | begun again |\n|---|---:|---:|---:|---:|")
    for name in ("voxarray", "datatrove", "submitit", "lhotse"):
        cells = []
        for tasks in (TASKS, 2):
            rounds = [one(name, options.python, tasks) for _ in range(options.rounds)]
            failed = sum(each.status != 0 for each in rounds)
            told = f" ({failed} of {len(rounds)} failed)" if failed else ""
            cells += [f"{statistics.median(each.lost for each in rounds):g}{told}"]
            cells += [f"{statistics.median(each.again for each in rounds):g}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
