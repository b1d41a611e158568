"""Checkpoint files as strangers hand them over: what they are, and their tensors, without running a line of theirs."""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any, List, Mapping, Sequence, Tuple

from pipelines.core import store
from pipelines.core.errors import UsageError
from pipelines.units.models import Source

TORCH_OLD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How torch's files began before version 1.6: a pickled magic number."""
_MAGIC = {
    b"PK\x03\x04": "torch",
    TORCH_OLD: "torch",
    b"\x93NUMPY": "npy",
    b"x\x01": "zlib",
    b"x^": "zlib",
    b"x\x9c": "zlib",
    b"x\xda": "zlib",
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\xfd7zXZ": "xz",
    b"]\x00": "lzma",
    b"\x04\x22M\x18": "lz4",
}
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


class CheckpointError(UsageError):
    """A file that cannot be imported, for the reason it tells."""


def nature(path: Path) -> str:
    """What a file is, from its first bytes: torch, pickle, npy, safetensors, a compression's name, or unknown."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}. Is the path right?") from None
    if not start:
        raise CheckpointError(f"{path} is empty: its download or copy failed. Fetch it again.")
    known = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)
    if known is None and start[:1] == b"\x80" and start[1:2] <= bytes([pickle.HIGHEST_PROTOCOL]):
        return "pickle"
    if known is None and start[8:10] == b'{"':
        return "safetensors"
    return known or _neither(path, start)


def _neither(path: Path, start: bytes) -> str:
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is a pointer of Git LFS, not the file it stands for. Fetch that with `git lfs pull`."
        )
    if start.lstrip()[:1] == b"<":
        raise CheckpointError(
            f"{path} is a web page, not a checkpoint: the download got an error page. Fetch the file itself."
        )
    return "unknown"


def read_torch(path: Path) -> Any:
    """The content of a file that torch.save wrote: tensors (mapped from the file, not read) in plain containers.

    Only tensors, numbers, strings and containers are made; fairseq's Dictionary and argparse's Namespace become inert
    objects; anything else that the file asks for by name is refused. Raises CheckpointError.
    """
    import torch

    if nature(path) != "torch":
        raise CheckpointError(
            f"{path} is not a file that torch.save wrote, or its beginning is damaged. A k-means of scikit-learn is "
            "imported with `./voxarray import-checkpoint kmeans FILE --name NAME`."
        )
    zipped = zipfile.is_zipfile(path)  # looks for the end, too
    try:
        if not zipped and path.open("rb").read(2) == b"PK":
            raise EOFError("its directory, which stands at the end, is not there")
        with torch.serialization.safe_globals([(_Inert, "fairseq.data.dictionary.Dictionary"), argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        match = _GLOBAL.search(str(error))
        if match is None:
            raise _damaged(path, error) from None
        raise CheckpointError(
            f"{path} asks for the Python object {match[1]}, which weights do not need and which could run "
            "anything. It was not loaded. If you trust where the file is from, have its owner save the weights alone."
        ) from None
    except Exception as error:  # noqa: BLE001 - a damaged file can fail in any way
        raise _damaged(path, error) from None


class _Inert:
    """Stands for an object of a checkpoint that is not needed; keeps its fields and does nothing."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


def _damaged(path: Path, error: Exception) -> CheckpointError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return CheckpointError(
        f"{path} is damaged or cut off ({path.stat().st_size:,} bytes; {reason}). Its download or copy was probably "
        "interrupted: fetch it again, and compare its size or SHA-256 with the published ones."
    )


def source_of(files: Sequence[Path], form: str) -> Source:
    """The record of the files of weights that a model is made of: the first one's path, and SHA-256 and size.

    Of several (shards), SHA-256 is that of the lines `SHA-256  NAME` of each, as sha256sum writes them.
    """
    entries: List[Tuple[str, str, int]] = []
    for path in files:
        try:
            entries.append((path.name, store.sha256_of(path), path.stat().st_size))
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror or error}. Is the path right?") from None
    digest = entries[0][1]
    if len(entries) > 1:
        digest = hashlib.sha256("".join(f"{sha}  {name}\n" for name, sha, _ in entries).encode()).hexdigest()
    return Source(str(files[0].absolute()), digest, sum(size for _, _, size in entries), form)


def is_tensor_map(value: Any) -> bool:
    """Whether a value is a state dict: names to tensors."""
    return isinstance(value, Mapping) and bool(value) and all(hasattr(each, "shape") for each in value.values())
