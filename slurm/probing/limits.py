"""What a cluster's settings mean for runs: arrays, times, requeueing, preemption, notice before the end."""

from __future__ import annotations

import re
from typing import Iterator, Mapping, NamedTuple, Optional, Sequence

from pipelines.core.errors import UsageError
from slurm import cluster, resources
from slurm.probes import BAD, GOOD, NOTE, Finding
from slurm.resources import Description

_FEW_TASKS = 100
_BRIEF_KILL_S = 10
_PUBLISH_S = 30
"""What a task needs at most to publish its part when it is told to end."""
_ENDLESS = ("UNLIMITED", "INFINITE", "NONE", "N/A", "(null)", "")

Settings = Mapping[str, str]


class Partition(NamedTuple):
    """A partition as Slurm describes it."""

    name: str
    settings: Settings

    @property
    def nodes(self) -> int:
        """How many nodes one job may have there."""
        most = self.settings.get("MaxNodes", "")
        return min(self.total, int(most)) if most.isdigit() else self.total

    @property
    def total(self) -> int:
        """How many nodes it has."""
        text = self.settings.get("TotalNodes", "1")
        return int(text) if text.isdigit() else 1

    @property
    def minutes(self) -> Optional[int]:
        """How long a job may take there; None where there is no limit."""
        return _minutes(self.settings.get("MaxTime", ""))


def partition(name: Optional[str]) -> Optional[Partition]:
    """The partition of that name (the first, of several), or the default one; None where there is no such."""
    words = ["show", "partition", *([name.split(",")[0]] if name else [])]
    for line in cluster.call("scontrol", "-o", *words).splitlines():
        settings = dict(re.findall(r"(\S+?)=(.*?)(?=\s+\S+?=|$)", line))
        if "PartitionName" in settings and (name or settings.get("Default") == "YES"):
            return Partition(settings["PartitionName"], settings)
    return None


def findings(config: Settings, found: Partition, pipelines: Sequence[Description]) -> Iterator[Finding]:
    """The limits that runs will meet. `config`: of the whole cluster; `pipelines`: those that may run there."""
    topic = f"limits of partition {found.name}"
    yield _arrays(topic, config)
    yield _state(topic, found)
    yield _time(topic, found, pipelines)
    yield _requeue(topic, config)
    yield _preemption(topic, config, found)
    yield _kill(topic, config)


def _arrays(topic: str, config: Settings) -> Finding:
    most, jobs = config.get("MaxArraySize", "?"), config.get("MaxJobCount", "?")
    seen = f"up to {most} tasks an array (MaxArraySize), {jobs} jobs in the whole cluster (MaxJobCount)"
    if most in ("0", "1"):
        return Finding(
            topic, "arrays", BAD, f"{seen}: job arrays are off", "ask your cluster's support for job arrays"
        )
    if most.isdigit() and int(most) <= _FEW_TASKS:
        return Finding(
            topic, "arrays", NOTE, seen, "more tasks than that become several arrays: prefer fewer (--tasks)"
        )
    return Finding(topic, "arrays", GOOD, seen)


def _state(topic: str, found: Partition) -> Finding:
    state = found.settings.get("State", "UP")
    seen = f"{state.lower()}, {found.settings.get('TotalNodes', '?')} nodes, {found.nodes} for one job"
    if state != "UP":
        return Finding(topic, "state", BAD, seen, "wait until it is up, or name another with --partition")
    return Finding(topic, "state", GOOD, seen)


def _minutes(text: str) -> Optional[int]:
    """Minutes of a limit; None where there is none."""
    if text.upper() in _ENDLESS:
        return None
    try:
        return resources.minutes(text)
    except UsageError:
        return None


def _time(topic: str, found: Partition, pipelines: Sequence[Description]) -> Finding:
    most, usual = found.settings.get("MaxTime", ""), found.settings.get("DefaultTime", "")
    seen = f"at most {most or 'unknown'}, {usual or 'unknown'} unless asked (voxarray always asks)"
    limit = found.minutes
    asked = {each.name: str(each.resources.get("time", resources.BUILT_IN["time"])) for each in pipelines}
    longer = [name for name, text in asked.items() if limit is not None and resources.minutes(text) > limit]
    if longer:
        remedy = f"give --time, or set it in a profile: {', '.join(longer)} asks for more, and would never start"
        return Finding(topic, "time", NOTE, seen, remedy)
    return Finding(topic, "time", GOOD, seen)


def _requeue(topic: str, config: Settings) -> Finding:
    if config.get("JobRequeue", "1") == "0":
        seen = "off unless asked for (JobRequeue=0); voxarray asks for it with every job"
        return Finding(topic, "requeue", GOOD, seen)
    return Finding(topic, "requeue", GOOD, "tasks of a failed node start again by themselves")


def _preemption(topic: str, config: Settings, found: Partition) -> Finding:
    kind = config.get("PreemptType", "preempt/none")
    mode = found.settings.get("PreemptMode") or config.get("PreemptMode", "OFF")
    grace = found.settings.get("GraceTime", "0")
    if kind.endswith("none") or mode == "OFF":
        return Finding(topic, "preemption", GOOD, "jobs are not preempted here")
    seen = f"jobs of higher priority end those here: {mode.lower()} (PreemptMode), notice {grace} s (GraceTime)"
    if "CANCEL" in mode:
        return Finding(topic, "preemption", NOTE, seen, "what it ends, the sweep launches again: up to 3 rounds")
    if "SUSPEND" in mode or "GANG" in mode:
        return Finding(topic, "preemption", NOTE, seen, "`status` calls a suspended task silent; it goes on by itself")
    if grace.isdigit() and int(grace) < _PUBLISH_S:
        remedy = "a preempted task may lose the batch in flight, and does it again; nothing published is lost"
        return Finding(topic, "preemption", NOTE, seen, remedy)
    return Finding(topic, "preemption", GOOD, seen)


def _kill(topic: str, config: Settings) -> Finding:
    text = config.get("KillWait", "30")
    seconds = int((re.findall(r"\d+", text) or ["30"])[0])
    seen = f"{seconds} s between SIGTERM and SIGKILL (KillWait)"
    if seconds < _BRIEF_KILL_S:
        remedy = "a cancelled task may lose the batch in flight; at a time limit tasks are warned 2 minutes before"
        return Finding(topic, "end of a job", NOTE, seen, remedy)
    return Finding(topic, "end of a job", GOOD, seen)
