"""Where a model runs and with what precision, and batches of pieces as tensors."""

from __future__ import annotations

import os
from typing import NamedTuple, Sequence

import numpy as np
import torch

from pipelines.audio.resample import Float32
from pipelines.core.errors import EnvironmentNotFit
from pipelines.core.pipeline import Resources

VARIABLE = "VOXARRAY_DEVICE"
"""`cpu` or `cuda`, to override what is found."""


class Place(NamedTuple):
    """A device, and the type of the numbers that are computed with there."""

    device: torch.device
    dtype: torch.dtype

    @property
    def on_gpu(self) -> bool:
        """Whether it is a GPU."""
        return self.device.type == "cuda"


def choose(precision: str, resources: Resources) -> Place:
    """A GPU where the task was given one, else the CPU. EnvironmentNotFit: one was given and torch cannot use it."""
    torch.set_num_threads(max(1, resources.cpus))
    device = torch.device(os.environ.get(VARIABLE) or ("cuda" if _has_gpu() else "cpu"))
    if device.type == "cpu" and resources.gpus and not os.environ.get(VARIABLE) and not _are_hidden():
        raise EnvironmentNotFit(
            f"This task was given {resources.gpus} GPU, and torch {torch.__version__} cannot use it: the environment "
            "has the build for CPUs, or the driver is too old. Make the environment on a node with a GPU, or with "
            f"VOXARRAY_TORCH=cuda (`./voxarray env create asr`); to run on the CPU all the same: {VARIABLE}=cpu."
        )
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "fp32"
    half = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    return Place(device, torch.bfloat16 if half else torch.float32)


def _has_gpu() -> bool:
    """Whether there is one, and this is no Slurm job that asked for none on a node that does not hide them."""
    denied = "SLURM_JOB_ID" in os.environ and not os.environ.get("CUDA_VISIBLE_DEVICES")
    return torch.cuda.is_available() and not denied


def _are_hidden() -> bool:
    """Whether somebody took the GPUs away on purpose: -1 is the customary way."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "").startswith("-")


def batch_s(place: Place, per_80_gb: float, on_cpu: float) -> float:
    """Padded seconds of a first batch: in proportion to the GPU's memory, for a model that takes so many in 80 GB."""
    if not place.on_gpu:
        return on_cpu
    memory = torch.cuda.get_device_properties(place.device).total_memory
    return max(60.0, per_80_gb * memory / 80e9)


def overhead(place: Place) -> float:
    """What a batch costs an encoder beyond its audio, in pieces of it: a GPU wants to be filled, a core is full."""
    return 1.0 if place.on_gpu else 0.2


def padded(pieces: Sequence[Float32], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Pieces as rows padded with zeros on the right, (batch, samples) float32, and their lengths (batch,) int64."""
    lengths = [len(piece) for piece in pieces]
    rows = torch.zeros(len(pieces), max(lengths), pin_memory=device.type == "cuda")
    for row, piece in enumerate(pieces):
        rows[row, : lengths[row]] = torch.from_numpy(np.ascontiguousarray(piece, np.float32))
    return rows.to(device, non_blocking=True), torch.tensor(lengths, device=device)
