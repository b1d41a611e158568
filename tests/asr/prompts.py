"""Real speech with its text: the English prompts of Debian's asterisk-core-sounds-en, one voice, 24 minutes.

The recordings come by `tests.corpus`; the transcripts lie in the documentation of the package that they depend on,
which some container images leave out when they install: the package itself is then read.
"""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Optional

from tests import corpus

_PACKAGE = "asterisk-core-sounds-en"
_INSIDE = f"usr/share/doc/{_PACKAGE}/core-sounds-en.txt.gz"
_NOT_SPOKEN = re.compile(r"[\[(]")
"""A text such as `[beep]` tells what is heard, and not what is said."""


class Prompt(NamedTuple):
    """One prompt: its 16 kHz WAVE file, what is said in it, and how long it is."""

    path: Path
    text: str
    seconds: float


def prompts(shortest: float = 0.0, longest: float = 90.0, count: Optional[int] = None) -> list[Prompt]:
    """The first `count` prompts that last between the given seconds, by name. Raises corpus.Missing."""
    chosen = [prompt for prompt in _all() if shortest <= prompt.seconds <= longest]
    return chosen if count is None else chosen[:count]


@lru_cache(maxsize=1)
def _all() -> tuple[Prompt, ...]:
    texts = transcripts()
    spoken = {}
    for source in corpus.prompts("en"):
        # below the voice's folder: digits/1, and not the voice's own en_US_f_Allison/digits/1
        name = "/".join(source.relative_to(corpus.SOUNDS).with_suffix("").parts[1:])
        if name in texts:
            spoken[source] = texts[name]
    files = corpus.decoded(list(spoken))
    lengths = [(file.stat().st_size - 44) / 2 / corpus.RATE for file in files]
    return tuple(Prompt(*each) for each in zip(files, spoken.values(), lengths))


@lru_cache(maxsize=1)
def transcripts() -> dict[str, str]:
    """What is said in each prompt, by its name below the voice's folder."""
    found = {}
    for line in _listing().splitlines():
        name, colon, text = line.partition(":")
        if colon and not line.startswith(";") and text.strip() and not _NOT_SPOKEN.search(text):
            found[name.strip()] = text.strip()
    return found


def _listing() -> str:
    installed = Path("/") / _INSIDE
    if installed.exists():
        return gzip.decompress(installed.read_bytes()).decode("utf-8", "replace")
    kept = corpus.cache() / "core-sounds-en.txt.gz"
    if not kept.exists():
        kept.write_bytes(_of_the_package())
    return gzip.decompress(kept.read_bytes()).decode("utf-8", "replace")


def _of_the_package() -> bytes:
    """The listing out of the package's archive, which is fetched for that and not installed."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise corpus.Missing(f"the transcripts of the prompts are in Debian's package {_PACKAGE}")
    with tempfile.TemporaryDirectory() as name:
        fetched = subprocess.run(
            ["apt-get", "download", "--quiet", _PACKAGE], cwd=name, capture_output=True, text=True, check=False
        )
        archives = sorted(Path(name).glob("*.deb"))
        if not archives:
            raise corpus.Missing(f"apt-get could not fetch {_PACKAGE}: {fetched.stderr.strip()[-200:]}")
        subprocess.run(["dpkg-deb", "--extract", str(archives[0]), f"{name}/out"], check=True)
        return (Path(name) / "out" / _INSIDE).read_bytes()
