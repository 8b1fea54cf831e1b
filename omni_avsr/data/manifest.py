"""Label files to clips: one reader for the layouts that exist.

| format | file | text |
|---|---|---|
| llama-avsr | CSV: dataset, path, frames, ignored, text | in the file; commas allowed |
| auto-avsr | CSV: dataset, path, frames, token ids | in the folder of texts beside the videos, or from the ids |
| avhubert | TSV: a root, then id, video, audio, frames, samples | line by line in .wrd, or in .LANGUAGE |
| mms-llama | the same with a sixth column and {PLACEHOLDERS} | the same |
| usr | CSV: tag, path, frames, token ids; never guessed | from the ids |
| jsonl | one object a line: id, audio, video, frames, text | in the file |
| folder | media, a video's sound in it or beside it | .txt beside each |
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from omni_avsr.media import streams as media

VIDEO_SUFFIXES = (
    ".mp4",
    ".mov",
    ".mkv",
    ".avi",
    ".webm",
    ".m4v",
    ".mpg",
    ".mpeg",
    ".ts",
    ".mts",
    ".m2ts",
    ".3gp",
    ".wmv",
    ".flv",
    ".ogv",
)
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus")
NAMED = 5  # problems that a refusal names


Row = tuple[int, str]  # the number of a line, and what it says or what is wrong with it


@dataclass(frozen=True)
class Clip:
    """One utterance: where its sound and its mouth lie (may be one file), and what is said."""

    id: str
    audio: Path
    video: Path
    frames: int  # of the file, a hint for batching; never taken for the truth
    text: str

    @property
    def sound(self) -> Path:
        """The file to listen to: the one beside the video, else the video itself."""
        return self.audio if self.audio.is_file() else self.video


@dataclass(frozen=True)
class Manifest:
    """A label file, its format, its clips with the line that each is on, and the lines that are wrong."""

    file: Path
    format: str
    clips: list[Clip]
    lines: list[int]
    problems: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class _Source:
    """A label file as it was opened."""

    file: Path
    root: Path | None
    lines: list[tuple[int, str]]  # numbered from 1, without the blank ones
    tokens: Path | None

    @property
    def base(self) -> Path:
        """The folder that relative paths start from."""
        return self.root or self.file.resolve().parent.parent


Reader = Callable[[_Source], tuple[Sequence[Row], Callable[[int, str], Clip]]]  # the rows, and what makes a clip of one


def read(
    file: Path | str, root: Path | str | None = None, format: str | None = None, tokens: Path | str | None = None
) -> list[Clip]:
    """The clips of a label file or a folder of media, whatever its layout; refuses it with all its problems."""
    manifest = load(file, root, format, tokens)
    if problems := [f"line {number}: {problem}" for number, problem in manifest.problems]:
        more = f" and {len(problems) - NAMED} more" if problems[NAMED:] else ""
        raise ValueError(f"{file}: {'; '.join(problems[:NAMED])}{more}")
    return manifest.clips


def load(
    file: Path | str, root: Path | str | None = None, format: str | None = None, tokens: Path | str | None = None
) -> Manifest:
    """The same with the format, the lines, and the problems, which are left to the caller.

    `root` is where relative paths start, by default two folders above the file, or what a TSV says. `tokens` is what
    names token ids: a list of pieces and ids, or the sentencepiece model beside it.
    """
    file = Path(file)
    if format not in (None, *FORMATS):
        raise ValueError(f"unknown format {format!r}; available: {', '.join(FORMATS)}")
    if file.is_dir():
        clips = list(_folder(file))
        manifest = Manifest(file, "folder", clips, [0] * len(clips))
    elif not file.is_file():
        raise ValueError(f"label file {file} does not exist")
    else:
        source = _Source(file, Path(root) if root else None, _numbered(file), Path(tokens) if tokens else None)
        manifest = _parsed(source, format or detect([line for _, line in source.lines]))
    if not manifest.clips and not manifest.problems:
        raise ValueError(f"{file} holds no clips")
    return manifest


def write(clips: Sequence[Clip], file: Path | str) -> None:
    """Writes a label file of our own format, with absolute paths."""
    rows = [asdict(replace(clip, audio=clip.sound.absolute(), video=clip.video.absolute())) for clip in clips]
    lines = [json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows]
    Path(file).write_text("".join(lines), encoding="utf-8")


def detect(lines: Sequence[str]) -> str:
    """The format of these lines; that of a file with mistakes is what most of it looks like."""
    some = lines[:100]
    if not some or some[0].startswith("{"):
        return "jsonl"
    if len(some) > 1 and "\t" not in some[0] and some[1].count("\t") >= 4:
        return "avhubert" if some[1].count("\t") == 4 else "mms-llama"
    fields = [line.split(",", 4) for line in some]
    ids = sum(len(row) == 4 and _are_ids(row[3]) for row in fields)
    return "auto-avsr" if ids > sum(len(row) == 5 for row in fields) else "llama-avsr"


def _are_ids(text: str) -> bool:
    return bool(text.split()) and all(part.isdigit() for part in text.split())


def read_text(file: Path) -> str:
    """A text file's content without a byte-order mark; one that is no UTF-8 is named."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#x}") from None


def _numbered(file: Path) -> list[Row]:
    return [(number, line) for number, line in enumerate(read_text(file).split("\n"), 1) if line.strip()]


def _parsed(source: _Source, format: str) -> Manifest:
    """The clips of all lines that are right, and what is wrong with the others."""
    if not source.lines:
        return Manifest(source.file, format, [], [])
    rows, clip_of = FORMATS[format](source)
    places: dict[str, int] = {}
    clips, problems = [], []
    for number, line in rows:
        try:
            clip = clip_of(number, line)
            if places.setdefault(clip.id, number) != number:
                raise ValueError(f"{clip.id} is on line {places[clip.id]} too")
            clips.append(clip)
        except ValueError as error:
            problems.append((number, str(error)))
    return Manifest(source.file, format, clips, list(places.values()), problems)


def _fields(line: str, separator: str, count: int) -> list[str]:
    fields = line.split(separator, count - 1)
    if len(fields) < count:
        raise ValueError(f"{len(fields)} fields, {count} expected")
    return [field.strip() for field in fields]


def _frames(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{text!r} is no number of frames")
    return int(text)


def _clip(video: Path, frames: str, text: str, name: str) -> Clip:
    return Clip(str(Path(name).with_suffix("")), video.with_suffix(".wav"), video, _frames(frames), _lower(text))


def _lower(text: str) -> str:
    """Transcripts in capitals, as LRS2 and LRS3 have them, in lower case."""
    return text.strip().lower() if text.isupper() else text.strip()


def _place(source: _Source) -> Callable[[str, str], Path]:
    """Where a dataset's file lies: below root / dataset, or below the root; as the first file that is there shows."""
    layouts: list[Callable[[str, str], Path]] = [
        lambda dataset, path: source.base / dataset / path,
        lambda _, path: source.base / path,
    ]
    some = [fields[:2] for _, line in source.lines[:100] if len(fields := line.split(",", 2)) == 3]
    found = (layout for fields in some for layout in layouts if layout(*fields).is_file())
    return next(found, layouts[0])


def _llama_avsr(source: _Source) -> tuple[Sequence[Row], Callable[[int, str], Clip]]:
    place = _place(source)

    def clip_of(_: int, line: str) -> Clip:
        dataset, path, frames, _ignored, text = _fields(line, ",", 5)
        return _clip(place(dataset, path), frames, text, path)

    return source.lines, clip_of


def _auto_avsr(source: _Source) -> tuple[Sequence[Row], Callable[[int, str], Clip]]:
    place = _place(source)
    text_of = _detokeniser(source.tokens) if source.tokens else None

    def clip_of(_: int, line: str) -> Clip:
        dataset, path, frames, ids = _fields(line, ",", 4)
        video = place(dataset, path)
        return _clip(video, frames, text_of(ids) if text_of else _text_beside(video), path)

    return source.lines, clip_of


def _usr(source: _Source) -> tuple[Sequence[Row], Callable[[int, str], Clip]]:
    if not source.tokens:
        raise ValueError(f"{source.file}: the format usr holds token ids alone: name what they mean with --tokens")
    return _auto_avsr(source)


def _text_beside(video: Path) -> str:
    """The text of X_video_Y/clip.mp4 is in X_text_Y/clip.txt; X_video_Y is the innermost folder of such a name."""
    before, video_folder, after = str(video).rpartition("_video_")
    file = Path(f"{before}_text_{after}").with_suffix(".txt")
    if not video_folder or not file.is_file():
        raise ValueError(f"no text in {file}; or name what the token ids mean with --tokens")
    return transcript(file)


def _detokeniser(file: Path) -> Callable[[str], str]:
    """Token ids to text, with a list of `piece id` lines: X_units.txt, which Auto-AVSR has beside its X.model.

    A sentencepiece model alone does not name these ids: they count the pieces of the list, in another order.
    """
    units = file.with_name(f"{file.stem}_units.txt") if file.suffix == ".model" else file
    if not units.is_file():
        raise ValueError(f"there is no list of pieces and ids {units}")
    pairs = [line.split() for line in read_text(units).split("\n") if line.strip()]
    known = {number: piece for piece, number in pairs}

    def text(ids: str) -> str:
        unknown = [i for i in ids.split() if i not in known]
        if unknown:
            raise ValueError(f"token {unknown[0]} is not in {units}")
        return "".join(known[i] for i in ids.split()).replace("▁", " ").replace("<eos>", "").strip()

    return text


def _tsv(source: _Source) -> tuple[Sequence[Row], Callable[[int, str], Clip]]:
    base = source.root or Path(source.lines[0][1].strip())
    rows = source.lines[1:]
    texts = dict(zip([number for number, _ in rows], _texts(source.file, len(rows)), strict=True))

    def clip_of(number: int, line: str) -> Clip:
        name, video, audio, frames, *_ = _fields(line, "\t", 5)
        video, audio = (_filled(path, source.root) for path in (video, audio.split(":")[0]))
        return Clip(name, base / audio, base / video, _frames(frames), _lower(texts[number]))

    return rows, clip_of


def _filled(path: str, root: Path | None) -> str:
    """The path with {LRS3_ROOT} and the like replaced by the environment's variable, else by the root."""

    def value(match: re.Match) -> str:
        found = os.environ.get(match[1]) or (str(root) if root else None)
        if found is None:
            raise ValueError(f"{match[0]} is in the path: set the environment variable {match[1]}, or give --root")
        return found

    return re.sub(r"\{(\w+)\}", value, path)


def _texts(file: Path, count: int) -> list[str]:
    """The lines of the text file of a TSV: X.wrd, X.es in a folder es, or the one X.LANGUAGE that there is."""
    others = [
        path
        for path in sorted(file.parent.iterdir())
        if re.fullmatch(rf"{re.escape(file.stem)}\.[a-z]{{2}}", path.name)
    ]
    own = [path for path in (file.with_suffix(".wrd"), file.with_suffix(f".{file.parent.name}")) if path.is_file()]
    found = own[:1] or others
    if not found:
        raise ValueError(f"{file} has no text: no {file.stem}.wrd beside it, nor a language's such as {file.stem}.en")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{file} has texts in several languages: {names}; name the one to use {file.stem}.wrd")
    texts = read_text(found[0]).removesuffix("\n").split("\n")
    if len(texts) != count:
        raise ValueError(f"{found[0]} has {len(texts)} lines for the {count} clips of {file}")
    return texts


def _jsonl(source: _Source) -> tuple[Sequence[Row], Callable[[int, str], Clip]]:
    base = source.root or source.file.resolve().parent

    def clip_of(_: int, line: str) -> Clip:
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"no JSON: {error}") from None
        media_of = [row.get(name) for name in ("audio", "video")] if isinstance(row, dict) else []
        if not any(media_of) or not all(isinstance(value, str | None) for value in media_of):
            raise ValueError("an object with the path of an audio or a video expected")
        video = base / str(row.get("video") or row["audio"])
        audio = base / str(row.get("audio") or row["video"])
        name, frames = str(row.get("id", video.stem)), row.get("frames") or media.count_frames(video)
        return Clip(name, audio, video, _frames(str(frames)), _lower(str(row.get("text") or "")))

    return source.lines, clip_of


def _folder(folder: Path) -> Iterator[Clip]:
    """Each video, each sound without one, and the text beside them."""
    files = media_files(folder)
    videos, sounds = _by_stem(files, VIDEO_SUFFIXES), _by_stem(files, AUDIO_SUFFIXES)
    for stem in sorted({*videos, *sounds}):
        video, text = videos.get(stem, sounds.get(stem)), stem.with_name(f"{stem.name}.txt")
        assert video is not None
        words = transcript(text) if text.is_file() else ""
        yield Clip(str(stem.relative_to(folder)), sounds.get(stem, video), video, media.count_frames(video), words)


def _by_stem(files: Sequence[Path], suffixes: Sequence[str]) -> dict[Path, Path]:
    found: dict[Path, Path] = {}
    for path in files:
        if path.suffix.lower() in suffixes and found.setdefault(path.with_suffix(""), path) is not path:
            raise ValueError(f"{found[path.with_suffix('')]} and {path} differ in their ending alone")
    return found


def media_files(folder: Path) -> list[Path]:
    """All videos and sounds below a folder, hidden ones left out."""
    known = {*VIDEO_SUFFIXES, *AUDIO_SUFFIXES}
    found = [path for path in folder.rglob("*") if path.suffix.lower() in known and path.is_file()]
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def transcript(file: Path) -> str:
    """The text of a .txt file; of one of LRS2 or LRS3 its first line, without what they put around it."""
    text = read_text(file)
    said = text.split("\n")[0].removeprefix("Text:") if text.startswith("Text:") else text
    return _lower(" ".join(re.sub(r"\{[^}]*\}", " ", said).split()))


FORMATS: dict[str, Reader] = {
    "llama-avsr": _llama_avsr,
    "auto-avsr": _auto_avsr,
    "avhubert": _tsv,
    "mms-llama": _tsv,
    "usr": _usr,
    "jsonl": _jsonl,
}
