"""A run's frozen description, and its identity: the digest of what changes results."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional

import msgspec

from pipelines.core import clock, paths, provenance
from pipelines.core.errors import UsageError
from pipelines.core.pipeline import Parameters, Pipeline

FORMAT = 1


class Plan(msgspec.Struct, frozen=True):
    """`run.json`. `source` is what the user named; `manifest` is the JSONL that is dealt; `outputs` is their stem."""

    format: int
    run_id: str
    pipeline: str
    source: str
    manifest: str
    outputs: str
    parameters: dict[str, Any]
    environment: provenance.Environment
    code: provenance.Code
    host: str
    created: str
    argv: list[str]
    voxarray: str = provenance.VERSION


def digest(pipeline: str, source: Path, stem: Optional[Path], parameters: Parameters) -> str:
    """8 hex digits over the pipeline, the source's path, the outputs' stem where one was given, and the parameters."""
    what = [pipeline, str(source), str(stem) if stem else None, sorted(parameters.items())]
    return hashlib.sha256(msgspec.json.encode(what)).hexdigest()[:8]


def stem_of(source: Path) -> str:
    """The readable half of a run's id: the source's name without suffix, safe in file names and shells."""
    name = source.stem if source.suffix in (".json", ".jsonl") else source.name
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-") or "run"


def run_id(pipeline: str, source: Path, stem: Optional[Path], parameters: Parameters) -> str:
    """The identity of a run: the same command again gives the same id, a changed parameter another."""
    readable = stem_of(stem or source)
    return f"{readable}-{digest(pipeline, source, stem, parameters)}"


def _default_stem(source: Path, name: str) -> Path:
    """`metadata/<directory's name>_<date>`, with the run's digest where a directory of the same name has that."""
    stem = paths.metadata() / f"{stem_of(source)}_{clock.today()}"
    for path in paths.runs().glob("*/run.json"):
        with suppress(OSError, msgspec.MsgspecError):
            other = msgspec.json.decode(path.read_bytes(), type=Plan)
            if other.outputs == str(stem) and other.source != str(source):
                return stem.with_name(f"{stem.name}_{name.rpartition('-')[2]}")
    return stem


def _verify_writable(outputs: Path) -> None:
    """Raise UsageError where the merge could not write there, or make the folder, as far as looking tells."""
    folder = outputs.parent
    there = next(one for one in (folder, *folder.parents) if os.path.lexists(one))
    if not os.path.isdir(there):  # noqa: PTH112 - `Path.is_dir` raises where it may not look
        why = f"{there} is not a directory"
    elif not os.access(there, os.W_OK | os.X_OK):
        why = f"{provenance.host()} does not let this user write to {there}"
    else:
        return
    raise UsageError(
        f"The outputs {outputs}.* could not be written: {why}. Give a STEM (the argument after DIR) in a folder that "
        "you can write to, or mend this one. Nothing was started."
    )


def draft(pipeline: Pipeline, source: Path, stem: Optional[Path], parameters: Parameters) -> tuple[Plan, bytes]:
    """The plan of this command, not yet published, and the code's diff against its commit."""
    name = run_id(pipeline.name, source, stem, parameters)
    manifest = paths.run_folder(name) / "listing.jsonl" if pipeline.lists else source
    outputs = stem or source
    if pipeline.source == "directory":
        outputs = stem or _default_stem(source, name)
        _verify_writable(outputs)
    version, diff = provenance.code()
    plan = Plan(
        FORMAT,
        name,
        pipeline.name,
        str(source),
        str(manifest),
        str(outputs),
        dict(parameters),
        provenance.environment(pipeline.environment_for(parameters)),
        version,
        provenance.host(),
        clock.iso(),
        provenance.command(),
    )
    return plan, diff
