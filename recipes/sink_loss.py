"""The attention-sink decorrelation loss at high compression, by the authors of Llama-AVSR.

Published for VSR on LRS3 with Llama-3.2-3B; PAPER has the word error rates. (ASR (32) on LRS2 went
from 13.16 to 11.38.) Not run here, as the data were not at hand. The settings of those runs are not
published in full: the method is llama-avsr's, and the loss's weight is ours.

    python recipes/sink_loss.py --labels labels/
    python recipes/sink_loss.py --toy
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

PAPER = {
    "without": {"VSR (5)": 44.18},
    "with": {"VSR (5)": 34.16},
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
        llm="meta-llama/Llama-3.2-3B",
        lora_rank=96,  # the LLM's width / 32, which is what the published --rank 32 means
        lora_alpha=12.0,
        lora_targets=("q_proj", "v_proj"),
        video_lora_rank=64,
        video_lora_alpha=128.0,
        projector_width=2048,
        max_steps=103_920,  # 8 epochs of 433 hours, in steps of 3,000 frames
        max_frames=1500,
        accumulate=2,
        devices="1",
        lr=5e-4,
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
    out: Out = Path("runs/sink_loss"),
    steps: Steps = None,
    seed: Seed = 1,
    dtype: Dtype = "auto",
    weight: float = 1.0,
) -> None:
    """Trains and measures VSR at rate 5 without the loss and with it."""
    base = TOY if toy else published(labels)
    base = replace(base, seed=seed, dtype=dtype, max_steps=steps or base.max_steps)
    base = replace(base, method="llama-avsr", tasks=(Task.VSR,), video_rates=(5,))
    measuring = TOY_DECODING if toy else PUBLISHED_DECODING
    results = {}
    for name, loss_weight in (("without", 0.0), ("with", weight)):
        training = replace(base, sink_loss_weight=loss_weight, out=out / name)
        results[name] = train_and_measure(training, measuring)
    show_results("The decorrelation loss", results, PAPER)


if __name__ == "__main__":
    typer.run(main)
