"""Training that can be stopped at any step and goes on as if it had not been: same batches, same losses, same weights.

The batches of an epoch are a function of the seed and the epoch, and the random numbers of each (dropout) of the seed
and the step. So the state is the weights, the optimiser's, and a few numbers that say how far it came.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from pathlib import Path
from typing import Any, Callable, Mapping, NamedTuple

import torch
from torch import Tensor, nn

from pipelines.core.errors import ItemError, Unfinished
from pipelines.language import files, models
from pipelines.lm import batching, board, checkpoint, evaluation, parallel
from pipelines.lm.board import Board
from pipelines.lm.checkpoint import Progress, State
from pipelines.lm.data import Corpus, Ints
from pipelines.lm.splitting import Split

log = logging.getLogger(__name__)

SAVE_EVERY_S = 300.0
"""A training that is killed without a warning loses at most this."""
_LOOK_EVERY = 50
"""Steps after which losses are fetched: a look at each would make a GPU wait for the next step."""


class _Step(NamedTuple):
    number: int
    nats: Tensor
    tokens: int
    computed: int
    rate: float


class Trainer:
    """Trains one model in one folder (`last.pt`, `best.safetensors`), from wherever the folder stands.

    `stopping` is asked after every step; once it says yes, the state is saved and `Unfinished` raised. `data` says
    what it is trained and validated on.
    """

    def __init__(  # noqa: PLR0917
        self,
        corpus: Corpus,
        parts: Split,
        settings: Mapping[str, Any],
        folder: Path,
        device: torch.device,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._corpus, self._parts, self._settings, self._folder = corpus, parts, dict(settings), folder
        self._device, self._asked = device, stopping
        self._pieces = batching.pieces(corpus, parts.train, settings["max_length"])
        self._lengths = self._pieces.lengths
        torch.manual_seed(settings["seed"])
        self.model = models.build(settings).to(device)
        self._optimiser = _optimiser(self.model, settings)
        self.progress = Progress()
        self.data = f"{corpus.digest()} {len(parts.train)} {len(parts.valid)} {corpus.content}"
        self._total, self._usual = self._measure()
        self._stops = False
        self._unseen: list[_Step] = []
        self._began = self._saved = time.monotonic()
        self._resume()

    def _resume(self) -> None:
        state = checkpoint.load(self._folder, self._settings, self.data)
        if state is not None:
            self.model.load_state_dict(state.model)
            self._optimiser.load_state_dict(state.optimiser)
            self.progress = state.progress
            log.info("Going on from step %d (epoch %d).", self.progress.step, self.progress.epoch + 1)

    # the epochs

    def run(self) -> Progress:
        """Train to the end. Raises Unfinished where it was stopped, and ItemError where the loss is no number."""
        settings, progress = self._settings, self.progress
        with board.opened(self._folder, progress.step) as shown:
            while not progress.finished:
                if progress.epoch < settings["num_epochs"]:
                    self._epoch(shown)
                self._judge(shown)
                out_of_patience = 0 < settings["early_stopping"] <= progress.waited
                progress.epoch, progress.update, progress.nats, progress.tokens = progress.epoch + 1, 0, 0.0, 0
                progress.finished = out_of_patience or progress.epoch >= settings["num_epochs"]
                self._save()
        return progress

    def _epoch(self, shown: Board) -> None:
        self.model.train()
        settings, progress = self._settings, self.progress
        order = self._order(progress.epoch)
        starts = range(0, order.total, settings["accumulate"])
        for start in starts[progress.update :]:
            members = range(start, min(order.total, start + settings["accumulate"]))
            self._unseen.append(self._step([order.of(number) for number in members]))
            progress.update, progress.step = progress.update + 1, progress.step + 1
            if len(self._unseen) >= _LOOK_EVERY:
                self._look(shown)
            self._pause(shown)
        self._look(shown)

    def _measure(self) -> tuple[int, float]:
        """Updates of the whole training, and tokens of the usual update."""
        updates = -(-self._order(0).total // self._settings["accumulate"])
        return self._settings["num_epochs"] * updates, float(self._lengths.sum()) / updates

    def _order(self, epoch: int) -> batching.Batches:
        settings = self._settings
        return batching.batches(
            self._lengths, settings["batch_tokens"], settings["batch_size"], (settings["seed"], epoch)
        )

    def _step(self, group: list[Ints]) -> _Step:
        """One update: the sum over all tokens of the group's batches, divided by the tokens of the usual update.

        Not by their own: batches are of like lengths, and the tokens of short sequences would weigh many times as much
        as those of long ones; the model would learn that everything ends early.
        """
        step, settings = self.progress.step, self._settings
        tokens = sum(int(self._lengths[numbers].sum()) for numbers in group)
        computed = sum(len(numbers) * int(self._lengths[numbers].max()) for numbers in group)
        rate = settings["learning_rate"] * schedule(settings, step, self._total)
        for entry in self._optimiser.param_groups:
            entry["lr"] = rate
        self._optimiser.zero_grad(set_to_none=True)
        nats = torch.zeros((), device=self._device)
        for number, numbers in enumerate(group):
            mine = parallel.share(numbers)
            if len(mine):
                torch.manual_seed(_seed(settings["seed"], step, number, parallel.rank()))
                found = self._nats(mine)
                (found / self._usual).backward()
                nats += found.detach()
        nats, self._stops = parallel.total(self.model, nats, self._asked())
        nn.utils.clip_grad_norm_(self.model.parameters(), settings["clip"])
        self._optimiser.step()
        return _Step(step + 1, nats, tokens, computed, rate)

    def _nats(self, numbers: Ints) -> Tensor:
        batch = batching.collate(self._corpus, self._pieces, numbers).to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._settings["precision"] == "bf16"):
            return self.model.nats(batch).sum()

    def _look(self, shown: Board) -> None:
        """Take the losses of the latest steps into account. Raises ItemError where one is no number."""
        for step in self._unseen:
            nats = float(step.nats)
            if not math.isfinite(nats):
                raise _diverged(self._settings, step.number)
            self.progress.nats += nats
            self.progress.tokens += step.tokens
            self.progress.tokens_read += step.tokens
            self.progress.tokens_computed += step.computed
            shown.add(step.number, "train/bits_per_unit", nats / step.tokens / math.log(2))
            shown.add(step.number, "train/learning_rate", step.rate)
        self._unseen.clear()

    def _pause(self, shown: Board) -> None:
        if self._stops or time.monotonic() - self._saved > SAVE_EVERY_S:
            self._look(shown)
            self._save()
        if self._stops:
            raise Unfinished(f"stopped at step {self.progress.step}; goes on from there")

    # what comes of it

    def _judge(self, shown: Board) -> None:
        """Measure the model on the validation set, note it, and keep the model if it is the best so far."""
        progress = self.progress
        try:
            score = evaluation.evaluate(self.model, self._corpus, self._parts.valid, self._asked)
        except Unfinished:
            self._save()
            raise
        figures = score.figures()
        train = progress.nats / max(1, progress.tokens) / math.log(2)
        entry = {"epoch": progress.epoch + 1, "step": progress.step, "train_bits_per_unit": train, **figures}
        progress.history.append(entry)
        for name, value in figures.items():
            shown.add(progress.step, f"valid/{name}", value)
        bits = figures["bits_per_unit"]
        if bits < progress.best or len(progress.history) == 1:
            progress.best, progress.waited = bits, 0
            if parallel.rank() == 0:
                files.save(self._folder / files.BEST, self.model, self._description(figures))
        else:
            progress.waited += 1
        log.info("Epoch %d: %.4f bits a unit in training, %.4f in validation.", progress.epoch + 1, train, bits)

    def _description(self, figures: dict[str, float]) -> files.Description:
        return files.Description(
            files.FORMAT, self._settings, self._corpus.described(), figures, self.progress.step, self.data
        )

    def _save(self) -> None:
        now = time.monotonic()
        self.progress.seconds += now - self._began
        self._began = self._saved = now
        if parallel.rank() == 0:
            model, optimiser = self.model.state_dict(), self._optimiser.state_dict()
            checkpoint.save(self._folder, State(model, optimiser, self.progress, self._settings, self.data))


def _optimiser(model: nn.Module, settings: Mapping[str, Any]) -> torch.optim.Optimizer:
    """AdamW; biases and the scales of norms do not decay."""
    decays = [weight for weight in model.parameters() if weight.dim() > 1]
    others = [weight for weight in model.parameters() if weight.dim() <= 1]
    groups = [{"params": decays, "weight_decay": settings["weight_decay"]}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings["learning_rate"], betas=(0.9, 0.98), fused=True)


def _seed(*numbers: int) -> int:
    digest = hashlib.blake2b(" ".join(map(str, numbers)).encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big")


def schedule(settings: Mapping[str, Any], step: int, total: int) -> float:
    """The factor of the learning rate at a step: linear warm-up, then constant or half a cosine to nothing."""
    warm: int = settings["warmup_steps"]
    if step < warm:
        return (step + 1) / warm
    if settings["schedule"] == "constant":
        return 1.0
    done = min(1.0, (step - warm) / max(1, total - warm))
    return 0.5 * (1 + math.cos(math.pi * done))


def _diverged(settings: Mapping[str, Any], step: int) -> ItemError:
    return ItemError(
        f"The loss is no longer a number at step {step}: training has diverged. Lower --learning-rate (it is "
        f"{settings['learning_rate']:g}), or raise --warmup-steps ({settings['warmup_steps']}). The last state before "
        "it is kept."
    )
