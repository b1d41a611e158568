"""`status --watch`: runs kept in view, on a full screen, line by line where there is none, or as JSON for programs.

`watch` is for every caller that has runs to follow: `select` is asked again and again which those are.
"""

from __future__ import annotations

import sys
import time
from typing import Any, Callable, Optional, Sequence

import msgspec

from pipelines.core import clock
from pipelines.core.errors import StorageError, plain
from pipelines.core.run import Run
from slurm.view import watch_screen, watch_text
from slurm.view.standing import Looker, Standing
from slurm.view.text import Terminal
from slurm.view.watch_text import Frame, Watched

EVERY_S = 2.0
FASTEST_S = 0.2
OVER = ("merged", "incomplete", "cancelled", "planned")
"""States in which nothing will change by itself."""

Select = Callable[[], Sequence[Run]]
Label = Callable[[Run], str]
Encode = Callable[[list[Standing]], Any]


def all_over(views: Sequence[Standing]) -> bool:
    """Whether nothing will change any more by itself."""
    return all(view.state in OVER for view in views)


def never(_: Sequence[Standing]) -> bool:
    """For a view that stays until its reader leaves."""
    return False


class Follower:
    """Looks at runs again and again, cheaply: a merged one only when something in its folder has changed."""

    def __init__(self, looker: Optional[Looker] = None) -> None:
        self._looker = looker or Looker()
        self._kept: dict[str, tuple[int, Standing]] = {}
        self.damaged: dict[str, str] = {}
        """Run → the paragraph that says why it cannot be shown, or could not at some time."""
        self.unread = 0
        """Runs that the last look left out."""

    def look(self, runs: Sequence[Run]) -> list[Standing]:
        """How the runs stand now; one whose files are damaged is left out, and noted."""
        views = [view for run in runs if (view := self._look(run)) is not None]
        self.unread = len(runs) - len(views)
        return views

    def _look(self, run: Run) -> Optional[Standing]:
        try:
            changed = run.folder.stat().st_mtime_ns
            kept = self._kept.get(run.id)
            if kept is not None and kept[0] == changed:
                return kept[1]._replace(time=clock.now())
            view = self._looker.look(run)
        except (StorageError, OSError) as error:
            self.damaged[run.id] = str(error)
            return None
        if view.state == "merged":
            self._kept[run.id] = (changed, view)
        return view


def watch(
    select: Select,
    *,
    every_s: float = EVERY_S,
    label: Optional[Label] = None,
    head: Optional[Callable[[], Sequence[str]]] = None,
    over: Callable[[Sequence[Standing]], bool] = never,
    encode: Optional[Encode] = None,
    looker: Optional[Looker] = None,
) -> list[Standing]:
    """Keep runs in view until `over` says that all is, or the reader leaves; returns how they stood at last.

    `select`: the runs, in the order to be shown in. `label`: what a run is called on the screen besides its id, as the
    step of a chain. `head`: lines to stand above all. `encode`: where it is given, its value is printed as one line of
    JSON each time, instead of anything for people. Damaged runs are left out, and named on standard error at the end.
    """
    follower = Follower(looker)
    session = _Session(
        select,
        follower,
        label=label or (lambda _: ""),
        head=head or (lambda: ()),
        every_s=max(FASTEST_S, every_s),
        over=over,
    )
    try:
        if encode is not None:
            views = session.as_json(encode)
        elif watch_screen.is_capable():
            views = session.on_screen()
        else:
            views = session.by_line()
    finally:
        for text in follower.damaged.values():
            print(f"voxarray: {plain(text)}", file=sys.stderr)
    return views


class _Session:
    """One reader's view."""

    def __init__(
        self,
        select: Select,
        follower: Follower,
        *,
        label: Label,
        head: Callable[[], Sequence[str]],
        every_s: float,
        over: Callable[[Sequence[Standing]], bool],
    ) -> None:
        self.select, self.follower, self.label, self.head = select, follower, label, head
        self.every_s, self.over = every_s, over
        self._chosen: Optional[str] = None

    def on_screen(self) -> list[Standing]:
        """The full screen."""
        views = self.follower.look(self.select())
        if self.over(views):
            return views
        try:
            with watch_screen.Screen() as screen:
                while not self.over(views):
                    if self._until_next(screen, views):
                        break
                    views = self.follower.look(self.select())
        except KeyboardInterrupt:
            pass
        return views

    def _until_next(self, screen: watch_screen.Screen, views: list[Standing]) -> bool:
        """Draw, and follow keys and a new size until it is time to look again. Whether the reader leaves."""
        deadline = time.monotonic() + self.every_s
        while True:
            screen.draw(self._lines(views))
            key = screen.wait(deadline - time.monotonic())
            if key == watch_screen.LEAVE:
                return True
            if key in (watch_screen.UP, watch_screen.DOWN) and views:
                step = -1 if key == watch_screen.UP else 1
                self._chosen = views[max(0, min(len(views) - 1, self._place(views) + step))].run.id
            if key is None and time.monotonic() >= deadline:
                return False

    def _lines(self, views: list[Standing]) -> list[str]:
        watched = [Watched(view, self.label(view.run)) for view in views]
        frame = Frame(watched, self._place(views), self.every_s, self.head(), self.follower.unread)
        return watch_text.screen(frame, Terminal.of(sys.stdout), watch_screen.rows())

    def _place(self, views: list[Standing]) -> int:
        """The run in hand: the one that was chosen, else the newest at work, else the newest of all."""
        ids = [view.run.id for view in views]
        if self._chosen in ids:
            return ids.index(self._chosen)
        order = [(view.state == "running", view.run.plan.created, -place) for place, view in enumerate(views)]
        return order.index(max(order)) if order else 0

    def by_line(self) -> list[Standing]:
        """A line for each run whenever it has something new to say."""
        said: dict[str, str] = {}
        views: list[Standing] = []
        try:
            while True:
                views = self.follower.look(self.select())
                news = {view.run.id: watch_text.line(Watched(view, self.label(view.run))) for view in views}
                if self.follower.unread:
                    news[""] = watch_text.unread(self.follower.unread)
                say([f"{time.strftime('%H:%M:%S')} {text}" for run, text in news.items() if said.get(run) != text])
                said.update(news)
                if self.over(views):
                    break
                time.sleep(self.every_s)
        except KeyboardInterrupt:
            pass
        return views

    def as_json(self, encode: Encode) -> list[Standing]:
        """A JSON object a line."""
        views: list[Standing] = []
        try:
            while True:
                views = self.follower.look(self.select())
                print(msgspec.json.encode(encode(views)).decode(), flush=True)
                if self.over(views):
                    break
                time.sleep(self.every_s)
        except KeyboardInterrupt:
            pass
        return views


def say(lines: Sequence[str]) -> None:
    """Print, with what the terminal's encoding lacks replaced."""
    encoding = sys.stdout.encoding or "ascii"
    for line in lines:
        print(line.encode(encoding, "replace").decode(encoding), flush=True)
