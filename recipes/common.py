"""What the recipes share: the published settings, their toy counterparts, and training that is done once."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from omni_avsr.cli.terminal import Bars
from omni_avsr.decode.decode import evaluate
from omni_avsr.measure.report import publish
from omni_avsr.measure.results import Row
from omni_avsr.measure.scaling import train_once
from omni_avsr.run import cache_root, quiet
from omni_avsr.settings import EvaluateSettings, TrainSettings
from omni_avsr.tasks import VIDEO_FPS

Toy = Annotated[bool, typer.Option("--toy", help="On the toy corpus with the tiny towers, instead of LRS3.")]
Labels = Annotated[Path, typer.Option(help="Folder with lrs3_train.csv, lrs3_valid.csv and lrs3_test.csv; or lrs2.")]
Out = Annotated[Path, typer.Option(help="Folder for the runs; finished ones are not done again.")]
Steps = Annotated[int | None, typer.Option(help="Optimizer steps.  [default: the published 8 epochs, or the demo's]")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]

TOY = TrainSettings(feature_cache=str(cache_root() / "features"))  # else what `omni-avsr train` does without options
HOURS, EPOCHS = {"lrs3": 433, "lrs2": 225}, 8
PUBLISHED = TrainSettings(  # of Omni-AVSR; its two GPUs as two batches in a step on one
    audio_encoder="openai/whisper-medium.en",
    video_encoder="avhubert-large",
    llm="meta-llama/Llama-3.2-1B",
    lora_rank=64,  # the width of the 1B model / 32, as the published --rank 32 means it
    lora_alpha=8.0,
    lora_targets="q_proj,v_proj",
    video_lora_rank=64,
    video_lora_alpha=128.0,
    projector_width=2048,
    lr=1e-3,
    warmup_steps=0,
    clip=10.0,
    max_frames=1500,
    accumulate=2,
    devices="1",
    noise_probability=6 / 7,  # six ratios and clean
    audio_mask=0.4,
    video_mask=0.4,
    cache_copies=0,
)


def settings(
    toy: bool, labels: Path, out: Path, steps: int | None, seed: int, corpus: str = "lrs3", **changes: Any
) -> TrainSettings:
    """The published settings for that corpus, or the toy ones, with what a recipe varies."""
    data, valid, test = (f"{labels}/{corpus}_{split}.csv" for split in ("train", "valid", "test"))
    frames = EPOCHS * HOURS[corpus] * 3600 * VIDEO_FPS
    lr = 5e-4 if changes.get("tasks") == "vsr" else PUBLISHED.lr
    last = frames // (PUBLISHED.max_frames * PUBLISHED.accumulate)
    published = replace(PUBLISHED, data=data, valid=valid, test=test, lr=lr, max_steps=last)
    base = TOY if toy else published
    return replace(base, out=str(out), seed=seed, max_steps=steps or base.max_steps, **changes)


def train_and_measure(training: TrainSettings, folder: Path | None = None, **grid: Any) -> list[Row]:
    """The rows of a trained model; what is there is neither trained nor measured again. `grid`: options of evaluate."""
    quiet()
    train_once(training, Bars())
    folder = folder or Path(training.out) / "evaluation"
    if (folder / "report.html").is_file():  # the last that is written
        return json.loads((folder / "results.json").read_text(encoding="utf-8"))["rows"]
    published: dict[str, Any] = {} if training.data is None else {"beams": 15, "max_new_tokens": 32}
    measured = EvaluateSettings(
        checkpoint=training.out, data=training.test, toy_clips=training.toy_clips, **{**published, **grid}
    )
    rows, hypotheses = evaluate(measured, Bars(), folder)
    publish(folder, rows, hypotheses, f"{training.method}, seed {training.seed}")
    return rows


def cell(row: Row) -> str:
    """What a row measures: AVSR (4,2), with its noise if there is one."""
    rates = ",".join(str(row[f"{m}_rate"]) for m in ("audio", "video") if row[f"{m}_rate"])
    noise = "" if row["snr"] is None else f" {row['snr']:g} dB"
    return f"{row['task'].upper()} ({rates}){noise}"


def show(
    title: str,
    measured: Mapping[str, Sequence[Row]],
    published: Mapping[str, Mapping[str, float]],
    corpus: str = "LRS3",
) -> None:
    """Prints each model's measured WERs, and beside them the published ones."""
    columns: list[tuple[str, Mapping[str, float]]] = []
    for name, rows in measured.items():
        columns.append((name, {cell(row): 100 * row["wer"] for row in rows}))
        if name in published:
            columns.append(("paper", published[name]))
    table = Table("WER %", title=f"{title}; paper: {corpus}")
    for head, _ in columns:
        table.add_column(head, overflow="fold")
    for line in dict.fromkeys(cell(row) for rows in measured.values() for row in rows):
        table.add_row(line, *(f"{wers[line]:.1f}" if line in wers else "-" for _, wers in columns))
    Console().print(table)
