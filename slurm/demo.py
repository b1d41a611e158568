"""`./voxarray demo [DIR]`: a small corpus through the chain on this machine, and where to look then."""

from __future__ import annotations

import csv
import itertools
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Callable, Iterator, NamedTuple, Sequence

from pipelines.core import paths, store
from pipelines.core.errors import DONE, SOME_FAILED, EnvironmentNotFit, UsageError
from slurm import cli, environments, flags

_ENVIRONMENT = "demo"
_ROWS = 5


class Step(NamedTuple):
    """One command of the chain, and what to show of what came out."""

    title: str
    command: list[str]
    show: Callable[[], None]


def main(arguments: Sequence[str]) -> int:
    """Run the demo; returns the exit status of the first step that did not do all, else that of the last."""
    parser = flags.Parser(
        prog="voxarray demo",
        description="Make a small corpus (nothing is downloaded), or take yours, and run the chain on it on this "
        "machine: voice activity, transcripts, discrete units, resynthesis, a language model.",
    )
    parser.add_argument("directory", metavar="DIR", nargs="?", help="your recordings (default: a synthetic corpus)")
    options = parser.parse(arguments)
    if options.directory is not None and not Path(options.directory).expanduser().is_dir():
        raise UsageError(f"{options.directory} is not a directory. Name one that holds recordings, or none at all.")
    home = paths.home() / "output" / "demo"
    corpus = Path(options.directory).expanduser().absolute() if options.directory else make_corpus(home / "corpus")
    stem = home / (corpus.name if options.directory else "demo")
    worst = DONE
    for number, step in enumerate(chain(corpus, stem), 1):
        print(f"\n{number}. {step.title}\n\n$ ./voxarray {shlex.join(step.command)}\n", flush=True)
        status = cli.main([*step.command, "--cluster", "local"])
        if status not in (DONE, SOME_FAILED) or not Path(f"{stem}.json").exists():
            return status
        worst = max(worst, status)
        step.show()
    print(_next(stem))
    return worst


def chain(corpus: Path, stem: Path) -> Iterator[Step]:
    """The steps of the demo over a corpus, each made when it is its turn; outputs begin with `stem`."""
    manifest = f"{stem}.json"
    units = ["--units", "logmel-kmeans-100", "--root", str(corpus)]
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", stem.name).strip("._-") or "demo"
    yield Step("Voice activity: who speaks when", ["vad", str(corpus), str(stem)], lambda: show(stem))
    yield Step(
        "Transcripts: PocketSphinx needs no download, and is for trying things out; name a model for work",
        ["asr", manifest, "--model", "pocketsphinx"],
        lambda: show_texts(corpus, stem),
    )
    yield Step(
        "Discrete units: speech as a text of a hundred letters (log-mel k-means: needs no download, and is the "
        "baseline that HuBERT's units beat)",
        ["encode", manifest, name, *units],
        lambda: show_units(name),
    )
    yield Step(
        "Resynthesis: the units said again (Griffin-Lim: the words are there, the voice is a robot's)",
        ["sts", manifest, f"{name}-resynthesised", *units],
        lambda: show_speech(f"{name}-resynthesised", stem),
    )
    yield Step(
        "A language model of the units, as small as the corpus: it learns what a minute or two can teach",
        ["lm", manifest, "--raw", *_SMALL_MODEL],
        lambda: show_model(latest_model(stem)),
    )
    model = latest_model(stem)
    sampled = f"{name}-sampled"
    yield Step(
        "Units that nobody said, drawn from it",
        ["sample", str(model), sampled, "--items", "3", "--max-units", "300"],
        lambda: show_units(sampled),
    )
    yield Step(
        "And what they sound like: babble, in the corpus's voices",
        ["sts", str(paths.metadata() / f"{sampled}.json"), sampled, "--from", "units"],
        lambda: print(f"\nTo listen to: {paths.home() / 'output' / sampled}"),
    )


_SMALL_MODEL = (
    *("--embedding-dim", "64", "--hidden-size", "128", "--num-layers", "1", "--learning-rate", "0.005"),
    *("--num-epochs", "20", "--batch-size", "4", "--warmup-steps", "20"),
)


def show_texts(corpus: Path, stem: Path) -> None:
    """The first transcripts, and the word error rate where the truth is known."""
    with Path(f"{stem}.json").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    print()
    for row in rows[:3]:
        print(f"  {Path(row['audio_filepath']).name[:32]:32} {row.get('text', '')[:70]}")
    truth = corpus / "transcripts.json"
    if not truth.exists():
        return
    with truth.open(encoding="utf-8") as file:
        said = {str(corpus / row["audio_filepath"]): row["text"] for row in map(json.loads, file)}
    scored = stem.with_name(f"{stem.name}_scored.json")
    known = [{**row, "text_reference": said[row["audio_filepath"]]} for row in rows if row["audio_filepath"] in said]
    store.replace(scored, "".join(f"{json.dumps(row)}\n" for row in known).encode())
    print(f"\n$ ./voxarray wer {scored}\n", flush=True)
    cli.main(["wer", str(scored), "--worst", "2"])


def latest_model(stem: Path) -> Path:
    """The folder of the language models that were trained last."""
    found = (paths.home() / "output" / "checkpoints").glob(f"{stem.name}-*")
    return max(found, key=lambda path: path.stat().st_mtime)


def show_model(folder: Path) -> None:
    """How well the best model predicts units that it was not trained on."""
    with (folder / "leaderboard.json").open(encoding="utf-8") as file:
        best = json.loads(file.readline())
    print(
        f"\n{best['name']}: {best['bits_per_unit']:.2f} bits a unit in validation (a hundred letters by chance: 6.64)"
    )


def show_units(name: str) -> None:
    """What the packed units are, and the first few."""
    folder = paths.home() / "output" / name
    text = folder / "units.txt"
    print()
    cli.main(["units", str(folder)])
    cli.main(["units", str(folder), "--text", "gslm", "--output", str(text)])
    print(f"\nAs text, {text} begins:\n")
    with text.open(encoding="utf-8") as file:
        for line in itertools.islice(file, 3):
            path, _, units = line.partition("|")
            print(f"  {Path(path).name[:32]:32} {units.strip()[:70]} …")


def show_speech(name: str, stem: Path) -> None:
    """Pairs to listen to."""
    manifest = paths.home() / "output" / name / f"{stem.name}.json"
    with manifest.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in itertools.islice(file, 3)]
    print("\nTo compare by ear, original and resynthesis:\n")
    for row in rows:
        print(f"  {row['source_audio_filepath']}\n  {row['audio_filepath']}\n")


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
  ./voxarray demo YOUR_RECORDINGS                   the same with yours
  ./voxarray vad YOUR_RECORDINGS --tasks 16         on Slurm, where there is one; --dry-run shows the plan
  sbatch --array=0-15 slurm/vad.slurm DIR STEM      the same without the launcher
  ./voxarray import-checkpoint --help               HuBERT units and neural vocoders for encode and sts"""
