"""The published files that imported models were made of, found again for the reference, which reads nothing else.

A file is taken only if its SHA-256 is the one that was imported: the import read it without running any of it, and
audited it, so the reference may unpickle it as fairseq and scikit-learn do.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Iterator, Sequence

from pipelines.core.errors import UsageError
from pipelines.units import known
from pipelines.units.models import ModelInfo

VARIABLE = "TEXTLESS_CHECKPOINT_ROOT"
"""Where textlesslib keeps its files; without it, `~/.textless`."""

_BLOCK = 1 << 22


def folders() -> list[Path]:
    """Where textlesslib may have left published files."""
    named = os.environ.get(VARIABLE)
    return [Path(named).expanduser()] if named else [Path("~/.textless").expanduser()]


def find(info: ModelInfo, formats: Sequence[str]) -> Path:
    """The file that holds the weights which the model was made of. UsageError: it is of another kind, or not there."""
    source = info.source
    if source.format not in formats:
        raise UsageError(
            f"{info.name} was imported from {_KINDS.get(source.format, source.format)}, and the reference backend "
            f"computes with {' or '.join(_KINDS[each] for each in formats)} alone. Use `--backend native` for it."
        )
    tried = list(_candidates(info))
    for path in tried:
        if path.is_file() and path.stat().st_size == source.bytes and _sha256(path) == source.sha256:
            return path
    raise UsageError(
        f"The reference backend reads the file that {info.name} was imported from, {source.file} ({source.bytes:,} "
        f"bytes, SHA-256 {source.sha256[:16]}…), and it is not at any of {', '.join(map(str, tried))}, or has changed "
        f"since. Put it into a folder and name that with {VARIABLE}=FOLDER, or use `--backend native`, which needs "
        "the imported model alone."
    )


_KINDS = {
    "fairseq": "a fairseq checkpoint",
    "transformers": "a transformers model",
    "joblib": "a joblib k-means",
    "codehifigan": "a CodeHiFiGAN checkpoint",
    "fitted": "the pipeline kmeans",
}


def _candidates(info: ModelInfo) -> Iterator[Path]:
    """Where the file may be: where it was, in textlesslib's folder under its own or the published name, beside."""
    recorded = Path(info.source.file)
    if recorded.is_absolute():
        yield recorded
    published = known.by_sha256(info.source.sha256)
    names = [recorded.name] + ([each.name for each in published.files[:1]] if published else [])
    for folder in (*folders(), info.folder):
        for name in dict.fromkeys(names):
            yield folder / name


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(_BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()
