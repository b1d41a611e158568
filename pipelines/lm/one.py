"""One training, in this process or (`python -m pipelines.lm.one settings.json`) as one of several."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any, Callable, Optional

import msgspec
import torch

from pipelines.core import logs, store
from pipelines.core.errors import DONE, SOME_FAILED, Unfinished
from pipelines.language import files
from pipelines.lm import checkpoint, evaluation, packing, parallel, splitting, training
from pipelines.lm.data import Corpus, Source
from pipelines.units import device

log = logging.getLogger("pipelines.lm.one")  # not __main__, as which it may run

METRICS, ORDER, TROUBLE = "metrics.json", "settings.json", "trouble.json"


class Order(msgspec.Struct):
    """What a training is to do: `settings` are the model's and the training's, the rest is about the data.

    `note`: the file where the trainings of a run agree on their data; empty where there are no others.
    """

    manifest: str
    units: str
    split_by: str
    split_seed: int
    raw: bool
    skip_missing: bool
    vocabulary_size: Optional[int]
    train_ratio: float
    test_ratio: float
    folder: str
    settings: dict[str, Any]
    threads: int = 1
    note: str = ""


class Trouble(msgspec.Struct):
    """Why a training of several processes failed, for the process that started them."""

    kind: str
    message: str


def train(order: Order, stopping: Callable[[], bool]) -> None:
    """Train to the end, and write `metrics.json`. Raises Unfinished, ItemError, VoxarrayError."""
    folder = Path(order.folder)
    on = parallel.start(device.choose(order.settings["precision"]))
    torch.set_num_threads(order.threads if on.type == "cpu" else 1)
    corpus = Corpus(_source(order))
    parts = splitting.split(corpus, order.train_ratio, order.test_ratio)
    _log_data(corpus, parts)
    settings = {**order.settings, "vocabulary_size": corpus.vocabulary_size}
    trainer = training.Trainer(corpus, parts, settings, folder, on, stopping)
    if order.note:
        checkpoint.share(Path(order.note), trainer.data)
    progress = trainer.run()
    parallel.wait()
    trained = files.describe(folder / files.BEST)
    model = files.load(trained, on)
    test = {}
    if len(parts.test):
        found = evaluation.evaluate(model, corpus, parts.test).figures()
        test = {f"test_{name}": value for name, value in found.items()}
    metrics = {
        **trained.description.figures,
        **test,
        "epochs": progress.epoch,
        "steps": progress.step,
        "best_step": trained.description.step,
        "model_parameters": sum(weight.numel() for weight in model.parameters()),
        "training_seconds": round(progress.seconds, 1),
        "tokens_per_second": round(progress.tokens_read / progress.seconds) if progress.seconds else None,
        "history": progress.history,
    }
    if parallel.rank() == 0:
        store.replace(folder / METRICS, store.pretty(metrics))
        read, computed = progress.tokens_read, progress.tokens_computed
        real = 100 * read / max(1, computed)
        log.info("%d tokens were read; %.1f %% of the tokens that were computed were real.", read, real)


def _source(order: Order) -> Source:
    path, folder = Path(order.manifest), Path(order.units)
    if not packing.is_packed(folder):
        folder, path = packing.packed(path, folder, order.vocabulary_size, order.skip_missing)
    group = None if order.split_by == "file" else order.split_by
    return Source(path, folder, group, order.split_seed, order.raw, order.skip_missing)


def _log_data(corpus: Corpus, parts: splitting.Split) -> None:
    if corpus.left_out:
        log.warning("%d items without units are left out.", corpus.left_out)
    for name, items in zip(parts._fields, parts):
        groups = len(set(corpus.groups[items].tolist()))
        log.info("%s: %d items of %d groups, %d units.", name, len(items), groups, int(corpus.lengths[items].sum()))


def main() -> int:
    """One of several processes; it ends well where it was told to stop, its state saved."""
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, _: told.append(number))
    order = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Order)
    if os.environ.get("RANK", "0") == "0":
        logs.to_stream(sys.stderr)
    try:
        train(order, lambda: bool(told))
    except Unfinished:
        pass
    except Exception as error:
        log.exception("The training cannot go on.")
        trouble = Trouble(type(error).__name__, str(error))
        store.replace(Path(order.folder) / TROUBLE, json.dumps(msgspec.to_builtins(trouble)).encode())
        return SOME_FAILED
    parallel.end()
    return DONE


if __name__ == "__main__":
    sys.exit(main())
