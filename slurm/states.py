"""Slurm's states and reasons in plain words, with what to do about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterable, Mapping, Optional

if TYPE_CHECKING:
    from slurm.cluster import Queued

STATES: Mapping[str, str] = {
    "PENDING": "waiting for its turn",
    "CONFIGURING": "its node is being prepared",
    "RUNNING": "running",
    "COMPLETING": "ending",
    "COMPLETED": "ended by itself, without an error",
    "SUSPENDED": "suspended by the scheduler",
    "STOPPED": "stopped by a signal, keeping its node",
    "REQUEUED": "put back into the queue",
    "REQUEUE_HOLD": "put back into the queue, but held",
    "SPECIAL_EXIT": "put back into the queue, but held after a special exit status",
    "PREEMPTED": "pushed out by a job of higher priority",
    "TIMEOUT": "ended by its time limit",
    "DEADLINE": "ended by its deadline",
    "CANCELLED": "cancelled",
    "FAILED": "ended with an error",
    "NODE_FAIL": "lost with its node",
    "BOOT_FAIL": "its node did not start",
    "OUT_OF_MEMORY": "killed for using more memory than it asked for",
}
"""Job states, as squeue and sacct write them."""

_REASONS: tuple[tuple[str, str, str], ...] = (
    # First, as Slurm's sentence goes on with "reserved for jobs in higher priority partitions".
    ("nodesrequiredforjobaredown", "nodes that could take it are down, drained or reserved", ""),
    ("launch failed requeued held", "its node failed to start it, so Slurm put it back and holds it", "release"),
    ("job held by user", "it is held by you", "release"),
    ("jobheldusers", "it is held by you", "release"),
    ("jobhelduser", "it is held by you", "release"),
    ("jobheldadmin", "an administrator holds it", "ask your cluster's support"),
    (
        "dependencyneversatisfied",
        "it waits for a job that can no longer end as it should, and will wait for ever",
        "retry",
    ),
    ("dependency", "it starts when the jobs before it have ended", ""),
    ("begintime", "it was put back into the queue and starts again in a minute or two", ""),
    ("priority", "jobs of higher priority come first", ""),
    ("burstbuffer", "it waits for its burst buffer", ""),
    ("resources", "it is next, once enough processors, memory or GPUs are free", ""),
    ("jobarraytasklimit", "as many of its tasks run as --max-parallel allows", ""),
    ("qosmaxjobs", "you run as many jobs as your QOS allows; it starts when some end", ""),
    ("qosmaxsubmit", "your QOS allows no more jobs in the queue", "take fewer tasks (--tasks)"),
    ("qosmaxcpu", "you use as many processors as your QOS allows; it starts when some are free", ""),
    ("qosmaxgres", "you use as many GPUs as your QOS allows; it starts when some are free", ""),
    ("qosmaxmem", "you use as much memory as your QOS allows; it starts when some is free", ""),
    ("qosgrp", "your group uses all that its QOS allows; it starts when some is free", ""),
    (
        "qosmaxwall",
        "it asks for more time than the QOS allows, so it will never start",
        "cancel, and give less --time",
    ),
    (
        "qostimelimit",
        "it asks for more time than the QOS allows, so it will never start",
        "cancel, and give less --time",
    ),
    ("assocgrp", "your account uses all that it is allowed; it starts when some is free", ""),
    ("assocmaxjobs", "your account runs as many jobs as it is allowed; it starts when some end", ""),
    ("assocmax", "it is more than your account is allowed, or your account is at its limit", ""),
    (
        "accountnotallowed",
        "the account may not use this partition",
        "cancel, and give another --account or --partition",
    ),
    ("invalidaccount", "the account does not exist", "cancel, and give another --account"),
    ("invalidqos", "the QOS does not exist", "cancel, and give another --qos"),
    (
        "partitiontimelimit",
        "it asks for more time than the partition allows, so it will never start",
        "cancel, and give less --time",
    ),
    ("partitionnodelimit", "the partition allows no job of this size", "cancel, and give another --partition"),
    ("partitiondown", "the partition is down", "wait, or cancel and give another --partition"),
    ("partitioninactive", "the partition takes no jobs for now", "wait, or cancel and give another --partition"),
    ("reqnodenotavail", "nodes that could take it are down, drained or reserved", ""),
    ("nodedown", "nodes that it needs are down", ""),
    (
        "badconstraints",
        "no node has what it asks for, so it will never start",
        "cancel, and ask for less (--cpus, --mem, --gpus, --constraint)",
    ),
    ("reservation", "it waits for a reservation", ""),
    ("licenses", "it waits for a licence", ""),
    ("cleaning", "its last attempt is being cleaned up", ""),
    ("prolog", "its node is being prepared", ""),
    ("jobholdmaxrequeue", "it was put back into the queue too often, so Slurm holds it", "release"),
    ("frontenddown", "the cluster's front end is down", ""),
    ("maxmempercpu", "it asks for more memory a processor than the cluster allows", "cancel, and give less --mem"),
)

_ACTIONS = {
    "release": "`scontrol release {id}` lets it start",
    "retry": "cancel it with `scancel {id}`, then retry the run",
}


def state(name: str) -> str:
    """A job's state in plain words; as Slurm writes it where it is not known."""
    return STATES.get(name.upper().split()[0].rstrip("+"), name) if name else "unknown"


def reason(text: str) -> Optional[tuple[str, str]]:
    """(what it means, what to do about it or nothing) of why a job is pending; None where there is nothing to say."""
    squeezed = text.strip("()").lower()
    if squeezed in ("", "none", "n/a"):
        return None
    for mark, words, action in _REASONS:
        if mark in squeezed or mark in squeezed.replace(" ", "").replace("_", ""):
            return words, action
    return f"Slurm's reason is {text}", ""


def needs_help(text: str) -> bool:
    """Whether a pending job will not start unless someone does something."""
    told = reason(text)
    return told is not None and bool(told[1])


def explain(queued: Iterable[Queued]) -> list[str]:
    """One line a job that is not simply running: what it is doing, and what to do about it."""
    told = []
    for entry in queued:
        why = reason(entry.reason) if entry.state in ("PENDING", "REQUEUE_HOLD", "SPECIAL_EXIT") else None
        if why is not None:
            words, action = why
            name = f"{entry.job_id}_{entry.tasks}" if entry.tasks not in ("", "N/A") else entry.job_id
            todo = _ACTIONS.get(action, action).format(id=name)
            told.append(f"Job {name}: {words}{'; ' + todo if todo else ''}.")
        elif entry.state not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "COMPLETED"):
            told.append(f"Job {entry.job_id}: {state(entry.state)}.")
    return told
