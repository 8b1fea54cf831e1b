"""The toy corpus: clips of a speaking mouth, made in memory or written in the layout that LRS3 users have.

espeak's sound depends on what its process said before, so clips are made in shards, each serially in a fresh process. A
corpus is then the same whatever the number of processes.
"""

import hashlib
import itertools
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from omni_avsr.media import streams as media
from omni_avsr.run import cache_root, write_text, write_whole
from omni_avsr.tasks import SAMPLES_PER_VIDEO_FRAME
from omni_avsr.toy.mouth import Face, draw_mouth, lip_track, make_face, speaker_seed
from omni_avsr.toy.phones import Phoneme
from omni_avsr.toy.sentences import SPLITS, WORLDS, check, pronounced, sentences
from omni_avsr.toy.speech import SPEAKERS, require_espeak, speak

GENERATOR_VERSION = 2  # to be raised by every change that alters a sample, a pixel or a word
SHARD = 100  # clips; about ten seconds' work

Progress = Callable[[int, int], None]  # is told the clips that are done, and all


@dataclass(frozen=True)
class ToyClip:
    """audio int16 (S,) at 16 kHz, video uint8 (T, 96, 96) at 25 fps of the same length, and what is said when."""

    id: str
    text: str
    speaker: str
    audio: np.ndarray
    video: np.ndarray
    phonemes: list[Phoneme]


@dataclass(frozen=True)
class _Shard:
    world: str
    split: str
    seed: int
    first: int
    count: int


def generate(world: str, split: str, count: int, seed: int, first: int = 0) -> Iterator[ToyClip]:
    """The clips first..first + count of a split, made here: reproducible only from the start of a fresh process."""
    texts = list(itertools.islice(sentences(world, split, seed), first, first + count))
    if len(texts) < count:
        raise ValueError(
            f"the {world} world has no {first + count} sentences to {split} on; ask for fewer, or for open"
        )
    return (_make_clip(_Shard(world, split, seed, i, 1), text) for i, text in enumerate(texts, first))


def generate_shards(world: str, split: str, count: int, seed: int, processes: int | None = None) -> Iterator[ToyClip]:
    """The first clips of a split in order, made by so many processes at a time; the same for any number of them."""
    for clips in _in_fresh_processes(_clips, _shards(world, split, count, seed), processes):
        yield from clips


def write_corpus(
    out: Path,
    world: str = "grid",
    clips: int = 1600,
    seed: int = 0,
    splits: Sequence[str] = SPLITS,
    sizes: dict[str, int] | None = None,
    processes: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Path]:
    """The label file of each split, written last: under OUT/labels, of the media and texts under OUT/toy.

    A split has as many clips as `sizes` says, else train has `clips` and the others a tenth of them.
    """
    shards = [shard for split in splits for shard in _shards(world, split, _size(split, clips, sizes), seed)]
    total, done = sum(shard.count for shard in shards), 0
    rows: dict[str, list[str]] = {split: [] for split in splits}
    for shard, written in zip(shards, _in_fresh_processes(partial(_write_shard, out), shards, processes), strict=True):
        rows[shard.split] += written
        done += shard.count
        if progress:
            progress(done, total)
    for split in splits:
        write_text(label_path(out, split), "".join(f"{row}\n" for row in rows[split]))
    return {split: label_path(out, split) for split in splits}


def cached_corpus(
    world: str = "grid",
    clips: int = 1600,
    seed: int = 0,
    splits: Sequence[str] = SPLITS,
    sizes: dict[str, int] | None = None,
    processes: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Path]:
    """The label file of each split, made at the first call under `cache_root`, and found there afterwards."""
    out = cache_folder(world, clips, seed, sizes)
    missing = [split for split in splits if not label_path(out, split).exists()]
    if missing:
        write_corpus(out, world, clips, seed, missing, sizes, processes, progress)
    return {split: label_path(out, split) for split in splits}


def cache_folder(world: str, clips: int, seed: int, sizes: dict[str, int] | None = None) -> Path:
    """Where a corpus of these parameters is cached: a folder named by all that its content depends on."""
    check(world)
    made_of = [GENERATOR_VERSION, world, seed, {split: _size(split, clips, sizes) for split in SPLITS}]
    return cache_root() / f"toy-{world}-{hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:12]}"


def label_path(out: Path, split: str) -> Path:
    """The label file of a split; it exists once the split is complete."""
    return Path(out) / "labels" / f"toy_{split}_transcript_lengths_seg16s.csv"


def _size(split: str, clips: int, sizes: dict[str, int] | None) -> int:
    return (sizes or {}).get(split, clips if split == "train" else max(clips // 10, 1))


def _shards(world: str, split: str, count: int, seed: int) -> list[_Shard]:
    check(world, split)
    return [_Shard(world, split, seed, first, min(SHARD, count - first)) for first in range(0, count, SHARD)]


def _make_clip(place: _Shard, text: str) -> ToyClip:
    """The clip at this place of the corpus: all its chances are drawn from a seed of its own."""
    world, split = WORLDS.index(place.world), SPLITS.index(place.split)
    rng = np.random.default_rng([place.seed, world, split, place.first])
    voice = SPEAKERS[place.split][rng.integers(len(SPEAKERS[place.split]))]
    spoken = speak(pronounced(text), voice.jittered(rng), rng)
    face = _face_of(voice.name)
    track = lip_track(spoken.phonemes, len(spoken.audio) // SAMPLES_PER_VIDEO_FRAME, face, rng)
    name = f"{place.world}_{place.split}_{place.first:06d}"
    return ToyClip(name, text, voice.name, spoken.audio, draw_mouth(track, face, rng), spoken.phonemes)


@cache
def _face_of(speaker: str) -> Face:
    return make_face(np.random.default_rng(speaker_seed(speaker)))


def _clips(shard: _Shard) -> list[ToyClip]:
    return list(_made(shard))


def _write_shard(out: Path, shard: _Shard) -> list[str]:
    """Writes the shard's media and texts; returns its rows of the label file."""
    cv2.setNumThreads(1)  # the other processes have the other cores
    return [_write_clip(Path(out), shard.split, clip) for clip in _made(shard)]


def _made(shard: _Shard) -> Iterator[ToyClip]:
    return generate(shard.world, shard.split, shard.count, shard.seed, shard.first)


def _write_clip(out: Path, split: str, clip: ToyClip) -> str:
    video = f"toy_video_seg16s/{split}/{clip.speaker}/{clip.id}.mp4"
    text = f"toy_text_seg16s/{split}/{clip.speaker}/{clip.id}.txt"
    video_path = out / "toy" / video
    write_whole(video_path, lambda path: media.write_video(path, clip.video))
    write_whole(video_path.with_suffix(".wav"), lambda path: media.write_audio(path, clip.audio))
    write_text(out / "toy" / text, f"{clip.text.upper()}\n")
    return f"toy,{video},{len(clip.video)},0,{clip.text}"


# Not multiprocessing: its workers import the caller's script again, and torch with it.
_WORKER = """
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
work, task = pickle.load(sys.stdin.buffer)
try:
    answer = work(task)
except ValueError as error:  # is for the caller to see
    answer = error
pickle.dump(answer, sys.stdout.buffer)
"""


def _in_fresh_processes(work: Callable[[_Shard], Any], shards: list[_Shard], processes: int | None) -> Iterator[Any]:
    """work(shard) of each shard in order, each from its own new interpreter, so many at a time."""
    require_espeak()  # before any process starts, so that the advice comes alone
    processes = processes or min(os.cpu_count() or 1, 8)
    waiting: list[Future[Any]] = []
    todo = iter(shards)
    with ThreadPoolExecutor(processes) as pool:
        while True:
            soon = itertools.islice(todo, processes - len(waiting))  # no further ahead: clips in memory are large
            waiting += [pool.submit(_in_fresh_process, work, shard) for shard in soon]
            if not waiting:
                return
            yield waiting.pop(0).result()


def _in_fresh_process(work: Callable[[_Shard], Any], shard: _Shard) -> Any:
    task = pickle.dumps(sys.path) + pickle.dumps((work, shard))
    run = subprocess.run([sys.executable, "-c", _WORKER], input=task, capture_output=True)
    if run.returncode:
        raise RuntimeError(f"the toy corpus' process failed on {shard}:\n{run.stderr.decode(errors='replace')}")
    answer = pickle.loads(run.stdout)
    if isinstance(answer, ValueError):
        raise answer
    return answer
