"""Training of the tiny models until they know their prompts by heart: seconds on two cores. For the environment asr."""

from __future__ import annotations

import time

import torch

from tests import corpus

BATCH = 12


def waves(prompts):
    """The samples of prompts (float32, ±1)."""
    return [torch.from_numpy(corpus.read_wave(prompt.path).astype("float32") / 32768) for prompt in prompts]


def padded(rows, value=0):
    """Rows as one tensor, and their lengths."""
    lengths = torch.tensor([len(row) for row in rows])
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value), lengths


def fit(parameters, loss_of_batch, count, steps, peak, stop):
    """Train on random batches of `count` examples with a warm-up and a linear decay; ends early at a loss of `stop`.

    Returns the steps and seconds that it took, and the last loss.
    """
    optimizer = torch.optim.AdamW(parameters, lr=peak)
    begun, recent = time.monotonic(), []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = peak * min(1.0, (step + 1) / 40) * (1 - step / steps) + 1e-5
        loss = loss_of_batch(torch.randperm(count)[:BATCH].tolist())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        recent = [*recent[-7:], loss.item()]
        if len(recent) == 8 and max(recent) < stop:
            break
    return step + 1, round(time.monotonic() - begun, 1), round(recent[-1], 4)


def nemo_batches(model, prompts):
    """Samples and tokens of prompts for a NeMo model."""
    texts = [torch.tensor(model.tokenizer.text_to_ids(prompt.text.lower())) for prompt in prompts]
    return waves(prompts), texts


def train_ctc(model, data, steps, stop):
    """Train a NeMo CTC model."""
    signals, texts = data
    model.train()
    model.preprocessor.featurizer.dither = 0.0

    def loss(chosen):
        signal, lengths = padded([signals[place] for place in chosen])
        target, counts = padded([texts[place] for place in chosen])
        scores, frames, _ = model(input_signal=signal, input_signal_length=lengths)
        return model.loss(log_probs=scores, targets=target, input_lengths=frames, target_lengths=counts)

    print("ctc", *fit(list(model.parameters()), loss, len(signals), steps, 3e-3, stop))


def train_wav2vec2(model, extractor, tokenizer, prompts, steps, stop):
    """Train a CTC model of transformers on batches of one length each, which needs no mask."""
    signals = [torch.from_numpy(extractor(wave.numpy(), sampling_rate=16000).input_values[0]) for wave in waves(prompts)]
    texts = [torch.tensor(tokenizer(prompt.text.upper()).input_ids) for prompt in prompts]
    model.train()

    def loss(chosen):
        signal, lengths = padded([signals[place] for place in chosen])
        target, counts = padded([texts[place] for place in chosen])
        scores = model(signal).logits.log_softmax(dim=-1).transpose(0, 1)
        frames = model._get_feat_extract_output_lengths(lengths)
        return torch.nn.functional.ctc_loss(scores, target, frames, counts, blank=0, zero_infinity=True)

    print("wav2vec2", *fit(list(model.parameters()), loss, len(signals), steps, 3e-3, stop))


def train_salm(model, prompts, steps, stop):
    """Train a SALM, language model, encoder and LoRA together."""
    from nemo.collections.common.prompts import PromptFormatter
    from nemo.collections.speechlm2.data.salm_dataset import left_collate_vectors

    formatter = PromptFormatter.resolve(model.cfg.prompt_format)(model.tokenizer)
    signals, ids, masks = waves(prompts), [], []
    for prompt in prompts:
        turns = [
            {"role": "user", "slots": {"message": f"Transcribe the following: {model.audio_locator_tag}"}},
            {"role": "assistant", "slots": {"message": prompt.text}},
        ]
        dialog = formatter.encode_dialog(turns=turns)
        ids.append(dialog["input_ids"])
        masks.append(dialog["mask"])
    model.train()
    model.perception.preprocessor.featurizer.dither = 0.0

    def loss(chosen):
        signal, lengths = padded([signals[place] for place in chosen])
        inputs = model.prepare_inputs({
            "audios": signal, "audio_lens": lengths,
            "input_ids": left_collate_vectors([ids[place] for place in chosen], padding_value=model.text_pad_id),
            "loss_mask": left_collate_vectors([masks[place] for place in chosen], padding_value=0).bool(),
        })  # fmt: skip
        logits = model(inputs["input_embeds"], attention_mask=inputs["attention_mask"])["logits"]
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), inputs["target_ids"].flatten(0, 1), ignore_index=-100
        )

    print("salm", *fit(list(model.parameters()), loss, len(signals), steps, 1.5e-3, stop))
