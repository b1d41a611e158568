"""Which recogniser a model is for, where it lies, and what is said when it is not there. Nothing heavy is imported."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from pipelines.asr import backends
from pipelines.asr.backends import known, locate
from pipelines.core.errors import UsageError
from pipelines.core.paths import repository
from pipelines.core.pipeline import Resources

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
SALM_CONFIG = {"pretrained_llm": "Qwen/Qwen3-1.7B", "perception": {"encoder": {}}, "prompt_format": "qwen"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "hf" / "hub"


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def snapshot(cache, name, files):
    folder = cache / f"models--{name.replace('/', '--')}"
    write(folder, {"refs/main": COMMIT})
    return write(folder / "snapshots" / COMMIT, files)


def nemo(path, target="nemo.collections.asr.models.ctc_bpe_models.EncDecCTCModelBPE", weights=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        entries = {"./model_config.yaml": f"sample_rate: 16000\ntarget: {target}\n".encode()}
        if weights:
            entries["./model_weights.ckpt"] = b"weights"
        for name, data in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


TRANSFORMERS = {"model.safetensors": "", "preprocessor_config.json": {}, "vocab.json": {}}


@pytest.mark.parametrize(
    ("files", "backend"),
    [
        ({"config.json": SALM_CONFIG}, "salm"),
        ({"config.json": {"model_type": "wav2vec2"}, **TRANSFORMERS}, "transformers"),
        ({"config.json": {"model_type": "hubert"}, **TRANSFORMERS}, "transformers"),
        ({"config.json": {"model_type": "whisper"}, **TRANSFORMERS}, "transformers"),
        ({"model_config.yaml": "", "model_weights.ckpt": ""}, "nemo"),
    ],
)
def test_a_folder_tells_who_runs_it(tmp_path, cache, files, backend):
    folder = write(tmp_path / "model", files)
    assert backends.choose(str(folder)) == backend
    snapshot(cache, "Somebody/their-own_model.2", files)
    assert backends.choose("Somebody/their-own_model.2") == backend


def test_a_nemo_file_is_told_by_what_is_in_it(tmp_path):
    file = nemo(tmp_path / "model" / "any-name.nemo")
    assert backends.choose(str(file)) == backends.choose(str(file.parent)) == "nemo"
    assert locate.locate(str(file.parent)).path == file


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("pocketsphinx", "pocketsphinx"),
        ("nvidia/canary-qwen-2.5b", "salm"),
        ("nvidia/parakeet-tdt-0.6b-v3", "nemo"),
        ("nvidia/parakeet-rnnt-1.1b", "nemo"),
        ("nvidia/canary-1b-v2", "nemo"),
        ("nvidia/stt_en_fastconformer_ctc_large", "nemo"),
        ("facebook/wav2vec2-large-960h", "transformers"),
        ("facebook/hubert-large-ls960-ft", "transformers"),
        ("openai/whisper-large-v3-turbo", "transformers"),
    ],
)
def test_published_names_are_known_before_they_are_here(name, backend):
    assert backends.choose(name) == backend


@pytest.mark.parametrize("name", ["nowhere", "./nowhere", "/nowhere/at/all", "a/b/c", "", "pocketSphinx"])
def test_what_is_neither_here_nor_a_name_is_refused(name):
    with pytest.raises(UsageError, match="pocketsphinx"):
        backends.choose(name) if name else locate.choose("no model")


def test_a_model_that_is_not_here_says_which_files_to_fetch_and_where(cache):
    with pytest.raises(UsageError) as error:
        locate.locate("nvidia/canary-qwen-2.5b")
    said = str(error.value)
    assert "hf download nvidia/canary-qwen-2.5b config.json model.safetensors" in said
    assert "hf download Qwen/Qwen3-1.7B config.json tokenizer_config.json tokenizer.json" in said
    assert "HF_HOME" in said
    assert str(cache) in said
    assert "llm_backbone/" in said
    assert "\n" not in said
    with pytest.raises(UsageError, match=r"hf download nvidia/parakeet-tdt-1.1b parakeet-tdt-1\.1b\.nemo"):
        locate.locate("nvidia/parakeet-tdt-1.1b")
    with pytest.raises(UsageError, match=r"hf download Somebody/else`"):
        locate.locate("Somebody/else")


@pytest.mark.parametrize("name", sorted(known.MODELS))
def test_every_known_model_says_how_to_get_it(name):
    with pytest.raises(UsageError, match="hf download") as error:
        locate.locate(name)
    assert known.MODELS[name].size in str(error.value)


def test_an_incomplete_model_says_what_it_lacks(cache):
    snapshot(cache, "nvidia/canary-qwen-2.5b", {"config.json": SALM_CONFIG})
    with pytest.raises(UsageError, match=r"lacks model\.safetensors"):
        locate.locate("nvidia/canary-qwen-2.5b")
    snapshot(cache, "facebook/wav2vec2-large-960h", {"config.json": {"model_type": "wav2vec2"}})
    with pytest.raises(UsageError, match=r"lacks model\.safetensors, preprocessor_config\.json, vocab\.json"):
        locate.locate("facebook/wav2vec2-large-960h")


TOKENIZER = {"tokenizer_config.json": {}, "tokenizer.json": {}}


def test_a_salm_needs_its_language_models_tokenizer_and_shape(tmp_path, cache):
    folder = write(tmp_path / "salm", {"config.json": SALM_CONFIG, "model.safetensors": ""})
    with pytest.raises(UsageError) as error:
        locate.locate(str(folder))
    said = str(error.value)
    assert "hf download Qwen/Qwen3-1.7B" in said
    assert "of Qwen/Qwen3-1.7B it lacks tokenizer_config.json, tokenizer.json, config.json" in said
    assert str(folder / "llm_backbone" / "config.json") in said
    write(folder, TOKENIZER)
    with pytest.raises(UsageError, match=r"it lacks config\.json"):
        locate.locate(str(folder))
    write(folder, {"llm_backbone/config.json": {}})
    assert locate.locate(str(folder)).path == folder


def test_a_salms_language_model_may_be_in_the_cache(tmp_path, cache):
    folder = write(tmp_path / "salm", {"config.json": SALM_CONFIG, "model.safetensors": ""})
    snapshot(cache, "Qwen/Qwen3-1.7B", {"config.json": {}, **TOKENIZER})
    assert locate.locate(str(folder)).backend == "salm"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"notes.txt": "x"}, "neither config.json nor a .nemo file"),
        ({}, "it holds nothing"),
        ({"config.json": "{"}, "cannot be read"),
        ({"config.json": {"model_type": "bert"}}, "model_type 'bert'"),
        ({"config.json": []}, "model_type None"),
    ],
)
def test_folders_that_hold_no_recogniser(tmp_path, files, said):
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(UsageError, match=said):
        backends.choose(str(write(folder, files)))


def test_nemo_files_that_are_none(tmp_path):
    whole = nemo(tmp_path / "whole.nemo").read_bytes()
    (tmp_path / "cut.nemo").write_bytes(whole[:300])
    (tmp_path / "page.nemo").write_text("<html>not found</html>" * 100)
    for name in ("cut", "page"):
        with pytest.raises(UsageError, match=r"not a whole one|is not a \.nemo model"):
            backends.choose(str(tmp_path / f"{name}.nemo"))
    nemo(tmp_path / "empty.nemo", weights=False)
    with pytest.raises(UsageError, match=r"no model_weights\.ckpt"):
        backends.choose(str(tmp_path / "empty.nemo"))
    nemo(tmp_path / "speaks.nemo", target="nemo.collections.tts.models.FastPitchModel")
    with pytest.raises(UsageError, match="FastPitchModel"):
        backends.choose(str(tmp_path / "speaks.nemo"))
    with pytest.raises(UsageError, match="Give the file itself"):
        backends.choose(str(tmp_path))


def test_versions_are_told_apart(tmp_path, cache):
    snapshot(cache, "facebook/wav2vec2-base-960h", {"config.json": {"model_type": "wav2vec2"}, **TRANSFORMERS})
    assert locate.locate("facebook/wav2vec2-base-960h").version == COMMIT
    folder = write(tmp_path / "model", {"config.json": {"model_type": "wav2vec2"}, **TRANSFORMERS})
    first = locate.locate(str(folder)).version
    assert locate.locate(str(folder)).version == first
    write(folder, {"model.safetensors": "other weights"})
    assert locate.locate(str(folder)).version != first


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({"HF_HUB_CACHE": "/a/cache", "HF_HOME": "/b"}, "/a/cache"),
        ({"HF_HOME": "/b"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
    ],
)
def test_the_hubs_cache_is_where_its_own_tools_put_it(monkeypatch, variables, place):
    monkeypatch.delenv("HF_HOME")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert locate.cache() == Path(place)


def test_a_model_that_changed_its_kind_since_the_run_began(tmp_path):
    file = nemo(tmp_path / "model.nemo")
    with pytest.raises(UsageError, match="it changed since the run began"):
        backends.load("salm", str(file), {}, Resources())


def test_choosing_imports_nothing_heavy(tmp_path):
    program = (
        "import sys; from pipelines.asr import backends; backends.choose(sys.argv[1]); "
        "print([name for name in ('torch', 'nemo', 'transformers', 'peft') if name in sys.modules])"
    )
    file = nemo(tmp_path / "model.nemo")
    done = subprocess.run(
        [sys.executable, "-c", program, str(file)], cwd=repository(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
