"""Omni-AVSR's study of the tasks' weights in the loss of omni-avsr-t.

Published on LRS2, WER % at ASR (4) (16), VSR (2) (5), AVSR (4,2) (16,5); not run here, as LRS2 was not at hand:
1/1/1 2.9 5.7 27.0 28.6 2.7 4.4; 1/1.5/1 2.7 4.4 26.8 28.3 2.6 4.0; 1/2/1 2.7 4.4 27.0 28.5 2.5 4.0.

    python -m recipes.task_weights --labels labels/
    python -m recipes.task_weights --toy
"""

from pathlib import Path

import typer

from .common import Labels, Out, Seed, Steps, Toy, settings, show, train_and_measure

CELLS = ["ASR (4)", "ASR (16)", "VSR (2)", "VSR (5)", "AVSR (4,2)", "AVSR (16,5)"]
PAPER = {
    "1,1,1": [2.9, 5.7, 27.0, 28.6, 2.7, 4.4],
    "1,1.5,1": [2.7, 4.4, 26.8, 28.3, 2.6, 4.0],
    "1,2,1": [2.7, 4.4, 27.0, 28.5, 2.5, 4.0],
}


def main(
    toy: Toy = False,
    labels: Labels = Path("labels"),
    out: Out = Path("runs/task_weights"),
    steps: Steps = None,
    seed: Seed = 1,
) -> None:
    """Trains and measures a model for each choice of weights."""
    rows = {
        weights: train_and_measure(
            settings(toy, labels, out / weights, steps, seed, "lrs2", method="omni-avsr-t", task_weights=weights)
        )
        for weights in PAPER
    }
    paper = {weights: dict(zip(CELLS, wers, strict=True)) for weights, wers in PAPER.items()}
    show("Weights of ASR, VSR and AVSR", rows, paper, "LRS2")


if __name__ == "__main__":
    typer.run(main)
