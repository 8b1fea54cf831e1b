"""The table of docs/what-fits.md: published sizes on GPUs of 24, 40 and 80 GB, as planned.

    python -m benchmarks.fits --write docs/what-fits.md

Nothing is measured: this is `omni-avsr plan` for several models, ten minutes on a core.
"""

from itertools import product
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import yardstick
from omni_avsr.measure.plan import GIB, Plan, plan
from omni_avsr.run import silence_libraries
from omni_avsr.settings import PlanSettings

BEGIN = "<!-- written by python -m benchmarks.fits -->\n"
END = "<!-- end of the fits -->\n"
LLMS = ("meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-3B", "meta-llama/Llama-3.1-8B")
PUBLISHED = {
    "audio_encoder": "openai/whisper-medium",
    "video_encoder": "large",
    "method": "omni-avsr-st",
    "lora_targets": ("q_proj", "v_proj"),
    "lora_rank": 64,
    "video_lora_rank": 64,
    "projector_width": 2048,
    "cache_copies": 0,
    "epochs": 1.0,
    "beams": 15,
}
COLUMNS = (
    "LLM",
    "its weights",
    "checkpointing",
    "training: GiB",
    "24 GB: max-frames",
    "40 GB: max-frames",
    "80 GB: max-frames",
    "hours of an epoch",
    "decoding: GiB",
)


def main(
    write: Annotated[
        Path | None, typer.Option(help="Write the table to this page, between its two marks.")
    ] = None,
) -> None:
    """Prints a row for each model and way of training it."""
    silence_libraries()
    rows = []
    for llm, quantize, checkpointing in product(LLMS, (None, "4bit"), (False, True)):
        settings = PlanSettings(
            **PUBLISHED, llm=llm, quantize=quantize, gradient_checkpointing=checkpointing
        )
        rows.append(row(settings, plan(settings)))
        print(rows[-1], flush=True)
    table = sheet(rows)
    yardstick.show(table)
    if write:
        yardstick.write_tables(write, [table], BEGIN, END)


def sheet(rows: list[tuple[str, ...]]) -> yardstick.Sheet:
    """The table."""
    batch = PlanSettings().max_frames
    return yardstick.Sheet(f"Batches of {batch} video frames in clips of 6 s", COLUMNS, rows)


def row(settings: PlanSettings, found: Plan) -> tuple[str, ...]:
    """A model's line of the table."""
    return (
        settings.llm.rpartition("/")[2],
        found.quantize or found.dtype,
        "yes" if settings.gradient_checkpointing else "no",
        f"{found.training_peak / GIB:.1f}",
        *(str(frames or "none") for frames in found.max_frames.values()),
        f"{found.hours:.2g}",
        f"{found.decoding_peak / GIB:.1f}",
    )


if __name__ == "__main__":
    typer.run(main)
