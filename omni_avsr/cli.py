"""The command line. Torch is imported inside the commands, so that --help answers at once."""

import re
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

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

    renamed = convert.convert_official(
        file,
        out,
        llm,
        audio_encoder,
        _numbers(audio_rates),
        _numbers(video_rates),
        video_encoder,
        (lora_scale, video_lora_scale),
    )
    _report(renamed, out)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of whole numbers such as 4,16") from None


def _report(renamed: list[tuple[str, str | None]], out: Path) -> None:
    """Prints what was renamed, keys that differ only in numbers as one row."""
    rows = Counter((re.sub(r"\b\d+\b", "N", old), re.sub(r"\b\d+\b", "N", new or "")) for old, new in renamed)
    table = Table(
        "was", "is", "tensors", title=f"{sum(new is not None for _, new in renamed)} tensors written to {out}"
    )
    for (old, new), count in rows.items():
        table.add_row(old, ("as before" if new == old else new) or "[dim]not needed[/dim]", str(count))
    Console().print(table)


def main() -> None:
    """Runs the app: a mistake in the input is one sentence and exit code 2."""
    try:
        app(prog_name="omni-avsr")
    except (ValueError, OSError) as error:
        Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/bold red] {error}", highlight=False)
        sys.exit(2)
