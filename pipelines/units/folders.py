"""Writing model folders: whole or not at all, the same bytes from the same tensors, one tensor in memory at a time."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import struct
from pathlib import Path
from typing import Any, Mapping, Optional, Tuple

from pipelines.core import clock, store
from pipelines.core.errors import UsageError
from pipelines.units.models import DESCRIPTION, FORMAT, WEIGHTS, Description, Source, read

_ALIGNMENT = 64
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}


def publish(
    where: Path,
    *,
    kind: str,
    config: Mapping[str, Any],
    source: Source,
    tensors: Mapping[str, Any],
    licence: Optional[str] = None,
    replace: bool = False,
) -> bool:
    """Publish a model folder at `where`; its name is the folder's. Returns whether anything was written.

    `tensors` are numpy arrays or torch tensors; they are kept in float32. A folder that was made of the same source
    with the same config is left as it is. UsageError: another model stands there, and `replace` is not set.
    """
    standing = _standing(where, replace)
    if standing is not None and _same(standing, kind, config, source):
        return False
    if standing is not None and not replace:
        raise UsageError(taken(where, standing, source))
    _sweep(where)
    private = store.temporary(where)
    with store.teaching(where):
        private.mkdir(parents=True)
        try:
            digest, size = write_tensors(private / WEIGHTS, tensors)
            made = Description(FORMAT, kind, where.name, digest, source, licence, clock.iso(), dict(config), size)
            store.write_json(private / DESCRIPTION, made)
            return _give_name(private, where, made, replace)
        finally:
            shutil.rmtree(private, ignore_errors=True)


def _standing(where: Path, replace: bool) -> Optional[Description]:
    """The model that stands at `where`, if one does. A damaged one counts as none where it is to be replaced."""
    if not (where / DESCRIPTION).is_file():
        return None
    try:
        return read(where)
    except UsageError:
        if replace:
            return None
        raise


def _same(standing: Description, kind: str, config: Mapping[str, Any], source: Source) -> bool:
    plain = json.loads(json.dumps(dict(config)))
    configs = [standing.config, plain]
    if not all("digest" in each.get("features", {}) for each in configs):
        configs = [_without_digest(each) for each in configs]
    return standing.kind == kind and standing.source.sha256 == source.sha256 and configs[0] == configs[1]


def _without_digest(config: Mapping[str, Any]) -> dict[str, Any]:
    """A codebook's configuration without the encoder's digest, which is not always known."""
    features = {name: value for name, value in config.get("features", {}).items() if name != "digest"}
    return {**config, "features": features}


def taken(where: Path, standing: Description, source: Source) -> str:
    """The paragraph for a name that another model has."""
    return (
        f"{where} holds another model: it was made of {standing.source.file} (SHA-256 "
        f"{standing.source.sha256[:16]}…), and this is {source.file} ({source.sha256[:16]}…), or the "
        "options differ. Runs name their models, so one is not put in another's place unasked: give this one "
        "another --name, or add --replace."
    )


def _give_name(private: Path, where: Path, made: Description, replace: bool) -> bool:
    """Let the finished folder have its name. An earlier folder steps aside first; it is ours to remove then."""
    aside = store.temporary(where)
    if replace and where.exists():
        os.replace(where, aside)
    try:
        os.rename(private, where)  # noqa: PTH104 - onto nothing: refuses a folder that is not empty
    except OSError as error:
        if error.errno not in _TAKEN:
            raise
        # Another process published meanwhile.
        standing = read(where)
        if not _same(standing, made.kind, made.config, made.source):
            raise UsageError(taken(where, standing, made.source)) from None
        return False
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    store.sync_folder(where.parent)
    return True


def _sweep(where: Path) -> None:
    """Remove what a process that was killed left half written under this name."""
    for path in where.parent.glob(f".{where.name}.*.tmp"):
        if store.is_abandoned(path):
            shutil.rmtree(path, ignore_errors=True)


def write_tensors(path: Path, tensors: Mapping[str, Any]) -> Tuple[str, int]:
    """Write float32 tensors in the safetensors format, sorted by name; returns SHA-256 and size.

    The data begin at a multiple of 64 bytes, as vector instructions like it.
    """
    header, end = {}, 0
    for name in sorted(tensors):
        shape = [int(size) for size in tensors[name].shape]
        count = 4
        for size in shape:
            count *= size
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + count]}
        end += count
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    digest = hashlib.sha256()
    with store.writing(path) as file:
        for data in (struct.pack("<Q", len(text)), text):
            digest.update(data)
            file.write(data)
        for name in sorted(tensors):
            numbers = _bytes_of(tensors[name])
            digest.update(numbers)
            file.write(numbers)
    return digest.hexdigest(), 8 + len(text) + end


def _bytes_of(tensor: Any) -> Any:
    """The numbers of an array or a tensor as float32, row by row, little-endian."""
    import numpy as np

    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu().float().numpy()
    return np.ascontiguousarray(tensor, dtype="<f4").reshape(-1).view(np.uint8).data
