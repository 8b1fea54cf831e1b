"""A model whose projector already finds words, for trainings of minutes on little speech.

A new projector has to find out by itself where in the sound the words are, which takes an LLM of
135 M parameters thousands of steps. Here it learns first, without the LLM, to write the sound as
the LLM's own embeddings of the words, in their order and with blanks between them (CTC). The
features are those of the frozen encoder, so this takes minutes.
"""

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from omni_avsr import OmniAVSR, OmniAVSRProcessor
from omni_avsr.data.clips import Clip
from omni_avsr.media import streams
from omni_avsr.model.compress import compress
from omni_avsr.tasks import token_count

EPOCHS = 20
BATCH = 32
OTHERS = 400  # tokens that a batch is told apart from, beside those of its own texts
SPREAD = 8  # tokens by which the lengths in a batch may differ
NOISE = 0.1  # of the features, as a share of their standard deviation
DROPOUT = 0.1
LR = 1e-3  # in the first half, after which it falls to zero
SHARPNESS = 10.0  # what cosines are multiplied with to become logits, at first
HIDDEN = 1024  # width of the projector


def write(out: Path, audio: Path, llm: Path, rate: int, clips: Sequence[Clip]) -> None:
    """Writes a model with such a projector; most clips need more audio tokens than text tokens."""
    torch.manual_seed(0)
    model = OmniAVSR.from_towers(
        audio=audio,
        llm=llm,
        method="llama-avsr",
        tasks=["asr"],
        audio_rates=[rate],
        projector_width=HIDDEN,
        video_lora_rank=0,
        dtype="bfloat16",
    )
    processor = OmniAVSRProcessor.of(model)
    texts = []
    for clip in clips:
        texts.append(processor.tokenizer(clip.text, add_special_tokens=False)["input_ids"])
    sounds = pooled_features(model, processor, clips, rate)
    embeddings = model.llm.get_input_embeddings().weight.detach().float()
    projector = model.audio_compressor.projector_of(rate)
    learn_words(projector, sounds, texts, embeddings)
    model.save_pretrained(out)


def write_coarser(out: Path, trained: Path, rate: int) -> None:
    """Writes a trained model for another rate, as its projector takes averages of any length."""
    model = OmniAVSR.from_pretrained(trained, dtype="bfloat16")
    model.config.audio_rates = [rate]
    model.save_pretrained(out)


@torch.no_grad()
def pooled_features(
    model: OmniAVSR, processor: OmniAVSRProcessor, clips: Sequence[Clip], rate: int
) -> list[Tensor]:
    """What the projector takes of each clip: the averages (N, D) of its features."""
    found: dict[int, Tensor] = {}
    by_length = sorted(range(len(clips)), key=lambda index: clips[index].frames)
    for start in range(0, len(clips), BATCH):
        batch = by_length[start : start + BATCH]
        sounds = [streams.read_audio(clips[index].sound) for index in batch]
        features = model.encode(processor.media(sounds, None))
        lengths = features.audio_lengths
        pooled = compress(features.audio.float(), lengths, rate, stack=False, keep_tail=True)
        counts = [token_count(frames, rate, True) for frames in lengths.tolist()]
        found.update(zip(batch, pooled.split(counts), strict=True))
    return [found[index] for index in range(len(clips))]


def learn_words(
    projector: nn.Module, sounds: list[Tensor], texts: list[list[int]], embeddings: Tensor
) -> None:
    """Trains the projector to write the texts as embeddings, and gives it their size."""
    size = float(embeddings.std())
    blank = nn.Parameter(size * torch.randn(1, embeddings.shape[1]))
    sharpness = nn.Parameter(torch.tensor(SHARPNESS))
    optimizer = torch.optim.AdamW([*projector.parameters(), blank, sharpness], lr=LR)
    known = sorted({token for text in texts for token in text})
    usable = [i for i, sound in enumerate(sounds) if len(sound) > len(texts[i])]
    chance = random.Random(0)
    for epoch in range(EPOCHS):
        for group in optimizer.param_groups:
            group["lr"] = LR * min(1.0, 2 * (1 - epoch / EPOCHS))
        total = 0.0
        batches = shuffled_batches(usable, [len(sound) for sound in sounds], chance)
        for batch in batches:
            candidates = chance.sample(known, min(OTHERS, len(known)))
            own = [texts[i] for i in batch]
            tokens = sorted({token for text in own for token in text}.union(candidates))
            heard = disturbed(torch.cat([sounds[i] for i in batch]))
            cosines = similarities(projector(heard), torch.cat([blank, embeddings[tokens]]))
            lengths = [len(sounds[i]) for i in batch]
            loss = ctc((sharpness * cosines).split(lengths), own, tokens)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(projector.parameters(), 1.0)
            optimizer.step()
            total += loss.item()
        print(f"warm start, epoch {epoch + 1}: CTC {total / len(batches):.2f}", flush=True)
    with torch.no_grad():
        for parameter in projector[-1].parameters():
            parameter.mul_(size)


def shuffled_batches(
    clips: Sequence[int], lengths: Sequence[int], chance: random.Random
) -> list[list[int]]:
    """The clips in batches of similar lengths, in random order."""
    order = sorted(clips, key=lambda clip: lengths[clip] + SPREAD * chance.random())
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    chance.shuffle(batches)
    return batches


def disturbed(sounds: Tensor) -> Tensor:
    """Features with noise, of which some are left out."""
    noise = NOISE * sounds.std() * torch.randn_like(sounds)
    return F.dropout(sounds + noise, DROPOUT)


def similarities(found: Tensor, known: Tensor) -> Tensor:
    """The cosines (N, K) of vectors (N, D) and (K, D)."""
    return F.normalize(found, dim=1) @ F.normalize(known, dim=1).T


def ctc(logits: Sequence[Tensor], texts: Sequence[list[int]], tokens: Sequence[int]) -> Tensor:
    """The CTC loss of the texts, given the logits (T, 1 + K) of a blank and these K tokens."""
    place = {token: number for number, token in enumerate(tokens, start=1)}  # 0 is the blank
    return F.ctc_loss(
        pad_sequence([values.log_softmax(1) for values in logits]),
        torch.tensor([place[token] for text in texts for token in text]),
        torch.tensor(list(map(len, logits))),
        torch.tensor(list(map(len, texts))),
        zero_infinity=True,
    )
