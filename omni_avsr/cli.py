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

from omni_avsr.run import quiet
from omni_avsr.settings import DecodeSettings, DemoSettings, ToySettings, TrainSettings, numbers
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
app.add_typer(convert_app, name="convert")

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
        Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/bold red] {escape(str(error))}", highlight=False)
        sys.exit(2)
