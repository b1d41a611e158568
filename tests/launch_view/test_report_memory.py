"""Memory of a report does not grow with the rows, beyond a byte or so an item."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_runs import Made, Maker

from pipelines.core.manifest import items as items_of
from pipelines.core.parts import PartWriter

REPOSITORY = Path(__file__).resolve().parents[2]
MEASURED = """
import sys
from slurm import report
report.main(["last", "--output", sys.argv[1]])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak_mb(home: Path, moment, items: int) -> float:
    """Peak resident memory of a report over a run of so many items, in MB."""
    maker = Maker(Made(items=items, tasks=4, name=f"n{items}"), moment)
    maker.plan()
    maker.launch()
    writer = PartWriter(maker.folder / "parts" / "launch-000", maker.made.run_id(), 0, 0)
    for item in items_of(maker.folder / "listing.jsonl"):
        seconds = maker.audio[item.index]
        writer.done(item, {"duration": seconds, "spch-ratio": 0.5, "segments": [[0.1, seconds / 2]]}, seconds)
        if writer.rows == 5000:
            writer.publish()
    writer.publish()
    environment = {**os.environ, "VOXARRAY_HOME": str(home), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", MEASURED, str(home / "report.html")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1]) / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="it is read from /proc")
def test_memory_is_bounded(home, moment):
    small = peak_mb(home, moment, 50_000)
    moment.now += 10
    large = peak_mb(home, moment, 200_000)
    assert large - small < 15
