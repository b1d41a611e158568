"""The terminal's second screen, redrawn in place, with keys that need no Enter; given back as it was in any case."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import sys
import termios
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any, NoReturn, Optional, Sequence

UP, DOWN, LEAVE, RESIZED = "up", "down", "leave", "resized"
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\x1b[?1049l"
"""The second screen, without a cursor, and with long lines cut instead of wrapped; and back."""
_KEYS = {
    b"q": LEAVE,
    b"Q": LEAVE,
    b"k": UP,
    b"j": DOWN,
    b"\x1b[A": UP,
    b"\x1bOA": UP,
    b"\x1b[B": DOWN,
    b"\x1bOB": DOWN,
}
_CODE = re.compile(rb"\x1b[\[O].|.", re.DOTALL)
_UNSIZED = (80, 24)


def is_capable() -> bool:
    """Whether the output is a terminal on which a cursor can be placed."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb")


def rows() -> int:
    """The terminal's height in lines."""
    return shutil.get_terminal_size(_UNSIZED).lines or _UNSIZED[1]


class Screen:
    """Use it in a `with`. Ctrl-C stays KeyboardInterrupt; SIGTERM and a terminal that goes away become one, too."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._settings: Optional[list[Any]] = None
        self._keys = sys.stdin.fileno() if _is_terminal(0) else None
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        self._typed: list[str] = []

    def __enter__(self) -> Screen:  # noqa: PYI034 - `Self` is not in Python 3.9
        if threading.current_thread() is threading.main_thread():
            handlers = {
                signal.SIGWINCH: self._resized,
                signal.SIGTSTP: self._suspended,
                signal.SIGTERM: _interrupt,
                signal.SIGHUP: _interrupt,
            }
            self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        self._take()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._give_back()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._woken)
        os.close(self._wake)

    def draw(self, lines: Sequence[str]) -> None:
        """Rewrite the screen in place: no flicker, nothing scrolls; `lines` beyond its height are left out."""
        encoding = sys.stdout.encoding or "ascii"
        shown = [line.encode(encoding, "replace").decode(encoding) for line in lines[: rows()]]
        sys.stdout.write("\x1b[H" + "\n".join(f"{line}\x1b[0m\x1b[K" for line in shown) + "\x1b[J")
        sys.stdout.flush()

    def wait(self, seconds: float) -> Optional[str]:
        """The key that was pressed, or RESIZED, as soon as that is so; None after so many seconds without either."""
        if self._typed:
            return self._typed.pop(0)
        sources = [self._woken, *([self._keys] if self._keys is not None else [])]
        ready = select.select(sources, [], [], max(0.0, seconds))[0]
        if self._woken in ready:
            os.read(self._woken, 64)
            return RESIZED
        if not ready or self._keys is None:
            return None
        typed = b""
        with suppress(OSError):
            typed = os.read(self._keys, 64)
        if not typed:
            self._keys = None  # the terminal's input is at its end: it would be ready for ever
            return None
        self._typed += [key for code in _CODE.findall(typed) if (key := _KEYS.get(code))]
        return self._typed.pop(0) if self._typed else ""

    def _take(self) -> None:
        if self._keys is not None:
            with suppress(termios.error):
                self._settings = termios.tcgetattr(self._keys)
                quiet = termios.tcgetattr(self._keys)
                quiet[3] &= ~(termios.ICANON | termios.ECHO)  # Ctrl-C and Ctrl-Z keep their meaning
                termios.tcsetattr(self._keys, termios.TCSANOW, quiet)
        _write(_ENTER)

    def _give_back(self) -> None:
        _write(_LEAVE)
        if self._settings is not None:
            with suppress(termios.error):
                termios.tcsetattr(0, termios.TCSANOW, self._settings)

    def _resized(self, *_: object) -> None:
        with suppress(OSError):  # a full pipe wakes as well
            os.write(self._wake, b"w")

    def _suspended(self, *_: object) -> None:
        """Ctrl-Z: the shell gets its screen, and `fg` brings this one back."""
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()
        self._resized()


def _write(text: str) -> None:
    with suppress(OSError):  # a terminal that has gone away needs nothing back
        sys.stdout.write(text)
        sys.stdout.flush()


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor) and sys.stdin.fileno() == descriptor
    except (OSError, ValueError, AttributeError):
        return False


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt
