"""Clips, and the media and text files that belong to them."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omni_avsr.errors import InputError
from omni_avsr.media import streams

# fmt: off
VIDEO_SUFFIXES = (
    ".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg",
    ".ts", ".mts", ".m2ts", ".3gp", ".wmv", ".flv", ".ogv",
)
# fmt: on
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus")


@dataclass(frozen=True)
class Clip:
    """One utterance: its audio and video, which may be one file, and its transcript."""

    id: str
    audio: Path
    video: Path
    frames: int  # as the label file says; a hint for batching, which may be wrong
    text: str

    @property
    def sound(self) -> Path:
        """The file that the audio is read from: the audio file if it exists, else the video."""
        return self.audio if is_file(self.audio) else self.video


def is_file(path: Path) -> bool:
    """Whether there is a file at this path; Path.is_file raises if the path is too long."""
    return os.path.isfile(path)


def media_files(folder: Path) -> list[Path]:
    """All video and audio files below a folder, sorted; hidden files and folders are skipped."""
    found = []
    for path in folder.rglob("*"):
        known = path.suffix.lower() in VIDEO_SUFFIXES + AUDIO_SUFFIXES
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") for part in parts)
        if known and not hidden and path.is_file():
            found.append(path)
    return sorted(found)


def clips_in(folder: Path) -> list[Clip]:
    """The clips of a folder of media: each video, and each audio file without a video."""
    files = media_files(folder)
    videos = _by_stem(files, VIDEO_SUFFIXES)
    sounds = _by_stem(files, AUDIO_SUFFIXES)
    clips = []
    for stem in sorted(videos.keys() | sounds.keys()):
        video = videos[stem] if stem in videos else sounds[stem]
        text_file = stem.with_name(f"{stem.name}.txt")
        clips.append(
            Clip(
                id=str(stem.relative_to(folder)),
                audio=sounds.get(stem, video),
                video=video,
                frames=streams.count_frames(video),
                text=transcript(text_file) if text_file.is_file() else "",
            )
        )
    return clips


def _by_stem(files: Sequence[Path], suffixes: Sequence[str]) -> dict[Path, Path]:
    """The files with one of these suffixes, by their paths without it."""
    found: dict[Path, Path] = {}
    for path in files:
        if path.suffix.lower() not in suffixes:
            continue
        stem = path.with_suffix("")
        if stem in found:
            raise InputError(
                f"{found[stem]} and {path} differ only in their suffix: rename one of them"
            )
        found[stem] = path
    return found


def read_text(file: Path) -> str:
    """The content of a UTF-8 text file, without a byte-order mark."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise InputError(
            f"{file} is not UTF-8 text: byte {error.start} is {byte:#x}; convert it to UTF-8"
        ) from None


def transcript(file: Path) -> str:
    """The text of a .txt file.

    LRS2 and LRS3 have it on a first line that starts with `Text:`, with noises in braces.
    """
    text = read_text(file)
    if text.startswith("Text:"):
        first_line = text.split("\n")[0]
        text = first_line.removeprefix("Text:")
    without_noises = re.sub(r"\{[^}]*\}", " ", text)
    return lower_capitals(" ".join(without_noises.split()))


def lower_capitals(text: str) -> str:
    """The text in lower case if it is all in capitals, as in LRS2 and LRS3."""
    text = text.strip()
    return text.lower() if text.isupper() else text
