"""Reads and writes label files; their layouts are in formats.py."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from omni_avsr.data.clips import Clip, clips_in, read_text, transcript
from omni_avsr.data.formats import FORMATS, LabelFile, Line, detect_format
from omni_avsr.errors import InputError
from omni_avsr.files import as_lines
from omni_avsr.media.folders import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from omni_avsr.tasks import Row

__all__ = [
    "FORMATS",
    "Clip",
    "Manifest",
    "Problem",
    "detect_format",
    "load",
    "read",
    "read_text",
    "transcript",
    "write",
]

PROBLEMS_SHOWN = 5  # in an error message
LABEL_SUFFIXES = (".csv", ".tsv", ".jsonl")


class Problem(NamedTuple):
    """What is wrong with a line of a label file."""

    line: int  # from 1
    message: str


@dataclass(frozen=True)
class Manifest:
    """The clips of a label file, and the lines that could not be read."""

    file: Path
    format: str
    clips: list[Clip]
    lines: list[int]  # the line number of each clip; 0 in a folder of media
    problems: list[Problem] = field(default_factory=list)


def read(
    file: Path | str,
    root: Path | str | None = None,
    format: str | None = None,
    tokens: Path | str | None = None,
    track: int | None = None,
) -> list[Clip]:
    """The clips of a label file of any layout, or of a folder of media.

    Takes the options of `load`. Raises InputError if any line is wrong.
    """
    manifest = load(file, root, format, tokens, track)
    if manifest.problems:
        shown = manifest.problems[:PROBLEMS_SHOWN]
        messages = [f"line {problem.line}: {problem.message}" for problem in shown]
        hidden = len(manifest.problems) - len(shown)
        more = f" and {hidden} more" if hidden else ""
        raise InputError(f"{file}: {'; '.join(messages)}{more}")
    return manifest.clips


def load(
    file: Path | str,
    root: Path | str | None = None,
    format: str | None = None,
    tokens: Path | str | None = None,
    track: int | None = None,
) -> Manifest:
    """The clips of a label file or a folder of media, and what is wrong with single lines.

    Relative paths start at `root`: by default two folders above the file, or where a TSV says.
    `tokens` is a list of pieces and their ids, for files with token ids, or the sentencepiece model
    next to that list. `track` is the audio track, from 1, of all clips.
    """
    file = Path(file)
    if file.suffix.lower() in VIDEO_SUFFIXES + AUDIO_SUFFIXES and not file.is_dir():
        raise InputError(f"{file} is not a label file: of media, give the folder that they are in")
    if format is not None and format not in FORMATS:
        raise InputError(f"unknown format {format!r}; available: {', '.join(FORMATS)}")
    if file.is_dir():
        manifest = _load_folder(file)
    elif file.is_file():
        manifest = _load_file(
            LabelFile(
                file=file,
                lines=_numbered_lines(file),
                root=Path(root) if root else None,
                tokens=Path(tokens) if tokens else None,
            ),
            format,
        )
    elif file.exists():
        raise InputError(f"{file} is neither a label file nor a folder of media")
    else:
        raise InputError(f"label file {file} does not exist")
    if not manifest.clips and not manifest.problems:
        raise InputError(_nothing_in(file))
    if track is not None:
        clips = [replace(clip, track=track) for clip in manifest.clips]
        manifest = replace(manifest, clips=clips)
    return manifest


def _nothing_in(file: Path) -> str:
    """Why there are no clips in a label file or a folder."""
    if file.is_file():
        return f"{file} holds no clips: no line names one"
    for path in sorted(file.iterdir()):
        if path.suffix in LABEL_SUFFIXES:
            return f"{file} holds no clips: it has neither videos nor sounds; is {path} meant?"
    return f"{file} holds no clips: it has neither videos nor sounds, such as .mp4 or .wav"


def write(clips: Sequence[Clip], file: Path | str) -> None:
    """Writes a label file in our own format, with absolute paths."""
    rows = []
    for clip in clips:
        row: Row = {
            "id": clip.id,
            "audio": str(clip.sound.absolute()),
            "video": str(clip.video.absolute()),
            "frames": clip.frames,
            "text": clip.text,
        }
        if clip.track is not None:
            row["track"] = clip.track
        rows.append(row)
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(as_lines(rows), encoding="utf-8")


def _numbered_lines(file: Path) -> list[Line]:
    """The lines that are not blank, with their numbers."""
    numbered = enumerate(read_text(file).split("\n"), start=1)
    return [Line(number, text) for number, text in numbered if text.strip()]


def _load_folder(folder: Path) -> Manifest:
    clips = clips_in(folder)
    return Manifest(folder, "folder", clips, [0] * len(clips))


def _load_file(labels: LabelFile, format: str | None) -> Manifest:
    format = format or detect_format([line.text for line in labels.lines])
    if not labels.lines:
        return Manifest(labels.file, format, [], [])
    layout = FORMATS[format](labels)
    clips: list[Clip] = []
    line_of: dict[str, int] = {}  # by the clip's id
    problems: list[Problem] = []
    for line in layout.lines:
        try:
            clip = layout.clip(line)
        except InputError as error:
            problems.append(Problem(line.number, str(error)))
            continue
        if clip.id in line_of:
            message = f"{clip.id} is on line {line_of[clip.id]} too: give each clip its own id"
            problems.append(Problem(line.number, message))
            continue
        clips.append(clip)
        line_of[clip.id] = line.number
    return Manifest(labels.file, format, clips, list(line_of.values()), problems)
