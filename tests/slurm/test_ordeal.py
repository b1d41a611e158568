"""The ordeal, in short: chains under sixty faults and more. At length: `python -m tests.slurm.ordeal`."""

from __future__ import annotations

import os
import random

import pytest
from ordeal.__main__ import small_disk
from ordeal.chain import Prepared, Round, prepare

SEED = os.environ.get("VOXARRAY_SEED", "20261121")
FAULTS, ROUNDS = 32, 2


@pytest.fixture(scope="module")
def prepared(slurm_here, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(tmp_path_factory.mktemp("ordeal"))


@pytest.mark.deadline(480)
@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_chain_under_faults(cluster, tmp_path, prepared, number):
    with small_disk(tmp_path / "disk") as disk:
        one = Round(cluster, disk / "home", prepared, random.Random(f"{SEED} {number}"))
        hits = one.storm(FAULTS)
        one.settle()
        for entry in one.weather.log:
            print(entry)
        one.prove()
        assert hits >= FAULTS, "the chain was through before the faults were"
