"""Compares the gradients of a step that two processes share with those of one process.

Tests call `check` in both processes, or run this module: --module tests.support.gradients.
"""

import sys
from types import SimpleNamespace

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from omni_avsr import OmniAVSR, OmniAVSRProcessor
from omni_avsr.model.adapters import plain
from omni_avsr.settings import TrainSettings
from omni_avsr.train.batches import TrainingBatch
from omni_avsr.train.shard import shard_llm
from omni_avsr.train.step import Training
from tests.support.towers import (
    SMALL,
    TEXTS,
    avhubert_config,
    clips,
    llm_config,
    whisper_config,
)

FRAMES = (90, 12, 9, 20)  # of each clip; the first is too long to be computed with the others
# What each of two processes has of the clips: shares differ, or one has nothing that can be read
SHARES = (([0, 1, 2], [3]), ([0, 1, 2, 3], []))


def check(tokenizer: str, strategy: str) -> None:
    """Fails unless the mean gradients of two processes are those of one, with ddp or fsdp."""
    training = _training(tokenizer)
    expected = _gradients(training, [0, 1, 2, 3])
    dist.init_process_group("gloo")
    if strategy == "fsdp":
        shard_llm(training, training.model, torch.device("cpu"), torch.float32)
        _check_shards(training.model)
    for shares in SHARES:
        own = shares[dist.get_rank()]
        for name, gradient in _gradients(training, own).items():
            dist.all_reduce(gradient)
            torch.testing.assert_close(gradient / 2, expected[name], atol=1e-6, rtol=1e-4, msg=name)
    dist.destroy_process_group()


def _training(tokenizer: str) -> Training:
    torch.manual_seed(0)
    own = PreTrainedTokenizerFast.from_pretrained(tokenizer)
    llm = llm_config()
    llm.intermediate_size = 65  # rows that two processes cannot share equally
    towers = (whisper_config(), avhubert_config(), llm)
    model = OmniAVSR.from_towers(*towers, tokenizer=own, **SMALL)
    processor = OmniAVSRProcessor(own, model.config)
    data = SimpleNamespace(clips=FRAMES)  # it only counts them
    training = Training(model, processor, TrainSettings(cache_copies=0, max_unreadable=1.0), data)
    training.log_dict = lambda *_, **__: None  # there is no trainer
    return training


def _check_shards(model: OmniAVSR) -> None:
    for weight in plain(model.llm).get_decoder().layers.parameters():
        if not weight.requires_grad:
            assert abs(2 * len(weight.to_local()) - len(weight)) <= 1


def _gradients(training: Training, clips_of_process: list[int]) -> dict[str, Tensor]:
    """The gradients of a step with these clips; zeros for weights that have none."""
    training.model.zero_grad()
    training.tokens = []  # no optimizer step has ended the one before
    training.training_step(_batch(training, clips_of_process), 0).backward()
    found = {}
    for name, weight in training.model.named_parameters():
        if weight.requires_grad:
            none = weight.grad is None
            found[name] = torch.zeros_like(weight) if none else weight.grad.clone()
    return found


def _batch(training: Training, indices: list[int]) -> TrainingBatch:
    if not indices:
        return TrainingBatch()
    known = clips(*FRAMES)
    audio = [known["audio"][index] for index in indices]
    video = [known["video"][index] for index in indices]
    return TrainingBatch(
        ids=[str(index) for index in indices],
        texts=[TEXTS[index] for index in indices],
        seconds=[1.0] * len(indices),
        media=training.processor.media(audio, video, training=True),
    )


if __name__ == "__main__":
    check(*sys.argv[1:])
    print("the gradients are equal")
