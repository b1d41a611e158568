"""Recognisers of transformers with few weights, in the true formats: wav2vec 2.0 in both of its kinds, and Whisper.

For the environment asr.
"""

from __future__ import annotations

import json

import torch

from tests.asr import training

LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]
_SMALL = {
    "hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 192,
    "conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
    "layerdrop": 0.0, "hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0, "final_dropout": 0.0, "apply_spec_augment": False, "pad_token_id": 0,
}  # fmt: skip


def wav2vec2(folder, prompts=None, norm="group", kind="wav2vec2", seed=0):
    """wav2vec 2.0 or HuBERT with CTC; `norm`: as -large-960h ("group") or -large-960h-lv60 ("layer").

    Trained where `prompts` are given. Its letters are those of facebook/wav2vec2-large-960h.
    """
    from transformers import (
        HubertConfig,
        HubertForCTC,
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
    )  # fmt: skip

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({letter: place for place, letter in enumerate(LETTERS)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=norm == "layer")
    tokenizer.save_pretrained(folder)
    extractor.save_pretrained(folder)
    torch.manual_seed(seed)
    shapes = {**_SMALL, "vocab_size": len(LETTERS), "feat_extract_norm": norm, "do_stable_layer_norm": norm == "layer"}
    if kind == "hubert":
        model = HubertForCTC(HubertConfig(**shapes))
    else:
        model = Wav2Vec2ForCTC(Wav2Vec2Config(**shapes, conv_bias=norm == "layer"))
    if prompts:
        training.train_wav2vec2(model, extractor, tokenizer, prompts, steps=270, stop=0.1)
    else:
        _livelier(model)
    model.eval().save_pretrained(folder)
    return folder


def _livelier(model):
    """Weights under which the letters change from frame to frame: as initialised, one letter wins everywhere."""
    with torch.no_grad():
        model.lm_head.weight.mul_(40)
        for convolution in model.base_model.feature_extractor.conv_layers:
            convolution.conv.weight.mul_(2)


def whisper(folder, seed=0):
    """A Whisper of one layer with bytes as its letters, and all special tokens in their true order."""
    from tokenizers import pre_tokenizers
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperTokenizer,
    )  # fmt: skip
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    languages = [f"<|{language}|>" for language in list(LANGUAGES)[:99]]
    special = [
        "<|endoftext|>", "<|startoftranscript|>", *languages, "<|translate|>", "<|transcribe|>", "<|startoflm|>",
        "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>", *(f"<|{step * 0.02:.2f}|>" for step in range(1501)),
    ]  # fmt: skip
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = WhisperTokenizer(vocab={letter: place for place, letter in enumerate(alphabet)}, merges=[])
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [token for token in special if token not in tokenizer.get_vocab()]}
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    ids = tokenizer.convert_tokens_to_ids
    end = ids("<|endoftext|>")
    ends = {"pad_token_id": end, "bos_token_id": end, "eos_token_id": end}
    begin = {"decoder_start_token_id": ids("<|startoftranscript|>")}
    torch.manual_seed(seed)
    model = WhisperForConditionalGeneration(WhisperConfig(
        vocab_size=len(tokenizer), num_mel_bins=80, d_model=64, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64,
        init_std=0.5, **ends, **begin,
    ))  # fmt: skip
    model.generation_config = GenerationConfig(
        max_length=448, is_multilingual=True, lang_to_id={token: ids(token) for token in languages},
        task_to_id={"transcribe": ids("<|transcribe|>"), "translate": ids("<|translate|>")},
        no_timestamps_token_id=ids("<|notimestamps|>"), prev_sot_token_id=ids("<|startofprev|>"),
        alignment_heads=[[0, 0]], return_timestamps=False, begin_suppress_tokens=[],
        suppress_tokens=[ids(token) for token in special if token != "<|endoftext|>"], **ends, **begin,
    )  # fmt: skip
    model.eval().save_pretrained(folder)
    return folder
