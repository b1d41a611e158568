"""`./voxarray doctor`: is this machine, this cluster, this file system fit, and what to do if not."""

from __future__ import annotations

import argparse
import ctypes.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

from pipelines.core import paths, registry
from pipelines.core.errors import DONE, NOT_FIT, SOME_FAILED
from slurm import cluster, environments, flags, local, profile, resources
from slurm.probes import BAD, GOOD, NOTE, UNKNOWN, Finding, file_system, space

_SLOW_S = 5.0
_MARKS = {GOOD: "ok  ", NOTE: "note", BAD: "NOT ", UNKNOWN: "?   "}
_NEEDED = ("sbatch", "squeue", "scontrol", "scancel", "srun")


_EPILOG = """\
`--cluster` takes a minute or two once its job has started: what the nodes' file systems do between two nodes (links,
exclusive creation, locks, how late a node sees another's files), clocks, Slurm's limits, and whether each environment
imports there. Its job is cancelled by Ctrl-C, and its files are removed.
Exit status: 0 fit; 1 something could not be looked at; 2 usage; 3 not fit."""


def build_parser() -> flags.Parser:
    """The command line of `doctor`."""
    parser = flags.Parser(
        prog="voxarray doctor",
        description="Look whether this machine, its cluster and its file system are fit, and say what to do if not.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="the findings as JSON, for programs")
    shared = parser.add_argument_group("the cluster's nodes")
    shared.add_argument("--cluster", action="store_true", help="probe compute nodes, too, with one short job")
    shared.add_argument("--nodes", metavar="N", help="how many nodes (default: 2); means --cluster")
    for name in ("partition", "account", "qos", "constraint"):
        shared.add_argument(f"--{name}", metavar="NAME", help=f"Slurm's --{name} (default: the profile's)")
    shared.add_argument("--gpus", metavar="[TYPE:]N", help="where a partition takes no jobs without a GPU")
    shared.add_argument("--profile", metavar="NAME", help="settings of a cluster, see slurm/profiles/README.md")
    shared.add_argument("--patience", metavar="MINUTES", help="wait so long for the job to start (default: 15)")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Look at everything, and tell; returns 0 where it is fit, 1 where that could not be seen, 3 where it is not."""
    options = build_parser().parse(arguments)
    wish = None
    if options.cluster or options.nodes is not None:
        from slurm import doctor_cluster

        wish = doctor_cluster.Wish.of(options)
    findings = [finding for look in (machine, storage, installed, slurm) for finding in look()]
    if wish is not None:
        findings += doctor_cluster.examine(wish)
    print(json.dumps([as_json(finding) for finding in findings], indent=2) if options.json else told(findings))
    standings = {finding.standing for finding in findings}
    return NOT_FIT if BAD in standings else SOME_FAILED if UNKNOWN in standings else DONE


def as_json(finding: Finding) -> dict[str, Any]:
    """A finding for programs: topic, name, standing, seen, remedy, and `measured` where there are numbers."""
    value = finding._asdict()
    measured = dict(value.pop("measured"))
    return {**value, "measured": measured} if measured else value


def told(findings: Sequence[Finding]) -> str:
    """The findings for people."""
    lines, topic = [], ""
    for finding in findings:
        if finding.topic != topic:
            topic = finding.topic
            lines += ["", topic]
        lines.append(f"  {_MARKS[finding.standing]} {finding.name}: {finding.seen}")
        if finding.remedy:
            lines.append(f"       -> {finding.remedy}")
    standings = {finding.standing for finding in findings}
    verdict = "Fit."
    if BAD in standings:
        verdict = "Not fit: see what is marked NOT."
    elif UNKNOWN in standings:
        verdict = "Fit as far as could be seen: what is marked ? could not be looked at."
    return "\n".join([*lines[1:], "", verdict])


def machine() -> Iterator[Finding]:
    """This machine."""
    topic = f"machine {platform.node()}"
    yield Finding(topic, "python", GOOD, f"{platform.python_version()} ({sys.executable})")
    size = f"{local.cores()} cores, {local.memory_mb() / 1024:.0f} GB of memory, {len(local.gpus())} GPUs may be used"
    yield Finding(topic, "size", GOOD, size)
    mask = os.umask(0)
    os.umask(mask)
    if mask & 0o077 == 0o077:
        remedy = "where a group shares runs: umask 027, or 007"
        yield Finding(topic, "umask", NOTE, f"{mask:03o}: what you make, nobody else can read", remedy)
    else:
        yield Finding(topic, "umask", GOOD, f"{mask:03o}")


def storage() -> Iterator[Finding]:
    """The file system that results go to."""
    folder = paths.home() / "output"
    yield space(folder)
    yield from file_system(folder)


def wanted_environments() -> dict[str, list[str]]:
    """Environment → the pipelines that are here and run in it."""
    wanted: dict[str, list[str]] = {}
    for folder in registry.folders().values():
        description = resources.describe(folder)
        wanted.setdefault(description.environment, []).append(description.name)
    return wanted


def installed() -> Iterator[Finding]:
    """The environments of the pipelines that are here, and what audio needs beside them."""
    topic = "environments"
    wanted = wanted_environments()
    for name, users in wanted.items():
        remedy = f"./voxarray env create {name} (or it is made when first needed)"
        if environments.is_ready(name):
            yield Finding(topic, name, GOOD, f"ready, in {environments.prefix(name)}")
        else:
            yield Finding(
                topic, name, NOTE, f"not made, or not from the present lock; {', '.join(users)} needs it", remedy
            )
    folders = os.pathsep.join(
        [*(str(environments.prefix(name) / "bin") for name in wanted), os.environ.get("PATH", "")]
    )
    ffmpeg = shutil.which("ffmpeg", path=folders)
    remedy = "install ffmpeg (conda install -c conda-forge ffmpeg, or apt install ffmpeg)"
    seen = ffmpeg or "not found: m4a and other formats that libsndfile does not read will fail"
    yield Finding(topic, "ffmpeg", GOOD if ffmpeg else NOTE, seen, "" if ffmpeg else remedy)
    yield _library(topic, [environments.prefix(name) for name in wanted])


def _library(topic: str, prefixes: Sequence[Path]) -> Finding:
    places = ("lib/libc++.so.1", "lib/voxarray/libc++.so.1")  # conda's, and what was fetched for an environment
    inside = [path for prefix in prefixes for place in places for path in prefix.glob(place)]
    found = str(inside[0]) if inside else ctypes.util.find_library("c++")
    if found:
        return Finding(topic, "libc++", GOOD, found)
    seen = "not found: TEN-VAD is linked with it (vad --engine silero works without)"
    return Finding(
        topic, "libc++", NOTE, seen, "apt install libc++1, dnf install libcxx, or let conda make environment vad"
    )


def slurm() -> Iterator[Finding]:
    """The cluster, where there is one."""
    topic = "Slurm"
    why = cluster.fitness()
    if why is not None:
        remedy = "on a cluster, give this command on a login node; on a single machine all is well (--cluster local)"
        yield Finding(topic, "cluster", NOTE, f"none here: {why}", remedy)
        return
    lacking = [name for name in _NEEDED if shutil.which(name) is None]
    yield Finding(
        topic,
        "commands",
        BAD if lacking else GOOD,
        f"not on PATH: {', '.join(lacking)}" if lacking else ", ".join(_NEEDED),
        "module load slurm, or ask your cluster's support" if lacking else "",
    )
    for name, look in (("controller", _controller), ("partitions", _partitions), ("munge", _munge), ("sacct", _sacct)):
        yield _asked(topic, name, look)
    seen = "`doctor --cluster` probes two of them: locks, how late files are seen, clocks, environments"
    yield Finding(topic, "compute nodes", GOOD, seen)
    names = ", ".join(sorted(profile.known())) or "none"
    yield Finding(topic, "profiles", GOOD, f"{names} (--profile NAME; your own go into {profile.folders()[0]})")


Look = Callable[[], "tuple[str, str, str]"]


def _asked(topic: str, name: str, look: Look) -> Finding:
    try:
        standing, seen, remedy = look()
    except (cluster.CommandError, OSError, subprocess.TimeoutExpired) as error:
        return Finding(
            topic, name, BAD, str(error), "try again in a minute; if it stays so, ask your cluster's support"
        )
    return Finding(topic, name, standing, seen, remedy)


def _controller() -> tuple[str, str, str]:
    begun = time.perf_counter()
    values = cluster.settings(patience_s=0)
    took = time.perf_counter() - begun
    name, version, most = (values.get(key, "?") for key in ("ClusterName", "SLURM_VERSION", "MaxArraySize"))
    seen = (
        f"{name}, Slurm {version}, answers in {took:.2f} s; arrays of up to {most} tasks (more become several arrays)"
    )
    if took > _SLOW_S:
        return NOTE, f"{seen}; that is slow", "fewer, larger tasks (--tasks) spare a busy controller"
    return GOOD, seen, ""


def _partitions() -> tuple[str, str, str]:
    rows = [line.split("|") for line in cluster.call("sinfo", "-h", "-o", "%P|%a|%l|%D").splitlines()]
    partitions = [f"{row[0]} ({row[3]} nodes, {row[2]}{'' if row[1] == 'up' else ', ' + row[1]})" for row in rows]
    default = any(row[0].endswith("*") for row in rows)
    remedy = "" if default else "there is no default partition: name one with --partition, or in a profile"
    return (GOOD if default else NOTE), ", ".join(partitions), remedy


def _munge() -> tuple[str, str, str]:
    if shutil.which("munge") is None:
        return GOOD, "not on PATH, so not looked at (the controller answers, which needs it)", ""
    socket = re.search(r"socket=([^,\s]+)", cluster.settings(patience_s=0).get("AuthInfo", ""))
    command = ["munge", "-n", *([f"--socket={socket[1]}"] if socket else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    if done.returncode != 0:
        return NOTE, f"does not sign here: {done.stderr.strip()}", "ask your cluster's support to look at munged"
    return GOOD, "signs credentials", ""


def _sacct() -> tuple[str, str, str]:
    try:
        cluster.call("sacct", "-n", "-X", "--starttime=now-1hours", timeout_s=20)
    except cluster.CommandError:
        return GOOD, "not here or without a database; voxarray does not need it", ""
    return GOOD, "answers (not needed)", ""
