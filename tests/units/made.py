"""Models with random weights in the true formats of the published ones, made without fairseq.

The weights are scaled so that the models behave: features differ from frame to frame at every layer (a naive random
initialisation makes a HuBERT give nearly the same vector for every frame), and a vocoder's sound is neither silent
nor clipped.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from tests.units.made_hubert import BASE, TINY, fairseq_hubert, hubert_weights

__all__ = ["BASE", "TINY", "codehifigan", "fairseq_hubert", "hifigan_weights", "hubert_weights", "joblib_kmeans"]

# -- k-means, as fairseq's learn_kmeans.py writes it


def joblib_kmeans(path, centroids, compress=0):
    """Write scikit-learn's MiniBatchKMeans with these `centroids` (K, D) through joblib, as the published ones are."""
    import joblib
    from sklearn.cluster import MiniBatchKMeans

    centroids = np.ascontiguousarray(centroids, np.float32)
    model = MiniBatchKMeans(
        n_clusters=len(centroids),
        init="random",
        max_iter=10,
        batch_size=10 * len(centroids),
        n_init=1,
        compute_labels=False,
        random_state=np.random.RandomState(0),
        reassignment_ratio=0.0,
        tol=0.0,
        max_no_improvement=100,
    )
    model.fit(np.repeat(centroids, 4, axis=0))
    model.cluster_centers_ = centroids
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    joblib.dump(model, path, compress=compress)
    return model


# -- CodeHiFiGAN, as speech-resynthesis writes it


def codehifigan(
    folder,
    vocabulary=100,
    speakers=("ex01", "ex02", "lj"),
    styles=("read-default", "read-happy"),
    seed=0,
    *,
    rates=(5, 4, 4, 2, 2),
    channels=32,
    width=16,
    predictor=False,
    changes=None,
):
    """Write generator.pt, config.json and (where given) speakers.txt and styles.txt into `folder`; returns the folder.

    The hop is the product of `rates`; `channels` before the first upsampling; `width` of an embedding;
    `predictor`: with the weights of a duration predictor, as vocoders for deduplicated units have;
    `changes(weights, config)` may spoil them. Expresso's: channels 512, width 128.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kernels = [2 * rate + rate % 2 for rate in rates]
    into = width * (1 + bool(speakers) + bool(styles))
    config = {
        "resblock": "1",
        "num_gpus": 0,
        "batch_size": 32,
        "learning_rate": 0.0002,
        "adam_b1": 0.8,
        "adam_b2": 0.99,
        "lr_decay": 0.999,
        "seed": 1234,
        "upsample_rates": list(rates),
        "upsample_kernel_sizes": kernels,
        "upsample_initial_channel": channels,
        "resblock_kernel_sizes": [3, 7, 11],
        "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
        "num_embeddings": vocabulary,
        "embedding_dim": width,
        "model_in_dim": into,
        "segment_size": 8960,
        "code_hop_size": int(np.prod(rates)),
        "f0": False,
        "num_mels": 80,
        "n_fft": 1024,
        "hop_size": 256,
        "win_size": 1024,
        "sampling_rate": 16000,
        "fmin": 0,
        "fmax": 8000,
        "fmax_for_loss": None,
    }
    if speakers:
        config.update(multispkr="from_input_file", num_speakers=len(speakers))
        _lines(folder / "speakers.txt", speakers)
    if styles:
        config.update(multistyle="from_input_file", num_styles=len(styles))
        _lines(folder / "styles.txt", styles)
    if predictor:
        config["dur_predictor_params"] = {
            "encoder_embed_dim": width,
            "var_pred_hidden_dim": width,
            "var_pred_kernel_size": 3,
            "var_pred_dropout": 0.5,
        }
    weights = hifigan_weights(torch.Generator().manual_seed(seed), config)
    if changes:
        changes(weights, config)
    torch.save({"generator": weights}, folder / "generator.pt")
    (folder / "config.json").write_text(json.dumps(config, indent=4))
    return folder


def hifigan_weights(generator, config):
    """A state dict with the names of CodeHiFiGAN's generator, weight norm not folded."""
    weights = {}

    def random(*shape, scale=1.0):
        return torch.randn(*shape, generator=generator) * scale

    def convolution(name, shape, bias, gain):
        """`shape` is torch's; the norm is over all dimensions but the first."""
        weights[f"{name}.bias"] = random(bias, scale=0.02)
        weights[f"{name}.weight_g"] = gain * (0.8 + 0.4 * torch.rand(shape[0], 1, 1, generator=generator))
        weights[f"{name}.weight_v"] = random(*shape, scale=0.01)

    channels, kernels = config["upsample_initial_channel"], config["resblock_kernel_sizes"]
    convolution("conv_pre", (channels, config["model_in_dim"], 7), channels, 1.0)
    for index, (rate, kernel) in enumerate(zip(config["upsample_rates"], config["upsample_kernel_sizes"])):
        out = channels // 2
        convolution(f"ups.{index}", (channels, out, kernel), out, 1.2 * (rate / 2) ** 0.5)
        channels = out
        for block, (size, dilations) in enumerate(zip(kernels, config["resblock_dilation_sizes"])):
            for number in range(len(dilations)):
                name = f"resblocks.{index * len(kernels) + block}"
                convolution(f"{name}.convs1.{number}", (channels, channels, size), channels, 1.0)
                convolution(f"{name}.convs2.{number}", (channels, channels, size), channels, 0.5)
    convolution("conv_post", (1, channels, 7), 1, 0.4)
    width = config["embedding_dim"]
    weights["dict.weight"] = random(config["num_embeddings"], width)
    if config.get("multispkr"):
        weights["spkr.weight"] = random(config["num_speakers"], width)
    if config.get("multistyle"):
        weights["style.weight"] = random(config["num_styles"], width)
    if config.get("dur_predictor_params"):
        for number in (1, 2):
            weights[f"dur_predictor.conv{number}.0.weight"] = random(width, width, 3, scale=0.1)
            weights[f"dur_predictor.conv{number}.0.bias"] = random(width, scale=0.1)
            weights[f"dur_predictor.ln{number}.weight"] = torch.ones(width)
            weights[f"dur_predictor.ln{number}.bias"] = torch.zeros(width)
        weights["dur_predictor.proj.weight"] = random(1, width, scale=0.1)
        weights["dur_predictor.proj.bias"] = random(1)
    return weights


def _lines(path, entries):
    path.write_text("".join(f"{entry}\n" for entry in entries))
