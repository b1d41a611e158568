"""The engine at scale: plan, resume and merge of millions of rows, against reading and writing the same bytes.

    python -m tests.benchmarks.scale --rows 1e6 3e6 1e7 --shards 64 1000

Every figure is of a process of its own: wall and processor seconds, and the highest memory it held. `× I/O` is the
wall time divided by that of a program that reads the same files and writes (and syncs) as many bytes, measured right
before it. Parts are made directly in their format, 2,000 rows each, as tasks would have published them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable, Dict, Iterable, List
from unittest import mock

from pipelines.core import launches, merge, registry
from pipelines.core.journal import Entry
from pipelines.core.parts import PartWriter
from pipelines.core.run import Run, Wish

REPOSITORY = Path(__file__).resolve().parents[2]
PART_ROWS = 2000
_BLOCK = 1 << 20

Figures = Dict[str, float]

# what is measured, each in a process of its own


def scan(run: Run, _: int) -> None:
    """Read and validate the manifest."""
    run.scan().close()


def plan(run: Run, shards: int) -> None:
    """Read and validate the manifest, and deal it."""
    assert run.new_launch(Wish(shards), say=lambda _: None) is not None


def resume(run: Run, shards: int) -> None:
    """Find out what half a run has done, and deal the rest."""
    record = run.new_launch(Wish(shards), say=lambda _: None)
    assert record is not None
    assert 0 < record.items < record.manifest.items


def merged(run: Run, _: int) -> None:
    """Merge all parts into the manifest."""
    receipt = merge.merge(run)
    assert receipt.merged == receipt.items


def copy(run: Run, size: int) -> None:
    """Read the manifest and all parts, write `size` bytes and sync them: what the disk alone takes."""
    left, block = size, b"\0" * _BLOCK
    with (run.folder / "copy").open("wb") as target:
        for path in [run.manifest, *(path for _, _, path in run.part_files())]:
            with path.open("rb") as source:
                while data := source.read(_BLOCK):
                    left -= target.write(data[: max(0, left)])
        while left > 0:
            left -= target.write(block[:left])
        target.flush()
        os.fsync(target.fileno())
    (run.folder / "copy").unlink()


MEASURED: Dict[str, Callable[[Run, int], None]] = {
    "scan": scan,
    "plan": plan,
    "resume": resume,
    "merge": merged,
    "copy": copy,
}


def child(what: str, run_id: str, number: int) -> None:
    """Measure one thing and print its figures as JSON."""
    run = Run.open(run_id)
    began, used = time.perf_counter(), time.process_time()
    MEASURED[what](run, number)
    wall, cpu = time.perf_counter() - began, time.process_time() - used
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(json.dumps({"wall": wall, "cpu": cpu, "memory": memory}))


def measure(what: str, run: Run, number: int) -> Figures:
    """The figures of one thing."""
    command = [sys.executable, "-m", "tests.benchmarks.scale", "--measure", what, run.id, str(number)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    figures: Figures = json.loads(done.stdout)
    return figures


# what it is measured on


def make_manifest(path: Path, rows: int) -> None:
    """A manifest as the field has them, about 130 bytes a row."""
    line = (
        b'{"audio_filepath": "/data/corpus/speaker_%04d/chapter_%02d/%09d.flac", "duration": %d.%02d, '
        b'"speaker": "%04d"}\n'
    )
    with path.open("wb", buffering=_BLOCK) as file:
        for index in range(rows):
            file.write(line % (index % 5000, index % 37, index, index % 29 + 1, index % 100, index % 5000))


def make_parts(run: Run, launch: int) -> None:
    """Publish the parts of all tasks of a launch, without syncing each."""
    row = b'{"index":%d,"key":"%s","status":"done","result":{"text":"a transcript of the usual length, number %d"}}'
    deal = run.deal(launch)
    with mock.patch.object(os, "fsync", lambda _: None), mock.patch("pipelines.core.parts.next_sequence") as sequence:
        for task in range(len(deal.shares)):
            writer = PartWriter(run.parts_folder(launch), run.id, launch, task)
            sequence.return_value = 0
            for item in deal.items(task):
                data = row % (item.index, item.key.encode(), item.index)
                writer.add(Entry(item.index, item.duration or 0.0, failed=False, row=data))
                if writer.rows == PART_ROWS:
                    writer.publish()
                    sequence.return_value += 1
            writer.publish()
    os.sync()


def hide_half(run: Run) -> List[Path]:
    """Take every other part away."""
    hidden = [path for _, _, path in run.part_files()][1::2]
    for path in hidden:
        path.rename(path.with_suffix(".hidden"))
    return hidden


def size_of(run: Run) -> int:
    """Bytes of the merged manifest, near enough: the manifest, and the results without index, key and status."""
    parts = sum(path.stat().st_size for _, _, path in run.part_files())
    rows = run.record(0).items
    return (
        run.manifest.stat().st_size + parts - rows * len('{"index":1234567,"key":"0123456789abcdef","status":"done",}')
    )


# the report


def scale(folder: Path, rows: int, shards: Iterable[int]) -> List[List[str]]:
    """One line of the table for each thing measured."""
    template = folder / "template.json"
    make_manifest(template, rows)
    table: List[List[str]] = []
    for tasks in shards:
        manifest = folder / f"corpus_{rows}_{tasks}.json"
        os.link(template, manifest)
        run = Run.create(registry.find("tone"), manifest, None, {"factor": 1.0})
        size = manifest.stat().st_size
        alone = measure("copy", run, 0)
        table.append(line("scan", rows, tasks, measure("scan", run, 0), alone))
        alone = measure("copy", run, size)
        table.append(line("plan", rows, tasks, measure("plan", run, tasks), alone))
        make_parts(run, 0)
        hidden = hide_half(run)
        alone = measure("copy", run, size // 2)
        table.append(line("resume, half done", rows, tasks, measure("resume", run, tasks), alone))
        for path in hidden:
            path.with_suffix(".hidden").rename(path)
        for path in (launches.record_path(run.folder, 1), launches.deal_path(run.folder, 1)):
            path.unlink()
        alone = measure("copy", run, size_of(run))
        table.append(line("merge", rows, tasks, measure("merge", run, 0), alone))
        shutil.rmtree(run.folder)
        manifest.unlink()
        manifest.with_name(f"{manifest.name}.bak").unlink()
    template.unlink()
    return table


def line(what: str, rows: int, tasks: int, figures: Figures, alone: Figures) -> List[str]:
    """A line of the table, printed as it is known."""
    wall = figures["wall"]
    cells = [what, f"{rows:,}", str(tasks), f"{wall:.1f}", f"{figures['cpu']:.1f}", f"{figures['memory']:.0f}"]
    cells += [f"{rows / wall / 1000:,.0f} k", f"{alone['wall']:.1f}", f"{wall / alone['wall']:.1f}"]
    sys.stderr.write(f"{'  '.join(cells)}\n")
    return cells


HEADER = ["", "rows", "shards", "wall s", "CPU s", "peak MB", "rows/s", "I/O alone s", "× I/O"]


def markdown(header: List[str], table: List[List[str]]) -> str:
    """A table in Markdown, numbers to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *table]) + "\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, nargs="+", default=[1e6])
    parser.add_argument("--shards", type=int, nargs="+", default=[64])
    parser.add_argument("--folder", type=Path, help="where the files lie meanwhile (default: the temporary folder)")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        child(options.measure[0], options.measure[1], int(options.measure[2]))
        return
    with tempfile.TemporaryDirectory(prefix="voxarray-scale-", dir=options.folder) as name:
        os.environ["VOXARRAY_HOME"] = name
        os.environ["VOXARRAY_PIPELINES"] = str(REPOSITORY / "tests" / "toys")
        table = [row for rows in options.rows for row in scale(Path(name), int(rows), options.shards)]
    sys.stdout.write(markdown(HEADER, table))


if __name__ == "__main__":
    main()
