"""Raw video to mouth clips and their label files, for `omni-avsr prepare`.

A clip's files are written completely or not at all, and a line in OUT/prepared/ records a video
once all of its clips are written, so an interrupted run resumes after the last recorded video.
"""

import errno
import json
import logging
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import cache, partial
from glob import escape
from itertools import chain, islice
from pathlib import Path

import cv2
import numpy as np

from omni_avsr.data.sources import (
    DATASETS,
    EXPECTED,
    PARTS,
    Item,
    Piece,
    as_field,
    pieces_of,
    split,
)
from omni_avsr.errors import InputError
from omni_avsr.files import locked, read_rows, write_atomically, write_text
from omni_avsr.media import faces, mouth, speaker, streams
from omni_avsr.media.folders import AUDIO_SUFFIXES
from omni_avsr.run import Progress, no_progress
from omni_avsr.settings import PrepareSettings
from omni_avsr.tasks import SAMPLES_PER_VIDEO_FRAME, VIDEO_FPS

log = logging.getLogger(__name__)

SHEET_CLIPS = 20  # rows of a contact sheet
LEAST_SEEN = 0.2  # share of the frames in which a face must be seen
FRAMES_OFF = 2  # frames that landmarks and video may differ in length
LARGEST_SAMPLE = 32_767  # the int16 value that 1.0 is written as
UNDIVIDED = ("all", "train")  # the label files that --split divides
PNG = b"\x89PNG"  # how a picture begins
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # faults of the disk, whatever is written


@dataclass
class Record:
    """What has become of a video; a line in OUT/prepared/."""

    id: str
    subset: str
    rows: list[str] = field(default_factory=list)  # of the label file
    quality: dict[str, float] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)  # why some of its pieces are no clips
    error: str | None = None
    size: int | None = None  # of the video in bytes; None in journals of earlier versions
    options: dict[str, object] = field(default_factory=dict)  # that its clips depend on


@dataclass(frozen=True)
class _Output:
    """Where the files of a dataset go: clips, texts, journals and label files."""

    root: Path
    dataset: str
    seconds: int  # of the longest piece

    @property
    def videos(self) -> str:
        """The folder of the clips, below the dataset's."""
        return f"{self.dataset}_video_seg{self.seconds}s"

    @property
    def texts(self) -> str:
        return self.videos.replace("_video_", "_text_")

    def path(self, name: str) -> Path:
        """The path of a clip or text."""
        return self.root / self.dataset / name

    def journal(self, settings: PrepareSettings) -> Path:
        index, count = settings.part
        name = f"{self.dataset}_seg{self.seconds}s_{index}of{count}.jsonl"
        return self.root / "prepared" / name

    def journals(self) -> list[Path]:
        """The journals of all shards."""
        pattern = f"{escape(self.dataset)}_seg{self.seconds}s_*of*.jsonl"
        return sorted((self.root / "prepared").glob(pattern))

    def label_file(self, subset: str) -> Path:
        name = f"{self.dataset}_{subset}_transcript_lengths_seg{self.seconds}s.csv"
        return self.root / "labels" / name


def prepare(
    source: Path, out: Path, settings: PrepareSettings, progress: Progress = no_progress
) -> list[Record]:
    """Makes the clips of this shard's videos and writes the label files.

    Returns what has become of each video, those of an earlier run included.
    """
    _refuse_places(source, out, settings.sheet)
    if settings.landmarks is None:
        faces.find_model(settings.detector, settings.download)  # fails before any process starts
    items = _items_of_shard(source, out, settings)
    output = _Output(out, _dataset_name(source, settings), settings.seconds)
    journal = output.journal(settings)
    with locked(journal.parent, f".{journal.stem}.lock"):
        records = _make_missing_clips(items, journal, output, settings, progress)
    _write_label_files(output, settings)
    return records


def _refuse_places(source: Path, out: Path, sheet: Path | None) -> None:
    """Refuses folders and files that cannot be read or written, before any work is done."""
    if source.is_file():
        raise InputError(f"{source} is a file: give the folder that it is in")
    if not source.is_dir():
        raise InputError(f"there is no folder {source}")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file: give the folder to write")
    if sheet is None:
        return
    if sheet.is_dir():
        raise InputError(f"--sheet {sheet} is a folder: give a file, such as sheet.png")
    if sheet.is_file() and not sheet.read_bytes().startswith(PNG):
        raise InputError(f"--sheet {sheet} exists and is not a PNG: give another file")


def _dataset_name(source: Path, settings: PrepareSettings) -> str:
    default = settings.dataset
    if settings.dataset == "folder":
        default = source.resolve().name or "folder"
    return as_field(settings.name or default).strip()


def _items_of_shard(source: Path, out: Path, settings: PrepareSettings) -> list[Item]:
    """The videos of this shard, without those that an earlier run has written below out."""
    found = DATASETS[settings.dataset](source)
    items = _with_own_names(item for item in found if not _is_written(item.video, out))
    if not items:
        expected = EXPECTED[settings.dataset]
        raise InputError(
            f"{source} holds no videos for --dataset {settings.dataset}: {expected} expected"
        )
    index, count = settings.part
    if len(items) < index:
        raise InputError(f"none of the {len(items)} videos of {source} is in part {settings.shard}")
    return items[index - 1 :: count]


def _is_written(video: Path, out: Path) -> bool:
    """Whether a video is a clip in OUT/DATASET/DATASET_video_seg16s or the like."""
    path, root = video.resolve(), out.resolve()
    if root not in path.parents:
        return False
    dataset, folder, *_ = [*path.relative_to(root).parts, ""]
    return folder.startswith(f"{dataset}_video_seg")


def _with_own_names(items: Iterable[Item]) -> list[Item]:
    """The items without those whose clips would have the name of another's."""
    first: dict[str, Item] = {}
    for item in items:
        other = first.setdefault(item.name, item)
        if other is not item:
            log.warning(
                "left out: %s, whose clip would be named like that of %s; rename it",
                item.video,
                other.video,
            )
    return list(first.values())


def _make_missing_clips(
    items: Sequence[Item],
    journal: Path,
    output: _Output,
    settings: PrepareSettings,
    progress: Progress,
) -> list[Record]:
    """Makes the clips of the videos that the journal lacks; returns the records of all."""
    finished: dict[str, Record] = {}
    for record in read_journal(journal):
        if record.error is None and _is_complete(record, output):
            finished[record.id] = record
    _compare_with_finished(items, finished, settings, journal)
    records = [finished[item.id] for item in items if item.id in finished]
    missing = [item for item in items if item.id not in finished]
    work = partial(_make_clips, output=output, settings=settings)
    with journal.open("a", encoding="utf-8") as lines:
        if lines.tell() > 0:
            lines.write("\n")  # ends a half-written line
        for record in _in_processes(work, missing, settings.processes):
            lines.write(json.dumps(vars(record)) + "\n")
            lines.flush()
            records.append(record)
            progress("Preparing", len(records), len(items))
    return records


def _compare_with_finished(
    items: Iterable[Item], finished: Mapping[str, Record], settings: PrepareSettings, journal: Path
) -> None:
    """Refuses clips of other videos of the same names, and warns of those of other options."""
    asked = _options(settings)
    kept = 0
    for item in items:
        record = finished.get(item.id)
        if record is None or record.size is None:
            continue
        if item.video.is_file() and item.video.stat().st_size != record.size:
            raise InputError(
                f"the finished clips of {item.id} are of another video than {item.video}: give "
                f"another --out or --name, or delete {journal} to make all clips again"
            )
        kept += record.options != asked
    if kept:
        log.warning(
            "the clips of %d videos are kept, although they were made with another --face, "
            "--audio-track, --audio or --landmarks: delete %s to make all clips again",
            kept,
            journal,
        )


def _options(settings: PrepareSettings) -> dict[str, object]:
    """The options that clips depend on; of folders, which may move, only whether they are given."""
    return {
        "face": settings.face,
        "audio_track": settings.audio_track,
        "audio": settings.audio is not None,
        "landmarks": settings.landmarks is not None,
    }


def _is_complete(record: Record, output: _Output) -> bool:
    """Whether the files of all clips still exist."""
    for row in record.rows:
        video = _video_of(row, output.root)
        if not video.is_file() or not video.with_suffix(".wav").is_file():
            return False
    return True


def _video_of(row: str, out: Path) -> Path:
    """The video of a row of a label file."""
    dataset, path, _ = row.split(",", 2)
    return out / dataset / path


def read_journal(file: Path) -> list[Record]:
    """The records of a journal."""
    return [Record(**row) for row in read_rows(file)]


def _write_label_files(output: _Output, settings: PrepareSettings) -> None:
    """Writes the label file of each subset, with the clips of all shards.

    Another shard may finish meanwhile; so it is repeated until the rows no longer change.
    """
    written: dict[str, set[str]] | None = None
    while True:
        journals = [read_journal(journal) for journal in output.journals()]
        rows = _rows_of_subsets(journals, settings)
        if rows == written:
            break
        for subset, lines in rows.items():
            text = "".join(f"{line}\n" for line in sorted(lines))
            write_text(output.label_file(subset), text)
        _remove_other_label_files(output, rows, journals)
        written = rows
    missing = [part for part in PARTS[: len(settings.shares)] if part not in rows]
    if rows and missing:
        log.warning("too few folders or videos for a label file of %s", " and ".join(missing))


def _rows_of_subsets(
    journals: Iterable[list[Record]], settings: PrepareSettings
) -> dict[str, set[str]]:
    """The rows of each subset.

    Of several records of a video in a journal the last counts. A failure in one journal does not
    undo the clips of another.
    """
    of_videos: dict[str, Record] = {}
    for records in journals:
        latest = {record.id: record for record in records}
        of_videos |= {id: record for id, record in latest.items() if record.rows}
    made = list(of_videos.values())
    part_of = _parts(made, settings)
    rows: dict[str, set[str]] = {}
    for record in made:
        subset = part_of.get(record.id, record.subset)
        rows.setdefault(subset, set()).update(record.rows)
    return rows


def _parts(records: Iterable[Record], settings: PrepareSettings) -> dict[str, str]:
    """The part of each video that --split divides; speakers of LRS3 are in several folders."""
    names: dict[str, str] = {}
    for record in records:
        if record.subset in UNDIVIDED:
            is_lrs3 = settings.dataset == "lrs3"
            names[record.id] = record.id.partition("/")[2] if is_lrs3 else record.id
    if not settings.shares or not names:
        return {}
    part_of = split(set(names.values()), settings.shares)
    return {id: part_of[name] for id, name in names.items()}


def _remove_other_label_files(
    output: _Output, rows: Mapping[str, set[str]], journals: Iterable[list[Record]]
) -> None:
    """Removes label files of another --split, whose clips are all in those of this one."""
    known = {""}  # ends a file
    for record in chain.from_iterable(journals):
        known.update(record.rows)
    for subset in {"all", *PARTS} - rows.keys():
        file = output.label_file(subset)
        if file.is_file():
            lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
            if known.issuperset(lines):
                file.unlink()


def _in_processes(
    work: Callable[[Item], Record], items: Sequence[Item], processes: int
) -> Iterator[Record]:
    """Yields the records in the order in which the processes finish them.

    Only two items per process are submitted ahead, so an interruption does not wait for more.
    """
    count = processes or os.cpu_count() or 1
    context = multiprocessing.get_context("spawn")
    left = iter(items)
    with ProcessPoolExecutor(count, context, cv2.setNumThreads, (1,)) as pool:
        running: set[Future[Record]] = set()
        while True:
            free = 2 * count - len(running)
            for item in islice(left, free):
                running.add(pool.submit(work, item))
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield _result(future)


def _result(future: Future[Record]) -> Record:
    try:
        return future.result()
    except BrokenProcessPool:
        raise InputError(
            "a process was killed, most likely because memory ran out: run the command again "
            "with fewer --processes; finished clips are kept"
        ) from None


def _make_clips(item: Item, output: _Output, settings: PrepareSettings) -> Record:
    """Finds the mouth in one video and writes its clips; the record has the error, if any."""
    record = Record(item.id, item.subset, options=_options(settings))
    try:
        record.size = item.video.stat().st_size
        pieces = pieces_of(item, settings.seconds)
        audio = _read_audio(item, settings)
        found = _find_mouth(item, audio, settings)
        crops = _crop(item.video, found)
        record.quality = found.quality
        for piece in pieces:
            try:
                row = _write_clip(piece, crops, found.detected, audio, output)
            except InputError as error:
                record.left_out.append(f"{piece.name}: {error}")
            else:
                record.rows.append(row)
        if not record.rows:
            record.error = "; ".join(record.left_out)
    except (InputError, OSError, cv2.error) as error:
        if isinstance(error, OSError) and error.errno in UNWRITABLE:
            raise InputError(
                f"{output.root} cannot be written: {os.strerror(error.errno)}; "
                "run the command again when it can be, finished clips are kept"
            ) from None
        record.error = f"{item.id}: {error}"
        record.rows = []
    return record


def _read_audio(item: Item, settings: PrepareSettings) -> np.ndarray:
    """The audio (S,) of a video: from the folder of sounds if there is one, else its own."""
    blocks = list(streams.audio_blocks(_sound_of(item, settings), settings.audio_track))
    if not sum(len(block) for block in blocks):
        raise InputError(f"{item.video} has an audio stream without samples")
    return np.concatenate(blocks)


def _sound_of(item: Item, settings: PrepareSettings) -> Path:
    if settings.audio is None:
        return streams.sound_of(item.video)
    for suffix in AUDIO_SUFFIXES:
        sound = settings.audio / f"{item.id}{suffix}"
        if sound.is_file():
            return sound
    raise InputError(
        f"{settings.audio} has no sound for {item.video}: {item.id} with one of the suffixes "
        f"{' '.join(AUDIO_SUFFIXES)} expected"
    )


def _find_mouth(item: Item, audio: np.ndarray, settings: PrepareSettings) -> mouth.Mouth:
    """The mouth of the face that is asked for, or else of the face that speaks."""
    if settings.landmarks is not None:
        tracks, frames = faces.read_landmarks(settings.landmarks / f"{item.id}.pkl")
    else:
        detect = _detector(settings.detector, settings.download)
        tracks, frames = faces.find(partial(streams.video_frames, item.video), detect)
    if not frames:
        raise InputError(f"{item.video} has a video stream without frames")
    if not tracks:
        raise InputError(f"no faces in {item.video}")
    if settings.face is None:
        track = speaker.speaking_face(tracks, streams.loudness([audio]))
    elif settings.face <= len(tracks):
        track = tracks[settings.face - 1]
    else:
        raise InputError(f"{len(tracks)} faces in {item.video}, --face {settings.face} asked for")
    seen = len(track.frames)
    if seen < LEAST_SEEN * frames:
        raise InputError(f"the face in {item.video} is seen in only {seen} of {frames} frames")
    return mouth.locate_mouth(track.frames, track.points, frames)


@cache
def _detector(model: Path | None, download: bool) -> faces.Detector:
    return faces.yunet(model, download)


def _crop(video: Path, found: mouth.Mouth) -> np.ndarray:
    """The mouth in every frame of a video (T, 96, 96)."""
    frames = streams.video_frames(video)
    crops = list(mouth.crops(frames, found))
    count = len(crops) + sum(1 for _ in frames)  # landmarks may end before the video
    if count == 0:
        raise InputError(f"{video} has a video stream without frames")
    if abs(count - len(found.maps)) > FRAMES_OFF:
        raise InputError(f"{video} has {count} frames, its landmarks are of {len(found.maps)}")
    return np.stack(crops)


def _write_clip(
    piece: Piece, crops: np.ndarray, detected: np.ndarray, audio: np.ndarray, output: _Output
) -> str:
    """Writes the video, audio and text of a clip; returns its row of the label file."""
    first, last = _frame_range(piece, len(crops))
    frames = last - first
    lost = mouth.lost(detected[first:last]).sum()
    if lost:
        raise InputError(
            f"the face is not seen for {lost / VIDEO_FPS:.1f} s, and at most "
            f"{mouth.BRIDGED / VIDEO_FPS:.0f} s is bridged; cut the video there"
        )
    sound = np.zeros(frames * SAMPLES_PER_VIDEO_FRAME, np.float32)  # silent if the audio ends early
    heard = audio[first * SAMPLES_PER_VIDEO_FRAME : last * SAMPLES_PER_VIDEO_FRAME]
    sound[: len(heard)] = heard
    samples = (sound * LARGEST_SAMPLE).round().astype(np.int16)

    name = f"{output.videos}/{piece.name}.mp4"
    video = output.path(name)
    text = output.path(f"{output.texts}/{piece.name}.txt")
    write_atomically(video, lambda part: streams.write_video(part, crops[first:last]))
    write_atomically(video.with_suffix(".wav"), lambda part: streams.write_audio(part, samples))
    write_text(text, f"{piece.text.upper()}\n")
    return f"{output.dataset},{name},{frames},0,{piece.text}"


def _frame_range(piece: Piece, frames: int) -> tuple[int, int]:
    """The first frame of a piece, and the one after its last."""
    first = round(piece.start * VIDEO_FPS)
    last = frames
    if piece.end is not None:
        last = min(round(piece.end * VIDEO_FPS), frames)
    if last <= first:
        raise InputError(
            f"it begins at {piece.start} s, but the video ends at {frames / VIDEO_FPS} s"
        )
    return first, last


def sheet(out: Path, records: Iterable[Record]) -> np.ndarray | None:
    """A contact sheet of the first clips; None if there are no clips."""
    rows: list[str] = []
    for record in records:
        rows += record.rows
    videos = [_video_of(row, out) for row in rows[:SHEET_CLIPS]]
    if not videos:
        return None
    names = []
    for video in videos:
        _, _, *parts = video.relative_to(out).with_suffix("").parts
        names.append("/".join(parts))
    return mouth.contact_sheet([streams.read_video(video) for video in videos], names)
