"""Two (or more) processes that take part in a trial as if each were a node, and the judgement of what they saw."""

from __future__ import annotations

import multiprocessing

from slurm.probing import shared, trials
from slurm.probing.talk import SilenceError, Talk

FORK = multiprocessing.get_context("fork")
HOSTS = ("n1", "n2")


def nothing():
    """A node whose file system does as it should."""


def one_node(rank, nodes, folder, trial, lie, patience_s, pipe):
    lie()
    place = folder / "trial"
    place.mkdir(exist_ok=True)
    try:
        pipe.send(trials.TRIALS[trial](Talk(folder / "words", str(rank), nodes, patience_s), place))
    except SilenceError as error:
        pipe.send({"silence": str(error)})


def together(folder, trial, *lies, patience_s=20.0, nodes=2, mounts=None):
    """What each node saw, in processes that begin at the same time. `mounts`: where each of them sees the folder."""
    (folder / "words").mkdir()
    lies = [*lies, *[nothing] * (nodes - len(lies))]
    started = []
    for rank, lie in enumerate(lies):
        mine, its = FORK.Pipe(duplex=False)
        process = FORK.Process(
            target=one_node,
            args=(rank, nodes, mounts[rank] if mounts else folder, trial, lie, patience_s, its),
            daemon=True,
        )
        process.start()
        started.append((process, mine))
    answers = []
    for process, pipe in started:
        assert pipe.poll(60), f"{trial} hangs"
        answers.append(pipe.recv())
        process.join(10)
    return answers


def judged(trial, answers):
    name, judge = shared._JUDGES[trial]
    return judge("t", name, dict(zip(HOSTS, answers)))
