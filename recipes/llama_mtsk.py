"""Llama-MTSK (arXiv 2503.06362): AVSR at several rates with one model, all rates in every step, three LoRA strategies.

Published on LRS3 (Whisper-small, AV-HuBERT large, Llama-3.2-1B), AVSR WER % at (4,2) (4,5) (16,2) (16,5); not run here,
as LRS3 can no longer be obtained: MS 2.6 2.7 3.7 4.1; SS 2.3 2.2 3.3 3.6; MSS 2.4 2.4 3.2 3.5.

    python -m recipes.llama_mtsk --labels labels/
    python -m recipes.llama_mtsk --toy
"""

from pathlib import Path
from typing import Any

import typer

from .common import Labels, Out, Seed, Steps, Toy, settings, show, train_and_measure

CELLS = ["AVSR (4,2)", "AVSR (4,5)", "AVSR (16,2)", "AVSR (16,5)"]
PAPER = {
    "llama-mtsk-ms": [2.6, 2.7, 3.7, 4.1],
    "llama-mtsk-ss": [2.3, 2.2, 3.3, 3.6],
    "llama-mtsk-mss": [2.4, 2.4, 3.2, 3.5],
}


def main(
    toy: Toy = False,
    labels: Labels = Path("labels"),
    out: Out = Path("runs/llama_mtsk"),
    steps: Steps = None,
    seed: Seed = 1,
) -> None:
    """Trains and measures the three strategies."""
    small: dict[str, Any] = {} if toy else {"audio_encoder": "openai/whisper-small.en"}
    rows = {
        method: train_and_measure(settings(toy, labels, out / method, steps, seed, method=method, **small))
        for method in PAPER
    }
    show("Llama-MTSK, AVSR", rows, {name: dict(zip(CELLS, wers, strict=True)) for name, wers in PAPER.items()})


if __name__ == "__main__":
    typer.run(main)
