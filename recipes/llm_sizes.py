"""Omni-AVSR's figure of LLM sizes: omni-avsr-st with LLMs from half a billion parameters.

Published on LRS3, WER % at ASR (16), VSR (2), AVSR (4,2), read off tables and plots; not run here, as LRS3 can no
longer be obtained: Qwen2.5-0.5B 3.42 28.30 -; Llama-3.2-1B 2.0 26.8 1.0; Llama-3.2-3B 1.90 26.38 1.04.

    python -m recipes.llm_sizes --labels labels/
    python -m recipes.llm_sizes --toy
"""

from pathlib import Path

import typer

from omni_avsr.cli.terminal import Bars, show_sizes
from omni_avsr.measure import scaling
from omni_avsr.run import quiet

from .common import Labels, Out, Seed, Steps, Toy, settings

LLMS = "Qwen/Qwen2.5-0.5B,meta-llama/Llama-3.2-1B,meta-llama/Llama-3.2-3B"


def main(
    toy: Toy = False,
    labels: Labels = Path("labels"),
    out: Out = Path("runs/llm_sizes"),
    steps: Steps = None,
    seed: Seed = 1,
) -> None:
    """Trains and measures every size; the same as `omni-avsr scale`."""
    quiet()
    found = scaling.scale(settings(toy, labels, out, steps, seed, llm="tiny-s,tiny-m,tiny-l" if toy else LLMS), Bars())
    show_sizes(scaling.HEADS, [scaling.line(size) for size in found])


if __name__ == "__main__":
    typer.run(main)
