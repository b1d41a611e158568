"""The command line's parsers: teaching errors, and the launch flags that every pipeline command takes."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from typing import TYPE_CHECKING, Any, NoReturn, Optional, Sequence

if TYPE_CHECKING:
    from pipelines.core.pipeline import Pipeline
    from slurm.resources import Description

EXIT_STATUSES = (
    "Exit status: 0 all done; 1 some items failed or are missing; 2 usage; 3 environment or cluster not fit."
)
CLUSTERS = ("auto", "slurm", "local", "debug")


class Parser(argparse.ArgumentParser):
    """No abbreviations; a wrong flag is answered with the right one."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("epilog", EXIT_STATUSES)
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        """One paragraph, exit status 2."""
        flags = [name for name in self._option_string_actions if name.startswith("--")]
        told = [f"{self.prog}: {message}."]
        for wrong in re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", message if "unrecognized" in message else ""):
            near = difflib.get_close_matches(wrong, flags, 1, 0.6)
            told.append(f"Did you mean {near[0]}?" if near else f"{wrong} does not exist.")
        if "unrecognized" in message:
            told.append(f"Its flags are {', '.join(sorted(flags))}.")
        told.append(f"`{self.prog} --help` explains.")
        sys.stderr.write(" ".join(told) + "\n")
        sys.exit(2)

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Operands and flags in any order."""
        return self.parse_intermixed_args(list(arguments))


def pipeline_parser(pipeline: Pipeline, description: Description) -> Parser:
    """The command line of one pipeline."""
    parser = Parser(prog=f"voxarray {pipeline.name}", description=pipeline.summary)
    add_source(parser, pipeline)
    pipeline.add_arguments(parser)
    add_launch(parser, description)
    return parser


def add_source(parser: argparse.ArgumentParser, pipeline: Pipeline) -> None:
    """The operands of a pipeline's command."""
    if pipeline.source == "directory":
        parser.add_argument("source", metavar="DIR", help="directory of recordings, searched recursively")
        parser.add_argument(
            "stem",
            metavar="STEM",
            nargs="?",
            help="outputs are STEM.csv, STEM.json, … (default: metadata/<directory's name>_<date>)",
        )
    else:
        metavar, told = pipeline.operand
        parser.add_argument("source", metavar=metavar, help=told)
        parser.set_defaults(stem=None)


def add_launch(parser: argparse.ArgumentParser, description: Optional[Description], fresh: bool = True) -> None:
    """The launch flags: where and how a run is done. Results do not depend on them.

    Without a `description`, a run is launched again, with what its last launch asked for.
    """
    from slurm.resources import BUILT_IN

    as_before = dict.fromkeys(BUILT_IN, "as in the last launch")
    own = as_before if description is None else {**BUILT_IN, **description.resources}
    where = parser.add_argument_group("where it runs (results do not depend on these)")
    add_cluster(where)
    size = parser.add_argument_group("what a task gets")
    size.add_argument("--cpus", metavar="N", help=f"processor cores (default: {own['cpus']})")
    size.add_argument("--mem", metavar="SIZE", help=f"memory, like 8G (default: {own['mem']})")
    size.add_argument("--gpus", metavar="[TYPE:]N", help=f"GPUs (default: {own['gpus']})")
    size.add_argument("--time", metavar="TIME", help=f"time limit: minutes, H:MM:SS or D-HH (default: {own['time']})")
    cut = parser.add_argument_group("how the work is cut")
    cut.add_argument(
        "--tasks",
        metavar="N",
        help="tasks that share the items (default: as many as last time; at first 16 on Slurm, else what fits)",
    )
    cut.add_argument(
        "--max-parallel", metavar="N", help="at most so many tasks at a time (default: no limit of our own)"
    )
    cut.add_argument(
        "--shard",
        choices=("round-robin", "balanced"),
        default="round-robin",
        help="how items are dealt; balanced: by seconds of audio (default: round-robin)",
    )
    cut.add_argument("--limit", metavar="N", help="do at most so many of the missing items (default: all)")
    _add_doing(parser, fresh)


def add_cluster(group: argparse._ArgumentGroup) -> None:
    """The flags that say which cluster, and which part of it."""
    group.add_argument(
        "--cluster",
        choices=CLUSTERS,
        default="auto",
        help="slurm; local: this machine; debug: this machine, one task after the other in one process; "
        "auto: slurm where sbatch answers, else local (default: auto)",
    )
    group.add_argument("--profile", metavar="NAME", help="settings of a cluster, see slurm/profiles/README.md")
    for name in ("partition", "account", "qos", "constraint"):
        group.add_argument(
            f"--{name}", metavar="NAME", help=f"Slurm's --{name} (default: the profile's, else the cluster's)"
        )


def _add_doing(parser: argparse.ArgumentParser, fresh: bool) -> None:
    """The flags about the launch itself."""
    doing = parser.add_argument_group("the launch")
    doing.add_argument("--dry-run", action="store_true", help="print the exact plan and change nothing")
    doing.add_argument(
        "--wait",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="show progress until all is merged; without it the run goes on by itself (default: only on this machine)",
    )
    if fresh:
        doing.add_argument("--fresh", action="store_true", help="start anew: the earlier run's folder is moved aside")
