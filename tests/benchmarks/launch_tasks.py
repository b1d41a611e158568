"""What a launch of many tasks costs the user's terminal: `python -m tests.benchmarks.launch_tasks [--tasks 1000]`.

On a real Slurm on this machine, as root: `./voxarray tone MANIFEST --tasks N` (scan, deal, submitit's array, sweep)
against submitit's `map_array` by hand, and the bare `sbatch --array` of N jobs, which is Slurm's own share. The nodes
are drained, so that only the launch is measured. Interleaved repeats, medians; prints the table of TECHNICAL.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "slurm"))

from cluster import Cluster  # noqa: E402 - found by the line above
from slurm_conf import Settings  # noqa: E402

BY_HAND = """
import sys, submitit
executor = submitit.AutoExecutor(folder=sys.argv[1], cluster="slurm")
executor.update_parameters(timeout_min=60, slurm_array_parallelism=int(sys.argv[2]))
executor.map_array(abs, range(int(sys.argv[2])))
"""


def manifest(folder: Path, number: int, rows: int) -> Path:
    """A manifest of its own for each repeat: another run."""
    path = folder / f"corpus{number}.json"
    lines = (json.dumps({"audio_filepath": f"/data/{row:07d}.wav", "duration": 5.0}) for row in range(rows))
    path.write_text("\n".join(lines) + "\n")
    return path


def wall_s(command: list[str], environment: dict[str, str]) -> float:
    """Wall time of a command that must succeed."""
    began = time.monotonic()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    times: dict[str, list[float]] = {"voxarray": [], "submitit by hand": [], "sbatch": []}
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(Settings(max_array_size=options.tasks + 1)).up()
        try:
            cluster.drain("n1", "n2", "n3", "n4")
            environment = cluster.environment(
                VOXARRAY_HOME=folder, VOXARRAY_PIPELINES=str(REPOSITORY / "tests" / "toys")
            )
            for number in range(options.repeats):
                source = manifest(Path(folder), number, options.rows)
                command = [str(REPOSITORY / "voxarray"), "tone", str(source), "--tasks", str(options.tasks)]
                times["voxarray"].append(wall_s([*command, "--cluster", "slurm", "--no-wait"], environment))
                by_hand = [sys.executable, "-c", BY_HAND, f"{folder}/by_hand{number}", str(options.tasks)]
                times["submitit by hand"].append(wall_s(by_hand, environment))
                bare = ["sbatch", f"--array=0-{options.tasks - 1}", "--output=/dev/null", "--wrap=true"]
                times["sbatch"].append(wall_s(bare, environment))
                cluster.scancel("--user", os.environ.get("USER", "root"))
        finally:
            cluster.down()
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{options.tasks:,} tasks, {options.rows:,} rows, median of {options.repeats}")
    print("\n| | s | ÷ submitit by hand |\n|---|---|---|")
    for name, value in medians.items():
        print(f"| {name} | {value:.2f} | {value / medians['submitit by hand']:.2f} |")


if __name__ == "__main__":
    main()
