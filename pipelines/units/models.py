"""Model folders: where they lie, what they hold, and what to do about one that is missing.

A model is a folder `NAME/` with `model.json` and `model.safetensors` (float32), published whole or not at all by
`pipelines.units.folders`. Its `config`, by kind:

hubert    conv_layers [[channels, kernel, stride], …], conv_bias, extractor_mode ("group_norm" | "layer_norm"), width,
          ffn, heads, layers, layer_norm_first, conv_pos, conv_pos_groups, conv_pos_batch_norm, normalize, sample_rate,
          hop
codebook  clusters, width, features {"kind": "hubert", "model": NAME | FOLDER | null, "layer": 1… | null, "digest": the
          encoder's, where it is known} or {"kind": "logmel", …}; tensor: centroids (clusters, width)
hifigan   the generator's fields as published (upsample_rates, upsample_kernel_sizes, upsample_initial_channel,
          resblock_kernel_sizes, resblock_dilation_sizes, embedding_dim, model_in_dim), sample_rate, hop,
          vocabulary_size, speakers [name, …] | null, styles [name, …] | null, duration_predictor (whether there are
          such weights); tensors: the published generator's under their own names, weight norm folded:
          conv_pre.{weight,bias}, ups.I.…, resblocks.I.convs1.J.…, resblocks.I.convs2.J.…, conv_post.…, dict.weight
          (vocabulary, embedding_dim), spkr.weight (speakers, embedding_dim), style.weight, dur_predictor.…
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Any, Optional

import msgspec

from pipelines.core import paths
from pipelines.core.errors import UsageError, listed
from pipelines.units import known

VARIABLE = "VOXARRAY_MODELS"
FORMAT = 1
KINDS = {"hubert": "an encoder (HuBERT)", "codebook": "a codebook", "hifigan": "a vocoder (unit HiFi-GAN)"}
DESCRIPTION, WEIGHTS = "model.json", "model.safetensors"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class Source(msgspec.Struct, frozen=True):
    """The weights a model was made of: the file's path, its SHA-256, its size in bytes, and its format."""

    file: str
    sha256: str
    bytes: int
    format: str


class Description(msgspec.Struct, frozen=True):
    """`model.json`. `digest` and `bytes` are of model.safetensors."""

    format: int
    kind: str
    name: str
    digest: str
    source: Source
    licence: Optional[str]
    created: str
    config: dict[str, Any]
    bytes: Optional[int] = None


class ModelInfo(msgspec.Struct, frozen=True):
    """A model that is there. `layer` is the one that the name asks for (`hubert-base-ls960-layer-9`), if it does."""

    name: str
    kind: str
    folder: Path
    digest: str
    config: dict[str, Any]
    licence: Optional[str]
    source: Source
    layer: Optional[int] = None

    @property
    def weights(self) -> Path:
        """The file of its tensors."""
        return self.folder / WEIGHTS


class Units(msgspec.Struct, frozen=True):
    """What `--units NAME` means. `dense` and `layer` (1 is the first) are None where features are log-mel."""

    name: str
    codebook: ModelInfo
    dense: Optional[ModelInfo]
    layer: Optional[int]


def folder() -> Path:
    """The folder of all models: $VOXARRAY_MODELS, else `output/models` under the home."""
    value = os.environ.get(VARIABLE)
    return Path(value).expanduser().absolute() if value else paths.home() / "output" / "models"


def place(name: str) -> Path:
    """The folder of the model `name`, whether it is there or not; a path stands for itself. Raises UsageError."""
    if is_path(name):
        return Path(name).expanduser().absolute()
    verify_name(name)
    stored = folder() / known.stored_under(name)
    beside = Path(name).absolute()
    return beside if not stored.exists() and (beside / DESCRIPTION).is_file() else stored


def is_path(name: str) -> bool:
    """Whether `name` is the path of a folder rather than a model's name."""
    return "/" in name or os.sep in name or name.startswith("~") or name in (".", "..")


def verify_name(name: str) -> None:
    """Raise UsageError unless `name` can be a model's name."""
    if not _NAME.fullmatch(name) or len(name) > 200:
        raise UsageError(
            f"{name!r} cannot be a model's name: it becomes a folder's name, and may hold letters, digits, and . _ - "
            "+ (not first). A model folder elsewhere is given by its path, with a slash: ./NAME."
        )


def exists(name: str) -> bool:
    """Whether the model `name` (or the folder of that path) is there."""
    return (place(name) / DESCRIPTION).is_file()


def describe(name: str, kind: Optional[str] = None) -> ModelInfo:
    """The model of that name, or in the folder of that path. UsageError: missing, of another kind, or damaged."""
    where = place(name)
    if not (where / DESCRIPTION).is_file():
        raise UsageError(missing([name], kind))
    found = read(where)
    if kind is not None and found.kind != kind:
        raise UsageError(
            f"{name} is {KINDS[found.kind]}, and {KINDS[kind]} is needed here. It lies in {where}. "
            f"Models of the right kind: {listed(*_names_of(kind)) or 'none yet'}."
        )
    layer = None if is_path(name) else known.layer_of(name)
    return ModelInfo(found.name, found.kind, where, found.digest, found.config, found.licence, found.source, layer)


def read(where: Path) -> Description:
    """The description in a model folder, its weights checked for presence and size. Raises UsageError."""
    again = "Import it again with --replace (`./voxarray import-checkpoint --help`)."
    try:
        found = msgspec.json.decode((where / DESCRIPTION).read_bytes(), type=Description)
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"{where / DESCRIPTION} cannot be read as a model's description: {error}. {again}") from None
    if found.format != FORMAT or found.kind not in KINDS:
        raise UsageError(
            f"{where / DESCRIPTION} has format {found.format} and kind {found.kind!r}, and this version knows format "
            f"{FORMAT} and kinds {', '.join(KINDS)}: a newer version wrote it. Update this one, or import it again."
        )
    try:
        size = (where / WEIGHTS).stat().st_size
    except OSError as error:
        raise UsageError(f"{where} has no readable {WEIGHTS} ({error.strerror}). {again}") from None
    if found.bytes is not None and size != found.bytes:
        raise UsageError(
            f"{where / WEIGHTS} has {size:,} bytes, and its description says {found.bytes:,}: it was copied in part "
            f"or changed. {again}"
        )
    return found


def installed() -> list[ModelInfo]:
    """All models in the folder of models that can be read, sorted by name."""
    found = []
    for path in sorted(folder().glob(f"[!.]*/{DESCRIPTION}")):
        try:
            found.append(describe(str(path.parent)))
        except UsageError:
            continue
    return found


def resolve_units(name: str) -> Units:
    """The codebook of that name (or path), and the encoder and layer it was made for. Raises UsageError.

    Everything that is missing is named at once.
    """
    quantizer = None if is_path(name) else known.find(name)
    needed = [name] if quantizer is None or quantizer.dense is None else [name, quantizer.dense]
    absent = [each for each in needed if not exists(each)]
    if absent:
        raise UsageError(missing(absent, "codebook"))
    codebook = describe(name, "codebook")
    features = codebook.config["features"]
    if features["kind"] != "hubert":
        return Units(name, codebook, None, None)
    model, layer = features.get("model"), features.get("layer")
    if model is None or layer is None:
        raise UsageError(
            f"The codebook {name} does not say which encoder and layer its features come from. Import it again with "
            f"them: `./voxarray import-checkpoint kmeans FILE --name {codebook.name} --dense-model MODEL --layer L "
            "--replace`."
        )
    dense = describe(model, "hubert")
    _verify_fit(name, codebook, dense, layer)
    return Units(name, codebook, dense, layer)


def _verify_fit(name: str, codebook: ModelInfo, dense: ModelInfo, layer: int) -> None:
    width, layers = dense.config["width"], dense.config["layers"]
    if codebook.config["width"] != width:
        raise UsageError(
            f"The codebook {name} has centroids of {codebook.config['width']} numbers, and the features of "
            f"{dense.name} have {width}: it was made for another encoder. Import it again with the right "
            "--dense-model."
        )
    digest = codebook.config["features"].get("digest")
    if digest is not None and digest != dense.digest:
        raise UsageError(
            f"The codebook {name} is of features of another {dense.name} than the one in {dense.folder}, which was "
            "imported anew since: its units would mean nothing. Put the earlier encoder back (by an import with "
            "--replace), or make the codebook anew: by an import with --replace, or `./voxarray kmeans MANIFEST NAME "
            f"--features {codebook.config['features']['model']} --layer {layer}`."
        )
    if not 1 <= layer <= layers:
        raise UsageError(
            f"The codebook {name} asks for layer {layer} of {dense.name}, which has layers 1 to {layers}. Import it "
            "again with the right --layer."
        )


def missing(names: list[str], kind: Optional[str] = None) -> str:
    """The paragraph for models that are not there: what to fetch and how, or what there is instead."""
    published = [known.find(name) for name in names if not is_path(name)]
    parts = [f"{'These models are' if len(names) > 1 else 'This model is'} not there: {', '.join(names)}."]
    parts += [each.instructions() for each in published if each is not None]
    parts += [text for text in (known.unsupported(name) for name in names) if text]
    if len(parts) == 1:
        parts.append(_instead(names[0], kind))
    parts.append(f"Models lie in {folder()} (${VARIABLE}).")
    return " ".join(parts)


def _instead(name: str, kind: Optional[str]) -> str:
    if is_path(name):
        where = Path(name).expanduser().absolute()
        what = f"it has no {DESCRIPTION}" if where.is_dir() else "there is no such folder"
        return (
            f"It is taken for the path of a model folder, and {what}. Checkpoints of fairseq, transformers, "
            "scikit-learn and CodeHiFiGAN are imported first: `./voxarray import-checkpoint --help`."
        )
    here, total = _names_of(kind)
    choices = sorted({*here, *known.names(kind)})
    near = difflib.get_close_matches(name, choices, 3, 0.6)
    told = f"Did you mean {' or '.join(near)}? " if near else ""
    told += f"There are here: {listed(here, total)}. " if here else ""
    return told + "A checkpoint of your own is imported with `./voxarray import-checkpoint FILE --name NAME`."


def _names_of(kind: Optional[str]) -> tuple[list[str], int]:
    found = [info.name for info in installed() if kind is None or info.kind == kind]
    return found, len(found)
