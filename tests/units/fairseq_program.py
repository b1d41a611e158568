"""Run by the Python of the environment `sts`: checkpoints by fairseq's own trainer, and what fairseq makes of them.

    python fairseq_program.py FOLDER WAVE…

For each of VARIANTS, FOLDER gets NAME.pt (saved by fairseq.trainer.Trainer), NAME.km.bin (a k-means on its
features, through joblib) and NAME.npz (features and units of each recording, as textlesslib computes them, by calls of
fairseq alone); report.json says what a load with strict=False would have given. Nothing of voxarray is imported.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path

import joblib
import numpy as np
import soundfile
import torch
from fairseq import checkpoint_utils, tasks
from fairseq.dataclass.configs import FairseqConfig
from fairseq.dataclass.initialize import add_defaults
from fairseq.models.hubert.hubert import HubertConfig
from fairseq.modules import SamePad
from fairseq.trainer import Trainer
from omegaconf import OmegaConf
from sklearn.cluster import MiniBatchKMeans

VARIANTS = {
    "weight_norm": {},
    "batch_norm": {"batch_norm": True},
    "slow": {"hop": 640},
    "normalize": {"normalize": True},
}
LAYER, CLUSTERS, WIDTH = 12, 500, 64
LONG = "long"
"""A recording that only the variant `normalize` encodes: its two chunks take long, and are normalised together."""
CHUNK, SHORTEST = 100 * 16_000, {320: 400, 640: 720}
KNOWS_BATCH_NORM = "conv_pos_batch_norm" in HubertConfig.__dataclass_fields__


def configuration(folder: Path, hop: int = 320, normalize: bool = False, batch_norm: bool = False):
    """HuBERT base's, with few and narrow layers."""
    rate = 16_000 / hop
    tail = 2 if hop == 320 else 3
    chosen = {
        "common": {"cpu": True, "seed": 1337},
        "distributed_training": {"distributed_world_size": 1, "ddp_backend": "pytorch_ddp"},
        "task": {
            "_name": "hubert_pretraining", "data": str(folder), "label_dir": str(folder), "labels": ["km"],
            "label_rate": rate, "sample_rate": 16_000, "max_sample_size": 250_000, "min_sample_size": 32_000,
            "pad_audio": False, "random_crop": True, "normalize": normalize,
        },
        "criterion": {"_name": "hubert", "pred_masked_weight": 1.0, "pred_nomask_weight": 0.0, "loss_weights": [10]},
        "dataset": {"num_workers": 0, "max_tokens": 1_400_000},
        "optimization": {"lr": [0.0005], "max_update": 400_000},
        "optimizer": {"_name": "adam", "adam_betas": "(0.9,0.98)", "adam_eps": 1e-06, "weight_decay": 0.01},
        "lr_scheduler": {"_name": "polynomial_decay", "warmup_updates": 32_000},
        "model": {
            "_name": "hubert", "label_rate": rate, "skip_masked": False, "skip_nomask": False, "mask_prob": 0.8,
            "extractor_mode": "layer_norm" if normalize else "default", "final_dim": 16,
            "encoder_layers": LAYER, "encoder_embed_dim": WIDTH, "encoder_ffn_embed_dim": 2 * WIDTH,
            "encoder_attention_heads": 4, "encoder_layerdrop": 0.05, "dropout_input": 0.1, "dropout_features": 0.1,
            "conv_feature_layers": f"[(32,10,5)] + [(32,3,2)] * 4 + [(32,2,2)] * {tail}",
        },
    }  # fmt: skip
    if batch_norm and KNOWS_BATCH_NORM:
        chosen["model"]["conv_pos_batch_norm"] = True
    cfg = OmegaConf.structured(FairseqConfig)
    OmegaConf.set_struct(cfg, False)
    cfg = OmegaConf.merge(cfg, chosen)
    add_defaults(cfg)
    return cfg


def make(folder: Path, name: str, hop: int = 320, normalize: bool = False, batch_norm: bool = False) -> Path:
    """A checkpoint as training writes it."""
    torch.manual_seed(1)
    cfg = configuration(folder, hop, normalize, batch_norm)
    task = tasks.setup_task(cfg.task)
    model = task.build_model(cfg.model)
    if batch_norm and not KNOWS_BATCH_NORM:
        convolution = torch.nn.Conv1d(WIDTH, WIDTH, 128, padding=64, groups=16)
        model.encoder.pos_conv = torch.nn.Sequential(
            torch.nn.BatchNorm1d(WIDTH), convolution, SamePad(128), torch.nn.GELU()
        )
    spread(model)
    task.dictionaries  # noqa: B018 - loads them, so that they are saved
    trainer = Trainer(cfg, task, model, task.build_criterion(cfg.criterion))
    trainer.optimizer  # noqa: B018 - idem
    trainer._gathered_optim_state = None
    path = folder / f"{name}.pt"
    position = {"epoch": 1, "iterations_in_epoch": 0, "shuffle": True, "version": 2}
    trainer.save_checkpoint(str(path), {"train_iterator": position, "val_loss": None})
    if batch_norm and not KNOWS_BATCH_NORM:  # what a later fairseq writes beside such weights
        state = torch.load(path)
        state["cfg"]["model"]["conv_pos_batch_norm"] = True
        torch.save(state, path)
    return path


def spread(model) -> None:
    """Weights with which features differ from frame to frame: the usual ones make all frames alike."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("weight") and value.dim() == 2 and "layers." in name:
                gain = 0.25 if "out_proj" in name else 0.5 if "fc2" in name else 1.6
                value.normal_(0, gain / value.shape[1] ** 0.5, generator=generator)
            elif name == "post_extract_proj.weight":
                value.normal_(0, 1.5 / value.shape[1] ** 0.5, generator=generator)
            elif "layer_norm" in name and name.endswith("weight"):
                value.uniform_(0.6, 1.4, generator=generator)
            elif name.endswith("bias"):
                value.normal_(0, 0.05, generator=generator)
        for name, value in model.named_buffers():
            if name.endswith("running_mean"):
                value.normal_(0, 0.3, generator=generator)
            elif name.endswith("running_var"):
                value.uniform_(0.5, 2.0, generator=generator)


def features_of(model, normalize: bool, waveform: np.ndarray, hop: int) -> np.ndarray:
    """As textlesslib: normalised whole, in chunks of 100 s; a tail too short for a frame, its death, gives none."""
    source = torch.from_numpy(waveform)
    if normalize:
        source = torch.nn.functional.layer_norm(source, source.shape)
    chunks = [source[start : start + CHUNK][None] for start in range(0, len(source), CHUNK)]
    with torch.inference_mode():
        found = [
            model.extract_features(source=chunk, padding_mask=None, mask=False, output_layer=LAYER)[0][0].numpy()
            for chunk in chunks
            if chunk.shape[1] >= SHORTEST[hop]
        ]
    return np.concatenate(found)


def load(path: Path, **options):
    """fairseq's own loading, its faults of older versions met as its users are told to."""
    if HubertConfig.__dataclass_fields__["label_rate"].type is int:
        options["arg_overrides"] = {"label_rate": 50}
    models, _, task = checkpoint_utils.load_model_ensemble_and_task([str(path)], **options)
    return models[0].eval(), task


def strictly(path: Path, batch_norm: bool):
    """With every key, where this fairseq cannot do that by itself."""
    if not batch_norm or KNOWS_BATCH_NORM:
        return load(path)
    model, task = load(path, strict=False)
    weights = torch.load(path)["model"]
    convolution = torch.nn.Conv1d(WIDTH, WIDTH, 128, padding=64, groups=16)
    model.encoder.pos_conv = torch.nn.Sequential(
        torch.nn.BatchNorm1d(WIDTH), convolution, SamePad(128), torch.nn.GELU()
    )
    model.load_state_dict(weights, strict=True)
    return model.eval(), task


def main(folder: Path, waves) -> None:
    """Everything, once."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    words = "".join(f"{number} 1\n" for number in range(50))
    (folder / "dict.km.txt").write_text(words)
    waveforms = {Path(wave).stem: soundfile.read(wave, dtype="float32")[0] for wave in waves}
    report = {"knows_batch_norm": KNOWS_BATCH_NORM, "loose": {}}
    for name, options in VARIANTS.items():
        hop = options.get("hop", 320)
        path = make(folder, name, **options)
        model, task = strictly(path, options.get("batch_norm", False))
        short = {key: each for key, each in waveforms.items() if key != LONG or name == "normalize"}
        found = {key: features_of(model, task.cfg.normalize, each, hop) for key, each in short.items()}
        kmeans = MiniBatchKMeans(
            n_clusters=CLUSTERS, init="k-means++", max_iter=20, batch_size=10_000, n_init=1, compute_labels=False,
            random_state=0, reassignment_ratio=0.0,
        ).fit(np.concatenate(list(found.values())))  # fmt: skip
        joblib.dump(kmeans, folder / f"{name}.km.bin")
        units = {f"units/{key}": kmeans.predict(each) for key, each in found.items()}
        np.savez(folder / f"{name}.npz", **units, **{f"features/{key}": each for key, each in found.items()})
        if name == "batch_norm" and not KNOWS_BATCH_NORM:
            true = np.concatenate(list(units.values()))
            loose = [of_loose(path, seed, kmeans, short) for seed in (1, 2)]
            report["loose"] = {
                "wrong": [float((each != true).mean()) for each in loose],
                "unlike": float((loose[0] != loose[1]).mean()),
            }
    (folder / "report.json").write_text(json.dumps(report))


def of_loose(path: Path, seed: int, kmeans, waveforms) -> np.ndarray:
    """The units of a model loaded with strict=False, in a process with other random numbers."""
    torch.manual_seed(seed)
    model, _ = load(path, strict=False)
    return np.concatenate([kmeans.predict(features_of(model, False, each, 320)) for each in waveforms.values()])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
