"""What is around the models of transcripts: `wer`, cutting by Silero, and what PocketSphinx hears of pieces.

    nice PYTHON_OF_ASR -m tests.benchmarks.asr_costs [--rounds 3] [--quick] [--parts wer cutting sphinx]

On one thread, processor time, alternatives in turns; each ratio is the median of the rounds' own. Prints tables in
Markdown. In the environment `asr` (its jiwer, whisper_normalizer, silero-vad and PocketSphinx).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable, NamedTuple, Sequence

import numpy as np

from pipelines.core.paths import repository
from tests import corpus
from tests.asr import prompts
from tests.benchmarks import asr_programs as programs


class Sizes(NamedTuple):
    """How much is measured. `timed`, `held`: rows of manifests; `long`: recordings; `orders`: joins of the prompts."""

    timed: int = 3000
    held: tuple[int, ...] = (20_000, 100_000)
    long: int = 1
    minutes: float = 10.0
    prompts: int = 41
    orders: int = 3


LONGEST_S = 40.0
"""The longest piece that is cut, as for a model that takes no more …"""
SPHINX_S = 30.0
"""… and for PocketSphinx."""


def in_turns(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Processor seconds of each way in each round; a round that does not count warms them up."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(-1, rounds):
        for name, way in ways.items():
            began = time.process_time()
            way()
            if number >= 0:
                took[name].append(time.process_time() - began)
    return took


def faster(took: dict[str, list[float]], name: str) -> str:
    """By how much the first way is faster than another: the median of the rounds, the least and the most."""
    first = next(iter(took.values()))
    ratios = [other / own for other, own in zip(took[name], first)]
    spread = f" ({min(ratios):.2f}–{max(ratios):.2f})" if took[name] is not first else ""
    return f"{statistics.median(ratios):.2f}{spread}"


# -- wer


def make_manifest(path: Path, count: int) -> Path:
    """Rows with the prompts' texts, a tenth of their words wrong."""
    die = np.random.default_rng(0)
    said = [text for text in prompts.transcripts().values() if sum(map(str.isalpha, text)) > 1]
    known = sorted({word for text in said for word in text.split()})
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            words = " ".join(said[at] for at in die.integers(len(said), size=3)).split()
            heard = list(words)
            for at in np.flatnonzero(die.random(len(words)) < 0.1)[::-1]:
                other = [known[die.integers(len(known))]]
                heard[at : at + 1] = ([], other, [heard[at], *other])[die.integers(3)]
            row = {"audio_filepath": f"/corpus/{number:07d}.wav", "duration": len(words) / 2.5}
            texts = {"text_reference": " ".join(words), "text": " ".join(heard)}
            file.write(json.dumps({**row, **texts}) + "\n")
    return path


def held(name: str, manifest: Path) -> float:
    """The most memory (MB) of a program in a process of its own."""
    argv = [sys.executable, "-m", "tests.benchmarks.asr_programs", name, str(manifest)]
    done = subprocess.run(argv, cwd=repository(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout)


def wer(folder: Path, sizes: Sizes, rounds: int) -> None:
    """Rows a second and memory. Raises RuntimeError where the programs count differently."""
    names = {
        "ours": "**`wer` (voxarray)**",
        "row_by_row": "a plain loop over jiwer and whisper_normalizer",
        "lists": "the same, all rows in one call of jiwer",
    }
    manifest = make_manifest(folder / "timed.json", sizes.timed)
    counts = {name: programs.COUNTING[name](manifest) for name in names}
    if len(set(counts.values())) > 1:
        raise RuntimeError(f"errors are counted differently: {counts}")
    ways = {name: partial(programs.COUNTING[name], manifest) for name in names}
    took = in_turns(ways, rounds)
    large = [make_manifest(folder / f"{count}.json", count) for count in sizes.held]
    print(f"\n### wer: {sizes.timed:,} rows, one process, {rounds} rounds\n")
    heads = [f"MB at {count:,} rows" for count in sizes.held]
    print("| program | rows a CPU second | ours is faster by |", " | ".join(heads), "|")
    print("|---|---:|---:|" + "---:|" * len(heads))
    for name, title in names.items():
        # a plain loop holds a row
        memory = " | ".join("" if name == "row_by_row" else f"{held(name, path):.0f}" for path in large)
        speed = sizes.timed / statistics.median(took[name])
        print(f"| {title} | {speed:,.0f} | {faster(took, name)} | {memory} |", flush=True)


# -- cutting


def joined(chosen: Sequence[np.ndarray], die: np.random.Generator) -> np.ndarray:
    """Recordings one after the other, with pauses of half a second to two seconds."""
    parts = []
    for each in chosen:
        parts += [each, np.zeros(int(corpus.RATE * die.uniform(0.5, 2.0)), np.int16)]
    return np.concatenate(parts)


def make_long(folder: Path, count: int, minutes: float) -> list[Path]:
    """Recordings of so many minutes: prompts in random order, with pauses."""
    die = np.random.default_rng(2)
    pool = [corpus.read_wave(prompt.path) for prompt in prompts.prompts(1.0, 20.0)]
    most = int(60 * minutes * corpus.RATE)
    files = []
    for number in range(count):
        samples = joined([pool[at] for at in die.permutation(len(pool))], die)
        files.append(corpus.write_wave(folder / f"long-{number}.wav", np.resize(samples, most)))
    return files


def cutting(folder: Path, sizes: Sizes, rounds: int) -> None:
    """Long recordings from their files to their pieces."""
    files = make_long(folder, sizes.long, sizes.minutes)
    cutters = {
        "**cutting by Silero (voxarray)**": programs.cut_ours(LONGEST_S),
        "silero-vad's `get_speech_timestamps_sequence`": programs.cut_silero("sequence", LONGEST_S),
        "silero-vad's `get_speech_timestamps`, ONNX": programs.cut_silero("onnx", LONGEST_S),
        "silero-vad's `get_speech_timestamps`, TorchScript": programs.cut_silero("jit", LONGEST_S),
    }
    pieces: dict[str, int] = {}

    def all_files(name: str) -> None:
        pieces[name] = sum(len(cutters[name](path)) for path in files)

    took = in_turns({name: partial(all_files, name) for name in cutters}, rounds)
    seconds = 60 * sizes.minutes * len(files)
    print(f"\n### Cutting: {len(files)} recordings of {sizes.minutes:g} minutes, {rounds} rounds\n")
    print("| program | × real time | ours is faster by | pieces |\n|---|---:|---:|---:|")
    for name, each in took.items():
        speed = seconds / statistics.median(each)
        print(f"| {name} | {speed:,.0f} | {faster(took, name)} | {pieces[name]} |", flush=True)


# -- PocketSphinx


def recognised(backend: Any, pieces: Sequence[np.ndarray]) -> list[str]:
    """What PocketSphinx hears of pieces, one after the other."""
    found = backend.transcribe(pieces)
    for each in found:
        if isinstance(each, Exception):
            raise each
    return [each.text for each in found]


def sphinx(folder: Path, sizes: Sizes) -> None:
    """Word error rates of the same prompts, in several orders: alone, joined and cut at pauses, or cut blindly.

    Each order's texts are judged as one, whatever the pieces were.
    """
    from pipelines.asr import backends
    from pipelines.asr.scoring import compared, normaliser
    from pipelines.core.pipeline import Resources

    normal, cut = normaliser("en"), programs.cut_ours(SPHINX_S)
    some = prompts.prompts(2.0, 10.0)
    chosen = [some[number * len(some) // sizes.prompts] for number in range(sizes.prompts)]
    waves = [corpus.read_wave(prompt.path) for prompt in chosen]
    backend = backends.load("pocketsphinx", "pocketsphinx", {}, Resources(cpus=1))
    alone = recognised(backend, [as_float(wave) for wave in waves])  # of any order: a piece is heard by itself
    print(f"\n### PocketSphinx: {len(chosen)} prompts, {sum(map(len, waves)) / corpus.RATE / 60:.1f} min\n")
    print(
        "| order | joined with pauses | WER, normalised: one by one | joined, cut again at pauses (voxarray) |", end=""
    )
    print(f" joined, cut every {SPHINX_S:.0f} s |\n|---|---:|---:|---:|---:|", flush=True)
    found = []
    for number in range(sizes.orders):
        die = np.random.default_rng(number)
        order = die.permutation(len(chosen))
        whole = joined([waves[at] for at in order], die)
        path = corpus.write_wave(folder / f"joined-{number}.wav", whole)
        pieces = cut(path)
        blind = np.split(as_float(whole), range(int(SPHINX_S * corpus.RATE), len(whole), int(SPHINX_S * corpus.RATE)))
        ways = [[alone[at] for at in order], recognised(backend, pieces), recognised(backend, blind)]
        truth = normal(" ".join(chosen[at].text for at in order))
        found.append([compared(truth, normal(" ".join(texts))).words.rate or 0.0 for texts in ways])
        shown = " | ".join(f"{rate:.1f} %" for rate in found[-1])
        print(f"| {number + 1} | {len(whole) / corpus.RATE / 60:.1f} min | {shown} |", flush=True)
    shown = " | ".join(f"{statistics.median(rates):.1f} %" for rates in zip(*found))
    print(f"| median | | {shown} |")
    backend.close()


def as_float(samples: np.ndarray) -> np.ndarray:
    return samples.astype(np.float32) / 32768


def main() -> None:
    parts = ("wer", "cutting", "sphinx")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round of a little: does it run?")
    parser.add_argument("--orders", type=int, default=3, help="in which PocketSphinx's prompts are joined")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    options = parser.parse_args()
    quick = Sizes(200, (1000, 2000), 1, 1.0, 6, 1)
    sizes, rounds = (quick, 1) if options.quick else (Sizes(orders=options.orders), options.rounds)
    with tempfile.TemporaryDirectory(prefix="voxarray-costs-") as name:
        folder = Path(name)
        if "wer" in options.parts:
            wer(folder, sizes, rounds)
        if "cutting" in options.parts:
            cutting(folder, sizes, rounds)
        if "sphinx" in options.parts:
            sphinx(folder, sizes)


if __name__ == "__main__":
    main()
