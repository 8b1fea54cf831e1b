"""The command line: its root, and the commands that train and decode.

Torch is imported inside the commands, so that --help answers at once.
"""

import logging
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from omni_avsr.choice import chosen_model
from omni_avsr.cli import convert, data, export, measure
from omni_avsr.cli.decoded import show_result, show_worst
from omni_avsr.cli.imports import quick_imports
from omni_avsr.cli.options import takes
from omni_avsr.cli.terminal import (
    Bars,
    complain,
    name_model,
    note,
    say,
    show_finding,
    stop_bars,
    table_one,
)
from omni_avsr.errors import InputError
from omni_avsr.run import silence_libraries
from omni_avsr.settings import (
    DecodeSettings,
    DemoSettings,
    LiveSettings,
    ServeSettings,
    TrainSettings,
    TranscribeSettings,
)
from omni_avsr.tasks import VERSION

ABOUT = (
    "One audio-visual language model that hears (ASR), reads lips (VSR), and does both (AVSR), "
    "at any token rate."
)
REPORT = "this is a fault of omni-avsr: please report this with the traceback above"
NEXT = (
    "omni-avsr decode --task vsr --video-rate 5",
    "omni-avsr decode --checkpoint tiny --toy-world open --beams 5",
    "omni-avsr train --tasks asr,vsr,avsr --llm tiny-l --out runs/larger",
)
INTERRUPTED = 130  # the exit code after Ctrl-C
MODELS = "Train and use models"  # panels of --help
START = "Start here"

app = typer.Typer(
    name="omni-avsr",
    help=ABOUT,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


@dataclass
class GlobalOptions:
    """The options before the command, which errors are shown by."""

    debug: bool = False


def main() -> None:
    """Runs the app, and turns errors into messages and exit codes."""
    chosen = GlobalOptions()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # PEFT imports it if it is there
    try:
        _run(chosen)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            note("interrupted")
        raise
    except (InputError, OSError) as error:
        if chosen.debug:
            traceback.print_exc()
        complain(str(error))
        sys.exit(2)
    except Exception:
        traceback.print_exc()
        complain(REPORT)
        sys.exit(1)


def _run(chosen: GlobalOptions) -> None:
    try:
        app(prog_name="omni-avsr", obj=chosen)
    finally:
        stop_bars()


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"omni-avsr {VERSION}")
        raise typer.Exit


@app.callback(help=ABOUT)
def options(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of every error.")
    ] = False,
) -> None:
    """Keeps the options that come before the command."""
    ctx.ensure_object(GlobalOptions).debug = debug


@app.command("demo", rich_help_panel=START)
@takes(DemoSettings)
def demo(settings: DemoSettings) -> None:
    """Train and measure a small model on the toy corpus; takes about five minutes on two cores."""
    from omni_avsr.cli.demo import demo

    silence_libraries()
    results = demo(settings, Bars(), say)
    Console().print(table_one(results))
    say(f"Report: {escape(str(settings.out))}/report.html. Next:")
    for command in NEXT:
        say(f"  [bold]{command}[/bold]")


@app.command("doctor", rich_help_panel=START)
def doctor(
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Download the face detector if it is not installed.")
    ] = False,
) -> None:
    """Check that this machine has what omni-avsr needs, and say how to get the rest.

    The exit code is 1 if something fails.
    """
    from omni_avsr.cli.doctor import examine

    silence_libraries()
    something_fails = False
    for finding in examine(fetch):
        show_finding(finding)
        something_fails = something_fails or finding.fails
    if something_fails:
        raise typer.Exit(1)


@app.command("train", rich_help_panel=MODELS)
@takes(TrainSettings)
def train(settings: TrainSettings) -> None:
    """Train a model; without options, omni-avsr-st with the tiny towers on the toy corpus.

    The same command resumes an interrupted run, and `--config runs/a/run.json --out runs/b` repeats
    a run.
    """
    from omni_avsr.toy import toy_corpus
    from omni_avsr.train.fit import fit

    silence_libraries()
    model = fit(settings, Bars(), toy_corpus)
    say(f"The model is in {escape(str(model))}")


@app.command("average", rich_help_panel=MODELS)
def average(
    run: Annotated[Path, typer.Argument(help="A run's folder, trained with --keep.")],
    last: Annotated[int, typer.Option(help="How many of its last checkpoints.")] = 4,
    out: Annotated[
        Path | None,
        typer.Option(help="The folder to write.  [default: average, in the run's folder]"),
    ] = None,
) -> None:
    """Average the last checkpoints of a run, in float32."""
    from omni_avsr.train.average import average

    silence_libraries()
    target = out or run / "average"
    chosen = average(run, last, target)
    names = ", ".join(path.stem for path in chosen)
    say(f"The mean of {names} is in {escape(str(target))}")


@app.command("decode", rich_help_panel=MODELS)
@takes(DecodeSettings)
def decode(settings: DecodeSettings) -> None:
    """Transcribe the clips of a label file, and print the word error rate and the worst clips.

    Without --data, the test clips of the toy corpus are transcribed.
    """
    with quick_imports():
        from omni_avsr.measure.evaluate import decode_file
        from omni_avsr.toy import toy_corpus

    silence_libraries()
    name_model(chosen_model(settings.checkpoint))
    evaluation = decode_file(settings, Bars(), toy_corpus)
    show_worst(evaluation.hypotheses)
    for result in evaluation.results:
        show_result(result)
    if not evaluation.results:
        clips = len(evaluation.hypotheses)
        say(f"{clips} clips were transcribed; as none has a text, nothing can be scored")
    measure.exit_if_unreadable(evaluation.unreadable)


@app.command("transcribe", rich_help_panel=MODELS)
@takes(TranscribeSettings)
def transcribe(
    settings: TranscribeSettings,
    files: Annotated[
        list[Path], typer.Argument(help="Videos, mouth clips, sounds, or folders of them.")
    ],
) -> None:
    """Print what is said in videos, mouth clips or sounds of any length.

    What goes to --out is resumed by the same command after an interruption. The exit code is 1 if
    a file is damaged or cannot be read, and 2 if nothing is transcribed.
    """
    from omni_avsr.cli.transcribe import run

    if code := run(settings, files):
        raise typer.Exit(code)


@app.command("live", rich_help_panel=MODELS)
@takes(LiveSettings)
def live(
    settings: LiveSettings,
    file: Annotated[
        Path | None, typer.Argument(help="A video, mouth clip or sound.", show_default=False)
    ] = None,
) -> None:
    """Show what is said in a file while it plays, or in front of this machine.

    Words appear as they settle. Ctrl-C ends what --mic and --camera record.
    """
    with quick_imports():
        from omni_avsr.cli.live import run

    silence_libraries()
    run(settings, file)


@app.command("serve", rich_help_panel=MODELS)
@takes(ServeSettings)
def serve(settings: ServeSettings) -> None:
    """Serve OpenAI's transcription API, for sound and video.

    Needs `pip install 'omni-avsr[serve]'`. Nothing that is uploaded is kept.
    """
    from omni_avsr.cli.serve import run

    run(settings)


app.add_typer(measure.app)
app.add_typer(data.app)
app.add_typer(convert.app, name="convert", rich_help_panel=data.PANEL)
app.add_typer(export.app, name="export", rich_help_panel=data.PANEL)
