"""The short job of `doctor --cluster` (or two, of a node each): submitted, and followed until the nodes have told."""

from __future__ import annotations

import re
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

from slurm import cluster, states
from slurm.probing.node import CLOCK_ROUNDS
from slurm.probing.talk import LOGIN, Talk

TIME_MIN = 12
_RUN_S = (TIME_MIN - 1) * 60.0
_LATE_S = 10.0
_QUEUE_EVERY_S, _RUNNING_EVERY_S, _QUEUE_TIMEOUT_S = 3.0, 10.0, 20.0
_QUICK_S, _EASY_S = 0.02, 0.2
_STARTED = ("RUNNING", "COMPLETING", "CONFIGURING")


class Outcome(NamedTuple):
    """What came of the job. `answers`: by rank.

    `end`: done, queue (it did not start in time), half (the second of two jobs did not), slow, or ended.

    `waited_s`: until it started. `status`: its exit status, where it ended by itself. `said`: the last of its log.
    """

    nodes: int
    answers: dict[int, dict[str, Any]]
    end: str
    waited_s: float = 0.0
    why: str = ""
    status: Optional[int] = None
    said: str = ""


class Probe:
    """The jobs, from their submission to their end. `second`: the script of the second, by the node of the first."""

    def __init__(
        self, words: Path, nodes: int, show: Callable[[str], None], second: Optional[Callable[[str], str]] = None
    ) -> None:
        self.nodes, self.show = nodes, show
        self.talk = Talk(words, LOGIN, nodes)
        self.jobs: list[str] = []
        self._second = second
        self._state: tuple[str, str] = ("PENDING", "")
        self._told = [0] * nodes

    def submit(self, text: str) -> None:
        """Submit the script. CommandError where Slurm refuses it."""
        path = self.talk.folder.parent / "job.sh"
        path.write_text(text, encoding="utf-8")
        with cluster.outside_of_jobs():
            said = cluster.call("sbatch", str(path))
        self.jobs += re.findall(r"\d+", said)[:1]

    def end(self) -> None:
        """Cancel the jobs, if they are there, and wait a moment until their processes are gone."""
        if self.jobs:
            cluster.end(self.jobs)
            deadline = time.monotonic() + _LATE_S
            while time.monotonic() < deadline and self._ask_queue() is not None:
                time.sleep(_EASY_S)

    def wait(self, patience_s: float) -> Outcome:
        """Until every node has said all, or until it is certain that none will say more."""
        begun, asked, started, gone = time.monotonic(), 0.0, None, None
        while True:
            now = time.monotonic()
            answers = {rank: value for rank in range(self.nodes) if (value := self._answer(rank)) is not None}
            if started is None and (answers or self._state[0] == "RUNNING"):
                started = now
            end = self._over(answers) or self._ending(now, begun, started, gone, patience_s)
            if end:
                return self._outcome(answers, end, (started or now) - begun)
            if self._second is not None and 0 in answers:
                self.submit(self._second(answers[0]["host"]))
                self._second = None
            if now - asked > (_QUEUE_EVERY_S if started is None else _RUNNING_EVERY_S) and gone is None:
                state = self._ask_queue()
                asked, gone = now, now if state is None else None
                self._state = state or self._state
            self.show(self._line(answers, now - begun))
            quick = self._tell_times()
            self.talk.nudge()
            time.sleep(_QUICK_S if quick else _EASY_S)

    def _over(self, answers: dict[int, dict[str, Any]]) -> Optional[str]:
        """Whether all have said all, or the first of two jobs has, alone."""
        done = [self.talk.said(str(rank), "done") is not None for rank in range(self.nodes)]
        if all(done):
            return "done"
        return "half" if len(self.jobs) > 1 and done[0] and 1 not in answers else None

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

    def _ask_queue(self) -> Optional[tuple[str, str]]:
        """(state, reason) of the last job that Slurm holds; None once it holds none. Without an answer: as before."""
        command = ["squeue", "--noheader", "--all", "--sort=i", "--format=%T|%r", f"--jobs={','.join(self.jobs)}"]
        try:
            lines = cluster.call(*command, timeout_s=_QUEUE_TIMEOUT_S).split("\n")
        except cluster.CommandError as error:
            return None if "invalid job id" in error.said.lower() else self._state
        known = [line.strip().partition("|") for line in lines if line.strip()]
        return (known[-1][0], known[-1][2]) if known else None

    def _status(self) -> Optional[int]:
        """The highest exit status of the jobs."""
        found: list[str] = []
        for job in self.jobs:
            with suppress(cluster.CommandError):
                found += re.findall(r"\bExitCode=(\d+):", cluster.call("scontrol", "-o", "show", "job", job))
        return max(map(int, found), default=None)

    def _said(self) -> str:
        texts = []
        for path in sorted(self.talk.folder.parent.glob("said.*")):
            texts += path.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        return " ".join(texts)[-600:]

    def _line(self, answers: dict[int, dict[str, Any]], waited_s: float) -> str:
        if len(answers) < len(self.jobs) and self._state[0] == "PENDING" and answers:
            return f"{answers[0]['host']} waits for a second node: {self._why()}"
        if answers:
            return "probing: " + ", ".join(f"{answer['host']}: {answer['at']}" for answer in answers.values())
        if self._state[0] in _STARTED:
            return f"job {self.jobs[-1]} is starting"
        return f"job {self.jobs[-1]} has waited for {waited_s:.0f} s: {self._why()}"


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
