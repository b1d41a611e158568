"""What the nodes' answers amount to: findings, each with what to do about it."""

from __future__ import annotations

from typing import Any, Iterator, Sequence

from slurm.probes import BAD, GOOD, LOCAL_LOCKS, NOTE, UNKNOWN, Finding
from slurm.probing.shared import together
from slurm.view.words import amount

SKEW_S = 2.0
"""Clocks that differ by more are told of; heartbeats count as missed after half a minute."""
_VAGUE_S = 5.0
_SLOW_WRITE_S = 5.0
_SLOW_IMPORT_S = 60.0
_LEAST_FILES = 100_000
_GB = 2**30

Answer = dict[str, Any]


def judge(order: Answer, answers: dict[int, Answer]) -> list[Finding]:
    """The findings. `order`: what the nodes were asked; `answers`: what each said, by its rank."""
    by_rank = [answers[rank] for rank in sorted(answers)]
    topic = f"nodes {', '.join(answer['host'] for answer in by_rank)}"
    findings = [*_clocks(topic, by_rank), *_commands(topic, by_rank)]
    for number, folder in enumerate(order["folders"]):
        views = {answer["host"]: answer["folders"].get(str(number), {}) for answer in by_rank}
        findings += _folder(folder, views)
    return findings + list(_environments(order["environments"], by_rank))


def missing(step: Answer) -> str:
    """Why a step has no result; empty where it has one."""
    if not step:
        return "it was not begun"
    if "hung_s" in step:
        return f"it hung, and was given up after {step['hung_s']:.0f} s"
    if "late" in step:
        return "the time was over before"
    return str(step.get("silence") or step.get("error") or "")


def _clocks(topic: str, answers: Sequence[Answer]) -> Iterator[Finding]:
    for answer in answers:
        clock, name = answer.get("clock", {}), f"clock of {answer['host']}"
        why = missing(clock)
        if why:
            yield Finding(topic, name, UNKNOWN, f"not compared: {why}")
            continue
        offset, within = clock["offset_s"], clock["within_s"]
        measured = {"offset_s": round(offset, 4), "within_s": round(within, 4)}
        seen = f"{offset:+.2f} s from this machine's, known to within {amount(within)}"
        if abs(offset) - within > SKEW_S:
            remedy = "ask for time synchronisation (chrony, ntp): `status` takes tasks for silent, or for young"
            yield Finding(topic, name, NOTE, seen, remedy, measured)
        elif within > _VAGUE_S:
            yield Finding(topic, name, NOTE, f"{seen}: files are seen too late to tell better", "", measured)
        else:
            yield Finding(topic, name, GOOD, seen, "", measured)


def _commands(topic: str, answers: Sequence[Answer]) -> Iterator[Finding]:
    """What a job has to be able to do so that a run goes on by itself."""
    step = answers[0].get("commands", {}) if answers and answers[0]["rank"] == 0 else {}
    why = missing(step)
    if why:
        yield Finding(topic, "submission from a node", UNKNOWN, f"not tried: {why}")
        return
    if step["scontrol"]:
        remedy = "ask your cluster's support for Slurm's commands on compute nodes"
        seen = f"scontrol fails there: {step['scontrol']}; tasks cannot put themselves back into the queue"
        yield Finding(topic, "scontrol on a node", NOTE, seen, remedy)
    if step["sbatch"]:
        seen = f"`sbatch --test-only` fails there: {step['sbatch']}; a sweep cannot launch what is missing"
        remedy = (
            "ask your cluster's support whether jobs may submit jobs; without that, `./voxarray retry RUN` from a "
            "login node does what the sweep would have done"
        )
        yield Finding(topic, "submission from a node", BAD, seen, remedy)
    else:
        yield Finding(topic, "submission from a node", GOOD, "works, so that a sweep can launch what is missing")


def _folder(order: Answer, views: dict[str, Answer]) -> list[Finding]:
    """One file system: what each node sees of it, then what they see of each other."""
    kind = next((view["look"]["type"] for view in views.values() if view.get("look", {}).get("type")), "unknown type")
    topic = f"{order['title']} ({kind})"
    findings = [finding for host, view in views.items() for finding in _looked(topic, host, view.get("look", {}))]
    if not findings:
        findings = [_room(topic, views)]
    if order["folder"] is None:
        return [*findings, Finding(topic, "trials", GOOD, "you may not write here, so nothing was tried")]
    if len(views) < 2 or any(not view.get("look", {}).get("sees") for view in views.values()):
        return findings
    return findings + together(topic, views)


def _looked(topic: str, host: str, look: Answer) -> Iterator[Finding]:
    """What is wrong in one node's view of a file system."""
    why = missing(look)
    if why:
        yield Finding(topic, host, BAD, f"cannot be used there: {why}", "ask your cluster's support about this mount")
        return
    unseen = [*look["missing"], *look["unseen"]]
    if unseen:
        remedy = "put it on a file system that every node sees: VOXARRAY_HOME and VOXARRAY_ENVS name other folders"
        seen = f"not there, or not the same as here: {', '.join(unseen[:3])}"
        yield Finding(topic, host, BAD, seen, remedy)
    if look["refused"]:
        seen = f"jobs may not write to {', '.join(look['refused'][:3])}"
        yield Finding(topic, host, BAD, seen, "mend the permissions, or name another place with VOXARRAY_HOME")
    for option, what in LOCAL_LOCKS.items():
        if option in look["options"].split(","):
            seen = f"mounted {option}: {what}; results stay right, work may be done twice"
            yield Finding(topic, f"mount on {host}", NOTE, seen, "NFS without nolock, Lustre with flock")


def _room(topic: str, views: dict[str, Answer]) -> Finding:
    """The least room that any node sees, and the slowest write."""
    looks = [view["look"] for view in views.values()]
    free = min(look.get("free_bytes", 0) for look in looks)
    files = min((look["free_files"] for look in looks if look.get("free_files") is not None), default=None)
    slowest = max((look.get("write_s", 0.0) for look in looks), default=0.0)
    seen = f"seen by {', '.join(views)}; {free / _GB:,.1f} GB free"
    seen += f", {files:,} files more" if files is not None else ""
    seen += f"; 4 MB are durable after {amount(slowest)}" if slowest else ""
    measured = {"free_bytes": free, "free_files": files, "write_s": slowest}
    if free < _GB:
        return Finding(topic, "room", BAD, seen, "make room, or name another place with VOXARRAY_HOME", measured)
    if free < 10 * _GB or (files is not None and files < _LEAST_FILES):
        return Finding(topic, "room", NOTE, seen, "make room before a large run", measured)
    remedy = "larger parts spare a slow file system: see VOXARRAY_PART_ITEMS" if slowest > _SLOW_WRITE_S else ""
    return Finding(topic, "room", NOTE if remedy else GOOD, seen, remedy, measured)


def _environments(names: Sequence[str], answers: Sequence[Answer]) -> Iterator[Finding]:
    """Whether each environment works on a node, and how long its first import there takes."""
    for name in names:
        found = [
            (answer["host"], answer["environments"][name]) for answer in answers if name in answer["environments"]
        ]
        topic = "environments on nodes"
        if not found:
            yield Finding(topic, name, UNKNOWN, "not tried: its node did not come so far")
            continue
        host, step = found[0]
        why = missing(step)
        if "hung_s" in step:
            remedy = "its file system is slow or stuck: lay it elsewhere with VOXARRAY_ENVS"
            yield Finding(topic, name, BAD, f"on {host}: {why}", remedy)
        elif why:
            yield Finding(topic, name, UNKNOWN, f"not tried on {host}: {why}")
        elif step["failures"]:
            remedy = f"./voxarray env check {name}, on that node; `env create {name}` where nodes see its folder"
            yield Finding(topic, name, BAD, f"on {host}: {'; '.join(step['failures'])[:500]}", remedy)
        else:
            seen = f"imports on {host} in {amount(step['import_s'])}"
            slow = step["import_s"] > _SLOW_IMPORT_S
            remedy = (
                "every task pays that once: fewer, longer tasks; or lay it on a faster file system (VOXARRAY_ENVS)"
            )
            measured = {"import_s": step["import_s"]}
            yield Finding(topic, name, NOTE if slow else GOOD, seen, remedy if slow else "", measured)
