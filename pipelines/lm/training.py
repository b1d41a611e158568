"""Training that can be stopped at any step and goes on as if it had not been: same batches, same losses.

The whole state (weights, optimiser, random numbers, place in the epoch, what was measured) is in one file, replaced
atomically. Batches of an epoch are a function of the seed and the epoch, so the place in them is a number.
"""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import Any, Callable, Mapping, NamedTuple, Optional, Sequence

import msgspec
import numpy as np
import torch
from torch import Tensor

from pipelines.core import store
from pipelines.core.errors import Unfinished
from pipelines.lm import checkpoint, data, models, parallel
from pipelines.lm.data import Corpus, Piece

log = logging.getLogger(__name__)

_SAVE_EVERY_S = 300.0


class Score(NamedTuple):
    """Sums over predicted tokens: negative log-probability in nats, tokens (EOS included), units, seconds of speech."""

    nats: float
    tokens: int
    units: int
    seconds: float

    def figures(self) -> dict[str, float]:
        """Bits a token, perplexity, bits per second of speech."""
        bits = self.nats / math.log(2)
        return {
            "bits_per_unit": bits / max(1, self.tokens),
            "perplexity": math.exp(min(700.0, self.nats / max(1, self.tokens))),
            "bits_per_second": bits / self.seconds if self.seconds else math.nan,
        }


class Progress(msgspec.Struct):
    """Where training stands. `batch`: batches of this epoch that are done; `history`: one entry an epoch."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    tokens: int = 0
    best: float = math.inf
    waited: int = 0
    nats: float = 0.0
    epoch_tokens: int = 0
    seconds: float = 0.0
    finished: bool = False
    history: list[dict[str, float]] = []


class Trainer:
    """Trains one model in one folder (`last.pt`, `best.pt`, `metrics.json`), from wherever the folder stands.

    `stopping` is asked after every step; once it says yes, the state is saved and `Unfinished` raised.
    """

    def __init__(  # noqa: PLR0917
        self,
        corpus: Corpus,
        parts: data.Split,
        settings: Mapping[str, Any],
        folder: Path,
        device: torch.device,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._corpus, self._settings, self._folder, self._device = corpus, settings, folder, device
        self._stopping = stopping
        self._train = data.pieces(corpus, parts.train, settings["max_length"])
        self._valid = data.pieces(corpus, parts.valid, settings["max_length"])
        self._lengths = np.array([piece.length for piece in self._train], np.int64)
        torch.manual_seed(settings["seed"])
        self.model = models.build(settings).to(device)
        self._optimiser = torch.optim.AdamW(
            self.model.parameters(),
            lr=settings["learning_rate"],
            weight_decay=settings["weight_decay"],
            betas=(0.9, 0.98),
        )
        self.progress = Progress()
        self._stops = False
        self._saved = time.monotonic()
        self._began = time.monotonic()
        self._resume()

    def _resume(self) -> None:
        state = checkpoint.load(self._folder / "last.pt", self._settings)
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["random"])
        if self._device.type == "cuda" and state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"])
        self.progress = msgspec.convert(state["progress"], Progress)
        log.info("Going on from step %d (epoch %d).", self.progress.step, self.progress.epoch + 1)

    # the epochs

    def run(self) -> Progress:
        """Train to the end. Raises Unfinished where it was stopped, and VoxarrayError where the loss is no number."""
        settings, progress = self._settings, self.progress
        with checkpoint.events(self._folder, settings, progress.step) as events:
            while not progress.finished:
                if progress.epoch < settings["num_epochs"]:
                    self._epoch(events)
                score = self.evaluate(self._valid)
                self._judge(score, events)
                progress.epoch, progress.batch, progress.nats, progress.epoch_tokens = progress.epoch + 1, 0, 0.0, 0
                out_of_patience = settings["early_stopping"] and progress.waited >= settings["early_stopping"]
                progress.finished = bool(out_of_patience) or progress.epoch >= settings["num_epochs"]
                self._save("last.pt")
        return progress

    def _epoch(self, events: checkpoint.Events) -> None:
        self.model.train()
        settings, progress = self._settings, self.progress
        order = data.batches(
            self._lengths, settings["batch_tokens"], settings["batch_size"], (settings["seed"], progress.epoch)
        )
        groups = [order[at : at + settings["accumulate"]] for at in range(0, len(order), settings["accumulate"])]
        total = max(1, len(groups) * settings["num_epochs"])
        for group in groups[progress.batch :]:
            nats, tokens = self._step(group, total)
            progress.batch, progress.step = progress.batch + 1, progress.step + 1
            progress.nats, progress.epoch_tokens = progress.nats + nats, progress.epoch_tokens + tokens
            progress.tokens += tokens
            events.add(progress.step, "train/bits_per_unit", nats / tokens / math.log(2))
            events.add(progress.step, "train/learning_rate", self._optimiser.param_groups[0]["lr"])
            self._pause()

    def _step(self, group: Sequence[list[int]], total: int) -> tuple[float, int]:
        """One update: the mean over all tokens of the group's batches, whatever their number, on every process."""
        mine = parallel.share(group)
        tokens = sum(int(self._lengths[place]) for batch in group for place in batch)
        for entry in self._optimiser.param_groups:
            entry["lr"] = self._settings["learning_rate"] * schedule(self._settings, self.progress.step, total)
        self._optimiser.zero_grad(set_to_none=True)
        nats = 0.0
        for batch in mine:
            loss = self._loss([self._train[place] for place in batch])
            (loss / tokens).backward()
            nats += float(loss.detach())
        nats, self._stops = parallel.total(self.model, nats, self._stopping())
        if not math.isfinite(nats):
            raise checkpoint.diverged(self._folder, self._settings, self.progress.step)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._settings["clip"])
        self._optimiser.step()
        return nats, tokens

    def _loss(self, chosen: Sequence[Piece]) -> Tensor:
        tokens, targets = data.collate(self._corpus, chosen)
        reduced = self._settings["precision"] == "bf16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=reduced):
            return self.model.loss(tokens.to(self._device), targets.to(self._device))

    def _pause(self) -> None:
        if self._stops:
            self._save("last.pt")
            raise Unfinished(f"stopped at step {self.progress.step}; goes on from there")
        if time.monotonic() - self._saved > _SAVE_EVERY_S:
            self._save("last.pt")

    # what comes of it

    @torch.inference_mode()
    def evaluate(self, chosen: Sequence[Piece]) -> Score:
        """How well the model predicts these pieces."""
        self.model.eval()
        lengths = np.array([piece.length for piece in chosen], np.int64)
        nats = 0.0
        for batch in parallel.share(data.batches(lengths, self._settings["batch_tokens"], None, None)):
            nats += float(self._loss([chosen[place] for place in batch]))
        nats = parallel.added(nats, self._device)
        seconds = {piece.item: float(self._corpus.seconds[piece.item]) for piece in chosen}
        units = sum(piece.last - piece.first for piece in chosen)
        return Score(nats, int(lengths.sum()), units, sum(seconds.values()))

    def _judge(self, score: Score, events: checkpoint.Events) -> None:
        progress = self.progress
        figures = score.figures()
        train = progress.nats / max(1, progress.epoch_tokens) / math.log(2)
        entry = {"epoch": progress.epoch + 1, "step": progress.step, "train_bits_per_unit": train, **figures}
        progress.history.append(entry)
        for name, value in figures.items():
            events.add(progress.step, f"valid/{name}", value)
        bits = figures["bits_per_unit"]
        if bits < progress.best:
            progress.best, progress.waited = bits, 0
            self._save("best.pt")
        else:
            progress.waited += 1
        log.info("Epoch %d: %.4f bits a unit in training, %.4f in validation.", progress.epoch + 1, train, bits)

    def _save(self, name: str) -> None:
        self.progress.seconds += time.monotonic() - self._began
        self._began = self._saved = time.monotonic()
        if not parallel.is_first():
            return
        on_gpu = self._device.type == "cuda"
        state = {
            "model": self.model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if on_gpu else None,
            "progress": msgspec.to_builtins(self.progress),
            "settings": dict(self._settings),
        }
        if name == "best.pt":
            state = {key: state[key] for key in ("model", "progress", "settings")}
        with store.writing(self._folder / name) as file:
            torch.save(state, file)


def schedule(settings: Mapping[str, Any], step: int, total: int) -> float:
    """The factor of the learning rate at a step: linear warm-up, then constant or half a cosine to a tenth."""
    warm = settings["warmup_steps"]
    if step < warm:
        return (step + 1) / warm
    if settings["schedule"] == "constant":
        return 1.0
    done = min(1.0, (step - warm) / max(1, total - warm))
    return 0.1 + 0.45 * (1 + math.cos(math.pi * done))


def finished(folder: Path, settings: Mapping[str, Any]) -> Optional[Progress]:
    """The progress of a training that has come to its end there."""
    state = checkpoint.load(folder / "last.pt", settings)
    progress = msgspec.convert(state["progress"], Progress) if state is not None else None
    return progress if progress is not None and progress.finished else None
