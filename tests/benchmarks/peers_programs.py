"""The job of `peers.py` as each peer's users write it: `python peers_programs.py NAME FOLDER TASKS`."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List


def work(name: str) -> Dict[str, Any]:
    """The work on one item: as the toy pipeline `tone` does it."""
    file = os.open(os.environ["TOY_SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(file, f"{name}\n".encode())
    os.close(file)
    time.sleep(float(os.environ["TOY_NAP"]))
    return {"id": name, "loud": len(name)}


def names(folder: Path) -> List[str]:
    """The items."""
    with (folder / "corpus.json").open(encoding="utf-8") as file:
        return [Path(json.loads(line)["audio_filepath"]).name for line in file]


def datatrove(folder: Path, tasks: int) -> None:
    """A reader, a step and the JSONL writer in its executor; its completion markers make it resume."""
    from datatrove.data import Document
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.base import PipelineStep
    from datatrove.pipeline.writers import JsonlWriter

    class Read(PipelineStep):
        def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:  # noqa: ARG002
            for name in names(folder)[rank::world_size]:
                yield Document(text=name, id=name)

    class Work(PipelineStep):
        def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:  # noqa: ARG002
            for document in data:
                document.metadata.update(work(document.text))
                yield document

    writer = JsonlWriter(str(folder / "output"), compression=None)
    LocalPipelineExecutor(
        pipeline=[Read(), Work(), writer], tasks=tasks, workers=tasks, logging_dir=str(folder / "logs")
    ).run()


def task(folder: str, number: int, tasks: int) -> int:
    """A task as submitit's users write it: its share, its own file, and nothing to do where that is there."""
    path = Path(folder, "output", f"{number}_of_{tasks}.jsonl")
    if not path.exists():
        rows = [work(name) for name in names(Path(folder))[number::tasks]]
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return number


def submitit(folder: Path, tasks: int) -> None:
    """An array on submitit's local executor."""
    from submitit import LocalExecutor

    executor = LocalExecutor(folder / "logs")
    executor.update_parameters(timeout_min=10)
    jobs = executor.map_array(task, [str(folder)] * tasks, list(range(tasks)), [tasks] * tasks)
    for job in jobs:
        job.result()


def lhotse_task(folder: str, number: int, tasks: int) -> None:
    """A share through its sequential writer, which goes on where an earlier one stopped."""
    from lhotse.serialization import SequentialJsonlWriter

    path = Path(folder, "output", f"{number}.jsonl")
    path.parent.mkdir(exist_ok=True)
    with SequentialJsonlWriter(path, overwrite=False) as writer:
        for name in names(Path(folder))[number::tasks]:
            if name not in writer:
                writer.write(work(name))


def lhotse(folder: Path, tasks: int) -> None:
    """Processes side by side, as its recipes have them."""
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(tasks) as pool:
        for future in [pool.submit(lhotse_task, str(folder), number, tasks) for number in range(tasks)]:
            future.result()


if __name__ == "__main__":
    {"datatrove": datatrove, "submitit": submitit, "lhotse": lhotse}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
