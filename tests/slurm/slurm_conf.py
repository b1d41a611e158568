"""The configuration of a test cluster: what varies between tests, and the text of slurm.conf for it."""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import List

PORTS = range(20000, 32000)  # below Linux's ephemeral range, from which outgoing connections take theirs


@dataclass(frozen=True)
class Settings:
    """What a test may want to vary; the defaults make everything happen as soon as Slurm allows.

    Processors and memory are pretended (`config_overrides`): nodes need not fit the machine.
    """

    nodes: int = 4
    cpus: int = 32
    memory_mb: int = 256000
    max_array_size: int = 1001  # the largest index is one less
    kill_wait_s: int = 2  # from SIGTERM to SIGKILL at a time limit, and at the end of a preemption's grace
    cred_expire_s: int = 5  # also how long a requeued job waits to start again; below 5, Slurm silently takes 120
    node_timeout_s: int = 5
    grace_s: int = 6  # of partition "lowgrace"
    preempt_user_signal: bool = True  # whether preemption sends the signal of `sbatch --signal`, as sites may choose
    accounting: bool = False  # MariaDB and slurmdbd, so that sacct answers

    def names(self) -> List[str]:
        """The nodes' names, n1 onwards."""
        return [f"n{number}" for number in range(1, self.nodes + 1)]


@dataclass(frozen=True)
class Ports:
    """Ports of one cluster, each free when it was picked."""

    controller: int
    accounting: int
    database: int
    nodes: List[int]


def free_ports(nodes: int) -> Ports:
    """Pick three ports and one for each node that nobody listens on now."""
    held: List[socket.socket] = []
    try:
        for port in random.sample(PORTS, len(PORTS)):
            probe = socket.socket()
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                probe.close()
                continue
            held.append(probe)
            if len(held) == nodes + 3:
                break
        numbers = [probe.getsockname()[1] for probe in held]
    finally:
        for probe in held:
            probe.close()
    return Ports(numbers[0], numbers[1], numbers[2], numbers[3:])


def slurm_conf(root: Path, settings: Settings, ports: Ports, user: str, first_job: int) -> str:
    """Text of slurm.conf for a cluster whose state lies under `root`.

    `first_job` is the least job id from now on: a controller that lost its last jobs would hand out their ids again,
    and nodes that still hold those jobs would refuse the new ones.
    """
    host = socket.gethostname().split(".")[0]
    signal_option = "SlurmctldParameters=preempt_send_user_signal" if settings.preempt_user_signal else ""
    nodes = "\n".join(
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={settings.cpus} Boards=1"
        f" SocketsPerBoard=1 CoresPerSocket={settings.cpus} ThreadsPerCore=1 RealMemory={settings.memory_mb}"
        for name, port in zip(settings.names(), ports.nodes)
    )
    return f"""\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports.controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={root}/munge.sock,cred_expire={settings.cred_expire_s}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd-%n.log
SlurmctldDebug=verbose
SlurmdDebug=verbose
DebugFlags=NO_CONF_HASH
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory,CR_LLN
DefMemPerCPU=100
SlurmdParameters=config_overrides
ReturnToService=2
KillWait={settings.kill_wait_s}
OverTimeLimit=0
MinJobAge=3600
CompleteWait=0
InactiveLimit=0
SlurmctldTimeout=10
SlurmdTimeout={settings.node_timeout_s}
MessageTimeout=10
UnkillableStepTimeout=30
JobRequeue=1
MaxArraySize={settings.max_array_size}
MaxJobCount=20000
FirstJobId={first_job}
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{signal_option}
{_accounting(root, settings, ports)}
{nodes}
PartitionName=DEFAULT Nodes=ALL MaxTime=INFINITE State=UP
PartitionName=main Default=YES PriorityTier=10 PreemptMode=OFF DefaultTime=60
PartitionName=low PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
PartitionName=lowgrace PriorityTier=1 PreemptMode=REQUEUE GraceTime={settings.grace_s}
PartitionName=high PriorityTier=20 PreemptMode=OFF
"""


def _accounting(root: Path, settings: Settings, ports: Ports) -> str:
    if not settings.accounting:
        return "AccountingStorageType=accounting_storage/none\nJobCompType=jobcomp/none"
    # Clients do not look at AuthInfo when they talk to slurmdbd: the munge socket is the "password".
    return f"""\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={ports.accounting}
AccountingStorageUser=root
AccountingStoragePass={root}/munge.sock
JobCompType=jobcomp/none"""


def slurmdbd_conf(root: Path, ports: Ports, user: str) -> str:
    """Text of slurmdbd.conf for the database that `accounting.py` starts."""
    return f"""\
AuthType=auth/munge
AuthInfo=socket={root}/munge.sock
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={ports.accounting}
SlurmUser={user}
LogFile={root}/log/slurmdbd.log
PidFile={root}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={ports.database}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_accounting
"""
