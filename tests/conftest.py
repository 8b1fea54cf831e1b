"""Tiny towers of the real classes, a tokenizer, and clips, all seeded."""

import os
from dataclasses import replace

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from omni_avsr import AVHubertEncoder, OmniAVSR, OmniAVSRProcessor
from omni_avsr.model.towers import build
from omni_avsr.settings import TrainSettings
from tests.support.corpus import write_split
from tests.support.towers import SMALL, TEXTS, avhubert_config, llm_config, spread, whisper_config

CLIPS = {"train": 24, "valid": 6, "test": 6}  # of the small corpus


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory):
    """A folder with a byte-level tokenizer."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>", "<pad>"],
    )
    trained.train_from_iterator(TEXTS, trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tokenizer(tokenizer_file):
    return PreTrainedTokenizerFast.from_pretrained(tokenizer_file)


@pytest.fixture(scope="session")
def tower_folders(tmp_path_factory, tokenizer_file):
    """Three towers on disk, as a user's downloads are."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("towers")
    build("audio", whisper_config(), torch.float32).save_pretrained(folder / "audio")
    AVHubertEncoder(avhubert_config()).save_pretrained(folder / "video")
    llm = build("llm", llm_config(), torch.float32)
    spread(llm)
    llm.save_pretrained(folder / "llm")
    PreTrainedTokenizerFast.from_pretrained(tokenizer_file).save_pretrained(folder / "llm")
    return {kind: str(folder / kind) for kind in ("audio", "video", "llm")}


@pytest.fixture(scope="session")
def make(tower_folders):
    """Builds a model on those towers, its adapters made non-zero, and its processor."""

    def build_model(**settings):
        torch.manual_seed(1)
        model = OmniAVSR.from_towers(**{**tower_folders, **SMALL, **settings})
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(tower_folders["llm"])
        return model, OmniAVSRProcessor(tokenizer, model.config)

    return build_model


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """The label file of each split of a small corpus."""
    root = tmp_path_factory.mktemp("corpus")
    written = {}
    for seed, (split, clips) in enumerate(CLIPS.items()):
        written[split] = write_split(root, split, clips, seed)
    return written


@pytest.fixture(scope="session")
def small_settings(files, tower_folders):
    """A small run on the small corpus and towers, which still needs a folder."""
    return TrainSettings(
        data=files["train"],
        valid=files["valid"],
        audio_encoder=tower_folders["audio"],
        video_encoder=tower_folders["video"],
        llm=tower_folders["llm"],
        lora_rank=4,
        lora_alpha=8.0,
        projector_width=16,
        max_frames=120,
        max_steps=2,
        warmup_steps=1,
        valid_clips=2,
        max_new_tokens=8,
        logger="csv",
    )


@pytest.fixture
def settings(small_settings, tmp_path):
    return replace(small_settings, out=tmp_path / "run")
