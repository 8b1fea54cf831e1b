"""The commands that convert published weights."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from omni_avsr.cli.terminal import say
from omni_avsr.errors import InputError
from omni_avsr.run import silence_libraries
from omni_avsr.tasks import Task

if TYPE_CHECKING:
    from omni_avsr.convert.folder import Renamed

Out = Annotated[Path, typer.Argument(help="The folder to write, which must be new or empty.")]
FairseqFile = Annotated[
    Path,
    typer.Argument(help="A fairseq checkpoint (.pt), or its weights as .safetensors.", exists=True),
]
FairseqConfig = Annotated[
    Path | None,
    typer.Option(
        help="AV-HuBERT's config (fairseq JSON or a converted folder), for sizes other than base "
        "and large.",
        exists=True,
    ),
]
WhisperSource = Annotated[
    Path,
    typer.Argument(
        help="A folder of CTranslate2's, such as faster-whisper's, or openai's own .pt.",
        exists=True,
    ),
]
Checkpoint = Annotated[
    Path, typer.Argument(help="A published checkpoint, such as model_avg_1.pth.", exists=True)
]
Llm = Annotated[
    str,
    typer.Option(
        help="The LLM's hub id or folder, such as meta-llama/Llama-3.2-1B, for its config and "
        "tokenizer."
    ),
]
AudioEncoder = Annotated[
    str | None,
    typer.Option(
        help="Whisper's hub id or folder, such as openai/whisper-medium.en, for its config."
    ),
]
AudioRates = Annotated[
    str,
    typer.Option(metavar="INT,INT", help="The audio rates of the training command, in its order."),
]
VideoRates = Annotated[
    str,
    typer.Option(metavar="INT,INT", help="The video rates of the training command, in its order."),
]
LlmLoraScale = Annotated[
    float, typer.Option(help="Factor of the LLM's LoRA, the published ALPHA / RANK.")
]
VideoLoraScale = Annotated[float, typer.Option(help="Factor of AV-HuBERT's LoRA.")]
Tasks = Annotated[
    str,
    typer.Option(
        metavar="TASK,TASK",
        help="The tasks of the training: asr, vsr, avsr. By default those whose prompts are in the "
        "file, or the one of a file without prompts.",
    ),
]

app = typer.Typer(
    help="Convert published weights into our folders. No code in their files is executed.",
    no_args_is_help=True,
)


@app.command("avhubert")
def avhubert(file: FairseqFile, out: Out, config: FairseqConfig = None) -> None:
    """Convert a fairseq checkpoint of AV-HuBERT into a video encoder's folder."""
    from omni_avsr.convert.avhubert import convert_avhubert

    silence_libraries()
    _show_renamed(convert_avhubert(file, out, config), out)


@app.command("whisper")
def whisper(source: WhisperSource, out: Out) -> None:
    """Convert Whisper from CTranslate2 or openai into an audio encoder's folder."""
    from omni_avsr.convert.whisper import convert_whisper

    silence_libraries()
    _show_renamed(convert_whisper(source, out), out)


@app.command("official")
def official(  # noqa: PLR0913 - one parameter per option of the command
    file: Checkpoint,
    out: Out,
    llm: Llm,
    audio_encoder: AudioEncoder = None,
    audio_rates: AudioRates = "4,16",
    video_rates: VideoRates = "2,5",
    video_encoder: FairseqConfig = None,
    lora_scale: LlmLoraScale = 0.125,
    video_lora_scale: VideoLoraScale = 2.0,
    tasks: Tasks = "",
) -> None:
    """Convert a checkpoint of Omni-AVSR, Llama-MTSK or Llama-AVSR into a model with all weights."""
    from omni_avsr.convert.official import LoraScales, convert_official

    silence_libraries()
    renamed = convert_official(
        file,
        out,
        llm,
        audio_encoder,
        audio_rates=_numbers(audio_rates),
        video_rates=_numbers(video_rates),
        video_config=video_encoder,
        lora_scales=LoraScales(lora_scale, video_lora_scale),
        tasks=_tasks(tasks),
    )
    _show_renamed(renamed, out)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(map(int, text.split(",")))
    except ValueError:
        raise InputError(f"{text!r} is not a list of whole numbers such as 4,16") from None


def _tasks(text: str) -> tuple[Task, ...]:
    """The tasks of a list, each once."""
    return tuple({Task(name): None for name in text.split(",") if name})


def _show_renamed(renamed: Sequence["Renamed"], out: Path) -> None:
    """Prints the new name of each weight, in one line for names that differ only in numbers."""
    lines: Counter[str] = Counter()
    written = 0
    for old, new in renamed:
        lines[f"{_pattern(old)} [dim]->[/dim] {_outcome(old, new)}"] += 1
        if new is not None:
            written += 1
    for line, count in lines.items():
        say(f"{line} [dim]({count})[/dim]")
    say(f"{written} tensors written to {escape(str(out))}")


def _outcome(old: str, new: str | None) -> str:
    if new is None:
        return "not needed"
    return "as before" if _pattern(new) == _pattern(old) else _pattern(new)


def _pattern(name: str) -> str:
    """The name with N for every number, as rich's markup."""
    return escape(re.sub(r"(?<=layer_)\d+|\b\d+\b", "N", name))
