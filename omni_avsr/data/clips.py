"""Clips, and the media and text files that belong to them."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from omni_avsr.errors import InputError
from omni_avsr.media import streams
from omni_avsr.media.folders import AUDIO_SUFFIXES, VIDEO_SUFFIXES, by_stem, media_files


@dataclass(frozen=True)
class Clip:
    """One utterance: its audio and video, which may be one file, and its transcript."""

    id: str
    audio: Path
    video: Path
    frames: int  # as the label file says; a hint for batching, which may be wrong
    text: str
    track: int | None = None  # of the sound, from 1; None is the first that is not silent

    @property
    def sound(self) -> Path:
        """The file that the audio is read from: the audio file if it exists, else the video."""
        return self.audio if is_file(self.audio) else self.video


def is_file(path: Path) -> bool:
    """Whether there is a file at this path; Path.is_file raises if the path is too long."""
    return os.path.isfile(path)


def clips_in(folder: Path) -> list[Clip]:
    """The clips of a folder of media: each video, and each audio file without a video."""
    files = media_files(folder)
    videos = by_stem(files, VIDEO_SUFFIXES)
    sounds = by_stem(files, AUDIO_SUFFIXES)
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


def read_text(file: Path) -> str:
    """The content of a UTF-8 text file, without a byte-order mark."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise InputError(
            f"{file} is not UTF-8 text: byte {error.start} is {byte:#x}; "
            "convert it to UTF-8, or unpack it if it is compressed"
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
