"""What the engine costs a task and an item, and what a launch of many tasks costs before anything is submitted.

    python -m tests.benchmarks.scale_tasks

A task: `run_task` with one item that takes no time, against a Python that starts and imports nothing of the engine.
An item: the task loop over items that take no time, against a bare loop that makes the same results and writes and
syncs them as JSON lines. A launch: the record and the deal of a million rows over a number of tasks, and what one of
its tasks reads at its start.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable, List
from unittest import mock

import msgspec

from pipelines.core import launches, registry
from pipelines.core.manifest import items
from pipelines.core.pipeline import Resources
from pipelines.core.run import Run, Wish
from pipelines.core.task import TaskLoop
from tests.benchmarks.scale import REPOSITORY, make_manifest, markdown

PART_ROWS = 2000


def a_run(folder: Path, rows: int, name: str) -> Run:
    """A run of the toy over a new manifest."""
    path = folder / f"{name}.json"
    make_manifest(path, rows)
    return Run.create(registry.find("tone"), path, None, {"factor": 1.0})


def timed(work: Callable[[], object]) -> List[float]:
    """Wall and processor seconds, children included."""
    before = os.times()
    work()
    after = os.times()
    cpu = sum(after[:4]) - sum(before[:4])
    return [after.elapsed - before.elapsed, cpu]


def tasks(folder: Path, count: int) -> List[List[str]]:
    """Start to end of tasks with one item each, one after the other."""
    run = a_run(folder, count, "tasks")
    run.new_launch(Wish(count))
    command = "import sys, pipelines.core.supervise as s; sys.exit(s.run_task(sys.argv[1], 0, int(sys.argv[2])))"
    empty = [sys.executable, "-c", "pass"]

    def work(task: int) -> None:
        subprocess.run([sys.executable, "-c", command, run.id, str(task)], cwd=REPOSITORY, check=True)

    wall, cpu = timed(lambda: [work(task) for task in range(count)])
    bare_wall, bare_cpu = timed(lambda: [subprocess.run(empty, check=True) for _ in range(count)])
    return [
        ["a task with one item", f"{wall / count * 1e3:.0f} ms", f"{cpu / count * 1e3:.0f} ms"],
        ["an empty Python", f"{bare_wall / count * 1e3:.0f} ms", f"{bare_cpu / count * 1e3:.0f} ms"],
    ]


def bare_loop(run: Run, batch: int) -> None:
    """The toy's results of every item, written and synced as lines."""
    processor = run.pipeline.load(run.plan.parameters, Resources())
    everything = list(items(run.manifest))
    encode = msgspec.json.Encoder().encode
    with (run.folder / "bare.jsonl").open("wb") as file:
        for start in range(0, len(everything), batch):
            chosen = everything[start : start + batch]
            for item, result in zip(chosen, processor.process(chosen)):
                file.write(encode({"index": item.index, "key": item.key, "status": "done", "result": result}) + b"\n")
            if start % PART_ROWS < batch:
                file.flush()
                os.fsync(file.fileno())


def per_item(folder: Path, count: int) -> List[List[str]]:
    """The task loop against the bare loop, with batches of several sizes."""
    table = []
    for batch in (1, 16, 256):
        run = a_run(folder, count, f"items_{batch}")
        run.new_launch(Wish(1))
        with mock.patch.dict(os.environ, {"TOY_BATCH": str(batch)}):
            wall, cpu = timed(lambda run=run: TaskLoop(run, 0, 0, Resources()).work())  # type: ignore[misc]
        bare_wall, bare_cpu = timed(lambda run=run, batch=batch: bare_loop(run, batch))  # type: ignore[misc]
        micro = 1e6 / count
        cells = [wall * micro, cpu * micro, bare_wall * micro, bare_cpu * micro, (cpu - bare_cpu) * micro]
        table.append([f"batches of {batch}", *(f"{cell:.0f} µs" for cell in cells)])
    return table


def launch(folder: Path, rows: int, counts: List[int]) -> List[List[str]]:
    """Record and deal over many tasks, and the start of one of them."""
    table = []
    for count in counts:
        for sharding in ("round-robin", "balanced"):
            run = a_run(folder, rows, f"launch_{count}_{sharding}")
            wall, cpu = timed(lambda run=run, count=count, how=sharding: run.new_launch(Wish(count, how)))  # type: ignore[misc]
            begun = time.perf_counter()
            next(run.deal(0).items(count - 1))
            start = time.perf_counter() - begun
            size = launches.deal_path(run.folder, 0).stat().st_size / 2**20
            cells = [f"{wall:.1f} s", f"{cpu:.1f} s", f"{start * 1e3:.1f} ms", f"{size:.0f} MB"]
            table.append([f"{count} tasks, {sharding}", *cells])
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=10, help="tasks started one after the other")
    parser.add_argument("--items", type=int, default=50_000, help="items of one task")
    parser.add_argument("--rows", type=float, default=1e6, help="rows of the launch")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="voxarray-scale-") as name:
        os.environ["VOXARRAY_HOME"] = name
        os.environ["VOXARRAY_PIPELINES"] = str(REPOSITORY / "tests" / "toys")
        folder = Path(name)
        print(markdown(["", "wall", "CPU"], tasks(folder, options.tasks)))
        header = ["an item", "wall", "CPU", "bare wall", "bare CPU", "the engine's CPU"]
        print(markdown(header, per_item(folder, options.items)))
        header = [f"a launch of {options.rows:,.0f} rows", "wall", "CPU", "a task's start", "deal"]
        print(markdown(header, launch(folder, int(options.rows), [64, 1000])))


if __name__ == "__main__":
    main()
