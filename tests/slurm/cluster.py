"""A real Slurm of several nodes on this machine: munge, slurmctld, one slurmd a node, no systemd.

All state lies in one temporary folder, all ports are picked free, and every process descends from one keeper, so that
several clusters can run side by side and `down` (or the end of the tests, however it comes) leaves nothing behind.

    cluster = Cluster(Settings(nodes=4)).up()          # 1-3 s; with accounting 8-15 s
    job = cluster.sbatch("--array=0-3", wrap="hostname")
    cluster.wait_for_jobs(job)
    cluster.down()
"""

from __future__ import annotations

import atexit
import dataclasses
import getpass
import os
import secrets
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any, Dict, Optional

from accounting import listens, start_accounting
from commands import Commands
from processes import ClusterError, Processes, send, wait_until
from slurm_conf import Ports, Settings, free_ports, slurm_conf

SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin")


class Cluster(Commands):
    """One cluster: its life and its faults, and (inherited) Slurm's own commands to look at it."""

    def __init__(self, settings: Optional[Settings] = None) -> None:
        super().__init__()
        self.settings = settings or Settings()
        self._built_with = self.settings
        self._starts = 0
        self.ports: Optional[Ports] = None
        self.processes: Optional[Processes] = None

    # Life

    def up(self) -> Cluster:
        """Start everything and wait until every node is idle; tries other ports once if one was taken meanwhile."""
        atexit.register(self.down)
        for attempt in (1, 2):
            try:
                self._start()
            except ClusterError as error:
                seen = self.describe()
                self.down()
                if attempt == 2:
                    raise ClusterError(f"{error}\n{seen}") from error
            else:
                break
        return self

    def down(self) -> None:
        """End every process of the cluster and remove its folder. Calling it again does nothing."""
        if self.processes:
            left = self.processes.end()
            self.processes = None
            shutil.rmtree(self.root, ignore_errors=True)
            if left:
                raise ClusterError(f"processes that would not end: {left}")
        atexit.unregister(self.down)

    def _start(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: socket paths end at 107 characters
        self.root.chmod(0o755)  # jobs of other users look in
        for name in ("log", "state", "spool"):
            (self.root / name).mkdir()
        self.ports = free_ports(self.settings.nodes)
        self._write_configuration()
        self.processes = Processes(self.root)
        self._start_munge()
        for name in self.settings.names():
            self._start_node(name)  # a node repeats its registration until the controller answers
        if self.settings.accounting:
            start_accounting(self.root, self.ports, getpass.getuser(), self.processes, self._daemon_environment())
            self.command("sacctmgr", "-i", "-Q", "add", "cluster", "test")
        self._start_controller()
        wait_until(lambda: set(self.node_states().values()) == {"IDLE"}, 90, "every node to be idle")

    def _write_configuration(self) -> None:
        if not self.ports:
            raise ClusterError("the cluster has no ports yet")
        text = slurm_conf(self.root, self.settings, self.ports, getpass.getuser(), first_job=1 + 1000 * self._starts)
        (self.root / "slurm.conf").write_text(text)
        (self.root / "cgroup.conf").write_text("")  # none are used; without the file Slurm reads the machine's own

    def _start_munge(self) -> None:
        key = self.root / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        options = {
            "socket": self.root / "munge.sock",
            "key-file": key,
            "pid-file": self.root / "munged.pid",
            "log-file": self.root / "log" / "munged.log",
            "seed-file": self.root / "munge.seed",
            "num-threads": 4,
        }
        argv = ["munged", "--foreground", "--force"] + [f"--{name}={value}" for name, value in options.items()]
        self._daemons().start("munged", argv, self._daemon_environment())
        wait_until((self.root / "munge.sock").exists, 60, "munge's socket")

    def _start_node(self, name: str) -> None:
        (self.root / "spool" / name).mkdir(exist_ok=True)
        argv = ["slurmd", "-D", "-N", name, "-f", str(self.root / "slurm.conf")]
        self._daemons().start(f"slurmd-{name}", argv, self._daemon_environment())

    def _start_controller(self) -> None:
        argv = ["slurmctld", "-D", "-f", str(self.root / "slurm.conf")]
        self._daemons().start("slurmctld", argv, self._daemon_environment())
        wait_until(lambda: "UP" in self.command("scontrol", "ping", check=False), 60, "slurmctld to answer")

    def _daemons(self) -> Processes:
        if not self.processes:
            raise ClusterError("the cluster is down")
        return self.processes

    def _daemon_environment(self) -> Dict[str, str]:
        path = os.pathsep.join([os.environ.get("PATH", ""), *SYSTEM_FOLDERS])
        return {**self.environment(), "PATH": path, "SLURM_TEST": str(self.root / "log")}

    # Faults

    def node_kill(self, name: str, split_brain: bool = False, notice: bool = True) -> None:
        """Take a node away: power loss, or with `split_brain` only its daemon, so that its jobs live on as ghosts.

        `notice` tells the controller at once; else it finds out by itself after about 25 s.
        """
        daemons = self._daemons()
        daemons.kill(f"slurmd-{name}")
        if not split_brain:
            self.ghosts_end(name)
        if notice:
            self.scontrol("update", f"nodename={name}", "state=down", "reason=test")

    def ghosts_end(self, name: Optional[str] = None) -> None:
        """Kill the processes of all jobs, or those on one node, behind Slurm's back."""
        daemons = self._daemons()

        def none_left() -> bool:
            left = daemons.jobs(name)
            for pid in left:
                send(pid, signal.SIGKILL)
            return not left

        wait_until(none_left, 60, f"the jobs' processes on {name or 'all nodes'} to end", 0.02)

    def node_up(self, name: str) -> None:
        """Bring a node back, and wait until jobs can start on it."""
        if not self._daemons().running(f"slurmd-{name}"):
            self._start_node(name)
        usable = {"IDLE", "MIXED", "ALLOCATED"}
        wait_until(lambda: self.node_states().get(name) in usable, 90, f"node {name} to come back")

    def nodes_up(self) -> None:
        """Bring every node back, whatever state it is in (Slurm drains one whose jobs' processes would not end)."""
        for name in self.settings.names():
            if not self._daemons().running(f"slurmd-{name}"):
                self._start_node(name)

        def usable() -> bool:
            states = self.node_states()
            bad = [name for name, state in states.items() if state not in {"IDLE", "MIXED", "ALLOCATED"}]
            for name in bad:
                self.command("scontrol", "update", f"nodename={name}", "state=resume", check=False)
            return not bad

        wait_until(usable, 270, "every node to come back", 0.5)

    def controller_kill(self, number: int = signal.SIGKILL) -> None:
        """End slurmctld with a signal. SIGTERM saves its state; SIGKILL loses what happened in the last 5 s."""
        self._daemons().kill("slurmctld", number)

    def controller_up(self) -> None:
        """Start slurmctld again from its saved state; wait until it answers and has heard from every live node."""
        self._starts += 1
        self._write_configuration()
        self._start_controller()
        living = [name for name in self.settings.names() if self._daemons().running(f"slurmd-{name}")]
        for name in living:
            send(self._daemons().pids[f"slurmd-{name}"], signal.SIGHUP)  # register now, not in 4 s

        def registered() -> bool:
            states = self.node_states()
            return all("UNKNOWN" not in states.get(name, "UNKNOWN") for name in living)

        wait_until(registered, 60, "the nodes to register")

    def accounting_up(self) -> None:
        """Start slurmdbd again after it was killed."""
        self._daemons().start("slurmdbd", ["slurmdbd", "-D"], self._daemon_environment())
        wait_until(lambda: self.ports is not None and listens(self.ports.accounting), 180, "slurmdbd to listen")

    def reconfigure(self, **changes: Any) -> None:
        """Change settings (say, `max_array_size=17`) by a restart of the controller; `clean` undoes it."""
        self.settings = dataclasses.replace(self.settings, **changes)
        self.controller_kill(signal.SIGTERM)
        self.controller_up()

    def preempt(self, seconds: float = 1, nodes: Optional[int] = None) -> str:
        """Take whole nodes (all, or so many) for a moment with a job that preempts "low" and "lowgrace"."""
        count = nodes or self.settings.nodes
        return self.sbatch("--partition=high", f"--nodes={count}", "--exclusive", wrap=f"sleep {seconds}")

    # Between tests

    def clean(self) -> None:
        """Bring the cluster back to its first state: settings, controller and nodes up and idle, no jobs."""
        daemons = self._daemons()
        if self.settings != self._built_with and daemons.running("slurmctld"):
            self.reconfigure(**dataclasses.asdict(self._built_with))
        elif not daemons.running("slurmctld"):
            self.settings = self._built_with
            self.controller_up()
        if self.squeue():
            self.scancel(f"--user={getpass.getuser()}")
        self.ghosts_end()
        for name in self.settings.names():
            if not daemons.running(f"slurmd-{name}"):
                self._start_node(name)
        wait_until(self._back_to_idle, 180, "an idle cluster without jobs", 0.1)

    def _back_to_idle(self) -> bool:
        states = self.node_states()
        stuck = [name for name, state in states.items() if "DRAIN" in state or state == "DOWN"]
        if stuck:
            self.command("scontrol", "update", f"nodename={','.join(stuck)}", "state=resume", check=False)
        return not stuck and not self.squeue() and set(states.values()) == {"IDLE"}
