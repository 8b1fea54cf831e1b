"""Llama-MTSK (arXiv 2503.06362): AVSR at several rates with one model, in three LoRA strategies.

All rates are trained in every step. Published on LRS3 with Whisper-small, AV-HuBERT large and
Llama-3.2-1B; PAPER has the word error rates. Not run here, as LRS3 can no longer be obtained.

    python recipes/llama_mtsk.py --labels labels/
    python recipes/llama_mtsk.py --toy
"""

from dataclasses import replace
from pathlib import Path

import typer

from omni_avsr.cli.recipe import (
    Dtype,
    Labels,
    Out,
    Seed,
    Steps,
    Toy,
    show_results,
    train_and_measure,
)
from omni_avsr.files import cache_root
from omni_avsr.settings import EvaluateSettings, TrainSettings

ROUTES = ("AVSR (4,2)", "AVSR (4,5)", "AVSR (16,2)", "AVSR (16,5)")
PAPER = {
    "llama-mtsk-ms": (2.6, 2.7, 3.7, 4.1),
    "llama-mtsk-ss": (2.3, 2.2, 3.3, 3.6),
    "llama-mtsk-mss": (2.4, 2.4, 3.2, 3.5),
}
TOY = TrainSettings(feature_cache=cache_root() / "features")  # otherwise the defaults
TOY_DECODING = EvaluateSettings()  # greedy
PUBLISHED_DECODING = EvaluateSettings(beams=15, max_new_tokens=32)


def published(labels: Path) -> TrainSettings:
    """The published settings, with two batches per step on one GPU instead of two GPUs."""
    return TrainSettings(
        data=labels / "lrs3_train.csv",
        valid=labels / "lrs3_valid.csv",
        test=labels / "lrs3_test.csv",
        audio_encoder="openai/whisper-small.en",
        video_encoder="avhubert-large",
        llm="meta-llama/Llama-3.2-1B",
        lora_rank=64,  # the LLM's width / 32, which is what the published --rank 32 means
        lora_alpha=8.0,
        lora_targets=("q_proj", "v_proj"),
        video_lora_rank=64,
        video_lora_alpha=128.0,
        projector_width=2048,
        max_steps=103_920,  # 8 epochs of 433 hours, in steps of 3,000 frames
        max_frames=1500,
        accumulate=2,
        devices="1",
        lr=1e-3,
        warmup_steps=0,
        clip=10.0,
        noise_probability=6 / 7,  # six ratios and clean
        audio_mask=0.4,
        video_mask=0.4,
        cache_copies=0,  # every epoch hears and sees the clips in other noise
    )


def main(
    toy: Toy = False,
    labels: Labels = Path("labels"),
    out: Out = Path("runs/llama_mtsk"),
    steps: Steps = None,
    seed: Seed = 1,
    dtype: Dtype = "auto",
) -> None:
    """Trains and measures the three strategies."""
    base = TOY if toy else published(labels)
    base = replace(base, seed=seed, dtype=dtype, max_steps=steps or base.max_steps)
    measuring = TOY_DECODING if toy else PUBLISHED_DECODING
    results, paper = {}, {}
    for method, wers in PAPER.items():
        training = replace(base, method=method, out=out / method)
        results[method] = train_and_measure(training, measuring)
        paper[method] = dict(zip(ROUTES, wers, strict=True))
    show_results("Llama-MTSK, AVSR", results, paper)


if __name__ == "__main__":
    typer.run(main)
