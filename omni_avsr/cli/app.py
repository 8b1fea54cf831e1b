"""The command line. Torch is imported inside the commands, so that --help answers at once."""

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from omni_avsr.cli.options import takes
from omni_avsr.cli.terminal import (
    Bars,
    complain,
    say,
    show_differences,
    show_finding,
    show_findings,
    show_info,
    show_quality,
    show_renamed,
    show_sizes,
)
from omni_avsr.run import quiet
from omni_avsr.settings import (
    CheckSettings,
    DecodeSettings,
    DemoSettings,
    EvaluateSettings,
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
    from omni_avsr.convert import official as convert

    quiet()
    show_renamed(convert.convert_avhubert(file, out, config), out)


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
    from omni_avsr.convert import official as convert

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
    show_renamed(renamed, out)


@app.command("train")
@takes(TrainSettings)
def train(settings: TrainSettings) -> None:
    """Train a model; without options, omni-avsr-st on the toy corpus and the tiny towers."""
    from omni_avsr.train.fit import fit

    quiet()
    say(f"The model is in {fit(settings, Bars())}")


@app.command("decode")
@takes(DecodeSettings)
def decode(settings: DecodeSettings) -> None:
    """Transcribe the clips of a label file and count the errors."""
    from omni_avsr.decode import decode as decoding
    from omni_avsr.measure.results import worst
    from omni_avsr.text import alignment

    quiet()
    decoded, row, failed = decoding.decode_file(settings, Bars())
    for hypothesis in worst(decoded.hypotheses):
        say(f"[dim]{hypothesis.id}[/dim]")
        print(alignment(*hypothesis.scored), "\n", sep="")
    rates = ", ".join(f"{name} rate {row[f'{name}_rate']}" for name in ("audio", "video") if row[f"{name}_rate"])
    say(
        f"[bold]{row['task'].upper()} at {rates}: WER {100 * row['wer']:.1f} %[/bold] of {row['words']} words "
        f"({row['substitutions']} substituted, {row['deletions']} deleted, {row['insertions']} inserted), "
        f"CER {100 * row['cer']:.1f} %, {row['clips']} clips, {row['audio_seconds'] / row['decode_seconds']:.0f} times "
        f"as fast as speech; checkpoint {row['checkpoint']}"
    )
    if failed:
        say(f"[red]{failed} clips could not be read[/red]; the log above names them")
        raise typer.Exit(1)


@app.command("evaluate")
@takes(EvaluateSettings)
def evaluate(settings: EvaluateSettings) -> None:
    """Measure every task at every rate in every noise: a table, results.json, hypotheses.jsonl and report.html."""
    from omni_avsr.decode.decode import evaluate
    from omni_avsr.measure.report import publish
    from omni_avsr.measure.results import table_one

    quiet()
    rows, hypotheses = evaluate(settings, Bars(), Path(settings.out))
    publish(settings.out, rows, hypotheses, "omni-avsr: an evaluation")
    Console().print(table_one(rows, title="Word errors in percent, in the layout of Omni-AVSR's Table I"))
    say(
        f"{rows[0]['clips']} clips, texts normalised by {settings.normaliser!r}, checkpoint {rows[0]['checkpoint']}; "
        f"intervals, plots and the worst clips are in {settings.out}/report.html"
    )
    if failed := rows[0]["unreadable"]:
        say(f"[red]{failed} clips could not be read[/red]; the log above names them")
        raise typer.Exit(1)


@app.command("scale")
@takes(TrainSettings)
def scale(
    settings: TrainSettings,
    only: Annotated[str | None, typer.Option(help="Train and measure this LLM of the list alone.")] = None,
    collect: Annotated[bool, typer.Option("--collect", help="Train nothing: gather what is finished.")] = False,
    print_commands: Annotated[
        bool, typer.Option("--print-commands", help="Print a command per LLM, for a cluster's jobs, and do nothing.")
    ] = False,
) -> None:
    """Train and measure one method with several LLMs, --llm A,B,C; goes on where it stopped."""
    from omni_avsr.measure import scaling

    quiet()
    settings = replace(settings, out="runs/scale") if settings.out == TrainSettings.out else settings
    if print_commands:
        print("\n".join(scaling.commands(settings)))
    elif only:
        scaling.train_one(scaling.one(settings, only), Bars())
    else:
        found = scaling.collect(settings) if collect else scaling.scale(settings, Bars())
        show_sizes(scaling.HEADS, [scaling.line(size) for size in found])
        say(f"The figure and the fits are in {settings.out}/scaling.html")


@app.command("compare")
def compare(
    first: Annotated[Path, typer.Argument(help="A results.json of `omni-avsr evaluate`, or its folder.")],
    second: Annotated[Path, typer.Argument(help="Another.")],
) -> None:
    """Compare two evaluations clip by clip: which differences are real, by the paired bootstrap."""
    from omni_avsr.measure import compare as comparing

    show_differences(comparing.compare(first, second), first, second)


@app.command("average")
def average(
    run: Annotated[Path, typer.Argument(help="A run, trained with --keep.")],
    last: Annotated[int, typer.Option(help="How many of its last checkpoints.")] = 4,
    out: Annotated[Path | None, typer.Option(help="The folder to write.  [default: RUN/average]")] = None,
) -> None:
    """Average the last checkpoints of a run, in float32."""
    from omni_avsr.train.average import average

    quiet()
    target = out or run / "average"
    chosen = average(run, last, target)
    say(f"The mean of {', '.join(path.stem for path in chosen)} is in {target}")


@app.command("info")
def info(
    checkpoint: Annotated[str | None, typer.Argument(help="As in `omni-avsr decode`.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a model is made of, what it costs at each rate, and what it was trained on."""
    from omni_avsr.measure.cost import inspect

    quiet()
    facts = inspect(checkpoint)
    if as_json:
        print(json.dumps(facts, indent=1))
    else:
        show_info(facts)


@app.command("doctor")
def doctor() -> None:
    """Say what this machine has of what is needed, and what to do about the rest; exit code 1 if something fails."""
    from omni_avsr.cli.doctor import examine

    quiet()
    failed = False
    for finding in examine():
        show_finding(finding)
        failed |= finding.fails
    if failed:
        raise typer.Exit(1)


@app.command("demo")
@takes(DemoSettings)
def demo(settings: DemoSettings) -> None:
    """See the whole system work: corpus, training, every task at every rate, in silence and in babble."""
    from omni_avsr.cli.demo import demo
    from omni_avsr.measure.results import table_one

    quiet()
    rows = demo(settings, Bars(), say)
    Console().print(table_one(rows, title="Word errors in percent, in the layout of Omni-AVSR's Table I"))
    say(f"Report: {settings.out}/report.html. Next:")
    for command in NEXT:
        say(f"  [bold]{command}[/bold]")


NEXT = (
    "omni-avsr decode --task vsr --video-rate 5",
    "omni-avsr decode --checkpoint tiny --toy-world open --beams 5",
    "omni-avsr train --tasks asr,vsr,avsr --llm tiny-l --out runs/larger",
)


@app.command("toy")
@takes(ToySettings)
def toy(settings: ToySettings, out: Out) -> None:
    """Write a toy corpus: mp4, wav and label files in the layout that LRS3 users have."""
    from omni_avsr.toy import write_corpus

    progress, processes = partial(Bars(), "Making clips"), settings.processes or None
    files = write_corpus(out, settings.world, settings.clips, settings.seed, processes=processes, progress=progress)
    for split, file in files.items():
        say(f"{split}: {file}")


@data_app.command("check")
@takes(CheckSettings)
def check(
    settings: CheckSettings,
    manifest: Annotated[Path, typer.Argument(help="A label file of any layout, or a folder of media.")],
) -> None:
    """Say what a label file holds, and what is wrong with it; exit code 1 if something is."""
    from omni_avsr.data import check
    from omni_avsr.data import manifest as manifests

    loaded = manifests.load(manifest, settings.root, settings.format, settings.tokens)
    findings = check.check(loaded, settings.sample, settings.raw, Bars())
    show_findings(findings)
    if settings.write:
        manifests.write(loaded.clips, settings.write)
        say(f"Written to {escape(settings.write)}")
    for problem in findings.problems:
        complain(problem)
    if findings.problems:
        raise typer.Exit(1)


@app.command("prepare")
@takes(PrepareSettings)
def prepare(
    settings: PrepareSettings,
    source: Annotated[Path, typer.Argument(help="The folder of raw videos.")],
    out: Annotated[Path, typer.Option(help="Where the clips go; what is there already is not done again.")],
) -> None:
    """Make mouth clips of raw videos: detect, track, align and crop the face that speaks."""
    from omni_avsr.data.prepare import prepare, sheet
    from omni_avsr.media import mouth

    records = prepare(source, out, settings, Bars())
    made = [record for record in records if record.error is None]
    show_quality(made)
    if settings.sheet and (picture := sheet(out, made)) is not None:
        mouth.write_picture(settings.sheet, picture)
    say(f"{sum(len(record.rows) for record in made)} clips of {len(made)} videos; label files in {out}/labels")
    failed = [record.error for record in records if record.error]
    for error in failed:
        complain(error)
    if failed:
        raise typer.Exit(1)


@app.command("transcribe")
@takes(TranscribeSettings)
def transcribe(
    settings: TranscribeSettings,
    files: Annotated[list[Path], typer.Argument(help="Videos, mouth clips or sounds, or folders of them.")],
) -> None:
    """Print what is said in videos, mouth clips or sounds of any length."""
    from omni_avsr.decode.transcribe import expand, transcribe_files
    from omni_avsr.decode.transcripts import Writer

    quiet()
    found = expand(files)
    failed = []
    several = len(found) > 1 or any(path.is_dir() for path in files)
    with Writer(settings.format, settings.out, found, several) as writer:
        for transcript in transcribe_files(found, settings):
            writer.write(transcript)
            failed += [transcript.error] if transcript.error else []
    for error in failed:
        complain(error)
    if failed:
        raise typer.Exit(2 if len(failed) == len(found) else 1)


def main() -> None:
    """Runs the app: a mistake in the input is one sentence and exit code 2."""
    try:
        app(prog_name="omni-avsr")
    except (ValueError, OSError) as error:
        complain(str(error))
        sys.exit(2)
