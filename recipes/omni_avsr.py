"""Omni-AVSR (arXiv 2511.07253), Table I: one model for three tasks at all rates, with three kinds of adapters.

Published on LRS3 (433 h; Whisper-medium.en, AV-HuBERT large, Llama-3.2-1B), WER % in the order ASR (4) (16), VSR (2)
(5), AVSR (4,2) (4,5) (16,2) (16,5); not run here, as LRS3 can no longer be obtained:
-s 1.1 2.4 26.6 27.4 1.1 1.0 1.9 2.0; -t 1.2 1.9 26.7 27.8 1.2 1.2 2.0 2.2; -st 1.2 2.0 26.8 27.1 1.0 1.1 1.8 1.9.

    python -m recipes.omni_avsr --labels labels/       # LRS3
    python -m recipes.omni_avsr --toy
"""

from pathlib import Path

import typer

from .common import Labels, Out, Seed, Steps, Toy, settings, show, train_and_measure

CELLS = ["ASR (4)", "ASR (16)", "VSR (2)", "VSR (5)", "AVSR (4,2)", "AVSR (4,5)", "AVSR (16,2)", "AVSR (16,5)"]
PAPER = {
    "omni-avsr-s": [1.1, 2.4, 26.6, 27.4, 1.1, 1.0, 1.9, 2.0],
    "omni-avsr-t": [1.2, 1.9, 26.7, 27.8, 1.2, 1.2, 2.0, 2.2],
    "omni-avsr-st": [1.2, 2.0, 26.8, 27.1, 1.0, 1.1, 1.8, 1.9],
}


def main(
    toy: Toy = False,
    labels: Labels = Path("labels"),
    out: Out = Path("runs/omni_avsr"),
    steps: Steps = None,
    seed: Seed = 1,
) -> None:
    """Trains and measures the three models."""
    rows = {
        method: train_and_measure(settings(toy, labels, out / method, steps, seed, method=method)) for method in PAPER
    }
    show("Omni-AVSR, Table I", rows, {name: dict(zip(CELLS, wers, strict=True)) for name, wers in PAPER.items()})


if __name__ == "__main__":
    typer.run(main)
