"""One task of a run made by hand: it goes through its items on its own clock, with breaks, failures and silence."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Callable
from unittest import mock

from pipelines.core import heartbeat, parts, paths, store
from pipelines.core.heartbeat import End, Heartbeat
from pipelines.core.manifest import Item
from pipelines.core.parts import Error, PartWriter

if TYPE_CHECKING:
    from made_runs import Maker

FAULTS = [
    ("ItemError", "The file is not audio that libsndfile or ffmpeg can read: {path}: Invalid data.", parts.EXCEPTION),
    ("ItemError", "The file is empty (0 bytes).", parts.EXCEPTION),
    (
        "WorkerDied",
        "the worker process died (SIGKILL: killed, most often for want of memory) with one item in flight",
        parts.DIED,
    ),
]


class MadeTask:
    """One task's work."""

    def __init__(self, maker: Maker, launch: int, task: int, items: list[Item], start: float) -> None:
        self.maker, self.made, self.launch, self.task, self.items = maker, maker.made, launch, task, items
        self.start = self.time = start
        self.rng = random.Random(f"{self.made.seed} {launch} {task}")
        self.host = f"node-{task // 4:02d}"
        self.speed = self.made.speed * self.made.slow.get(task, 1.0) * self.rng.uniform(0.93, 1.07)
        self.state = maker.folder / "state" / paths.launch_name(launch)
        self.state.mkdir(parents=True, exist_ok=True)
        self.breaks = list(self.made.breaks.get(task, []))
        self.attempt = 0
        self.done_before, self.audio_before = 0, 0.0
        self.done = self.failed = self.lost = 0
        self.audio = 0.0

    def run(self) -> None:
        if self.made.until is not None and self.maker.begun + self.made.until < self.start:
            return
        self._enter()
        for item in self.items:
            seconds = self.maker.audio[item.index]
            if not self._advance(seconds / self.speed):
                return
            if self.rng.random() < self.made.bad:
                self._fail(item)
                continue
            self.writer.done(item, self.made.result(self.rng, seconds), seconds)
            self.done, self.audio = self.done + 1, self.audio + seconds
            if self.writer.rows >= self.made.part_items:
                self._at(self.time, self.writer.publish)
        self._at(self.time, self.writer.publish)
        self._finish()

    def _fail(self, item: Item) -> None:
        kind, message, how = self.rng.choice(FAULTS)
        text = message.format(path=item.audio_filepath)
        error = Error(kind, text, parts.signature(kind, text), how)
        for _ in range(2):
            self.writer.failed(item, error)
        self.failed, self.lost = self.failed + 2, self.lost + 1

    def _at(self, time: float, act: Callable[[], Any]) -> None:
        moment = self.maker.moment
        before = moment.now, moment.host
        moment.now, moment.host = time, self.host
        with mock.patch.object(store, "ATTEMPT", self._name()):
            act()
        moment.now, moment.host = before

    def _name(self) -> str:
        return f"{self.host}-{1000 + self.task}-{self.attempt:08x}"

    def _enter(self) -> None:
        def enter() -> None:
            self.writer = PartWriter(
                self.maker.folder / "parts" / paths.launch_name(self.launch),
                self.made.run_id(),
                self.launch,
                self.task,
            )

        self.start = self.time
        self._at(self.time, enter)

    def _advance(self, seconds: float) -> bool:
        """Let time pass; take the breaks that come; False where the run is looked at before this item is through."""
        self.time += seconds
        passed = self.time - self.maker.begun
        if self.breaks and passed > self.breaks[0][0]:
            _, pause = self.breaks.pop(0)
            self._at(self.time, self.writer.publish)
            self.done_before, self.audio_before = self.done_before + self.done, self.audio_before + self.audio
            self.done, self.audio = 0, 0.0
            self.time += pause
            self.attempt += 1
            self._enter()
        silent = self.made.silent.get(self.task)
        until = self.made.until
        if silent is not None and passed > silent:
            self._beat("running", self.maker.begun + silent)
            return False
        if until is not None and passed > until:
            self._beat("running", self.maker.begun + until)
            return False
        return True

    def _beat(self, state: str, time: float) -> None:
        beat = Heartbeat(
            task=self.task, launch=self.launch, attempt=self._name(), host=self.host,
            pid=1000 + self.task, state=state, started=self.start, time=time, dealt=len(self.items),
            audio_seconds_dealt=sum(item.duration or 0.0 for item in self.items), settled_before=self.done_before,
            audio_seconds_before=self.audio_before if self.made.known else 0.0, done=self.done, failed=self.failed,
            audio_seconds=self.audio, restarts=self.attempt, job=f"4711_{self.task}", cpu_s=(time - self.start) * 0.98,
        )  # fmt: skip
        self._at(time, lambda: heartbeat.write(self.state, beat))

    def _finish(self) -> None:
        self._beat("finished", self.time)
        end = End(
            task=self.task, launch=self.launch, attempt=self._name(), host=self.host,
            dealt=len(self.items), done=len(self.items) - self.lost, quarantined=self.lost,
            audio_seconds=self.audio_before + self.audio, started=self.start, ended=self.time,
            cpu_s=(self.time - self.start) * 0.98, job=f"4711_{self.task}",
        )  # fmt: skip
        store.write_json(heartbeat.end_path(self.state, self.task), end)
        self.maker.end = max(self.maker.end, self.time)
