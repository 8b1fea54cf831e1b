"""Raw video to mouth clips, in the layout of label files: LRS2, LRS3, or any folder of videos.

A clip's files are written whole or not at all, and a line in OUT/prepared/ says that all of them are there: what has
such a line is not done again.
"""

import contextlib
import json
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from omni_avsr import media, mouth
from omni_avsr.data.manifest import VIDEO_SUFFIXES, media_files, transcript
from omni_avsr.run import Report, silent, write_text, write_whole
from omni_avsr.settings import PrepareSettings
from omni_avsr.tasks import SAMPLES_PER_VIDEO_FRAME, VIDEO_FPS

SHEET_CLIPS = 20
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
    """A video and the clips that are made of it."""

    id: str
    subset: str
    video: Path
    pieces: list[Piece]


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
    index, count = settings.part
    items = DATASETS[settings.dataset](source, settings.seconds)[index - 1 :: count]
    if len({item.id for item in items}) < len(items):
        raise ValueError(f"{source} holds several videos whose names differ in their ending alone")
    if not items:
        raise ValueError(f"{source} holds no videos of {settings.dataset}" + (f", part {settings.shard}" * (count > 1)))
    journal = out / "prepared" / f"{name}_seg{settings.seconds}s_{index}of{count}.jsonl"
    done = {record.id: record for record in read_journal(journal) if record.error is None}
    records = [done[item.id] for item in items if item.id in done]
    todo = [item for item in items if item.id not in done]
    journal.parent.mkdir(parents=True, exist_ok=True)
    with journal.open("a", encoding="utf-8") as lines:
        lines.write("\n" if lines.tell() else "")  # ends a line that a kill cut off
        for record in _in_processes(partial(make_clips, out=out, name=name, settings=settings), todo, settings):
            lines.write(json.dumps(vars(record), ensure_ascii=False) + "\n")
            lines.flush()
            records.append(record)
            report("Preparing", len(records), len(items))
    write_labels(out, name, settings.seconds)
    return records


def read_journal(file: Path) -> list[Record]:
    """The records of a journal; a line that was cut off is none."""
    records = []
    for line in file.read_text(encoding="utf-8").split("\n") if file.is_file() else []:
        with contextlib.suppress(json.JSONDecodeError):
            records.append(Record(**json.loads(line)))
    return records


def write_labels(out: Path, name: str, seconds: int) -> list[Path]:
    """Writes the label file of each subset, of what all shards have done so far."""
    rows: dict[str, set[str]] = {}
    for journal in sorted((out / "prepared").glob(f"{name}_seg{seconds}s_*of*.jsonl")):
        for record in read_journal(journal):
            rows.setdefault(record.subset, set()).update(record.rows)
    files = []
    for subset, lines in rows.items():
        file = out / "labels" / f"{name}_{subset}_transcript_lengths_seg{seconds}s.csv"
        write_text(file, "".join(f"{line}\n" for line in sorted(lines)))
        files.append(file)
    return files


def make_clips(item: Item, out: Path, name: str, settings: PrepareSettings) -> Record:
    """Finds the mouth in one video and writes its clips; what is wrong with the video is in the record."""
    record = Record(item.id, item.subset)
    try:
        audio = np.concatenate([np.zeros(0, np.float32), *media.audio_blocks(item.video)])
        if not len(audio):
            raise ValueError(f"{item.video} has an audio stream without samples")
        found = find_mouth(item, audio, settings)
        crops = np.stack(list(mouth.crops(media.video_frames(item.video), found)))
        record.quality = found.quality
        for piece in item.pieces:
            record.rows.append(_write(piece, crops, audio, out / name, f"{name}_video_seg{settings.seconds}s"))
    except (ValueError, OSError, cv2.error) as error:
        record.error, record.rows = f"{item.id}: {error}", []
    return record


def find_mouth(item: Item, audio: np.ndarray, settings: PrepareSettings) -> mouth.Mouth:
    """The mouth of the face that speaks, of the face asked for, or of the landmarks given."""
    if settings.landmarks:
        tracks = mouth.read_landmarks((Path(settings.landmarks) / item.id).with_suffix(".pkl"))
        frames = sum(1 for _ in media.video_frames(item.video, "gray"))
    else:
        tracks, frames = mouth.follow(media.video_frames(item.video), _detector(settings.detector, settings.download))
    if not frames:
        raise ValueError(f"{item.video} has a video stream without frames")
    if len(tracks) < (settings.face or 1):
        raise ValueError(f"{len(tracks) or 'no'} faces in {item.video}" + (f", --face {settings.face}" * bool(tracks)))
    track = tracks[settings.face - 1] if settings.face else mouth.speaking(tracks, media.loudness([audio]))
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
            yield from (future.result() for future in finished)


def lrs3(source: Path, seconds: int) -> list[Item]:
    """pretrain/ and trainval/ to train on, test/."""
    subsets = {"pretrain": "train", "trainval": "train", "test": "test"}
    videos = {folder: sorted((source / folder).rglob("*.mp4")) for folder in subsets}
    return [
        _item(source, subsets[folder], video, seconds, folder == "pretrain")
        for folder, files in videos.items()
        for video in files
    ]


def lrs2(source: Path, seconds: int) -> list[Item]:
    """main/ and pretrain/, as the lists beside them say."""
    items = []
    for name, folder in (("pretrain", "pretrain"), ("train", "main"), ("val", "main"), ("test", "main")):
        lists = [path / f"{name}.txt" for path in (source, source.parent) if (path / f"{name}.txt").is_file()]
        lines = lists[0].read_text(encoding="utf-8").split("\n") if lists else []
        videos = [source / folder / f"{line.split()[0]}.mp4" for line in lines if line.strip()]
        subset = "train" if name == "pretrain" else name
        items += [_item(source, subset, video, seconds, name == "pretrain") for video in videos]
    return items


def folder(source: Path, _: int) -> list[Item]:
    """Every video, whole, with the text beside it if there is one."""
    videos = [path for path in media_files(source) if path.suffix.lower() in VIDEO_SUFFIXES]
    return [_item(source, "all", video, 0, False) for video in videos]


DATASETS = {"lrs3": lrs3, "lrs2": lrs2, "folder": folder}


def _item(source: Path, subset: str, video: Path, seconds: int, cut: bool) -> Item:
    name, text = str(video.relative_to(source).with_suffix("")), video.with_suffix(".txt")
    pieces = [Piece(name, transcript(text) if text.is_file() else "")]
    if cut and text.is_file():
        pieces = cut_at_words(name, read_words(text), seconds) or pieces
    return Item(name, subset, video, pieces)


def read_words(file: Path) -> Words:
    """The table WORD START END SCORE of a text file of LRS2 or LRS3."""
    lines = [line.split() for line in file.read_text(encoding="utf-8").split("\n")]
    table = next((i for i, line in enumerate(lines) if line[:3] == ["WORD", "START", "END"]), len(lines))
    return [(line[0].lower(), float(line[1]), float(line[2])) for line in lines[table + 1 :] if len(line) >= 3]


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
