"""The device that models run on, and how many threads torch uses there."""

from __future__ import annotations

import os

import torch

from pipelines.core.errors import EnvironmentNotFit

VARIABLE = "VOXARRAY_DEVICE"
"""`cpu` or `cuda`, to override what is found."""


def choose(precision: str) -> torch.device:
    """A GPU where the task was given one, else the CPU. EnvironmentNotFit: one was given and torch cannot use it."""
    # One thread an operation: items run side by side instead, and sums do not depend on the number of cores.
    torch.set_num_threads(1)
    asked = os.environ.get(VARIABLE)
    if asked:
        return torch.device(asked)
    if torch.cuda.is_available() and not _is_denied():
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "fp32"
        return torch.device("cuda")
    if os.environ.get("CUDA_VISIBLE_DEVICES") and os.environ.get("SLURM_JOB_ID"):
        raise EnvironmentNotFit(
            f"Slurm gave this task a GPU (CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']}), and torch "
            f"{torch.__version__} cannot use it: the environment has the build for CPUs, or the driver is too old. "
            "Make the environment on a node with a GPU, or with VOXARRAY_TORCH=cuda (`./voxarray env create units`); "
            f"to run on the CPU all the same, export {VARIABLE}=cpu."
        )
    return torch.device("cpu")


def _is_denied() -> bool:
    """Whether this is a Slurm job that asked for no GPU on a node that has some and does not hide them."""
    return "SLURM_JOB_ID" in os.environ and not os.environ.get("CUDA_VISIBLE_DEVICES")
