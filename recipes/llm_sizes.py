"""Omni-AVSR's figure of LLM sizes: omni-avsr-st with LLMs from half a billion parameters.

Published on LRS3, WER % at ASR (16), VSR (2) and AVSR (4,2), read off tables and plots:
Qwen2.5-0.5B 3.42 28.30 -; Llama-3.2-1B 2.0 26.8 1.0; Llama-3.2-3B 1.90 26.38 1.04. Not run here, as
LRS3 can no longer be obtained.

    python recipes/llm_sizes.py --labels labels/
    python recipes/llm_sizes.py --toy
"""

from dataclasses import replace
from pathlib import Path

import typer

from omni_avsr.cli.recipe import Dtype, Labels, Out, Seed, Steps, Toy
from omni_avsr.cli.terminal import Bars, show_sizes
from omni_avsr.files import cache_root
from omni_avsr.measure import scaling
from omni_avsr.run import silence_libraries
from omni_avsr.settings import TrainSettings

LLMS = "Qwen/Qwen2.5-0.5B,meta-llama/Llama-3.2-1B,meta-llama/Llama-3.2-3B"
TOY = TrainSettings(llm="tiny-s,tiny-m,tiny-l", feature_cache=cache_root() / "features")


def published(labels: Path) -> TrainSettings:
    """The published settings, with two batches per step on one GPU instead of two GPUs."""
    return TrainSettings(
        data=labels / "lrs3_train.csv",
        valid=labels / "lrs3_valid.csv",
        test=labels / "lrs3_test.csv",
        audio_encoder="openai/whisper-medium.en",
        video_encoder="avhubert-large",
        llm=LLMS,
        lora_rank=64,
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
    out: Out = Path("runs/llm_sizes"),
    steps: Steps = None,
    seed: Seed = 1,
    dtype: Dtype = "auto",
) -> None:
    """Trains and measures every size, as `omni-avsr scale` does."""
    silence_libraries()
    base = TOY if toy else published(labels)
    study = replace(base, out=out, seed=seed, dtype=dtype, max_steps=steps or base.max_steps)
    found = scaling.scale(study, Bars())
    show_sizes(scaling.HEADS, [scaling.line(size) for size in found])


if __name__ == "__main__":
    typer.run(main)
