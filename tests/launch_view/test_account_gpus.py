"""GPU hours where sacct tells of GPUs, where it tells of their kinds alone, and where it does not count them."""

from __future__ import annotations

import pytest
from made_accounts import line, said, submitted
from made_runs import NOON, Made, Maker, make

from pipelines.core.run import Run
from slurm.request import Request
from slurm.view import account_json, account_sacct
from slurm.view.account import account


@pytest.mark.parametrize(
    ("tres", "asked", "gpus"),
    [
        ("cpu=4,gres/gpu=2,gres/gpu:a100=2", 8, 2),
        ("cpu=4,gres/gpu=0", 8, 0),
        ("cpu=4,gres/gpu:a100=2", None, 2),
        ("cpu=4,gres/gpu:a100=2,gres/gpu:1g.10gb=1", None, 3),
        ("cpu=4,gres/gpumem=80G,gres/gpuutil=9", None, None),
        ("cpu=4,mem=1G", None, None),
        ("cpu=4,mem=1G", 2, 2),
        ("cpu=4,mem=1G", 0, 0),
        ("", None, None),
    ],
)
def test_gpus_held(tres, asked, gpus):
    known = {"7": account_sacct._Known(0, 0, None, 0.0, False, asked)}
    (found,) = account_sacct.parsed(f"7|COMPLETED|100|200|100|4|{tres}|1G|60|00:10|||x", known)
    assert found.gpus == gpus


def told(monkeypatch, *lines: str) -> None:
    monkeypatch.setattr("slurm.view.account_sacct.shutil.which", lambda _: "sacct")
    monkeypatch.setattr("slurm.view.account_sacct._call", lambda _: "\n".join(lines))


@pytest.mark.parametrize(("asked", "hours"), [("2", 4 * 120 * 2 / 3600), ("a100:1", 4 * 120 / 3600), ("0", 0)])
def test_where_the_cluster_counts_no_gpus_the_request_tells(moment, monkeypatch, asked, hours):
    run = submitted(make(Made(), moment), Request(cpus=8, mem_mb=8192, time=240, gpus=asked))
    tasks = (line(f"100_{task}", NOON - 20, NOON + 100, tres="cpu=8,mem=8G,node=1") for task in range(4))
    sweep = line("101", NOON, NOON + 9, name="tone.corpus-00000001.000.sweep", cpus=1, tres="cpu=1,mem=4G")
    told(monkeypatch, *tasks, sweep)
    found = account(run)
    assert found.sources.sacct == 4
    assert account_json.accounts([found])["runs"][0]["gpu_hours"] == pytest.approx(hours, abs=1e-6)
    assert [stretch.gpus for stretch in found.held if stretch.task is None] == [0]


def test_where_nobody_tells_of_gpus_their_hours_are_unknown(moment, monkeypatch):
    maker = Maker(Made(tasks=2), moment)
    maker.plan()
    maker.launch(job="100", cluster="sbatch")
    maker.work()
    told(monkeypatch, *(line(f"100_{n}", NOON - 20, NOON + 150, name="vad", tres="cpu=8,mem=8G") for n in range(2)))
    found = account(Run.open(maker.made.run_id()))
    assert found.sources.sacct == 2
    (shown,) = account_json.accounts([found])["runs"]
    assert (shown["gpu_hours"], shown["gpu_hours_per_audio_hour"], shown["requested"]["gpus"]) == (None, None, None)
    assert "0 GPU hours" not in said(found)
