"""The published models that are named in help and messages: who runs them, and which files to fetch.

Names of files and sizes are what their publishers had when this was written, and were not compared with the hub: a
repository that was changed since may need others. What a model's folder lacks is told from the folder itself
(`contents`), not from this list.
"""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import NamedTuple, Optional, Sequence

DEFAULT_ON_GPU = "nvidia/canary-qwen-2.5b"
_LLM_FILES = "config.json tokenizer_config.json tokenizer.json vocab.json merges.txt"


class Known(NamedTuple):
    """A published model: its backend, the files of it that are needed, about how large, its language model if any."""

    backend: str
    files: str
    size: str
    language_model: Optional[str] = None


_CTC_FILES = "config.json preprocessor_config.json tokenizer_config.json special_tokens_map.json vocab.json"
_WHISPER_FILES = (
    "config.json generation_config.json model.safetensors preprocessor_config.json tokenizer.json "
    "tokenizer_config.json special_tokens_map.json added_tokens.json vocab.json merges.txt normalizer.json"
)
MODELS = {
    DEFAULT_ON_GPU: Known("salm", "config.json model.safetensors", "5 GB", "Qwen/Qwen3-1.7B"),
    "nvidia/parakeet-tdt-0.6b-v2": Known("nemo", "parakeet-tdt-0.6b-v2.nemo", "2.5 GB"),
    "nvidia/parakeet-tdt-0.6b-v3": Known("nemo", "parakeet-tdt-0.6b-v3.nemo", "2.5 GB"),
    "nvidia/canary-1b-v2": Known("nemo", "canary-1b-v2.nemo", "6 GB"),
    "nvidia/canary-1b-flash": Known("nemo", "canary-1b-flash.nemo", "4 GB"),
    "facebook/wav2vec2-large-960h": Known("transformers", f"{_CTC_FILES} model.safetensors", "1.3 GB"),
    "openai/whisper-large-v3-turbo": Known("transformers", _WHISPER_FILES, "1.6 GB"),
}
_BY_NAME = {
    "nvidia/canary-qwen*": "salm",
    "nvidia/parakeet*": "nemo",
    "nvidia/canary*": "nemo",
    "nvidia/stt_*": "nemo",
    "openai/whisper*": "transformers",
    "facebook/wav2vec2*": "transformers",
    "facebook/hubert*": "transformers",
    "distil-whisper/*": "transformers",
}
"""By family, for models that are not here yet; the first that matches."""


def backend_by_name(name: str) -> Optional[str]:
    """The backend of a hub's name, where the name tells."""
    if name in MODELS:
        return MODELS[name].backend
    return next((backend for pattern, backend in _BY_NAME.items() if fnmatch.fnmatchcase(name, pattern)), None)


def how_to_fetch(name: str, cache: Path, fault: str) -> str:
    """The paragraph of a model that is not here, or not all of it."""
    model = MODELS.get(name)
    backend = backend_by_name(name)
    if model is None and backend == "nemo":
        model = Known("nemo", f"{name.rpartition('/')[2]}.nemo", "1 to 6 GB")
    size = f" (about {model.size}; if a file is not there under that name, fetch the whole model)" if model else ""
    commands = [f"hf download {name}{' ' + model.files if model else ''}"]
    if model and model.language_model:
        commands.append(f"hf download {model.language_model} {_LLM_FILES}")
    return (
        f"The model {name} is not on this machine: {fault}. Nothing is downloaded on the way of a run. Where there is "
        f"internet, with HF_HOME set to a folder that the compute nodes see too, run `{'` and `'.join(commands)}`"
        f"{size}; `hf` is in the environment asr (`./voxarray env list` says where). That puts them into "
        f"$HF_HOME/hub (here {cache}), from where they may be copied. Or lay those files into one folder and give "
        f"that: --model FOLDER{_salm_layout(model)}."
    )


def _salm_layout(model: Optional[Known]) -> str:
    if model is None or model.language_model is None:
        return ""
    return f", with the tokenizer's files of {model.language_model} beside them and its config.json in llm_backbone/"


def how_to_complete_salm(name: str, folder: Path, language_model: str, lacking: Sequence[str], cache: Path) -> str:
    """The paragraph of a SALM whose language model's tokenizer or shape is missing."""
    return (
        f"The model {name} in {folder} cannot be loaded without its language model's tokenizer and shape: of "
        f"{language_model} it lacks {', '.join(lacking)} (a few MB; its weights are in the model's own file). Where "
        f"there is internet, `hf download {language_model} {_LLM_FILES}` puts them into the hub's cache ({cache}; "
        f"HF_HOME names another). Or copy the tokenizer's files to {folder}, and its config.json to "
        f"{folder / 'llm_backbone' / 'config.json'}."
    )
