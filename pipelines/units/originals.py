"""The published files that imported models were made of, found again for the reference, which reads nothing else.

Files are taken only if their SHA-256 is the one that was imported: the import read them without running any of it, and
audited them, so the reference may unpickle them as fairseq and scikit-learn do.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Iterator, Sequence

from pipelines.core import store
from pipelines.core.errors import UsageError
from pipelines.units import known, models
from pipelines.units.models import ModelInfo

VARIABLE = "TEXTLESS_CHECKPOINT_ROOT"
"""Where textlesslib keeps its files; without it, `~/.textless`."""

_KINDS = {
    "fairseq": "a fairseq checkpoint",
    "transformers": "a transformers model",
    "joblib": "a joblib k-means",
    "codehifigan": "a CodeHiFiGAN checkpoint",
    "fitted": "the pipeline kmeans",
}


def find(info: ModelInfo, formats: Sequence[str]) -> Path:
    """The file of the weights that the model was made of. UsageError: it is of another kind, changed or not there."""
    source = info.source
    if source.format not in formats:
        raise UsageError(
            f"{info.name} was imported from {_KINDS.get(source.format, source.format)}, and the reference backend "
            f"computes with {' or '.join(_KINDS[each] for each in formats)} alone. Use `--backend native` for it."
        )
    names = [Path(name) for name in source.file.split(", ")]
    for paths in _candidates(info, names):
        if all(path.is_file() for path in paths) and _is_source(info, names, paths):
            return paths[0]
    published = known.find(info.name)
    told = f" It is published as {', '.join(each.url for each in published.files)}." if published else ""
    raise UsageError(
        f"The reference backend reads what {info.name} was imported from, {source.file} ({source.bytes:,} bytes), and "
        f"none of {', '.join(map(str, folders(info)))} has it unchanged.{told} Put it into a folder and name that "
        f"with {VARIABLE}=FOLDER, or use `--backend native`, which needs the imported model alone."
    )


def folders(info: ModelInfo) -> list[Path]:
    """Where published files may be: textlesslib's folder, where downloads lie, beside the model."""
    named = os.environ.get(VARIABLE)
    textless = Path(named or "~/.textless").expanduser()
    return [textless, models.folder() / ".downloads", info.folder, info.folder.parent]


def _candidates(info: ModelInfo, names: Sequence[Path]) -> Iterator[list[Path]]:
    """The files where they were, and in each folder under their own names and those they are published under."""
    if all(name.is_absolute() for name in names):
        yield list(names)
    published = known.find(info.name)
    others = [each.name for each in published.files] if published else []
    for folder in folders(info):
        yield [folder / name.name for name in names]
        if len(others) == len(names):
            yield [folder / name for name in others]


def _is_source(info: ModelInfo, names: Sequence[Path], paths: Sequence[Path]) -> bool:
    """Whether these are the files that were imported, by size and then SHA-256 (of several: of the digests' lines)."""
    if sum(path.stat().st_size for path in paths) != info.source.bytes:
        return False
    digests = [store.sha256_of(path) for path in paths]
    if len(digests) == 1:
        return digests[0] == info.source.sha256
    lines = "".join(f"{digest}  {name.name}\n" for digest, name in zip(digests, names))
    return hashlib.sha256(lines.encode()).hexdigest() == info.source.sha256
