"""The programs that `asr_costs` compares: word error rates of a manifest, and speech in a long recording.

`PYTHON -m tests.benchmarks.asr_programs NAME MANIFEST` counts in a process of its own, and prints the most memory that
it ever had (MB).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Callable, Iterator, Tuple

import numpy as np

Rates = Tuple[int, ...]
"""Errors and reference words, raw and normalised; then the same of characters."""
Cut = Callable[[Path], "list[np.ndarray]"]
"""Takes a WAVE file of any length to its pieces' samples."""

# -- word error rates


def ours(path: Path) -> Rates:
    """`wer` in one process: it begins others only for manifests of some size."""
    from pipelines.asr.wer import measure

    whole = measure(path, workers=1).whole
    words, characters = (whole.raw.words, whole.normalised.words), (whole.raw.characters, whole.normalised.characters)
    return tuple(value for each in (*words, *characters) for value in (each.errors, each.total))


def row_by_row(path: Path) -> Rates:
    """The plain loop: a row at a time through the normaliser and jiwer, raw and normalised."""
    import jiwer
    from whisper_normalizer.english import EnglishTextNormalizer

    normalise = EnglishTextNormalizer()
    sums = np.zeros(8, int)
    for reference, text in _texts(path):
        pairs = [(reference, text), (normalise(reference), normalise(text))]
        found = [jiwer.process_words(*pair) for pair in pairs] + [jiwer.process_characters(*pair) for pair in pairs]
        sums += [value for each in found for value in _counts(each)]
    return tuple(sums.tolist())


def lists(path: Path) -> Rates:
    """As jiwer's manual has it: lists of all references and all texts, and a call for each figure."""
    import jiwer
    from whisper_normalizer.english import EnglishTextNormalizer

    normalise = EnglishTextNormalizer()
    references, texts = (list(each) for each in zip(*_texts(path)))
    pairs = [(references, texts), ([normalise(each) for each in references], [normalise(each) for each in texts])]
    found = [jiwer.process_words(*pair) for pair in pairs] + [jiwer.process_characters(*pair) for pair in pairs]
    return tuple(value for each in found for value in _counts(each))


COUNTING = {"ours": ours, "row_by_row": row_by_row, "lists": lists}


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            yield row["text_reference"], row["text"]


def _counts(found: Any) -> tuple[int, int]:
    right = found.hits + found.substitutions + found.deletions
    return found.substitutions + found.deletions + found.insertions, right


# -- cutting at pauses


def cut_ours(longest_s: float) -> Cut:
    """As the pipeline cuts recordings that are longer than its model takes: two readings, packed pieces."""
    from pipelines.asr.cutting import Cutting, cut
    from pipelines.audio.items import Audio
    from pipelines.core.manifest import parse

    how = Cutting(longest_s)

    def run(path: Path) -> list[np.ndarray]:
        audio = Audio(parse(0, json.dumps({"audio_filepath": str(path)}).encode()))
        pieces = [piece.samples for piece in cut(audio, how)]
        if audio.fault is not None:
            raise audio.fault
        return pieces

    return run


def cut_silero(kind: str, longest_s: float) -> Cut:
    """silero-vad's own functions with our thresholds; `kind`: the TorchScript model, the ONNX one, or in blocks."""
    import silero_vad
    import soundfile
    import torch

    choices: dict[str, dict[str, bool]] = {"jit": {}, "onnx": {"onnx": True}, "sequence": {"sequence": True}}
    model = silero_vad.load_silero_vad(**choices[kind])
    find = silero_vad.get_speech_timestamps_sequence if kind == "sequence" else silero_vad.get_speech_timestamps
    torch.set_num_threads(1)

    def run(path: Path) -> list[np.ndarray]:
        samples, _ = soundfile.read(str(path), dtype="float32")
        spans = find(
            samples if kind == "sequence" else torch.from_numpy(samples),
            model,
            threshold=0.5,
            neg_threshold=0.35,
            min_speech_duration_ms=100,
            min_silence_duration_ms=100,
            speech_pad_ms=200,
            max_speech_duration_s=longest_s,
        )
        return [samples[span["start"] : span["end"]] for span in spans]

    return run


if __name__ == "__main__":
    COUNTING[sys.argv[1]](Path(sys.argv[2]))
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)
