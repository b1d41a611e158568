"""Training of the tiny models until they know their prompts by heart. For the environment asr."""

from __future__ import annotations

import time

import torch

from tests import corpus

BATCH = 12


def waves(prompts):
    """The samples of prompts (float32, ±1)."""
    return [torch.from_numpy(corpus.read_wave(prompt.path).astype("float32") / 32768) for prompt in prompts]


def letters(text):
    """What a model of letters can say of a text."""
    return "".join(each for each in text.lower() if each.isalpha() or each in " '").strip()


def padded(rows, value=0):
    """Rows as one tensor, and their lengths."""
    lengths = torch.tensor([len(row) for row in rows])
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value), lengths


def fit(parameters, loss_of_batch, count, *, steps, peak, stop):
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


def lengthened(rows):
    """With silence around what is shorter than a second, as NeMo's `transcribe` has it for a Canary."""
    lacking = [max(0, corpus.RATE - len(row)) for row in rows]
    return [torch.nn.functional.pad(row, (each // 2, each - each // 2)) for row, each in zip(rows, lacking)]


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

    print("ctc", *fit(list(model.parameters()), loss, len(signals), steps=steps, peak=3e-3, stop=stop))


def train_wav2vec2(model, extractor, tokenizer, prompts, *, steps, stop):
    """Train a CTC model of transformers, each prompt by itself: it would hear the padding of a batch."""
    heard = [extractor(wave.numpy(), sampling_rate=corpus.RATE).input_values[0] for wave in waves(prompts)]
    signals = [torch.from_numpy(each) for each in heard]
    texts = [torch.tensor(tokenizer(letters(prompt.text).upper()).input_ids) for prompt in prompts]
    model.train()

    def one(place):
        scores = model(signals[place][None]).logits[0].log_softmax(dim=-1)
        return torch.nn.functional.ctc_loss(scores, texts[place], (len(scores),), (len(texts[place]),), blank=0)

    def loss(chosen):
        return torch.stack([one(place) for place in chosen]).mean()

    print("wav2vec2", *fit(list(model.parameters()), loss, len(signals), steps=steps, peak=1.5e-3, stop=stop))


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

    print("salm", *fit(list(model.parameters()), loss, len(signals), steps=steps, peak=1.5e-3, stop=stop))


# -- models that share the trained CTC model's encoder: what comes after it learns in seconds


def encoded(model, ctc, heard):
    """What the CTC model's encoder, put into `model`, makes of waves: (wave, width, frames), and frames of each."""
    model.encoder.load_state_dict(ctc.encoder.state_dict())
    model.eval()
    signal, lengths = padded(heard)
    with torch.no_grad():
        features, counts = ctc.preprocessor(input_signal=signal, length=lengths)
        return model.encoder(audio_signal=features, length=counts)


def alignments(ctc, heard, frames):
    """The tokens of each prompt as the CTC model says them, each with its frame."""
    blank = ctc.decoder.num_classes_with_blank - 1
    best = ctc.decoder(encoder_output=heard).argmax(dim=-1).tolist()
    found = []
    for row, count in zip(best, frames.tolist()):
        before = [blank, *row]
        found.append([(at, row[at]) for at in range(count) if row[at] not in (blank, before[at])])
    return found


def train_transducer(model, ctc, prompts, durations=None):
    """Teach an RNN-T or TDT to say each token where the CTC model says it: one path instead of the sum over all."""
    heard, frames = encoded(model, ctc, waves(prompts))
    spoken = alignments(ctc, heard, frames)
    blank = model.decoder.blank_idx
    paths = [_path(tokens, count, blank, durations) for tokens, count in zip(spoken, frames.tolist())]
    texts, counts = padded([torch.tensor([token for _, token in tokens]) for tokens in spoken])
    parameters = [*model.decoder.parameters(), *model.joint.parameters()]
    seen = model.joint.project_encoder

    def loss(chosen):
        said, _, _ = model.decoder(targets=texts[chosen], target_length=counts[chosen])
        scores = model.joint.joint_after_projection(
            seen(heard[chosen].transpose(1, 2)), model.joint.project_prednet(said.transpose(1, 2))
        )
        rows = [(row, *step) for row, place in enumerate(chosen) for step in paths[place]]
        row, at, emitted, label, duration = torch.tensor(rows).T
        nodes = scores[row, at, emitted]
        total = torch.nn.functional.cross_entropy(nodes[:, : blank + 1], label)
        return total + torch.nn.functional.cross_entropy(nodes[:, blank + 1 :], duration) if durations else total

    with torch.enable_grad():
        print("transducer", *fit(parameters, loss, len(prompts), steps=200, peak=5e-3, stop=0.01))


def _path(tokens, count, blank, durations):
    """The steps of an alignment: (frame, tokens said before, token or blank, index of the frames to go on)."""
    steps, at, said = [], 0, 0
    while at < count:
        here = said < len(tokens) and tokens[said][0] == at
        label = tokens[said][1] if here else blank
        emitted, said = said, said + here
        ahead = (tokens[said][0] if said < len(tokens) else count) - at
        onward = min(ahead, max(durations)) if durations else 1 - here
        steps.append((at, emitted, label, onward))
        at += onward
    return steps


def train_decoder(model, ctc, prompts):
    """Teach the decoder of a Canary the prompts' texts."""
    heard, frames = encoded(model, ctc, lengthened(waves(prompts)))
    mask = (torch.arange(heard.shape[2]) < frames[:, None]).float()
    ids, said = [], []
    for prompt in prompts:
        slots = {"source_lang": "en", "target_lang": "en", "pnc": "yes", "itn": "no", "timestamp": "no",
                 "diarize": "no", "emotion": "<|emo:undefined|>", "decodercontext": ""}  # fmt: skip
        answer = {"text": prompt.text.lower(), "prompt_language": "en"}
        dialog = model.prompt.encode_dialog([{"role": "user", "slots": slots}, {"role": "assistant", "slots": answer}])
        ids.append(dialog["input_ids"])
        said.append(dialog["mask"].long())
    ids, counts = padded(ids, value=model.tokenizer.pad_id)
    said, _ = padded(said)
    parameters = [*model.transf_decoder.parameters(), *model.log_softmax.parameters()]

    def loss(chosen):
        real = (torch.arange(ids.shape[1] - 1) < counts[chosen][:, None] - 1).long()
        states = model.transf_decoder(
            input_ids=ids[chosen, :-1], decoder_mask=real, encoder_embeddings=heard[chosen].transpose(1, 2),
            encoder_mask=mask[chosen],
        )  # fmt: skip
        scores = model.log_softmax(hidden_states=states)
        target = ids[chosen, 1:].where(said[chosen, 1:].bool(), -100)
        return torch.nn.functional.nll_loss(scores.flatten(0, 1), target.flatten(), ignore_index=-100)

    with torch.enable_grad():
        print("decoder", *fit(parameters, loss, len(prompts), steps=300, peak=3e-3, stop=0.02))
