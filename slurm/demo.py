"""`./voxarray demo [DIR]`: a small corpus through a whole chain on this machine, and where to look then."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Sequence

from pipelines.core import logs, paths, store
from pipelines.core.errors import DONE, SOME_FAILED, EnvironmentNotFit, UsageError
from slurm import environments, flags

if TYPE_CHECKING:
    from slurm.chain.state import Standing

_ENVIRONMENT = "demo"
_CHANCE = 6.64
"""Bits a unit of someone who guesses among a hundred."""


def main(arguments: Sequence[str]) -> int:
    """Run the demo; returns the exit status of its chain."""
    parser = flags.Parser(
        prog="voxarray demo",
        description="Make a small corpus (nothing is downloaded), or take yours, and run a whole chain on it on this "
        "machine: voice activity, transcripts, discrete units, resynthesis, a language model that speaks.",
    )
    parser.add_argument("directory", metavar="DIR", nargs="?", help="your recordings (default: a synthetic corpus)")
    options = parser.parse(arguments)
    if options.directory is not None and not Path(options.directory).expanduser().is_dir():
        raise UsageError(f"{options.directory} is not a directory. Name one that holds recordings, or none at all.")
    logs.to_stream(sys.stderr, plain=True)
    home = paths.home() / "output" / "demo"
    if options.directory:
        corpus = Path(options.directory).expanduser().absolute()
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", corpus.name).strip("._-") or "demo"
        return _run({"recordings": str(corpus), "dataset": name})
    corpus = make_corpus(home / "corpus")
    return _run({"recordings": str(corpus), "manifest": str(truth(corpus, home / "demo_truth.json"))})


def _run(values: dict[str, str]) -> int:
    """The chain, its report, and what is worth knowing."""
    from slurm import chain, report
    from slurm.chain import state

    print(f"$ ./voxarray run demo {' '.join(f'{name}={value}' for name, value in values.items())}\n", flush=True)
    whole = chain.run("demo", values, cluster="local")
    if whole.state != state.DONE:
        return SOME_FAILED
    page = report.write_chain(whole.id, state.folder(whole.id) / "report.html")
    print(_told(whole.links, page))
    return DONE


def _told(links: dict[str, Standing], page: Path) -> str:
    speech = links["speech"].results["folder"]
    lines = [
        f"\nThe report, with items to listen to: {page}",
        *_rates(links["transcripts"].run),
        *_bits(links["lm"].results.get("leaderboard")),
        f"To compare by ear: the recordings and {speech} (Griffin-Lim: the words are there, the voice is a robot's)",
        f"Units that nobody said, spoken: {links['babble'].results['folder']}",
        _NEXT,
    ]
    return "\n".join(lines)


_NEXT = """
To try next:
  ./voxarray demo                                   the same again: nothing is done twice
  ./voxarray demo YOUR_RECORDINGS                   the same with yours
  ./voxarray run --list                             recipes; on a cluster, steps are jobs that wait for each other
  ./voxarray vad YOUR_RECORDINGS --tasks 16         one step alone, on Slurm where there is one; see --dry-run
  ./voxarray import-checkpoint --help               HuBERT units and neural vocoders for encode and sts"""


def _rates(run: Optional[str]) -> list[str]:
    """The word error rate that the report counted, where the truth is known."""
    path = paths.run_folder(run or "") / "wer.json"
    try:
        words = json.loads(path.read_text(encoding="utf-8"))["whole"]["normalised"]["words"]
    except (OSError, ValueError, KeyError):
        return []
    wrong = words["substitutions"] + words["deletions"] + words["insertions"]
    said = words["hits"] + words["substitutions"] + words["deletions"]
    told = "PocketSphinx, which needs no download, on a synthetic voice; name a model for work"
    return [f"Word error rate: {100 * wrong / max(1, said):.1f} % of {said} words ({told})"]


def _bits(path: Optional[str]) -> list[str]:
    """How well the best model predicts units that it was not trained on."""
    try:
        with Path(path or "").open(encoding="utf-8") as file:
            best = json.loads(file.readline())
    except (OSError, ValueError):
        return []
    return [
        f"Language model: {best['bits_per_unit']:.2f} bits a unit in validation (a hundred units by chance: {_CHANCE})"
    ]


def truth(corpus: Path, path: Path) -> Path:
    """The manifest of the synthetic corpus with what is said in it; made once, as later steps extend it."""
    if not path.exists():
        with (corpus / "transcripts.json").open(encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        known = [
            {
                "audio_filepath": str(corpus / row["audio_filepath"]),
                "duration": row["duration"],
                "text_reference": row["text"],
            }
            for row in rows
        ]
        store.replace(path, "".join(f"{json.dumps(row)}\n" for row in known).encode())
    return path


def make_corpus(folder: Path) -> Path:
    """The synthetic corpus, made unless it is there already; honest about what it is."""
    note = folder / "ABOUT.txt"
    if not note.exists():
        environments.ensure(_ENVIRONMENT)
        private = folder.with_name(".corpus.tmp")
        shutil.rmtree(private, ignore_errors=True)
        with store.teaching(private):
            private.mkdir(parents=True)
        program = Path(__file__).with_name("voice.py")
        python = environments.python(_ENVIRONMENT)
        made = subprocess.run([python, program, private], capture_output=True, text=True, check=False)
        if made.returncode != 0:
            raise EnvironmentNotFit(
                f"The demo's corpus could not be made: {made.stderr.strip().splitlines()[-1:]}. "
                f"`./voxarray env check {_ENVIRONMENT}` looks at the environment; `./voxarray demo DIR` takes your "
                "own recordings."
            )
        (private / note.name).write_text(
            "Synthetic: three voices of espeak-ng, a speech synthesiser, read a fable.\n", encoding="utf-8"
        )
        shutil.rmtree(folder, ignore_errors=True)
        private.rename(folder)
    print(f"The corpus, {folder}, is made, not recorded. {note.read_text(encoding='utf-8').strip()}")
    return folder
