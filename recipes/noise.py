"""Omni-AVSR's figure of noise: AVSR under babble at 5 to -5 dB, at the finest and coarsest rates.

Published for omni-avsr-st on LRS3; PAPER has the word error rates. Not run here, as LRS3 can no
longer be obtained. The published figure at 0 dB is left out: that code draws a random ratio where
0 dB is asked for.

    python recipes/noise.py --labels labels/
    python recipes/noise.py --toy
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
from omni_avsr.tasks import Task

RATIOS = ("5", "2.5", "-2.5", "-5")  # dB
PAPER = {
    "AVSR (4,2)": (2.5, 3.8, 11.4, 18.0),
    "AVSR (16,5)": (3.9, 5.3, 13.5, 19.5),
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
        audio_encoder="openai/whisper-medium.en",
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
    out: Out = Path("runs/noise"),
    steps: Steps = None,
    seed: Seed = 1,
    dtype: Dtype = "auto",
) -> None:
    """Trains omni-avsr-st, and measures ASR and AVSR in noise."""
    base = TOY if toy else published(labels)
    base = replace(base, seed=seed, dtype=dtype, max_steps=steps or base.max_steps)
    measuring = TOY_DECODING if toy else PUBLISHED_DECODING
    training = replace(base, method="omni-avsr-st", out=out / "omni-avsr-st")
    noisy = replace(measuring, tasks=(Task.ASR, Task.AVSR), snr=("clean", *RATIOS))
    results = train_and_measure(training, noisy)
    paper = {}
    for route, wers in PAPER.items():
        for ratio, wer in zip(RATIOS, wers, strict=True):
            paper[f"{route}, babble {ratio} dB"] = wer
    show_results("Babble", {"omni-avsr-st": results}, {"omni-avsr-st": paper})


if __name__ == "__main__":
    typer.run(main)
