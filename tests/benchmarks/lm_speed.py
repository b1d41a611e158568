"""Training of language models: speed by treatment of length, and memory by size of the corpus.

    nice python -m tests.benchmarks.lm_speed [--rounds 5] [--batches 2] [--scale 1e6 1e7 1e8] [--memory 8]

Processor time on one thread, alternatives interleaved, medians of the rounds; prints tables in Markdown. A treatment
that needs more than the memory it may have (in GB) is left out, and told.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Sequence

import numpy as np

SKEWED, EVEN = "skewed", "even"
DESCRIBED = {SKEWED: "lognormal with sigma 1", EVEN: "gamma, shape 4"}
LONGEST, LONGEST_ATTENDED = 2000, 1000
"""Units in a sequence at most; fewer, and fewer sequences a batch, for transformers: attention on a padded batch of
32 × 2,000 takes 16 GB."""


def corpus(kind: str, longest: int = LONGEST, count: int = 6400) -> list[np.ndarray]:
    die = np.random.default_rng(0)
    drawn = die.lognormal(4.9, 1.0, count) if kind == SKEWED else die.gamma(4.0, 65.0, count)
    lengths = np.clip(drawn, 5, longest).astype(int)
    return [die.integers(0, 2000, length) for length in lengths]


def speeds(kind: str, programs: Sequence[type], rounds: int, batches: int, longest: int = LONGEST) -> None:
    """Tokens a processor second of each program on the same corpus."""
    sequences = corpus(kind, longest)
    lengths = np.array([len(each) for each in sequences])
    tried = [program(sequences) for program in programs]
    found: dict[str, list[float]] = {program.name: [] for program in tried}
    for turn in range(-1, rounds):  # the first round warms up, and does not count
        for program in list(tried):
            try:
                speed = speed_of(program, 1 if turn < 0 else batches, max(0, turn))
            except RuntimeError as error:
                print(f"\n{program.name} cannot be run here: {str(error).splitlines()[0]}")
                tried.remove(program)
                del found[program.name]
            else:
                found[program.name] += [speed] if turn >= 0 else []
            gc.collect()  # what a treatment that failed had taken
    if not tried:
        return
    print(
        f"\n{kind} lengths ({DESCRIBED[kind]}): mean {lengths.mean():.0f}, median {np.median(lengths):.0f}, ", end=""
    )
    print(f"longest {lengths.max()}; {rounds} rounds\n")
    print("| treatment | tokens a CPU second | × the first | least to most of the rounds |\n|---|---:|---:|---:|")
    first = found[tried[0].name]
    for name, values in found.items():
        ratios = [value / other for value, other in zip(values, first)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(
            f"| {name} | {statistics.median(values):,.0f} | {statistics.median(ratios):.2f} | {spread} |", flush=True
        )
    print(f"\nPeak memory so far: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GB.", flush=True)


def speed_of(program: Any, count: int, turn: int) -> float:
    """Tokens a processor second over some batches."""
    tokens, spent = 0, 0.0
    for batch in program.batches(count, turn):
        began = time.process_time()
        program.step(batch)
        spent += time.process_time() - began
        tokens += batch.tokens
    return tokens / spent


def packed_sequences() -> None:
    """PackedSequence is so slow on a CPU that it gets one small batch."""
    from tests.benchmarks import lm_programs

    program = lm_programs.Packed(corpus(EVEN))
    batch = lm_programs.batch_of(program.sequences[:8])
    program.step(lm_programs.batch_of(program.sequences[8:10]))
    began = time.process_time()
    program.step(batch)
    print(f"\nPackedSequence (8 sequences): {batch.tokens / (time.process_time() - began):,.0f} tokens a CPU second.")
    print(f"Nested tensors and nn.LSTM: {lm_programs.nested_lstm()}")


MEASURED = """
import json, resource, sys, time
from pathlib import Path
import numpy as np, torch
from pipelines.lm import batching, splitting
from pipelines.lm.data import Corpus, Source
from pipelines.lm.training import Trainer
def anonymous():
    text = Path("/proc/self/status").read_text()
    return {name: int(text.split(name + ":")[1].split()[0]) / 1024 for name in ("RssAnon", "RssFile")}
torch.set_num_threads(1)
folder = Path(sys.argv[1]); settings = json.loads(sys.argv[2])
start = anonymous()["RssAnon"]
began = time.process_time()
corpus = Corpus(Source(folder / "corpus.json", folder / "units", "speaker", 42, False))
parts = splitting.split(corpus, 0.98, 0.0)
opened = time.process_time() - began
began = time.process_time()
pieces = batching.pieces(corpus, parts.train, 2048)
order = batching.batches(pieces.lengths, 65536, 32, (1, 0))
ordered = time.process_time() - began
began, tokens = time.process_time(), 0
for number in range(0, order.total, max(1, order.total // 2000)):
    tokens += len(batching.collate(corpus, pieces, order.of(number)).targets)
collated = tokens / (time.process_time() - began)
trainer = Trainer(corpus, parts, settings, folder / "model", torch.device("cpu"), lambda: trainer.progress.step > 20)
try:
    trainer.run()
except Exception as error:
    pass
now = anonymous()
print(json.dumps({"items": len(corpus), "opened": opened, "ordered": ordered, "collated": collated,
    "anonymous": now["RssAnon"] - start, "mapped": now["RssFile"], "start": start,
    "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def scaling(sizes: Sequence[float]) -> None:
    """Time to open a corpus, to order an epoch, and memory, each in a process of its own."""
    from tests.benchmarks.lm_programs import SETTINGS

    training = {
        **SETTINGS,
        "hidden_size": 64,
        "embedding_dim": 32,
        "num_layers": 1,
        "batch_size": 32,
        "batch_tokens": 65536,
        "accumulate": 1,
        "learning_rate": 1e-3,
        "weight_decay": 0.01,
        "warmup_steps": 10,
        "clip": 1.0,
        "num_epochs": 1,
        "early_stopping": 0,
        "schedule": "cosine",
        "precision": "fp32",
        "seed": 1,
    }
    print(
        "\n| tokens | items | units on disk, MB | open, CPU s | order an epoch, CPU s | batches, M tokens a CPU s | ",
        end="",
    )
    print("memory of its own, MB | mapped, MB |\n|---:|---:|---:|---:|---:|---:|---:|---:|")
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write(folder, int(size))
            argv = [sys.executable, "-c", MEASURED, name, json.dumps(training)]
            done = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ})
            if done.returncode:
                raise SystemExit(done.stderr)
            found = json.loads(done.stdout)
            disk = sum(path.stat().st_size for path in (folder / "units").glob("units-*.npy")) / 1e6
        print(
            f"| {size:,.0f} | {found['items']:,} | {disk:,.0f} | {found['opened']:.1f} | {found['ordered']:.2f} | "
            f"{found['collated'] / 1e6:.1f} | {found['anonymous']:.0f} (+ {found['start']:.0f} for torch) | "
            f"{found['mapped']:.0f} |",
            flush=True,
        )


def write(folder: Path, tokens: int) -> None:
    """Packed units of random sequences, and their manifest."""
    from pipelines.units.packed import PackedWriter

    die = np.random.default_rng(0)
    writer = PackedWriter(folder / "units", deduplicated=False, ours={})
    number = 0
    with (folder / "corpus.json").open("wb") as manifest:
        while writer.units < tokens:
            units = die.integers(0, 2000, int(np.clip(die.lognormal(4.9, 1.0), 5, 2000))).astype(np.uint16)
            row = json.dumps(
                {
                    "audio_filepath": f"/corpus/speaker{number % 997}/{number:08d}.wav",
                    "duration": len(units) / 50,
                    "speaker": f"speaker{number % 997}",
                    "units_filepath": str(folder / "units"),
                    "units_row": number,
                }
            ).encode()
            writer.add(units.tobytes(), b"", len(units), row)
            manifest.write(row + b"\n")
            number += 1
    empty = dict.fromkeys(("run", "codebook", "codebook_digest"), "")
    writer.finish({"name": "made", "vocabulary_size": 2000, "rate": 50.0, "parameters": {}, **empty})
    writer.publish()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=2, help="of each treatment in a round")
    parser.add_argument("--memory", type=float, default=8.0, help="GB that a treatment may take (default: 8)")
    parser.add_argument("--scale", type=float, nargs="*", default=[1e6, 1e7, 1e8], help="tokens")
    parser.add_argument("--kinds", nargs="+", choices=("lstm", "transformer"), default=["lstm", "transformer"])
    options = parser.parse_args()
    if options.rounds:
        import torch

        from tests.benchmarks import lm_programs

        torch.set_num_threads(1)
        resource.setrlimit(resource.RLIMIT_DATA, (int(options.memory * 2**30), resource.RLIM_INFINITY))
        if "lstm" in options.kinds:
            speeds(SKEWED, lm_programs.LSTMS, options.rounds, options.batches)
            even = (lm_programs.Padded, lm_programs.Ours, lm_programs.OursTokens)
            speeds(EVEN, even, options.rounds, options.batches)
            packed_sequences()
        if "transformer" in options.kinds:
            print("\ntransformer:")
            speeds(SKEWED, lm_programs.TRANSFORMERS, options.rounds, options.batches, LONGEST_ATTENDED)
    if options.scale:
        scaling(options.scale)


if __name__ == "__main__":
    main()
