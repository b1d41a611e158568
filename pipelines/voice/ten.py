"""TEN-VAD's own library, called for every hop of 256 samples (16 ms) as its wheel does, without its Python in between.

What was found out about it by doing: it computes at hops of 256 samples whatever it is asked; a handle carries state
from one recording into the next, so each recording gets a new one; the network's state is reset every 1,875 hops
(30 s); the last partial hop is dropped; and a long recording can be split exactly: a handle that starts one period
earlier, at a multiple of 1,875 hops, gives the same bits from the next multiple on. Calls release Python's lock.
"""

from __future__ import annotations

import ctypes
import importlib.util
import platform
from collections import deque
from concurrent.futures import Future
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, Callable, Iterable, Optional, Union

import numpy as np

from pipelines.audio.resample import Float32, Int16
from pipelines.core.errors import EnvironmentNotFit, ItemError

HOP = 256
"""Samples a decision covers (16 ms)."""
PERIOD = 1875 * HOP
"""Samples after which the network's state is reset (30 s)."""
BLOCK = 16 * PERIOD
"""Samples to read at a time (8 minutes), and the least that is worth another thread: its lead-in is a 16th of it."""

Spawn = Callable[[Callable[[], Float32]], "Optional[Future[Float32]]"]
"""Starts work on an idle thread; gives None where no thread is idle."""


def nobody_idle(_: Callable[[], Float32]) -> Optional[Future[Float32]]:
    """A `Spawn` for those who use one thread a recording."""
    return None


class Ten:
    """The engine. Thread-safe. Raises EnvironmentNotFit, which names the `environment` to mend."""

    hop = HOP
    block = BLOCK

    def __init__(self, spawn: Spawn, environment: str = "vad") -> None:
        self._library = _library(environment)
        self._spawn = spawn

    def probabilities(self, blocks: Iterable[Int16]) -> Float32:
        """Speech probability of each whole hop of a recording: shape (hops,).

        `blocks` hold BLOCK samples each, the last one any number. Idle threads take blocks where there are any; the
        result does not depend on that.
        """
        results: list[Union[Float32, Future[Float32]]] = []
        handle: Optional[Handle] = None
        before: Int16 = np.empty(0, np.int16)
        try:
            for block in blocks:
                lead, before = before, block[-PERIOD:]
                future = self._spawn(partial(self.piece, lead, block)) if len(lead) else None
                if future is not None:
                    results.append(future)
                    if handle is not None:
                        handle.close()
                        handle = None
                    continue
                if handle is None:
                    handle = Handle(self._library, lead)
                results.append(handle.hops(block))
        finally:
            if handle is not None:
                handle.close()
        parts = [part.result() if isinstance(part, Future) else part for part in results]
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.float32), *parts])

    def piece(self, lead: Int16, block: Int16) -> Float32:
        """The probabilities of a block by a handle of its own, which hears the period before it first."""
        handle = Handle(self._library, lead)
        try:
            return handle.hops(block)
        finally:
            handle.close()


class Handle:
    """One state of the network, on its way through one recording."""

    def __init__(self, library: Any, lead: Int16) -> None:
        self._process, self._destroy = library.ten_vad_process, library.ten_vad_destroy
        self._pointer = ctypes.c_void_p()
        # The threshold only decides the library's own flags, which are not used: probabilities are compared here.
        if library.ten_vad_create(ctypes.addressof(self._pointer), HOP, 0.5):
            raise ItemError("TEN-VAD's library could not start on this recording (is the memory full?).")
        self.hops(lead)

    def hops(self, samples: Int16) -> Float32:
        """The probabilities of the whole hops in `samples`."""
        count = len(samples) // HOP
        out = np.empty(count, np.float32)
        flag = ctypes.c_int32()
        start, result = samples.ctypes.data, out.ctypes.data
        calls = map(
            self._process,
            repeat(self._pointer.value),
            range(start, start + count * HOP * 2, HOP * 2),
            repeat(HOP),
            range(result, result + count * 4, 4),
            repeat(ctypes.addressof(flag)),
        )
        # The calls are made one after the other without a line of Python between them; none returns anything but 0.
        deque(calls, maxlen=0)
        return out

    def close(self) -> None:
        """Free it."""
        self._destroy(ctypes.addressof(self._pointer))


def _library(environment: str = "vad") -> Any:
    """TEN-VAD's library, its functions' types declared. Raises EnvironmentNotFit with the command that mends it."""
    path = _path(environment)
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        if "libc++" not in str(error):
            raise EnvironmentNotFit(
                f"TEN-VAD's library cannot be loaded: {error}. Make the environment anew with `./voxarray env create "
                f"{environment}`, or use `--engine silero`."
            ) from None
        raise EnvironmentNotFit(
            "TEN-VAD's library needs the C++ library libc++, which this node lacks. Install it with `apt-get install "
            "libc++1` (Debian, Ubuntu; as root), or `conda install -c conda-forge libcxx` (no root needed), or use "
            "`--engine silero`, which does without."
        ) from None
    pointer = ctypes.c_void_p
    library.ten_vad_create.argtypes = [pointer, ctypes.c_size_t, ctypes.c_float]
    library.ten_vad_process.argtypes = [pointer, pointer, ctypes.c_size_t, pointer, pointer]
    library.ten_vad_destroy.argtypes = [pointer]
    return library


def _path(environment: str = "vad") -> Path:
    """The library's place inside the ten-vad wheel."""
    places = {("Linux", "x86_64"): "lib/Linux/x64/libten_vad.so"}
    mac = "lib/macOS/ten_vad.framework/Versions/A/ten_vad"
    place = mac if platform.system() == "Darwin" else places.get((platform.system(), platform.machine()))
    if place is None:
        raise EnvironmentNotFit(
            f"TEN-VAD has no library for {platform.system()} on {platform.machine()}. Use `--engine silero`, which "
            "runs everywhere."
        )
    spec = importlib.util.find_spec("ten_vad")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / place
        if path.is_file():
            return path
    raise EnvironmentNotFit(
        f"The ten-vad package is not in this environment. Make it with `./voxarray env create {environment}`, or `pip "
        "install ten-vad==1.0.6.9`."
    )
