"""A chain on a real Slurm, undisturbed and cancelled: its jobs wait for merges, and need no launcher that lives."""

from __future__ import annotations

import random
import time

import pytest
from ordeal.chain import Round, contents
from processes import wait_until


@pytest.mark.deadline(720)
def test_a_chain_goes_on_by_itself_and_again_when_cancelled(cluster, tmp_path, undisturbed):
    one = Round(cluster, tmp_path / "home", undisturbed, random.Random(1))
    assert one.start().wait(timeout=180) == 0, "the command returns once the first step is submitted"
    chain = next(one.home.glob("output/chains/*/chain.json")).parent.name
    names = [row["name"].split(".")[0] for row in cluster.squeue()]
    assert names.count("chain") == 1
    assert one.voxarray("status", chain) == 0
    wait_until(lambda: one.state().get("vad") == "done", 270, "the first step's merge to be followed", 0.3)
    assert one.voxarray("cancel", chain) == 0
    wait_until(lambda: not cluster.squeue(), 180, "the queue to empty", 0.3)
    time.sleep(1)
    assert not one.is_done()
    assert one.start().wait(timeout=180) == 0
    wait_until(one.is_done, 150, "the chain to end", 0.3)
    one.prove()
    assert contents(one.home) == undisturbed.expected
    assert {len(run.launches()) for name, run in one.runs().items() if name == "vad"} == {1}, "it was not done again"
