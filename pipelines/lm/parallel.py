"""Several processes that train one model, as torchrun starts them; one process alone needs nothing of it."""

from __future__ import annotations

import os
from typing import Sequence, TypeVar

import torch
from torch import distributed, nn

T = TypeVar("T")


def start(device: torch.device) -> torch.device:
    """Join the group that torchrun's variables speak of, if any; the device of this process."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        return device
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    return device


def rank() -> int:
    """This process's number."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def size() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


def share(batches: Sequence[T]) -> Sequence[T]:
    """The batches of an update that are this process's own."""
    return batches[rank() :: size()]


def total(model: nn.Module, nats: float, stop: bool) -> tuple[float, bool]:
    """Add up the gradients and the loss of all processes; whether any is to stop, so that all stop at one step.

    One message for all: a model of units is small.
    """
    if size() == 1:
        return nats, stop
    gradients = [weight.grad if weight.grad is not None else torch.zeros_like(weight) for weight in model.parameters()]
    extra = torch.tensor([nats, float(stop)], dtype=gradients[0].dtype, device=gradients[0].device)
    flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), extra])
    distributed.all_reduce(flat)
    start = 0
    for weight, gradient in zip(model.parameters(), gradients):
        weight.grad = flat[start : start + gradient.numel()].view_as(weight)
        start += gradient.numel()
    return float(flat[-2]), bool(flat[-1] > 0)


def added(value: float, device: torch.device) -> float:
    """The sum of a value over all processes."""
    if size() == 1:
        return value
    held = torch.tensor([value], dtype=torch.float64, device=device)
    distributed.all_reduce(held)
    return float(held)
