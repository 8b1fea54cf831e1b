"""The published sizes on one GPU, with random weights, in the precision of the command line.

    python -m benchmarks.gpu --write gpu.json

Measures training, decoding, and agreement with the CPU, for the shapes of Whisper-medium, AV-HuBERT
large, and Llama-3.2-1B, 3B and 8B: omni-avsr-st at rates (4, 2), 1,500 frames per batch. The types
of towers and passes, TF32 and the optimizer are those that `omni-avsr train` and `decode` choose on
this GPU. It has not run on a GPU, as none was available. `--small` runs everything in miniature on
a CPU.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoTokenizer, LlamaConfig, WhisperConfig

from benchmarks import yardstick
from benchmarks.step import Step
from omni_avsr.model import AVHubertConfig, OmniAVSR, OmniAVSRProcessor
from omni_avsr.model.adapters import leave_casting_to_autocast
from omni_avsr.model.precision import AUTOCAST, allow_tf32, chosen_dtype, chosen_precision
from omni_avsr.model.towers import locate
from omni_avsr.tasks import VIDEO_FPS


@dataclass(frozen=True)
class LlamaShape:
    """The size of a Llama."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int = 128_256
    tie_word_embeddings: bool = True


LLAMAS = {
    "1B": LlamaShape(2048, 8192, 16, 32, 8),
    "3B": LlamaShape(3072, 8192, 28, 24, 8),
    "8B": LlamaShape(4096, 14336, 32, 32, 8, tie_word_embeddings=False),
    "small": LlamaShape(64, 128, 2, 4, 2, vocab_size=2048),
}
SECONDS = (4.0, 5.0, 6.0)  # lengths of the training clips
REPEATS = 5
NEW_TOKENS = 32
MATRIX_SIZE = 8192  # of the products that show the peak
PRODUCTS = 20


def main(
    sizes: Annotated[str, typer.Option(help="Of 1B, 3B and 8B.")] = "1B,3B,8B",
    write: Annotated[Path | None, typer.Option(help="Write the figures to this JSON file.")] = None,
    small: Annotated[bool, typer.Option(help="Run in miniature on the CPU.")] = False,
) -> None:
    """Prints the figures of each size."""
    device = "cpu" if small else "cuda"
    numbers = Numbers.chosen(device)
    allow_tf32()
    found: dict[str, Any] = {
        "machine": yardstick.machine(torch.get_num_threads()),
        "dtype": str(numbers.dtype),
        "precision": numbers.precision,
        "bandwidth": bandwidth(device),
        "gemm": gemm(device, AUTOCAST[numbers.precision]),
    }
    for size in ["small"] if small else sizes.split(","):
        found[size] = measure(size, device, numbers, found["bandwidth"], found["gemm"])
        print(json.dumps({size: found[size]}, indent=1), flush=True)
    if write:
        write.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Numbers:
    """The number types that the command line chooses on a device."""

    dtype: torch.dtype  # of the towers
    precision: str  # of training

    @classmethod
    def chosen(cls, device: str) -> "Numbers":
        """What it chooses; on a CPU what it would choose on a GPU with bfloat16."""
        dtype = chosen_dtype("auto" if device == "cuda" else "bfloat16", device)
        return cls(dtype, chosen_precision(None, dtype, device))


def measure(
    size: str, device: str, numbers: Numbers, bytes_per_second: float, peak: float
) -> dict[str, Any]:
    """All figures of one size."""
    found: dict[str, Any] = {}
    if size in ("1B", "small"):
        found["agreement"] = agreement(size, device, numbers)
    model, processor = build(size, numbers.dtype)
    model.to(device)  # type: ignore[arg-type]
    frames = 300 if size == "small" else 1500
    found |= decoding(model, processor, bytes_per_second)
    leave_casting_to_autocast(model)
    found |= training(model, processor, frames, numbers.precision, peak)
    return found


def build(size: str, dtype: torch.dtype) -> tuple[OmniAVSR, OmniAVSRProcessor]:
    """Random weights in the published shapes, or in small ones."""
    torch.manual_seed(0)
    llm = LlamaConfig(**asdict(LLAMAS[size]))
    audio = WhisperConfig(
        d_model=1024, encoder_layers=24, encoder_attention_heads=16, encoder_ffn_dim=4096
    )
    video = AVHubertConfig()
    lora_rank = 64
    if size == "small":
        lora_rank = 8
        audio = WhisperConfig(
            d_model=32, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=64
        )
        video = AVHubertConfig(
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            resnet_widths=[4, 4, 8, 8],
        )
    tokenizer = AutoTokenizer.from_pretrained(locate("tiny-m"))
    model = OmniAVSR.from_towers(
        audio, video, llm, tokenizer=tokenizer, lora_rank=lora_rank, dtype=dtype
    )
    return model, OmniAVSRProcessor(tokenizer, model.config)


def agreement(size: str, device: str, numbers: Numbers) -> dict[str, float]:
    """How far the losses of towers in fp32, and of training, are from those of the CPU in fp32."""
    model, processor = build(size, torch.float32)
    trained, _ = build(size, numbers.dtype)
    trained.load_state_dict(model.state_dict())
    clips = yardstick.clips((2.0, 3.0))
    batch = processor(clips.audio, clips.video, clips.texts, task="avsr")
    there = batch.to(device)
    with torch.no_grad():
        expected = model(batch).loss.item()
        single = model.to(device)(there).loss.item()  # type: ignore[arg-type]
        with torch.autocast(device, AUTOCAST[numbers.precision]):
            mixed = trained.to(device)(there).loss.item()  # type: ignore[arg-type]
    return {
        "cpu fp32": expected,
        "fp32, relative": single / expected - 1,
        f"{numbers.precision}, relative": mixed / expected - 1,
    }


def training(
    model: OmniAVSR, processor: OmniAVSRProcessor, frames: int, precision: str, peak: float
) -> dict[str, float]:
    """A step's time, memory, and share of the FLOP/s that matrix products reach."""
    repeats = max(1, frames // round(sum(SECONDS) * VIDEO_FPS))
    seconds = SECONDS * repeats
    step = Step(model, processor, seconds, precision)
    step.batch = step.batch.to(model.device)
    on_gpu = model.device.type == "cuda"
    with FlopCounterMode(display=False) as counter:
        step()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    spent = _fastest(step, model.device)
    return {
        "step seconds": spent,
        "hours an hour": sum(seconds) / spent,
        "peak GiB": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else 0.0,
        "share of the GEMM peak": counter.get_total_flops() / spent / peak,
    }


def decoding(
    model: OmniAVSR, processor: OmniAVSRProcessor, bytes_per_second: float
) -> dict[str, float]:
    """Clips per second, and for one clip and one beam the share of the memory's bandwidth.

    Each token of one clip reads the LLM's weights once.
    """
    found = {}
    weights = sum(weight.numel() * weight.element_size() for weight in model.llm.parameters())
    many = 64 if model.device.type == "cuda" else 2
    for count in (1, many):
        clips = yardstick.clips((4.0,) * count)
        batch = processor(clips.audio, clips.video, task="avsr").to(model.device)
        for beams in (1, 15):
            generate = partial(model.generate, batch, beams)
            long = _fastest(partial(generate, NEW_TOKENS + 1), model.device)
            found[f"clips a second, {count} at once, {beams} beams"] = count / long
            if count == beams == 1:
                first_token = _fastest(partial(generate, 1), model.device)
                seconds_per_token = (long - first_token) / NEW_TOKENS
                found["share of the bandwidth"] = weights / seconds_per_token / bytes_per_second
    return found


def _fastest(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds of the fastest of some runs, with the device's work."""
    return min(_seconds_of(work, device, 1) for _ in range(REPEATS + 1))


def gemm(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product; on the CPU in fp32."""
    if device == "cpu":
        return yardstick.gemm_peak()
    a, b = torch.randn(2, MATRIX_SIZE, MATRIX_SIZE, device=device, dtype=dtype)
    flops = 2 * MATRIX_SIZE**3 * PRODUCTS
    return flops / _warm_seconds(lambda: a @ b, device)


def bandwidth(device: str) -> float:
    """Bytes per second that the device reads and writes in a copy."""
    values = torch.zeros(2**28 if device == "cuda" else 2**24, device=device)
    other = torch.empty_like(values)
    moved = 2 * values.numel() * values.element_size() * PRODUCTS
    return moved / _warm_seconds(lambda: other.copy_(values), device)


def _warm_seconds(work: Callable[[], Any], device: str) -> float:
    """Seconds of several runs, after one that is not counted."""
    _seconds_of(work, torch.device(device), 1)
    return _seconds_of(work, torch.device(device), PRODUCTS)


def _seconds_of(work: Callable[[], Any], device: torch.device, runs: int) -> float:
    """Seconds of several runs, with the device's work."""
    started = time.perf_counter()
    for _ in range(runs):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    typer.run(main)
