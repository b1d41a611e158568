"""`./voxarray demo [DIR]`: a small corpus through the chain on this machine, and where to look then."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import subprocess
from pathlib import Path
from typing import Sequence

from pipelines.core import paths, store
from pipelines.core.errors import EnvironmentNotFit, UsageError
from slurm import cli, environments, flags

_ENVIRONMENT = "vad"
_ROWS = 5
_VOICES = {
    "espeak-ng": "three voices of espeak-ng, a speech synthesiser, reading a fable in four languages",
    "babble": "three synthetic voices that babble: no words, but a voice's pitch and formants (espeak-ng is not here)",
}


def main(arguments: Sequence[str]) -> int:
    """Run the demo; returns the exit status of the run."""
    parser = flags.Parser(
        prog="voxarray demo",
        description="Make a small corpus (nothing is downloaded), or take yours, and run `vad` on it on this machine.",
    )
    parser.add_argument("directory", metavar="DIR", nargs="?", help="your recordings (default: a synthetic corpus)")
    options = parser.parse(arguments)
    if options.directory is not None and not Path(options.directory).expanduser().is_dir():
        raise UsageError(f"{options.directory} is not a directory. Name one that holds recordings, or none at all.")
    home = paths.home() / "output" / "demo"
    corpus = Path(options.directory).expanduser().absolute() if options.directory else make_corpus(home / "corpus")
    stem = home / (corpus.name if options.directory else "demo")
    command = ["vad", str(corpus), str(stem), "--cluster", "local"]
    print(f"\n$ ./voxarray {' '.join(command)}\n", flush=True)
    status = cli.main(command)
    if Path(f"{stem}.csv").exists():
        show(stem)
        print(_next(stem))
    return status


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
        (private / note.name).write_text(f"Synthetic: {_VOICES[made.stdout.strip()]}.\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        private.rename(folder)
    print(f"The corpus, {folder}, is made, not recorded. {note.read_text(encoding='utf-8').strip()}")
    return folder


def show(stem: Path) -> None:
    """The first rows of what came out."""
    with Path(f"{stem}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(itertools.islice(csv.DictReader(file), _ROWS))
    print(f"\n{stem}.csv begins:\n")
    print(f"  {'recording':32} {'seconds':>8} {'speech':>7} {'longest':>8}")
    for row in rows:
        ratio = f"{float(row['spch-ratio']):.0%}" if row["spch-ratio"] else row["error"][:20]
        longest = f"{float(row['max-spoken']):.2f} s" if row["max-spoken"] else ""
        print(f"  {Path(row['audio_filepath']).name[:32]:32} {row['duration']:>8.8} {ratio:>7} {longest:>8}")
    with Path(f"{stem}_segments.json").open(encoding="utf-8") as file:
        segments = [json.loads(line) for line in itertools.islice(file, _ROWS)]
    print(f"\n{stem}_segments.json begins:\n")
    for segment in segments:
        end = segment["offset"] + segment["duration"]
        print(f"  {Path(segment['audio_filepath']).name[:32]:32} speech from {segment['offset']:.2f} s to {end:.2f} s")


def _next(stem: Path) -> str:
    return f"""
The results: {stem}.csv (statistics), {stem}.json (manifest), {stem}_segments.json (speech).
To try next:
  ./voxarray status last                            how the run stands; the same command again does nothing twice
  ./voxarray report last                            one HTML page with plots
  ./voxarray vad YOUR_RECORDINGS                    yours; --engine silero is the other engine
  ./voxarray vad YOUR_RECORDINGS --tasks 16         on Slurm, where there is one; --dry-run shows the plan
  sbatch --array=0-15 slurm/vad.slurm DIR STEM      the same without the launcher"""
