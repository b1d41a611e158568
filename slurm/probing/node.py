"""The program that `doctor --cluster` runs on each compute node: `python -m slurm.probing.node FOLDER`.

Standard library only, as is what it imports, and Python 3.9 or later. FOLDER holds `order.json`, and `words` for the
talk between the nodes and the login node. What a node saw is said after every step, so that a node that dies has told
what it knew; whatever hangs is given up after a while, and the process ends without waiting for it.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict

from slurm import cluster
from slurm.probes import mount
from slurm.probing.talk import LOGIN, SilenceError, Talk
from slurm.probing.trials import TRIALS

CLOCK_ROUNDS = 4
LIMIT_S = 420.0
"""After so many seconds a node begins nothing new."""
_STEP_S = 200.0
_BYTES = 4 << 20

Answer = Dict[str, Any]


class Node:
    """One node's part in the probe."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.order: Answer = json.loads((folder / "order.json").read_text(encoding="utf-8"))
        self.rank, self.nodes = rank, int(self.order["nodes"])
        self.patience_s = float(self.order["patience_s"])
        self.talk = Talk(folder / "words", str(rank), self.nodes, self.patience_s)
        self.begun = time.monotonic()
        self.is_alone = self.nodes == 1
        host = os.environ.get("SLURMD_NODENAME", platform.node())
        self.answer: Answer = {
            "rank": rank,
            "host": host,
            "python": platform.python_version(),
            "folders": {},
            "environments": {},
            "at": "the start",
        }

    def run(self) -> None:
        """All steps."""
        self.talk.offset_s = self.step("clock", self.answer, self.clock).get("offset_s", 0.0)
        if self.rank == 0:
            self.step("commands", self.answer, self.commands)
        try:
            self.talk.meet("met", float(self.order["meet_s"]))
        except SilenceError as error:
            self.is_alone, self.answer["alone"] = True, str(error)
        for number, folder in enumerate(self.order["folders"]):
            self.folder(f"{number}", folder)
        for number, environment in enumerate(self.order["environments"]):
            if number % self.nodes == self.rank:
                self.step(environment, self.answer["environments"], lambda: self.imports(environment))  # noqa: B023
        self.answer["at"] = "the end"
        self.talk.say("answer", self.answer)
        self.talk.say("done")

    def step(self, name: str, into: Answer, work: Callable[[], Answer]) -> Answer:
        """Do something for a limited time, and note what came of it: its answer, an error, silence, or a hang."""
        self.answer["at"] = name
        self.talk.say("answer", self.answer)
        into[name] = self._limited(work) if time.monotonic() - self.begun < LIMIT_S else {"late": True}
        self.talk.say("answer", self.answer)
        found: Answer = into[name]
        return found

    def _limited(self, work: Callable[[], Answer]) -> Answer:
        found: Answer = {}

        def worked() -> None:
            try:
                found.update(work())
            except SilenceError as error:
                found["silence"] = str(error)
            except Exception as error:  # noqa: BLE001 - told to the person who asked
                found["error"] = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"

        # A thread, because a lock or a read that hangs inside the kernel cannot be ended from outside.
        thread = threading.Thread(target=worked, daemon=True)
        begun = time.monotonic()
        thread.start()
        limit = float(self.order.get("step_s", _STEP_S))
        thread.join(limit)
        answer = {"hung_s": limit} if thread.is_alive() else dict(found)
        answer["took_s"] = round(time.monotonic() - begun, 3)
        return answer

    def clock(self) -> Answer:
        """How far this node's clock is from the login node's, by the quickest of a few questions and answers."""
        best = (float("inf"), 0.0)
        for number in range(CLOCK_ROUNDS):
            asked = time.time()
            self.talk.say(f"time-{number}", asked)
            told = self.talk.hear(LOGIN, f"time-{number}-{self.rank}")
            heard = time.time()
            best = min(best, (heard - asked, (asked + heard) / 2 - told))
        return {"offset_s": best[1], "within_s": best[0] / 2}

    def commands(self) -> Answer:
        """Whether a job may look at the queue and submit another, as the sweep does."""
        found = {}
        for name, command in self.order["commands"].items():
            try:
                with cluster.outside_of_jobs():
                    cluster.call(*command)
                found[name] = ""
            except cluster.CommandError as error:
                found[name] = error.said or "it said nothing"
        return found

    def folder(self, name: str, order: Answer) -> None:
        """One file system: what this node sees alone, then what all see together, if all see it."""
        mine = self.answer["folders"].setdefault(name, {})
        sees = bool(self.step("look", mine, lambda: self.look(order)).get("sees"))
        if self.is_alone or order["folder"] is None:
            return
        talk = self.talk.about(name)
        try:
            talk.say("sees", sees)
            together = all([sees, *(talk.hear(other, "sees") for other in talk.others)])
        except SilenceError as error:
            mine["silence"] = str(error)
            return
        for trial in TRIALS if together else ():
            self.step(trial, mine, lambda: self.tried(trial, talk, Path(order["folder"])))  # noqa: B023 - called at once

    def tried(self, trial: str, talk: Talk, place: Path) -> Answer:
        """One trial, begun by all nodes at the same time, in a folder of its own."""
        word = trial.replace(" ", "-")
        own = talk.about(word)
        (place / word).mkdir(exist_ok=True)
        own.meet("begun")
        return TRIALS[trial](own, place / word)

    def look(self, order: Answer) -> Answer:
        """Whether this node sees what the login node wrote, may write itself, and how much room there is."""
        kind, options = mount(Path(order["paths"][0]))
        found: Answer = {"type": kind, "options": options}
        found["missing"] = [path for path in order["paths"] if not Path(path).is_dir()]
        found["refused"] = [path for path in order["written"] if not os.access(path, os.W_OK | os.X_OK)]
        found["unseen"] = [path for path in order["tokens"] if self._token(Path(path)) != order["token"]]
        found["sees"] = not found["missing"] and not found["unseen"]
        if found["sees"]:
            room = os.statvfs(order["paths"][0])
            found["free_bytes"] = room.f_bavail * room.f_frsize
            found["free_files"] = room.f_favail if room.f_files else None
            if order["folder"] is not None:
                found["write_s"] = self._written(Path(order["folder"]) / f"written.{self.rank}")
        return found

    @staticmethod
    def _token(path: Path) -> str:
        try:
            return path.read_text(encoding="ascii")
        except OSError:
            return ""

    def _written(self, path: Path) -> float:
        begun = time.monotonic()
        with path.open("wb") as file:
            file.write(b"\0" * _BYTES)
            file.flush()
            os.fsync(file.fileno())
        return round(time.monotonic() - begun, 3)

    def imports(self, name: str) -> Answer:
        """Import what an environment is for, by its own Python."""
        from slurm.envs import check, definition

        begun = time.monotonic()
        report = check.check(definition.find(name))
        return {"failures": report.failures, "import_s": round(time.monotonic() - begun, 2)}


def main() -> None:
    """Run on one node, and end at once, even where a thread hangs."""
    rank = int(os.environ.get("VOXARRAY_PROBE_RANK") or os.environ.get("SLURM_PROCID", "0"))
    status = 0
    try:
        Node(Path(sys.argv[1]), rank).run()
    except Exception as error:  # noqa: BLE001 - the job's own log is all that is left to tell it
        sys.stderr.write(f"{platform.node()}: {type(error).__name__}: {error}\n")
        status = 1
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
