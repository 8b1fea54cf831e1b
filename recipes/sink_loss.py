"""The attention-sink decorrelation loss at high compression, of Llama-AVSR's authors.

Published; not run here, as the data were not at hand: VSR (5) on LRS3 with Llama-3.2-3B 44.18 without it, 34.16 with
it; ASR (32) on LRS2 13.16 and 11.38. The settings of those runs are not published in full: the method is llama-avsr's.

    python -m recipes.sink_loss --labels labels/
    python -m recipes.sink_loss --toy
"""

from pathlib import Path
from typing import Any

import typer

from .common import Labels, Out, Seed, Steps, Toy, settings, show, train_and_measure

PAPER = {"without": {"VSR (5)": 44.18}, "with": {"VSR (5)": 34.16}}
WEIGHT = 1.0  # beside the cross-entropy; ours, as the published one is not known


def main(
    toy: Toy = False,
    labels: Labels = Path("labels"),
    out: Out = Path("runs/sink_loss"),
    steps: Steps = None,
    seed: Seed = 1,
    weight: float = WEIGHT,
) -> None:
    """Trains and measures VSR at rate 5 without the loss and with it."""
    changes: dict[str, Any] = {"method": "llama-avsr", "tasks": "vsr", "video_rates": "5"}
    if not toy:
        changes |= {"llm": "meta-llama/Llama-3.2-3B", "lora_rank": 96, "lora_alpha": 12.0}
    rows = {
        name: train_and_measure(settings(toy, labels, out / name, steps, seed, sink_loss_weight=w, **changes))
        for name, w in (("without", 0.0), ("with", weight))
    }
    show("The decorrelation loss", rows, PAPER)


if __name__ == "__main__":
    typer.run(main)
