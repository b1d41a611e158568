"""Several processes that train one model, as torchrun starts them; one process alone needs nothing of it.

They share every batch, so that an update is the same whatever their number, but for the last bits of its sums and the
random numbers of dropout.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor, distributed, nn

from pipelines.lm.data import Ints


def start(device: torch.device) -> torch.device:
    """Join the group that torchrun's variables speak of, if any; the device of this process."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def end() -> None:
    """Leave the group, after all went well: torch's threads end now; at the interpreter's exit they may abort it."""
    if distributed.is_initialized():
        wait()
        distributed.destroy_process_group()


def rank() -> int:
    """This process's number."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def size() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def share(numbers: Ints) -> Ints:
    """This process's own of a batch, whose longest come first: all processes get about the same work."""
    return numbers[rank() :: size()]


def total(model: nn.Module, nats: Tensor, stop: bool) -> tuple[Tensor, bool]:
    """Add up the gradients and the loss of all processes; whether any is to stop, so that all stop at the same step.

    One message for all: a model of units is small.
    """
    if size() == 1:
        return nats, stop
    weights = list(model.parameters())
    gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
    flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), nats.reshape(1), nats.new_tensor([stop])])
    distributed.all_reduce(flat)
    for weight, part in zip(weights, torch.split(flat[:-2], [weight.numel() for weight in weights])):
        weight.grad = part.view_as(weight)
    return flat[-2], bool(flat[-1] > 0)


def wait() -> None:
    """Go on once all processes are here: what the first wrote before is then there for the others."""
    if size() > 1:
        distributed.barrier()


def added(value: float, device: torch.device) -> float:
    """The sum of a value over all processes."""
    if size() == 1:
        return value
    held = torch.tensor([value], dtype=torch.float64, device=device)
    distributed.all_reduce(held)
    return float(held)
