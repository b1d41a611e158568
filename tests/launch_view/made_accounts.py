"""Made runs that the launcher submitted, and what sacct would print of their jobs."""

from __future__ import annotations

import json

from made_runs import Maker

from pipelines.core.run import Run
from slurm import request
from slurm.request import Job, Request
from slurm.view import account_text
from slurm.view.account import Account
from slurm.view.text import Terminal

WANTED = Request(cpus=8, mem_mb=8192, time=240, gpus="1")


def submitted(maker: Maker, wanted: Request = WANTED, cluster: str = "slurm") -> Run:
    """Note that the launcher submitted the made run as array 100, with sweep 101."""
    run = Run.open(maker.made.run_id())
    jobs = request.begin(run, 0, cluster, wanted)
    jobs.jobs += [Job("100", 0, maker.made.tasks, request.ARRAY), Job("101", 0, 0, request.SWEEP)]
    request.write(run, 0, jobs)
    return run


def line(job: str, start: float, end: float, state="COMPLETED", cpu="00:00:00", name="", tres="", cpus=8) -> str:
    """An allocation as sacct prints it."""
    tres = tres or f"billing={cpus},cpu={cpus},gres/gpu=1,gres/gpu:a100=1,mem=8G,node=1"
    name = name or "tone.corpus-00000001.000"
    times = f"{start:.0f}|{end:.0f}|{end - start:.0f}"
    return f"{job}|{state}|{times}|{cpus}|{tres}|8G|240|{cpu}||{name}"


def step(job: str, rss: str) -> str:
    return f"{job}|COMPLETED|1|2|1|8|cpu=8|||00:00:01|{rss}|batch"


def say_the_job(maker: Maker, job: str | None) -> None:
    """Let the heartbeats of a made run tell that they were in that job, or in none."""
    for path in maker.folder.glob("state/*/*.heartbeat.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "job": job}))


def said(found: Account, width: int = 100) -> str:
    return " ".join("\n".join(account_text.render([found], Terminal(width))).split())
