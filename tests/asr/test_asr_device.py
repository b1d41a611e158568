"""Which device a recogniser runs on, on a machine without a GPU."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="torch is not in this environment")

import numpy as np
import torch

from pipelines.asr.backends import device
from pipelines.core.errors import EnvironmentNotFit
from pipelines.core.pipeline import Resources


@pytest.fixture(autouse=True)
def without_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv(device.VARIABLE, raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("precision", "dtype"), [("auto", "float32"), ("fp32", "float32"), ("bf16", "bfloat16")])
def test_a_cpu_computes_in_fp32_unless_told_otherwise(precision, dtype):
    place = device.choose(precision, Resources(cpus=2))
    assert (str(place.device), place.dtype, place.on_gpu) == ("cpu", getattr(torch, dtype), False)
    assert torch.get_num_threads() == 2
    assert device.batch_s(place, per_80_gb=1500.0, on_cpu=120.0) == 120.0


def test_a_gpu_that_was_given_and_cannot_be_used_is_an_error(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(EnvironmentNotFit, match=r"VOXARRAY_TORCH=cuda .* VOXARRAY_DEVICE=cpu"):
        device.choose("auto", Resources(gpus=1))
    monkeypatch.setenv(device.VARIABLE, "cpu")
    assert not device.choose("auto", Resources(gpus=1)).on_gpu


def test_gpus_that_are_hidden_were_not_given(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert not device.choose("auto", Resources(gpus=1)).on_gpu


def test_pieces_are_padded_on_the_right():
    rows, lengths = device.padded([np.ones(3, np.float32), np.full(5, 0.5, np.float32)], torch.device("cpu"))
    assert rows.tolist() == [[1, 1, 1, 0, 0], [0.5] * 5]
    assert lengths.tolist() == [3, 5]
