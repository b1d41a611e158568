"""The engines by their names."""

from __future__ import annotations

import threading
from typing import Iterable, Protocol

from pipelines.audio.resample import Float32, Int16
from pipelines.voice.ten import Spawn, nobody_idle


class Engine(Protocol):
    """Speech probabilities of a recording: one for every `hop` samples; `block` samples are read at a time."""

    hop: int
    block: int

    def probabilities(self, blocks: Iterable[Int16]) -> Float32:
        """Shape (frames,). `blocks` hold `block` samples each, the last one any number.

        Thread-safe; depends on the samples alone.
        """
        ...


def load(name: str, spawn: Spawn = nobody_idle, environment: str = "vad") -> Engine:
    """A new engine. `spawn` starts parts of long recordings on idle threads (`ten` alone uses it).

    Raises EnvironmentNotFit, which names the `environment` to mend.
    """
    if name == "silero":
        from pipelines.voice.silero import Silero

        return Silero(environment)
    from pipelines.voice.ten import Ten

    return Ten(spawn, environment)


_loaded: dict[str, Engine] = {}
_loading = threading.Lock()


def shared(name: str, environment: str = "vad") -> Engine:
    """This process's engine of that name, loaded when it is first asked for. Raises EnvironmentNotFit."""
    with _loading:
        if name not in _loaded:
            _loaded[name] = load(name, environment=environment)
        return _loaded[name]
