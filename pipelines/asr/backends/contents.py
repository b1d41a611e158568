"""What a model's folder or file holds, told from its description. Imports nothing heavy."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path
from typing import Any, Optional

from pipelines.core.errors import UsageError

NEMO_CONFIG, NEMO_WEIGHTS = "model_config.yaml", "model_weights.ckpt"
CTC_TYPES = ("wav2vec2", "wav2vec2-conformer", "wav2vec2-bert", "hubert", "wavlm", "data2vec-audio", "unispeech",
             "unispeech-sat", "sew", "sew-d", "mctct")  # fmt: skip
"""`model_type` of transformers' recognisers with CTC."""
WHISPER = "whisper"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_SALM_LLM_FOLDER = "llm_backbone"


def backend_of(path: Path) -> str:
    """`nemo`, `salm` or `transformers`. UsageError where a folder or file is none of their models."""
    if path.is_file():
        _read_nemo(path)
        return "nemo"
    if (path / NEMO_CONFIG).is_file() or _nemo_file(path) is not None:
        return "nemo"
    config = _config(path)
    if "pretrained_llm" in config and "perception" in config:
        return "salm"
    kind = config.get("model_type")
    if kind in (*CTC_TYPES, WHISPER):
        return "transformers"
    raise UsageError(
        f"The model in {path} is of a kind that asr does not run: its config.json says model_type {kind!r}. It runs "
        f"NeMo's recognisers (a .nemo file), NeMo's SALM (pretrained_llm and perception in config.json), and of "
        f"transformers {WHISPER} and those with CTC ({', '.join(CTC_TYPES)})."
    )


def file_of(path: Path, backend: str) -> Path:
    """What the backend opens: a folder, or the .nemo file in it."""
    if backend == "nemo" and path.is_dir() and not (path / NEMO_CONFIG).is_file():
        return _nemo_file(path) or path
    return path


def missing(folder: Path, backend: str) -> list[str]:
    """The files that a model's folder lacks."""
    if folder.is_file() or (backend == "nemo" and not (folder / NEMO_CONFIG).is_file()):
        return []
    if backend == "nemo":
        return [name for name in (NEMO_WEIGHTS,) if not (folder / name).is_file()]
    if backend == "salm":
        return [] if (folder / "model.safetensors").is_file() else ["model.safetensors"]
    lacking = [] if any((folder / name).is_file() for name in _WEIGHTS) else ["model.safetensors"]
    if not (folder / "preprocessor_config.json").is_file() and not (folder / "processor_config.json").is_file():
        lacking.append("preprocessor_config.json")
    if not (folder / "vocab.json").is_file() and not (folder / "tokenizer.json").is_file():
        lacking.append("vocab.json")
    return lacking


# -- the language model of a SALM: its tokenizer and its shape; its weights are in the SALM's own file


def language_model(folder: Path) -> str:
    """The name of a SALM's language model."""
    return str(_config(folder)["pretrained_llm"])


def language_model_missing(folder: Path, snapshot: Optional[Path]) -> list[str]:
    """What is lacking of the language model, both in the SALM's folder and where its name leads.

    The folder may hold it (tokenizer beside config.json, its config in llm_backbone); else the hub's cache does, or a
    folder that the name is.
    """
    named = Path(language_model(folder)).expanduser()
    places = [place for place in (snapshot, named if named.is_dir() else None) if place is not None]
    lacking = []
    if not any(_has_tokenizer(place) for place in (folder, *places)):
        lacking += ["tokenizer_config.json", "tokenizer.json"]
    if not any((place / "config.json").is_file() for place in (folder / _SALM_LLM_FOLDER, *places)):
        lacking.append("config.json")
    return lacking


def _has_tokenizer(folder: Path) -> bool:
    merges = (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()
    return (folder / "tokenizer_config.json").is_file() and (merges or (folder / "tokenizer.json").is_file())


# -- reading


def config_of(folder: Path) -> dict[str, Any]:
    """The config.json of a folder. UsageError where it cannot be read."""
    return _config(folder)


def _config(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        inside = ", ".join(sorted(entry.name for entry in folder.iterdir())[:10]) or "nothing"
        raise UsageError(
            f"{folder} is not a model's folder: it has neither config.json nor a .nemo file (it holds {inside}). "
            "Give the folder that holds the model's config.json, or the .nemo file."
        ) from None
    except (ValueError, OSError) as error:
        raise UsageError(
            f"{folder / 'config.json'} cannot be read: {error}. Fetch the model's folder again."
        ) from None
    return found if isinstance(found, dict) else {}


def _nemo_file(folder: Path) -> Optional[Path]:
    """The one .nemo file of a folder; UsageError where there are several, and none of the folder's name."""
    found = sorted(folder.glob("*.nemo"))
    if len(found) <= 1:
        return found[0] if found else None
    raise UsageError(
        f"{folder} holds {len(found)} models: {', '.join(path.name for path in found[:10])}. Give the file itself."
    )


def _read_nemo(path: Path) -> None:
    """UsageError unless a file is a whole .nemo archive of a recogniser."""
    try:
        with tarfile.open(path) as archive:
            names = {name.rsplit("/", 1)[-1]: name for name in archive.getnames()}
            config = archive.extractfile(names[NEMO_CONFIG]) if NEMO_CONFIG in names else None
            text = config.read().decode("utf-8", "replace") if config is not None else ""
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UsageError(
            f"{path} is not a .nemo model, or not a whole one ({error}). Compare its size with the published one, and "
            "fetch it again."
        ) from None
    if NEMO_WEIGHTS not in names or not text:
        raise UsageError(f"{path} is not a .nemo model: it has no {NEMO_CONFIG} or no {NEMO_WEIGHTS} in it.")
    target = re.search(r"^target:\s*(\S+)", text, re.MULTILINE)
    if target and not target[1].startswith("nemo.collections.asr"):
        raise UsageError(f"{path} holds no recogniser of speech but {target[1]}.")
