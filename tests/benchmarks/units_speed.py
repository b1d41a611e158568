"""Speed of units, side by side on the same speech: `python -m tests.benchmarks.units_speed [--quick]`.

Native against fairseq, file by file, each in its own environment (`units`, `sts`), on one core with one thread, in
turns; figures are medians of processor time over the rounds, ratios medians of the rounds' ratios. The models have
random weights and the published sizes. Then what batches pad, how long an encoder waits for decoded audio, what the
packed store costs, and, where there is a GPU, how near its limit the encoder comes. Prints a table of each.
(`units_lengths` goes by length of file, with transformers and layer 6; `units_rest` has what is beside HuBERT.)
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from slurm import environments
from tests import corpus
from tests.benchmarks import units_costs as costs
from tests.benchmarks.units_programs import Program

LAYER, CLUSTERS = 12, 2000
NAMES = {
    "native_encode": "native (`encode`)",
    "fairseq_encode": "fairseq (`encode --backend textless`)",
    "textless_encode": "textlesslib (`SpeechEncoder`, without pitch)",
    "native_vocoder": "native (`sts --from units`)",
    "fairseq_vocoder": "fairseq's CodeHiFiGAN",
}


def make_models(folder: Path) -> dict[str, Any]:
    """A HuBERT of base size, a k-means of 2000 and a vocoder of Expresso's size; the settings of the programs."""
    checkpoint = make_hubert(folder)
    from pipelines.units import importing, options
    from tests.units import made

    settings = {"checkpoint": str(checkpoint), "kmeans": str(folder / "km.bin"), "centroids": str(folder / "km.npy")}
    np.save(settings["centroids"], _centroids())
    _settle(folder, "write_kmeans", settings)
    arguments = ["kmeans", settings["kmeans"], "--name", "base-kmeans", "--dense-model", "base"]
    _run(importing.main, [*arguments, "--layer", str(LAYER)])
    voice = made.codehifigan(folder, CLUSTERS, [f"s{i}" for i in range(4)], [f"t{i}" for i in range(26)],
                             channels=512, width=128)  # fmt: skip
    files = [str(voice / name) for name in ("generator.pt", "config.json")]
    named = ["--speakers", str(voice / "speakers.txt"), "--styles", str(voice / "styles.txt"), "--name", "voice"]
    _run(importing.main, ["hifigan", *files, *named])
    chosen = {"backend": "native", "precision": "fp32", "chunking": "textless", "chunk_s": 100.0}
    voiced = {"vocoder": "voice", "speaker": 1, "style": 1}
    return {**settings, "parameters": {**options.of_units("base-kmeans"), **chosen, **voiced}}


def make_hubert(folder: Path) -> Path:
    """A HuBERT of base size, imported as `base`; its checkpoint."""
    os.environ["VOXARRAY_MODELS"] = str(folder / "models")
    from pipelines.units import importing
    from tests.units import made

    checkpoint = folder / "base.pt"
    made.fairseq_hubert(checkpoint, layers=LAYER, sizes=made.BASE)
    _run(importing.main, ["hubert", str(checkpoint), "--name", "base"])
    return checkpoint


def _run(command: Any, arguments: list[str]) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        status = command(arguments)
    if status != 0:
        raise SystemExit(f"import-checkpoint {' '.join(arguments)} failed")


def _centroids() -> np.ndarray:
    """Frames of speech, as the encoder sees them."""
    import torch

    from pipelines.units import models
    from pipelines.units.hubert import Hubert

    encoder = Hubert.load(models.describe("base", "hubert"), LAYER)
    speech = corpus.read_wave(corpus.speech("en", 1, 60)[0]).astype(np.float32) / 32768
    speech = np.resize(speech, 60 * corpus.RATE)
    with torch.inference_mode():
        frames = torch.cat([encoder(torch.from_numpy(part)[None], None)[0] for part in np.split(speech, 6)])
    random = np.random.default_rng(0)
    picked = frames.numpy()[random.integers(len(frames), size=CLUSTERS)]
    return (picked + random.normal(0, 0.05, picked.shape)).astype(np.float32)


def _settle(folder: Path, name: str, settings: dict[str, Any]) -> None:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(settings))
    Program(environments.python("sts"), name, path).close()


def compare(programs: dict[str, Program], files: list[str], seconds: float, repeats: int, title: str) -> None:
    """One row a program."""
    first = {name: program(files[:1]) for name, program in programs.items()}
    rounds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, program in programs.items():
            rounds[name].append(program(files)["seconds"])
    base = next(iter(programs))
    print(f"\n### {title}: {len(files)} files, {seconds:.0f} s of audio, one core, {repeats} rounds\n")
    print(f"| program | torch | CPU s an audio second | × real time | time ÷ {NAMES[base]} |")
    print("|---|---|---|---|---|")
    for name, took in rounds.items():
        each = statistics.median(took) / seconds
        slower = statistics.median(a / b for a, b in zip(took, rounds[base]))
        torch = programs[name].versions["torch"]
        print(f"| {NAMES[name]} | {torch} | {each:.4f} | {1 / each:.1f} | {slower:.2f} |")
    if "encode" in base:
        print(f"\nUnits of the first file: {_agreement(first)}.")


def _agreement(found: dict[str, dict[str, Any]]) -> str:
    digests = [each["digest"] for each in found.values()]
    return "the same by all" if len(set(digests)) == 1 else f"{len(set(digests))} different of {len(digests)}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the work: does it run?")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--textless", metavar="FOLDER", help="textlesslib's sources, to measure it too")
    parser.add_argument("--fairseq", metavar="FOLDER", help="fairseq's sources, instead of the environment's fairseq")
    options = parser.parse_args()
    repeats = 1 if options.quick else options.repeats
    cores = os.sched_getaffinity(0)
    print(f"Machine: {costs.processor()}; Python {platform.python_version()}; numpy {np.__version__}")
    with tempfile.TemporaryDirectory(prefix="voxarray-speed-") as name:
        folder = Path(name)
        settings = make_models(folder)
        (folder / "settings.json").write_text(json.dumps(settings))
        os.sched_setaffinity(0, {min(cores)})
        _both(folder, repeats, options)
        os.sched_setaffinity(0, cores)
        costs.padding()
        costs.waiting(settings["parameters"], 10 if options.quick else 60)
        costs.store(folder, 2_000 if options.quick else 50_000)
        costs.roofline(settings["parameters"], 1 if options.quick else 5)


def _both(folder: Path, repeats: int, options: argparse.Namespace) -> None:
    settings = folder / "settings.json"
    sources = os.pathsep.join(filter(None, [options.textless, options.fairseq]))
    os.environ["TEXTLESS_CHECKPOINT_ROOT"] = str(folder)
    native, reference = environments.python("units"), environments.python("sts")
    files = [str(path) for path in corpus.speech("en", 4 if options.quick else 24, 12.0)]
    seconds = sum(len(corpus.read_wave(Path(path))) for path in files) / corpus.RATE
    running = {
        "native_encode": Program(native, "native_encode", settings),
        "fairseq_encode": Program(reference, "fairseq_encode", settings, options.fairseq or ""),
    }
    if options.textless:
        running["textless_encode"] = Program(reference, "textless_encode", settings, sources)
    compare(running, files, seconds, repeats, "Encode, HuBERT base and k-means of 2000")
    for program in running.values():
        program.close()

    random = np.random.default_rng(0)
    units = [folder / f"{number}.npy" for number in range(len(files))]
    for path, wave in zip(units, files):
        np.save(path, random.integers(0, CLUSTERS, len(corpus.read_wave(Path(wave))) // 320).astype(np.uint16))
    voices = {
        "native_vocoder": Program(native, "native_vocoder", settings),
        "fairseq_vocoder": Program(reference, "fairseq_vocoder", settings, options.fairseq or ""),
    }
    compare(voices, [str(path) for path in units], seconds, repeats, "Resynthesis, CodeHiFiGAN of Expresso's size")
    for program in voices.values():
        program.close()


if __name__ == "__main__":
    main()
