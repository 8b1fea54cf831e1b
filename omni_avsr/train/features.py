"""Features that frozen encoders compute once: kept in memory, or in files for later runs.

The feature cache grows while clips are encoded, one batch at a time, and encoding that was
interrupted continues where it was. Training reads the features of a clip from the file.
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
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
from omni_avsr.files import Journal, read_rows
from omni_avsr.model import Features
from omni_avsr.tasks import FRAME_RATES, Row
from omni_avsr.train.processes import of_first, rank, wait_for_first

log = logging.getLogger(__name__)

FORMAT = 2  # of the files, and of how noise is made
HEADER: Row = {"format": FORMAT}  # of a journal
PATIENCE = 60  # seconds of waiting, after which a run's other processes hear of it
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

    def refuse(self, needed: int, processes: int = 1) -> None:
        """Refuses so many bytes of features if they are more than the memory of the processes."""
        _refuse(
            needed * processes,
            available_memory(),
            "memory: set --feature-cache FOLDER to keep them on a disk",
        )


class FileStore:
    """Keeps features in a file, and where each clip's are in a journal beside it.

    Of several processes one writes; the others read what it has written once it has finished.
    """

    def __init__(self, file: Path, writes: bool = True):
        self.file = file
        self.index = file.with_suffix(".jsonl")
        self.writes = writes
        self.known: dict[ClipKey, Row] = {}
        self.journal = Journal(self.index, HEADER) if writes else Journal()
        self.journal.rows = []  # they are read below, if they still hold
        self.reread()

    def reread(self) -> None:
        """Takes in what the file has by now."""
        size = self.file.stat().st_size if self.file.is_file() else 0
        rows = read_rows(self.index)
        if rows[:1] == [HEADER]:
            self._know(row for row in rows[1:] if row["end"] <= size)

    def _know(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.known[ClipKey(row["clip"], row["copy"])] = row

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
        if not (encoded and self.writes):
            return
        with self.file.open("ab") as out:
            rows = [_write(out, key, own) for key, own in encoded.items()]
            out.flush()
            os.fsync(out.fileno())
        self.journal.add(rows)
        self._know(rows)

    def refuse(self, needed: int, processes: int = 1) -> None:
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


def planned_store(folder: Path | None, key: Callable[[], object]) -> Store:
    """What opened_store will find; no file is written, and no lock is waited for."""
    if folder is None:
        return MemoryStore()
    folder.mkdir(parents=True, exist_ok=True)
    return FileStore(_file_in(folder, key()), writes=False)


@contextmanager
def opened_store(folder: Path | None, key: Callable[[], object]) -> Iterator[Store]:
    """The store of what this key names in a feature cache, or an empty one in memory.

    Other runs wait until this one has finished with the file. Of this one's processes the first
    writes; the others, perhaps on other machines, see in the end what it has written.
    """
    if folder is None:
        yield MemoryStore()
        return
    folder.mkdir(parents=True, exist_ok=True)
    file = of_first(lambda: _file_in(folder, key()))
    lock = FileLock(folder / f".{file.stem}.lock")
    patience = 0
    while not of_first(partial(_acquired, lock, patience)):
        patience = PATIENCE
    writes = rank() == 0
    store = FileStore(file, writes)
    try:
        yield store
        wait_for_first()
        if not writes:
            store.reread()
    finally:
        lock.release()


def _file_in(folder: Path, key: object) -> Path:
    name = hashlib.sha256(repr((FORMAT, key)).encode()).hexdigest()[:16]
    return folder / f"{name}.features"


def _acquired(lock: FileLock, patience: float) -> bool:
    """Whether the lock was free for this process, within so many seconds."""
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        if not patience:
            folder = Path(lock.lock_file).parent
            log.warning("waiting for another process that encodes the same clips into %s", folder)
        return False
    return True


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
