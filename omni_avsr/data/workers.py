"""Processes that read clips while a GPU computes: how many, and what is said when one dies."""

import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from traceback import clear_frames
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from omni_avsr.data.loading import ClipKey
from omni_avsr.errors import InputError
from omni_avsr.tasks import CROP_SIZE, SAMPLES_PER_VIDEO_FRAME

log = logging.getLogger(__name__)

MOST = 4  # processes for one GPU
AHEAD = 2  # batches that each of them has ready
FRAME_BYTES = 4 * (CROP_SIZE**2 + SAMPLES_PER_VIDEO_FRAME)  # of a frame and its sound, in float32
SHARED_MEMORY = Path("/dev/shm")  # through which batches come on Linux


def loader_of(
    dataset: Dataset,
    batches: Iterable[list[ClipKey]],
    collate: Callable[[Sequence[Any]], Any],
    workers: int,
    device: torch.device,
) -> DataLoader:
    """Loads batches for a device, ahead in so many processes.

    They come in pinned memory if it is a GPU, and draw nothing from the global generator.
    """
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        worker_init_fn=_leave_signals_to_the_run,
        generator=torch.Generator(),
    )


def workers_for(device: torch.device, max_frames: int) -> int:
    """How many processes read the clips of a device: none for a CPU, which computes meanwhile.

    A GPU has some of its share of the cores, and no more than the shared memory has room for.
    """
    if device.type != "cuda":
        return 0
    gpus = max(1, torch.cuda.device_count())
    cores = max(1, usable_cores() // gpus)
    if not SHARED_MEMORY.is_dir():
        return min(MOST, cores)
    free = shutil.disk_usage(SHARED_MEMORY).free // gpus
    room = free // ((AHEAD + 1) * max_frames * FRAME_BYTES)
    if room == 0:
        log.warning(
            "clips are not read ahead: %s has only %d MB free (docker run --shm-size gives more)",
            SHARED_MEMORY,
            free // 10**6,
        )
    return min(MOST, cores, room)


def usable_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _leave_signals_to_the_run(_: int) -> None:
    """Ignores what asks a run to save and to end, as the clips of its last step are still wanted.

    SLURM sends these signals to every process.
    """
    signal.signal(signal.SIGTERM, _ignore_once)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def _ignore_once(number: int, _: object) -> None:
    """The first of these signals was the run's; the next one ends this process."""
    signal.signal(number, signal.SIG_DFL)


@contextmanager
def told_of_workers() -> Iterator[None]:
    """Says in one sentence what goes wrong in the processes that read clips."""
    try:
        yield
    except (InputError, RuntimeError) as error:
        if "DataLoader worker" not in str(error):
            raise
        clear_frames(error.__traceback__)  # which would keep the other processes
        sentence = _sentence(str(error))
        if sentence is None:
            raise
        raise InputError(sentence) from None


def _sentence(raised: str) -> str | None:
    """What to say of an error that torch raises here; None if it is a mistake of ours.

    One that was raised in the other process comes with its traceback, and its words last.
    """
    _, mark, refused = raised.rpartition(f"{InputError.__module__}.InputError: ")
    if mark:
        return refused.strip()
    what = raised.partition(". ")[0]
    if not what.startswith("DataLoader worker"):
        return None
    return (
        f"a process that reads clips has died ({what}), as where memory, or shared memory in "
        f"{SHARED_MEMORY}, is too small: set fewer --workers, or 0"
    )
