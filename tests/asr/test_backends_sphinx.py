"""PocketSphinx on real prompts: words, times, and a decoder that neither remembers nor outlives its caller."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipelines.asr import backends
from pipelines.core.paths import repository
from pipelines.core.pipeline import Resources
from tests.asr import prompts
from tests.asr.test_backends_laws import waves

pytestmark = pytest.mark.environment("asr")


@pytest.fixture(scope="module")
def chosen():
    return prompts.prompts(1.5, 4.0, 12)


@pytest.fixture(scope="module")
def sphinx():
    loaded = backends.load("pocketsphinx", "pocketsphinx", {}, Resources(cpus=2))
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def heard(sphinx, chosen):
    return sphinx.transcribe(waves(chosen), words=True)


def test_it_hears_most_words(heard, chosen):
    import jiwer
    from whisper_normalizer.english import EnglishTextNormalizer

    normal = EnglishTextNormalizer()
    truth, said = [normal(prompt.text) for prompt in chosen], [normal(each.text) for each in heard]
    assert jiwer.wer(truth, said) < 0.5, said


def test_words_have_times(heard, chosen):
    for each, prompt in zip(heard, chosen):
        assert [word.word for word in each.words] == each.text.split()
        assert all(0 <= word.start < word.end <= prompt.seconds for word in each.words)


def test_what_was_heard_before_changes_nothing(sphinx, heard, chosen):
    """As PocketSphinx comes, a third of the texts' scores depend on it."""
    assert sphinx.transcribe(waves(chosen)[::-1], words=True)[::-1] == heard


def test_calls_at_once(sphinx, heard, chosen):
    assert sphinx.concurrency == 2
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda wave: sphinx.transcribe([wave], words=True)[0], waves(chosen)))
    assert found == heard


def test_silence_and_scraps_are_empty(sphinx):
    scraps = [np.zeros(0, np.float32), np.ones(1, np.float32), np.zeros(16000, np.float32)]
    assert [each.text for each in sphinx.transcribe(scraps)] == ["", "", ""]


def test_a_decoder_that_dies_is_replaced(chosen):
    one = backends.load("pocketsphinx", "pocketsphinx", {}, Resources())
    wave = waves(chosen[:1])
    before = one.transcribe(wave)
    process = one._all[0]._process
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(RuntimeError, match="ended with exit status -9"):
        one.transcribe(wave)
    assert one.transcribe(wave) == before
    last = one._all[0]._process
    one.close()
    assert last.returncode == 0


def test_decoders_end_with_their_caller():
    program = (
        "import os, signal, numpy as np\n"
        "from pipelines.asr import backends\n"
        "from pipelines.core.pipeline import Resources\n"
        "one = backends.load('pocketsphinx', 'pocketsphinx', {}, Resources())\n"
        "one.transcribe([np.random.default_rng(0).normal(0, 0.1, 4000).astype(np.float32)])\n"
        "print(one._all[0]._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=repository(), capture_output=True, text=True, check=False
    )
    pid = int(done.stdout)
    until = time.monotonic() + 20
    while time.monotonic() < until:
        command = Path(f"/proc/{pid}/cmdline")
        if not command.exists() or b"sphinx" not in command.read_bytes():
            break
        time.sleep(0.1)
    else:
        pytest.fail("the decoder outlived its caller")
