"""Raw video to mouth clips, in the layout of label files: LRS2, LRS3, or any folder of videos.

A clip's files are written whole or not at all, and a line in OUT/prepared/ says that all of them are there: what has
such a line is not done again.
"""

import json
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import cache, partial
from glob import escape
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from omni_avsr.data.manifest import AUDIO_SUFFIXES, VIDEO_SUFFIXES, media_files, read_text, transcript
from omni_avsr.files import read_lines
from omni_avsr.media import mouth
from omni_avsr.media import streams as media
from omni_avsr.run import Report, locked, silent, write_text, write_whole
from omni_avsr.settings import PrepareSettings
from omni_avsr.tasks import SAMPLES_PER_VIDEO_FRAME, VIDEO_FPS

SHEET_CLIPS = 20
SEEN = 0.2  # share of the frames in which a face must be seen
Words = list[tuple[str, float, float]]  # each with its start and end in seconds


@dataclass(frozen=True)
class Piece:
    """A part of a video that becomes a clip; without an end it is the rest."""

    name: str
    text: str
    start: float = 0.0
    end: float | None = None


@dataclass(frozen=True)
class Item:
    """A video, of which clips are made; one with words to cut at may become several."""

    id: str
    subset: str
    video: Path
    spoken: bool = True  # it comes with a text
    cut: bool = False

    @property
    def name(self) -> str:
        """Of its clip; a comma would end a field of the label file."""
        return self.id.replace(",", "_")


@dataclass
class Record:
    """What became of an item; a line of OUT/prepared/."""

    id: str
    subset: str
    rows: list[str] = field(default_factory=list)  # of the label file
    quality: dict[str, float] = field(default_factory=dict)
    error: str | None = None


def prepare(source: Path, out: Path, settings: PrepareSettings, report: Report = silent) -> list[Record]:
    """Makes the clips of all videos of this shard and writes the label files; returns what became of each video."""
    if not source.is_dir():
        raise ValueError(f"there is no folder {source}")
    if settings.landmarks is None:
        mouth.find_model(settings.detector, settings.download)  # before any process starts, so that it is said once
    name = settings.name or (source.resolve().name if settings.dataset == "folder" else settings.dataset)
    name = name.replace(",", "_")
    index, count = settings.part
    every = [item for item in DATASETS[settings.dataset](source) if out.resolve() not in item.video.resolve().parents]
    if len({item.name for item in every}) < len(every):
        raise ValueError(f"{source} holds several videos whose names differ in their ending alone")
    items = every[index - 1 :: count]
    if not items:
        raise ValueError(f"{source} holds no videos of {settings.dataset}" + (f", part {settings.shard}" * (count > 1)))
    journal = out / "prepared" / f"{name}_seg{settings.seconds}s_{index}of{count}.jsonl"
    with locked(journal.parent, f".{journal.stem}.lock"):
        records = _do(items, journal, out, name, settings, report)
    write_labels(out, name, settings.seconds)
    return records


def _do(
    items: Sequence[Item], journal: Path, out: Path, name: str, settings: PrepareSettings, report: Report
) -> list[Record]:
    """Makes the clips that the journal lacks."""
    done = {record.id: record for record in read_journal(journal) if record.error is None and _is_whole(out, record)}
    records = [done[item.id] for item in items if item.id in done]
    todo = [item for item in items if item.id not in done]
    with journal.open("a", encoding="utf-8") as lines:
        lines.write("\n" if lines.tell() else "")  # ends a line that a kill cut off
        for record in _in_processes(partial(make_clips, out=out, name=name, settings=settings), todo, settings):
            lines.write(json.dumps(vars(record)) + "\n")
            lines.flush()
            records.append(record)
            report("Preparing", len(records), len(items))
    return records


def _is_whole(out: Path, record: Record) -> bool:
    videos = [out / Path(*row.split(",", 2)[:2]) for row in record.rows]
    return all(video.is_file() and video.with_suffix(".wav").is_file() for video in videos)


def read_journal(file: Path) -> list[Record]:
    """The records of a journal."""
    return [Record(**line) for line in read_lines(file)]


def write_labels(out: Path, name: str, seconds: int) -> list[Path]:
    """Writes the label file of each subset, of what all shards have done, until no other shard adds to it."""
    written: dict[str, set[str]] = {}
    while (rows := _rows(out, f"{name}_seg{seconds}s")) != written:
        for subset, lines in rows.items():
            text = "".join(f"{line}\n" for line in sorted(lines))
            write_text(out / "labels" / f"{name}_{subset}_transcript_lengths_seg{seconds}s.csv", text)
        written = rows
    return sorted((out / "labels").glob(f"{escape(name)}_*_transcript_lengths_seg{seconds}s.csv"))


def _rows(out: Path, name: str) -> dict[str, set[str]]:
    """The rows of each subset, from the journals of all shards; the last word on a video counts."""
    records: dict[str, Record] = {}
    for journal in sorted((out / "prepared").glob(f"{escape(name)}_*of*.jsonl")):
        records |= {record.id: record for record in read_journal(journal)}
    rows: dict[str, set[str]] = {}
    for record in records.values():
        rows.setdefault(record.subset, set()).update(record.rows)
    return rows


def make_clips(item: Item, out: Path, name: str, settings: PrepareSettings) -> Record:
    """Finds the mouth in one video and writes its clips; what is wrong with the video is in the record."""
    record = Record(item.id, item.subset)
    try:
        clips = pieces(item, settings.seconds)
        audio = np.concatenate([np.zeros(0, np.float32), *media.audio_blocks(sound_of(item, settings))])
        if not len(audio):
            raise ValueError(f"{item.video} has an audio stream without samples")
        found = find_mouth(item, audio, settings)
        frames = media.video_frames(item.video)
        crops = np.stack(list(mouth.crops(frames, found)))
        count = len(crops) + sum(1 for _ in frames)
        if abs(count - len(found.maps)) > 2:
            raise ValueError(f"{item.video} has {count} frames, its landmarks are of {len(found.maps)}")
        record.quality = found.quality
        for piece in clips:
            record.rows.append(_write(piece, crops, audio, out / name, f"{name}_video_seg{settings.seconds}s"))
    except (ValueError, OSError, cv2.error) as error:
        record.error, record.rows = f"{item.id}: {error}", []
    return record


def sound_of(item: Item, settings: PrepareSettings) -> Path:
    """The sound of a video: at its path below the folder of sounds if one is given, else in it or beside it."""
    if not settings.audio:
        return media.sound_of(item.video)
    known = [Path(settings.audio) / f"{item.id}{suffix}" for suffix in AUDIO_SUFFIXES]
    found = [path for path in known if path.is_file()]
    if not found:
        raise ValueError(f"{settings.audio} has no sound for {item.video}: no {item.id} of any kind")
    return found[0]


def find_mouth(item: Item, audio: np.ndarray, settings: PrepareSettings) -> mouth.Mouth:
    """The mouth of the face that speaks, of the face asked for, or of the landmarks given."""
    if settings.landmarks:
        tracks, frames = mouth.read_landmarks(Path(settings.landmarks) / f"{item.id}.pkl")
    else:
        tracks, frames = mouth.follow(media.video_frames(item.video), _detector(settings.detector, settings.download))
    if not frames:
        raise ValueError(f"{item.video} has a video stream without frames")
    if len(tracks) < (settings.face or 1):
        raise ValueError(f"{len(tracks) or 'no'} faces in {item.video}" + (f", --face {settings.face}" * bool(tracks)))
    track = tracks[settings.face - 1] if settings.face else mouth.speaking(tracks, media.loudness([audio]))
    if len(track.frames) < SEEN * frames:
        raise ValueError(f"the face in {item.video} is seen in {len(track.frames)} of {frames} frames alone")
    return mouth.locate_mouth(track, frames)


@cache
def _detector(model: str | None, download: bool) -> mouth.Detector:
    return mouth.yunet(model, download)


def _write(piece: Piece, crops: np.ndarray, audio: np.ndarray, base: Path, folder: str) -> str:
    """Writes video, sound and text of a clip; returns its row."""
    first = round(piece.start * VIDEO_FPS)
    last = len(crops) if piece.end is None else min(round(piece.end * VIDEO_FPS), len(crops))
    if last <= first:
        raise ValueError(f"{piece.name} begins at {piece.start} s, the video ends at {len(crops) / VIDEO_FPS} s")
    sound = np.zeros((last - first) * SAMPLES_PER_VIDEO_FRAME, np.float32)
    heard = audio[first * SAMPLES_PER_VIDEO_FRAME : last * SAMPLES_PER_VIDEO_FRAME]
    sound[: len(heard)] = heard
    samples = (sound * 32767).round().astype(np.int16)
    video, text = f"{folder}/{piece.name}.mp4", base / folder.replace("_video_", "_text_") / f"{piece.name}.txt"
    write_whole(base / video, lambda part: media.write_video(part, crops[first:last]))
    write_whole((base / video).with_suffix(".wav"), lambda part: media.write_audio(part, samples))
    write_text(text, f"{piece.text.upper()}\n")
    return f"{base.name},{video},{last - first},0,{piece.text}"


def _in_processes(work: Any, items: Sequence[Item], settings: PrepareSettings) -> Iterator[Record]:
    """The records as they come, of so many processes; a few items ahead, so that a kill loses little."""
    count = settings.processes or os.cpu_count() or 1
    context = multiprocessing.get_context("spawn")
    todo = iter(items)
    with ProcessPoolExecutor(count, context, cv2.setNumThreads, (1,)) as pool:
        waiting: set[Future[Record]] = set()
        while True:
            waiting |= {pool.submit(work, item) for item in islice(todo, 2 * count - len(waiting))}
            if not waiting:
                return
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            try:
                yield from (future.result() for future in finished)
            except BrokenProcessPool:
                raise ValueError(
                    "a process was killed, most likely for want of memory: try fewer --processes; done clips stay done"
                ) from None


def lrs3(source: Path) -> list[Item]:
    """pretrain/ and trainval/ to train on, test/."""
    subsets = {"pretrain": "train", "trainval": "train", "test": "test"}
    videos = {folder: sorted((source / folder).rglob("*.mp4")) for folder in subsets}
    return [
        Item(_id(source, video), subsets[folder], video, cut=folder == "pretrain")
        for folder, files in videos.items()
        for video in files
    ]


def lrs2(source: Path) -> list[Item]:
    """main/ and pretrain/, as the lists beside them say."""
    items = []
    for name, folder in (("pretrain", "pretrain"), ("train", "main"), ("val", "main"), ("test", "main")):
        lists = [path / f"{name}.txt" for path in (source, source.parent) if (path / f"{name}.txt").is_file()]
        lines = lists[0].read_text(encoding="utf-8").split("\n") if lists else []
        videos = [source / folder / f"{line.split()[0]}.mp4" for line in lines if line.strip()]
        subset = "train" if name == "pretrain" else name
        items += [Item(_id(source, video), subset, video, cut=name == "pretrain") for video in videos]
    if not items:
        raise ValueError(
            f"neither {source} nor the folder above holds a list of LRS2: pretrain, train, val or test.txt"
        )
    return items


def folder(source: Path) -> list[Item]:
    """Every video, whole, with the text beside it if there is one."""
    videos = [path for path in media_files(source) if path.suffix.lower() in VIDEO_SUFFIXES]
    return [Item(_id(source, video), "all", video, spoken=video.with_suffix(".txt").is_file()) for video in videos]


DATASETS = {"lrs3": lrs3, "lrs2": lrs2, "folder": folder}


def _id(source: Path, video: Path) -> str:
    return str(video.relative_to(source).with_suffix(""))


def pieces(item: Item, seconds: int) -> list[Piece]:
    """The clips that a video becomes, and their texts."""
    if not item.spoken:
        return [Piece(item.name, "")]
    text = item.video.with_suffix(".txt")
    cut = cut_at_words(item.name, read_words(text), seconds) if item.cut else []
    return cut or [Piece(item.name, transcript(text))]


def read_words(file: Path) -> Words:
    """The table WORD START END SCORE of a text file of LRS2 or LRS3."""
    lines = [line.split() for line in read_text(file).split("\n")]
    table = next((i for i, line in enumerate(lines) if line[:3] == ["WORD", "START", "END"]), len(lines))
    try:
        return [(line[0].lower(), float(line[1]), float(line[2])) for line in lines[table + 1 :] if len(line) >= 3]
    except ValueError as error:
        raise ValueError(f"{file}: {error} in its table of words") from None


def cut_at_words(name: str, words: Words, seconds: int) -> list[Piece]:
    """Pieces of at most so many seconds, each from its first word to the end of its last; one piece is the whole."""
    runs: list[Words] = []
    for word in words:
        if not runs or word[2] - runs[-1][0][1] > seconds:
            runs.append([])
        runs[-1].append(word)
    if len(runs) == 1:
        return [Piece(name, " ".join(word for word, *_ in words))]
    return [
        Piece(f"{name}_{i:02d}", " ".join(word for word, *_ in run), run[0][1], run[-1][2])
        for i, run in enumerate(runs)
    ]


def sheet(out: Path, records: Iterable[Record]) -> np.ndarray | None:
    """A contact sheet of the first clips."""
    paths = [out / Path(*row.split(",", 2)[:2]) for record in records for row in record.rows]
    clips = [media.read_video(path) for path in paths[:SHEET_CLIPS]]
    return mouth.contact_sheet(clips) if clips else None
