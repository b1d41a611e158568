"""Which run is meant: its id or the beginning of it, the stem of its outputs, its manifest or directory, or `last`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pipelines.core import paths
from pipelines.core.errors import UsageError, listed
from pipelines.core.plan import Plan
from pipelines.core.run import Run

LAST = "last"
_SUFFIXES = (".csv", ".json", ".jsonl", "_segments.json", "_segments.jsonl", ".rttm")
_ASIDE = ".until-"


def plans() -> list[Plan]:
    """The plans of all runs that can be read, the most recently launched last; not those that --fresh set aside."""
    found: list[tuple[float, Plan]] = []
    for path in paths.runs().glob("*/run.json"):
        if _ASIDE in path.parent.name:
            continue
        try:
            plan = msgspec.json.decode(path.read_bytes(), type=Plan)
            # A folder's time changes with every launch and merge, as names appear in it.
            found.append((path.parent.stat().st_mtime, plan))
        except (OSError, msgspec.MsgspecError):
            continue
    return [plan for _, plan in sorted(found, key=lambda pair: pair[0])]


def run(text: str) -> Run:
    """The run that `text` means. UsageError where there is none, or where several fit."""
    known = plans()
    if text == LAST and known:
        return Run(known[-1])
    for fits in (_is_id, _is_path, _begins_id):
        matches = [plan for plan in known if fits(plan, text)]
        if len(matches) == 1:
            return Run(matches[0])
        if matches:
            raise UsageError(f"{text!r} may mean {len(matches)} runs: {_table(matches)}. Give one of these ids.")
    latest = (
        f"The latest are {listed([plan.run_id for plan in known[::-1]], len(known))}." if known else "There are none."
    )
    raise UsageError(
        f"There is no run {text!r} under {paths.runs()}: no id begins so, and no run has such a manifest or such "
        f"outputs. {latest}"
    )


def _is_id(plan: Plan, text: str) -> bool:
    return plan.run_id == text


def _begins_id(plan: Plan, text: str) -> bool:
    return bool(text) and plan.run_id.startswith(text)


def _is_path(plan: Plan, text: str) -> bool:
    """Whether `text` is the path of the run's source, manifest, outputs' stem, or one of its outputs."""
    path = str(paths.absolute(text))
    resolved = str(Path(path).resolve())
    named = {plan.source, plan.manifest, plan.outputs, *(plan.outputs + suffix for suffix in _SUFFIXES)}
    return path in named or resolved in named


def _table(matches: list[Plan]) -> str:
    newest = matches[::-1]
    return listed(
        [f"{plan.run_id} ({plan.pipeline} {_differs(plan)}, {plan.created})" for plan in newest], len(matches)
    )


def _differs(plan: Plan) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(plan.parameters.items())[:4])
