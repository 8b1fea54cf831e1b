"""The commands that make corpora and check them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from omni_avsr.cli.options import takes
from omni_avsr.cli.terminal import Bars, complain, say
from omni_avsr.settings import CheckSettings, PrepareSettings, ToySettings
from omni_avsr.tasks import VIDEO_FPS

if TYPE_CHECKING:
    from omni_avsr.data.check import Findings
    from omni_avsr.data.prepare import Record

PANEL = "Data and weights"
BAR_WIDTH = 30  # characters of the longest bar of a histogram
QUALITIES = (  # of mouth clips: the measure, its name, and whether less of it is better
    ("detected", "frames with the face", False),
    ("jitter", "jitter in pixels", True),
    ("off_centre", "largest distance of mouth and middle, in pixels", True),
    ("eyes_apart", "distance of the eyes in the video, in pixels", False),
)

app = typer.Typer()
labels_app = typer.Typer(help="Check label files.", no_args_is_help=True)
app.add_typer(labels_app, name="data", rich_help_panel=PANEL)


@app.command("toy", rich_help_panel=PANEL)
@takes(ToySettings)
def toy(
    settings: ToySettings,
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
) -> None:
    """Write a toy corpus: mp4, wav and label files, in the layout that LRS3 users have.

    With --long it is one long recording instead, with the truth about it beside it.
    """
    from omni_avsr.toy import corpus_sizes, write_corpus

    if settings.long is not None:
        _write_recording(settings, out, settings.long)
        return
    sizes = corpus_sizes(settings.clips)
    processes = settings.processes or None
    files = write_corpus(
        out, settings.world, sizes, settings.seed, processes, Bars(), settings.language
    )
    for split, file in files.items():
        say(f"{split}: {escape(str(file))}")


def _write_recording(settings: ToySettings, out: Path, minutes: float) -> None:
    from omni_avsr.toy.long import Recording, write_recording

    recording = Recording(
        settings.world, minutes, settings.speakers, settings.seed, settings.language
    )
    video = write_recording(out, recording, Bars())
    say(escape(str(video)))


@app.command("prepare", rich_help_panel=PANEL)
@takes(PrepareSettings)
def prepare(
    settings: PrepareSettings,
    source: Annotated[Path, typer.Argument(help="The folder of raw videos.")],
    out: Annotated[
        Path, typer.Option(help="The folder to write; clips that it already has are kept.")
    ],
) -> None:
    """Make mouth clips of raw videos: detect, track, align and crop the face that speaks.

    The same command resumes interrupted work. The exit code is 1 if some of the videos fail, or
    pieces of them, and 2 if all do.
    """
    from omni_avsr.data.prepare import prepare, sheet
    from omni_avsr.media.mouth import write_picture

    records = prepare(source, out, settings, Bars())
    made = [record for record in records if record.error is None]
    errors = []
    for record in records:
        errors += [record.error] if record.error else record.left_out
    if not made:
        _complain_of_all(errors)
        complain("no clip was made; the lines above say why, one for each video")
        raise typer.Exit(2)
    _show_quality(made)
    if settings.sheet:
        picture = sheet(out, made)
        if picture is not None:
            write_picture(settings.sheet, picture)
    clips = sum(len(record.rows) for record in made)
    say(f"{clips} clips of {len(made)} videos; label files in {escape(str(out))}/labels")
    _exit_with(errors)


@labels_app.command("check")
@takes(CheckSettings)
def check(
    settings: CheckSettings,
    manifest: Annotated[
        Path, typer.Argument(help="A label file of any layout, or a folder of media.")
    ],
) -> None:
    """Show what a label file holds, and report its problems.

    The exit code is 1 if there are any.
    """
    from omni_avsr.data import manifest as manifests
    from omni_avsr.data.check import check, refuse_target

    if settings.write:
        refuse_target(settings.write, manifest)
    labels = manifests.load(
        manifest, settings.root, settings.format, settings.tokens, settings.audio_track
    )
    findings = check(labels, settings.sample, settings.raw, Bars())
    _show_findings(findings)
    if settings.write:
        manifests.write(labels.clips, settings.write)
        say(f"Written to {escape(str(settings.write))}")
    _exit_with(findings.problems)


def _exit_with(errors: Sequence[str]) -> None:
    """Prints the errors and, if there are any, ends the command with exit code 1."""
    _complain_of_all(errors)
    if errors:
        raise typer.Exit(1)


def _complain_of_all(errors: Sequence[str]) -> None:
    for error in errors:
        complain(error)


def _show_findings(findings: "Findings") -> None:
    """Prints what a label file holds, and the lengths of its clips."""
    clips = findings.manifest.clips
    words = findings.words
    frames = [clip.frames for clip in clips]
    sizes = {f"{height} x {width}": count for (height, width), count in findings.sizes.items()}
    rows = {
        "format": findings.manifest.format,
        "clips": f"{len(clips):,}",
        "hours": f"{findings.hours:.2f}",
        "words": f"{sum(words):,}",
        "clips without text": f"{words.count(0):,}",
        "clips of unknown length": f"{frames.count(0):,}",
        "clips read": f"{findings.read:,}",
        "frames per second": _with_counts(findings.fps),
        "pixels": _with_counts(sizes),
        "sample rate": _with_counts(findings.sample_rates),
        "clips with more or fewer frames than the file says": f"{findings.wrong_frames:,}",
        "problems": f"{len(findings.problems):,}",
    }
    title = escape(str(findings.manifest.file))
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)
    _show_histogram("seconds", [count for count in frames if count], VIDEO_FPS)
    _show_histogram("words", words)


def _with_counts(counts: Mapping) -> str:
    """Values with their counts, such as 25.0 (96), 30.0 (4)."""
    parts = [f"{value} ({count:,})" for value, count in counts.items()]
    return ", ".join(parts) or "none"


def _show_histogram(unit: str, lengths: Sequence[int], per_unit: int = 1) -> None:
    """Prints how many clips have which length, of which so many are one unit."""
    from omni_avsr.data.check import histogram

    if not lengths:
        return
    bins = histogram(lengths)
    most = max(count for _, _, count in bins)
    table = Table("from", "to", "clips", "", title=f"Lengths in {unit}", title_justify="left")
    for shortest, longest, count in bins:
        bar = "█" * round(BAR_WIDTH * count / most)
        table.add_row(f"{shortest / per_unit:g}", f"{longest / per_unit:g}", f"{count:,}", bar)
    Console().print(table)


def _show_quality(records: Sequence["Record"]) -> None:
    """Prints the worst, the median and the best of each measure of quality."""
    if not records:
        return
    title = "Quality of the crops"
    table = Table("", "worst", "median", "best", title=title, title_justify="left")
    for measure, name, less_is_better in QUALITIES:
        values = [record.quality[measure] for record in records]
        values.sort(reverse=less_is_better)
        median = values[len(values) // 2]
        table.add_row(name, f"{values[0]:g}", f"{median:g}", f"{values[-1]:g}")
    Console().print(table)
