"""A SALM of a million weights in the format of nvidia/canary-qwen-2.5b: a tiny Qwen3, an encoder and LoRA, trained.

For the environment asr. Two layouts: one folder that has all (`complete`), or, as the hub has it, the SALM's own
files and beside them, under its own name, the language model's tokenizer and config.
"""

from __future__ import annotations

import shutil

import torch

from tests.asr import made_nemo, training

LANGUAGE_MODEL = "Tiny/Qwen3-tiny"
TAG = "<|audioplaceholder|>"
WIDTH = 96


def language_model(folder, prompts):
    """Tokenizer and config of a tiny Qwen3, as transformers saves them."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast, Qwen3Config

    bytes_ = Tokenizer(BPE())
    bytes_.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    bytes_.train_from_iterator(
        [*(prompt.text for prompt in prompts), "user assistant Transcribe the following: "], trainer
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bytes_, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )  # fmt: skip
    fast.save_pretrained(folder)
    Qwen3Config(
        vocab_size=-(-(len(fast) + 1) // 64) * 64, hidden_size=WIDTH, intermediate_size=192, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=24, max_position_embeddings=2048,
        tie_word_embeddings=True, eos_token_id=fast.eos_token_id, pad_token_id=fast.pad_token_id, bos_token_id=None,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def config(llm, width=64):
    connector = "nemo.collections.speechlm2.modules.perception"
    return {
        "pretrained_llm": str(llm), "pretrained_asr": "unused", "pretrained_weights": False, "prompt_format": "qwen",
        "audio_locator_tag": TAG, "freeze_params": [], "prevent_freeze_params": [],
        "perception": {
            "target": f"{connector}.AudioPerceptionModule", "output_dim": WIDTH,
            "encoder": made_nemo.encoder(80, width, 2), "preprocessor": made_nemo.features(),
            "modality_adapter": {"_target_": f"{connector}.IdentityConnector", "d_model": width},
        },
        "lora": {"task_type": "CAUSAL_LM", "r": 8, "lora_alpha": 16, "lora_dropout": 0.0,
                 "target_modules": ["q_proj", "v_proj"]},
        "optimizer": {"_target_": "torch.optim.AdamW"},
    }  # fmt: skip


def build(folder, prompts):
    """Write the trained SALM: `folder/model` (the SALM's files alone) and `folder/llm`; returns the former."""
    from nemo.collections.speechlm2.models import SALM

    torch.manual_seed(0)
    llm = language_model(folder / "llm", prompts)
    model = SALM(config(llm))
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    training.train_salm(model, prompts, steps=420, stop=0.02)
    settings = config(llm)
    settings["pretrained_llm"] = LANGUAGE_MODEL
    settings["perception"] = {**settings["perception"]}
    model.eval().save_pretrained(str(folder / "model"), config=settings)
    return folder / "model"


def complete(built, folder):
    """A copy of the built SALM that holds its language model's tokenizer and config: one folder, no hub."""
    shutil.copytree(built / "model", folder)
    (folder / "llm_backbone").mkdir()
    for file in (built / "llm").iterdir():
        shutil.copy(file, folder / "llm_backbone" / file.name if file.name == "config.json" else folder / file.name)
    return folder


def in_cache(built, cache, name):
    """A hub's cache that holds the built SALM under `name`, and its language model."""
    for repository, source in ((name, built / "model"), (LANGUAGE_MODEL, built / "llm")):
        folder = cache / f"models--{repository.replace('/', '--')}"
        commit = "0123456789abcdef0123456789abcdef01234567"
        shutil.copytree(source, folder / "snapshots" / commit)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(commit)
    return cache
