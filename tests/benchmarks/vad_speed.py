"""Speed and accuracy of VAD, side by side on the same files: `python -m tests.benchmarks.vad_speed [--quick]`.

Everything runs on one core; figures are processor time. The programs take turns, and the figures are
medians over the rounds. Prints the tables of TECHNICAL.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
from pathlib import Path

import numpy as np

from tests import corpus
from tests.benchmarks import vad_programs as programs

NAMES = {
    "straight": "straightforward (soundfile + TenVad.process per hop + pool)",
    "loop": "pure C loop over TEN-VAD's library",
    "ten": "ours, `--engine ten`",
    "silero": "ours, `--engine silero`",
    "steps": "Silero step by step (onnxruntime)",
    "ten rest": "(`ten` without its network)",
    "silero rest": "(`silero` without its network)",
}


def make_files(folder: Path, count: int, seconds: float) -> list[Path]:
    """Recordings of real speech of one length, 16 kHz WAVE."""
    speech = np.concatenate([corpus.read_wave(path) for path in corpus.speech("en", 200, longest=12.0)])
    length = round(seconds * corpus.RATE)
    starts = np.linspace(0, len(speech) - length - 1, count).astype(int)
    return [
        corpus.write_wave(folder / f"{number:05d}.wav", speech[start : start + length])
        for number, start in enumerate(starts)
    ]


Rounds = dict[str, list[float]]
"""Processor seconds of each program, one figure a round; within a round the programs take turns."""


def measure(files: list[Path], repeats: int) -> Rounds:
    """Run all programs over the files, `repeats` times in turns."""
    running = {
        "straight": programs.Straightforward(),
        "loop": programs.Loop(),
        "ten": programs.Ours("ten"),
        "silero": programs.Ours("silero"),
        "steps": programs.SileroSteps(),
        "ten rest": programs.WithoutNetwork("ten", files),
        "silero rest": programs.WithoutNetwork("silero", files),
    }
    rounds: Rounds = {name: [] for name in running}
    for program in running.values():
        program(files[:8])
    for _ in range(repeats):
        for name, program in running.items():
            # the fast ones more often, so that their figures are as sure as those of the slow ones
            turns = 5 if "silero" in name or "rest" in name else 1
            rounds[name].append(statistics.median(program(files) for _ in range(turns)))
    for program in running.values():
        program.close()
    return rounds


def ratio(over: list[float], under: list[float]) -> float:
    """The median of the rounds' ratios: what else the machine does touches both sides of one round alike."""
    return statistics.median(a / b for a, b in zip(over, under))


def speed_table(seconds: float, count: int, rounds: Rounds) -> None:
    """One row a program: files and seconds of audio a second on one core, and the two ratios."""
    print(f"\n### {count} files of {seconds:g} s, one core, {len(rounds['loop'])} rounds\n")
    print("| program | CPU ms a file | files/s | × real time | ÷ pure C loop | × straightforward |")
    print("|---|---|---|---|---|---|")
    for name, took in rounds.items():
        each = statistics.median(took) / count
        print(
            f"| {NAMES[name]} | {1000 * each:.3f} | {1 / each:.1f} | {seconds / each:.0f} | "
            f"{ratio(took, rounds['loop']):.3f} | {ratio(rounds['straight'], took):.2f} |"
        )


def whole_runs(folder: Path, seconds: float, share: float, repeats: int) -> None:
    """What is not the network, a file: in the processor, and around it in a whole run (a large one less a small)."""
    print(f"\n### What is not the network, per file of {seconds:g} s, one core\n")
    print("| engine | whole run, CPU µs | reading, segments, statistics | listing, dispatch, parts, merge | both |")
    print("|---|---|---|---|---|")
    for engine, few, many in (("ten", round(20 * share), round(150 * share)), ("silero", 100, round(2000 * share))):
        small, large = folder / f"{engine}-few", folder / f"{engine}-many"
        make_files(small, few, seconds)
        files = make_files(large, many, seconds)
        inner, rest = programs.Ours(engine), programs.WithoutNetwork(engine, files)
        whole, inside, around = [], [], []
        for repeat in range(repeats):
            home = folder / f"{engine}{repeat}"
            less, more = (programs.whole_run(engine, place, home) for place in (small, large))
            whole.append((more - less) / (many - few))
            inside.append(rest(files) / many)
            around.append(whole[-1] - inner(files) / many)
        each, within, without = (statistics.median(values) for values in (whole, inside, around))
        print(
            f"| {engine} | {1e6 * each:.0f} | {1e6 * within:.0f} | {1e6 * without:.0f} | "
            f"{100 * (within + without) / each:.1f} % |"
        )


def accuracy_table(count: int) -> None:
    """Both engines on words with known bounds, in four kinds of recording."""
    print(f"\n### Accuracy with known truth: {count} × 15 s a language and condition, collar 80 ms\n")
    print("| condition | engine | accuracy | F1 | false alarm | miss |")
    print("|---|---|---|---|---|---|")
    found: dict[tuple[str, str], list] = {}
    for engine in ("ten", "silero"):
        network = programs.load({**programs.PARAMETERS, "engine": engine}, programs.Resources())._engine
        for name, condition in corpus.CONDITIONS.items():
            for language in ("en", "es", "fr"):
                for made in corpus.truth(count, language=language, condition=condition):
                    said = corpus.runs_of(network.probabilities([made.samples]) > 0.5, network.hop)
                    pair = (made.speech, said, len(made.samples) / corpus.RATE)
                    found.setdefault((name, engine), []).append(pair)
                    found.setdefault(("all", engine), []).append(pair)
    for name in [*corpus.CONDITIONS, "all"]:
        for engine in ("ten", "silero"):
            alarm, miss, accuracy, f1 = corpus.score(found[name, engine])
            print(f"| {name} | {engine} | {accuracy:.2f} | {f1:.4f} | {alarm:.2f} | {miss:.2f} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the work: does it run?")
    parser.add_argument("--repeats", type=int, default=25)
    options = parser.parse_args()
    share = 0.1 if options.quick else 1.0
    repeats = 1 if options.quick else options.repeats
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(f"Machine: {_processor()}; Python {platform.python_version()}; numpy {np.__version__}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seconds, count in ((15.0, 5), (3.6, 20)):
            files = make_files(folder / f"{seconds:g}", count, seconds)
            speed_table(seconds, count, measure(files, repeats))
        whole_runs(folder, seconds, share, 1 if options.quick else 5)
    accuracy_table(max(1, round(10 * share)))


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
