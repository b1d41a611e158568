"""What is beside HuBERT in units, on a CPU: each step against a named alternative, and how good log-mel units are.

    nice python -m tests.benchmarks.units_rest [--rounds 5] [--only vocoder logmel nearest inversion kmeans quality]

In the environment `test`; native runs in `units`, torchaudio and fairseq in `sts`. One thread each, in turns;
processor time, medians of the rounds, ratios medians of the rounds' ratios. `--quick` does a tenth of the work.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, Sequence

import numpy as np
import torch

from pipelines.units.codebook import Codebook
from pipelines.units.fitting import fit
from pipelines.units.griffin_lim import GriffinLim, Spectra, _interpolated
from pipelines.units.logmel import LogMel
from slurm import environments
from tests import corpus
from tests.benchmarks import units_costs as costs
from tests.benchmarks import units_rest_programs as others
from tests.benchmarks import units_speed
from tests.benchmarks.units_programs import Program, turns
from tests.units.test_griffin_lim import distance, said_again

STEPS = ("vocoder", "logmel", "nearest", "inversion", "kmeans", "quality")


class Bench:
    """A folder, rounds, and which share of the work to do."""

    def __init__(self, folder: Path, rounds: int, share: float) -> None:
        self.folder, self.rounds, self.share = folder, rounds, share
        self.settings = folder / "settings.json"

    def start(self, environment: str, name: str) -> Program:
        """A program in `units`, `sts` or `test`."""
        python = Path(sys.executable) if environment == "test" else environments.python(environment)
        return others.start(python, name, self.settings)

    def compare(
        self, programs: dict[str, Program], files: Sequence[Any], of: float, unit: str, *, warm: bool = True
    ) -> None:
        """Rows of a table: how much is done a processor second, and the time beside the first's."""
        files = [str(each) for each in files]
        if warm:
            for program in programs.values():
                program(files)
        took = turns(programs, files, self.rounds)
        base = next(iter(took.values()))
        for name, seconds in took.items():
            each = statistics.median(seconds)
            ratio = statistics.median(a / b for a, b in zip(seconds, base))
            print(f"| {name} | {of / each:,.5g} {unit} | {each:.3g} | {ratio:.2f} |", flush=True)


def head(title: str) -> None:
    print(f"\n### {title}\n\n| program | done a CPU second | CPU s a turn | time ÷ native |\n|---|---|---|---|")


def close(programs: dict[str, Program]) -> None:
    for program in programs.values():
        program.close()


def recordings(languages: Sequence[str], count: int, first: int = 0, step: int = 1) -> list[Path]:
    """Of each language, `count` prompts of 2 to 8 s, those with the numbers first, first + step, …"""
    found = []
    for language in languages:
        chosen = [path for path in corpus.prompts(language) if 2 < path.stat().st_size / 8000 < 8]
        found += corpus.decoded(chosen[first::step][:count])
    return found


def samples(path: Path) -> torch.Tensor:
    return torch.from_numpy(corpus.read_wave(path).astype(np.float32) / 32768)


def bands_of(files: Sequence[Path]) -> list[torch.Tensor]:
    """Log-mel frames of each recording."""
    return [LogMel()(samples(path)[None])[0] for path in files]


def seconds_of(files: Sequence[Path]) -> float:
    return sum(len(corpus.read_wave(path)) for path in files) / corpus.RATE


# -- against others


def vocoder(bench: Bench) -> None:
    """A unit HiFi-GAN of Expresso's size."""
    programs = {
        "native": Program(environments.python("units"), "native_vocoder", bench.settings),
        "the plain generator, same torch": bench.start("test", "plain_vocoder"),
        "fairseq's, torch 1.13": Program(environments.python("sts"), "fairseq_vocoder", bench.settings),
    }
    random = np.random.default_rng(0)
    lengths = [150, 250, 350] if bench.share == 1 else [50]
    files = [bench.folder / f"spoken-{length}.npy" for length in lengths]
    for path, length in zip(files, lengths):
        np.save(path, random.integers(0, units_speed.CLUSTERS, length).astype(np.uint16))
    head(f"Unit HiFi-GAN, Expresso's size: sequences of {lengths} units")
    bench.compare(programs, files, sum(lengths) / 50, "s of audio")
    close(programs)


def logmel(bench: Bench) -> None:
    """Log-mel bands."""
    programs = {
        "native (float64)": bench.start("units", "native_logmel"),
        "torchaudio's `kaldi.fbank` (float32, torch 1.13)": bench.start("sts", "torchaudio_logmel"),
        "transformers' `spectrogram` (numpy)": bench.start("test", "transformers_logmel"),
    }
    files = recordings(corpus.LANGUAGES, round(30 * bench.share))
    head(f"Log-mel features: {len(files)} files of 2 to 8 s")
    bench.compare(programs, files, seconds_of(files), "s of audio")
    close(programs)


def nearest(bench: Bench) -> None:
    """The nearest centroid of frames of HuBERT's width."""
    from pipelines.units import models
    from pipelines.units.hubert import Hubert

    encoder = Hubert.load(models.describe("base", "hubert"), units_speed.LAYER)
    waves = [samples(path) for path in recordings(["es", "fr"], round(10 * bench.share))]
    with torch.inference_mode():
        frames = torch.cat([encoder(wave[None], None)[0] for wave in waves]).numpy()
    frames = np.tile(frames, (-(-20_000 // len(frames)), 1))[:20_000]
    np.save(bench.folder / "frames.npy", frames)
    programs = {
        "native": bench.start("units", "native_nearest"),
        "`addmm` and `argmin`": bench.start("units", "torch_nearest"),
        "scikit-learn's `predict`": bench.start("test", "sklearn_nearest"),
    }
    everything = np.load(bench.folder / "km.npy")
    for clusters in (100, 500, 2000):
        path = bench.folder / f"km{clusters}.npy"
        np.save(path, everything[:clusters])
        head(f"Nearest of {clusters} centroids: {len(frames):,} frames of width 768")
        bench.compare(programs, [bench.folder / "frames.npy", path], len(frames), "frames")
    close(programs)


def inversion(bench: Bench) -> None:
    """Log-mel frames to sound, not quantised, and how far the sounds are from what was said."""
    files = recordings(corpus.LANGUAGES, max(1, round(4 * bench.share)), 0, 4)
    bands = bands_of(files)
    everything = torch.cat(bands)
    np.save(bench.folder / "bands.npy", everything.numpy())  # a codebook of all frames
    spectra = Spectra(torch.device("cpu")).of(everything)
    paths = [bench.folder / f"said-{number}.npy" for number in range(len(files))]
    for path, units in zip(paths, torch.arange(len(everything)).split([len(each) for each in bands])):
        np.save(path, units.numpy().astype(np.uint16))
        np.save(f"{str(path)[:-4]}.magnitudes.npy", _interpolated(spectra[units]).exp().float().numpy())
    programs = {
        "native": bench.start("units", "native_inversion"),
        "torchaudio's `griffinlim`, 16 iterations (float32, torch 1.13)": bench.start("sts", "torchaudio_16"),
        "torchaudio's, 60 iterations": bench.start("sts", "torchaudio_60"),
    }
    head(f"Griffin-Lim from log-mel frames that were not quantised: {len(files)} files of 2 to 8 s")
    bench.compare(programs, paths, seconds_of(files), "s of audio")
    close(programs)
    print("\nFrom the original: ", end="")
    for name in ("native", "16", "60"):
        sounds = [torch.from_numpy(np.load(f"{str(path)[:-4]}.{name}.npy")) for path in paths]
        heard = [LogMel()(torch.nn.functional.pad(sound, (0, 80))[None])[0] for sound in sounds]
        print(f"{name} {np.mean([distance(a, b) for a, b in zip(bands, heard)]):.2f} dB", end="; ")
    print()


def sample(files: Sequence[Path], copies: int = 1) -> np.ndarray:
    """Log-mel frames in random order; of copies, all but the first with a little noise, so that no two are equal."""
    random = np.random.default_rng(0)
    once = torch.cat(bands_of(files)).numpy()
    noisy = [once + random.normal(0, 0.1, once.shape).astype(np.float32) for _ in range(copies - 1)]
    return random.permutation(np.concatenate([once, *noisy]))


def kmeans(bench: Bench) -> None:
    """Fitting: time, and inertia on the same frames."""
    programs = {
        "native": bench.start("units", "native_kmeans"),
        "MiniBatchKMeans, scikit-learn's defaults": bench.start("test", "sklearn_kmeans"),
        "MiniBatchKMeans as fairseq's `learn_kmeans.py`": bench.start("test", "fairseq_kmeans"),
    }
    everything = sample(recordings(corpus.LANGUAGES, 10_000), 6)
    for count, clusters in ((100_000, 100), (100_000, 500), (1_000_000, 100)):
        chosen = everything[: round(count * bench.share)]
        path = bench.folder / f"sample-{count}.npy"
        np.save(path, chosen)
        head(f"k-means: {len(chosen):,} frames of real speech (some with noise), K = {clusters}")
        bench.compare(programs, [path, clusters], len(chosen), "frames", warm=False)
        spread = {}
        for name in ("native", "sklearn", "fairseq"):
            centroids = np.load(bench.folder / f"sample-{count}.{clusters}.{name}.npy")
            labels = Codebook(torch.from_numpy(centroids)).assign(torch.from_numpy(chosen)).numpy()
            spread[name] = float(np.square(chosen - centroids[labels], dtype=np.float64).sum(axis=1).mean())
        shares = [f"{spread['native'] / spread[name]:.3f} × that of {name}" for name in ("sklearn", "fairseq")]
        print(f"\nNative's inertia: {', '.join(shares)}.", flush=True)
    close(programs)


# -- how good


def quality(bench: Bench) -> None:
    """Log-spectral distances of held-out prompts to their units' centroids, and to what is said from units."""
    held = recordings(corpus.LANGUAGES, max(1, round(8 * bench.share)), 0, 4)
    fitting = recordings(corpus.LANGUAGES, round(120 * bench.share), 1, 4)
    frames = sample(fitting)
    bands = bands_of(held)
    print(f"\n### Log-mel units: {len(held)} held-out prompts ({seconds_of(held):.0f} s), dB from the original")
    print(f"\nCodebooks fitted on {len(frames):,} frames of {len(fitting)} other prompts of the same voices.\n")
    print("| | centroids | resynthesis |\n|---|---|---|")
    floor = np.mean([distance(each, said_again(GriffinLim(each), torch.arange(len(each)))) for each in bands])
    print(f"| not quantised | 0 | {floor:.2f} |")
    for clusters in (50, 100, 500):
        book = Codebook(torch.from_numpy(fit(frames, clusters).centroids))
        voice, units = GriffinLim(book.centroids), [book.assign(each) for each in bands]
        near = np.mean([distance(each, book.centroids[own]) for each, own in zip(bands, units)])
        said = np.mean([distance(each, said_again(voice, own)) for each, own in zip(bands, units)])
        print(f"| K = {clusters} | {near:.2f} | {said:.2f} |")
    mean = torch.from_numpy(frames.mean(axis=0))
    print(
        f"| every frame the mean frame | {np.mean([distance(each, mean.expand_as(each)) for each in bands]):.2f} | |"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=STEPS, default=STEPS, metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, one round: does it run?")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"Machine: {costs.processor()}; Python {platform.python_version()}; torch {torch.__version__}")
    with tempfile.TemporaryDirectory(prefix="voxarray-rest-") as name:
        folder = Path(name)
        bench = Bench(folder, 1 if options.quick else options.rounds, 0.1 if options.quick else 1)
        made = units_speed.make_models(folder) if {"vocoder", "nearest"} & set(options.only) else {}
        bench.settings.write_text(json.dumps({**made, "bands": str(folder / "bands.npy")}))
        for step in options.only:
            globals()[step](bench)


if __name__ == "__main__":
    main()
