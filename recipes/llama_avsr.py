"""Llama-AVSR: the baseline of Table I of Omni-AVSR, a model of its own for every task and rate; eight in all.

Published on LRS3 (433 h; Whisper-medium.en, AV-HuBERT large, Llama-3.2-1B), WER %; not run here, as LRS3 can no longer
be obtained: ASR (4) 1.1 (16) 2.0, VSR (2) 27.4 (5) 29.5, AVSR (4,2) 1.1 (4,5) 1.2 (16,2) 2.0 (16,5) 2.1.

    python -m recipes.llama_avsr --labels labels/
    python -m recipes.llama_avsr --toy
"""

from pathlib import Path

import typer

from .common import Labels, Out, Seed, Steps, Toy, settings, show, train_and_measure

PAPER = {
    ("asr", 4, 2): 1.1,
    ("asr", 16, 2): 2.0,
    ("vsr", 4, 2): 27.4,
    ("vsr", 4, 5): 29.5,
    ("avsr", 4, 2): 1.1,
    ("avsr", 4, 5): 1.2,
    ("avsr", 16, 2): 2.0,
    ("avsr", 16, 5): 2.1,
}


def main(
    toy: Toy = False,
    labels: Labels = Path("labels"),
    out: Out = Path("runs/llama_avsr"),
    steps: Steps = None,
    seed: Seed = 1,
) -> None:
    """Trains and measures the eight models."""
    rows, paper = [], {}
    for (task, audio, video), wer in PAPER.items():
        rates = {"audio_rates": str(audio), "video_rates": str(video)}
        own = out / f"{task}-{audio}-{video}"
        training = settings(toy, labels, own, steps, seed, method="llama-avsr", tasks=task, **rates)
        rows += train_and_measure(training)
        used = {"asr": f"({audio})", "vsr": f"({video})"}.get(task, f"({audio},{video})")
        paper[f"{task.upper()} {used}"] = wer
    show("Llama-AVSR, a model a cell", {"llama-avsr": rows}, {"llama-avsr": paper})


if __name__ == "__main__":
    typer.run(main)
