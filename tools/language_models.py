"""Language models that can read the features of the encoders, and their tokenizers.

A language model of text is slow to learn to read a prefix of features. So these learn it here, with
all their parameters, at every rate, in noise, and from audio, video and both. The projectors,
markers and task tokens that they learn with are thrown away afterwards.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from transformers import AutoTokenizer, LlamaConfig, PreTrainedTokenizerBase

from omni_avsr.model import OmniAVSR, OmniAVSRProcessor
from omni_avsr.model.adapters import plain
from tools.augment import Noise
from tools.corpus import ENGLISH, SETS, Clips, Corpus, sentences_of
from tools.encoders import FOLDERS
from tools.loop import Plan, Result, train
from tools.reading import Lesson, reading_loss, show_result, word_errors
from tools.tokenizer import new_tokenizer

HEAD = 32  # numbers of an attention head, for which serving engines have kernels


class Size(NamedTuple):
    """A language model, and what it reads."""

    width: int
    layers: int
    feed_forward: int
    pieces: int = 1024  # of its tokenizer, at most
    sets: Sequence[str] = ENGLISH


SIZES = {
    "tiny-s": Size(width=96, layers=2, feed_forward=256),
    "tiny-m": Size(width=160, layers=3, feed_forward=432),
    "tiny-l": Size(width=256, layers=4, feed_forward=688),
    "tiny-multi": Size(width=192, layers=3, feed_forward=512, pieces=3072, sets=tuple(SETS)),
}
AUDIO_RATES = tuple(range(2, 17))
VIDEO_RATES = tuple(range(1, 6))
MEASURED_RATES = [(4, 2)]
ONLY_HEARS = 0.3  # share of the steps, at the beginning, that learn ASR only


def pretrain(
    size: str, clips: Clips, held_out: Mapping[str, Corpus], plan: Plan, out: Path
) -> Result:
    """Trains a language model, writes its folder, and returns its result."""
    torch.manual_seed(plan.seed)
    shape = SIZES[size]
    tokenizer = plan.work / f"tokenizer-{shape.pieces}"
    if not tokenizer.is_dir():
        new_tokenizer(clips.texts, shape.pieces, tokenizer)
    shutil.copytree(tokenizer, out / size, dirs_exist_ok=True)
    reader, processor = new_reader(size, out)
    modules = nn.ModuleDict({"reader": reader}).to(clips.device)
    lesson = Lesson(sentences_of(shape.sets, plan.seed), ONLY_HEARS)
    loss = reading_loss(reader, processor, clips.texts, plan, lesson)
    result = train(plan, modules, loss, clips, Noise())
    result["wer"] = word_errors(reader, processor, held_out, MEASURED_RATES)
    result["parameters"] = save(reader, out / size)
    show_result(size, result)
    return result


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
    plain(reader.llm).set_attn_implementation("eager")  # twice as fast to train on CPUs
    return reader, OmniAVSRProcessor(tokenizer, reader.config)


def llm_config(size: str, tokenizer: PreTrainedTokenizerBase) -> LlamaConfig:
    """Returns a Llama of this size."""
    shape = SIZES[size]
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.width // HEAD,
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
