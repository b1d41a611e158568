"""One training, in this process or (`python -m pipelines.lm.one settings.json`) as one of torchrun's."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any, Callable, Mapping

import torch

from pipelines.core import logs, store
from pipelines.core.errors import DONE, STOPPED_BY_WARNING, Unfinished
from pipelines.lm import checkpoint, data, parallel, tokens, training
from pipelines.units import device

log = logging.getLogger(__name__)


def train(order: Mapping[str, Any], stopping: Callable[[], bool]) -> None:
    """Train to the end and write `metrics.json`. Raises Unfinished, ManifestError, VoxarrayError."""
    folder, settings = Path(order["folder"]), dict(order["settings"])
    on = parallel.start(device.choose(settings["precision"]))
    torch.set_num_threads(order["threads"] if on.type == "cpu" else 1)
    corpus = tokens.corpus(order)
    settings["vocabulary_size"] = corpus.vocabulary_size
    parts = data.split(corpus, settings["train_ratio"], settings["test_ratio"], settings["seed"])
    _log_data(corpus, parts)
    trainer = training.Trainer(corpus, parts, settings, folder, on, stopping)
    progress = trainer.run()
    if not parallel.is_first():
        return
    model, _ = checkpoint.restore(folder, on)
    trainer.model = model
    figures = {"valid": trainer.evaluate(data.pieces(corpus, parts.valid, settings["max_length"])).figures()}
    if len(parts.test):
        figures["test"] = trainer.evaluate(data.pieces(corpus, parts.test, settings["max_length"])).figures()
    metrics = {
        **figures["valid"],
        **{f"test_{name}": value for name, value in figures.get("test", {}).items()},
        "epochs": progress.epoch,
        "steps": progress.step,
        "model_parameters": sum(weight.numel() for weight in model.parameters()),
        "training_seconds": round(progress.seconds, 1),
        "tokens_per_second": round(progress.tokens / progress.seconds) if progress.seconds else None,
        "history": progress.history,
    }
    store.replace(folder / "metrics.json", store.pretty(metrics))


def _log_data(corpus: data.Corpus, parts: data.Split) -> None:
    for name, items in zip(parts._fields, parts):
        units = int(corpus.lengths[items].sum())
        groups = len(set(corpus.groups[items].tolist()))
        log.info("%s: %d items of %d groups, %d units.", name, len(items), groups, units)


def main() -> int:
    """One of torchrun's processes."""
    logs.to_stream(sys.stderr)
    order = json.loads(Path(sys.argv[1]).read_bytes())
    sign = Path(order["folder"]) / "stop"
    try:
        train(order, sign.exists)
    except Unfinished:
        return STOPPED_BY_WARNING
    return DONE


if __name__ == "__main__":
    sys.exit(main())
