"""Speed and accuracy of VAD, side by side on the same files: `python -m tests.benchmarks.vad_speed [--quick]`.

Everything runs on one core; figures are processor time, the median of interleaved repeats, and ratios of medians.
Prints the tables of TECHNICAL.md.
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


def measure(files: list[Path], repeats: int) -> dict[str, float]:
    """Median processor seconds of each program over the files, the programs taking turns."""
    running = {
        "straight": programs.Straightforward(),
        "loop": programs.Loop(),
        "ten": programs.Ours("ten"),
        "silero": programs.Ours("silero"),
        "steps": programs.SileroSteps(),
        "ten rest": programs.WithoutNetwork("ten", files),
        "silero rest": programs.WithoutNetwork("silero", files),
    }
    times: dict[str, list[float]] = {name: [] for name in running}
    for program in running.values():
        program(files[:8])
    for _ in range(repeats):
        for name, program in running.items():
            # the fast ones more often, so that their medians are as sure as those of the slow ones
            for _ in range(5 if "silero" in name or "rest" in name else 1):
                times[name].append(program(files))
    for program in running.values():
        program.close()
    return {name: statistics.median(values) for name, values in times.items()}


def speed_table(seconds: float, count: int, took: dict[str, float]) -> None:
    """One row a program: files and seconds of audio a second on one core, and the two ratios."""
    print(f"\n### {count} files of {seconds:g} s, one core\n")
    print("| program | CPU ms a file | files/s | × real time | ÷ pure C loop | × straightforward |")
    print("|---|---|---|---|---|---|")
    for name, total in took.items():
        each = total / count
        print(
            f"| {NAMES[name]} | {1000 * each:.3f} | {1 / each:.1f} | {seconds / each:.0f} | "
            f"{total / took['loop']:.3f} | {took['straight'] / total:.2f} |"
        )


def whole_runs(folder: Path, seconds: float, took: dict[str, float], share: float) -> None:
    """What is not the network: in the processor, and in a whole run (a large one less a small one, for each file).

    `took` is the processor's seconds a file, by the names of `NAMES`.
    """
    print(f"\n### What is not the network, per file of {seconds:g} s, one core\n")
    print("| engine | whole run, CPU µs | reading, segments, statistics | listing, dispatch, parts, merge | both |")
    print("|---|---|---|---|---|")
    for engine, few, many in (("ten", round(20 * share), round(200 * share)), ("silero", 100, round(2000 * share))):
        small, large = folder / f"{engine}-few", folder / f"{engine}-many"
        make_files(small, few, seconds)
        make_files(large, many, seconds)
        whole = []
        for repeat in range(5):
            runs = [programs.whole_run(engine, place, folder / f"{engine}{repeat}") for place in (small, large)]
            whole.append((runs[1] - runs[0]) / (many - few))
        each, inside = statistics.median(whole), took[f"{engine} rest"]
        around = max(0.0, each - took[engine])
        print(
            f"| {engine} | {1e6 * each:.0f} | {1e6 * inside:.0f} | {1e6 * around:.0f} | "
            f"{100 * (inside + around) / each:.1f} % |"
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
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    share = 0.1 if options.quick else 1.0
    repeats = 1 if options.quick else options.repeats
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(f"Machine: {_processor()}; Python {platform.python_version()}; numpy {np.__version__}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seconds, count in ((15.0, round(30 * share)), (3.6, round(100 * share))):
            files = make_files(folder / f"{seconds:g}", count, seconds)
            took = measure(files, repeats)
            speed_table(seconds, count, took)
        whole_runs(folder, seconds, {program: total / count for program, total in took.items()}, share)
    accuracy_table(max(1, round(10 * share)))


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
