"""What the recipes share: the published settings, their toy counterparts, and training that is done once."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from omni_avsr.decoding import evaluate
from omni_avsr.evaluation import Row
from omni_avsr.report import publish
from omni_avsr.run import cache_root, quiet
from omni_avsr.scaling import train_once
from omni_avsr.settings import EvaluateSettings, TrainSettings
from omni_avsr.terminal import Bars

Toy = Annotated[bool, typer.Option("--toy", help="On the toy corpus with the tiny towers, instead of LRS3.")]
Labels = Annotated[Path, typer.Option(help="Folder with lrs3_train.csv, lrs3_valid.csv and lrs3_test.csv.")]
Out = Annotated[Path, typer.Option(help="Folder for the runs; finished ones are not done again.")]
Steps = Annotated[int | None, typer.Option(help="Optimizer steps.  [default: the published 8 epochs, or the demo's]")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]

TOY = TrainSettings(feature_cache=str(cache_root() / "features"))  # else what `omni-avsr train` does without options
HOURS, EPOCHS = 433, 8
PUBLISHED = TrainSettings(  # of Omni-AVSR on LRS3, on two GPUs
    audio_encoder="openai/whisper-medium.en",
    video_encoder="avhubert-large",
    llm="meta-llama/Llama-3.2-1B",
    lora_rank=32,
    lora_alpha=4.0,
    lora_targets="q_proj,v_proj",
    video_lora_rank=16,
    projector_width=2048,
    lr=1e-3,
    warmup_steps=0,
    max_frames=1500,
    audio_mask=0.4,
    video_mask=0.4,
    cache_copies=0,
    max_steps=EPOCHS * HOURS * 3600 * 25 // (2 * 1500),
)


def settings(toy: bool, labels: Path, out: Path, steps: int | None, seed: int, **changes: Any) -> TrainSettings:
    """The published settings, or the toy ones, with what a recipe varies."""
    data, valid, test = (f"{labels}/lrs3_{split}.csv" for split in ("train", "valid", "test"))
    base = TOY if toy else replace(PUBLISHED, data=data, valid=valid, test=test)
    return replace(base, out=str(out), seed=seed, max_steps=steps or base.max_steps, **changes)


def train_and_measure(training: TrainSettings, folder: Path | None = None, **grid: Any) -> list[Row]:
    """The rows of a trained model, which is trained unless it is there; `grid` are options of evaluate."""
    quiet()
    train_once(training, Bars())
    published: dict[str, Any] = {} if training.data is None else {"beams": 15, "max_new_tokens": 32}
    measured = EvaluateSettings(
        checkpoint=training.out, data=training.test, toy_clips=training.toy_clips, **{**published, **grid}
    )
    rows, hypotheses = evaluate(measured, Bars())
    publish(folder or Path(training.out) / "evaluation", rows, hypotheses, f"{training.method}, seed {training.seed}")
    return rows


def cell(row: Row) -> str:
    """What a row measures: AVSR (4,2), with its noise if there is one."""
    rates = ",".join(str(row[f"{m}_rate"]) for m in ("audio", "video") if row[f"{m}_rate"])
    noise = "" if row["snr"] is None else f" {row['snr']:g} dB"
    return f"{row['task'].upper()} ({rates}){noise}"


def show(title: str, measured: Mapping[str, Sequence[Row]], published: Mapping[str, Mapping[str, float]]) -> None:
    """Prints each model's measured WERs, and beside them the published ones of LRS3."""
    columns: dict[str, Mapping[str, float]] = {}
    for name, rows in measured.items():
        columns[name] = {cell(row): 100 * row["wer"] for row in rows}
        if name in published:
            columns[f"{name},\npublished for LRS3"] = published[name]
    table = Table("WER %", *columns, title=title)
    for line in dict.fromkeys(cell(row) for rows in measured.values() for row in rows):
        table.add_row(line, *(f"{wers[line]:.1f}" if line in wers else "-" for wers in columns.values()))
    Console().print(table)
