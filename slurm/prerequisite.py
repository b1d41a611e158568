"""What a pipeline needs the results of, done before it: the codebook that `encode` needs, say."""

from __future__ import annotations

import argparse
from typing import Sequence

from pipelines.core import registry
from slurm import flags, launch, resources

SHARED = ("cluster", "profile", "partition", "account", "qos", "constraint")
"""Launch flags that hold for what has to be done first, too."""


def first(needed: Sequence[str], options: argparse.Namespace) -> int:
    """Run the command that a pipeline needs the results of, wherever the pipeline itself is to run, to its end."""
    given = [f"--{name}={getattr(options, name)}" for name in SHARED if getattr(options, name) is not None]
    how = [*given, "--dry-run"] if options.dry_run else [*given, "--wait"]
    launch.say(f"First: voxarray {' '.join(needed)}")
    description = resources.describe(registry.folders()[needed[0]])
    pipeline = registry.find(needed[0])
    return launch.main(pipeline, description, flags.pipeline_parser(pipeline, description).parse([*needed[1:], *how]))
