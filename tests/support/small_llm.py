"""A language model of two layers, for runs that validate: decoding takes most of their time."""

from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from omni_avsr.model.towers import build
from tests.support.towers import llm_config, spread

# What the LoRAs adapt in these runs
TARGETS = ("q_proj", "v_proj")


def write_small_llm(folder: Path, tokenizer_file: Path) -> Path:
    """Writes the language model with a tokenizer, and returns its folder."""
    torch.manual_seed(0)
    config = llm_config()
    config.num_hidden_layers = 2
    llm = build("llm", config, torch.float32)
    spread(llm)
    llm.save_pretrained(folder)
    PreTrainedTokenizerFast.from_pretrained(tokenizer_file).save_pretrained(folder)
    return folder
