"""The video and audio files in a folder."""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

log = logging.getLogger(__name__)

# Of files that differ only in their suffix, the one whose suffix comes first is taken.
# fmt: off
VIDEO_SUFFIXES = (
    ".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg",
    ".ts", ".mts", ".m2ts", ".3gp", ".3g2", ".wmv", ".asf", ".flv", ".f4v", ".ogv",
    ".mxf", ".vob", ".dv", ".m2v", ".gif",
)
AUDIO_SUFFIXES = (
    ".wav", ".flac", ".aiff", ".aif", ".aifc", ".caf", ".au", ".w64", ".sph",
    ".mp3", ".m4a", ".aac", ".ogg", ".oga", ".opus", ".wma", ".mka", ".ac3", ".mp2", ".amr",
)
# fmt: on
NAMES_SHOWN = 5  # in a warning


def media_files(folder: Path) -> list[Path]:
    """All video and audio files below a folder, sorted; hidden files and folders are skipped.

    Links are followed. Files whose names are not UTF-8 are named in the log: no label file could
    name them.
    """
    known = VIDEO_SUFFIXES + AUDIO_SUFFIXES
    found = []
    for path in _visible_files(folder):
        if path.suffix.lower() not in known or not path.is_file():
            continue
        name = os.fsencode(path).decode("utf-8", "backslashreplace")
        if name == str(path):
            found.append(path)
        else:
            log.warning("left out, as its name is not UTF-8: %s; rename it", name)
    return sorted(found)


def _visible_files(folder: Path) -> Iterator[Path]:
    """What is not hidden below a folder, each folder once however many links lead to it."""
    seen = set()
    for place, folders, names in os.walk(folder, onerror=_name_unreadable, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for name in names:
            if not name.startswith("."):
                yield Path(place, name)


def _name_unreadable(error: OSError) -> None:
    log.warning("left out: %s", error)


def by_stem(files: Sequence[Path], suffixes: Sequence[str]) -> dict[Path, Path]:
    """The files with one of these suffixes, by their paths without it.

    Of several that differ only in their suffix, the preferred one is taken and the others are
    named in the log.
    """
    found: dict[Path, Path] = {}
    left_out = []
    for suffix in suffixes:
        for path in files:
            if path.suffix.lower() != suffix:
                continue
            taken = found.setdefault(path.with_suffix(""), path)
            if taken != path:
                left_out.append(f"{path} ({taken.name} is taken)")
    if left_out:
        hidden = len(left_out) - NAMES_SHOWN
        more = f" and {hidden} more" if hidden > 0 else ""
        shown = ", ".join(left_out[:NAMES_SHOWN])
        log.warning("left out, as only the suffix of the name differs: %s%s", shown, more)
    return found
