"""The layouts of label files: one class for each, which makes a clip from each line.

| format | file | text |
|---|---|---|
| llama-avsr | CSV: dataset, path, frames, ignored, text | in the file; may contain commas |
| auto-avsr | CSV: dataset, path, frames, token ids | text files by the videos, or from the ids |
| avhubert | TSV: a root, then id, video, audio, frames, samples | .wrd or .LANGUAGE, line by line |
| mms-llama | the same with a sixth column and {PLACEHOLDERS} | the same |
| usr | CSV: tag, path, frames, token ids; never detected | from the ids |
| jsonl | JSON lines: id, audio, video, frames, text, track | in the file |
| folder | media; a video's audio in it or next to it | .txt next to each |
"""

import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from omni_avsr.data.clips import Clip, is_file, lower_capitals, read_text, transcript
from omni_avsr.errors import InputError
from omni_avsr.media import streams

SAMPLE = 100  # lines that are read to detect the layout of a file
NAME_TOKENS = "give the list of pieces and ids with --tokens"
JSON_OBJECT = re.compile(r"\s*\{\s*([\"'}]|$)")  # its start; a folder named {x} is none
QUOTED = re.compile(r'"([^"]|"")*"')  # as programs write a text that has commas or quotes
NO_MEDIA = "an object with the path of an 'audio' or a 'video' expected"


class Line(NamedTuple):
    """A line of a label file."""

    number: int  # from 1
    text: str


@dataclass(frozen=True)
class LabelFile:
    """An opened label file and the options to read it with."""

    file: Path
    lines: list[Line]  # the lines that are not blank, at least one
    root: Path | None = None  # where relative paths start
    tokens: Path | None = None  # the list of pieces and ids

    @property
    def base(self) -> Path:
        """Where relative paths start: the root, by default two folders above the file."""
        return self.root or self.file.resolve().parent.parent


class Format(ABC):
    """A layout of label files."""

    def __init__(self, labels: LabelFile):
        self.lines = labels.lines  # those that hold a clip

    @abstractmethod
    def clip(self, line: Line) -> Clip:
        """The clip of a line; raises InputError if the line is wrong."""


class Csv(Format):
    """CSV whose lines start with a dataset, a path below its folder, and a number of frames."""

    def __init__(self, labels: LabelFile):
        super().__init__(labels)
        self.base = labels.base
        self.have_dataset_folder = _have_dataset_folder(labels)

    def video(self, dataset: str, path: str) -> Path:
        if not Path(path).name:
            raise InputError(f"{path!r} is not the path of a file")
        return self.base / dataset / path if self.have_dataset_folder else self.base / path

    def clip_of(self, video: Path, path: str, frames: str, text: str) -> Clip:
        return Clip(
            id=str(Path(path).with_suffix("")),
            audio=video.with_suffix(".wav"),
            video=video,
            frames=_frames(frames),
            text=lower_capitals(text),
        )


class LlamaAvsr(Csv):
    """CSV with the text in its last column."""

    def clip(self, line: Line) -> Clip:
        dataset, path, frames, _, text = _fields(line, ",", 5)
        if QUOTED.fullmatch(text):
            text = text[1:-1].replace('""', '"')
        return self.clip_of(self.video(dataset, path), path, frames, text)


class AutoAvsr(Csv):
    """CSV with token ids; the texts are also in a folder next to that of the videos."""

    def __init__(self, labels: LabelFile):
        super().__init__(labels)
        self.tokens = TokenList(labels.tokens) if labels.tokens else None

    def clip(self, line: Line) -> Clip:
        dataset, path, frames, ids = _fields(line, ",", 4)
        video = self.video(dataset, path)
        text = self.tokens.text(ids) if self.tokens else _text_beside(video)
        return self.clip_of(video, path, frames, text)


class Usr(AutoAvsr):
    """CSV with token ids and no texts anywhere."""

    def __init__(self, labels: LabelFile):
        if not labels.tokens:
            raise InputError(f"{labels.file}: the format usr holds only token ids; {NAME_TOKENS}")
        super().__init__(labels)


class AVHubert(Format):
    """TSV with a root on its first line, and the texts in another file."""

    def __init__(self, labels: LabelFile):
        super().__init__(labels)
        first, *self.lines = labels.lines
        self.root = labels.root
        self.base = labels.root or Path(first.text.strip())
        texts = _texts_of_tsv(labels.file, len(self.lines))
        numbers = [line.number for line in self.lines]
        self.texts = dict(zip(numbers, texts, strict=True))

    def clip(self, line: Line) -> Clip:
        name, video, audio_and_offset, frames, *_ = _fields(line, "\t", 5)
        audio = audio_and_offset.split(":")[0]
        return Clip(
            id=name,
            audio=self.base / _without_placeholders(audio, self.root),
            video=self.base / _without_placeholders(video, self.root),
            frames=_frames(frames),
            text=lower_capitals(self.texts[line.number]),
        )


class JsonLines(Format):
    """Our own layout: one JSON object per line."""

    def __init__(self, labels: LabelFile):
        super().__init__(labels)
        self.base = labels.root or labels.file.resolve().parent

    def clip(self, line: Line) -> Clip:
        row = _json_object(line.text)
        audio = _string(row, "audio") or _string(row, "video")
        video = _string(row, "video") or _string(row, "audio")
        if audio is None or video is None:
            raise InputError(NO_MEDIA)
        video_file = self.base / video
        frames = row.get("frames") or streams.count_frames(video_file)
        given_id = row.get("id")
        return Clip(
            id=video_file.stem if given_id is None else str(given_id),
            audio=self.base / audio,
            video=video_file,
            frames=_frames(str(frames)),
            text=lower_capitals(_string(row, "text") or ""),
            track=_track(row),
        )


FORMATS: dict[str, type[Format]] = {
    "llama-avsr": LlamaAvsr,
    "auto-avsr": AutoAvsr,
    "avhubert": AVHubert,
    "mms-llama": AVHubert,
    "usr": Usr,
    "jsonl": JsonLines,
}


def detect_format(lines: Sequence[str]) -> str:
    """The format that most of these lines look like."""
    sample = lines[:SAMPLE]
    if not sample or JSON_OBJECT.match(sample[0]):
        return "jsonl"
    tabs = sample[1].count("\t") if len(sample) > 1 else 0
    if "\t" not in sample[0] and tabs >= 4:
        return "avhubert" if tabs == 4 else "mms-llama"
    with_ids = with_text = 0
    for line in sample:
        fields = line.split(",", 4)
        if len(fields) == 5:
            with_text += 1
        elif len(fields) == 4 and _are_token_ids(fields[3]):
            with_ids += 1
    return "auto-avsr" if with_ids > with_text else "llama-avsr"


def _are_token_ids(text: str) -> bool:
    parts = text.split()
    return bool(parts) and all(part.isdigit() for part in parts)


def _fields(line: Line, separator: str, count: int) -> list[str]:
    """The first fields of a line; the last one is the rest of it."""
    fields = line.text.split(separator, count - 1)
    if len(fields) < count:
        raise InputError(f"{len(fields)} fields, {count} expected")
    return [field.strip() for field in fields]


def _frames(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text):
        raise InputError(f"{text!r} is not a whole number of frames")
    return int(text)


def _have_dataset_folder(labels: LabelFile) -> bool:
    """Whether paths start in the dataset's folder, as the first file that exists shows."""
    for line in labels.lines[:SAMPLE]:
        dataset, _, rest = line.text.partition(",")
        path, comma, _ = rest.partition(",")
        if not comma:
            continue
        if is_file(labels.base / dataset / path):
            return True
        if is_file(labels.base / path):
            return False
    return True


def _text_beside(video: Path) -> str:
    """The text of X_video_Y/clip.mp4, which is in X_text_Y/clip.txt."""
    before, video_folder, after = str(video).rpartition("_video_")
    file = Path(f"{before}_text_{after}").with_suffix(".txt")
    if not video_folder or not is_file(file):
        raise InputError(f"no text in {file}: put it there, or {NAME_TOKENS}")
    return transcript(file)


class TokenList:
    """Turns token ids into text, with a list of lines `piece id`.

    Auto-AVSR has the list X_units.txt next to its sentencepiece model X.model. The model itself
    does not help: it numbers the same pieces in another order.
    """

    def __init__(self, file: Path):
        is_model = file.suffix == ".model"
        self.file = file.with_name(f"{file.stem}_units.txt") if is_model else file
        if not self.file.is_file():
            raise InputError(f"there is no list of pieces and ids {self.file}")
        self.piece_of: dict[str, str] = {}
        for number, line in enumerate(read_text(self.file).split("\n"), start=1):
            fields = line.split()
            if len(fields) == 2:
                piece, token = fields
                self.piece_of[token] = piece
            elif fields:
                raise InputError(f"{self.file}, line {number}: a piece and its id expected")

    def text(self, ids: str) -> str:
        """The text of token ids separated by spaces."""
        pieces = []
        for token in ids.split():
            if token not in self.piece_of:
                raise InputError(f"token {token} is not in {self.file}")
            pieces.append(self.piece_of[token])
        return "".join(pieces).replace("▁", " ").replace("<eos>", "").strip()


def _without_placeholders(path: str, root: Path | None) -> str:
    """The path with {LRS3_ROOT} and the like replaced: by the environment variable or the root."""

    def value(match: re.Match) -> str:
        variable = match[1]
        if os.environ.get(variable):
            return os.environ[variable]
        if root:
            return str(root)
        raise InputError(
            f"{match[0]} is in the path: set the environment variable {variable}, or give --root"
        )

    return re.sub(r"\{(\w+)\}", value, path)


def _texts_of_tsv(file: Path, clips: int) -> list[str]:
    """The text of each clip of a TSV."""
    source = _text_file_of_tsv(file)
    texts = read_text(source).removesuffix("\n").split("\n")
    while len(texts) > clips and not texts[-1].strip():
        texts.pop()
    if len(texts) != clips:
        raise InputError(
            f"{source} has {len(texts)} lines for the {clips} clips of {file}: one each expected"
        )
    return texts


def _text_file_of_tsv(file: Path) -> Path:
    """X.wrd, or X.es in a folder named es, or else the one X.LANGUAGE that there is."""
    for suffix in ("wrd", file.absolute().parent.name):
        path = file.with_name(f"{file.stem}.{suffix}")
        if path.is_file() and path != file:
            return path
    name = re.compile(rf"{re.escape(file.stem)}\.[a-z]{{2}}")
    found = sorted(path for path in file.parent.iterdir() if name.fullmatch(path.name))
    if not found:
        raise InputError(
            f"{file} has no text: there is no {file.stem}.wrd next to it, "
            f"and no text of a language, such as {file.stem}.en"
        )
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise InputError(
            f"{file} has texts in several languages: {names}; "
            f"rename the one to use to {file.stem}.wrd"
        )
    return found[0]


def _json_object(text: str) -> dict[str, object]:
    try:
        row = json.loads(text)
        json.dumps(row, ensure_ascii=False).encode()  # halves of surrogate pairs cannot be written
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}") from None
    if not isinstance(row, dict):
        raise InputError(NO_MEDIA)
    return row


def _string(row: dict[str, object], name: str) -> str | None:
    """The string in a field of an object; None if it is empty or missing."""
    value = row.get(name)
    if not isinstance(value, str | None):
        raise InputError(f"{name!r} must be a string, not {value!r}")
    return value or None


def _track(row: dict[str, object]) -> int | None:
    """The audio track in an object; None if it is missing."""
    track = row.get("track")
    if track is None or (type(track) is int and track >= 1):
        return track
    raise InputError(f"'track' must be the number of an audio track, from 1, not {track!r}")
