"""What loading any of NeMo's models needs: silence, all weights, and the right precision for the features."""

from __future__ import annotations

import copy
import json
import logging
import struct
import warnings
from typing import Any

import torch
from nemo.utils import logging as nemo_logging

from pipelines.asr.backends.device import Place
from pipelines.asr.backends.locate import Model
from pipelines.core.errors import UsageError


def quiet() -> None:
    """No notes about training data, optimisers and deprecations in a task's log."""
    nemo_logging.set_verbosity(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(nemo|lightning|torchmetrics|pydub|lhotse)\b.*")


def placed(model: Any, place: Place) -> Any:
    """A model or its perception on its device, in evaluation mode; features are computed in fp32 all the same.

    Windows and filter banks rounded to bf16 would change what the model hears. No dither, and no padding to whole
    multiples: both are for training.
    """
    preprocessor = model.preprocessor
    featurizer = copy.deepcopy(preprocessor.featurizer)
    featurizer.dither, featurizer.pad_to = 0.0, 0
    model = model.to(place.device, place.dtype).eval()
    preprocessor.featurizer = featurizer.to(place.device).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def verify_weights(model: torch.nn.Module, found: Model) -> None:
    """UsageError where a folder's model.safetensors lacks weights: loading would leave those random."""
    if found.path is None:
        return
    with (found.path / "model.safetensors").open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        there = set(json.loads(file.read(length)))
    state = model.state_dict(keep_vars=True)
    # what several names share (tied embeddings) is stored once
    stored = {tensor.data_ptr() for name, tensor in state.items() if name in there}
    learned = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    learned |= {name for name in state if name.endswith(("running_mean", "running_var"))}
    lacking = sorted(name for name in learned if name not in there and state[name].data_ptr() not in stored)
    if lacking:
        raise UsageError(
            f"{found.path / 'model.safetensors'} lacks {len(lacking)} of the model's weights ({', '.join(lacking[:5])}"
            f"{', …' if len(lacking) > 5 else ''}): it belongs to another version, or was not fetched whole. Fetch it "
            "again, with its config.json."
        )
