"""The judgement of what only several nodes together can see of a folder: who wins, whom locks stop, and how late."""

from __future__ import annotations

import statistics
from typing import Any, Callable, Mapping

from slurm.probes import BAD, GOOD, NOTE, UNKNOWN, Finding
from slurm.probing.trials import BLOCKS, ENTERED, NAMES, NONE, REFUSED
from slurm.view.words import amount

LATE_S = 2.0
"""What is seen later than this is told of."""
_FREED_S = 5.0
_TWICE = "results stay right, work may be done twice"
_ELSEWHERE = "put voxarray's data on another file system: VOXARRAY_HOME=/path"
_CACHES = (
    "results stay right, but `status`, merges and `--wait` see them late, and a sweep may launch again what is done: "
    "mount NFS with lookupcache=pos and acdirmax=3, or put voxarray's data elsewhere (VOXARRAY_HOME)"
)

Answer = dict[str, Any]
Views = Mapping[str, Answer]


def together(topic: str, views: Views) -> list[Finding]:
    """The findings of all trials of one folder; `views`: host → trial → what it saw, node 0 first."""
    from slurm.probing.judge import missing

    findings = []
    for trial, (name, judged) in _JUDGES.items():
        answers = {host: view.get(trial, {}) for host, view in views.items()}
        troubles = {host: why for host, answer in answers.items() if (why := missing(answer))}
        findings.append(_untold(topic, name, answers, troubles) if troubles else judged(topic, name, answers))
    return findings


def _untold(topic: str, name: str, answers: Views, troubles: Mapping[str, str]) -> Finding:
    """A trial that came to no end on some node."""
    seen = "; ".join(f"{host}: {why}" for host, why in troubles.items())
    if any("hung_s" in answer for answer in answers.values()):
        remedy = _ELSEWHERE
        if "lock" in name:
            remedy = (
                "tasks will hang at their start: have the lock service (rpc.statd, lockd) mended, or mount with "
                "local_lock=all (NFS) or localflock (Lustre); results do not depend on locks"
            )
        return Finding(topic, name, BAD, seen, remedy)
    if any("error" in answer for answer in answers.values()):
        return Finding(topic, name, BAD, seen, _ELSEWHERE)
    return Finding(topic, name, UNKNOWN, f"not seen to its end: {seen}")


def _delay(topic: str, name: str, answers: Views) -> Finding:
    """How late the other node sees something: half of there and back, and at worst all of it."""
    asked = next(iter(answers.values()))
    trips = [seconds for times in asked["trips"].values() for seconds in times]
    if asked["lost"] or not trips:
        seen = "was not seen by the other node in more than a minute"
        return Finding(topic, name, BAD, seen, _ELSEWHERE)
    median, worst = statistics.median(trips) / 2, max(trips)
    measured = {"median_s": round(median, 5), "worst_s": round(worst, 5), "rounds": len(trips)}
    seen = f"is seen by the other node after {amount(median)} (median), {amount(worst)} at most"
    reads = sum(answer.get("reads", 0) for answer in answers.values())
    torn = sum(answer.get("torn", 0) for answer in answers.values())
    if reads:
        measured |= {"reads": reads, "torn": torn}
    if torn:
        seen += f"; {torn:,} of {reads:,} reads found the file missing, or in pieces"
        return Finding(topic, name, NOTE, seen, "readers try again; heartbeats may look old for a moment", measured)
    late = worst > LATE_S
    return Finding(topic, name, NOTE if late else GOOD, seen, _CACHES if late else "", measured)


def _race(topic: str, name: str, answers: Views) -> Finding:
    """Whether each name went to exactly one node, and holds that node's content wherever it is read."""
    if any("none" in answer for answer in answers.values()):
        seen = "there are no hard links; parts are published by exclusive creation and rename instead"
        return Finding(topic, name, NOTE, seen)
    names = NAMES * BLOCKS
    winners: list[list[int]] = [[] for _ in range(names)]
    for rank, answer in enumerate(answers.values()):
        for number in answer["won"]:
            winners[number].append(rank)
    doubled = sum(len(ranks) > 1 for ranks in winners)
    measured = {"names": names, "doubled": doubled}
    if doubled:
        seen = f"{doubled:,} of {names:,} names were won by two nodes at once"
        return Finding(topic, name, BAD, seen, f"two tasks would publish one name: {_ELSEWHERE}", measured)
    read = [(owner, winners[number]) for answer in answers.values() for number, owner in enumerate(answer["owners"])]
    wrong = sum(owner not in ("", str(ranks[0])) for owner, ranks in read if ranks)
    if wrong:
        seen = f"{wrong:,} files were read with another node's content than the winner's"
        return Finding(topic, name, BAD, seen, _ELSEWHERE, measured)
    shares = ", ".join(f"{host} {len(answer['won'])}" for host, answer in answers.items())
    met = all(answer["won"] for answer in answers.values())
    unwon = sum(not ranks for ranks in winners)
    seen = f"{names} names, taken by all nodes at once, went to one each ({shares})"
    if not met:
        seen += "; one came too late to meet the others, so that this shows little"
    if unwon:
        seen += f"; {unwon} were taken without the taker being told, as repeated NFS requests are"
    empty = sum(not owner for owner, _ in read)
    if empty:
        seen += f"; {empty:,} files were read as missing or empty just after they had been written"
        return Finding(topic, name, NOTE, seen, _CACHES, {**measured, "empty": empty})
    return Finding(topic, name, GOOD, seen, "", measured)


def _lock(topic: str, name: str, answers: Views) -> Finding:
    """Whether a lock that one node holds keeps the others out, and lets them in when it is free."""
    tries = [(host, one) for host, answer in answers.items() for one in _held(answer)]
    got = [one["got"] for _, one in tries]
    if any(value.startswith(NONE) for value in got):
        return Finding(topic, name, NOTE, f"there are no locks; {_TWICE}", "mount Lustre with flock, NFS with locks")
    entered = sorted({host for host, one in tries if one["got"] == ENTERED})
    if entered:
        seen = f"held on one node, {', '.join(entered)} got it too; {_TWICE}"
        remedy = "mount NFS without nolock and local_lock, Lustre with flock instead of localflock"
        return Finding(topic, name, NOTE, seen, remedy)
    freed = [one.get("freed_s") for _, one in tries if one["got"] == REFUSED]
    if any(seconds is None for seconds in freed):
        seen = "excludes between nodes, but a lock that was given back stayed taken for the others"
        return Finding(topic, name, NOTE, seen, "have the lock service (rpc.statd, lockd) looked at")
    slowest = max((seconds for seconds in freed if seconds is not None), default=0.0)
    seen = f"excludes between nodes; free again after {amount(slowest)}"
    remedy = "a requeued task waits so long for its shard" if slowest > _FREED_S else ""
    return Finding(topic, name, NOTE if remedy else GOOD, seen, remedy, {"freed_s": round(slowest, 4)})


def _held(answer: Answer) -> list[Answer]:
    return [value for value in answer.values() if isinstance(value, dict)]


_JUDGES: dict[str, tuple[str, Callable[[str, str, Views], Finding]]] = {
    "by name": ("a new file", _delay),
    "listed": ("a new file in a listed folder", _delay),
    "renamed": ("a rename in a listed folder", _delay),
    "replaced": ("a rename over a file", _delay),
    "exclusive": ("exclusive create", _race),
    "link": ("link", _race),
    "flock": ("lock (flock)", _lock),
    "posix": ("lock (fcntl)", _lock),
}
"""Trial → its name in the findings, and who judges it."""
