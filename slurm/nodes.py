"""`doctor --nodes N`: the same questions asked of several compute nodes at once, on the file system that they share.

Each node runs this module (standard library only). Node 0 holds a lock while the others try it; then all of them link
one name at the same moment. What each saw goes into a file of its own, which is what the launcher reads.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Optional

from slurm.probes import BAD, GOOD, NOTE, Finding

_PATIENCE_S = 60.0
_LAG_S, _SKEW_S = 2.0, 5.0


def ask(folder: Path, nodes: int, python: Path, partition: Optional[str]) -> list[Finding]:
    """Run the probe on `nodes` nodes through srun, and judge what they saw."""
    from pipelines.core import paths
    from slurm import cluster

    topic = f"{nodes} compute nodes"
    place = folder / f".doctor-nodes-{os.getpid()}-{time.time_ns()}"
    options = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--time=5", "--immediate=120"]
    options += [f"--chdir={paths.repository()}", *([f"--partition={partition}"] if partition else [])]
    try:
        place.mkdir(parents=True)
        with cluster.outside_of_jobs():
            cluster.call("srun", *options, str(python), "-m", "slurm.nodes", str(place), str(nodes), timeout_s=400)
        answers = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(place.glob("answer-*.json"))]
    except (cluster.CommandError, OSError, ValueError) as error:
        remedy = (
            "repository, environments and VOXARRAY_HOME must lie where every node sees them; if the cluster is "
            "only busy, try again later, or name another --partition"
        )
        return [Finding(topic, "probe", BAD, str(error)[:600], remedy)]
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return judge(topic, nodes, answers)


def judge(topic: str, nodes: int, answers: list[dict[str, Any]]) -> list[Finding]:
    """What the answers of all nodes amount to."""
    hosts = ", ".join(sorted({answer["host"] for answer in answers}))
    if len(answers) < nodes:
        remedy = "VOXARRAY_HOME must lie on a file system that every node sees"
        return [
            Finding(topic, "sharing", BAD, f"only {len(answers)} of {nodes} nodes left an answer ({hosts})", remedy)
        ]
    return [
        Finding(topic, "sharing", GOOD, f"{hosts} start Python and see each other's files"),
        _link_judged(topic, sum(answer["won"] for answer in answers)),
        _lock_judged(topic, {answer["host"]: answer["lock"] for answer in answers}),
        _times_judged(
            topic, "visibility", "a new file is seen after", max(answer["lag_s"] for answer in answers), _LAG_S
        ),
        _times_judged(
            topic,
            "clock",
            "a node and the file server differ by",
            max(abs(answer["skew_s"]) for answer in answers),
            _SKEW_S,
        ),
    ]


def _link_judged(topic: str, winners: int) -> Finding:
    if winners == 1:
        return Finding(topic, "link", GOOD, "one name, linked by all nodes at once, went to exactly one")
    return Finding(topic, "link", BAD, f"{winners} nodes won one name", "use another file system for results")


def _lock_judged(topic: str, locks: dict[str, str]) -> Finding:
    if "none" in locks.values():
        return Finding(topic, "lock", NOTE, "there are no locks; results stay right, work may be done twice")
    entered = [host for host, lock in locks.items() if lock == "entered"]
    if entered:
        seen = f"held on one node, {', '.join(entered)} got it too; results stay right, work may be done twice"
        return Finding(topic, "lock", NOTE, seen, "mount options: NFS without nolock, Lustre with flock")
    return Finding(topic, "lock", GOOD, "excludes between nodes")


def _times_judged(topic: str, name: str, words: str, seconds: float, most: float) -> Finding:
    if seconds < most:
        return Finding(topic, name, GOOD, f"{words} {seconds:.1f} s at most")
    remedy = "ask for time synchronisation (chrony, ntp)" if name == "clock" else "status and merges see results late"
    return Finding(topic, name, NOTE, f"{words} up to {seconds:.1f} s", remedy)


def _wait_for(path: Path) -> float:
    """Seconds until a file was seen. TimeoutError if it never was."""
    begun = time.monotonic()
    while not path.exists():
        if time.monotonic() - begun > _PATIENCE_S:
            raise TimeoutError(f"{path.name} was not seen on {platform.node()} within {_PATIENCE_S:.0f} s")
        time.sleep(0.05)
        os.listdir(path.parent)  # noqa: PTH208 - makes NFS look again
    return time.monotonic() - begun


def _lock(place: Path, rank: int, nodes: int) -> str:
    """`held` by rank 0; what the others get: `refused`, `entered`, or `none` where there are no locks."""
    with (place / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return "refused"
        except OSError:
            return "none"
        if rank == 0:
            (place / "held").touch()
            for other in range(1, nodes):
                _wait_for(place / f"tried-{other}")
            return "held"
        return "entered"


def probe(place: Path, rank: int, nodes: int) -> dict[str, Any]:
    """What this node sees."""
    mine = place / f"rank-{rank}"
    mine.write_text(platform.node(), encoding="utf-8")
    skew = mine.stat().st_mtime - time.time()
    if rank:
        _wait_for(place / "held")
    lock = _lock(place, rank, nodes)
    if rank:
        (place / f"tried-{rank}").touch()
    (place / f"ready-{rank}").touch()
    lag = max(_wait_for(place / f"ready-{other}") for other in range(nodes)) if nodes > 1 else 0.0
    try:
        os.link(mine, place / "name")
        won = True
    except OSError:
        won = False
    return {
        "host": os.environ.get("SLURMD_NODENAME", platform.node()),
        "skew_s": skew,
        "lock": lock,
        "lag_s": lag,
        "won": won,
    }


def main() -> int:
    """The probe on one node."""
    place, rank, nodes = Path(sys.argv[1]), int(os.environ.get("SLURM_PROCID", "0")), int(sys.argv[2])
    answer = json.dumps(probe(place, rank, nodes))
    private = place / f".answer-{rank}.tmp"
    private.write_text(answer, encoding="utf-8")
    private.rename(place / f"answer-{rank}.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
