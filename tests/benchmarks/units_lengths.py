"""HuBERT on a CPU by length of file: native, fairseq and transformers, to the features of layers 6 and 12.

    nice python -m tests.benchmarks.units_lengths [--rounds 3] [--seconds 2 5 10 30] [--quick]

In the environment `test` (with transformers); native runs in `units`, fairseq in `sts`. One thread each, in
turns, file by file; processor time, medians of the rounds, ratios medians of the rounds' ratios. The models have
random weights and the size of HuBERT base. Then how near native comes to what a matrix product reaches on that core.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
from pathlib import Path

from slurm import environments
from tests.benchmarks import units_costs as costs
from tests.benchmarks import units_rest_programs as others
from tests.benchmarks.units_programs import Program, turns
from tests.benchmarks.units_speed import make_hubert
from tests.benchmarks.vad_speed import make_files

LAYERS = (12, 6)
NAMES = ("fairseq", "transformers", "native")
AT_LEAST_S = 6.0
"""Of audio in a turn: files shorter than this go several at a time."""
PRODUCTS = 10

Took = dict[str, list[float]]
"""Processor seconds of an audio second, by program, in each round."""


def programs(folder: Path, checkpoint: Path) -> dict[str, Program]:
    """A program for each implementation and layer, and the matrix product."""
    pythons = {
        "fairseq": environments.python("sts"),
        "transformers": Path(sys.executable),
        "native": environments.python("units"),
    }
    running = {}
    for layer in LAYERS:
        path = folder / f"layer{layer}.json"
        path.write_text(json.dumps({"checkpoint": str(checkpoint), "layer": layer, "products": PRODUCTS}))
        for name, python in pythons.items():
            running[f"{name}, layer {layer}"] = others.start(python, f"{name}_features", path)
    running["product"] = others.start(pythons["native"], "matrix_product", path)
    return running


def measured(running: dict[str, Program], folder: Path, seconds: float, rounds: int) -> Took:
    """The rounds with files of one length."""
    count = max(1, round(AT_LEAST_S / seconds))
    files = [str(path) for path in make_files(folder / f"{seconds:g}", count, seconds)]
    return {name: [each / (count * seconds) for each in took] for name, took in turns(running, files, rounds).items()}


def rows(took: Took, seconds: float) -> None:
    """A row for each layer."""
    for layer in LAYERS:
        fairseq, transformers, native = (took[f"{name}, layer {layer}"] for name in NAMES)
        cells = [f"{1000 * statistics.median(each):.0f}" for each in (fairseq, transformers, native)]
        cells += [f"{statistics.median(a / b for a, b in zip(each, native)):.2f}" for each in (fairseq, transformers)]
        print(f"| {seconds:g} s | {layer} | {' | '.join(cells)} |", flush=True)


def near(found: dict[float, Took]) -> None:
    """Operations a second of native, and of a matrix product beside it."""
    from pipelines.units import models

    config = models.describe("base", "hubert").config
    print("\n### Operations: native, layer 12, and a matrix product (1500 × 768 × 3072) in the same rounds\n")
    print("| files | native, GFLOP/s | product, GFLOP/s | native ÷ product |\n|---|---|---|---|")
    for seconds, took in found.items():
        audio = seconds * max(1, round(AT_LEAST_S / seconds))
        each = costs.operations(config, 12, seconds) / seconds
        pairs = zip(took["native, layer 12"], took["product"])
        speeds = [(each / ours, PRODUCTS * 2 * 1500 * 768 * 3072 / (theirs * audio)) for ours, theirs in pairs]
        ours, theirs = (statistics.median(values) for values in zip(*speeds))
        share = statistics.median(a / b for a, b in speeds)
        print(f"| {seconds:g} s | {ours / 1e9:.0f} | {theirs / 1e9:.0f} | {share:.2f} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, nargs="+", default=[2.0, 5.0, 10.0, 30.0])
    parser.add_argument("--quick", action="store_true", help="one round with the shortest files: does it run?")
    options = parser.parse_args()
    lengths = options.seconds[:1] if options.quick else options.seconds
    rounds = 1 if options.quick else options.rounds
    print(f"Machine: {costs.processor()}; Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="voxarray-lengths-") as name:
        folder = Path(name)
        checkpoint = make_hubert(folder)
        running = programs(folder, checkpoint)
        print("torch: " + ", ".join(f"{name} {program.versions['torch']}" for name, program in running.items()))
        measured(running, folder, lengths[0], 1)  # the first of all is slower, and does not count
        print(f"\n### Features of HuBERT base: processor ms an audio second, one thread, {rounds} rounds\n")
        print("| files | layer | fairseq | transformers | native | fairseq ÷ native | transformers ÷ native |")
        print("|---|---|---|---|---|---|---|")
        found = {}
        for seconds in lengths:
            found[seconds] = measured(running, folder, seconds, rounds)
            rows(found[seconds], seconds)
        near(found)
        for program in running.values():
            program.close()


if __name__ == "__main__":
    main()
