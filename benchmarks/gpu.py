"""The published sizes on one GPU, with random weights in bf16: training, decoding, and agreement with the CPU.

    python -m benchmarks.gpu --write gpu.json

Whisper-medium, AV-HuBERT large and Llama-3.2-1B, 3B and 8B shapes; omni-avsr-st at rates (4, 2), 1,500 frames a batch.
This benchmark has not run on a GPU: none could be had. `--small` runs all of it on a CPU, in miniature.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoTokenizer, LlamaConfig, WhisperConfig

from benchmarks import yardstick
from benchmarks.step import Step
from omni_avsr.model import AVHubertConfig, OmniAVSR, OmniAVSRProcessor
from omni_avsr.model.towers import locate
from omni_avsr.tasks import VIDEO_FPS

LLAMA = {  # hidden, feed-forward, layers, heads, key-value heads
    "1B": (2048, 8192, 16, 32, 8),
    "3B": (3072, 8192, 28, 24, 8),
    "8B": (4096, 14336, 32, 32, 8),
    "small": (64, 128, 2, 4, 2),
}
SECONDS = (4.0, 5.0, 6.0)
REPEATS = 5


def main(
    sizes: Annotated[str, typer.Option(help="Of 1B, 3B and 8B.")] = "1B,3B,8B",
    write: Annotated[Path | None, typer.Option(help="Write the figures here, as JSON.")] = None,
    small: Annotated[bool, typer.Option(help="Everything in miniature, on the CPU.")] = False,
) -> None:
    """Prints the figures of each size."""
    device = "cpu" if small else "cuda"
    frames = 300 if small else 1500
    found: dict[str, Any] = {"machine": yardstick.machine(torch.get_num_threads()), "bandwidth": bandwidth(device)}
    found["gemm"] = gemm(device)
    for size in ["small"] if small else sizes.split(","):
        model, processor = build(size)
        found[size] = {"agreement": agreement(model, processor, device)} if size in ("1B", "small") else {}
        model = model.to(device, torch.bfloat16)
        found[size] |= decoding(model, processor, found["bandwidth"])
        found[size] |= training(model, processor, frames, found["gemm"])
        del model
        print(json.dumps({size: found[size]}, indent=1), flush=True)
    if write:
        write.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def build(size: str) -> tuple[OmniAVSR, OmniAVSRProcessor]:
    """Random weights in the published shapes."""
    torch.manual_seed(0)
    hidden, wide, layers, heads, shared = LLAMA[size]
    llm = LlamaConfig(
        hidden_size=hidden, intermediate_size=wide, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=shared, head_dim=hidden // heads, vocab_size=512 if size == "small" else 128_256,
        tie_word_embeddings=size != "8B",
    )  # fmt: skip
    medium = {"d_model": 1024, "encoder_layers": 24, "encoder_attention_heads": 16, "encoder_ffn_dim": 4096}
    audio, video = WhisperConfig(**medium), AVHubertConfig()
    if size == "small":
        audio = WhisperConfig(d_model=32, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=64)
        video = AVHubertConfig(
            hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, resnet_widths=[4, 4, 8, 8]
        )
    tokenizer = AutoTokenizer.from_pretrained(locate("tiny-m"))
    model = OmniAVSR.from_towers(audio, video, llm, tokenizer=tokenizer, lora_rank=8 if size == "small" else 64)
    return model, OmniAVSRProcessor(tokenizer, model.config)


def agreement(model: OmniAVSR, processor: OmniAVSRProcessor, device: str) -> dict[str, float]:
    """How far the loss is from the CPU's in fp32: on the device in fp32, and there in bf16."""
    batch = processor(**yardstick.clips((2.0, 3.0)), task="avsr")
    with torch.no_grad():
        expected = model(**batch).loss.item()
        there = {name: value.to(device) if torch.is_tensor(value) else value for name, value in batch.items()}
        single = model.to(device)(**there).loss.item()
        half = model.to(torch.bfloat16)(**there).loss.item()
    model.to("cpu", torch.float32)
    return {"cpu fp32": expected, "fp32, relative": single / expected - 1, "bf16, relative": half / expected - 1}


def training(model: OmniAVSR, processor: OmniAVSRProcessor, frames: int, peak: float) -> dict[str, float]:
    """A step's seconds, hours of speech an hour, memory, and its share of the FLOP/s that matrix products reach."""
    seconds = SECONDS * max(1, frames // round(sum(SECONDS) * VIDEO_FPS))
    step = Step(model, processor, seconds)
    step.batch["media"] = {name: values.to(model.device) for name, values in step.batch["media"].items()}
    with FlopCounterMode(display=False) as counter:
        step()
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    spent = measured(model, step)
    return {
        "step seconds": spent,
        "hours an hour": sum(seconds) / spent,
        "peak GiB": torch.cuda.max_memory_allocated() / 2**30 if model.device.type == "cuda" else 0.0,
        "share of the GEMM peak": counter.get_total_flops() / spent / peak,
    }


def decoding(model: OmniAVSR, processor: OmniAVSRProcessor, bytes_per_second: float) -> dict[str, float]:
    """Clips a second, and with one clip and one beam the share of the memory's bandwidth: each token reads the LLM."""
    found = {}
    weights = sum(w.numel() * w.element_size() for w in model.llm.parameters())
    for clips in (1, 64 if model.device.type == "cuda" else 2):
        media = yardstick.clips((4.0,) * clips)
        batch = processor(media["audio"], media["video"], task="avsr")
        batch = {name: value.to(model.device) if torch.is_tensor(value) else value for name, value in batch.items()}
        for beams in (1, 15):

            def generate(new: int, batch: dict[str, Any] = batch, beams: int = beams) -> None:
                model.generate(**batch, num_beams=beams, max_new_tokens=new)

            long, short = (measured(model, lambda new=new: generate(new)) for new in (33, 1))
            found[f"clips a second, {clips} at once, {beams} beams"] = clips / long
            if clips == beams == 1:
                found["share of the bandwidth"] = 32 * weights / (long - short) / bytes_per_second
    return found


def measured(model: OmniAVSR, work: Callable[[], Any]) -> float:
    """Seconds of the fastest of some runs, the device's work included."""
    best = float("inf")
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        work()
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best


def gemm(device: str) -> float:
    """FLOP/s of a large matrix product in bf16; the CPU's in fp32."""
    if device == "cpu":
        return yardstick.gemm_peak()
    a, b = torch.randn(2, 8192, 8192, device=device, dtype=torch.bfloat16)
    return 2 * 8192**3 * 20 / _seconds(lambda: a @ b, device, 20)


def bandwidth(device: str) -> float:
    """Bytes a second that the device reads and writes in a copy."""
    values = torch.zeros(2**28 if device == "cuda" else 2**24, device=device)
    other = torch.empty_like(values)
    return 2 * values.numel() * 4 * 20 / _seconds(lambda: other.copy_(values), device, 20)


def _seconds(work: Callable[[], Any], device: str, repeats: int) -> float:
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(repeats):
        work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    typer.run(main)
