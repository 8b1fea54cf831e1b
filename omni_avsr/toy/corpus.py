"""The toy corpus, in memory or written in the layout of LRS3.

What espeak says depends on what its process said before. So clips are made in shards, each in a
fresh process, one clip after another. The corpus is then the same for any number of processes.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import cv2

from omni_avsr.files import cache_root, write_atomically, write_text
from omni_avsr.media import streams
from omni_avsr.run import Progress, no_progress
from omni_avsr.settings.shared import ToyOptions
from omni_avsr.toy.clips import Shard, ToyClip, generate
from omni_avsr.toy.sentences import SPLITS, check
from omni_avsr.toy.speech import require_espeak
from omni_avsr.toy.words import times_path, times_row
from omni_avsr.toy.workers import in_fresh_processes

GENERATOR_VERSION = 3  # raise it with every change of a sample, a pixel or a word
SHARD = 100  # clips, about ten seconds of work
MOST_PROCESSES = 8  # by default

Answer = TypeVar("Answer")


def toy_corpus(
    options: ToyOptions, splits: Sequence[str], progress: Progress = no_progress
) -> dict[str, Path]:
    """Returns the label file of each split of the cached corpus; missing splits are made first.

    There are a sixteenth as many validation clips as training clips, and an eighth as many test
    clips.
    """
    train = options.toy_clips
    sizes = {"train": train, "valid": max(train // 16, 1), "test": max(train // 8, 1)}
    world, language = options.toy_world, options.toy_language
    out = cache_folder(world, sizes, language=language)
    files = {split: label_path(out, split) for split in splits}
    missing = {split: sizes[split] for split in splits if not files[split].exists()}
    if missing:
        write_corpus(out, world, missing, progress=progress, language=language)
    return files


def generate_shards(
    world: str,
    split: str,
    count: int,
    seed: int,
    processes: int | None = None,
    language: str = "en",
) -> Iterator[ToyClip]:
    """Yields the first clips of a split in order, made by several processes at a time."""
    shards = _shards(world, split, count, seed, language)
    for clips in _of_each_shard(_make_shard, shards, processes):
        yield from clips


def corpus_sizes(clips: int) -> dict[str, int]:
    """Returns the default size of each split: a tenth of the training clips for the others."""
    tenth = max(clips // 10, 1)
    return {"train": clips, "valid": tenth, "test": tenth}


def write_corpus(
    out: Path,
    world: str,
    sizes: Mapping[str, int],
    seed: int = 0,
    processes: int | None = None,
    progress: Progress = no_progress,
    language: str = "en",
) -> dict[str, Path]:
    """Writes a corpus with splits of these sizes and returns the label file of each.

    Media and texts are in OUT/toy. Label files are in OUT/labels and are written last. Beside each
    is a file with the start and end of every word.
    """
    shards: list[Shard] = []
    for split, count in sizes.items():
        shards += _shards(world, split, count, seed, language)
    rows: dict[str, list[_Rows]] = {split: [] for split in sizes}
    done = 0
    written = _of_each_shard(partial(_write_shard, out), shards, processes)
    for shard, shard_rows in zip(shards, written, strict=True):
        rows[shard.split] += shard_rows
        done += shard.count
        progress(f"Making the {world} corpus", done, sum(sizes.values()))
    for split in sizes:
        labels = label_path(out, split)
        write_text(times_path(labels), "".join([row.times for row in rows[split]]))
        write_text(labels, "".join([row.label for row in rows[split]]))
    return {split: label_path(out, split) for split in sizes}


def cache_folder(world: str, sizes: Mapping[str, int], seed: int = 0, language: str = "en") -> Path:
    """Returns where a corpus is cached; the name depends on everything that its content does."""
    check(world, language=language)
    if language != "en":
        world = f"{world}-{language}"
    content = [GENERATOR_VERSION, world, seed, {split: sizes[split] for split in SPLITS}]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return cache_root() / f"toy-{world}-{digest[:12]}"


def label_path(out: Path, split: str) -> Path:
    """Returns the label file of a split, which exists once the split is complete."""
    return Path(out) / "labels" / f"toy_{split}_transcript_lengths_seg16s.csv"


def _shards(world: str, split: str, count: int, seed: int, language: str) -> list[Shard]:
    check(world, split, language)
    shards = []
    for first in range(0, count, SHARD):
        fewer = min(SHARD, count - first)
        shards.append(Shard(world, split, seed, first, fewer, language))
    return shards


def _of_each_shard(
    work: Callable[[Shard], Answer], shards: list[Shard], processes: int | None
) -> Iterator[Answer]:
    """Yields work(shard) of each shard in order."""
    require_espeak()  # before any process starts, so that the error is raised once
    processes = processes or min(os.cpu_count() or 1, MOST_PROCESSES)
    return in_fresh_processes(work, shards, processes)


def _make_shard(shard: Shard) -> list[ToyClip]:
    return list(generate(shard))


class _Rows(NamedTuple):
    """What the files beside the media say of a clip, a line in each."""

    label: str
    times: str


def _write_shard(out: Path, shard: Shard) -> list[_Rows]:
    """Writes media and texts of a shard and returns the rows of its clips."""
    cv2.setNumThreads(1)  # the other cores belong to the other processes
    return [_write_clip(Path(out), shard.split, clip) for clip in generate(shard)]


def _write_clip(out: Path, split: str, clip: ToyClip) -> _Rows:
    name = f"{split}/{clip.speaker}/{clip.id}"
    video = f"toy_video_seg16s/{name}.mp4"
    video_path = out / "toy" / video
    audio_path = video_path.with_suffix(".wav")
    text_path = out / "toy" / f"toy_text_seg16s/{name}.txt"
    write_atomically(video_path, lambda part: streams.write_video(part, clip.video))
    write_atomically(audio_path, lambda part: streams.write_audio(part, clip.audio))
    write_text(text_path, f"{clip.text.upper()}\n")
    label = f"toy,{video},{len(clip.video)},0,{clip.text}\n"
    return _Rows(label, times_row(video, clip.words))
