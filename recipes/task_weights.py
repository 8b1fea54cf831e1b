"""Omni-AVSR's study of the weights of the tasks in the loss of omni-avsr-t.

Published on LRS2; PAPER has the word error rates. Not run here, as LRS2 was not at hand.

    python recipes/task_weights.py --labels labels/
    python recipes/task_weights.py --toy
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

ROUTES = ("ASR (4)", "ASR (16)", "VSR (2)", "VSR (5)", "AVSR (4,2)", "AVSR (16,5)")
PAPER = {  # by the weights of ASR, VSR and AVSR
    (1.0, 1.0, 1.0): (2.9, 5.7, 27.0, 28.6, 2.7, 4.4),
    (1.0, 1.5, 1.0): (2.7, 4.4, 26.8, 28.3, 2.6, 4.0),
    (1.0, 2.0, 1.0): (2.7, 4.4, 27.0, 28.5, 2.5, 4.0),
}
TOY = TrainSettings(feature_cache=cache_root() / "features")  # otherwise the defaults
TOY_DECODING = EvaluateSettings()  # greedy
PUBLISHED_DECODING = EvaluateSettings(beams=15, max_new_tokens=32)


def published(labels: Path) -> TrainSettings:
    """The published settings, with two batches per step on one GPU instead of two GPUs."""
    return TrainSettings(
        data=labels / "lrs2_train.csv",
        valid=labels / "lrs2_valid.csv",
        test=labels / "lrs2_test.csv",
        audio_encoder="openai/whisper-medium.en",
        video_encoder="avhubert-large",
        llm="meta-llama/Llama-3.2-1B",
        lora_rank=64,  # the LLM's width / 32, which is what the published --rank 32 means
        lora_alpha=8.0,
        lora_targets=("q_proj", "v_proj"),
        video_lora_rank=64,
        video_lora_alpha=128.0,
        projector_width=2048,
        max_steps=54_000,  # 8 epochs of 225 hours, in steps of 3,000 frames
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
    out: Out = Path("runs/task_weights"),
    steps: Steps = None,
    seed: Seed = 1,
    dtype: Dtype = "auto",
) -> None:
    """Trains and measures a model for each choice of weights."""
    base = TOY if toy else published(labels)
    base = replace(base, seed=seed, dtype=dtype, max_steps=steps or base.max_steps)
    measuring = TOY_DECODING if toy else PUBLISHED_DECODING
    results, paper = {}, {}
    for weights, wers in PAPER.items():
        name = ",".join(f"{weight:g}" for weight in weights)
        training = replace(base, method="omni-avsr-t", task_weights=weights, out=out / name)
        results[name] = train_and_measure(training, measuring)
        paper[name] = dict(zip(ROUTES, wers, strict=True))
    show_results("Weights of ASR, VSR and AVSR", results, paper, "LRS2")


if __name__ == "__main__":
    typer.run(main)
