"""The clips of a training run: which it trains on, which it validates on, and what is refused."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omni_avsr.data import manifest
from omni_avsr.data.default import MakeCorpus
from omni_avsr.data.loading import drop_long_clips
from omni_avsr.data.manifest import Clip
from omni_avsr.errors import InputError
from omni_avsr.run import Progress
from omni_avsr.settings import TrainSettings

SPLITS = ("train", "valid", "test")
NAMES_SHOWN = 3  # in an error message


@dataclass(frozen=True)
class RunClips:
    """The training and the validation clips."""

    train: list[Clip]
    valid: list[Clip]

    def that_fit(self, settings: TrainSettings, longest_sound: int | None) -> "RunClips":
        """Those that a batch and the audio encoder take, and as many to validate on as chosen."""
        train = drop_long_clips(self.train, settings.max_frames, longest_sound)
        valid = drop_long_clips(self.valid, settings.max_frames, longest_sound)
        return RunClips(train, valid[: settings.valid_clips])

    @property
    def digest(self) -> str:
        """Is another one if any clip, its files, length or text has changed."""
        found = hashlib.sha256()
        for split in (self.train, self.valid):
            for clip in split:
                media = (str(clip.audio), str(clip.video), clip.track, clip.frames)
                found.update(repr((clip.id, *media, clip.text)).encode())
            found.update(b"end of the split")
        return found.hexdigest()


def clips_of_run(settings: TrainSettings, progress: Progress, corpus: MakeCorpus) -> RunClips:
    """The clips of the label files, or of the corpus where none is given."""
    files = _label_files(settings, progress, corpus)
    clips = {}
    for split, file in files.items():
        clips[split] = manifest.read(
            file, settings.root, settings.format, settings.tokens, settings.audio_track
        )
    if settings.valid_share is not None:
        clips["train"], clips["valid"] = _split(clips["train"], settings.valid_share)
    valid_file = files.get("valid", files["train"])
    _refuse_silence(clips["train"], files["train"])
    _refuse_silence(clips["valid"], valid_file)
    _refuse_missing(clips["valid"], valid_file)
    on_test = [] if settings.validate_on_test else clips.get("test", [])
    if shared := _shared(clips["valid"], on_test):
        raise InputError(
            f"{valid_file} validates on {_count(shared)} of the test file {files['test']}; "
            "--validate-on-test allows it"
        )
    if shared := _shared(clips["valid"], clips["train"]):
        raise InputError(
            f"{valid_file} validates on {_count(shared)} that {files['train']} trains on: "
            "take them out of one of the files"
        )
    return RunClips(clips["train"], clips["valid"])


def _label_files(
    settings: TrainSettings, progress: Progress, corpus: MakeCorpus
) -> dict[str, Path]:
    """The label file of each split that has one."""
    if settings.data is None:
        return corpus(settings, SPLITS, progress)
    valid = settings.valid if settings.valid_share is None else None
    given = {"train": settings.data, "valid": valid, "test": settings.test}
    return {split: file for split, file in given.items() if file}


def _split(clips: Sequence[Clip], share: float) -> tuple[list[Clip], list[Clip]]:
    """The clips to train on, and a share of them to validate on, chosen by their ids."""
    if len(clips) < 2:
        raise InputError(
            "a share of the clips to validate on needs two clips or more, there is one"
        )
    by_lot = sorted(clips, key=_lot)
    count = min(max(1, round(share * len(clips))), len(clips) - 1)
    valid = by_lot[:count]
    chosen = {clip.id for clip in valid}
    return [clip for clip in clips if clip.id not in chosen], valid


def _lot(clip: Clip) -> bytes:
    """What a clip is chosen by, the same in every run."""
    return hashlib.sha256(clip.id.encode()).digest()


def _refuse_silence(clips: Sequence[Clip], file: Path) -> None:
    silent = [clip for clip in clips if not clip.text.strip()]
    if silent:
        raise InputError(
            f"{file} has no text for {_count(silent)}: training needs the text of every clip"
        )


def _refuse_missing(clips: Sequence[Clip], file: Path) -> None:
    """Refuses validation clips of which no file is there: any model would be the best on them."""
    files = [path for clip in clips for path in (clip.video, clip.sound)]
    if not any(map(os.path.exists, files)):
        raise InputError(
            f"{file}: there is none of its {_count(clips)}; of the first, {files[0]} is missing"
        )


def _shared(clips: Sequence[Clip], others: Sequence[Clip]) -> list[Clip]:
    """Those of the clips whose video or sound is that of one of the others."""
    known = {name for clip in others for name in _media(clip)}
    return [clip for clip in clips if not known.isdisjoint(_media(clip))]


def _media(clip: Clip) -> set[object]:
    """What names the files of a clip, by whatever path or link they are reached."""
    return {_identity(clip.video), _identity(clip.sound)}


def _identity(path: Path) -> object:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return os.path.abspath(path)
    return found.st_dev, found.st_ino


def _count(clips: Sequence[Clip]) -> str:
    """How many clips there are, and the first of them."""
    names = ", ".join(clip.id for clip in clips[:NAMES_SHOWN])
    more = ", ..." if len(clips) > NAMES_SHOWN else ""
    return f"{len(clips)} {'clip' if len(clips) == 1 else 'clips'} ({names}{more})"
