"""The options of `asr` that change results. Imports nothing heavy."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
from pathlib import Path
from typing import Any, Optional

from pipelines.asr.backends import PRECISIONS, SETTINGS, locate
from pipelines.core import paths, store
from pipelines.core.errors import UsageError
from pipelines.core.output import published_by
from pipelines.core.pipeline import Parameters

log = logging.getLogger(__name__)

ON_A_GPU, WITHOUT = "nvidia/canary-qwen-2.5b", locate.POCKETSPHINX
"""The models that are taken where none is named."""
VAD = ("auto", "always", "never")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model",
        metavar="NAME",
        help="a model of the hub (nvidia/canary-qwen-2.5b, nvidia/parakeet-tdt-0.6b-v3, openai/whisper-large-v3, "
        f"facebook/wav2vec2-large-960h, …), a folder, a .nemo file, or {WITHOUT}, which needs neither GPU nor "
        f"download and is for trying things out (default: {ON_A_GPU} where tasks get a GPU, else {WITHOUT})",
    )
    model.add_argument("--precision", choices=PRECISIONS, default="auto", help="(default: bf16 on a GPU, else fp32)")
    model.add_argument("--language", metavar="CODE", help="of the speech, for Canary and Whisper (en, de, …)")
    model.add_argument("--prompt", metavar="TEXT", help="what Canary-Qwen is asked (default: its own)")
    model.add_argument("--decoder", choices=("rnnt", "ctc"), help="of models that have both (default: rnnt)")
    what = parser.add_argument_group("what is written")
    what.add_argument("--words", action="store_true", help="`words` with their times, where the model gives them")
    what.add_argument(
        "--segments", action="store_true", help="`segments` for every recording, not only for those that were cut"
    )
    what.add_argument(
        "--field",
        default="text",
        metavar="NAME",
        help="the field that gets the text; pred_text where `text` holds what was really said. What goes with it is "
        "then in NAME_segments, NAME_words, NAME_flags (default: text)",
    )
    what.add_argument(
        "--redo",
        action="store_true",
        help="rows that have a text already get a new one; a row that fails keeps what it had",
    )
    cut = parser.add_argument_group("how recordings are cut")
    cut.add_argument(
        "--vad",
        choices=VAD,
        default=VAD[0],
        help="auto: recordings that the model takes whole are left whole, longer ones are cut at pauses, and where "
        "there is no speech there is no text; always: short ones are cut, too; never: no looking for speech (default: "
        "auto)",
    )
    cut.add_argument(
        "--vad-segments",
        metavar="FILE",
        help="where speech is, as `vad` wrote it (STEM_segments.json); without it, it is looked for here",
    )
    cut.add_argument(
        "--longest", type=float, metavar="S", help="pieces of at most S seconds (default: the model's limit)"
    )


def foresee(options: argparse.Namespace) -> None:
    """Raise UsageError where the model is not here, or cannot honour what is asked of it."""
    if options.model:
        _settings(options, locate.locate(options.model))


def parameters(options: argparse.Namespace) -> Parameters:
    """The validated options, every default filled in. Raises UsageError where the model is not here."""
    name = options.model or _default(options)
    found = locate.locate(name)
    values: dict[str, Any] = {
        "model": str(Path(name).expanduser().resolve()) if Path(name).expanduser().exists() else name,
        "backend": found.backend,
        "version": found.version,
        "settings": _settings(options, found),
        "words": options.words,
        "segments": options.segments,
        "redo": options.redo,
        "field": _field(options.field),
        "vad": options.vad,
        "vad_segments": _segments(options),
        "longest": _longest(options.longest),
    }
    if values["vad_segments"]:
        values["vad_segments_version"] = segments_version(Path(values["vad_segments"]))
    return values


def _settings(options: argparse.Namespace, found: locate.Model) -> dict[str, Any]:
    """What is asked of the model. UsageError for what it cannot honour."""
    asked = {name: getattr(options, name) for name in ("precision", "language", "prompt", "decoder")}
    asked = {name: value for name, value in asked.items() if value is not None}
    known = SETTINGS[found.backend]
    for name, value in asked.items():
        if name not in known and value != "auto":
            knows = f"of these, it knows {' and '.join(f'--{each}' for each in known)}" if known else "it knows none"
            raise UsageError(
                f"--{name} {value} means nothing to the model {found.name}, which {found.backend} runs: {knows}. "
                f"Leave --{name} out, or name another model."
            )
    return asked


def _default(options: argparse.Namespace) -> str:
    """The model where none is named. PocketSphinx is said to be what it is."""
    gpus = getattr(options, "gpus", None)  # what the launcher's tasks get; without it, this process is the task
    if str(gpus).rpartition(":")[2] != "0" if gpus is not None else _is_gpu_here():
        return ON_A_GPU
    log.warning(
        "There is no GPU for this, so the model is %s: it needs no download, and about every third word is wrong. For "
        "work, name a model and ask for a GPU (--model %s --gpus 1).",
        WITHOUT,
        ON_A_GPU,
    )
    return WITHOUT


def _is_gpu_here() -> bool:
    """Whether this process may use one: -1 is the customary way to hide them all."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return bool(shutil.which("nvidia-smi")) if visible is None else bool(visible) and not visible.startswith("-")


def _field(name: str) -> str:
    if not name.isidentifier() or name in ("audio_filepath", "duration", "offset", "segments", "words", "flags"):
        raise UsageError(
            f"--field is {name!r}, and must be a name like text or pred_text, and none that has a meaning."
        )
    return name


def _segments(options: argparse.Namespace) -> Optional[str]:
    """The file of --vad-segments."""
    if options.vad_segments is None:
        return None
    if options.vad == "never":
        raise UsageError(
            f"--vad never looks for no speech, and --vad-segments {options.vad_segments} says where it is: give one "
            "of the two."
        )
    path = paths.absolute(options.vad_segments)
    if not path.is_file():
        raise UsageError(
            f"--vad-segments is {path}, which is no file here. `./voxarray vad DIRECTORY STEM` writes "
            "STEM_segments.json."
        )
    return str(path)


def segments_version(path: Path) -> str:
    """What tells segments from others: the run that wrote the file, which may have got more recordings; else a digest.

    Of a file of `vad` that is as it wrote it, the rows of the recordings that it had before are as they were.
    """
    digest = store.sha256_of(path)
    runs = sorted(receipt.parent.name for receipt in paths.runs().glob("*/merged.json"))
    return next((run for run in runs if published_by(run).get(os.path.realpath(path)) == digest), digest)


def _longest(seconds: Any) -> Any:
    if seconds is not None and not 1 <= seconds <= 24 * 3600:
        raise UsageError(f"--longest is {seconds:g} seconds, and must be from 1 to 86,400.")
    return seconds
