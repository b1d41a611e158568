"""`logs RUN`: the tasks' logs, whole, followed, or only what went wrong."""

from __future__ import annotations

import codecs
import io
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Iterator, Sequence

from pipelines.core import paths
from pipelines.core.errors import DONE, UsageError, plain
from pipelines.core.run import Run
from slurm import control, find, flags

_TAIL_BYTES = 16384
_SHOWN = 20
_WRONG = re.compile(
    r"error|exception|traceback|quarantin|killed|died|fault|cannot|could not|refused|no space|failed|not fit|vanished",
    re.IGNORECASE,
)


def main(arguments: Sequence[str]) -> int:
    """Show logs; returns the exit status."""
    parser = flags.Parser(prog="voxarray logs", description="The logs of a run's tasks.")
    control.add_run(parser)
    parser.add_argument("--task", metavar="N", help="the whole log of one task (default: the end of each)")
    parser.add_argument("--launch", metavar="N", help="of this launch (default: the last)")
    parser.add_argument("--follow", action="store_true", help="go on showing what is written, until Ctrl-C")
    parser.add_argument(
        "--errors", action="store_true", help="only lines that tell of something wrong, most frequent first"
    )
    options = parser.parse(arguments)
    run = find.run(options.run)
    launch = _launch(run, options.launch)
    files = list(_files(run, launch, options.task))
    if not files and not options.follow:
        print(f"{run.id} launch {launch} has no logs yet: its tasks have not started. `./voxarray status {run.id}`")
        return DONE
    if options.errors:
        _errors(files)
    else:
        _show(files, whole=options.task is not None)
    if options.follow:
        _follow(run, launch, options.task)
    return DONE


def _launch(run: Run, text: str | None) -> int:
    numbers = run.launch_numbers()
    if not numbers:
        raise UsageError(f"{run.id} has no launch yet, and so no logs.")
    if text is None:
        return numbers[-1]
    if not text.isdecimal() or int(text) not in numbers:
        raise UsageError(f"{run.id} has no launch {text}. It has {', '.join(map(str, numbers[-10:]))}.")
    return int(text)


def _files(run: Run, launch: int, task: str | None) -> Iterator[Path]:
    """The logs there are: of one task, or of all, pump and sweep too; and what Slurm caught where none started."""
    folder = paths.logs(run.id, launch)
    if task is not None:
        tasks = run.record(launch).tasks
        if not task.isdecimal() or int(task) >= tasks:
            raise UsageError(
                f"Launch {launch} of {run.id} has the tasks 0 to {tasks - 1}; {task!r} is not one of them."
            )
        path = paths.task_log(run.id, launch, int(task))
        started = [path] if path.exists() else []
        yield from started or sorted(folder.glob(f"submitit*/*_{int(task)}_0_log.out"))
        return
    yield from sorted(folder.glob("*.log"))
    if not any(folder.glob("task_*.log")):
        yield from sorted(folder.glob("submitit*/*_log.out"))


def _show(files: Sequence[Path], whole: bool) -> None:
    for path in files[:_SHOWN]:
        print(f"==> {path} <==")
        with path.open("rb") as file:
            if not whole:
                size = file.seek(0, 2)
                file.seek(max(0, size - _TAIL_BYTES // 4))
            sys.stdout.write(file.read().decode("utf-8", "replace"))
        print()
    if len(files) > _SHOWN:
        print(f"… and {len(files) - _SHOWN} more in {files[0].parent}; --task N shows one of them.")


def _errors(files: Sequence[Path]) -> None:
    """Lines that tell of something wrong, grouped by what they have in common: numbers, times and paths left out."""
    counts: Counter[str] = Counter()
    first: dict[str, tuple[Path, str]] = {}
    for path in files:
        with path.open("r", encoding="utf-8", errors="replace") as file:
            for line in file:
                text = re.sub(r"^\d{4}-\d\d-\d\dT\S+ ", "", line.strip())
                if text and _WRONG.search(text):
                    key = re.sub(r"\d+", "N", re.sub(r"/\S+", "<path>", text))[:200]
                    counts[key] += 1
                    first.setdefault(key, (path, text))
    if not counts:
        print("The logs tell of nothing that went wrong.")
    for key, count in counts.most_common(_SHOWN):
        path, text = first[key]
        print(f"{count:6,} × {plain(text[:500])}\n         first in {plain(str(path))}")


class _Tail:
    """How far one log was shown. No handle stays open: a launch may have more logs than a process may open files."""

    def __init__(self, offset: int = 0) -> None:
        self._offset = offset
        self._decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")("replace"), translate=True)

    def more(self, path: Path) -> str:
        """What was written since; all of it where the log was begun anew; nothing where it is gone."""
        try:
            size = path.stat().st_size
            if size < self._offset:
                self._offset = 0
                self._decoder.reset()
            if size == self._offset:
                return ""
            with path.open("rb") as file:
                file.seek(self._offset)
                written = file.read()
        except FileNotFoundError:
            return ""
        self._offset += len(written)
        return self._decoder.decode(written)


def _follow(run: Run, launch: int, task: str | None) -> None:
    """Print what is appended to any of the logs, and logs that appear."""
    tails = {path: _Tail(path.stat().st_size) for path in _files(run, launch, task)}
    last: Path | None = None
    try:
        while True:
            for path in _files(run, launch, task):
                text = tails.setdefault(path, _Tail()).more(path)
                if text:
                    if path != last:
                        print(f"==> {path} <==")
                    last = path
                    print(text, end="", flush=True)
            time.sleep(0.5)
    except KeyboardInterrupt:
        print()
