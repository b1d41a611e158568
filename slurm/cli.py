"""`./voxarray`: finds the command that is meant, and nothing else, so that `--help` is instant."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from pathlib import Path
from typing import NamedTuple, Sequence

from pipelines.core.errors import DONE, SOME_FAILED, USAGE, VoxarrayError


class Command(NamedTuple):
    """One command that is not a pipeline: the module and function that do it, and its line in the help."""

    usage: str
    summary: str
    module: str
    function: str = "main"


COMMANDS = {
    "run": Command("RECIPE NAME=VALUE …", "a chain of pipelines (--list: the recipes)", "slurm.chain.command"),
    "merge": Command("RUN", "merge by hand: parts -> outputs, with the proof", "slurm.control", "run_merge"),
    "status": Command("[RUN…]", "how far it is: tasks, speed, time left, failures by cause", "slurm.status"),
    "retry": Command(
        "RUN", "launch what is missing (--quarantined: what was given up, too)", "slurm.control", "retry"
    ),
    "logs": Command("RUN", "the tasks' logs (--task N, --follow, --errors)", "slurm.tasklogs"),
    "cancel": Command("RUN", "end a run's jobs; what is published stays", "slurm.control", "cancel"),
    "report": Command("RUN", "one HTML page with plots", "slurm.report"),
    "account": Command("RUN…", "what it cost an hour of audio, what was wasted, what to ask for", "slurm.account"),
    "env": Command("[list|create|check] NAME…", "the pipelines' environments", "slurm.environments"),
    "units": Command("UNITS", "look at packed units, or export them as text", "pipelines.units.export"),
    "import-checkpoint": Command(
        "NAME | KIND FILE",
        "fairseq, transformers, k-means, CodeHiFiGAN -> a model",
        "slurm.tools",
        "import_checkpoint",
    ),
    "wer": Command("MANIFEST", "word error rates: overall, by column, the worst", "slurm.tools", "wer"),
    "pairs": Command("MANIFEST", "pairs that a language model gets right (sWUGGY, sBLIMP)", "pipelines.score.pairs"),
    "parity": Command("encode MANIFEST", "compare both backends on your files", "slurm.tools", "parity"),
    "doctor": Command("", "is this machine, this cluster, this file system fit? what to do if not", "slurm.doctor"),
    "demo": Command("[DIR]", "a small corpus through the chain, on this machine", "slurm.demo"),
    "test": Command("[PYTEST OPTIONS]", "set up, then run the tests", "slurm.testing"),
}

_EPILOG = """\
RUN is a run's id (or its beginning), the stem of its outputs, its manifest, or `last`; where all steps of a chain are
meant, the chain's id. `COMMAND --help` tells more.
Every pipeline takes the same launch flags; without any, it runs on Slurm where there is one, else on this machine.
Exit status: 0 all done; 1 some items failed or are missing; 2 usage; 3 environment or cluster not fit."""


def main(arguments: Sequence[str]) -> int:
    """Run one command line (without the program's name); returns the exit status."""
    try:
        return _dispatch(list(arguments))
    except VoxarrayError as error:
        print(f"voxarray: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("voxarray: stopped.", file=sys.stderr)
        return SOME_FAILED
    except BrokenPipeError:  # `voxarray … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SOME_FAILED
    except OSError as error:
        print(f"voxarray: {error.filename or 'the system'}: {error.strerror or error}.", file=sys.stderr)
        return SOME_FAILED


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        return DONE if arguments else USAGE
    name, rest = arguments[0], arguments[1:]
    if name in ("-V", "--version"):
        from pipelines.core.provenance import VERSION

        print(f"voxarray {VERSION}")
        return DONE
    if name in COMMANDS:
        command = COMMANDS[name]
        return int(getattr(importlib.import_module(command.module), command.function)(rest))
    folder = _pipelines().get(name)
    if folder is None:
        return _unknown(name)
    return _pipeline(name, folder, rest)


def _pipelines() -> dict[str, Path]:
    from pipelines.core import registry

    return registry.folders()


def _pipeline(name: str, folder: Path, arguments: list[str]) -> int:
    """A pipeline's command. What launches it is imported once its command line is known to be right."""
    from pipelines.core import registry
    from slurm import flags, resources

    description, pipeline = resources.describe(folder), registry.find(name)
    options = flags.pipeline_parser(pipeline, description).parse(arguments)
    _prepare_logging()
    from slurm import launch

    return launch.main(pipeline, description, options)


def _unknown(name: str) -> int:
    known = [*_pipelines(), *COMMANDS]
    near = difflib.get_close_matches(name, known, 1, 0.6)
    told = f"Did you mean {near[0]}? " if near else ""
    print(
        f"voxarray: there is no command or pipeline named {name!r}. {told}There are {', '.join(known)}. "
        "`voxarray --help` explains.",
        file=sys.stderr,
    )
    return USAGE


def _prepare_logging() -> None:
    """What the engine has to say goes to the terminal as it is."""
    from pipelines.core import logs

    logs.to_stream(sys.stderr, plain=True)


def help_text() -> str:
    """What `./voxarray --help` prints: the pipelines that are here, and the commands."""
    from slurm import resources

    descriptions = [resources.describe(folder) for folder in _pipelines().values()]
    rows = [(f"{each.name} {each.usage}", each.summary) for each in descriptions]
    others = [(f"{name} {command.usage}".rstrip(), command.summary) for name, command in COMMANDS.items()]
    lines = ["usage: voxarray COMMAND …", "", "pipelines:"]
    lines += [f"  {left:34} {right}" for left, right in rows]
    lines += ["", "commands:"]
    lines += [f"  {left:34} {right}" for left, right in others]
    return "\n".join([*lines, "  --version", "", _EPILOG])
