"""Where a model lies: a folder, a .nemo file, or a snapshot in the hub's cache. Never asks the network.

The cache is Hugging Face's: `$HF_HUB_CACHE`, else `$HF_HOME/hub`, else `~/.cache/huggingface/hub`, with
`models--OWNER--NAME/refs/main` naming a folder of `snapshots`. `hf download` fills it.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import NamedTuple, Optional

from pipelines.asr.backends import contents, known
from pipelines.core.errors import UsageError

POCKETSPHINX = "pocketsphinx"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Model(NamedTuple):
    """A model that is here: its name as given, who runs it, its folder or file, and what tells its versions apart."""

    name: str
    backend: str
    path: Optional[Path]
    """None for PocketSphinx, whose model comes with its package."""
    version: Optional[str]
    """The hub's commit, or a digest of the folder's or file's description and sizes."""


def locate(name: str) -> Model:
    """The model called `name`, a path or a name of the hub. UsageError: it is not here, incomplete, or unknown."""
    if name == POCKETSPHINX:
        return Model(name, POCKETSPHINX, None, None)
    path = Path(name).expanduser()
    if path.exists():
        path = path.resolve()
        backend = contents.backend_of(path)
        _verify(name, backend, path)
        return Model(name, backend, contents.file_of(path, backend), _digest(path))
    if _HUB_NAME.fullmatch(name) is None:
        raise UsageError(
            f"There is no model {name!r}: it is no folder or file here, and no name of the hub (OWNER/NAME). "
            f"There are {POCKETSPHINX}, which needs no download, {', '.join(sorted(known.MODELS))}, others like them "
            "on the hub, and any folder or .nemo file."
        )
    snapshot = snapshot_of(name)
    if snapshot is None:
        raise UsageError(known.how_to_fetch(name, cache(), f"no snapshot of it is in {cache()}"))
    backend = contents.backend_of(snapshot)
    _verify(name, backend, snapshot)
    return Model(name, backend, contents.file_of(snapshot, backend), snapshot.name)


def choose(name: str) -> str:
    """The backend of a model: by what lies in its folder or file, else (not here yet) by its name. UsageError."""
    if name == POCKETSPHINX:
        return POCKETSPHINX
    path = Path(name).expanduser()
    if path.exists():
        return contents.backend_of(path.resolve())
    snapshot = snapshot_of(name) if _HUB_NAME.fullmatch(name) else None
    if snapshot is not None:
        return contents.backend_of(snapshot)
    backend = known.backend_by_name(name)
    return locate(name).backend if backend is None else backend


def cache() -> Path:
    """The folder of the hub's cache."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser()
    home = os.environ.get("HF_HOME")
    if not home:
        home = str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return Path(home).expanduser() / "hub"


def snapshot_of(name: str) -> Optional[Path]:
    """The folder of the newest commit of a hub's model that is in the cache, None where there is none."""
    folder = cache() / f"models--{name.replace('/', '--')}"
    try:
        commit = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    snapshot = folder / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None


def _verify(name: str, backend: str, folder: Path) -> None:
    """Refuse a model some of whose files are missing, saying which, and for a SALM those of its language model."""
    missing = contents.missing(folder, backend)
    if missing:
        raise UsageError(known.how_to_fetch(name, cache(), f"{folder} lacks {', '.join(missing)}"))
    if backend != "salm":
        return
    model = contents.language_model(folder)
    lacking = contents.language_model_missing(folder, snapshot_of(model))
    if lacking:
        raise UsageError(known.how_to_complete_salm(name, folder, model, lacking, cache()))


def _digest(path: Path) -> str:
    """Names and sizes of a folder's files, with its description; of a .nemo file, its size and last change."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if not file.is_file():
            continue
        state = file.stat()
        digest.update(f"{file.name} {state.st_size}\n".encode())
        if file.suffix in (".json", ".yaml"):
            digest.update(file.read_bytes())
        elif file.suffix in (".nemo", ".ckpt", ".safetensors", ".bin"):
            digest.update(f"{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
