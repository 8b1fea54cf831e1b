"""What the speed benchmarks share: one model with random weights, eight clips, and the published way to run them.

The sizes are small enough for a laptop and have the shape of the published models: most of the work is the ResNet-18
at full width, and the vocabulary is as large as Llama's.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer, LlamaConfig, WhisperConfig

from omni_avsr.model import AVHubertConfig, OmniAVSR, OmniAVSRProcessor
from omni_avsr.model.adapters import plain
from omni_avsr.model.towers import locate
from omni_avsr.run import quiet
from omni_avsr.tasks import CROP_SIZE, SAMPLE_RATE, VIDEO_FPS

SECONDS = (2.0, 2.4, 3.0, 3.6, 4.0, 4.6, 5.2, 6.0)
WORDS = ("place", "red", "at", "g", "nine", "now", "set", "white", "by", "k", "two", "please", "lay", "green", "in")
WORDS_A_SECOND = 2.6
PUBLISHED = {"mask_padding": False, "keep_tail": False, "exact_audio_length": False, "audio_context": "padded"}


class PublishedWay(OmniAVSR):
    """The same model, with the work that the published code does: logits of every position, BatchNorm in train mode."""

    def train(self, mode: bool = True) -> "PublishedWay":
        super().train(mode)
        self.video_encoder.train(mode)
        return self

    def forward(self, input_ids: Tensor, attention_mask: Tensor, task: str, labels: Tensor, **routing: Any):
        """The loss as transformers 4.43 computes it."""
        llm = plain(self.llm)
        embeds = self.embed(input_ids, task, **routing)
        decoded = llm.get_decoder()(inputs_embeds=embeds, attention_mask=attention_mask, use_cache=False)
        logits = llm.get_output_embeddings()(decoded.last_hidden_state).float()
        shifted = logits[:, :-1].contiguous().flatten(0, 1)
        return Loss(F.cross_entropy(shifted, labels[:, 1:].flatten()))


class Loss:
    """All that a step asks of a forward."""

    def __init__(self, loss: Tensor):
        self.loss = loss


def model_and_processor(
    vocabulary: int = 32_000, published: bool = False, width: int = 512, **settings: Any
) -> tuple[OmniAVSR, OmniAVSRProcessor]:
    """Whisper 4 x 256, AV-HuBERT 4 x 256 behind the full ResNet-18, Llama 4 x width, omni-avsr-st."""
    quiet()
    torch.manual_seed(0)
    heads = {"num_attention_heads": 8, "num_key_value_heads": 2, "intermediate_size": 4 * width}
    llm = LlamaConfig(hidden_size=width, num_hidden_layers=4, vocab_size=vocabulary, **heads)
    audio = WhisperConfig(d_model=256, encoder_layers=4, encoder_attention_heads=4, encoder_ffn_dim=1024)
    video = AVHubertConfig(hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024)
    tokenizer = AutoTokenizer.from_pretrained(locate("tiny-m"))
    lora = {"lora_rank": 32, "lora_alpha": 32.0, "video_lora_rank": 16, "video_lora_alpha": 16.0}
    chosen = {"projector_width": 512, **lora, **(PUBLISHED if published else {}), **settings}
    kind = PublishedWay if published else OmniAVSR
    model = kind.from_towers(audio, video, llm, tokenizer=tokenizer, **chosen)
    return model, OmniAVSRProcessor(tokenizer, model.config)


def clips(seconds: tuple[float, ...] = SECONDS) -> dict[str, list[Any]]:
    """Sounds, mouths and texts of these lengths, random but for their lengths."""
    generator = torch.Generator().manual_seed(0)
    return {
        "audio": [torch.randn(round(s * SAMPLE_RATE), generator=generator) for s in seconds],
        "video": [torch.randn(round(s * VIDEO_FPS), CROP_SIZE, CROP_SIZE, generator=generator) for s in seconds],
        "text": [" ".join((WORDS * 10)[: round(s * WORDS_A_SECOND)]) for s in seconds],
    }


def gemm_peak() -> float:
    """FLOP/s of this machine's matrix product, with the threads that torch has."""
    a, b = torch.randn(2, 1536, 1536)
    return 2 * 1536**3 / min(timed(lambda: a @ b)[0] for _ in range(8))


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds of it."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def peak_mib() -> float:
    """The most memory that this process has held."""
    return _status("VmHWM")


def resident_mib() -> float:
    """The memory that this process holds."""
    return _status("VmRSS")


def _status(name: str) -> float:
    # resource.getrusage would give the peak of the process that started this one, if it was larger
    return int(Path("/proc/self/status").read_text().partition(f"{name}:")[2].split()[0]) / 1024


def apart(module: str, *arguments: object, threads: int) -> dict[str, float]:
    """What a benchmark measures in a process of its own, so that peak memory is its own."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout)


def machine(threads: object) -> str:
    """The machine, by cores and torch version."""
    return f"{os.cpu_count()} cores, torch {torch.__version__}, threads: {threads}"


class Sheet(NamedTuple):
    """What a benchmark measured."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """It as Markdown."""
        lines = [self.columns, ["---:" for _ in self.columns], *self.rows]
        return "\n".join([f"{self.title}:\n", *(f"| {' | '.join(line)} |" for line in lines)])


def show(sheet: Sheet) -> None:
    """Prints it."""
    print(sheet.markdown(), flush=True)
