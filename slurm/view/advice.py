"""What to do about a failure, from what its message says."""

from __future__ import annotations

import re

from pipelines.core import parts

_MEMORY = "Memory ran out. Give each task more (`--mem`), or let fewer items share it (fewer `--cpus`); then retry."
_BY_MESSAGE = (
    (r"out of memory|outofmemory|MemoryError|SIGKILL|std::bad_alloc", _MEMORY),
    (
        r"format not recogni[sz]ed|unknown format|invalid data|not audio|no audio|cannot be decoded|is damaged",
        "Play it with a player that you trust: it is damaged, or no recording. Replace it, or remove it.",
    ),
    (r"\bempty\b|0 bytes|no samples", "Copy it again from its origin, or remove it."),
    (
        r"truncated|cut short|unexpected end|premature end|ends early|became shorter",
        "Copy it again from its origin: the rest of it is missing.",
    ),
    (r"symbolic link", "The link points nowhere: mend it, or remove it."),
    (
        r"FileNotFound|no such file|does not exist|disappeared|no longer there",
        "The file was gone when its turn came: do the nodes see the same folder, and does nothing move files?",
    ),
    (r"permission|not permitted|EACCES", "The file may not be read on the nodes: mend its permissions, then retry."),
    (
        r"stale file handle|input/output error|\bEIO\b|ESTALE",
        "The storage failed, not the file: retry once it is well.",
    ),
    (r"CUDA|cuDNN|NCCL|device-side", "The GPU or its driver failed: retry; if one node stands out, exclude it."),
    (r"SIGSEGV|SIGABRT|SIGBUS|SIGFPE|SIGILL", "A library crashed on this file: play it; replace it, or leave it out."),
    (r"timed? ?out|timeout", "It took too long: see whether the file is far longer than the others, then retry."),
)
_LOST = "The whole task vanished with this item in hand: the node, or the item. Look at the task's log, then retry."
_OTHER = "Look at the log of the task that had it; once its cause is gone, retry."


def what_to_do(signature: str, message: str, kind: str) -> str:
    """One or two sentences for people."""
    if kind == parts.LOST:
        return _LOST
    text = f"{signature}\n{message}"
    return next((advice for pattern, advice in _BY_MESSAGE if re.search(pattern, text, re.IGNORECASE)), _OTHER)
