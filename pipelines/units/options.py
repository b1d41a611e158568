"""The options that say which units: shared by `encode` and `sts`. Imports nothing heavy."""

from __future__ import annotations

import argparse
import hashlib
import re
from pathlib import Path
from typing import Any, Optional, Sequence

from pipelines.core import paths
from pipelines.core.errors import UsageError
from pipelines.core.plan import stem_of
from pipelines.units import models

LOGMEL_HOP = 320
DEFAULT_UNITS = "logmel-kmeans-100"
BACKENDS = ("native", "textless")
PRECISIONS = ("fp32", "tf32", "bf16")
CHUNKINGS = ("overlapping", "textless")
CHUNK_S = 100.0
"""Longest piece that goes through the encoder at once; textlesslib's is the same."""
_EMBEDDED = re.compile(r"logmel-kmeans-(\d+)")
_MOST_CLUSTERS = 65536


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("units")
    group.add_argument(
        "--units",
        metavar="NAME",
        help="which units: logmel-kmeans-K (needs no download: k-means on log-mel features of this manifest), a "
        "published codebook (mhubert-base-vp_mls_cv_8lang-kmeans-expresso-2000, …; sts needs one with a voice), one "
        f"that was fitted or imported, or its folder (default: {DEFAULT_UNITS})",
    )
    group.add_argument("--dense-model", "--dense_model", metavar="NAME", help=argparse.SUPPRESS)
    group.add_argument("--quantizer", metavar="NAME", help=argparse.SUPPRESS)
    group.add_argument("--vocab-size", "--vocab_size", type=int, metavar="K", help=argparse.SUPPRESS)
    group.add_argument(
        "--backend",
        choices=BACKENDS,
        default=BACKENDS[0],
        help="native; or textless: fairseq as textlesslib calls it, file by file, in its own environment (default: "
        "native)",
    )
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=PRECISIONS[0],
        help="of the encoder's and vocoder's products; tf32 and bf16 are faster on a GPU, and bf16 changes about 2 %% "
        "of HuBERT's units (default: fp32)",
    )
    group.add_argument(
        "--chunking",
        choices=CHUNKINGS,
        default=CHUNKINGS[0],
        help=f"how recordings over {CHUNK_S:g} s are cut for the encoder: pieces that overlap, or end to end as "
        "textlesslib does, which loses a frame at each cut (default: overlapping)",
    )


def embedded_clusters(name: str) -> Optional[int]:
    """K of `logmel-kmeans-K`; None for other names. Raises UsageError for a K that cannot be."""
    found = _EMBEDDED.fullmatch(name)
    if found is None:
        return None
    clusters = int(found[1])
    if not 2 <= clusters <= _MOST_CLUSTERS:
        raise UsageError(
            f"{name} asks for {clusters:,} units; there may be 2 to {_MOST_CLUSTERS:,}. 50 to 500 are usual."
        )
    return clusters


def asked(options: argparse.Namespace) -> str:
    """The name that `--units` gives, or textlesslib's three (--dense-model, --quantizer, --vocab-size) together."""
    parts = (options.dense_model, options.quantizer, options.vocab_size)
    if not any(part is not None for part in parts):
        return str(options.units or DEFAULT_UNITS)
    if options.units is not None:
        raise UsageError("Give --units, or --dense-model with --quantizer and --vocab-size, not both.")
    if options.dense_model is None or options.vocab_size is None:
        raise UsageError(
            "--dense-model, --quantizer and --vocab-size belong together (as in `--dense-model "
            "mhubert-base-vp_mls_cv_8lang --quantizer kmeans-expresso --vocab-size 2000`); or give --units NAME."
        )
    return f"{options.dense_model}-{options.quantizer or 'kmeans'}-{options.vocab_size}"


def codebook_name(name: str, manifest: Path) -> str:
    """The codebook that a name means for a manifest: the embedded ones are fitted for each manifest anew."""
    if embedded_clusters(name) is None:
        return name
    digest = hashlib.sha256(str(manifest).encode("utf-8", "surrogateescape")).hexdigest()[:6]
    return f"{name}.{stem_of(manifest)}-{digest}"


def needs(options: argparse.Namespace) -> Optional[Sequence[str]]:
    """The command that fits the codebook which these options name, where it is an embedded one that is not there."""
    name, manifest = asked(options), paths.absolute(options.source)
    clusters = embedded_clusters(name)
    codebook = codebook_name(name, manifest)
    if clusters is None or models.exists(codebook):
        return None
    return ["kmeans", str(manifest), codebook, "--features", "logmel", "--clusters", str(clusters)]


def foresee(options: argparse.Namespace) -> None:
    """Raise UsageError where the units are of a model that is not there; embedded ones are fitted when it is time."""
    name = asked(options)
    if embedded_clusters(name) is None:
        models.resolve_units(name)


def parameters(options: argparse.Namespace) -> dict[str, Any]:
    """The units' parameters of a run, models by name and digest. Raises UsageError where a model is missing."""
    name, manifest = asked(options), paths.absolute(options.source)
    return {
        **of_units(codebook_name(name, manifest), needs(options)),
        "backend": options.backend,
        "precision": options.precision,
        "chunking": options.chunking,
        "chunk_s": CHUNK_S,
    }


def of_units(name: str, command: Optional[Sequence[str]] = None) -> dict[str, Any]:
    """What `--units` comes to. `command` would fit the codebook."""
    if command is not None:
        raise UsageError(
            f"The codebook {name} is not fitted yet. `./voxarray {' '.join(command)}` fits it (or `sbatch "
            f"--array=0-3 slurm/kmeans.slurm {' '.join(command[1:])}`); the launcher, `./voxarray encode`, does so by "
            "itself."
        )
    units = models.resolve_units(name)
    return {
        "units": name,
        "codebook": str(units.codebook.folder),
        "codebook_digest": units.codebook.digest,
        "vocabulary_size": units.codebook.config["clusters"],
        "dense_model": str(units.dense.folder) if units.dense is not None else None,
        "dense_digest": units.dense.digest if units.dense is not None else None,
        "layer": units.layer,
        "rate": 16000 / (units.dense.config["hop"] if units.dense is not None else LOGMEL_HOP),
    }
