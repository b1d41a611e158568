"""The ordeal at length: `python -m tests.slurm.ordeal [--faults 1000] [--seed N]`, from the repository's folder.

Prints a line a round, and a table of faults by kind in the end. Needs a Slurm that can be started here (see
tests/system-packages.sh) and the environments of `./voxarray test`; a small tmpfs for full disks needs root.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Iterator, Optional, Sequence

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[3])]

_DISK = "96m"


@contextmanager
def small_disk(root: Path) -> Iterator[Path]:
    """A file system that can be filled; a plain folder where none can be mounted."""
    root.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", str(root)], check=False, capture_output=True
    )
    try:
        yield root
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "-l", str(root)], check=False)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Rounds of a chain until so many faults have hit; 0 where every proof held."""
    import packages
    from cluster import Cluster
    from slurm_conf import Settings

    from ordeal.chain import Round, prepare

    parser = argparse.ArgumentParser(prog="python -m tests.slurm.ordeal", description=__doc__)
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--round", type=int, default=40, help="faults a round")
    parser.add_argument("--first", type=int, default=0, help="number of the first round: the die is cast by it")
    parser.add_argument("--verbose", action="store_true", help="print every fault")
    options = parser.parse_args(arguments)
    kinds: Counter = Counter()
    totals: Counter = Counter()
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ordeal-")))
        root.chmod(0o755)
        prepared = prepare(root)
        cluster = Cluster(Settings(accounting=packages.accounting_available())).up()
        stack.callback(cluster.down)
        disk = stack.enter_context(small_disk(root / "disk"))
        while sum(kinds.values()) < options.faults:
            number = options.first + totals["rounds"]
            cluster.clean()
            one = Round(cluster, disk / f"round-{number}", prepared, random.Random(f"{options.seed} {number}"))
            began = time.monotonic()
            try:
                hits = one.storm(options.round)
                commands = one.settle()
                counts = one.prove()
            except BaseException:
                print("\n".join(one.weather.log[-80:]), one.state(), sep="\n", flush=True)
                print((disk / f"round-{number}.commands").read_text(errors="replace")[-6000:], flush=True)
                raise
            if options.verbose:
                print("\n".join(one.weather.log), flush=True)
            kinds.update(one.weather.counts)
            totals.update(counts)
            totals.update(rounds=1, commands=commands)
            where = f"{one.tasks} tasks in {one.partition}, {'with' if one.has_sacct else 'without'} sacct"
            print(
                f"round {number}: {hits} faults on {where}; {commands} commands more; {counts['done twice']} items "
                f"done twice; proven after {time.monotonic() - began:.0f} s",
                flush=True,
            )
            shutil.rmtree(one.home)
    print(f"\n{sum(kinds.values())} faults in {totals['rounds']} rounds, every round proven.")
    for name, count in sorted(kinds.items(), key=lambda pair: -pair[1]):
        print(f"| {name} | {count} |")
    print(f"items {totals['items']}, done twice {totals['done twice']}, commands {totals['commands']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
