"""The short job of `doctor --cluster`: its script, its submission, and the wait for what the nodes have to say."""

from __future__ import annotations

import re
import shlex
import sys
import time
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

from pipelines.core import paths
from slurm import cluster, states, submit
from slurm.probing.node import CLOCK_ROUNDS
from slurm.probing.talk import LOGIN, Talk
from slurm.request import Request

NO_FOLDER, NO_REPOSITORY, NO_PYTHON, NO_SRUN = 41, 42, 44, 127
"""Exit statuses of the job: what it did not find on a node."""
TIME_MIN = 12
_RUN_S = (TIME_MIN - 1) * 60.0
_LATE_S = 10.0
_QUEUE_EVERY_S, _RUNNING_EVERY_S, _QUEUE_TIMEOUT_S = 3.0, 10.0, 20.0
_QUICK_S, _EASY_S = 0.02, 0.2
_STARTED = ("RUNNING", "COMPLETING", "CONFIGURING")

ON_A_NODE = f"""\
place=$1 repository=$2
shift 2
for try in $(seq 30); do [ -d "$place" ] && break; sleep 0.5; done
[ -d "$place" ] || exit {NO_FOLDER}
exec >>"$place/said.${{SLURM_PROCID:-0}}" 2>&1
{{ cd "$repository" && [ -f slurm/probing/node.py ]; }} || exit {NO_REPOSITORY}
for python in "$@"; do
  if "$python" -E -s -c 'import sys; sys.exit(sys.version_info < (3, 9))'; then
    exec "$python" -E -s -B -m slurm.probing.node "$place"
  fi
done
exit {NO_PYTHON}"""
"""Begins with what every node has, so that whatever is missing can be named by the exit status."""


class Outcome(NamedTuple):
    """What came of the job. `answers`: by rank; `end`: done, queue (it did not start in time), slow, or ended.

    `waited_s`: until it started. `status`: its exit status, where it ended by itself. `said`: the last of its log.
    """

    nodes: int
    answers: dict[int, dict[str, Any]]
    end: str
    waited_s: float = 0.0
    why: str = ""
    status: Optional[int] = None
    said: str = ""


def script(place: Path, nodes: int, wanted: Request, pythons: list[str]) -> str:
    """The batch script. Its output goes nowhere before its folder is seen: a job without an output file never runs."""
    options: dict[str, Any] = {
        "job-name": "voxarray.doctor",
        "nodes": nodes,
        "ntasks": nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": wanted.cpus,
        "mem": f"{wanted.mem_mb}M",
        "time": wanted.time,
        "output": "/dev/null",
        "chdir": "/",
        **placing(wanted),
    }
    lines = [f"#SBATCH --{name}" if value is True else f"#SBATCH --{name}={value}" for name, value in options.items()]
    words = ["bash", "-c", ON_A_NODE, "doctor", str(place), str(paths.repository()), *pythons]
    step = f"srun --ntasks={nodes} --ntasks-per-node=1 --cpus-per-task={wanted.cpus} --kill-on-bad-exit=0"
    return "\n".join(["#!/bin/bash", *lines, *submit.setup(), f"{step} {shlex.join(words)}", "exit $?", ""])


def placing(wanted: Request) -> dict[str, Any]:
    """The options that say where a job may run, and for whom, as sbatch spells them."""
    named = {name: getattr(wanted, name) for name in ("partition", "account", "qos", "constraint")}
    named["gpus-per-node"] = wanted.gpus if wanted.gpu_count else None
    others = {name.replace("_", "-"): value for name, value in wanted.sbatch.items()}
    return {name: value for name, value in {**named, **others}.items() if value not in (None, False)}


class Probe:
    """One job, from its submission to its end; ended and forgotten when left."""

    def __init__(self, words: Path, nodes: int, show: Callable[[str], None]) -> None:
        self.nodes, self.show = nodes, show
        self.talk = Talk(words, LOGIN, nodes)
        self.job = ""
        self._state: tuple[str, str] = ("PENDING", "")
        self._told = [0] * nodes

    def submit(self, text: str) -> None:
        """Submit the script. CommandError where Slurm refuses it."""
        path = self.talk.folder.parent / "job.sh"
        path.write_text(text, encoding="utf-8")
        with cluster.outside_of_jobs():
            said = cluster.call("sbatch", str(path))
        self.job = (re.findall(r"\d+", said) or [""])[0]

    def end(self) -> None:
        """Cancel the job, if it is there, and wait a moment until its processes are gone."""
        if not self.job:
            return
        job, self.job = self.job, ""
        cluster.end([job])
        deadline = time.monotonic() + _LATE_S
        while time.monotonic() < deadline and self._ask_queue(job) is not None:
            time.sleep(_EASY_S)

    def wait(self, patience_s: float) -> Outcome:
        """Until every node has said all, or until it is certain that none will say more."""
        begun, asked, started, gone = time.monotonic(), 0.0, None, None
        while True:
            now = time.monotonic()
            answers = {rank: value for rank in range(self.nodes) if (value := self._answer(rank)) is not None}
            if started is None and (answers or self._state[0] == "RUNNING"):
                started = now
            done = all(self.talk.said(str(rank), "done") is not None for rank in range(self.nodes))
            end = "done" if done else self._ending(now, begun, started, gone, patience_s)
            if end:
                waited = (started or now) - begun
                return self._outcome(answers, end, waited)
            if now - asked > (_QUEUE_EVERY_S if started is None else _RUNNING_EVERY_S) and gone is None:
                state = self._ask_queue(self.job)
                asked, gone = now, now if state is None else None
                self._state = state or self._state
            self.show(self._line(answers, now - begun))
            quick = self._tell_times()
            self.talk.nudge()
            time.sleep(_QUICK_S if quick else _EASY_S)

    @staticmethod
    def _ending(
        now: float, begun: float, started: Optional[float], gone: Optional[float], patience_s: float
    ) -> Optional[str]:
        if gone is not None and now - gone > _LATE_S:
            return "ended"
        if started is None:
            return "queue" if now - begun > patience_s else None
        return "slow" if now - started > _RUN_S else None

    def _outcome(self, answers: dict[int, dict[str, Any]], end: str, waited_s: float) -> Outcome:
        status = self._status() if end == "ended" else None
        return Outcome(self.nodes, answers, end, waited_s, self._why(), status, self._said())

    def _why(self) -> str:
        """What keeps the job waiting, in plain words."""
        told = states.reason(self._state[1])
        return "; ".join(filter(None, told)) if told else states.state(self._state[0])

    def _answer(self, rank: int) -> Optional[dict[str, Any]]:
        word = self.talk.said(str(rank), "answer")
        return None if word is None else word["value"]

    def _tell_times(self) -> bool:
        """Answer the nodes that ask for the time. Whether one may be about to ask."""
        for rank in range(self.nodes):
            while self.talk.said(str(rank), f"time-{self._told[rank]}") is not None:
                self.talk.say(f"time-{self._told[rank]}-{rank}", time.time())
                self._told[rank] += 1
        return any(self._told) and min(self._told) < CLOCK_ROUNDS

    def _ask_queue(self, job: str) -> Optional[tuple[str, str]]:
        """(state, reason) of the job; None once Slurm holds it no more. Without an answer: what was known."""
        try:
            text = cluster.call(
                "squeue", "--noheader", "--all", "--format=%T|%r", f"--jobs={job}", timeout_s=_QUEUE_TIMEOUT_S
            )
        except cluster.CommandError as error:
            return None if "invalid job id" in error.said.lower() else self._state
        state, _, reason = text.strip().partition("|")
        return (state, reason) if state else None

    def _status(self) -> Optional[int]:
        try:
            found = re.search(r"\bExitCode=(\d+):", cluster.call("scontrol", "-o", "show", "job", self.job))
        except cluster.CommandError:
            return None
        return int(found[1]) if found else None

    def _said(self) -> str:
        texts = []
        for path in sorted(self.talk.folder.parent.glob("said.*")):
            texts += path.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        return " ".join(texts)[-600:]

    def _line(self, answers: dict[int, dict[str, Any]], waited_s: float) -> str:
        if answers:
            return "probing: " + ", ".join(f"{answer['host']}: {answer['at']}" for answer in answers.values())
        if self._state[0] in _STARTED:
            return f"job {self.job} is starting"
        return f"job {self.job} has waited for {waited_s:.0f} s: {self._why()}"


class Line:
    """One line of progress: rewritten on a terminal; elsewhere now and then a new line, if it says something new."""

    EVERY_S = 10.0

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown, self._last = 0.0, ""

    def show(self, text: str) -> None:
        """Show the line."""
        if self._terminal:
            import shutil

            width = shutil.get_terminal_size().columns - 1  # a line that wraps could not be rewritten
            sys.stderr.write(f"\r\x1b[K{text[:width]}")
        elif text != self._last and time.monotonic() - self._shown > self.EVERY_S:
            self._shown = time.monotonic()
            sys.stderr.write(f"{text}\n")
        self._last = text
        sys.stderr.flush()

    def clear(self) -> None:
        """Leave a clean line."""
        if self._terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
