"""What is around the models, for `units_speed`: padding, waiting for audio, the packed store; and a GPU's limit."""

from __future__ import annotations

import io
import platform
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from pipelines.audio.items import Audio, read_ahead
from pipelines.core.manifest import parse
from pipelines.units import encoder, packed
from pipelines.units.codebook import Codebook
from tests import corpus

PEAK = {"A100": (312e12, 19.5e12), "H100": (989e12, 67e12), "H200": (989e12, 67e12), "L40S": (362e12, 91.6e12)}
"""Operations a second in bf16 with tensor cores and in fp32 without, dense, by NVIDIA's data sheets."""


def processor() -> str:
    """The machine's name for itself."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


class _Nothing:
    """An encoder that costs nothing: only its batches matter."""

    hop, shortest = 320, 400

    def __call__(self, waveforms: torch.Tensor, _lengths: Any) -> torch.Tensor:
        return torch.zeros(len(waveforms), (waveforms.shape[1] - 80) // 320, 1)


def padding() -> None:
    """Share of the samples that are padding, for the batches of a GPU: real prompts, of one second to minutes."""
    lengths = np.array([path.stat().st_size / 8000 for language in corpus.LANGUAGES for path in _prompts(language)])
    random = np.random.default_rng(0)
    random.shuffle(lengths)
    print(
        f"\n### Padding: {len(lengths):,} prompts, {lengths.mean():.1f} s on average, {lengths.max():.0f} s at most\n"
    )
    print("| batches | padding |")
    print("|---|---|")
    waves = [np.zeros(round(seconds * 16_000), np.float32) for seconds in lengths]
    coder = encoder.UnitEncoder(_Nothing(), Codebook(torch.zeros(1, 1)), torch.device("cpu"), batch_s=480.0)
    coder.encode(waves)
    print(f"| sorted by length within 1 h of audio, 480 s a batch | {100 * coder.padding.share:.2f} % |")
    for count in (8, 32):
        padded = sum(max(part) * len(part) for part in _parts(list(lengths), count))
        print(f"| as they come, {count} a batch | {100 * (1 - lengths.sum() / padded):.1f} % |")


def _prompts(language: str) -> list[Path]:
    try:
        return corpus.prompts(language)
    except corpus.Missing:
        return []


def _parts(values: list[float], count: int) -> list[list[float]]:
    return [values[start : start + count] for start in range(0, len(values), count)]


def waiting(parameters: dict[str, Any], count: int) -> None:
    """Share of the wall time that the encoder waits for audio: read when it is its turn, and read ahead."""
    coder = encoder.load({**parameters, "backend": "native"})
    files = [str(path) for path in corpus.speech("en", count, 12.0)]
    where = "GPU" if coder.on_gpu else "CPU"
    print(f"\n### Waiting for audio: {count} files, encoded on a {where}\n")
    print("| decoding threads | wall s | waiting |")
    print("|---|---|---|")
    for threads in (0, 1, 4):
        audios = [_Timed(parse(index, msgspec.json.encode({"audio_filepath": path}), keyed=False))
                  for index, path in enumerate(files)]  # fmt: skip
        begun = time.perf_counter()
        with read_ahead(audios, threads):
            coder.encode_recordings(audios)
        wall = time.perf_counter() - begun
        print(f"| {threads} | {wall:.2f} | {100 * sum(audio.waited for audio in audios) / wall:.2f} % |")


class _Timed(Audio):
    """Audio that tells how long its taker waited for it."""

    waited = 0.0

    def __call__(self) -> Any:
        blocks = super().__call__()
        while True:
            begun = time.perf_counter()
            block = next(blocks, None)
            self.waited += time.perf_counter() - begun
            if block is None:
                return
            yield block


def packed_describe() -> dict[str, Any]:
    return {
        "name": "speed", "vocabulary_size": 2000, "rate": 50.0, "run": "speed", "codebook": "base-kmeans",
        "codebook_digest": "0" * 64, "parameters": {},
    }  # fmt: skip


def packed_store(folder: Path, units: list[np.ndarray]) -> tuple[float, int]:
    """Seconds to write and publish, and bytes."""
    begun = time.perf_counter()
    writer = packed.PackedWriter(folder, deduplicated=False, ours={})
    for index, each in enumerate(units):
        row = b'{"audio_filepath":"/data/corpus/speaker/%08d.wav","duration":10.0,"num_units":%d}' % (index, len(each))
        writer.add(each.tobytes(), b"", len(each), row)
    writer.finish(packed_describe())
    writer.publish()
    return time.perf_counter() - begun, sum(path.stat().st_size for path in folder.iterdir())


def torch_files(folder: Path, units: list[np.ndarray]) -> tuple[float, int]:
    """The same as one file an item, as torch.save writes 32-bit integers."""
    folder.mkdir(parents=True)
    begun = time.perf_counter()
    size = 0
    for index, each in enumerate(units):
        data = io.BytesIO()
        torch.save(torch.from_numpy(each.astype(np.int32)), data)
        (folder / f"{index:08d}.pt").write_bytes(data.getbuffer())
        size += data.tell()
    return time.perf_counter() - begun, size


def read_back(packed_folder: Path, torch_folder: Path, count: int) -> tuple[float, float]:
    """Seconds to read one item of each, in random order."""
    order = np.random.default_rng(0).permutation(count)
    index = np.load(packed_folder / "index.npy")
    shards = {number: np.load(packed_folder / packed.shard_name("units", number), mmap_mode="r")
              for number in set(index[:, 0])}  # fmt: skip
    begun = time.perf_counter()
    for row in order:
        shard, first, length = index[row]
        np.array(shards[shard][first : first + length])
    ours = (time.perf_counter() - begun) / count
    begun = time.perf_counter()
    few = order[:2000]
    for row in few:
        torch.load(torch_folder / f"{row:08d}.pt")
    return ours, (time.perf_counter() - begun) / len(few)


def packed_rounds(folder: Path, units: list[np.ndarray]) -> tuple[list[float], int]:
    """Three times."""
    took = []
    size = 0
    for number in range(3):
        seconds, size = packed_store(folder / f"packed-{number}", units)
        took.append(seconds)
    return took, size


def store(folder: Path, count: int) -> None:
    """Writing and reading units, packed and as a file an item."""
    random = np.random.default_rng(0)
    units = [random.integers(0, 2000, 500).astype(np.uint16) for _ in range(count)]
    took, size = packed_rounds(folder, units)
    slow, large = torch_files(folder / "torch", units)
    ours, theirs = read_back(folder / "packed-0", folder / "torch", len(units))
    print(f"\n### Storing units: {count:,} items of 10 s (500 units)\n")
    print("| store | items written/s | units written/s | bytes an item | µs to read one |")
    print("|---|---|---|---|---|")
    each = statistics.median(took) / count
    print(f"| packed | {1 / each:,.0f} | {500 / each:,.0f} | {size / count:.0f} | {1e6 * ours:.1f} |")
    each = slow / count
    print(f"| a `.pt` file an item | {1 / each:,.0f} | {500 / each:,.0f} | {large / count:.0f} | {1e6 * theirs:.1f} |")
    shutil.rmtree(folder / "torch", ignore_errors=True)


def operations(config: dict[str, Any], layer: int, seconds: float) -> float:
    """Floating-point operations for one recording of so many seconds: two a multiplication with addition."""
    frames, into, total = seconds * config["sample_rate"], 1, 0.0
    for channels, kernel, stride in config["conv_layers"]:
        frames = frames / stride
        total += frames * into * channels * kernel
        into = channels
    width, ffn = config["width"], config["ffn"]
    total += frames * into * width + frames * width * (width // config["conv_pos_groups"]) * config["conv_pos"]
    total += layer * frames * (4 * width * width + 2 * width * ffn + 2 * frames * width)
    return 2 * total


def roofline(parameters: dict[str, Any], repeats: int) -> None:
    """On a GPU: audio hours a second, and the share of what its data sheet promises."""
    if not torch.cuda.is_available():
        print("\nNo GPU here: its table is left out.")
        return
    from pipelines.units import models

    name = torch.cuda.get_device_name()
    peaks = next((peak for key, peak in PEAK.items() if key in name), None)
    config = models.describe(parameters["dense_model"], "hubert").config
    print(f"\n### {name}, torch {torch.__version__}: HuBERT base to layer {parameters['layer']}, files of 10 s\n")
    print("| precision | audio hours/s | TFLOP/s | share of the peak |")
    print("|---|---|---|---|")
    waves = [np.random.default_rng(0).normal(0, 0.1, 160_000).astype(np.float32)] * 480
    for precision in ("fp32", "tf32", "bf16"):
        coder = encoder.load({**parameters, "precision": precision})
        coder.encode(waves[:48])
        took = []
        for _ in range(repeats):
            torch.cuda.synchronize()
            begun = time.perf_counter()
            coder.encode(waves)
            took.append(time.perf_counter() - begun)
        each = statistics.median(took) / len(waves)
        speed = operations(config, parameters["layer"], 10.0) / each
        share = f"{100 * speed / peaks[precision == 'fp32']:.1f} %" if peaks and precision != "tf32" else ""
        print(f"| {precision} | {10 / each / 3600:.3f} | {speed / 1e12:.1f} | {share} |")
