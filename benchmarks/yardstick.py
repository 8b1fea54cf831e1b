"""What the speed benchmarks share: a model with random weights, eight clips, the published way.

The sizes are small enough for a laptop and have the shape of the published models: most of the work
is the ResNet-18 at full width, and the vocabulary is as large as Llama's.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer, LlamaConfig, WhisperConfig

from omni_avsr.model import (
    AVHubertConfig,
    Batch,
    OmniAVSR,
    OmniAVSRProcessor,
)
from omni_avsr.model.adapters import plain
from omni_avsr.model.avhubert import Block, FrontEnd
from omni_avsr.model.omni import OmniAVSROutput
from omni_avsr.model.towers import locate
from omni_avsr.run import silence_libraries
from omni_avsr.tasks import CROP_SIZE, SAMPLE_RATE, VIDEO_FPS

SECONDS = (2.0, 2.4, 3.0, 3.6, 4.0, 4.6, 5.2, 6.0)
SENTENCE = "place red at g nine now set white by k two please lay green in"
WORDS_PER_SECOND = 2.6
GEMM_SIZE = 1536
PUBLISHED = {
    "mask_padding": False,
    "keep_tail": False,
    "exact_audio_length": False,
    "audio_context": "padded",
}


class PublishedFrontEnd(FrontEnd):
    """Computes padded frames too, all at once, with each BatchNorm after its convolution."""

    def forward(self, video: Tensor, valid: Tensor) -> Tensor:
        hidden = self.relu3d(self.bn3d(self.conv3d(video[:, None])))  # (B, C, T, H, W)
        images = hidden.transpose(1, 2).flatten(0, 1)
        images = self.pool(images)
        for stage in self.trunk:
            for block in stage:
                images = self._block(block, images)
        return images.mean((2, 3)).unflatten(0, video.shape[:2])

    @staticmethod
    def _block(block: Block, x: Tensor) -> Tensor:
        hidden = block.relu1(block.bn1(block.conv1(x)))
        hidden = block.bn2(block.conv2(hidden))
        shortcut = x
        for layer in block.downsample:
            shortcut = layer(shortcut)
        return block.relu2(hidden + shortcut)


class PublishedWay(OmniAVSR):
    """The same model, doing the work of the published code.

    It computes the logits of every position, and keeps them until the backward pass.
    Its front end is plain, and its BatchNorm in training mode when it trains.
    """

    logits: tuple[Tensor, ...] = ()  # of the passes of a step

    def forget(self, _: Tensor) -> None:
        """Frees the logits, as a step does that returns its loss."""
        self.logits = ()

    def train(self, mode: bool = True) -> "PublishedWay":
        super().train(mode)
        assert self.video_encoder is not None
        self.video_encoder.train(mode)
        return self

    def forward(self, batch: Batch) -> OmniAVSROutput:
        """The loss as transformers 4.43 computes it."""
        llm = plain(self.llm)
        decoder = llm.get_decoder()
        decoded = decoder(
            inputs_embeds=self.embed(batch),
            attention_mask=batch.attention_mask,
            use_cache=False,
        )
        logits = llm.get_output_embeddings()(decoded.last_hidden_state).float()
        self.logits += (logits,)
        predictions = logits[:, :-1].contiguous().flatten(0, 1)
        assert batch.labels is not None
        labels = batch.labels[:, 1:].flatten().to(predictions.device)
        loss = F.cross_entropy(predictions, labels)
        loss.register_hook(self.forget)
        return OmniAVSROutput(loss=loss)


def model_and_processor(
    vocabulary: int = 32_000, published: bool = False, width: int = 512, **settings: Any
) -> tuple[OmniAVSR, OmniAVSRProcessor]:
    """An omni-avsr-st of four layers per tower.

    Whisper and AV-HuBERT are 256 wide, the latter behind the full ResNet-18.
    """
    silence_libraries()
    torch.manual_seed(0)
    audio = WhisperConfig(
        d_model=256, encoder_layers=4, encoder_attention_heads=4, encoder_ffn_dim=1024
    )
    video = AVHubertConfig(
        hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024
    )
    llm = LlamaConfig(
        hidden_size=width,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        intermediate_size=4 * width,
        vocab_size=vocabulary,
    )
    chosen = {
        "projector_width": 512,
        "lora_rank": 32,
        "lora_alpha": 32.0,
        "video_lora_rank": 16,
        "video_lora_alpha": 16.0,
        **(PUBLISHED if published else {}),
        **settings,
    }
    tokenizer = AutoTokenizer.from_pretrained(locate("tiny-m"))
    kind = PublishedWay if published else OmniAVSR
    model = kind.from_towers(audio, video, llm, tokenizer=tokenizer, **chosen)
    if published:
        plain(model.video_encoder).frontend.__class__ = PublishedFrontEnd
    return model, OmniAVSRProcessor(tokenizer, model.config)


@dataclass(frozen=True)
class Clips:
    """Sounds (S,), mouths (T, 88, 88) and texts."""

    audio: list[Tensor]
    video: list[Tensor]
    texts: list[str]


def clips(seconds: Sequence[float] = SECONDS) -> Clips:
    """Random clips of these lengths."""
    generator = torch.Generator().manual_seed(0)
    words = SENTENCE.split() * 10
    audio, video, texts = [], [], []
    for length in seconds:
        samples = round(length * SAMPLE_RATE)
        audio.append(torch.randn(samples, generator=generator))
    for length in seconds:
        frames = round(length * VIDEO_FPS)
        video.append(torch.randn(frames, CROP_SIZE, CROP_SIZE, generator=generator))
        texts.append(" ".join(words[: round(length * WORDS_PER_SECOND)]))
    return Clips(audio, video, texts)


def gemm_peak() -> float:
    """FLOP/s of this machine's matrix product, with torch's threads."""
    a, b = torch.randn(2, GEMM_SIZE, GEMM_SIZE)
    times = [timed(lambda: a @ b).wall for _ in range(8)]
    return 2 * GEMM_SIZE**3 / min(times)


@dataclass(frozen=True, order=True)
class Seconds:
    """How long something took."""

    wall: float
    cpu: float


def timed(work: Callable[[], Any]) -> Seconds:
    """The seconds that it takes."""
    wall = time.perf_counter()
    cpu = time.process_time()
    work()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def peak_mib() -> float:
    """The most memory that this process has held."""
    return _status("VmHWM")


def resident_mib() -> float:
    """The memory that this process holds."""
    return _status("VmRSS")


def _status(name: str) -> float:
    # The peak of resource.getrusage may be that of the process that started this one
    text = Path("/proc/self/status").read_text()
    value = text.partition(f"{name}:")[2].split()[0]
    return int(value) / 1024


def apart(module: str, *arguments: object, threads: int) -> dict[str, float]:
    """What a benchmark measures in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout)


def machine(threads: object) -> str:
    """The machine, by its cores and the version of torch."""
    return f"{os.cpu_count()} cores, torch {torch.__version__}, threads: {threads}"


@dataclass(frozen=True)
class Sheet:
    """A table of what a benchmark measured."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [f"{self.title}:\n", _markdown_row(self.columns)]
        lines.append(_markdown_row(["---:"] * len(self.columns)))
        lines += map(_markdown_row, self.rows)
        return "\n".join(lines)


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def show(sheet: Sheet) -> None:
    """Prints a table."""
    print(sheet.markdown(), flush=True)


def write_tables(page: Path, sheets: Sequence[Sheet], begin: str, end: str) -> None:
    """Replaces what is between two marks of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    tables = "\n\n".join(sheet.markdown() for sheet in sheets)
    page.write_text(f"{before}{begin}\n{tables}\n\n{end}{after}", encoding="utf-8")
