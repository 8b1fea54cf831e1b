"""The videos of LRS2, LRS3 or any folder, and the pieces that they are cut into."""

import hashlib
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import NamedTuple

from omni_avsr.data.manifest import read_text, transcript
from omni_avsr.errors import InputError
from omni_avsr.media.folders import VIDEO_SUFFIXES, by_stem, media_files

WORD_TABLE = ["WORD", "START", "END"]  # how the header of a table of words begins
PARTS = ("train", "valid", "test")  # of a split


@dataclass(frozen=True)
class Item:
    """A video of which clips are made."""

    id: str  # its path below the source, without the suffix
    subset: str  # the label file that its clips go to
    video: Path
    spoken: bool = True  # whether it comes with a text
    cut: bool = False  # whether its text has a table of words to cut it at

    @property
    def name(self) -> str:
        """The name of its clip."""
        return as_field(self.id)


@dataclass(frozen=True)
class Piece:
    """A part of a video that becomes a clip."""

    name: str
    text: str
    start: float = 0.0  # seconds
    end: float | None = None  # seconds; None is the end of the video


class Word(NamedTuple):
    """A word of a transcript."""

    text: str
    start: float  # seconds
    end: float


def as_field(name: str) -> str:
    """The name without what would end a field or a line of a label file."""
    return re.sub(r"[,\x00-\x1f\x7f]", "_", name)


def _lrs3(source: Path) -> list[Item]:
    """The videos of pretrain/ and trainval/ for training, and of test/."""
    subsets = {"pretrain": "train", "trainval": "train", "test": "test"}
    items = []
    for folder, subset in subsets.items():
        for video in _videos(source / folder, (".mp4",)):
            item = Item(_id(source, video), subset, video, cut=folder == "pretrain")
            items.append(item)
    return items


def _lrs2(source: Path) -> list[Item]:
    """The videos of main/ and pretrain/ that the lists in the folder, or the one above, name."""
    folders = {"pretrain": "pretrain", "train": "main", "val": "main", "test": "main"}
    items = []
    for name, folder in folders.items():
        pretraining = name == "pretrain"
        subset = "train" if pretraining else name
        for path in _listed(source, name):
            video = source / folder / f"{path}.mp4"
            items.append(Item(_id(source, video), subset, video, cut=pretraining))
    _refuse_videos_of_several_lists(items)
    if not items:
        raise InputError(
            f"neither {source} nor the folder above it holds a list of LRS2: "
            "pretrain.txt, train.txt, val.txt or test.txt"
        )
    return items


def _listed(source: Path, name: str) -> list[str]:
    """The paths in a list of LRS2, each once; its lines may have more fields."""
    for folder in (source, source.parent):
        file = folder / f"{name}.txt"
        if file.is_file():
            lines = read_text(file).split("\n")
            paths = [str(PurePath(line.split()[0])) for line in lines if line.strip()]
            _refuse_paths_elsewhere(paths, file)
            return list(dict.fromkeys(paths))
    return []


def _refuse_paths_elsewhere(paths: Iterable[str], file: Path) -> None:
    for path in paths:
        if os.path.isabs(path) or ".." in PurePath(path).parts or "\0" in path:
            raise InputError(
                f"{file}: {path!r} is not the path of a video in the corpus, such as "
                "5535415699068794046/00001: correct the list"
            )


def _refuse_videos_of_several_lists(items: Iterable[Item]) -> None:
    subset_of: dict[str, str] = {}
    for item in items:
        subset = subset_of.setdefault(item.id, item.subset)
        if subset != item.subset:
            raise InputError(
                f"{item.id} is in {subset}.txt and in {item.subset}.txt: remove it from one of them"
            )


def _folder(source: Path) -> list[Item]:
    """All videos, each with the text beside it if there is one."""
    items = []
    for video in _videos(source, VIDEO_SUFFIXES):
        spoken = video.with_suffix(".txt").is_file()
        items.append(Item(_id(source, video), "all", video, spoken))
    return items


def _videos(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    return sorted(by_stem(media_files(folder), suffixes).values())


DATASETS: dict[str, Callable[[Path], list[Item]]] = {
    "lrs3": _lrs3,
    "lrs2": _lrs2,
    "folder": _folder,
}
EXPECTED = {  # of each dataset
    "lrs3": "mp4 files in its folders pretrain, trainval and test",
    "lrs2": "videos that its lists name",
    "folder": "files such as .mp4, .mkv or .mov",
}


def _id(source: Path, video: Path) -> str:
    return str(video.relative_to(source).with_suffix(""))


def split(ids: Collection[str], shares: Sequence[float]) -> dict[str, str]:
    """The part of each video, train, valid or test, by their shares in percent.

    All videos of one folder are in one part: the folders are those in the folder that holds all
    videos. If all videos lie in one folder, each is on its own. The order depends on the names
    only, and as far as there are enough, each part gets one.
    """
    groups = _groups(ids)
    names = sorted(set(groups.values()), key=_order)
    sizes = [max(1, round(share / 100 * len(names))) for share in shares[1:]]
    sizes.insert(0, max(1, len(names) - sum(sizes)))
    parts: list[str] = []
    for part, size in zip(PARTS, sizes, strict=False):
        parts += [part] * size
    part_of = dict(zip(names, parts, strict=False))
    return {id: part_of[group] for id, group in groups.items()}


def _groups(ids: Collection[str]) -> dict[str, str]:
    """The folder of each video below the one that holds all videos, or else the video's own id."""
    top = os.path.commonpath([os.path.dirname(id) for id in ids])
    return {id: PurePath(id).relative_to(top).parts[0] for id in ids}


def _order(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def pieces_of(item: Item, seconds: int) -> list[Piece]:
    """The clips that a video becomes."""
    if not item.spoken:
        return [Piece(item.name, "")]
    text = item.video.with_suffix(".txt")
    pieces = []
    if item.cut:
        pieces = cut_at_words(item.name, read_words(text), seconds)
    return pieces or [Piece(item.name, transcript(text))]


def read_words(file: Path) -> list[Word]:
    """The words of the table WORD START END SCORE in a text file of LRS2 or LRS3."""
    words = []
    in_table = False
    for line in read_text(file).split("\n"):
        fields = line.split()
        if in_table and len(fields) >= 3:
            words.append(_word(fields, file))
        if fields[:3] == WORD_TABLE:
            in_table = True
    return words


def _word(fields: Sequence[str], file: Path) -> Word:
    try:
        word = Word(fields[0].lower(), float(fields[1]), float(fields[2]))
    except ValueError as error:
        raise InputError(f"{file}: {error} in its table of words") from None
    if not math.isfinite(word.start) or not math.isfinite(word.end):
        raise InputError(f"{file}: {' '.join(fields)} in its table of words has no finite times")
    return word


def cut_at_words(name: str, words: Iterable[Word], seconds: int) -> list[Piece]:
    """Cuts a video between words into pieces of at most so many seconds.

    A piece lasts from the start of its first word to the end of its last. A single piece is the
    whole video.
    """
    runs: list[list[Word]] = []
    for word in words:
        if not runs or word.end - runs[-1][0].start > seconds:
            runs.append([])
        runs[-1].append(word)
    if len(runs) == 1:
        return [Piece(name, _text(runs[0]))]
    pieces = []
    for index, run in enumerate(runs):
        first, last = run[0], run[-1]
        pieces.append(Piece(f"{name}_{index:02d}", _text(run), first.start, last.end))
    return pieces


def _text(words: Iterable[Word]) -> str:
    return " ".join(word.text for word in words)
