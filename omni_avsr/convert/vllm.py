"""Writes what vLLM's server needs to run the LLM of a model, and what feeds it.

llm/            the LLM with its embeddings and tokenizer
adapters/SUM/   for each route, one LoRA that is the sum of its adapters
front/          the model without the LLM's layers: it makes the embeddings that vLLM is sent
"""

from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from torch import nn

from omni_avsr.convert.folder import new_folder, refuse_overwrite
from omni_avsr.decode.remote import LLM
from omni_avsr.errors import InputError
from omni_avsr.model import OmniAVSR, OmniAVSRProcessor, adapters, sums

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # the limits of a LoRA's rank that vLLM knows
LONGEST = 4096  # tokens of a prefix and its transcript


@dataclass(frozen=True)
class Exported:
    """A model that vLLM can run."""

    folder: Path
    sums: list[str]  # the names of the LoRAs
    rank: int  # of each
    targets: list[str]  # the layers that they change
    longest: int  # tokens

    @property
    def command(self) -> list[str]:
        """The command that starts vLLM's server, a line each."""
        lines = [
            f"vllm serve {quote(str(self.folder / 'llm'))}",
            f"--served-model-name {LLM}",
            f"--max-model-len {self.longest}",
            "--enable-prompt-embeds",
            "--port 8001",
        ]
        if self.sums:
            most = next(most for most in RANKS if most >= self.rank)
            modules = [f"{name}={self.folder / 'adapters' / name}" for name in self.sums]
            lines += [
                "--enable-lora",
                f"--max-loras {len(self.sums)}",
                f"--max-lora-rank {most}",
                # Otherwise embeddings get a LoRA, too, and vLLM fails at those that it is sent
                " ".join(["--lora-target-modules", *self.targets]),
                " ".join(["--lora-modules", *map(quote, modules)]),
            ]
        return lines


def export_vllm(checkpoint: str | Path, out: Path) -> Exported:
    """Writes the folder. Weights keep the types of their files."""
    refuse_overwrite(out)
    as_stored = dict.fromkeys(("audio", "video", "llm"))
    model = OmniAVSR.from_pretrained(checkpoint, dtype=as_stored)
    processor = OmniAVSRProcessor.from_pretrained(checkpoint)
    if model.config.llm_config.num_hidden_layers == 0:
        raise InputError(f"{checkpoint} was exported before: give the model that it was made of")
    all_sums = sums.all_sums(model.config)
    rank = model.config.lora_rank * max(map(len, all_sums), default=0)
    if rank > RANKS[-1]:
        raise InputError(f"a LoRA of rank {rank} is larger than vLLM takes, which is {RANKS[-1]}")
    with new_folder(out) as part:
        adapters.save_sums(model.llm, all_sums, part / "adapters")
        llm = adapters.plain(model.llm)
        llm.save_pretrained(part / "llm", state_dict=adapters.plain_state_dict(model.llm))
        processor.save_pretrained(part / "llm")
        _remove_layers(model)
        model.save_pretrained(part / "front", full=True)
        processor.save_pretrained(part / "front")
    names = [sums.name_of_sum(own) for own in all_sums]
    longest = min(LONGEST, model.config.llm_config.max_position_embeddings)
    return Exported(out, names, rank, list(model.config.lora_targets), longest)


def _remove_layers(model: OmniAVSR) -> None:
    """Removes the LLM's layers, and keeps its embeddings."""
    llm = adapters.plain(model.llm)
    llm.get_decoder().layers = nn.ModuleList()
    model.llm = llm
    for config in (llm.config, model.config.llm_config):
        config.num_hidden_layers = 0
        if getattr(config, "layer_types", None):
            config.layer_types = []
