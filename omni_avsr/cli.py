"""The command line. Torch is imported inside the commands, so that --help answers at once."""

import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from omni_avsr.run import quiet
from omni_avsr.settings import (
    CheckSettings,
    DecodeSettings,
    DemoSettings,
    PrepareSettings,
    ToySettings,
    TrainSettings,
    TranscribeSettings,
    numbers,
)
from omni_avsr.tasks import VERSION

app = typer.Typer(
    name="omni-avsr",
    help="One audio-visual language model that hears (ASR), reads lips (VSR), and does both (AVSR), at any token rate.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
convert_app = typer.Typer(
    help="Turn foreign weights into our folders. Nothing in a file is executed.", no_args_is_help=True
)
data_app = typer.Typer(help="Look at label files.", no_args_is_help=True)
app.add_typer(convert_app, name="convert")
app.add_typer(data_app, name="data")

Out = Annotated[Path, typer.Argument(help="The folder to write; it must be new or empty.")]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"omni-avsr {VERSION}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """One audio-visual language model that hears (ASR), reads lips (VSR), and does both (AVSR), at any token rate."""


@convert_app.command("avhubert")
def convert_avhubert(
    file: Annotated[
        Path, typer.Argument(help="A fairseq checkpoint (.pt), or its weights as .safetensors.", exists=True)
    ],
    out: Out,
    config: Annotated[
        Path | None,
        typer.Option(
            help="A fairseq config (JSON) or a converted folder, for sizes other than base and large.", exists=True
        ),
    ] = None,
) -> None:
    """Turn a fairseq AV-HuBERT checkpoint into a video encoder folder."""
    from omni_avsr import convert

    quiet()
    _report(convert.convert_avhubert(file, out, config), out)


@convert_app.command("official")
def convert_official(  # noqa: PLR0913 - one parameter per option of the command
    file: Annotated[Path, typer.Argument(help="A published checkpoint, such as model_avg_1.pth.", exists=True)],
    out: Out,
    llm: Annotated[str, typer.Option(help="The LLM's hub id or folder, for its config and tokenizer.")],
    audio_encoder: Annotated[str | None, typer.Option(help="Whisper's hub id or folder, for its config.")] = None,
    audio_rates: Annotated[str, typer.Option(help="The audio rates of the training command, in its order.")] = "4,16",
    video_rates: Annotated[str, typer.Option(help="The video rates of the training command, in its order.")] = "2,5",
    video_encoder: Annotated[
        Path | None,
        typer.Option(
            help="AV-HuBERT's config (fairseq JSON or a converted folder), if neither base nor large.", exists=True
        ),
    ] = None,
    lora_scale: Annotated[float, typer.Option(help="Factor of the LLM's LoRA, the published ALPHA / RANK.")] = 0.125,
    video_lora_scale: Annotated[float, typer.Option(help="Factor of AV-HuBERT's LoRA.")] = 2.0,
) -> None:
    """Turn a published Omni-AVSR, Llama-MTSK or Llama-AVSR checkpoint into a model folder with all its weights."""
    from omni_avsr import convert

    quiet()
    renamed = convert.convert_official(
        file,
        out,
        llm,
        audio_encoder,
        numbers(audio_rates),
        numbers(video_rates),
        video_encoder,
        (lora_scale, video_lora_scale),
    )
    _report(renamed, out)


def _report(renamed: list[tuple[str, str | None]], out: Path) -> None:
    """Prints what was renamed, a line for keys that differ only in numbers."""
    rows = Counter((re.sub(r"\b\d+\b", "N", old), re.sub(r"\b\d+\b", "N", new or "")) for old, new in renamed)
    for (old, new), count in rows.items():
        now = "as before" if new == old else escape(new) or "not needed"
        _say(f"{escape(old)} [dim]->[/dim] {now} [dim]({count})[/dim]")
    _say(f"{sum(new is not None for _, new in renamed)} tensors written to {escape(str(out))}")


def _takes(settings: type) -> Callable:
    """Gives a command one option per field of a settings class; the command gets them as one object."""

    def decorate(command: Callable) -> Callable:
        def run(**values: Any) -> None:
            own = {name: values.pop(name) for name in [field.name for field in fields(settings)]}
            command(settings(**own), **values)

        hints = get_type_hints(settings)
        arguments = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        options = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=Annotated[hints[field.name], typer.Option(help=field.metadata["help"])],
            )
            for field in fields(settings)
        ]
        run.__signature__ = inspect.Signature([*arguments, *options])  # type: ignore[attr-defined]
        run.__doc__ = command.__doc__
        return run

    return decorate


@app.command("train")
@_takes(TrainSettings)
def train(settings: TrainSettings) -> None:
    """Train a model; without options, omni-avsr-st on the toy corpus and the tiny towers."""
    from omni_avsr.training import fit

    quiet()
    _say(f"The model is in {fit(settings, _Bars())}")


@app.command("decode")
@_takes(DecodeSettings)
def decode(settings: DecodeSettings) -> None:
    """Transcribe the clips of a label file and count the errors."""
    from omni_avsr import decoding
    from omni_avsr.evaluation import worst, write_hypotheses
    from omni_avsr.text import alignment

    quiet()
    decoded, row, failed = decoding.decode_file(settings, _Bars())
    if settings.out:
        write_hypotheses(settings.out, decoded.hypotheses)
    for hypothesis in worst(decoded.hypotheses):
        _say(f"[dim]{hypothesis.id}[/dim]")
        print(alignment(*hypothesis.scored), "\n", sep="")
    rates = ", ".join(f"{name} rate {row[f'{name}_rate']}" for name in ("audio", "video") if row[f"{name}_rate"])
    _say(
        f"[bold]{row['task'].upper()} at {rates}: WER {100 * row['wer']:.1f} %[/bold] of {row['words']} words "
        f"({row['substitutions']} substituted, {row['deletions']} deleted, {row['insertions']} inserted), "
        f"CER {100 * row['cer']:.1f} %, {row['clips']} clips, {row['audio_seconds'] / row['decode_seconds']:.0f} times "
        f"as fast as speech; checkpoint {row['checkpoint']}"
    )
    if failed:
        _say(f"[red]{failed} clips could not be read[/red]; the log above names them")
        raise typer.Exit(1)


@app.command("demo")
@_takes(DemoSettings)
def demo(settings: DemoSettings) -> None:
    """See the whole system work: corpus, training, every task at every rate, in silence and in babble."""
    from omni_avsr.demo import demo
    from omni_avsr.evaluation import table_one

    quiet()
    rows = demo(settings, _Bars(), _say)
    Console().print(table_one(rows, title="Word errors in percent, in the layout of Omni-AVSR's Table I"))
    _say(f"Report: {settings.out}/report.html. Next:")
    for command in NEXT:
        _say(f"  [bold]{command}[/bold]")


NEXT = (
    "omni-avsr decode --task vsr --video-rate 5",
    "omni-avsr decode --checkpoint tiny --toy-world open --beams 5",
    "omni-avsr train --tasks asr,vsr,avsr --llm tiny-l --out runs/larger",
)


@app.command("toy")
@_takes(ToySettings)
def toy(settings: ToySettings, out: Out) -> None:
    """Write a toy corpus: mp4, wav and label files in the layout that LRS3 users have."""
    from omni_avsr.data.toy import write_corpus

    progress, processes = partial(_Bars(), "Making clips"), settings.processes or None
    files = write_corpus(out, settings.world, settings.clips, settings.seed, processes=processes, progress=progress)
    for split, file in files.items():
        _say(f"{split}: {file}")


@data_app.command("check")
@_takes(CheckSettings)
def check(
    settings: CheckSettings,
    manifest: Annotated[Path, typer.Argument(help="A label file of any layout, or a folder of media.")],
) -> None:
    """Say what a label file holds, and what is wrong with it; exit code 1 if something is."""
    from omni_avsr.data import check
    from omni_avsr.data import manifest as manifests

    loaded = manifests.load(manifest, settings.root, settings.format, settings.tokens)
    findings = check.check(loaded, settings.sample, settings.raw, _Bars())
    _show_findings(findings)
    if settings.write:
        manifests.write(loaded.clips, settings.write)
        _say(f"Written to {escape(settings.write)}")
    for problem in findings.problems:
        _complain(problem)
    if findings.problems:
        raise typer.Exit(1)


def _show_findings(findings) -> None:
    from omni_avsr.data.check import histogram
    from omni_avsr.tasks import VIDEO_FPS

    clips, words = findings.manifest.clips, findings.words
    seconds = [clip.frames / VIDEO_FPS for clip in clips]
    table = Table(title=escape(str(findings.manifest.file)), title_justify="left", show_header=False)
    rows = {
        "format": findings.manifest.format,
        "clips": f"{len(clips):,}",
        "hours": f"{findings.hours:.2f}",
        "words": f"{sum(words):,}",
        "clips without text": f"{words.count(0):,}",
        "clips read": f"{findings.read:,}",
        "frames a second": _counts(findings.fps),
        "pixels": _counts({f"{h} x {w}": n for (h, w), n in findings.sizes.items()}),
        "sample rate": _counts(findings.sample_rates),
        "other number of frames than the file says": f"{findings.wrong_frames:,}",
        "problems": f"{len(findings.problems):,}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)
    for name, lengths in (("seconds", seconds), ("words", words)):
        bars = Table("from", "to", "clips", "", title=f"Lengths in {name}", title_justify="left")
        bins = histogram(lengths)
        for low, high, count in bins:
            bars.add_row(f"{low:.1f}", f"{high:.1f}", f"{count:,}", "█" * round(30 * count / max(n for *_, n in bins)))
        Console().print(bars)


def _counts(counter) -> str:
    return ", ".join(f"{value} ({count:,})" for value, count in counter.items()) or "none"


@app.command("prepare")
@_takes(PrepareSettings)
def prepare(
    settings: PrepareSettings,
    source: Annotated[Path, typer.Argument(help="The folder of raw videos.")],
    out: Annotated[Path, typer.Option(help="Where the clips go; what is there already is not done again.")],
) -> None:
    """Make mouth clips of raw videos: detect, track, align and crop the face that speaks."""
    from omni_avsr import mouth
    from omni_avsr.prepare import prepare, sheet

    records = prepare(source, out, settings, _Bars())
    made = [record for record in records if record.error is None]
    _show_quality(made)
    if settings.sheet and (picture := sheet(out, made)) is not None:
        mouth.write_picture(settings.sheet, picture)
    _say(f"{sum(len(record.rows) for record in made)} clips of {len(made)} videos; label files in {out}/labels")
    failed = [record.error for record in records if record.error]
    for error in failed:
        _complain(error)
    if failed:
        raise typer.Exit(1)


def _show_quality(records) -> None:
    table = Table("", "worst", "median", "best", title="Quality of the crops", title_justify="left")
    lines = {
        "detected": ("frames with the face", False),
        "jitter": ("jitter in pixels", True),
        "off_centre": ("largest distance of mouth and middle, in pixels", True),
        "eyes_apart": ("distance of the eyes in the video, in pixels", False),
    }
    for key, (name, low_is_good) in lines.items():
        values = sorted((record.quality[key] for record in records), reverse=low_is_good)
        if values:
            table.add_row(name, *(f"{values[i]:g}" for i in (0, len(values) // 2, -1)))
    Console().print(table)


@app.command("transcribe")
@_takes(TranscribeSettings)
def transcribe(
    settings: TranscribeSettings,
    files: Annotated[list[Path], typer.Argument(help="Videos, mouth clips or sounds, or folders of them.")],
) -> None:
    """Print what is said in videos, mouth clips or sounds of any length."""
    from omni_avsr.transcribing import expand, transcribe_files
    from omni_avsr.transcripts import Writer

    quiet()
    found = expand(files)
    failed = []
    with Writer(settings.format, settings.out, several=len(found) > 1) as writer:
        for transcript in transcribe_files(found, settings):
            writer.write(transcript)
            failed += [transcript.error] if transcript.error else []
    for error in failed:
        _complain(error)
    if failed:
        raise typer.Exit(2 if len(failed) == len(found) else 1)


def _complain(text: str) -> None:
    Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/bold red] {escape(text)}", highlight=False)


def _say(text: str) -> None:
    Console(soft_wrap=True).print(text, highlight=False)


class _Bars:
    """A progress bar for each thing that is reported, one after another."""

    def __init__(self) -> None:
        self.bar: Progress | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        if self.bar is None:
            columns = (*Progress.get_default_columns(), MofNCompleteColumn())
            self.bar = Progress(*columns, console=Console(stderr=True))
            self.bar.add_task(what)
            self.bar.start()
        self.bar.update(self.bar.task_ids[0], completed=done, total=total)
        if done >= total:
            self.bar.stop()
            self.bar = None


def main() -> None:
    """Runs the app: a mistake in the input is one sentence and exit code 2."""
    try:
        app(prog_name="omni-avsr")
    except (ValueError, OSError) as error:
        _complain(str(error))
        sys.exit(2)
