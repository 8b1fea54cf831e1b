"""The options of `omni-avsr data check` and `omni-avsr prepare`."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omni_avsr.settings.base import COUNT, WHOLE, option, shard_problem
from omni_avsr.settings.shared import FaceOptions, LabelOptions, SoundOptions

DATASETS = ("lrs3", "lrs2", "folder")
SPLIT = re.compile(r"\d+(\.\d+)?(/\d+(\.\d+)?){1,2}")  # such as 90/5/5 or 97.5/2.5


@dataclass(frozen=True)
class CheckSettings(LabelOptions):
    """The options of `omni-avsr data check`."""

    sample: int = option(100, "Clips that are read from end to end; 0 reads all.", bounds=WHOLE)
    raw: bool = option(
        False, "Raw videos: frames need not be mouths of 96 x 96 pixels at 25 per second."
    )
    write: Path | None = option(None, "Write the clips to this file, as JSON lines.")


@dataclass(frozen=True)
class PrepareSettings(FaceOptions, SoundOptions):
    """The options of `omni-avsr prepare`."""

    dataset: str = option(
        "folder",
        "lrs3, lrs2, or folder: any videos, each with or without a .txt beside it.",
        DATASETS,
    )
    name: str | None = option(
        None, "The dataset's name in the label files.  [default: lrs3, lrs2 or the folder's]"
    )
    seconds: int = option(
        16, "Longest piece of a pretraining clip in seconds; it is cut between words.", bounds=COUNT
    )
    landmarks: Path | None = option(
        None, "Folder of .pkl files with landmarks, instead of a detector.", must_exist=True
    )
    audio: Path | None = option(
        None, "Folder of the sounds, at the videos' paths, as VoxCeleb2 has them.", must_exist=True
    )
    split: str | None = option(
        None,
        "Shares of train, valid and test in percent, such as 90/5/5 or 90/10, "
        "by folder or else by video.  [default: one label file, or the dataset's own]",
    )
    processes: int = option(0, "Processes; 0 takes one per core.", bounds=WHOLE)
    shard: str = option("1/1", "The part of the videos to do, such as 3/8, for job arrays.")
    sheet: Path | None = option(None, "Write a contact sheet of the first clips here, as PNG.")

    def problems(self) -> Iterator[str]:
        if problem := shard_problem(self.shard):
            yield problem
        if self.name is not None and (self.name in ("", ".", "..") or "/" in self.name):
            yield f"name {self.name!r} cannot be the name of a folder"
        yield from self._problems_of_split()

    def _problems_of_split(self) -> Iterator[str]:
        if self.split is None:
            return
        shares = self.shares
        if not shares or min(shares) == 0 or not math.isclose(sum(shares), 100):
            yield (
                f"split {self.split!r} is not of the form 90/5/5 or 90/10: shares of train, valid "
                "and test in percent, which add up to 100"
            )
        elif self.dataset == "lrs2":
            yield "split is not for lrs2, which has lists for validation and test"
        elif self.dataset == "lrs3" and len(shares) == 3:
            yield "split takes two shares for lrs3, such as 95/5, as lrs3 has its own test set"

    @property
    def shares(self) -> tuple[float, ...]:
        """The shares of train, valid and test in percent; none without a split."""
        if self.split is None or not SPLIT.fullmatch(self.split):
            return ()
        return tuple(map(float, self.split.split("/")))

    @property
    def part(self) -> tuple[int, int]:
        """The shard's number and how many there are."""
        index, _, count = self.shard.partition("/")
        return int(index), int(count)
