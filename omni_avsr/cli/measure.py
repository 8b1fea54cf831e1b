"""The commands that measure models and compare them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from omni_avsr.choice import chosen_model
from omni_avsr.cli.decoded import counted, show_choice, show_live
from omni_avsr.cli.options import takes
from omni_avsr.cli.terminal import (
    Bars,
    name_model,
    say,
    show_differences,
    show_info,
    show_sizes,
    table_one,
)
from omni_avsr.errors import InputError
from omni_avsr.run import silence_libraries
from omni_avsr.settings import (
    CalibrateSettings,
    CheckpointOptions,
    EvaluateSettings,
    PlanSettings,
    TrainSettings,
)

PANEL = "Measure models"
STUDY = Path("runs/scale")  # where a scaling study goes without --out

app = typer.Typer()


@app.command("evaluate", rich_help_panel=PANEL)
@takes(EvaluateSettings)
def evaluate(settings: EvaluateSettings) -> None:
    """Measure every task at every rate, clean and in every noise.

    Prints a table, and writes results.json, hypotheses.jsonl and report.html. For example, with
    babble at 0 dB: `omni-avsr evaluate --snr clean,0`.
    """
    from omni_avsr.measure.cost import inspect
    from omni_avsr.measure.elastic import curves, write_curves
    from omni_avsr.measure.evaluate import Evaluation, evaluate
    from omni_avsr.measure.live import evaluate_live
    from omni_avsr.measure.report import write_report
    from omni_avsr.toy import toy_corpus

    silence_libraries()
    name_model(chosen_model(settings.checkpoint))
    if settings.live:
        show_live(evaluate_live(settings, Bars(), toy_corpus))
        return
    facts = inspect(settings.checkpoint, settings.towers) if settings.elastic else None
    chosen = []
    if facts is not None and not facts.ladders:
        raise InputError(f"{facts.checkpoint} cannot tell when to doubt: `omni-avsr calibrate` it")

    def report(evaluation: Evaluation) -> None:
        if facts is not None:
            chosen.extend(curves(evaluation.hypotheses, facts.ladders, facts.costs))
            write_curves(settings.out, chosen)
        write_report(settings.out, evaluation, "omni-avsr: an evaluation", elastic=chosen)

    evaluation = evaluate(settings, Bars(), toy_corpus, report)
    Console().print(table_one(evaluation.results))
    for curve in chosen:
        show_choice(curve)
    first = evaluation.results[0]
    say(
        f"{counted(evaluation.results)}, texts normalised by {settings.normaliser!r}, "
        f"checkpoint {escape(first.checkpoint)}; "
        f"intervals, plots and the worst clips are in {escape(str(settings.out))}/report.html"
    )
    exit_if_unreadable(evaluation.unreadable)


def exit_if_unreadable(clips: int) -> None:
    """Reports clips that could not be read, and ends the command with exit code 1."""
    if clips:
        say(f"[red]{clips} clips could not be read[/red]; the log above names them")
        raise typer.Exit(1)


@app.command("calibrate", rich_help_panel=PANEL)
@takes(CalibrateSettings)
def calibrate(settings: CalibrateSettings) -> None:
    """Make the probabilities of words hold: of five words with 0.8, four are right.

    Decodes validation clips at every rate, clean and in noise, and writes what it finds into the
    config of the model.
    """
    from omni_avsr.measure.calibrate import calibrate
    from omni_avsr.toy import toy_corpus

    silence_libraries()
    model = chosen_model(settings.checkpoint)
    name_model(model)
    for found in calibrate(settings, Bars(), toy_corpus):
        say(
            f"{found.task.upper()}: probabilities of {found.words} words are off by "
            f"{100 * found.after:.1f} % on average, and were by {100 * found.before:.1f} %"
        )
    say(f"[bold]{escape(model)}[/bold] is calibrated")


@app.command("compare", rich_help_panel=PANEL)
def compare(
    first: Annotated[
        Path, typer.Argument(help="A results.json of `omni-avsr evaluate`, or its folder.")
    ],
    second: Annotated[Path, typer.Argument(help="Another one.")],
) -> None:
    """Compare two evaluations clip by clip: which differences are real, by a paired bootstrap."""
    from omni_avsr.measure.compare import compare

    show_differences(compare(first, second), first, second)


@app.command("info", rich_help_panel=PANEL)
def info(
    checkpoint: Annotated[
        str | None,
        typer.Argument(
            help="A run, a model's folder or hub id, or tiny.  "
            "[default: the newest run in runs/, or tiny]"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    tower: Annotated[
        str | None,
        typer.Option(help="Where moved towers are now, such as video=FOLDER,llm=FOLDER."),
    ] = None,
) -> None:
    """Show what a model is made of, what it costs at each rate, and how it was trained."""
    from omni_avsr.measure.cost import inspect

    silence_libraries()
    moved = tuple(tower.split(",")) if tower else None
    facts = inspect(checkpoint, CheckpointOptions(tower=moved).towers)
    if as_json:
        print(json.dumps(facts.as_json(), indent=1))
    else:
        show_info(facts)


@app.command("plan", rich_help_panel=PANEL)
@takes(PlanSettings)
def plan(
    settings: PlanSettings,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a training will take on GPUs: memory, FLOPs, hours, and the largest batch.

    Takes the options of `omni-avsr train`, and downloads nothing but configs; needs no GPU.
    """
    from omni_avsr.cli.planned import show_plan
    from omni_avsr.measure.plan import plan

    silence_libraries()
    found = plan(settings, Bars())
    if as_json:
        print(json.dumps(found.as_json(), indent=1))
    else:
        show_plan(found)


@app.command("scale", rich_help_panel=PANEL)
@takes(TrainSettings)
def scale(
    settings: TrainSettings,
    only: Annotated[
        str | None, typer.Option(help="Train and measure only this LLM, such as tiny-s.")
    ] = None,
    collect: Annotated[
        bool, typer.Option("--collect", help="Train nothing; write the study of what has finished.")
    ] = False,
    print_commands: Annotated[
        bool,
        typer.Option(
            "--print-commands",
            help="Run nothing; print one command per LLM, for the jobs of a cluster.",
        ),
    ] = False,
) -> None:
    """Train and measure one method with several LLMs, such as `--llm tiny-s,tiny-m,tiny-l`.

    The same command resumes an interrupted study. Without --out it goes to runs/scale.
    """
    from omni_avsr.measure import scaling

    silence_libraries()
    if settings.out == TrainSettings.out:
        settings = replace(settings, out=STUDY)
    if print_commands:
        print("\n".join(scaling.commands(settings)))
        return
    if only:
        scaling.train_one(scaling.one(settings, only), Bars())
        return
    sizes = scaling.collect(settings) if collect else scaling.scale(settings, Bars())
    show_sizes(scaling.HEADS, [scaling.line(size) for size in sizes])
    say(f"The figure and the fits are in {escape(str(settings.out))}/scaling.html")
