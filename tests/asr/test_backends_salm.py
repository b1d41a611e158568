"""The SALM, trained in the test run on 48 real prompts: by heart, whatever the batch; from a folder and a cache."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from pipelines.asr import backends
from pipelines.core.errors import UsageError
from pipelines.core.pipeline import Resources
from tests.asr import models
from tests.asr.test_backends_laws import no_network, pieces, recogniser  # noqa: F401 - fixtures

pytestmark = pytest.mark.environment("asr")


def test_it_knows_its_prompts(pieces):  # noqa: F811
    found = recogniser("salm").transcribe(pieces)
    right = [each.text == prompt.text for each, prompt in zip(found, models.known())]
    assert sum(right) >= 40, [(each.text, prompt.text) for each, prompt in zip(found, models.known())]
    assert not any(each.flagged for each, known in zip(found, right) if known)


def test_it_says_what_salm_generate_says(pieces):  # noqa: F811
    from nemo.collections.speechlm2.models import SALM
    from transformers import GenerationConfig

    model = SALM.from_pretrained(str(models.salm_complete())).eval()
    turns = [{"role": "user", "content": f"Transcribe the following: {model.audio_locator_tag}",
              "audio": [str(prompt.path)]} for prompt in models.known()[:8]]  # fmt: skip
    ids = model.generate(
        prompts=[[turn] for turn in turns],
        generation_config=GenerationConfig(
            max_new_tokens=48, do_sample=False, bos_token_id=model.text_bos_id, eos_token_id=model.text_eos_id,
            pad_token_id=model.text_pad_id,
        ),
    )  # fmt: skip
    theirs = []
    for row in ids.tolist():
        ends = row.index(model.text_eos_id) if model.text_eos_id in row else len(row)
        theirs.append(model.tokenizer.ids_to_text(row[:ends]).strip())
    assert theirs == [each.text for each in recogniser("salm").transcribe(pieces[:8])]


def test_lora_is_in_the_weights():
    from safetensors.torch import load_file

    weights = load_file(models.salm_complete() / "model.safetensors")
    assert any("lora_B" in name and each.abs().max() > 1e-4 for name, each in weights.items())
    names = [name for name, _ in recogniser("salm")._llm.named_parameters()]
    assert not [name for name in names if "lora" in name]
    assert any("embed_tokens" in name for name in names)


def test_bf16_says_the_same_of_what_it_knows(pieces):  # noqa: F811
    exact, half = (recogniser("salm", **each).transcribe(pieces) for each in ({}, {"precision": "bf16"}))
    assert sum(one.text == other.text for one, other in zip(exact, half)) >= 40


def test_from_the_hubs_cache(tmp_path, monkeypatch, pieces):  # noqa: F811
    """As `hf download` lays them: the SALM under its name, the language model's tokenizer and config under its own.

    huggingface_hub reads HF_HOME when it is imported: this is a process of its own.
    """
    import os
    import subprocess
    import sys

    from pipelines.core.paths import repository
    from tests.asr import made_salm

    made_salm.in_cache(models.built("salm").parent, tmp_path / "hub", "Tiny/salm")
    program = (
        "import sys, socket\n"
        "def refuse(*_): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\n"
        "import numpy as np\n"
        "from tests import corpus\n"
        "from tests.asr import models\n"
        "from pipelines.asr import backends\n"
        "from pipelines.core.pipeline import Resources\n"
        "one = backends.load(backends.choose('Tiny/salm'), 'Tiny/salm', {}, Resources())\n"
        "waves = [corpus.read_wave(each.path).astype(np.float32) / 32768 for each in models.known()[:4]]\n"
        "print([each.text for each in one.transcribe(waves)])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=repository(), capture_output=True, text=True, check=False,
        env={**os.environ, "HF_HOME": str(tmp_path), "PYTHONPATH": str(repository())},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == str([each.text for each in recogniser("salm").transcribe(pieces[:4])])


def test_a_text_that_does_not_end_is_flagged(pieces, monkeypatch):  # noqa: F811
    from pipelines.asr.backends import salm

    long = max(pieces, key=len)
    monkeypatch.setattr(salm, "_SPARE_TOKENS", 3 - len(long) // 1280)
    (found,) = recogniser("salm").transcribe([long])
    assert found.flagged
    assert "did not end" in found.flagged
    assert recogniser("salm").transcribe([long, *pieces[:3]])[0] == found


def spoilt(tmp_path, change):
    folder = shutil.copytree(models.salm_complete(), tmp_path / "salm")
    change(folder)
    return str(folder)


def test_weights_that_are_missing_are_not_made_up(tmp_path):
    from safetensors.torch import load_file, save_file

    def drop(folder):
        weights = load_file(folder / "model.safetensors")
        save_file({name: each for name, each in weights.items() if "layers.1.mlp" not in name},
                  folder / "model.safetensors")  # fmt: skip

    with pytest.raises(UsageError, match=r"lacks 3 of the model's weights \(llm"):
        backends.load("salm", spoilt(tmp_path, drop), {}, Resources())


def test_without_its_language_models_files(tmp_path):
    def drop(folder):
        shutil.rmtree(folder / "llm_backbone")
        (folder / "tokenizer.json").unlink()

    with pytest.raises(UsageError, match="Tiny/Qwen3-tiny it lacks"):
        backends.load("salm", spoilt(tmp_path, drop), {}, Resources())


def test_prompts(pieces):  # noqa: F811
    tag = json.loads((models.salm_complete() / "config.json").read_text())["audio_locator_tag"]
    same = recogniser("salm", prompt=f"Transcribe the following: {tag}").transcribe(pieces[:8])
    assert same == recogniser("salm").transcribe(pieces[:8])
    with pytest.raises(UsageError, match="2 places for the audio"):
        recogniser("salm", prompt=f"{tag} and {tag}")


def test_our_own_loop_says_what_generate_says(pieces, monkeypatch):  # noqa: F811
    from pipelines.asr.backends import greedy

    one = recogniser("salm")
    assert greedy.suits(one._llm)
    # far longer than what it was trained on: it repeats itself there until it may say no more
    endless = [np.concatenate(pieces[:12]), np.concatenate(pieces[12:16]), pieces[0]]

    def said(some, size):
        return [each for start in range(0, len(some), size) for each in one.transcribe(some[start : start + size])]

    ours = [said(pieces, size) for size in (48, 8, 1)] + [said(endless, size) for size in (3, 1)]
    assert ours[0] == ours[1] == ours[2]
    assert any(each.flagged for each in ours[3])
    monkeypatch.setattr(greedy, "suits", lambda _: False)
    theirs = [said(pieces, size) for size in (48, 8)] + [said(pieces[::4], 1), said(endless, 3)]
    assert len(pieces) == 48
    assert ours[0] == theirs[0] == theirs[1]
    assert ours[2][::4] == theirs[2]
    assert ours[3] == ours[4] == theirs[3]
