"""The ordeal, in short: chains under sixty faults and more. At length: `python -m tests.slurm.ordeal`."""

from __future__ import annotations

import os
import random

import pytest
from ordeal.__main__ import small_disk
from ordeal.chain import Round

SEED = os.environ.get("VOXARRAY_SEED", "20261121")
FAULTS, ROUNDS = 32, 2


@pytest.mark.deadline(1440)
@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_chain_under_faults(cluster, tmp_path, undisturbed, number):
    with small_disk(tmp_path / "disk") as disk:
        one = Round(cluster, disk / "home", undisturbed, random.Random(f"{SEED} {number}"))
        hits = one.storm(FAULTS)
        commands = one.settle()
        for entry in one.weather.log:
            print(entry)
        print(f"{commands} commands after the storm; {dict(one.prove())}")
        assert hits >= FAULTS, "the chain was through before the faults were"
