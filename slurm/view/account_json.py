"""`account --json`: a stable form for programs. Fields are added, never renamed or removed, while `format` is 1.

{format 1, time (ISO 8601), runs [RUN, …], total {runs, audio_hours, cpu_hours, cpu_hours_used, gpu_hours,
 cpu_hours_per_audio_hour, gpu_hours_per_audio_hour, sweep_cpu_hours}}. Each RUN:
  run · pipeline · at_work (true: the figures are so far) · items (done) · audio_hours · launches · tasks · attempts ·
  task_hours (the tasks' time, one after the other) · cpu_hours (processors held × time) · cpu_hours_used ·
  cpus_used (by a task, on average) · gpu_hours · cpu_hours_per_audio_hour · cpu_hours_used_per_audio_hour ·
  gpu_hours_per_audio_hour · sweep_cpu_hours (not in cpu_hours) ·
  requested {cpus, gpus, mem_mb, time_limit_s} ·
  used {cpu_share (of cpu_hours), mem_mb (the most), time_s (the longest)} ·
  waste {loading_s, loading_of (attempts that its estimate rests on), around_s (jobs held without an attempt), lost_s,
         cut_short (attempts), padding (share of what was computed), failed_tries, spare_rows} ·
  states {how jobs ended, as sacct writes it: number} ·
  sources {times {sacct, heartbeats (tasks)}, cpu_hours_used (sacct, heartbeats, both), no_sacct (why not)} ·
  advice (sentences)
Hours and seconds are of wall time unless they say otherwise; what is unknown is null. In the total, audio counts once
for pipelines that follow each other: it is the most that any one pipeline took.
"""

from __future__ import annotations

from typing import Any, Optional, Sequence

from pipelines.core import clock
from slurm.view.account import Account
from slurm.view.account_advice import advice
from slurm.view.account_cost import Cost, cost
from slurm.view.account_text import audio_of

FORMAT = 1


def accounts(found: Sequence[Account]) -> dict[str, Any]:
    """All accounts, in the order given, and their total."""
    whole = cost([stretch for each in found for stretch in each.held])
    audio = audio_of(found)
    total = {"runs": len(found), "audio_hours": _hours(audio), **_hourly(whole, audio)}
    return {"format": FORMAT, "time": clock.iso(), "runs": [_run(each) for each in found], "total": total}


def _run(found: Account) -> dict[str, Any]:
    its, waste, sources = found.cost, found.waste, found.sources
    return {
        "run": found.run,
        "pipeline": found.pipeline,
        "at_work": found.at_work,
        "items": found.items,
        "audio_hours": _hours(found.audio_seconds),
        "launches": found.launches,
        "tasks": found.tasks,
        "attempts": found.attempts,
        "task_hours": _hours(its.time_s),
        **_hourly(its, found.audio_seconds),
        "cpu_hours_used_per_audio_hour": _ratio(its.used_s, found.audio_seconds),
        "cpus_used": _rounded(its.used_cpus),
        "requested": {
            "cpus": its.cpus,
            "gpus": its.gpus,
            "mem_mb": _rounded(its.mem_mb),
            "time_limit_s": _rounded(its.limit_s),
        },
        "used": {
            "cpu_share": _rounded(its.used_share),
            "mem_mb": _rounded(its.rss_mb),
            "time_s": _rounded(its.longest_s),
        },
        "waste": {
            "loading_s": _rounded(waste.loading_s),
            "loading_of": waste.loading_of,
            "around_s": _rounded(waste.around_s),
            "lost_s": _rounded(waste.lost_s),
            "cut_short": waste.cut_short,
            "padding": _rounded(waste.padding),
            "failed_tries": waste.tries,
            "spare_rows": waste.spare,
        },
        "states": found.states,
        "sources": {
            "times": {"sacct": sources.sacct, "heartbeats": sources.files},
            "cpu_hours_used": sources.used,
            "no_sacct": sources.silence,
        },
        "advice": advice(found),
    }


def _hourly(its: Cost, audio: float) -> dict[str, Any]:
    """What runs and their total have in common."""
    return {
        "cpu_hours": _hours(its.cpu_s),
        "cpu_hours_used": _hours(its.used_s),
        "gpu_hours": _hours(its.gpu_s),
        "cpu_hours_per_audio_hour": _ratio(its.cpu_s, audio),
        "gpu_hours_per_audio_hour": _ratio(its.gpu_s, audio),
        "sweep_cpu_hours": _hours(its.sweep_cpu_s),
    }


def _hours(seconds: Optional[float]) -> Optional[float]:
    return None if seconds is None else _rounded(seconds / 3600)


def _ratio(seconds: Optional[float], audio: float) -> Optional[float]:
    return _rounded(seconds / audio) if seconds is not None and audio else None


def _rounded(value: Optional[float]) -> Optional[float]:
    return None if value is None else round(value, 6)
