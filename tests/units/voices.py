"""Model folders that the tests of voices stand on: small vocoders in the format that imports write, and codebooks."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import numpy as np
import torch
from safetensors.numpy import save

from pipelines.units import logmel, models
from pipelines.units.vocoder import CodeHiFiGan, folded
from tests.units.made import hifigan_weights

SMALL = {
    "upsample_rates": [5, 4, 4, 2, 2],
    "upsample_kernel_sizes": [11, 8, 8, 4, 4],
    "upsample_initial_channel": 64,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "num_embeddings": 50,
    "embedding_dim": 16,
    "model_in_dim": 48,
    "multispkr": "from_input_file",
    "num_speakers": 3,
    "multistyle": "from_input_file",
    "num_styles": 2,
    "sampling_rate": 16000,
}
SPEAKERS, STYLES = ["ex01", "ex02", "lj"], ["read-default", "read-happy"]


def weights(seed=0, **changes):
    """A generator's weights as published: weight norm not folded."""
    return hifigan_weights(torch.Generator().manual_seed(seed), {**SMALL, **changes})


def folder(where: Path, name: str, kind: str, config: dict, tensors: dict) -> Path:
    """A model folder."""
    data = save({key: np.ascontiguousarray(value) for key, value in tensors.items()})
    description = models.Description(
        1,
        kind,
        name,
        hashlib.sha256(data).hexdigest(),
        models.Source("made", "0" * 64, 1, "made"),
        None,
        "2026-11-21T00:00:00Z",
        config,
        len(data),
    )
    path = where / name
    path.mkdir(parents=True)
    (path / models.WEIGHTS).write_bytes(data)
    (path / models.DESCRIPTION).write_bytes(msgspec.json.encode(description))
    return path


def vocoder_folder(
    where: Path, name="voice", *, seed=0, speakers=SPEAKERS, styles=STYLES, spoil=None, **changes
) -> Path:
    """A vocoder with random weights; `spoil(config, tensors)` may change what is written."""
    parts = 1 + bool(speakers) + bool(styles)
    sizes = {"num_speakers": len(speakers or ()), "num_styles": len(styles or ()), "model_in_dim": 16 * parts}
    flags = {"multispkr": bool(speakers), "multistyle": bool(styles)}
    config = {**SMALL, **sizes, **flags, **changes}
    tensors = {key: value.numpy() for key, value in folded(weights(seed, **config)).items()}
    config.update(vocabulary_size=config["num_embeddings"], hop=320, speakers=speakers, styles=styles)
    if spoil:
        spoil(config, tensors)
    return folder(where, name, "hifigan", config, tensors)


def vocoder(where: Path, name="voice", **options) -> CodeHiFiGan:
    """The same, loaded."""
    return CodeHiFiGan.load(models.describe(str(vocoder_folder(where, name, **options)), "hifigan"))


def codebook_folder(where: Path, name: str, centroids) -> Path:
    """A codebook of log-mel centroids."""
    centroids = np.asarray(centroids, np.float32)
    config = {"clusters": len(centroids), "width": centroids.shape[1], "features": dict(logmel.DESCRIPTION)}
    return folder(where, name, "codebook", config, {"centroids": centroids})
