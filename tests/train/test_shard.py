"""A sharded LLM is not read before it is sharded."""

from pathlib import Path

import torch
from transformers import LlamaConfig

from omni_avsr.model.towers import build

WIDE = LlamaConfig(
    hidden_size=1024,
    intermediate_size=4096,
    num_hidden_layers=4,
    num_attention_heads=8,
    vocab_size=320,
)


def resident() -> int:
    """The bytes of this process that are in memory, whether its own or of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = [line.split()[1] for line in lines if line.startswith(("RssAnon", "RssFile"))]
    return 1024 * sum(map(int, kilobytes))


def test_an_llm_in_the_type_of_its_file_is_read_row_by_row(tmp_path):
    build("llm", WIDE, torch.bfloat16).save_pretrained(tmp_path)
    size = (tmp_path / "model.safetensors").stat().st_size
    before = resident()
    llm = build("llm", str(tmp_path), None)
    assert llm.dtype == torch.bfloat16
    assert resident() - before < 0.2 * size
    for weight in llm.get_decoder().layers.parameters():
        rows = weight[: len(weight) // 2].clone()
        assert rows.isfinite().all()
    del rows
    assert resident() - before < 0.8 * size
