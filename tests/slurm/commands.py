"""Slurm's own commands on a test cluster, as methods: submit, look, wait, hold, and describe it all on failure."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, List, Sequence

from processes import ClusterError, wait_until

ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"}


class Commands:
    """The client's side of a cluster whose configuration is `root`/slurm.conf."""

    def __init__(self) -> None:
        self.root = Path()

    # Environments

    def environment(self, sacct: bool = True, **extra: str) -> Dict[str, str]:
        """Environment for programs that should find this cluster; `sacct=False`: a PATH on which it does not exist."""
        others = ("SLURM", "SBATCH", "SQUEUE", "SACCT")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(others)}
        path = kept.get("PATH", os.defpath)
        path = path if sacct else self.path_without_sacct(path)
        return {**kept, "SLURM_CONF": str(self.root / "slurm.conf"), "PATH": path, **extra}

    def path_without_sacct(self, path: str) -> str:
        """The same PATH, but folders that hold sacct replaced by folders of links to everything else in them."""
        folders = []
        for number, folder in enumerate(path.split(os.pathsep)):
            if not Path(folder, "sacct").exists():
                folders.append(folder)
                continue
            links = self.root / f"path-{number}"
            if not links.exists():
                links.mkdir()
                for entry in Path(folder).iterdir():
                    if entry.name != "sacct":
                        (links / entry.name).symlink_to(entry)
            folders.append(str(links))
        return os.pathsep.join(folders)

    # Commands

    def command(self, *argv: str, check: bool = True, timeout_s: float = 60, **environment: str) -> str:
        """Standard output of one of Slurm's commands; ClusterError with its standard error when it fails."""
        env = self.environment(**environment)
        result = subprocess.run(
            argv, capture_output=True, text=True, check=False, timeout=timeout_s, env=env, cwd=self.root
        )
        if check and result.returncode:
            raise ClusterError(f"{' '.join(argv)}: exit status {result.returncode}: {result.stderr.strip()}")
        return result.stdout

    def sbatch(self, *options: str, wrap: str = "", script: Sequence[str] = ()) -> str:
        """Submit a shell line (`wrap`) or a script with its arguments; returns the job's id."""
        argv = ["sbatch", "--parsable", f"--output={self.root}/log/job-%A_%a.out", *options]
        argv += [f"--wrap={wrap}"] if wrap else list(script)
        return self.command(*argv).strip().split(";")[0]

    def scontrol(self, *words: str) -> str:
        """Run scontrol."""
        return self.command("scontrol", *words)

    def scancel(self, *words: str) -> None:
        """Run scancel."""
        self.command("scancel", *words)

    def squeue(self) -> List[Dict[str, str]]:
        """Jobs that have not ended, one row an array task: id, state, reason, nodes, partition, name."""
        lines = self.command("squeue", "-h", "-a", "-r", "-o", "%i|%T|%r|%N|%P|%j").splitlines()
        return [dict(zip(("id", "state", "reason", "nodes", "partition", "name"), line.split("|"))) for line in lines]

    def sacct(self, job: str) -> Dict[str, str]:
        """State of each of the job's allocations by id, from the accounting database."""
        lines = self.command("sacct", "-X", "-n", "-P", "-j", job, "-o", "JobID,State").splitlines()
        return dict(line.split("|") for line in lines)

    def job(self, job: str) -> List[Dict[str, str]]:
        """Everything the controller knows of a job, one record an array task; empty when it has forgotten it."""
        lines = self.command("scontrol", "-o", "show", "job", job, check=False).splitlines()
        return [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines if "JobId=" in line]

    def states(self, job: str) -> Dict[str, str]:
        """State of each array task by `<array>_<task>` (or by the job's id); tasks not yet started share an entry."""
        return {_identity(record): record["JobState"] for record in self.job(job)}

    def wait_for_jobs(self, *jobs: str, timeout_s: float = 180) -> Dict[str, str]:
        """Wait until all tasks of the jobs have ended; returns their states."""
        what = f"jobs {', '.join(jobs)} to end"
        wait_until(lambda: all(_ended(self.job(job)) for job in jobs), timeout_s, what, 0.15)
        return {identity: state for job in jobs for identity, state in self.states(job).items()}

    def wait_for_state(self, job: str, *wanted: str, timeout_s: float = 180) -> None:
        """Wait until every task of the job is in one of the wanted states."""
        what = f"job {job} to be {' or '.join(wanted)}"
        wait_until(lambda: bool(self.job(job)) and set(self.states(job).values()) <= set(wanted), timeout_s, what, 0.1)

    def node_states(self) -> Dict[str, str]:
        """State of each node, as Slurm prints it (IDLE, MIXED+DRAIN, DOWN*, …); empty while the controller is down."""
        lines = self.command("scontrol", "-o", "show", "node", check=False).splitlines()
        records = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
        return {record["NodeName"]: record["State"] for record in records if "NodeName" in record}

    def hold(self, job: str) -> None:
        """Keep a pending job from starting."""
        self.scontrol("hold", job)

    def release(self, job: str) -> None:
        """Let a held job start."""
        self.scontrol("release", job)

    def drain(self, *names: str) -> None:
        """Let nothing new start on the nodes; what runs goes on."""
        self.scontrol("update", f"nodename={','.join(names)}", "state=drain", "reason=test")

    def resume(self, *names: str) -> None:
        """Undo `drain`."""
        self.scontrol("update", f"nodename={','.join(names)}", "state=resume")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let no job start meanwhile, so that what is submitted starts together."""
        for state in ("down", "up"):
            for partition in ("main", "low", "lowgrace"):
                self.scontrol("update", f"partitionname={partition}", f"state={state}")
            if state == "down":
                yield

    def describe(self) -> str:
        """What a person needs to see when a test has failed: nodes, queue, jobs, the ends of the logs."""
        if not (self.root / "slurm.conf").exists():
            return "the cluster is down"
        parts = []
        for argv in (["sinfo", "-N", "-l"], ["squeue", "-a", "-l"], ["scontrol", "-o", "show", "job"]):
            try:
                output = self.command(*argv, check=False, timeout_s=15)
            except (subprocess.TimeoutExpired, OSError) as error:
                output = str(error)
            parts.append(f"$ {' '.join(argv)}\n{output[-6000:]}")
        logs = (path for path in (self.root / "log").iterdir() if path.name != "munged.out")
        logs = [path for path in logs if path.suffix == ".log" or not path.with_suffix(".log").exists()]
        for log in sorted(logs, key=lambda path: path.stat().st_mtime)[-12:]:
            tail = log.read_text(errors="replace")[-1500:]
            if tail:
                parts.append(f"--- end of {log.name}\n{tail}")
        return "\n".join([time.strftime("%H:%M:%S"), *parts])


def _identity(record: Dict[str, str]) -> str:
    if "ArrayTaskId" in record:
        return f"{record['ArrayJobId']}_{record['ArrayTaskId']}"
    return record["JobId"]


def _ended(records: List[Dict[str, str]]) -> bool:
    return all(record["JobState"] in ENDED for record in records)
