"""The options of `sts` that change results."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

from pipelines.core import paths
from pipelines.core.errors import ItemError, UsageError
from pipelines.core.manifest import Item, items
from pipelines.core.pipeline import Parameters
from pipelines.units import known, models, naming, packed, voices
from pipelines.units import options as units

AUDIO, UNITS = "audio", "units"
GRIFFIN_LIM = "griffin-lim"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the operand DATASET and the options."""
    naming.add_arguments(parser)
    units.add_arguments(parser)
    group = parser.add_argument_group("speech")
    group.add_argument(
        "--from",
        dest="origin",
        choices=(AUDIO, UNITS),
        default=AUDIO,
        help="audio: the recordings are encoded and said again; units: the manifest's units are spoken (those of "
        "`encode`, or a field `units` with integers) (default: audio)",
    )
    group.add_argument(
        "--vocoder",
        metavar="NAME",
        help=f"the voice: a unit HiFi-GAN, or {GRIFFIN_LIM} for log-mel units (default: the units' published one)",
    )
    group.add_argument("--speaker", metavar="NAME", help="a speaker of the vocoder, by name or number (default: 0)")
    group.add_argument("--style", metavar="NAME", help="a style of the vocoder, by name or number (default: 0)")
    group.add_argument(
        "--deduplicate",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="say each run of equal units as one frame: loses the timing (default: no)",
    )
    group.add_argument("--audio-format", choices=("wav", "flac"), default="wav", help="of the files (default: wav)")
    naming.add_root(group)  # type: ignore[arg-type]


def needs(options: argparse.Namespace) -> Optional[Sequence[str]]:
    """The command that fits the codebook, where that is to be done first."""
    naming.verify(options)
    return units.needs(options) if options.origin == AUDIO else None


def foresee(options: argparse.Namespace) -> None:
    """Raise UsageError where units or voice are of a model that is not there, or do not fit each other."""
    if options.origin == UNITS and options.units is None:
        return
    units.foresee(options)
    name = units.asked(options)
    if units.embedded_clusters(name) is None:
        _voice(options, units.of_units(name))


def parameters(options: argparse.Namespace) -> Parameters:
    """The validated options, every default filled in. Raises UsageError."""
    chosen = units.parameters(options) if options.origin == AUDIO else _of_manifest(options)
    values: dict[str, Any] = {
        "dataset": naming.dataset(options),
        "root": naming.root(options),
        "from": options.origin,
        "deduplicate": options.deduplicate,
        "audio_format": options.audio_format,
        **chosen,
        **_voice(options, chosen),
    }
    folder = naming.folder(values["dataset"])
    naming.verify_free(folder, "speech", made(values))
    naming.verify_source(folder, "speech", paths.absolute(options.source), values)
    return values


def made(parameters: Parameters) -> dict[str, Any]:
    """How the speech in a dataset's folder is made, whatever manifests it is of."""
    names = (
        *("from", "units", "codebook_digest", "dense_digest", "backend", "precision", "chunking", "deduplicate"),
        *("vocoder", "vocoder_digest", "speaker", "style", "audio_format"),
    )
    return {name: parameters[name] for name in names}


def output_name(item: Item, parameters: Parameters) -> str:
    """The item's file, below the dataset's folder. Raises ItemError where there can be none, or a recording is there.

    What `--from units` says may replace its item's file: samples of a language model name the one that `sts` writes.
    """
    name = naming.file_name(item, parameters, parameters["audio_format"])
    path = naming.folder(parameters["dataset"]) / name
    if _is_recording(path, item, parameters):
        raise ItemError(
            f"{path} is a recording, and recordings are never written over; give another DATASET, with --root if that "
            "is no folder in the recordings' paths"
        )
    return name


def _is_recording(path: Path, item: Item, parameters: Parameters) -> bool:
    """Whether the item's own recording lies at `path`, or anything that this pipeline has not written."""
    if not os.path.lexists(path):
        return False
    own = parameters["from"] == AUDIO and os.path.realpath(path) == os.path.realpath(item.audio_filepath)
    return own or not naming.is_claimed(naming.folder(parameters["dataset"]), "speech")


def _of_manifest(options: argparse.Namespace) -> dict[str, Any]:
    """Which units a manifest of units holds: as --units says, else as the first packed units say."""
    manifest = paths.absolute(options.source)
    if options.units is not None:
        name = units.codebook_name(options.units, manifest)
        if name != options.units and not models.exists(name):
            raise UsageError(
                f"--units {options.units} stands for a codebook that is fitted for each manifest of recordings anew, "
                f"and none was for {manifest}: another manifest was encoded. Name the codebook that these units were "
                f"made with, {options.units}.STEM-DIGEST in {models.folder()} (STEM is that manifest's), or leave "
                "--units out where the rows have `units_filepath`."
            )
        chosen = units.of_units(name)
    else:
        where = next(_packed_in(manifest), None)
        if where is None:
            raise UsageError(
                f"{manifest} does not tell which units it holds: none of its rows names packed units "
                "(`units_filepath`). Say it with --units NAME, the codebook that the units were made with."
            )
        chosen = units.of_units(packed.describe(where).codebook)
    settings = {"backend": options.backend, "precision": options.precision, "chunking": options.chunking}
    return {**chosen, **settings, "chunk_s": units.CHUNK_S}


def _packed_in(manifest: Path) -> Iterator[Path]:
    """The packed units that rows name; those of items that failed name none."""
    for item in items(manifest, keyed=False):
        where = item.fields().get("units_filepath") if b'"units_filepath"' in item.row else None
        if isinstance(where, str) and not where.endswith(".pt"):
            yield Path(where)


def _voice(options: argparse.Namespace, chosen: Parameters) -> dict[str, Any]:
    """The vocoder, its speaker and style by number. Raises UsageError where they do not fit."""
    features = models.describe(chosen["codebook"], "codebook").config["features"]["kind"]
    name = options.vocoder or (GRIFFIN_LIM if features == "logmel" else f"{Path(chosen['units']).name}-hifigan")
    if name == GRIFFIN_LIM:
        if features != "logmel":
            raise UsageError(
                f"--vocoder {GRIFFIN_LIM} turns log-mel bands into speech, and {chosen['units']} are units of HuBERT "
                "features, which it cannot undo. Name a unit HiFi-GAN that was trained on these units."
            )
        for flag in ("speaker", "style"):
            if getattr(options, flag) is not None:
                raise UsageError(f"--{flag} belongs to a vocoder with several; {GRIFFIN_LIM} has none.")
        return {"vocoder": name, "vocoder_digest": None, "speaker": None, "style": None}
    if options.vocoder is None and known.find(name) is None and not models.exists(name):
        raise UsageError(
            f"{chosen['units']} are units without a published voice, and none is named. Say with --vocoder NAME which "
            "unit HiFi-GAN was trained on them: its name, or its folder. One of your own is imported first: "
            "`./voxarray import-checkpoint --help`."
        )
    info = models.describe(name, "hifigan")
    voices.verify_fit(info, chosen)
    speaker = voices.number_of("speaker", options.speaker, info.config.get("speakers") or (), info.name)
    style = voices.number_of("style", options.style, info.config.get("styles") or (), info.name)
    return {"vocoder": str(info.folder), "vocoder_digest": info.digest, "speaker": speaker, "style": style}
