"""The files that are transcribed: found in folders, and looked at before a model is loaded.

Needs no torch, so that a mistake is told at once.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from omni_avsr.errors import InputError
from omni_avsr.media import streams
from omni_avsr.media.folders import VIDEO_SUFFIXES, media_files

URL = re.compile(r"([a-z][a-z0-9+.-]+):/+", re.IGNORECASE)  # as a path, which has one slash left


def expand(paths: Sequence[Path]) -> list[Path]:
    """The files, each once, with each folder replaced by the media in it; missing ones are kept.

    In a folder, a sound is left out if it lies beside its video.
    """
    found: list[Path] = []
    for path in paths:
        files = _media_in(path) if os.path.isdir(path) else [path]
        if not files:
            raise InputError(
                f"{path} holds neither videos nor sounds; name a file whose ending is unusual"
            )
        found += files
    by_place: dict[str, Path] = {}
    for file in found:
        by_place.setdefault(os.path.abspath(file), file)
    return list(by_place.values())


def _media_in(folder: Path) -> list[Path]:
    files = media_files(folder)
    with_video = {path.with_suffix("") for path in files if _is_video(path)}
    found = []
    for path in files:
        if _is_video(path) or path.with_suffix("") not in with_video:
            found.append(path)
    return found


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def refuse_unreadable(file: Path) -> None:
    """Refuses what is not a file that may be read."""
    if not os.path.exists(file):
        if url := URL.match(str(file)):
            address = URL.sub(f"{url[1]}://", str(file), count=1)
            raise InputError(f"{address} is a URL: download it first, and transcribe the file")
        raise InputError(f"{file} does not exist")
    if os.path.isdir(file):
        raise InputError(f"{file} is a folder, a file is expected")
    if not os.path.isfile(file):
        raise InputError(f"{file} is a pipe or a device: save what it holds as a file first")
    if not os.access(file, os.R_OK):
        raise InputError(f"{file} may not be read: change its permissions")
    if not os.path.getsize(file):
        raise InputError(f"{file} is empty")


def announced_seconds(file: Path) -> float:
    """How long a file is by its header; refuses what has neither sound nor video."""
    refuse_unreadable(file)
    header = streams.probe(file)
    if header.fps is None and header.sample_rate is None:
        raise InputError(f"{file} has neither sound nor video")
    return header.seconds
