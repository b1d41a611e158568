"""What `sample` and `score` cost: units and tokens a processor second, and times the plain ways to the same.

    nice python -m tests.benchmarks.lm_costs [--rounds 3] [--quick] [--kinds lstm transformer]

Models of the published recipe's size with random weights, one thread, processor time, alternatives in turns; each
ratio is the median of the rounds' own. Prints tables in Markdown. In the environment `test` or `lm`.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from typing import Callable, NamedTuple, Optional, Sequence

import numpy as np
import torch
from torch import Tensor

from pipelines.language import models
from pipelines.language.models import UnitModel
from pipelines.language.sampling import How, Sample, generate
from pipelines.language.scoring import BATCH_TOKENS, Units, log_probabilities
from tests.benchmarks.lm_programs import SETTINGS
from tests.benchmarks.lm_speed import SKEWED, corpus

TOGETHER = 32
"""Sequences that `sample` draws side by side on a CPU."""
NO_PROMPT = np.empty(0, np.uint16)


class Sizes(NamedTuple):
    """How much is done in a turn. `alone`, `anew`: sequences of the slow ways to draw, which get fewer."""

    units: int = 128
    alone: int = 4
    anew: int = 2
    scored: int = 64


class Way(NamedTuple):
    """One way to do it: what it is called, and a turn of it, which gives the units or tokens that it did."""

    name: str
    turn: Callable[[], int]


def measure(title: str, ways: Sequence[Way], rounds: int) -> None:
    """One table: the first of the ways is what the others are divided into."""
    found: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(rounds):  # the checks before have warmed them up
        for name, turn in ways:
            began = time.process_time()
            done = turn()
            found[name].append(done / (time.process_time() - began))
    first = found[ways[0].name]
    print(f"\n| {title} | a CPU second | ours is faster by | the rounds |\n|---|---:|---:|---:|")
    for name, speeds in found.items():
        ratios = [ours / other for ours, other in zip(first, speeds)]
        rounds_are = f"{min(ratios):.2f}–{max(ratios):.2f}" if speeds is not first else ""
        print(
            f"| {name} | {statistics.median(speeds):,.0f} | {statistics.median(ratios):.2f} | {rounds_are} |",
            flush=True,
        )


# -- sample


def drawn(model: UnitModel, numbers: Sequence[int], how: How) -> list[Sample]:
    """Items side by side, without prompts."""
    return generate(model, [NO_PROMPT] * len(numbers), numbers, how)


def units_of(samples: Sequence[Sample]) -> int:
    return sum(len(sample.units) + sample.ended for sample in samples)


@torch.inference_mode()
def anew(model: UnitModel, count: int, most: int) -> int:
    """The plain loop: all that was drawn goes through the model again for each unit, side by side; units drawn."""
    tokens = torch.full((count, 1), model.boundary)
    for _ in range(most):
        weights = model.logits(model.step(tokens, None)[0][:, -1])[:, : model.boundary].softmax(-1)
        tokens = torch.cat([tokens, torch.multinomial(weights, 1)], dim=1)
    return count * most


def sample(model: UnitModel, kind: str, sizes: Sizes, rounds: int) -> None:
    """Draw in each way, in double precision as `sample` does. Raises RuntimeError where a batch changes the units."""
    # no end before the last unit: every way draws as many, and none has fewer sequences towards the end
    how = How(least=sizes.units, most=sizes.units)
    together = drawn(model, range(TOGETHER), how)
    for number in range(sizes.alone):
        (alone,) = drawn(model, [number], how)
        if not np.array_equal(alone.units, together[number].units):
            raise RuntimeError(f"the units of item {number} depend on its batch")

    def one_by_one() -> int:
        return sum(units_of(drawn(model, [number], how)) for number in range(sizes.alone))

    ways = [
        Way(f"**{TOGETHER} side by side (voxarray)**", lambda: units_of(drawn(model, range(TOGETHER), how))),
        Way("one by one, the same units", one_by_one),
    ]
    if kind == "transformer":
        name = f"the whole prefix anew for each unit, {sizes.anew} side by side"
        ways.append(Way(name, lambda: anew(model, sizes.anew, sizes.units)))
    measure(f"{kind}: units drawn, {sizes.units} an item, double precision", ways, rounds)


# -- score


@torch.inference_mode()
def scored_alone(model: UnitModel, sequences: Sequence[Units]) -> list[float]:
    """The plain loop: one sequence at a time through the model, and what it predicts of the next token each time."""
    found = []
    for sequence in sequences:
        ends = [model.boundary]
        whole = torch.from_numpy(np.concatenate([ends, sequence, ends]).astype(np.int64))[None]
        logs = model.logits(model.step(whole[:, :-1], None)[0]).log_softmax(-1)
        picked: Tensor = logs.gather(2, whole[:, 1:, None])
        found.append(float(picked.double().sum()))
    return found


def score(double: UnitModel, single: UnitModel, kind: str, sizes: Sizes, rounds: int) -> None:
    """Judge in each way. Raises RuntimeError where two of them disagree."""
    sequences = [each.astype(np.uint16) for each in corpus(SKEWED)[: sizes.scored]]
    tokens = sum(len(each) + 1 for each in sequences)
    for model, most in ((double, 1e-9), (single, 1e-4)):
        ours, plain = log_probabilities(model, sequences), np.array(scored_alone(model, sequences))
        if not np.allclose(ours, plain, rtol=most, atol=0):
            raise RuntimeError(f"{kind}: scores differ by up to {np.abs(ours / plain - 1).max():.1g}")

    def ours_with(model: UnitModel, together: Optional[int] = None) -> Callable[[], int]:
        return lambda: tokens * len(log_probabilities(model, sequences, together)) // len(sequences)

    def alone_with(model: UnitModel) -> Callable[[], int]:
        return lambda: tokens * bool(scored_alone(model, sequences))

    for name, model in (("double precision (what `score` takes on a CPU)", double), ("single precision", single)):
        ways = [
            Way("**by length, together (voxarray)**", ours_with(model)),
            Way("one by one, the same scores", alone_with(model)),
        ]
        if model is double:
            many = ours_with(model, BATCH_TOKENS)
            ways.append(Way(f"by length, {BATCH_TOKENS:,} tokens together, as on a GPU", many))
        measure(f"{kind}: tokens judged, {name}", ways, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round of a little: does it run?")
    parser.add_argument("--kinds", nargs="+", choices=("lstm", "transformer"), default=["lstm", "transformer"])
    parser.add_argument("--only", choices=("sample", "score"), help="one of the two")
    options = parser.parse_args()
    sizes, rounds = (Sizes(16, 2, 2, 6), 1) if options.quick else (Sizes(), options.rounds)
    torch.set_num_threads(1)
    chosen = [len(each) for each in corpus(SKEWED)[: sizes.scored]]
    lengths = f"mean {np.mean(chosen):.0f}, median {np.median(chosen):.0f}, longest {max(chosen)}"
    print(f"torch {torch.__version__}, one thread, {rounds} rounds; {len(chosen)} sequences are judged: {lengths}")
    for kind in options.kinds:
        torch.manual_seed(0)
        single = models.build({**SETTINGS, "model": kind}).eval()
        double = copy.deepcopy(single).double()
        if options.only != "score":
            sample(double, kind, sizes, rounds)
        if options.only != "sample":
            score(double, single, kind, sizes, rounds)


if __name__ == "__main__":
    main()
