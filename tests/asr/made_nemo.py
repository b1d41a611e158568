"""NeMo recognisers of a quarter of a million weights in the true .nemo format: CTC, RNN-T, TDT, hybrid, AED.

For the environment asr. The CTC model is trained; the others take its encoder and learn what comes after it.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import sentencepiece
import torch
from omegaconf import OmegaConf

from tests.asr import training

WIDTH = 64
DURATIONS = [0, 1, 2, 3, 4]
CANARY_TOKENS = [
    "<|startofcontext|>", "translate", "transcribe", "en", "de", "emo:undefined", "emo:neutral", "itn", "noitn",
    "timestamp", "notimestamp", "diarize", "nodiarize", *(f"<|{number}|>" for number in range(60)),
]  # fmt: skip


def features(bands=80):
    return {
        "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor", "sample_rate": 16000,
        "normalize": "per_feature", "window_size": 0.025, "window_stride": 0.01, "window": "hann", "features": bands,
        "n_fft": 512, "log": True, "frame_splicing": 1, "dither": 1e-5, "pad_to": 0, "pad_value": 0.0,
    }  # fmt: skip


def encoder(bands=80, width=WIDTH, layers=2):
    return {
        "_target_": "nemo.collections.asr.modules.ConformerEncoder", "feat_in": bands, "feat_out": -1,
        "n_layers": layers, "d_model": width, "subsampling": "dw_striding", "subsampling_factor": 8,
        "subsampling_conv_channels": 16, "causal_downsampling": False, "ff_expansion_factor": 4,
        "self_attention_model": "rel_pos", "n_heads": 4, "att_context_size": [-1, -1], "xscaling": False,
        "untie_biases": True, "pos_emb_max_len": 5000, "conv_kernel_size": 9, "conv_norm_type": "batch_norm",
        "conv_context_size": None, "dropout": 0.0, "dropout_pre_encoder": 0.0, "dropout_emb": 0.0, "dropout_att": 0.0,
    }  # fmt: skip


def tokenizer(folder, prompts, size=64):
    """A SentencePiece model of the prompts' texts, as NeMo keeps it: with a vocab.txt beside."""
    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([prompt.text.lower() for prompt in prompts]), model_prefix=str(folder / "tokenizer"),
        vocab_size=size, model_type="bpe", character_coverage=1.0, bos_id=-1, eos_id=-1, unk_id=0,
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    pieces = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))
    (folder / "vocab.txt").write_text("".join(f"{pieces.id_to_piece(i)}\n" for i in range(1, len(pieces))))
    return {"dir": str(folder), "type": "bpe"}


def _common(tokens):
    validation = {"manifest_filepath": None, "sample_rate": 16000, "batch_size": 4, "shuffle": False,
                  "num_workers": 0, "use_start_end_token": False}  # fmt: skip
    return {
        "sample_rate": 16000, "log_prediction": False, "skip_nan_grad": False, "tokenizer": tokens,
        "preprocessor": features(), "encoder": encoder(),
        "spec_augment": {"_target_": "nemo.collections.asr.modules.SpectrogramAugmentation", "freq_masks": 0,
                         "time_masks": 0, "freq_width": 27, "time_width": 0.05},
        "train_ds": None, "validation_ds": validation, "test_ds": None, "optim": {"name": "adamw", "lr": 1e-3},
    }  # fmt: skip


def _ctc_decoder():
    return {"_target_": "nemo.collections.asr.modules.ConvASRDecoder", "feat_in": WIDTH, "num_classes": -1,
            "vocabulary": []}  # fmt: skip


def ctc_config(tokens):
    return {**_common(tokens), "ctc_reduction": "mean_volume", "decoder": _ctc_decoder(),
            "decoding": {"strategy": "greedy"}}  # fmt: skip


def transducer_config(tokens, durations=None, hybrid=False):
    """RNN-T; with `durations`, TDT; `hybrid` with a CTC decoder besides."""
    config = {
        **_common(tokens), "compute_eval_loss": False, "rnnt_reduction": "mean_volume",
        "model_defaults": {"enc_hidden": WIDTH, "pred_hidden": WIDTH, "joint_hidden": WIDTH},
        "decoder": {"_target_": "nemo.collections.asr.modules.RNNTDecoder", "normalization_mode": None,
                    "random_state_sampling": False, "blank_as_pad": True,
                    "prednet": {"pred_hidden": WIDTH, "pred_rnn_layers": 1, "t_max": None, "dropout": 0.0}},
        "joint": {"_target_": "nemo.collections.asr.modules.RNNTJoint", "log_softmax": None, "preserve_memory": False,
                  "fuse_loss_wer": False, "fused_batch_size": -1,
                  "jointnet": {"joint_hidden": WIDTH, "activation": "relu", "dropout": 0.0}},
        "decoding": {"strategy": "greedy_batch", "greedy": {"max_symbols": 10}},
        "loss": {"loss_name": "pytorch"},
        "variational_noise": {"start_step": 0, "std": 0.0},
    }  # fmt: skip
    if durations:
        config["model_defaults"].update(num_tdt_durations=len(durations), tdt_durations=durations)
        config["joint"]["num_extra_outputs"] = len(durations)
        config["decoding"].update(model_type="tdt", durations=durations)
        config["loss"] = {"loss_name": "tdt_pytorch", "tdt_pytorch_kwargs": {"durations": durations, "sigma": 0.0}}
    if hybrid:
        config["aux_ctc"] = {"ctc_loss_weight": 0.3, "use_cer": False, "ctc_reduction": "mean_batch",
                             "decoder": _ctc_decoder(), "decoding": {"strategy": "greedy"}}  # fmt: skip
    return config


def aed_config(tokens, folder):
    """Canary with the prompt of its second generation."""
    from nemo.collections.common.tokenizers.canary_tokenizer import CanaryTokenizer

    special = folder / "special"
    CanaryTokenizer.build_special_tokenizer(CANARY_TOKENS, str(special))
    slots = {
        "decodercontext": "", "source_lang": "<|en|>", "target_lang": "<|en|>", "emotion": "<|emo:undefined|>",
        "pnc": "<|pnc|>", "itn": "<|noitn|>", "diarize": "<|nodiarize|>", "timestamp": "<|notimestamp|>",
    }  # fmt: skip
    modules, classes = "nemo.collections.asr.modules", "nemo.collections.asr.parts.submodules"
    return {
        **_common(None), "label_smoothing": 0.0, "prompt_format": "canary2", "validation_ds": None,
        "prompt_defaults": [{"role": "user", "slots": slots}],
        "model_defaults": {"asr_enc_hidden": WIDTH, "lm_enc_hidden": WIDTH, "lm_dec_hidden": WIDTH},
        "tokenizer": {"dir": None, "type": "agg",
                      "langs": {"spl_tokens": {"dir": str(special), "type": "bpe"}, "en": tokens},
                      "custom_tokenizer": {
                          "_target_": "nemo.collections.common.tokenizers.canary_tokenizer.CanaryTokenizer",
                          "tokenizers": None}},
        "transf_encoder": {"_target_": f"{modules}.transformer.transformer_encoders.TransformerEncoder",
                           "num_layers": 0, "hidden_size": WIDTH, "inner_size": 128, "num_attention_heads": 4,
                           "ffn_dropout": 0.0, "attn_score_dropout": 0.0, "attn_layer_dropout": 0.0,
                           "mask_future": False, "pre_ln": True, "pre_ln_final_layer_norm": True},
        "transf_decoder": {"_target_": f"{modules}.transformer.get_nemo_transformer", "model_name": None,
                           "pretrained": False, "encoder": None, "pre_ln_final_layer_norm": True,
                           "config_dict": {"max_sequence_length": 512, "num_token_types": 0, "embedding_dropout": 0.0,
                                           "learn_positional_encodings": False, "hidden_size": WIDTH,
                                           "inner_size": 128, "num_layers": 1, "num_attention_heads": 4,
                                           "ffn_dropout": 0.0, "attn_score_dropout": 0.0, "attn_layer_dropout": 0.0,
                                           "hidden_act": "relu", "pre_ln": True, "vocab_size": None}},
        "head": {"_target_": f"{classes}.token_classifier.TokenClassifier", "num_layers": 1, "activation": "relu",
                 "log_softmax": True, "hidden_size": WIDTH, "num_classes": None, "dropout": 0.0,
                 "use_transformer_init": True},
        "decoding": {"strategy": "beam", "return_best_hypothesis": True,
                     "beam": {"beam_size": 1, "len_pen": 0.0, "max_generation_delta": 5}},
        "loss": {"_target_": "nemo.collections.common.losses.smoothed_cross_entropy.SmoothedCrossEntropyLoss",
                 "label_smoothing": 0.0, "pad_id": None},
    }  # fmt: skip


# -- building


def build(kind, folder, prompts, ctc=None):
    """Write `model.nemo` of one kind (ctc, rnnt, tdt, hybrid, aed) into a folder; `ctc`: the trained one's file."""
    from nemo.collections.asr import models
    from nemo.utils import AppState

    torch.manual_seed(0)
    target = folder / "model.nemo"
    tokens = tokenizer(folder / "tokenizer", prompts)
    if kind == "ctc":
        model = models.EncDecCTCModelBPE(cfg=OmegaConf.create(ctc_config(tokens)))
        training.train_ctc(model, training.nemo_batches(model, prompts), steps=320, stop=0.03)
        model.eval().save_to(str(target))
        return target
    trained = models.ASRModel.restore_from(str(ctc), map_location="cpu").eval()
    # a Canary that is made would look for its aligner in the file that was read last
    AppState().model_restore_path = None
    if kind == "aed":
        model = models.EncDecMultiTaskModel(cfg=OmegaConf.create(aed_config(tokens, folder)))
        training.train_decoder(model, trained, prompts)
    else:
        durations, hybrid = DURATIONS if kind == "tdt" else None, kind == "hybrid"
        config = OmegaConf.create(transducer_config(tokens, durations, hybrid))
        model = models.EncDecHybridRNNTCTCBPEModel(cfg=config) if hybrid else models.EncDecRNNTBPEModel(cfg=config)
        if hybrid:
            model.ctc_decoder.load_state_dict(trained.decoder.state_dict())
        training.train_transducer(model, trained, prompts, durations)
    model.eval().save_to(str(target))
    return target


def with_aligner(aed: Path, ctc: Path, target: Path):
    """The .nemo of a Canary with a CTC model in it that gives word times, as canary-1b-v2 has."""
    names = {"model_config.yaml": "timestamps_asr_model_config.yaml",
             "model_weights.ckpt": "timestamps_asr_model_weights.ckpt"}  # fmt: skip
    with tarfile.open(target, "w:") as archive:
        for source, renamed in ((aed, {}), (ctc, names)):
            with tarfile.open(source) as opened:
                for member in opened.getmembers():
                    if not member.isfile():
                        continue
                    name = member.name.rsplit("/", 1)[-1]
                    data = opened.extractfile(member).read()
                    entry = tarfile.TarInfo(f"./{renamed.get(name, name)}")
                    entry.size = len(data)
                    archive.addfile(entry, io.BytesIO(data))
    return target
