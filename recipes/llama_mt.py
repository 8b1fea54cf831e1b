"""Llama-MT: the baseline of Table I of Omni-AVSR, one model for three tasks at each pair of rates; four in all.

Published on LRS3 (433 h; Whisper-medium.en, AV-HuBERT large, Llama-3.2-1B), WER %; not run here, as LRS3 can no longer
be obtained: ASR (4) 1.0 (16) 2.1, VSR (2) 27.2 (5) 28.4, AVSR (4,2) 1.0 (4,5) 1.0 (16,2) 1.8 (16,5) 1.9.

    python -m recipes.llama_mt --labels labels/
    python -m recipes.llama_mt --toy
"""

from itertools import product
from pathlib import Path

import typer

from .common import Labels, Out, Seed, Steps, Toy, settings, show, train_and_measure

AVSR = {(4, 2): 1.0, (4, 5): 1.0, (16, 2): 1.8, (16, 5): 1.9}
PAPER = {"ASR (4)": 1.0, "ASR (16)": 2.1, "VSR (2)": 27.2, "VSR (5)": 28.4}


def main(
    toy: Toy = False,
    labels: Labels = Path("labels"),
    out: Out = Path("runs/llama_mt"),
    steps: Steps = None,
    seed: Seed = 1,
) -> None:
    """Trains and measures the four models."""
    rows, paper = {}, {}
    for audio, video in product((4, 16), (2, 5)):
        name = f"llama-mt ({audio},{video})"
        rates = {"audio_rates": str(audio), "video_rates": str(video)}
        training = settings(toy, labels, out / f"{audio}-{video}", steps, seed, method="llama-mt", **rates)
        rows[name] = train_and_measure(training)
        paper[name] = {**PAPER, f"AVSR ({audio},{video})": AVSR[audio, video]}
    show("Llama-MT, a model a pair of rates", rows, paper)


if __name__ == "__main__":
    typer.run(main)
