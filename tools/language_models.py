"""Stage 2: one tokenizer, and three language models that can read the features of the encoders.

A language model of text is slow to learn to read a prefix of features. So the three learn it here,
with all their parameters, at every rate, in noise, and from audio, video and both. The projectors,
markers and task tokens that they learn with are thrown away afterwards.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from transformers import AutoTokenizer, LlamaConfig, PreTrainedTokenizerBase

from omni_avsr.model import OmniAVSR, OmniAVSRProcessor
from omni_avsr.model.adapters import plain
from tools.augment import Noise
from tools.corpus import Clips, Corpus
from tools.encoders import FOLDERS
from tools.loop import Plan, Result, train
from tools.reading import affordable, reading_loss, show_result, word_errors
from tools.tokenizer import new_tokenizer


class Size(NamedTuple):
    """A language model, and what it takes of the stage."""

    width: int
    layers: int
    feed_forward: int
    heads: int
    share: float  # of the stage's time


SIZES = {
    "tiny-s": Size(width=96, layers=2, feed_forward=256, heads=4, share=0.15),
    "tiny-m": Size(width=192, layers=3, feed_forward=512, heads=4, share=0.55),
    "tiny-l": Size(width=208, layers=4, feed_forward=544, heads=4, share=0.3),
}
AUDIO_RATES = tuple(range(1, 17))
VIDEO_RATES = tuple(range(1, 6))
MEASURED_RATES = [(4, 2)]
TEXT_EVERY = 4  # steps, one of which also learns text without media


def pretrain(
    sizes: Sequence[str], corpus: Corpus, held_out: Mapping[str, Corpus], plan: Plan, out: Path
) -> Iterator[tuple[str, Result]]:
    """Trains the models one after another, writes their folders, and yields their results."""
    tokenizer = plan.work / "tokenizer"
    if not tokenizer.is_dir():
        new_tokenizer(corpus.texts, tokenizer)
    clips: Clips | None = None
    for size in sizes:
        torch.manual_seed(plan.seed)
        shutil.copytree(tokenizer, out / size, dirs_exist_ok=True)
        reader, processor = new_reader(size, out)
        modules = nn.ModuleDict({"reader": reader}).to(corpus.device)
        if clips is None:
            clips = affordable(corpus, reader, plan)
        own = replace(plan, name=size, seconds=plan.seconds * SIZES[size].share)
        loss = reading_loss(reader, processor, corpus.texts, plan.seed, TEXT_EVERY)
        result = train(own, modules, loss, clips, Noise())
        result["wer"] = word_errors(reader, processor, held_out, MEASURED_RATES)
        result["parameters"] = save(reader, out / size)
        show_result(size, result)
        yield size, result


def new_reader(size: str, out: Path) -> tuple[OmniAVSR, OmniAVSRProcessor]:
    """Returns a language model to train as a whole, on frozen encoders, and its processor."""
    tokenizer = AutoTokenizer.from_pretrained(out / size)
    reader = OmniAVSR.from_towers(
        audio=out / FOLDERS["audio"],
        video=out / FOLDERS["video"],
        llm=llm_config(size, tokenizer),
        tokenizer=tokenizer,
        audio_rates=AUDIO_RATES,
        video_rates=VIDEO_RATES,
        adapters=[],
        projectors="one",
        projector_width=256,
        video_lora_rank=0,
    )
    reader.llm.requires_grad_(True)
    return reader, OmniAVSRProcessor(tokenizer, reader.config)


def llm_config(size: str, tokenizer: PreTrainedTokenizerBase) -> LlamaConfig:
    """Returns a Llama of this size."""
    shape = SIZES[size]
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def save(reader: OmniAVSR, folder: Path) -> int:
    """Writes the language model in half precision and returns how many parameters it has.

    The tokens that the reader added to its vocabulary are left out.
    """
    llm = plain(reader.llm)
    llm.resize_token_embeddings(len(AutoTokenizer.from_pretrained(folder)))
    llm.eval().half().save_pretrained(folder)
    return sum(weight.numel() for weight in llm.parameters())
