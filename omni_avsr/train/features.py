"""Features that frozen encoders compute once: kept in memory, or in files for later runs.

The feature cache grows while clips are encoded, one batch at a time, and encoding that was
interrupted continues where it was. Training reads the features of a clip from the file.
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from omni_avsr.data.loading import ClipKey, UnreadableClip
from omni_avsr.data.manifest import Clip
from omni_avsr.errors import InputError
from omni_avsr.files import Journal
from omni_avsr.model import Features
from omni_avsr.tasks import FRAME_RATES, Row

log = logging.getLogger(__name__)

FORMAT = 2  # of the files, and of how noise is made
NUMBER = np.dtype("<f2")  # half precision
MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container


@dataclass(frozen=True)
class EncodedClip:
    """A clip whose features are known, in half precision."""

    key: ClipKey
    id: str
    text: str
    seconds: float
    features: dict[str, Tensor]  # (T, D) of each modality


@dataclass(frozen=True)
class Encoded:
    """What is kept of one augmented copy of a clip."""

    seconds: float
    features: dict[str, Tensor]  # (T, D) of each modality; none if the clip cannot be read


class MemoryStore(dict[ClipKey, Encoded]):
    """Keeps features in memory; a key is a clip and one of its copies."""

    def refuse(self, needed: int) -> None:
        """Refuses so many bytes of features if they are more than the memory."""
        _refuse(
            needed,
            available_memory(),
            "memory: set --feature-cache FOLDER to keep them on a disk",
        )


class FileStore:
    """Keeps features in a file, and where each clip's are in a journal beside it."""

    def __init__(self, file: Path):
        self.file = file
        self.journal = Journal(file.with_suffix(".jsonl"), {"format": FORMAT})
        size = file.stat().st_size if file.is_file() else 0
        self.known: dict[ClipKey, Row] = {}
        for row in self.journal.rows:
            if row["end"] <= size:
                self.known[ClipKey(row["clip"], row["copy"])] = row
        self.journal.rows = []

    def __contains__(self, key: ClipKey) -> bool:
        return key in self.known

    def __getitem__(self, key: ClipKey) -> Encoded:
        row = self.known[key]
        features = {}
        for modality, (start, frames, width) in row["features"].items():
            flat = np.fromfile(self.file, NUMBER, frames * width, offset=start)
            if len(flat) < frames * width:
                raise InputError(f"{self.file} was cut while it was read: start the run again")
            features[modality] = torch.from_numpy(flat).view(frames, width)
        return Encoded(row["seconds"], features)

    def update(self, encoded: dict[ClipKey, Encoded]) -> None:
        """Writes the features of a batch to the disk, and then that they are there."""
        with self.file.open("ab") as out:
            rows = [_write(out, key, own) for key, own in encoded.items()]
            out.flush()
            os.fsync(out.fileno())
        self.journal.add(rows)
        for row in rows:
            self.known[ClipKey(row["clip"], row["copy"])] = row

    def refuse(self, needed: int) -> None:
        """Refuses so many bytes of features if they are more than is free on the disk."""
        folder = self.file.parent
        free = shutil.disk_usage(folder).free
        _refuse(needed, free, f"disk in {folder}: choose a --feature-cache on a larger one")


Store = MemoryStore | FileStore


def _write(out: BinaryIO, key: ClipKey, encoded: Encoded) -> Row:
    """Appends the features of a clip, and returns where they are."""
    places = {}
    for modality, values in encoded.features.items():
        places[modality] = (out.tell(), *values.shape)
        out.write(values.numpy().astype(NUMBER).tobytes())
    return {
        "clip": key.clip,
        "copy": key.epoch,
        "seconds": encoded.seconds,
        "features": places,
        "end": out.tell(),
    }


@contextmanager
def opened_store(folder: Path | None, key: object) -> Iterator[Store]:
    """The store of what this key names in a feature cache, or an empty one in memory.

    Other processes wait until this one has finished with the file.
    """
    if folder is None:
        yield MemoryStore()
        return
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(repr((FORMAT, key)).encode()).hexdigest()[:16]
    lock = FileLock(folder / f".{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning("waiting for another process that encodes the same clips into %s", folder)
        lock.acquire()
    try:
        yield FileStore(folder / f"{name}.features")
    finally:
        lock.release()


class EncodedDataset(Dataset):
    """Clips with the features of a store, which has several augmented copies of each."""

    def __init__(self, clips: Sequence[Clip], copies: int, store: Store):
        self.clips = clips
        self.copies = copies
        self.store = store

    def __getitem__(self, key: ClipKey) -> EncodedClip | UnreadableClip:
        clip = self.clips[key.clip]
        encoded = self.store[ClipKey(key.clip, key.epoch % self.copies)]
        if not encoded.features:
            return UnreadableClip(clip.id)
        return EncodedClip(key, clip.id, clip.text, encoded.seconds, encoded.features)


def file_facts(path: Path) -> tuple[object, ...]:
    """What tells a file from another, or from itself after a change."""
    try:
        facts = path.stat()
    except OSError:  # it will be unreadable
        return (str(path.absolute()),)
    return str(path.absolute()), facts.st_size, facts.st_mtime_ns


def bytes_of_features(seconds: float, widths: Mapping[str, int]) -> int:
    """The size of the features of so much speech, from the width of each modality's encoder."""
    numbers = sum(FRAME_RATES[modality] * width for modality, width in widths.items())
    return round(seconds * numbers * NUMBER.itemsize)


def available_memory() -> int | None:
    """Bytes that this process can still take, as Linux says; None elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    (line,) = (line for line in lines if line.startswith("MemAvailable:"))
    available = int(line.split()[1]) * 1024
    limit = MEMORY_LIMIT.read_text().strip() if MEMORY_LIMIT.is_file() else "max"
    return available if limit == "max" else min(available, int(limit))


def _refuse(needed: int, available: int | None, of_what: str) -> None:
    """Refuses features that take more bytes than there are."""
    if available is not None and needed > available:
        raise InputError(
            f"the encoded clips take {needed / 1e9:.1f} GB, there are {available / 1e9:.1f} GB of "
            f"{of_what}, or --cache-copies 0 to encode clips in every step"
        )


def padded_features(clips: Sequence[dict[str, Tensor]]) -> Features:
    """The features (T, D) of several clips as the model takes them."""
    fields = {}
    for modality in clips[0]:
        rows = [clip[modality].float() for clip in clips]
        fields[modality] = pad_sequence(rows, batch_first=True)  # (B, T, D)
        fields[f"{modality}_lengths"] = torch.tensor([len(row) for row in rows])
    return Features(**fields)
