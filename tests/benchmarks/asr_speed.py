"""Throughput of transcripts, side by side on the same files: `PYTHON_OF_ASR -m tests.benchmarks.asr_speed`.

NeMo's own `transcribe()` and `SALM.generate`, in manifest order with batches of 8 and 16, against the suite's
recogniser behind its batcher, with as many recordings at hand as a task on a CPU takes at once. The same tiny models
(the tests' own) and recordings with lengths as in corpora (log-normal, median 5 s, at most 40 s). In turns, processor
time, medians of the rounds' ratios. Prints TECHNICAL.md's table. In the environment `asr`.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from pathlib import Path
from typing import Callable, Sequence

import numpy as np
import torch

from pipelines.asr import backends
from pipelines.asr.backends import Transcript, greedy
from pipelines.asr.batching import Batcher
from pipelines.asr.sizes import Size
from pipelines.audio.items import Audio
from pipelines.core import batch
from pipelines.core.manifest import parse
from pipelines.core.pipeline import Resources
from tests import corpus
from tests.asr import models, prompts

LONGEST_S, MEDIAN_S, SPREAD = 40.0, 5.0, 0.9
BOUND = 128
"""Tokens of a SALM's text at most, on both sides, as its model card has it. Recordings that are much longer than what
the tiny model was trained on make it repeat itself up to the bound, and ours would allow some of them more."""


def make_files(folder: Path, count: int) -> list[tuple[Path, float]]:
    """Recordings of real prompts, joined to log-normal lengths; path and seconds, in manifest order."""
    die = np.random.default_rng(1)
    pool = [corpus.read_wave(prompt.path) for prompt in prompts.prompts(0.6, 8.0)]
    files = []
    for number, wanted in enumerate(np.minimum(LONGEST_S, MEDIAN_S * np.exp(SPREAD * die.standard_normal(count)))):
        parts, have = [], 0
        while have < wanted * corpus.RATE:
            parts.append(pool[die.integers(len(pool))])
            have += len(parts[-1])
        samples = np.concatenate(parts)[: int(wanted * corpus.RATE)]
        files.append((corpus.write_wave(folder / f"{number:04d}.wav", samples), len(samples) / corpus.RATE))
    return files


Program = Callable[[], int]
"""Transcribes all files; how many texts came."""


class Ours:
    """The recogniser behind the batcher; audio is read, and taken together, as the pipeline does on a CPU."""

    def __init__(self, kind: str, files: list[tuple[Path, float]]) -> None:
        source = str(models.salm_complete() if kind == "salm" else models.built(kind))
        self._backend = backends.load(backends.choose(source), source, {}, Resources(cpus=1))
        self._rows = [f'{{"audio_filepath":"{path}","duration":{seconds}}}'.encode() for path, seconds in files]
        self.padding = 0.0

    def __call__(self) -> int:
        backend = self._backend
        size, inner = Size(backend.batch_s), backend.encoder_overhead
        batcher = Batcher(backend.transcribe, size, overhead=backend.overhead, encoder_overhead=inner)
        count = 0
        for items in batch.cut(map(parse, range(len(self._rows)), self._rows), *backend.together):
            found = batcher.run([np.concatenate(list(Audio(item)())) for item in items])
            count += sum(isinstance(each, Transcript) for each in found)
        self.padding = batcher.padding.efficiency
        return count


def bound_ours() -> None:
    """Give our generation the bound of the other one, beside its own."""
    free = greedy.generate

    def bounded(
        llm: object, embedded: torch.Tensor, mask: torch.Tensor, limits: Sequence[int], ends: int
    ) -> list[list[int]]:
        return free(llm, embedded, mask, [min(BOUND, limit) for limit in limits], ends)

    greedy.generate = bounded


def nemo_ctc(files: list[tuple[Path, float]], size: int) -> Program:
    """`transcribe()` of NeMo, in manifest order."""
    from nemo.collections.asr.models import ASRModel

    model = ASRModel.restore_from(str(models.built("ctc")), map_location="cpu").eval()
    paths = [str(path) for path, _ in files]
    return lambda: len(model.transcribe(paths, batch_size=size, num_workers=0, verbose=False))


def nemo_salm(files: list[tuple[Path, float]], size: int) -> Program:
    """`SALM.generate` as its model card has it, in manifest order."""
    from nemo.collections.speechlm2.models import SALM
    from transformers import GenerationConfig

    model = SALM.from_pretrained(str(models.salm_complete())).eval()
    how = GenerationConfig(
        max_new_tokens=BOUND,
        bos_token_id=model.text_bos_id,
        eos_token_id=model.text_eos_id,
        pad_token_id=model.text_pad_id,
        do_sample=False,
    )

    def ask(path: Path) -> list[dict[str, object]]:
        text = f"Transcribe the following: {model.audio_locator_tag}"
        return [{"role": "user", "content": text, "audio": [str(path)]}]

    def run() -> int:
        count = 0
        with torch.inference_mode():
            for start in range(0, len(files), size):
                chosen = [ask(path) for path, _ in files[start : start + size]]
                count += len(model.generate(prompts=chosen, generation_config=how))
        return count

    return run


def padded(files: list[tuple[Path, float]], size: int) -> float:
    """Real ÷ computed audio in manifest order."""
    seconds = [length for _, length in files]
    computed = sum(max(seconds[at : at + size]) * len(seconds[at : at + size]) for at in range(0, len(seconds), size))
    return sum(seconds) / computed


def timed(program: Program, expected: int) -> float:
    """Processor seconds of one turn."""
    start = time.process_time()
    if program() != expected:
        raise RuntimeError("texts are missing")
    return time.process_time() - start


def compare(kind: str, files: list[tuple[Path, float]], rounds: int) -> None:
    """One table."""
    theirs = nemo_salm if kind == "salm" else nemo_ctc
    ours = Ours(kind, files)
    programs: dict[str, Program] = {
        "NeMo, batches of 8, manifest order": theirs(files, 8),
        "NeMo, batches of 16, manifest order": theirs(files, 16),
        "**ours**": ours,
    }
    for program in programs.values():
        program()
    took: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            took[name].append(timed(program, len(files)))
    audio = sum(seconds for _, seconds in files)
    print(f"\n### {kind}: {len(files)} files, {audio / 60:.1f} min, one thread, {rounds} rounds\n")
    print("| program | × real time | real ÷ computed audio | ours is faster by |")
    print("|---|---|---|---|")
    shares = [padded(files, 8), padded(files, 16), ours.padding]
    for (name, seconds), share in zip(took.items(), shares):
        ratio = statistics.median(other / own for other, own in zip(seconds, took["**ours**"]))
        print(f"| {name} | {audio / statistics.median(seconds):.0f} | {share:.3f} | {ratio:.2f} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", default=["ctc", "salm"])
    parser.add_argument("--own-bound", action="store_true", help="leave ours its own bound: a piece's frames and 16")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    if not options.own_bound:
        bound_ours()
    with tempfile.TemporaryDirectory() as name:
        files = make_files(Path(name), options.files)
        for kind in options.kinds:
            compare(kind, files, options.rounds)


if __name__ == "__main__":
    main()
