"""HuBERT and unit HiFi-GAN as fairseq (or textlesslib) makes them, loaded strictly from the original checkpoints.

Two faults of older fairseq are met without touching it: a `label_rate` that its schema takes for an integer, and the
BatchNorm of `pos_conv` that versions before August 2023 do not know, which is rebuilt here. Every key of the
checkpoint and of the model must meet. (`strict=False`, which is passed around as a remedy, leaves a random positional
convolution, and with it most units wrong and different in every process.)
"""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional, Union

import numpy as np
import torch

from pipelines.audio.resample import Float32
from pipelines.core.errors import EnvironmentNotFit, UsageError

_BATCH_NORM = "encoder.pos_conv.0.running_mean"
_TABLES = (
    ("speakers", "multispkr", "num_speakers", "spkr.weight"),
    ("styles", "multistyle", "num_styles", "style.weight"),
)
"""Field of our description, fields of the published configuration, and the table of embeddings."""


class ReferenceHubert:
    """A HuBERT that fairseq made and that holds all of the checkpoint's weights."""

    def __init__(self, path: Union[str, Path], on: Union[str, torch.device] = "cpu") -> None:
        self.path = Path(path)
        self.model, task = _load_strictly(self.path)
        self.normalize = bool(task.normalize)
        self.device = torch.device(on)
        self.model.eval().requires_grad_(requires_grad=False).to(self.device)
        self.width = int(self.model.encoder.embedding_dim)
        self.hop, self.shortest = _window(self.model)

    def normalised(self, waveform: torch.Tensor) -> torch.Tensor:
        """The waveform (samples,) as the model was trained on it."""
        return torch.nn.functional.layer_norm(waveform, waveform.shape) if self.normalize else waveform

    @torch.inference_mode()
    def features(self, samples: Float32, layer: int) -> Float32:
        """Normalised samples (samples,), not fewer than `shortest` → features (frames, width)."""
        source = torch.from_numpy(np.ascontiguousarray(samples))[None].to(self.device)
        found, _ = self.model.extract_features(source=source, padding_mask=None, mask=False, output_layer=layer)
        array: Float32 = found[0].cpu().numpy()
        return array


def _window(model: Any) -> tuple[int, int]:
    """Samples from frame to frame, and samples that make the first frame."""
    hop, window = 1, 1
    for block in model.feature_extractor.conv_layers:
        convolution = block[0]
        window += (convolution.kernel_size[0] - 1) * hop
        hop *= convolution.stride[0]
    return hop, window


def _load_strictly(path: Path) -> tuple[Any, Any]:
    """Model and task configuration of a fairseq checkpoint. Raises UsageError for one that does not fit."""
    with quiet():
        from fairseq import checkpoint_utils, tasks
        from omegaconf import OmegaConf

        state = checkpoint_utils.load_checkpoint_to_cpu(str(path))
        cfg, weights = state["cfg"], state["model"]
        OmegaConf.set_struct(cfg, value=False)
        has_batch_norm = _BATCH_NORM in weights
        _fit_to_schema(cfg.task)
        _fit_to_schema(cfg.model)
        task = tasks.setup_task(cfg.task)
        if state.get("task_state"):
            task.load_state_dict(state["task_state"])
        model = task.build_model(cfg.model)
        if has_batch_norm and not isinstance(model.encoder.pos_conv[0], torch.nn.BatchNorm1d):
            model.encoder.pos_conv = _batch_norm_pos_conv(weights["encoder.pos_conv.1.weight"])
        try:
            model.load_state_dict(weights, strict=True)
        except RuntimeError as error:
            raise UsageError(
                f"{path} does not fit the model that fairseq makes of its configuration: {error}. It was written by "
                "another version of fairseq, or changed. A model that is loaded in part gives wrong units, so it is "
                "not used."
            ) from error
    return model, cfg.task


def _fit_to_schema(part: Any) -> None:
    """Make a part of the configuration one that the installed fairseq accepts: its types, and none but its fields."""
    schema = _schema(str(part.get("_name")))
    if schema is None:
        return
    rate = part.get("label_rate")
    if schema["label_rate"].type in (int, "int") and isinstance(rate, float) and rate.is_integer():
        part["label_rate"] = int(rate)
    # Fields that later versions added. Where one changes the layers, the strict loading says so.
    for name in [name for name in part if name not in schema and name != "_name"]:
        del part[name]


def _schema(name: str) -> Optional[Mapping[str, Any]]:
    if name == "hubert":
        from fairseq.models.hubert.hubert import HubertConfig as Schema
    elif name == "hubert_pretraining":
        from fairseq.tasks.hubert_pretraining import HubertPretrainingConfig as Schema
    else:
        return None
    fields: Mapping[str, Any] = Schema.__dataclass_fields__
    return fields


def _batch_norm_pos_conv(kernel: torch.Tensor) -> torch.nn.Sequential:
    """The positional convolution with BatchNorm, for a kernel (width, width / groups, size)."""
    from fairseq.modules import SamePad

    width, inside, size = kernel.shape
    convolution = torch.nn.Conv1d(width, width, size, padding=size // 2, groups=width // inside)
    return torch.nn.Sequential(torch.nn.BatchNorm1d(width), convolution, SamePad(size), torch.nn.GELU())


def generator(path: Path, config: Mapping[str, Any]) -> Any:
    """The vocoder's generator, weight norm folded. `config`: of the model folder. UsageError: it does not fit."""
    weights = torch.load(str(path), map_location="cpu")["generator"]
    published = {**config, "num_embeddings": config["vocabulary_size"]}
    for names, key, count, table in _TABLES:
        if config.get(names):
            published.update({key: True, count: len(weights[table])})
    predictor = weights.get("dur_predictor.conv1.0.weight")
    if predictor is not None:  # not used here, but part of what must fit
        sizes = ("var_pred_hidden_dim", "encoder_embed_dim", "var_pred_kernel_size")
        published["dur_predictor_params"] = {**dict(zip(sizes, predictor.shape)), "var_pred_dropout": 0.5}
    with quiet():
        generator = _generator_class()(published)
        try:
            generator.load_state_dict(weights, strict=True)
        except RuntimeError as error:
            raise UsageError(f"{path} does not fit its configuration: {error}.") from error
        generator.eval().remove_weight_norm()
    return generator


def _generator_class() -> Any:
    try:
        from textless.vocoders.hifigan.generator import CodeGenerator
    except (ImportError, OSError):
        from fairseq.models.text_to_speech.codehifigan import CodeGenerator as Fairseqs

        return _with_styles(Fairseqs)
    return CodeGenerator


def _with_styles(parent: Any) -> Any:
    """The generator of fairseq, which takes further features but has no table of styles."""

    class WithStyles(parent):  # type: ignore[misc]
        def __init__(self, config: Mapping[str, Any]) -> None:
            super().__init__(config)
            if config.get("multistyle"):
                self.style = torch.nn.Embedding(config["num_styles"], config["embedding_dim"])

        def forward(self, **features: torch.Tensor) -> torch.Tensor:
            if "style" in features:
                features["style"] = self.style(features["style"]).transpose(1, 2)
            samples: torch.Tensor = super().forward(**features)
            return samples

    return WithStyles


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep fairseq and textlesslib from printing, and from setting up the logging of the whole process."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            logging.disable(logging.INFO)
            yield
    except ImportError as error:
        raise EnvironmentNotFit(
            f"The reference backend needs fairseq, and this Python cannot import it ({error}). Make the environment "
            "with `./voxarray env create sts` and run in that."
        ) from error
    finally:
        logging.disable(logging.NOTSET)
        root.handlers[:] = handlers
        root.setLevel(level)
