"""One checkpoint of a known kind → one model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from pipelines.core.errors import UsageError, listed
from pipelines.units import checkpoint, folders, known, models, transformers_folder
from pipelines.units.checkpoint import CheckpointError
from pipelines.units.convert import Converted
from pipelines.units.models import Source

Say = Callable[[str], None]


class Wanted(NamedTuple):
    """What the user says about a model. `name`: None where the file is a published one, and has its name."""

    name: Optional[str] = None
    licence: Optional[str] = None
    replace: bool = False
    dense_model: Optional[str] = None
    layer: Optional[int] = None
    speakers: Optional[Path] = None
    styles: Optional[Path] = None
    normalize: Optional[bool] = None
    download: bool = True


def kind_of(operands: Sequence[str]) -> str:
    """The kind of what the operands name, from what they hold: hubert, kmeans, hifigan or transformers."""
    path = Path(operands[0])
    if path.is_dir():
        if (path / models.DESCRIPTION).is_file():
            raise UsageError(
                f"{path} is a model folder already. It is used by its path, or copied to {models.folder()} as it is."
            )
        return "hifigan" if _generator(path) is not None else "transformers"
    if not path.exists() and transformers_folder.HUB_NAME.fullmatch(operands[0]):
        return "transformers"
    nature = checkpoint.nature(path)
    if nature == "torch":
        state = checkpoint.read_torch(path)
        return "hifigan" if isinstance(state, dict) and "generator" in state else "hubert"
    if nature in ("unknown", "safetensors"):
        raise CheckpointError(
            f"{path} is of no kind that is known here. Give what fairseq, scikit-learn or speech-resynthesis wrote, "
            "or the folder that transformers wrote (not a file in it)."
        )
    return "kmeans"


def run(kind: str, operands: Sequence[str], wanted: Wanted, say: Say) -> models.ModelInfo:
    """Import what the operands name. Raises UsageError."""
    if kind != "hifigan" and len(operands) > 1:
        raise UsageError(
            f"One {kind} is imported at a time, and {len(operands)} operands were given: {', '.join(operands[:5])}. "
            "Published names are imported together, files one by one."
        )
    converted, source = _READERS[kind](operands, wanted)
    return _publish(converted, source, wanted, say)


def published(model: known.Known, paths: Sequence[Path], wanted: Wanted, say: Say) -> models.ModelInfo:
    """Import a published model from its files, which were verified."""
    files = {file.role: path for file, path in zip(model.files, paths)}
    wanted = wanted._replace(name=model.name, speakers=files.get("speakers"), styles=files.get("styles"))
    kind = {"codebook": "kmeans"}.get(model.kind, model.kind)
    operands = [str(files[role]) for role in ("weights", "config") if role in files]
    return run(kind, operands, wanted, say)


# -- the kinds


def _hubert(operands: Sequence[str], _: Wanted) -> Tuple[Converted, Source]:
    from pipelines.units import fairseq_file

    path = Path(operands[0])
    return fairseq_file.convert_state(path, checkpoint.read_torch(path)), checkpoint.source_of([path], "fairseq")


def _transformers(operands: Sequence[str], wanted: Wanted) -> Tuple[Converted, Source]:
    folder = Path(operands[0]).expanduser()
    if not folder.is_dir():
        if not transformers_folder.HUB_NAME.fullmatch(operands[0]):
            raise UsageError(f"{folder} is no folder, and no name of the hub (OWNER/NAME) either. Is the path right?")
        folder = transformers_folder.hub_folder(operands[0], wanted.download)
    converted, files = transformers_folder.convert_folder(folder, wanted.normalize)
    return converted, checkpoint.source_of(files, "transformers")


def _kmeans(operands: Sequence[str], wanted: Wanted) -> Tuple[Converted, Source]:
    from pipelines.units import joblib_file

    path = Path(operands[0])
    centroids = joblib_file.read_centroids(path)
    if len(centroids) > 65_536:
        raise CheckpointError(f"{path} has {len(centroids):,} centroids; units are stored in 16 bits, for 65,536.")
    source = checkpoint.source_of([path], "joblib")
    features = {"kind": "hubert", **_features(path, source, centroids.shape[1], wanted)}
    config = {"clusters": len(centroids), "width": centroids.shape[1], "features": features}
    return Converted("codebook", config, {"centroids": centroids}, {}), source


def _features(path: Path, source: Source, width: int, wanted: Wanted) -> Dict[str, Any]:
    """The encoder and layer whose features a k-means is of: as given, else as published.

    With the encoder's digest where it is there; a published one is known by its name.
    """
    model = known.by_sha256(source.sha256)
    dense, layer = wanted.dense_model, wanted.layer
    if dense is None and model is not None:
        dense, layer = model.dense, layer or model.layer
    if dense is None:
        if layer is not None:
            raise UsageError(
                "--layer says which layer of an encoder; say which encoder, too, with --dense-model NAME."
            )
        return {"model": None, "layer": None}
    if layer is None and not models.is_path(dense):
        layer = known.layer_of(dense)
    if layer is None:
        raise UsageError(f"Which layer of {dense} was the k-means fitted on? Give --layer L (the first is 1).")
    stored = str(models.place(dense)) if models.is_path(dense) else known.stored_under(dense)
    found: Dict[str, Any] = {"model": stored, "layer": layer}
    if models.exists(dense):
        info = models.describe(dense, "hubert")
        if info.config["width"] != width or not 1 <= layer <= info.config["layers"]:
            raise CheckpointError(
                f"{path} has centroids of {width} numbers and is to be of layer {layer}; {info.name} has features of "
                f"{info.config['width']} numbers in layers 1 to {info.config['layers']}: it is not its encoder."
            )
        if known.find(stored) is None:
            found["digest"] = info.digest
    return found


def _hifigan(operands: Sequence[str], wanted: Wanted) -> Tuple[Converted, Source]:
    from pipelines.units import codehifigan_file

    first = Path(operands[0])
    files: List[Path] = [Path(each) for each in operands]
    if len(files) == 1 and first.is_dir():
        generator = _generator(first)
        if generator is None:
            raise CheckpointError(
                f"{first} has no generator.pt. `./voxarray import-checkpoint hifigan GENERATOR CONFIG`."
            )
        files, wanted = [generator, first / "config.json"], _beside(first, wanted)
    if len(files) != 2:
        raise UsageError(
            "A vocoder is its generator and its configuration: `./voxarray import-checkpoint hifigan generator.pt "
            "config.json --name NAME`, or the folder that holds both."
        )
    converted = codehifigan_file.convert_files(files[0], files[1], wanted.speakers, wanted.styles)
    return converted, checkpoint.source_of(files[:1], "codehifigan")


def _generator(folder: Path) -> Optional[Path]:
    """The generator in a folder, if it is a vocoder's: the last one written of those kept."""
    if not (folder / "config.json").is_file():
        return None
    found = [folder / "generator.pt"] if (folder / "generator.pt").is_file() else sorted(folder.glob("g_*"))
    return found[-1] if found else None


def _beside(folder: Path, wanted: Wanted) -> Wanted:
    """The names of speakers and styles that lie in the folder, where none were given."""
    given: Dict[str, Any] = {}
    for name in ("speakers", "styles"):
        if getattr(wanted, name) is None and (folder / f"{name}.txt").is_file():
            given[name] = folder / f"{name}.txt"
    return wanted._replace(**given)


_READERS: Dict[str, Callable[[Sequence[str], Wanted], Tuple[Converted, Source]]] = {
    "hubert": _hubert,
    "transformers": _transformers,
    "kmeans": _kmeans,
    "hifigan": _hifigan,
}
KINDS = tuple(_READERS)


# -- publishing


def _publish(converted: Converted, source: Source, wanted: Wanted, say: Say) -> models.ModelInfo:
    model = known.by_sha256(source.sha256)
    name = wanted.name or (model.name if model else None)
    if name is None:
        raise UsageError(
            f"How is {Path(source.file).name} to be called? It is none of the published files; give --name NAME."
        )
    where = models.place(name)
    namesake = None if models.is_path(name) else known.find(name)
    if namesake is not None and namesake != model:
        raise CheckpointError(
            f"{name} is the name of a published model, and {source.file} is not its file (SHA-256 {source.sha256}, "
            f"published {namesake.files[0].sha256}). Results under that name would not be what others take them for: "
            "choose another --name."
        )
    licence = wanted.licence or (model.licence if model else None)
    written = folders.publish(
        where,
        kind=converted.kind,
        config=converted.config,
        source=source,
        tensors=converted.tensors,
        licence=licence,
        replace=wanted.replace,
    )
    info = models.describe(str(where), converted.kind)
    _tell(info, converted, written, say)
    return info


def _tell(info: models.ModelInfo, converted: Converted, written: bool, say: Say) -> None:
    if not written:
        say(f"{info.name}: imported before, from the same bytes; nothing was changed ({info.folder})")
        return
    say(f"{info.name}: {_SUMMARIES[info.kind](info.config)}")
    reasons: Dict[str, List[str]] = {}
    for key, reason in converted.dropped.items():
        reasons.setdefault(reason, []).append(key)
    left = "; ".join(f"{listed(keys, len(keys))} ({reason})" for reason, keys in reasons.items())
    told = f"{len(converted.tensors)} tensors written, every weight of the file accounted for"
    say(f"  {told}; left out: {left}" if left else f"  {told}")
    say(f"  from {info.source.file}, {info.source.bytes:,} bytes, SHA-256 {info.source.sha256}")
    say(f"  licence: {info.licence or 'not known; --licence TEXT records it'}")
    say(f"  {info.folder}")


def _of_hubert(config: Dict[str, Any]) -> str:
    rate = config["sample_rate"] / config["hop"]
    norm = "BatchNorm" if config["conv_pos_batch_norm"] else "weight norm"
    scaled = ", on normalised waveforms" if config["normalize"] else ""
    return (
        f"HuBERT, {config['layers']} layers of width {config['width']}, {rate:g} frames a second, {norm} in the "
        f"positional convolution{scaled}"
    )


def _of_codebook(config: Dict[str, Any]) -> str:
    features = config["features"]
    of = (
        f"layer {features['layer']} of {features['model']}"
        if features["model"]
        else "features not said (--dense-model)"
    )
    return f"codebook of {config['clusters']:,} units, {of}"


def _of_hifigan(config: Dict[str, Any]) -> str:
    voices = [f"{len(config[each])} {each}" for each in ("speakers", "styles") if config[each]]
    return (
        f"unit HiFi-GAN for {config['vocabulary_size']:,} units of {config['hop']} samples, "
        f"{' and '.join(voices) or 'one voice'}"
    )


_SUMMARIES: Dict[str, Callable[[Dict[str, Any]], str]] = {
    "hubert": _of_hubert,
    "codebook": _of_codebook,
    "hifigan": _of_hifigan,
}
