"""`doctor --cluster`: one short job on several nodes finds out what file systems, clocks and limits really do."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, NamedTuple, Optional

import msgspec

from pipelines.core import paths, registry
from slurm import cluster, environments, profile, resources, submit
from slurm.probes import BAD, NOTE, UNKNOWN, Finding, mount
from slurm.probing import job, judge, limits, places, quota, script
from slurm.probing.talk import PATIENCE_S
from slurm.request import Request
from slurm.resources import Description

NODES = 2
PATIENCE_MIN = 15
"""How long the job may wait in the queue, unless another time is asked for."""
_MINUTE_S = 60.0
_SECOND_S = 300.0
"""How long the first of two jobs waits for the second."""
_OWN = {"cpus": 1, "gpus": "0", "mem": "4G", "time": job.TIME_MIN}
"""What the job asks for: an environment's imports take up to a few GB."""
_BETWEEN = (
    "locks between nodes, who wins a name, and how late one node sees another's files were not probed: "
    "{why}; the rest was"
)
_STATUSES = {
    script.NO_FOLDER: "a node does not see {home}: put VOXARRAY_HOME on a file system that every node sees",
    script.NO_REPOSITORY: "a node does not see {repository}: put the repository on a file system that every node sees",
    script.NO_PYTHON: "no Python of voxarray's runs on a node: make the environments where every node sees them, with "
    "a Python that the nodes have (VOXARRAY_ENVS, VOXARRAY_PYTHON)",
    script.NO_SRUN: "there is no srun on the nodes, with which tasks are started: ask your cluster's support",
}


class Wish(NamedTuple):
    """What the command line asks for; None where the profile and the cluster decide."""

    nodes: Optional[int] = None
    partition: Optional[str] = None
    account: Optional[str] = None
    qos: Optional[str] = None
    constraint: Optional[str] = None
    gpus: Optional[str] = None
    profile: Optional[str] = None
    patience_min: int = PATIENCE_MIN

    @classmethod
    def of(cls, options: argparse.Namespace) -> Wish:
        """The wish of a command line. UsageError where a number is none."""
        names = ("partition", "account", "qos", "constraint", "gpus", "profile")
        return cls(
            nodes=None if options.nodes is None else resources.positive("--nodes", options.nodes),
            patience_min=resources.positive("--patience", options.patience or PATIENCE_MIN),
            **{name: getattr(options, name) for name in names},
        )


def examine(wish: Wish) -> list[Finding]:
    """The findings about the cluster. UsageError where the wish makes no sense."""
    why = cluster.fitness()
    if why is not None:
        remedy = "give it on a login node; on a single machine, `doctor` alone says all there is"
        return [Finding("cluster", "probe", BAD, f"--cluster needs a cluster, and {why}", remedy)]
    wanted = request(wish)
    try:
        found = limits.partition(wanted.partition)
        config = cluster.settings(patience_s=0)
    except cluster.CommandError as error:
        if wanted.partition and "partition" in error.said.lower():
            remedy = "`sinfo -s` lists the partitions; name one with --partition, or in a profile"
            return [Finding("cluster", "partition", BAD, f"there is no partition {wanted.partition}", remedy)]
        return [Finding("cluster", "controller", BAD, str(error), "try again in a minute, or ask your support")]
    if found is None:
        remedy = "name one with --partition, or in a profile; `sinfo -s` lists them"
        return [Finding("cluster", "partition", BAD, "there is no default partition, and none was named", remedy)]
    descriptions = [resources.describe(folder) for folder in registry.folders().values()]
    findings = list(limits.findings(config, found, descriptions))
    wanted = msgspec.structs.replace(wanted, time=min(wanted.time, found.minutes or wanted.time))
    asked = wish.nodes or NODES
    apart = found.nodes == 1 < min(asked, found.total)  # then two jobs, of a node each
    nodes = 2 if apart else min(asked, found.nodes)
    if nodes < asked:
        findings.append(_fewer(found, nodes))
    probe = _Order(wanted, nodes, ready(descriptions), wish.patience_min * _MINUTE_S, apart=apart)
    return [*findings, *_probed(probe)]


def request(wish: Wish) -> Request:
    """The probe's job: placed as runs would be, by command line, profile and sbatch's variables; small."""
    chosen = profile.load(wish.profile, "doctor")
    given = {name: getattr(wish, name) for name in ("partition", "account", "qos", "constraint", "gpus")}
    where = {key: value for key, value in chosen.settings.items() if key in given}
    description = Description("doctor", Path(), "", "", "", _OWN)
    settings = resources.resolve(description, where, f"profile {chosen.name}", {**given, "time": job.TIME_MIN})
    return Request.of(settings, sbatch=chosen.sbatch)


def ready(descriptions: list[Description]) -> list[str]:
    """The environments that the pipelines run in and that are made."""
    names = {name for each in descriptions for name in (each.environment, *each.environments.values())}
    return [name for name in sorted(names) if environments.is_ready(name)]


def _fewer(found: limits.Partition, nodes: int) -> Finding:
    if nodes > 1:
        return Finding("cluster", "nodes", NOTE, f"partition {found.name} has no more for a probe: {nodes} took part")
    why = f"partition {found.name} has one node"
    return Finding(
        "cluster", "nodes", NOTE, _BETWEEN.format(why=why), "name a larger one with --partition, if there is one"
    )


class _Order(NamedTuple):
    """The probe to be made. `apart`: each node has a job of its own, where a partition gives a job one."""

    wanted: Request
    nodes: int
    environments: list[str]
    patience_s: float
    apart: bool


def _probed(order: _Order) -> list[Finding]:
    """Run the job, and judge what its nodes say. However this ends, the job is ended and what was made is removed."""
    try:
        groups = places.grouped(places.used())
    except OSError as error:
        remedy = "mend its permissions, or name another place with VOXARRAY_HOME"
        return [Finding("cluster", "folders", BAD, f"{error.filename} cannot be written: {error.strerror}", remedy)]
    line = job.Line()
    try:
        told = {
            "nodes": order.nodes,
            "patience_s": PATIENCE_S,
            "meet_s": _SECOND_S if order.apart else PATIENCE_S,
            "folders": places.order(groups),
            "environments": order.environments,
            "commands": _commands(order.wanted),
        }
        with _stoppable():
            outcome = _outcome(order, told, places.words(groups), line)
    except cluster.CommandError as error:
        said = error.said.replace("sbatch: ", "").replace("error: ", "")
        return [Finding("cluster", "probe", BAD, f"Slurm refused the probe's job: {said}", submit.advice(error.said))]
    finally:
        line.clear()
        places.remove(groups)
    return [*_ended(outcome), *(judge.judge(told, outcome.answers) if outcome.answers else []), *_quotas(groups)]


def _quotas(groups: list[places.Folders]) -> Iterator[Finding]:
    """The quotas that are nearly used up, by the file systems that runs write to."""
    for group in groups:
        written = [place.path for place in group.places if place.written]
        kind = mount(written[0])[0] if written else ""
        finding = quota.look(f"{group.title} ({kind or 'unknown type'})", kind, written[0]) if written else None
        if finding is not None:
            yield finding


def _outcome(order: _Order, told: dict[str, Any], words: Path, line: job.Line) -> job.Outcome:
    (words.parent / "order.json").write_text(json.dumps(told), encoding="utf-8")
    pythons = [str(environments.python(name)) for name in order.environments] + [sys.executable, "python3"]

    def written(second_to: str = "") -> str:
        return script.script(words.parent, 1 if order.apart else order.nodes, order.wanted, pythons, second_to)

    probe = job.Probe(words, order.nodes, line.show, written if order.apart else None)
    try:
        probe.submit(written())
        return probe.wait(order.patience_s)
    finally:
        probe.end()


def _commands(wanted: Request) -> dict[str, list[str]]:
    """What a node is asked to try: to look at its job, and to submit one as a sweep would, without doing it."""
    options = [f"--{name}" if value is True else f"--{name}={value}" for name, value in script.placing(wanted).items()]
    return {
        "scontrol": ["scontrol", "show", "config"],
        "sbatch": ["sbatch", "--test-only", "--time=10", *options, "--wrap=true"],
    }


def _ended(outcome: job.Outcome) -> list[Finding]:
    """What there is to say of a job that did not come to its end."""
    silent = outcome.nodes - len(outcome.answers)
    if outcome.end == "done":
        return []
    if outcome.end == "queue":
        seen = f"did not start within {outcome.waited_s / _MINUTE_S:.0f} minutes: {outcome.why}"
        remedy = "again with --patience MINUTES, at another time, or with another --partition or --qos"
        return [Finding("cluster", "probe", UNKNOWN, seen, remedy)]
    if outcome.end == "half":
        why = f"the second node's job did not start while the first ran: {outcome.why}"
        remedy = "again at another time, or with another --partition, best one that gives a job two nodes"
        return [Finding("cluster", "probe", UNKNOWN, _BETWEEN.format(why=why), remedy)]
    if outcome.status in _STATUSES:
        text = _STATUSES[outcome.status].format(home=paths.home(), repository=paths.repository())
        seen, _, remedy = text.partition(": ")
        return [Finding("cluster", "probe", BAD, seen, remedy)]
    last = "; ".join(f"{answer['host']} came to {answer['at']!r}" for answer in outcome.answers.values())
    seen = f"{silent} of {outcome.nodes} nodes said nothing" if silent else f"it did not come to its end: {last}"
    seen += f"; {outcome.said}" if outcome.said else ""
    remedy = "the nodes' own mounts differ, or hang: ask your cluster's support; again with another --partition"
    return [Finding("cluster", "probe", BAD if outcome.end == "ended" else UNKNOWN, seen, remedy)]


@contextmanager
def _stoppable() -> Iterator[None]:
    """A terminal that goes away, or SIGTERM, is taken like Ctrl-C: the job is cancelled, and the files are removed."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
